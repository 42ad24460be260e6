//! Upstream's event stream in the form that OpenAI's SDKs expect: no vendor events, and a terminal event that holds
//! the whole output.

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::{Value, json};

use super::collect::OutputItems;
use crate::intake::{JsonObject, Patch};
use crate::relay::Event;

/// Translates one answer.
#[derive(Debug, Default)]
pub(crate) struct OpenAiStream {
    items: OutputItems,
    /// The answer is larger than we gather, so what is gathered is not all of it.
    is_too_large: bool,
    /// The terminal event has just passed.
    is_finished: bool,
    begun: Begun,
    /// The number of the last event that was told.
    sequence_number: Option<u64>,
}

/// What the beginning of an answer says of it.
#[derive(Debug, Default, Deserialize)]
struct Begun {
    id: Option<String>,
    created_at: Option<Value>,
    model: Option<String>,
}

impl OpenAiStream {
    /// Hands over the items of the answer, each as JSON, once it is whole.
    pub(crate) fn take_finished(&mut self) -> Option<Vec<String>> {
        (std::mem::take(&mut self.is_finished) && !self.is_too_large).then(|| self.items.take())
    }

    /// Appends what the client gets of one event.
    pub(crate) fn translate(&mut self, event: Event<'_>, out: &mut Vec<u8>) {
        let kind = event.kind();
        // Events of upstream's own are no part of OpenAI's API, and comments are no part of an answer.
        if kind.starts_with("codex.") || event.data().is_empty() {
            return;
        }
        self.sequence_number = sequence_number(event.as_bytes()).or(self.sequence_number);
        if kind == "response.created" {
            self.begun = begun(&event.data()).unwrap_or_default();
        }
        // An answer too large to gather keeps upstream's terminal event; every item has been streamed.
        self.is_too_large |= !self.items.note(event);
        match kind {
            "response.completed" | "response.incomplete" | "response.done" => {
                self.is_finished = true;
                match self.terminal(event) {
                    Some(data) => {
                        out.extend_from_slice(b"event: ");
                        out.extend_from_slice(kind.as_bytes());
                        out.extend_from_slice(b"\ndata: ");
                        out.extend_from_slice(&data);
                        out.extend_from_slice(b"\n\n");
                    }
                    None => out.extend_from_slice(event.as_bytes()),
                }
            }
            _ => out.extend_from_slice(event.as_bytes()),
        }
    }

    /// The event that ends the answer with a failure of ours, as one more of this answer's.
    pub(crate) fn failure(&self, error: &Value) -> Bytes {
        let response = json!({
            "id": self.begun.id,
            "object": "response",
            "created_at": self.begun.created_at,
            "model": self.begun.model,
            "status": "failed",
            "output": [],
            "error": error,
        });
        let sequence_number = self.sequence_number.map_or(0, |last| last.saturating_add(1));
        let event = json!({"type": "response.failed", "sequence_number": sequence_number, "response": response});
        Bytes::from(format!("event: response.failed\ndata: {event}\n\n"))
    }

    /// The terminal event's data with the whole output.
    fn terminal(&self, event: Event<'_>) -> Option<Bytes> {
        if self.is_too_large {
            return None;
        }
        let data = JsonObject::parse(Bytes::from(event.data().into_owned())).ok()?;
        let filled = self.items.fill(data.raw("response")?)?;
        let filled = String::from_utf8(filled.into()).ok()?;
        Some(data.patched(&[("response", Patch::Set(filled))]))
    }
}

fn begun(data: &[u8]) -> Option<Begun> {
    #[derive(Deserialize)]
    struct Created {
        response: Begun,
    }
    serde_json::from_slice::<Created>(data).ok().map(|created| created.response)
}

/// The number of an event. Upstream writes it in front of everything that a model wrote, where a glance finds it.
fn sequence_number(event: &[u8]) -> Option<u64> {
    let key = br#""sequence_number":"#;
    let value = &event[memmem::find(event, key)? + key.len()..];
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::EventSplitter;

    #[test]
    fn an_answer_too_large_to_gather_is_neither_filled_nor_remembered_in_part() {
        let text = "x".repeat(8 * 1024 * 1024);
        let item = format!("event: response.output_item.done\ndata: {{\"item\":{{\"text\":\"{text}\"}}}}\n\n");
        let end = "event: response.completed\ndata: {\"response\":{\"output\":[],\"id\":\"r\"}}\n\n";
        let (mut stream, mut splitter) = (OpenAiStream::default(), EventSplitter::default());
        for _ in 0..9 {
            splitter.push(item.as_bytes(), |event| stream.translate(event, &mut Vec::new())).unwrap();
        }
        let mut out = Vec::new();
        splitter.push(end.as_bytes(), |event| stream.translate(event, &mut out)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), end);
        assert_eq!(stream.take_finished(), None);
    }

    #[test]
    fn vendor_events_are_dropped_the_rest_passes_and_the_end_is_complete() {
        let delta =
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";
        let item = "event: response.output_item.done\ndata: {\"type\":\"response.output_item.done\",\"item\":{\"id\":\"m\"}}\n\n";
        let end = "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":9,\"response\":{\"output\":[],\"id\":\"r\"}}\n\n";
        let vendor = "event: codex.rate_limits\ndata: {\"type\":\"codex.rate_limits\"}\n\n";
        let input = format!("{vendor}{delta}: comment\n\n{item}{end}");
        let mut stream = OpenAiStream::default();
        let mut out = Vec::new();
        EventSplitter::default().push(input.as_bytes(), |event| stream.translate(event, &mut out)).unwrap();
        let expected_end = end.replace("[]", "[{\"id\":\"m\"}]");
        assert_eq!(String::from_utf8(out).unwrap(), format!("{delta}{item}{expected_end}"));
    }

    #[test]
    fn a_failure_of_ours_is_one_more_event_of_the_answer() {
        let input = "data: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"created_at\":5,\"model\":\"m\"}}\n\n\
            data: {\"type\":\"response.output_text.delta\",\"sequence_number\":41,\"delta\":\"\\\"sequence_number\\\":7\"}\n\n";
        let mut stream = OpenAiStream::default();
        EventSplitter::default().push(input.as_bytes(), |event| stream.translate(event, &mut Vec::new())).unwrap();
        let told = stream.failure(&json!({"code": "stream_incomplete"}));
        let data = std::str::from_utf8(&told).unwrap().lines().nth(1).unwrap().strip_prefix("data: ").unwrap();
        let expected = json!({"type": "response.failed", "sequence_number": 42, "response": {"id": "resp_1",
            "object": "response", "created_at": 5, "model": "m", "status": "failed", "output": [],
            "error": {"code": "stream_incomplete"}}});
        assert_eq!(serde_json::from_str::<Value>(data).unwrap(), expected);
    }
}
