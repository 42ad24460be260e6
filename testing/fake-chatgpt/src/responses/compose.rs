//! Turns an answer into the events that carry it, in upstream's order.

mod image;

use std::time::Duration;

use serde_json::{Value, json};

use super::events::{
    END, END_WITH_LOGPROBS, EventWriter, IncompleteDetails, Item, ItemFields, Metadata, Part, ResponseError,
    ResponseFields, ResponseObject,
};
use super::plan::{Plan, Step};
use super::prompt::Prompt;
use super::render::{Pieces, words};
use super::sealed;
use crate::account::Account;
use crate::record::Terminal;
use crate::script::{Answer, FunctionCall, Usage};
use crate::{clock, ids};
pub use image::IMAGE_BASE64;

const REASONING_TOKENS: u64 = 64;
const SUMMARY: &str = "**Considering the request**\n\nI look at what was asked and choose the shortest way to it.";
/// How many characters of arguments one delta carries.
const ARGUMENT_CHARS: usize = 8;
const BYTES_PER_TOKEN: u64 = 4;

/// How an answer ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending<'a> {
    Completed,
    Incomplete { reason: &'a str },
    Failed { code: &'a str, message: &'a str },
}

/// Builds one plan.
pub(crate) struct Composer<'a> {
    prompt: &'a Prompt<'a>,
    account: &'a Account,
    ending: Ending<'a>,
    /// After how many deltas the ending takes the place of the rest.
    deltas_left: Option<u64>,
    response_id: String,
    created_at: u64,
    output_index: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    tool_usage: Option<Value>,
    events: EventWriter,
}

impl<'a> Composer<'a> {
    /// Begins with `response.created`.
    pub(crate) fn new(prompt: &'a Prompt<'a>, account: &'a Account, ending: Ending<'a>) -> Self {
        let mut composer = Self {
            prompt,
            account,
            ending,
            deltas_left: None,
            response_id: ids::item_id("resp"),
            created_at: clock::unix_now(),
            output_index: 0,
            output_tokens: 0,
            reasoning_tokens: 0,
            tool_usage: None,
            events: EventWriter::default(),
        };
        composer.lifecycle("response.created");
        composer
    }

    /// Comes to the end after so many deltas.
    pub(crate) fn end_after_deltas(mut self, deltas: u64) -> Self {
        self.deltas_left = Some(deltas);
        self
    }

    /// The whole answer.
    pub(crate) fn answer(mut self, answer: &Answer) -> Plan {
        self.lifecycle("response.in_progress");
        if answer.rate_limits_event {
            let usage = self.account.desk.lock().usage.event(&self.account.profile);
            self.events.vendor_event("codex.rate_limits", &usage);
        }
        for event in &answer.extra_events {
            self.extra_event(event);
        }
        self.events.pause(Duration::from_millis(answer.first_token_delay_ms));
        if answer.reasoning {
            self.reasoning();
        }
        match &answer.text {
            Some(text) => self.message(text, Pieces::of_text(text)),
            None if answer.text_tokens > 0 => {
                self.message(&words(answer.text_tokens), Pieces::Words(answer.text_tokens))
            }
            None => {}
        }
        for function_call in &answer.function_calls {
            self.function_call(function_call);
        }
        let usage = answer.usage.unwrap_or_else(|| self.derived_usage());
        let rate = answer.tokens_per_second.filter(|rate| rate.is_finite() && *rate > 0.0);
        Plan {
            interval: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            coalesce: answer.coalesce,
            head_delay: Duration::from_millis(answer.first_byte_delay_ms),
            ..self.end(usage)
        }
    }

    /// One compaction item and nothing else.
    pub(crate) fn compaction(mut self) -> Plan {
        self.lifecycle("response.in_progress");
        let item = compaction_item(self.account);
        self.item("response.output_item.added", &item);
        self.item("response.output_item.done", &item);
        self.output_tokens += REASONING_TOKENS;
        let usage = self.derived_usage();
        self.end(usage)
    }

