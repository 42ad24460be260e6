//! Files live on the account that took them. A pin remembers which one, for the caller that uploaded: to anybody else
//! the file's id is unknown.

use std::sync::Arc;

use bytes::Bytes;
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::ids::AccountId;
use memchr::memmem;
use serde_json::Value;

use crate::affinity::{Conversation, StickySessions};
use crate::rejection::Rejection;

/// Schemes by which ChatGPT's own clients name a file where others put a url.
const FILE_SCHEMES: [&str; 2] = ["sediment://", "file-service://"];

/// Which account holds which file of which caller: remembered for half an hour after its last use, beside the sticky
/// sessions, so that other replicas know within two seconds.
pub(crate) struct FilePins {
    sessions: Arc<StickySessions>,
}

impl FilePins {
    pub(crate) const fn new(sessions: Arc<StickySessions>) -> Self {
        Self { sessions }
    }

    /// The caller's file is held by this account.
    pub(crate) fn pin(&self, caller_scope: &str, file_id: &str, account: AccountId, now: Timestamp) {
        self.sessions.remember(&Conversation::of_file(caller_scope, file_id), account, now);
    }

    /// The account that holds a file.
    ///
    /// # Errors
    /// 404 when this caller has no such file, whoever else may have it.
    pub(crate) fn owner_of_file(&self, file_id: &str, caller_scope: &str) -> Result<AccountId, Rejection> {
        self.find(caller_scope, file_id).ok_or_else(|| Rejection::file_not_found(file_id, None))
    }

    fn find(&self, caller_scope: &str, file_id: &str) -> Option<AccountId> {
        let file = Conversation::of_file(caller_scope, file_id);
        let account = self.sessions.find(&file)?;
        self.sessions.remember(&file, account, clock::now());
        Some(account)
    }

    /// The account that holds the files which a Responses body refers to, if it refers to any.
    ///
    /// # Errors
    /// 404 naming a file that this caller does not have, 400 when no account has them all.
    pub(crate) fn owner_of(&self, body: &Bytes, caller_scope: &str) -> Result<Option<AccountId>, Rejection> {
        if !may_refer_to_files(body) {
            return Ok(None);
        }
        // A body that is not understood here is refused elsewhere.
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Ok(None) };
        let mut references = Vec::new();
        find_references(&body, String::new(), &mut references);
        let mut owner = None;
        for Reference { file_id, place } in references {
            let held_by = self.find(caller_scope, &file_id);
            let held_by = held_by.ok_or_else(|| Rejection::file_not_found(&file_id, Some(&place)))?;
            if owner.is_some_and(|owner| owner != held_by) {
                return Err(Rejection::files_apart(&place));
            }
            owner = Some(held_by);
        }
        Ok(owner)
    }
}

/// Whether a body has to be read for references. Most need not: a look at the bytes tells. The names could be spelt
/// with escapes, which hardly anybody does for printable characters, so whoever does is read too.
fn may_refer_to_files(body: &[u8]) -> bool {
    let names = ["file_id", FILE_SCHEMES[0], FILE_SCHEMES[1]];
    let has_escaped_letter =
        || memmem::find_iter(body, b"\\u00").any(|at| matches!(body.get(at + 4), Some(b'2'..=b'7')));
    names.iter().any(|name| memmem::find(body, name.as_bytes()).is_some()) || has_escaped_letter()
}

/// A file that a body refers to, and where it does.
struct Reference {
    file_id: String,
    place: String,
}

