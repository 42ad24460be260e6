//! What callers were asked and answered lately, so that they may refer to it: upstream keeps nothing, but OpenAI's
//! clients name earlier responses (`previous_response_id`) and earlier items (`item_reference`).
//!
//! In memory only, bounded, and keyed by the caller: another caller's ids are unknown. A miss is told, never guessed.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use codex_lb_shared::config::ReplayConfig;
use memchr::memmem;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::affinity::{item_key, response_key};
use crate::intake::{JsonObject, Patch, json_string};
use crate::rejection::Rejection;

/// Responses that one conversation may go back over.
const TURNS_MAX: usize = 10_000;
/// What an entry takes beside what it holds, as far as that can be told.
const ENTRY_BYTES: usize = 200;

/// The type of an item that stands for an earlier one.
const REFERENCE: &str = "item_reference";

type Key = [u8; 16];

/// Remembers what was asked and answered.
pub(crate) struct ReplayStore {
    entries: Cache<Key, Entry>,
    is_on: bool,
    conversation_bytes_max: usize,
}

#[derive(Clone)]
enum Entry {
    Turn(Arc<Turn>),
    /// An item of an answer, as JSON.
    Item(Arc<str>),
}

struct Turn {
    previous: Option<Key>,
    /// What was new in the request: items as JSON, separated by commas.
    input: String,
    /// The items of the answer, in order.
    output: Vec<Key>,
}

/// What a request added to its conversation. It is remembered together with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewTurn {
    previous: Option<Key>,
    input: String,
}

impl NewTurn {
    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.input.len()
    }
}

/// What is new in a request: items as JSON, separated by commas.
#[derive(Default)]
struct Input {
    items: String,
    /// Whether something stands in the place of a reference.
    has_references: bool,
}

#[derive(Deserialize)]
struct ItemHead<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
}

impl ItemHead<'_> {
    /// The id of the item that this one stands for.
    fn referred(&self) -> Option<&str> {
        (self.kind.as_deref() == Some(REFERENCE)).then(|| self.id.as_deref().unwrap_or_default())
    }
}

impl ReplayStore {
    /// A store within the configured bounds, for conversations that make bodies of at most so many bytes.
    pub(crate) fn new(config: &ReplayConfig, conversation_bytes_max: usize) -> Self {
        let weigh = |_: &Key, entry: &Entry| u32::try_from(entry.bytes()).unwrap_or(u32::MAX);
        let entries = Cache::builder()
            .eviction_policy(EvictionPolicy::lru())
            .weigher(weigh)
            .max_capacity(config.bytes_max as u64)
            .time_to_idle(config.idle);
        Self { entries: entries.build(), is_on: config.bytes_max > 0, conversation_bytes_max }
    }

    /// A store that keeps nothing.
    #[cfg(test)]
    pub(crate) fn off() -> Self {
        let idle = std::time::Duration::from_secs(1);
        Self::new(&ReplayConfig { bytes_max: 0, idle }, usize::MAX)
    }