    /// The ending right after `response.created`.
    pub(crate) fn nothing(self) -> Plan {
        let usage = self.derived_usage();
        self.end(usage)
    }

    fn reasoning(&mut self) {
        let id = ids::item_id("rs");
        let item = |summary| Item::Reasoning {
            id: id.clone(),
            encrypted_content: self
                .prompt
                .wants_encrypted_reasoning()
                .then(|| sealed::seal(&self.account.profile.identity())),
            summary,
        };
        let part = |text: &str| Part::SummaryText { text: text.to_owned() };
        let (added, done) = (item(Vec::new()), item(vec![part(SUMMARY)]));
        let place = format!(",\"item_id\":\"{id}\",\"output_index\":{},\"summary_index\":0,", self.output_index);
        self.item("response.output_item.added", &added);
        self.events.event_at("response.reasoning_summary_part.added", &place, "part", &part(""), END);
        self.deltas("response.reasoning_summary_text.delta", &place, END, Pieces::of_text(SUMMARY));
        self.events.event_at("response.reasoning_summary_text.done", &place, "text", &SUMMARY, END);
        self.events.event_at("response.reasoning_summary_part.done", &place, "part", &part(SUMMARY), END);
        self.item("response.output_item.done", &done);
        self.output_index += 1;
        self.reasoning_tokens += REASONING_TOKENS;
        self.output_tokens += REASONING_TOKENS;
    }

    fn message(&mut self, text: &str, pieces: Pieces) {
        let id = ids::item_id("msg");
        let place = format!(",\"item_id\":\"{id}\",\"output_index\":{},\"content_index\":0,", self.output_index);
        let message = |status, content| Item::Message { id: id.clone(), status, content, role: "assistant" };
        self.item("response.output_item.added", &message("in_progress", Vec::new()));
        self.events.event_at("response.content_part.added", &place, "part", &Part::output(""), END);
        self.output_tokens += pieces.count();
        self.deltas("response.output_text.delta", &place, END_WITH_LOGPROBS, pieces);
        self.events.event_at("response.output_text.done", &place, "text", &text, END_WITH_LOGPROBS);
        self.events.event_at("response.content_part.done", &place, "part", &Part::output(text), END);
        self.item("response.output_item.done", &message("completed", vec![Part::output(text)]));
        self.output_index += 1;
    }

    fn function_call(&mut self, function_call: &FunctionCall) {
        let is_custom = function_call.custom;
        let (id, call_id) = (ids::item_id(if is_custom { "ctc" } else { "fc" }), ids::call_id());
        let arguments = arguments_text(&function_call.arguments);
        let item = |status, arguments: &str| {
            let (id, call_id, name) = (id.clone(), call_id.clone(), function_call.name.clone());
            let (arguments, namespace) = (arguments.to_owned(), function_call.namespace.clone());
            if is_custom {
                Item::CustomToolCall { id, status, call_id, input: arguments, name, namespace }
            } else {
                Item::FunctionCall { id, status, arguments, call_id, name, namespace }
            }
        };
        let (delta, done, field) = if is_custom {
            ("response.custom_tool_call_input.delta", "response.custom_tool_call_input.done", "input")
        } else {
            ("response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments")
        };
        let place = format!(",\"item_id\":\"{id}\",\"output_index\":{},", self.output_index);
        let pieces = Pieces::of_chars(&arguments, ARGUMENT_CHARS);
        self.item("response.output_item.added", &item("in_progress", ""));
        self.output_tokens += pieces.count();
        self.deltas(delta, &place, END, pieces);
        self.events.event_at(done, &place, field, &arguments, END);
        self.item("response.output_item.done", &item("completed", &arguments));
        self.output_index += 1;
    }

    fn item(&mut self, name: &str, item: &Item) {
        self.events.event(name, &ItemFields { output_index: self.output_index, item });
    }

    fn deltas(&mut self, name: &str, place: &str, end: &'static str, pieces: Pieces) {
        let count = pieces.count();
        let allowed = self.deltas_left.map_or(count, |left| left.min(count));
        self.events.deltas(name, place, end, pieces, allowed);
        if let Some(left) = &mut self.deltas_left {
            *left -= allowed;
            self.events.is_muted |= allowed < count;
        }
    }

