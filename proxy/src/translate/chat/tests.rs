//! Chat Completions, translated both ways.

mod golden;
mod laws;
mod requests;

use bytes::Bytes;
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::domain::models::ModelCatalog;
use codex_lb_shared::ids::ExchangeId;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{ChatAnswer, ChatCollector, ChatStream};
use crate::rejection::Rejection;
use crate::relay::EventSplitter;
use crate::route::Endpoint;
use crate::translate::{Collected, Inquiry, PreparedRequest};

const REQUESTED_AT: Timestamp = Timestamp::from_unix_ms(1_754_000_000_123);

fn id() -> ExchangeId {
    ExchangeId::from_u128(7)
}

/// What a request becomes.
fn prepared(body: &[u8]) -> Result<PreparedRequest, Rejection> {
    let mut catalog = ModelCatalog::default();
    catalog.merge_plan(Plan::Plus, vec![json!({"slug": "gpt-5.5"})]);
    let (headers, body) = (HeaderMap::new(), Bytes::copy_from_slice(body));
    let inquiry = Inquiry {
        endpoint: Endpoint::ChatCompletions,
        method: &Method::POST,
        query: None,
        headers: &headers,
        body: &body,
        caller_scope: "key:1",
        replay_store: &crate::replay_store::ReplayStore::off(),
    };
    crate::translate::prepare(&inquiry, &catalog)
}

fn answer() -> ChatAnswer {
    ChatAnswer { model: "gpt-5.5".to_owned(), has_legacy_calls: false, tells_usage: true }
}

/// What a client gets of a stream that comes in these pieces.
fn streamed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, answer: ChatAnswer) -> String {
    let mut stream = ChatStream::new(answer, id(), REQUESTED_AT);
    let (mut splitter, mut out) = (EventSplitter::default(), Vec::new());
    for piece in pieces {
        splitter.push(piece, |event| stream.translate(event, &mut out)).unwrap();
    }
    String::from_utf8(out).unwrap()
}

fn collected(events: &[u8], answer: ChatAnswer) -> Collected {
    let mut collector = ChatCollector::new(answer, id(), REQUESTED_AT);
    let mut collected = Collected::More;
    EventSplitter::default()
        .push(events, |event| {
            if collected == Collected::More {
                collected = collector.collect(event);
            }
        })
        .unwrap();
    collected
}

/// The completion that these events make.
fn completion(events: &[u8], answer: ChatAnswer) -> Value {
    match collected(events, answer) {
        Collected::Done(completion) => serde_json::from_slice(&completion).unwrap(),
        other @ (Collected::More | Collected::Failed(_) | Collected::TooLarge) => panic!("{other:?}"),
    }
}

/// The events as upstream frames them.
fn framed(events: &[Value]) -> String {
    let kind = |event: &Value| event["type"].as_str().unwrap_or("message").to_owned();
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", kind(event))).collect()
}

/// The message that a client puts together from chunks, by OpenAI's rules: texts are added up, and so are the lists of
/// calls and details by their index.
fn reassembled(stream: &str) -> Value {
    let mut message = json!({});
    for line in stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(line).unwrap();
        if let Some(delta) = chunk["choices"].get(0).map(|choice| &choice["delta"]) {
            merge(&mut message, delta);
        }
    }
    message
}

fn merge(into: &mut Value, delta: &Value) {
    match (into, delta) {
        (Value::Object(members), Value::Object(delta)) => {
            for (name, value) in delta {
                // These say what the text is about, and are no text that grows.
                let is_fixed = matches!(name.as_str(), "index" | "type" | "id" | "format" | "role");
                match members.get_mut(name) {
                    Some(known) if !is_fixed => merge(known, value),
                    Some(_) | None => drop(members.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Array(items), Value::Array(delta)) => {
            for item in delta {
                match items.iter_mut().find(|known| known["index"].is_u64() && known["index"] == item["index"]) {
                    Some(known) => merge(known, item),
                    None => items.push(item.clone()),
                }
            }
        }
        (Value::String(text), Value::String(delta)) => text.push_str(delta),
        (into, delta) => *into = delta.clone(),
    }
}