/// Finds the files that upstream would look up. Citations only quote: they stand in what a model once answered.
fn find_references(value: &Value, place: String, found: &mut Vec<Reference>) {
    let named = |file_id: &str, place: String| Reference { file_id: file_id.to_owned(), place };
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                find_references(item, format!("{place}[{index}]"), found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members.iter().filter(|(name, _)| *name != "annotations") {
                let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                match (name.as_str(), member) {
                    ("file_id", Value::String(file_id)) => found.push(named(file_id, place)),
                    ("file_ids", Value::Array(ids)) => {
                        found.extend(ids.iter().filter_map(Value::as_str).map(|id| named(id, place.clone())));
                    }
                    ("image_url" | "file_url", Value::String(url)) => {
                        let file_id = FILE_SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
                        found.extend(file_id.map(|id| named(id, place)));
                    }
                    _ => find_references(member, place, found),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ONE: AccountId = AccountId::from_u128(1);
    const TWO: AccountId = AccountId::from_u128(2);

    fn pins() -> FilePins {
        let pins = FilePins::new(Arc::new(StickySessions::new()));
        for (file_id, account) in [("file_a", ONE), ("file_b", ONE), ("file_c", TWO)] {
            pins.pin("key:1", file_id, account, clock::now());
        }
        pins
    }

    fn owner(body: &Value, caller_scope: &str) -> Result<Option<AccountId>, (u16, Option<String>)> {
        let found = pins().owner_of(&Bytes::from(body.to_string()), caller_scope);
        found.map_err(|rejection| (rejection.status, rejection.param))
    }

    fn input(part: &Value) -> Value {
        json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, part]}]})
    }

    #[test]
    fn a_body_goes_to_the_account_that_holds_its_files() {
        let file = |id: &str| json!({"type": "input_file", "file_id": id});
        assert_eq!(owner(&input(&file("file_a")), "key:1"), Ok(Some(ONE)));
        assert_eq!(owner(&input(&file("file_c")), "key:1"), Ok(Some(TWO)));
        assert_eq!(owner(&json!({"input": [file("file_a"), file("file_b")]}), "key:1"), Ok(Some(ONE)));
        let apart = owner(&json!({"input": [file("file_a"), file("file_c")]}), "key:1");
        assert_eq!(apart, Err((400, Some("input[1].file_id".to_owned()))));
        let mask = json!({"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file_a"}}]});
        assert_eq!(owner(&mask, "key:1"), Ok(Some(ONE)));
        let many = json!({"tools": [{"type": "code_interpreter", "container": {"file_ids": ["file_c"]}}]});
        assert_eq!(owner(&many, "key:1"), Ok(Some(TWO)));
        let url = input(&json!({"type": "input_image", "image_url": "sediment://file_a"}));
        assert_eq!(owner(&url, "key:1"), Ok(Some(ONE)));
    }

    #[test]
    fn another_caller_s_file_is_unknown_however_it_is_named() {
        let place = Some("input[0].content[1].file_id".to_owned());
        for caller_scope in ["key:2", "keyless:127.0.0.1"] {
            let named = owner(&input(&json!({"type": "input_file", "file_id": "file_a"})), caller_scope);
            assert_eq!(named, Err((404, place.clone())));
        }
        assert_eq!(pins().owner_of_file("file_a", "key:2").unwrap_err().status, 404);
        assert_eq!(pins().owner_of_file("file_z", "key:1").unwrap_err().status, 404);
        for escaped in
            [r#"{"input":[{"f\u0069le_id":"file_a"}]}"#, r#"{"input":[{"image_url":"sediment\u003a//file_a"}]}"#]
        {
            let found = pins().owner_of(&Bytes::copy_from_slice(escaped.as_bytes()), "key:2");
            assert_eq!(found.unwrap_err().status, 404, "{escaped}");
        }
    }

    #[test]
    fn what_only_looks_like_a_file_is_let_through() {
        let bodies = [
            json!({"input": "what is a file_id?"}),
            json!({"tools": [{"parameters": {"properties": {"file_id": {"type": "string"}}}}]}),
            input(&json!({"type": "output_text", "annotations": [{"type": "file_citation", "file_id": "file_z"}]})),
            input(&json!({"type": "input_image", "image_url": "https://example.com/file_id"})),
            json!({"input": "\u{1b}[0m"}),
        ];
        for body in bodies {
            assert_eq!(owner(&body, "key:1"), Ok(None), "{body}");
        }
    }
}
