//! One JSON object out of an event stream, for clients that did not ask for a stream.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::intake::{JsonObject, Patch};
use crate::relay::Event;

/// Largest answer that is collected.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The finished output items of an answer, gathered from their events, because upstream's terminal event holds none.
#[derive(Debug, Default)]
pub(crate) struct OutputItems {
    items: Vec<String>,
    bytes: usize,
}

/// What an event did to a collected answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Collected {
    /// The answer goes on.
    More,
    /// The answer ended; this is its `response` object with all its output.
    Done(Bytes),
    /// The answer failed; this is the event's data.
    Failed(Bytes),
    /// The answer is larger than we hold.
    TooLarge,
}

impl OutputItems {
    /// Takes note of a finished item. `false` when the answer is larger than we hold.
    pub(crate) fn note(&mut self, event: Event<'_>) -> bool {
        #[derive(serde::Deserialize)]
        struct ItemDone<'a> {
            #[serde(borrow)]
            item: &'a RawValue,
        }
        if event.kind() == "response.output_item.done"
            && let Ok(done) = serde_json::from_slice::<ItemDone<'_>>(&event.data())
        {
            self.bytes += done.item.get().len();
            if self.bytes > OUTPUT_BYTES_MAX {
                return false;
            }
            self.items.push(done.item.get().to_owned());
        }
        true
    }

    /// The terminal event's `response` object with the items as its output, if upstream left that empty.
    pub(crate) fn fill(&self, response: &str) -> Option<Bytes> {
        let object = JsonObject::parse(Bytes::copy_from_slice(response.as_bytes())).ok()?;
        let is_empty = object.raw("output").is_none_or(|raw| matches!(raw.trim(), "null") || is_empty_array(raw));
        if is_empty {
            Some(object.patched(&[("output", Patch::Set(format!("[{}]", self.items.join(","))))]))
        } else {
            Some(object.as_bytes().clone())
        }
    }

    /// Hands over the items gathered so far, each as JSON.
    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.items)
    }

    /// Looks at one event of an answer that is collected whole.
    pub(crate) fn collect(&mut self, event: Event<'_>) -> Collected {
        if !self.note(event) {
            return Collected::TooLarge;
        }
        match event.kind() {
            "response.completed" | "response.incomplete" | "response.done" => self
                .response_of(event)
                .and_then(|response| self.fill(&response))
                .map_or(Collected::More, Collected::Done),
            "response.failed" | "error" => Collected::Failed(Bytes::from(event.data().into_owned())),
            _ => Collected::More,
        }
    }

    fn response_of(&self, event: Event<'_>) -> Option<String> {
        let data = JsonObject::parse(Bytes::from(event.data().into_owned())).ok()?;
        data.raw("response").filter(|response| response.starts_with('{')).map(str::to_owned)
    }
}

/// Whether a JSON text is an array without items.
fn is_empty_array(raw: &str) -> bool {
    raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|inside| inside.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::EventSplitter;

    fn collected(text: &str) -> Collected {
        let mut items = OutputItems::default();
        let mut last = Collected::More;
        let mut splitter = EventSplitter::default();
        splitter.push(text.as_bytes(), |event| last = items.collect(event)).unwrap();
        last
    }

    #[test]
    fn an_answer_is_collected_from_its_items_because_the_terminal_event_holds_none() {
        let item = r#"{"type":"message","id":"m","content":[{"type":"output_text","text":"hi"}]}"#;
        let done = format!(
            "event: response.output_item.done\ndata: {{\"type\":\"response.output_item.done\",\"item\":{item}}}\n\n"
        );
        let end = r#"{"type":"response.completed","response":{"id":"r","z":1,"output":[ ],"a":2}}"#;
        let text = format!("{done}{done}event: response.completed\ndata: {end}\n\n");
        let expected = format!(r#"{{"id":"r","z":1,"output":[{item},{item}],"a":2}}"#);
        assert_eq!(collected(&text), Collected::Done(Bytes::from(expected)));
    }

    #[test]
    fn output_that_upstream_did_send_is_kept() {
        let end = r#"{"type":"response.incomplete","response":{"output":[{"id":"x"}],"status":"incomplete"}}"#;
        let expected = r#"{"output":[{"id":"x"}],"status":"incomplete"}"#;
        assert_eq!(collected(&format!("data: {end}\n\n")), Collected::Done(Bytes::from(expected)));
    }

    #[test]
    fn a_failure_is_told() {
        let end = r#"{"type":"response.failed","response":{"error":{"code":"x"}}}"#;
        assert_eq!(collected(&format!("data: {end}\n\n")), Collected::Failed(Bytes::from(end)));
    }
}
