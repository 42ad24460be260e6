//! The events of a Responses stream, field by field in upstream's order.
//!
//! [`EventWriter`] numbers them and collects the steps; what to say is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::plan::Step;
use super::render::{DeltaRun, Pieces};
use crate::script::Usage;

/// An output item.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    Message {
        id: String,
        status: &'static str,
        content: Vec<Part>,
        role: &'static str,
    },
    Reasoning {
        id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        encrypted_content: Option<String>,
        summary: Vec<Part>,
    },
    FunctionCall {
        id: String,
        status: &'static str,
        arguments: String,
        call_id: String,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
    CustomToolCall {
        id: String,
        status: &'static str,
        call_id: String,
        input: String,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
    Compaction {
        id: String,
        encrypted_content: String,
    },
}

/// A part of a message or of a reasoning summary.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part {
    OutputText { annotations: [u8; 0], logprobs: [u8; 0], text: String },
    SummaryText { text: String },
}

impl Part {
    pub(crate) fn output(text: &str) -> Self {
        Self::OutputText { annotations: [], logprobs: [], text: text.to_owned() }
    }
}

/// The `response` object inside of the first events and the last one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ResponseObject<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created_at: u64,
    pub(crate) status: &'static str,
    pub(crate) background: bool,
    pub(crate) completed_at: Option<u64>,
    pub(crate) error: Option<ResponseError<'a>>,
    pub(crate) incomplete_details: Option<IncompleteDetails<'a>>,
    pub(crate) instructions: Option<&'a str>,
    pub(crate) max_output_tokens: Option<u64>,
    pub(crate) max_tool_calls: Option<u64>,
    pub(crate) model: &'a str,
    // Empty even when completed; upstream never repeats the items.
    pub(crate) output: [u8; 0],
    pub(crate) parallel_tool_calls: bool,
    pub(crate) previous_response_id: Option<&'a str>,
    pub(crate) prompt_cache_key: Option<&'a str>,
    pub(crate) reasoning: Value,
    pub(crate) safety_identifier: Option<&'a str>,
    pub(crate) service_tier: &'a str,
    pub(crate) store: bool,
    pub(crate) temperature: f64,
    pub(crate) text: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_usage: Option<&'a Value>,
    pub(crate) tool_choice: Value,
    pub(crate) tools: &'a Value,
    pub(crate) top_logprobs: u64,
    pub(crate) top_p: f64,
    pub(crate) truncation: &'static str,
    pub(crate) usage: Option<UsageObject>,
    pub(crate) user: Option<&'a str>,
    pub(crate) metadata: Metadata,
}

/// Always `{}`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Metadata {}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ResponseError<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct IncompleteDetails<'a> {
    pub(crate) reason: &'a str,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct UsageObject {
    input_tokens: u64,
    input_tokens_details: CachedTokens,
    output_tokens: u64,
    output_tokens_details: ReasoningTokens,
    total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct CachedTokens {
    cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct ReasoningTokens {
    reasoning_tokens: u64,
}

impl From<Usage> for UsageObject {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input,
            input_tokens_details: CachedTokens { cached_tokens: usage.cached },
            output_tokens: usage.output,
            output_tokens_details: ReasoningTokens { reasoning_tokens: usage.reasoning },
            total_tokens: usage.input + usage.output,
        }
    }
}

/// Fields of an event that carries an item.
#[derive(Debug, Serialize)]
pub(crate) struct ItemFields<'a> {
    pub(crate) output_index: u64,
    pub(crate) item: &'a Item,
}

/// Fields of an event that carries the response.
#[derive(Debug, Serialize)]
pub(crate) struct ResponseFields<'a> {
    pub(crate) response: ResponseObject<'a>,
}

/// Closes an event that has nothing after its main field.
pub(crate) const END: &str = "}\n\n";
/// Closes an event about output text.
pub(crate) const END_WITH_LOGPROBS: &str = ",\"logprobs\":[]}\n\n";

/// Collects the steps of a plan and numbers their events.
#[derive(Debug, Default)]
pub(crate) struct EventWriter {
    sequence: u64,
    /// While set, everything but the terminal event is left out.
    pub(crate) is_muted: bool,
    pub(crate) steps: Vec<Step>,
}

impl EventWriter {
    /// Adds an event whose fields follow `type` and `sequence_number`.
    pub(crate) fn event(&mut self, name: &str, fields: &impl Serialize) {
        if !self.is_muted {
            self.steps.push(Step::Event(self.render_next(name, fields)));
            self.sequence += 1;
        }
    }

    /// Renders what would be the next event, muted or not, without adding it.
    pub(crate) fn render_next(&self, name: &str, fields: &impl Serialize) -> Bytes {
        render(name, Some(self.sequence), fields)
    }

    /// Adds an event about a place in the output; `place` are its members, with a comma at each side.
    pub(crate) fn event_at(&mut self, name: &str, place: &str, field: &str, value: &impl Serialize, end: &str) {
        if self.is_muted {
            return;
        }
        let sequence = self.sequence;
        let head =
            format!("event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{sequence}{place}\"{field}\":");
        let mut out = head.into_bytes();
        out.extend(json(value));
        out.extend_from_slice(end.as_bytes());
        self.sequence += 1;
        self.steps.push(Step::Event(Bytes::from(out)));
    }

    /// Adds a vendor event, which has no sequence number.
    pub(crate) fn vendor_event(&mut self, name: &str, fields: &Value) {
        if !self.is_muted {
            self.steps.push(Step::Event(render(name, None, fields)));
        }
    }

    /// Adds a run of deltas, the first `count` of these pieces.
    pub(crate) fn deltas(&mut self, name: &str, place: &str, end: &'static str, pieces: Pieces, count: u64) {
        if count > 0 && !self.is_muted {
            let run = DeltaRun::new(name, place, end, pieces, count, self.sequence);
            self.sequence += count;
            self.steps.push(Step::Deltas(Arc::new(run)));
        }
    }

    /// Adds a pause.
    pub(crate) fn pause(&mut self, duration: Duration) {
        if !duration.is_zero() && !self.is_muted {
            self.steps.push(Step::Pause(duration));
        }
    }
}

/// `event:` and `data:` lines of one event.
fn render(name: &str, sequence: Option<u64>, fields: &impl Serialize) -> Bytes {
    let mut out = format!("event: {name}\ndata: {{\"type\":\"{name}\"").into_bytes();
    if let Some(sequence) = sequence {
        out.extend(format!(",\"sequence_number\":{sequence}").into_bytes());
    }
    let members = json(fields);
    if members.len() > 2 {
        out.push(b',');
    }
    out.extend_from_slice(members.get(1..).unwrap_or(b"}"));
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Our own structs and JSON values always serialize.
    serde_json::to_vec(value).unwrap_or_default()
}