    /// How much a request refers to: so many bytes it will grow by. Nothing is built for it.
    ///
    /// # Errors
    /// 413 when that alone is more than a body may have. What is not known is told by [`Self::resolve`].
    pub(crate) fn referred_bytes(&self, body: &Bytes, caller_scope: &str) -> Result<u64, Rejection> {
        let names = |name: &str| memmem::find(body, name.as_bytes()).is_some();
        if !names("previous_response_id") && !names(REFERENCE) {
            return Ok(0);
        }
        // What is wrong with a body is told by whoever translates it.
        let Ok(object) = JsonObject::parse(body.clone()) else { return Ok(0) };
        let mut bytes = 0;
        if let Ok(Some(previous)) = object.get::<String>("previous_response_id", "a string") {
            for turn in self.turns(response_key(caller_scope, &previous)).unwrap_or_default() {
                bytes += turn.input.len();
                for key in &turn.output {
                    bytes += self.entries.get(key).map_or(0, |entry| entry.bytes());
                }
                self.check_size(bytes)?;
            }
        }
        let items = object.raw("input").and_then(|raw| serde_json::from_str::<Vec<ItemHead<'_>>>(raw).ok());
        for id in items.iter().flatten().filter_map(ItemHead::referred) {
            bytes += self.entries.get(&item_key(caller_scope, id)).map_or(0, |entry| entry.bytes());
            self.check_size(bytes)?;
        }
        Ok(bytes as u64)
    }

    fn check_size(&self, bytes: usize) -> Result<(), Rejection> {
        if bytes > self.conversation_bytes_max {
            return Err(Rejection::payload_too_large(self.conversation_bytes_max as u64));
        }
        Ok(())
    }

    /// Puts into a request what it refers to, and says what is new in it; `None` if that is not to be remembered.
    ///
    /// # Errors
    /// 400 naming what is not known, 413 when the conversation has grown too large.
    pub(crate) fn resolve(
        &self,
        object: JsonObject,
        caller_scope: &str,
    ) -> Result<(JsonObject, Option<NewTurn>), Rejection> {
        let previous_id: Option<String> = object.get("previous_response_id", "a string")?;
        let is_kept = self.is_on && object.get("store", "a boolean")?.unwrap_or(true);
        let raw = object.raw("input").unwrap_or("null");
        let may_refer = memmem::find(raw.as_bytes(), REFERENCE.as_bytes()).is_some();
        if previous_id.is_none() && !may_refer && !is_kept {
            return Ok((object, None));
        }
        let Input { items: input, has_references } = self.input(raw, caller_scope)?;
        let previous = previous_id.as_deref().map(|id| response_key(caller_scope, id));
        let resolved = match previous {
            None if !has_references => object,
            None => patched(&object, &input)?,
            Some(previous) => {
                let mut all = self.conversation(previous)?;
                push(&mut all, &input);
                patched(&object, &all)?
            }
        };
        self.check_size(resolved.as_bytes().len())?;
        Ok((resolved, is_kept.then_some(NewTurn { previous, input })))
    }

    /// Remembers a turn with its answer.
    pub(crate) fn remember(&self, caller_scope: &str, response_id: &str, turn: NewTurn, answer: Vec<String>) {
        let mut output = Vec::with_capacity(answer.len());
        for (index, item) in answer.into_iter().enumerate() {
            let head = serde_json::from_str::<ItemHead<'_>>(&item).ok();
            let key = match head.and_then(|head| head.id) {
                Some(id) => item_key(caller_scope, &id),
                None => item_key(caller_scope, &format!("{response_id}/{index}")),
            };
            self.entries.insert(key, Entry::Item(Arc::from(item)));
            output.push(key);
        }
        let NewTurn { previous, input } = turn;
        let turn = Arc::new(Turn { previous, input, output });
        self.entries.insert(response_key(caller_scope, response_id), Entry::Turn(turn));
    }

    /// What `input` holds, with what it refers to in the place of references.
    fn input(&self, raw: &str, caller_scope: &str) -> Result<Input, Rejection> {
        if raw == "null" {
            return Ok(Input::default());
        }
        if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(raw) {
            let items = format!(r#"{{"type":"message","role":"user","content":{}}}"#, json_string(&text));
            return Ok(Input { items, has_references: false });
        }
        let wrong_type =
            |_| Rejection::invalid_value("input", "Invalid type for 'input': expected a string or an array of items.");
        let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(wrong_type)?;
        let mut input = Input { items: String::with_capacity(raw.len()), has_references: false };
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                input.items.push(',');
            }
            // What is no item at all is refused by whoever translates it.
            let head = serde_json::from_str::<ItemHead<'_>>(item.get()).ok();
            match head.as_ref().and_then(ItemHead::referred) {
                None => input.items.push_str(item.get()),
                Some(id) => match self.entries.get(&item_key(caller_scope, id)) {
                    Some(Entry::Item(known)) => {
                        input.has_references = true;
                        self.check_size(input.items.len() + known.len())?;
                        input.items.push_str(&known);
                    }
                    Some(Entry::Turn(_)) | None => return Err(Rejection::item_not_found(index, id)),
                },
            }
        }
        Ok(input)
    }

    /// Everything up to and with this response: items, separated by commas.
    fn conversation(&self, last: Key) -> Result<String, Rejection> {
        let mut joined = String::new();
        for turn in self.turns(last).ok_or_else(Rejection::previous_response_not_found)?.into_iter().rev() {
            push(&mut joined, &turn.input);
            for key in &turn.output {
                let Some(Entry::Item(item)) = self.entries.get(key) else {
                    return Err(Rejection::previous_response_not_found());
                };
                self.check_size(joined.len() + item.len())?;
                push(&mut joined, &item);
            }
        }
        Ok(joined)
    }