    fn extra_event(&mut self, event: &Value) {
        let mut fields = event.clone();
        let kind = fields.as_object_mut().and_then(|members| members.remove("type"));
        self.events.vendor_event(kind.as_ref().and_then(Value::as_str).unwrap_or("message"), &fields);
    }

    fn lifecycle(&mut self, name: &str) {
        let mut events = std::mem::take(&mut self.events);
        events.event(name, &ResponseFields { response: self.response("in_progress") });
        self.events = events;
    }

    fn end(self, usage: Usage) -> Plan {
        let mut response = self.response("in_progress");
        response.tool_usage = self.tool_usage.as_ref();
        let (name, terminal) = match self.ending {
            Ending::Completed => ("response.completed", Terminal::Completed),
            Ending::Incomplete { reason } => {
                response.incomplete_details = Some(IncompleteDetails { reason });
                ("response.incomplete", Terminal::Incomplete)
            }
            Ending::Failed { code, message } => {
                response.error = Some(ResponseError { code, message });
                ("response.failed", Terminal::Failed)
            }
        };
        response.status = name.trim_start_matches("response.");
        response.completed_at = (terminal == Terminal::Completed).then(clock::unix_now);
        let usage = (terminal != Terminal::Failed).then_some(usage);
        response.usage = usage.map(Into::into);
        let bytes = self.events.render_next(name, &ResponseFields { response });
        let mut steps = self.events.steps;
        steps.push(Step::Terminal(bytes, terminal, usage));
        Plan::immediate(steps)
    }

    fn derived_usage(&self) -> Usage {
        let input = (self.prompt.body_bytes / BYTES_PER_TOKEN).max(1);
        let cached = match self.prompt.body["prompt_cache_key"].as_str() {
            Some(prompt_cache_key) => self.account.cached_tokens(prompt_cache_key, input),
            None => 0,
        };
        Usage { input, cached, output: self.output_tokens, reasoning: self.reasoning_tokens }
    }

    fn response(&self, status: &'static str) -> ResponseObject<'_> {
        let body = self.prompt.body;
        ResponseObject {
            id: &self.response_id,
            object: "response",
            created_at: self.created_at,
            status,
            background: false,
            completed_at: None,
            error: None,
            incomplete_details: None,
            instructions: body["instructions"].as_str(),
            max_output_tokens: None,
            max_tool_calls: None,
            model: self.prompt.model(),
            output: [],
            parallel_tool_calls: body["parallel_tool_calls"].as_bool().unwrap_or(true),
            previous_response_id: None,
            prompt_cache_key: body["prompt_cache_key"].as_str(),
            reasoning: json!({"effort": body["reasoning"]["effort"], "summary": body["reasoning"]["summary"]}),
            safety_identifier: None,
            service_tier: body["service_tier"].as_str().unwrap_or("default"),
            store: false,
            temperature: 1.0,
            text: json!({
                "format": body["text"].get("format").cloned().unwrap_or_else(|| json!({"type": "text"})),
                "verbosity": body["text"].get("verbosity").cloned().unwrap_or_else(|| json!("medium")),
            }),
            tool_usage: None,
            tool_choice: body.get("tool_choice").cloned().unwrap_or_else(|| json!("auto")),
            tools: if body["tools"].is_array() { &body["tools"] } else { &NO_TOOLS },
            top_logprobs: 0,
            top_p: 1.0,
            truncation: "disabled",
            usage: None,
            user: None,
            metadata: Metadata {},
        }
    }
}

static NO_TOOLS: Value = Value::Array(Vec::new());

/// A compaction item of this account.
pub(crate) fn compaction_item(account: &Account) -> Item {
    Item::Compaction { id: ids::item_id("cmp"), encrypted_content: sealed::seal(&account.profile.identity()) }
}

/// Text goes to the tool as it is; anything else is printed compactly.
fn arguments_text(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        Value::Null => "{}".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => arguments.to_string(),
    }
}
