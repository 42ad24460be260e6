//! Upstream's event stream in the form that OpenAI's SDKs expect: no vendor events, and a terminal event that holds
//! the whole output.

use super::collect::OutputItems;
use crate::intake::{JsonObject, Patch};
use crate::relay::Event;
use bytes::Bytes;

/// Translates one answer.
#[derive(Debug, Default)]
pub(crate) struct OpenAiStream {
    items: OutputItems,
    /// The terminal event has just passed.
    is_finished: bool,
}

impl OpenAiStream {
    /// Hands over the items of the answer, each as JSON, once it is whole.
    pub(crate) fn take_finished(&mut self) -> Option<Vec<String>> {
        std::mem::take(&mut self.is_finished).then(|| self.items.take())
    }

    /// Appends what the client gets of one event.
    pub(crate) fn translate(&mut self, event: Event<'_>, out: &mut Vec<u8>) {
        let kind = event.kind();
        // Events of upstream's own are no part of OpenAI's API, and comments are no part of an answer.
        if kind.starts_with("codex.") || event.data().is_empty() {
            return;
        }
        // An answer too large to gather keeps upstream's terminal event; every item has been streamed.
        self.items.note(event);
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

    /// The terminal event's data with the whole output.
    fn terminal(&self, event: Event<'_>) -> Option<Bytes> {
        let data = JsonObject::parse(Bytes::from(event.data().into_owned())).ok()?;
        let filled = self.items.fill(data.raw("response")?)?;
        let filled = String::from_utf8(filled.into()).ok()?;
        Some(data.patched(&[("response", Patch::Set(filled))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::EventSplitter;

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
}