    /// The turns up to and with this one, the last first; `None` when one of them is not known.
    fn turns(&self, last: Key) -> Option<Vec<Arc<Turn>>> {
        let mut turns = Vec::new();
        let mut next = Some(last);
        while let Some(key) = next {
            let Some(Entry::Turn(turn)) = self.entries.get(&key) else { return None };
            next = turn.previous;
            turns.push(turn);
            if turns.len() > TURNS_MAX {
                return None;
            }
        }
        Some(turns)
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Turn(turn) => turn.input.len() + turn.output.len() * size_of::<Key>(),
                Self::Item(item) => item.len(),
            }
    }
}

fn push(joined: &mut String, items: &str) {
    if !joined.is_empty() && !items.is_empty() {
        joined.push(',');
    }
    joined.push_str(items);
}

fn patched(object: &JsonObject, items: &str) -> Result<JsonObject, Rejection> {
    let patches = [("input", Patch::Set(format!("[{items}]"))), ("previous_response_id", Patch::Remove)];
    JsonObject::parse(object.patched(&patches))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    const CALLER: &str = "key:1";

    fn store(bytes_max: usize) -> ReplayStore {
        ReplayStore::new(&ReplayConfig { bytes_max, idle: Duration::from_secs(60) }, 1_000_000)
    }

    fn object(body: &Value) -> JsonObject {
        JsonObject::parse(Bytes::from(body.to_string())).unwrap()
    }

    fn resolved(store: &ReplayStore, caller: &str, body: &Value) -> Result<(Value, Option<NewTurn>), Rejection> {
        let (object, turn) = store.resolve(object(body), caller)?;
        Ok((serde_json::from_slice(object.as_bytes()).unwrap(), turn))
    }

    /// Asks, is answered with these items under this id, and returns what went upstream.
    fn exchange(store: &ReplayStore, body: &Value, response_id: &str, answer: &[Value]) -> Value {
        let (sent, turn) = resolved(store, CALLER, body).unwrap();
        store.remember(CALLER, response_id, turn.unwrap(), answer.iter().map(Value::to_string).collect());
        sent
    }

    #[test]
    fn a_conversation_goes_on_from_its_last_response() {
        let store = store(1 << 20);
        let user = |text: &str| json!({"type": "message", "role": "user", "content": text});
        let answer = |id: &str| json!({"type": "message", "id": id, "role": "assistant", "content": []});
        let first = json!({"model": "m", "input": "one"});
        assert_eq!(exchange(&store, &first, "r1", &[json!({"type": "reasoning"}), answer("a1")]), first);
        let second = json!({"model": "m", "previous_response_id": "r1", "input": [user("two"), user("three")]});
        let sent = exchange(&store, &second, "r2", &[answer("a2")]);
        let so_far = json!([user("one"), {"type": "reasoning"}, answer("a1"), user("two"), user("three")]);
        assert_eq!(sent, json!({"model": "m", "input": so_far}));
        let third = json!({"previous_response_id": "r2"});
        let input = resolved(&store, CALLER, &third).unwrap().0["input"].clone();
        assert_eq!(input.as_array().unwrap().len(), 6);
        // Another branch of the same conversation.
        let other = json!({"previous_response_id": "r1", "input": "else"});
        assert_eq!(resolved(&store, CALLER, &other).unwrap().0["input"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_reference_becomes_its_item_and_a_turn_keeps_what_it_stood_for() {
        let store = store(1 << 20);
        let call = json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"});
        exchange(&store, &json!({"input": "go"}), "r1", std::slice::from_ref(&call));
        let output = json!({"type": "function_call_output", "call_id": "c", "output": "1"});
        let reference = json!({"type": "item_reference", "id": "fc_1"});
        let sent = resolved(&store, CALLER, &json!({"input": [reference, output]})).unwrap().0;
        assert_eq!(sent, json!({"input": [call, output]}));
        exchange(&store, &json!({"input": [{"type": "item_reference", "id": "fc_1"}, output]}), "r2", &[]);
        let third = json!({"previous_response_id": "r2", "input": "and"});
        assert_eq!(resolved(&store, CALLER, &third).unwrap().0["input"][0], call);
    }

    #[test]
    fn what_is_unknown_is_named_also_when_it_is_another_caller_s() {
        let store = store(1 << 20);
        exchange(&store, &json!({"input": "x"}), "r1", &[json!({"id": "i1"})]);
        let refused = |caller: &str, body: Value| {
            let rejection = resolved(&store, caller, &body).unwrap_err();
            (rejection.status, rejection.code, rejection.param.unwrap())
        };
        let previous = |id: &str| json!({"previous_response_id": id, "input": "y"});
        let not_found = (400, "previous_response_not_found", "previous_response_id".to_owned());
        assert_eq!(refused("key:2", previous("r1")), not_found);
        assert_eq!(refused(CALLER, previous("r2")), not_found);
        assert_eq!(refused(CALLER, previous("i1")), not_found);
        let reference = |id: &str| json!({"input": ["x", {"type": "item_reference", "id": id}]});
        for (caller, id) in [("key:2", "i1"), (CALLER, "i2"), (CALLER, "r1"), (CALLER, "")] {
            assert_eq!(refused(caller, reference(id)).2, "input[1]", "{caller} {id}");
        }
    }

    #[test]
    fn nothing_is_kept_when_the_client_or_the_operator_does_not_want_it() {
        let kept = |store: &ReplayStore, body: Value| resolved(store, CALLER, &body).unwrap().1.is_some();
        assert!(kept(&store(1 << 20), json!({"input": "x"})));
        assert!(kept(&store(1 << 20), json!({"input": "x", "store": true})));
        assert!(!kept(&store(1 << 20), json!({"input": "x", "store": false})));
        assert!(!kept(&store(0), json!({"input": "x", "store": true})));
    }

    #[test]
    fn memory_is_bounded_and_a_forgotten_turn_is_a_miss() {
        let store = store(20_000);
        let large = "x".repeat(1_000);
        for index in 0..100 {
            let item = json!({"id": format!("i{index}"), "text": large});
            exchange(&store, &json!({"input": large}), &format!("r{index}"), &[item]);
        }
        store.entries.run_pending_tasks();
        assert!(store.entries.weighted_size() <= 20_000, "{}", store.entries.weighted_size());
        let is_known = |index: &usize| {
            let body = json!({"previous_response_id": format!("r{index}"), "input": "y"});
            resolved(&store, CALLER, &body).is_ok()
        };
        let known: Vec<usize> = (0..100).filter(is_known).collect();
        assert!(known.contains(&99) && !known.contains(&0) && known.len() <= 10, "the newest are kept: {known:?}");
    }

    #[test]
    fn what_a_request_refers_to_is_measured_before_it_is_built() {
        let store = ReplayStore::new(&ReplayConfig { bytes_max: 1 << 20, idle: Duration::from_secs(60) }, 50_000);
        exchange(&store, &json!({"input": "x".repeat(2_000)}), "r1", &[json!({"id": "i1", "t": "y".repeat(3_000)})]);
        let measured = |body: &Value| store.referred_bytes(&Bytes::from(body.to_string()), CALLER);
        assert_eq!(measured(&json!({"input": "x".repeat(9_000)})).unwrap(), 0);
        assert_eq!(measured(&json!({"previous_response_id": "unknown"})).unwrap(), 0);
        let grows = measured(&json!({"previous_response_id": "r1", "input": "y"})).unwrap();
        assert!((5_000..6_000).contains(&grows), "{grows}");
        let references = |count: usize| json!({"input": vec![json!({"type": "item_reference", "id": "i1"}); count]});
        let grows = measured(&references(10)).unwrap();
        assert!((30_000..35_000).contains(&grows), "{grows}");
        assert_eq!(measured(&references(10_000)).unwrap_err().status, 413);
        assert_eq!(resolved(&store, CALLER, &references(10_000)).unwrap_err().status, 413);
    }

    #[test]
    fn a_conversation_that_has_grown_too_large_is_refused() {
        let store = ReplayStore::new(&ReplayConfig { bytes_max: 1 << 20, idle: Duration::from_secs(60) }, 300);
        exchange(&store, &json!({"input": "x".repeat(150)}), "r1", &[]);
        let body = json!({"previous_response_id": "r1", "input": "y".repeat(150)});
        assert_eq!(resolved(&store, CALLER, &body).unwrap_err().status, 413);
    }
}
