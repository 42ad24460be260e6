//! A Chat Completions request in the form that the ChatGPT backend takes.

use std::borrow::Cow;

use bytes::Bytes;
use codex_lb_shared::domain::models::ModelCatalog;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::members::Members;
use super::messages::{self, SystemTexts};
use super::{ChatAnswer, tools};
use crate::intake::{JsonObject, json_string};
use crate::rejection::Rejection;
use crate::translate::openai_params::{self, ENCRYPTED_REASONING, ModelChoice, is_given};
use crate::translate::request::{AnswerShape, Inquiry, PreparedRequest, UpstreamHead, read_effort};

/// Parameters that are acted on. Any other is left out, because upstream refuses what it does not know, and named.
const ACTED_ON: [&str; 20] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "web_search_options",
    "response_format",
    "reasoning_effort",
    "reasoning",
    "verbosity",
    "service_tier",
    "prompt_cache_key",
    // These four are refused unless they ask for what is done anyway.
    "n",
    "modalities",
    "audio",
    "store",
];

/// Prepares a Chat Completions request.
///
/// # Errors
/// 400 naming what is missing, wrong, or cannot be done.
pub(in crate::translate) fn prepare(
    inquiry: &Inquiry<'_>,
    catalog: &ModelCatalog,
) -> Result<PreparedRequest, Rejection> {
    let object = JsonObject::parse(inquiry.body.clone())?;
    let choice = ModelChoice::read(&object, catalog, || effort(&object))?;
    refuse_what_cannot_be_done(&object)?;
    let format = response_format(&object)?;
    // Upstream wants to find the word "JSON" in the input, where the system's text usually is what holds it.
    let is_json_object = format.as_ref().is_some_and(|format| format.is_json_object);
    let system = if is_json_object { SystemTexts::Stay } else { SystemTexts::BecomeInstructions };
    let input = messages::to_upstream(&object, system)?;
    let system_text = input.system_texts.join("\n\n");
    let prompt_cache_key =
        openai_params::cache_key(&object, inquiry.caller_scope, &choice.model, &system_text, &input.first_user_text)?;
    let tools = tools::to_upstream(&object)?;
    let instructions = if is_json_object { "" } else { system_text.as_str() };

    let mut body = Members::new(input.json.len());
    body.put("model", &json_string(&choice.model));
    body.put("instructions", &json_string(instructions));
    body.put("input", &input.json);
    body.put_if_some("tools", tools.list.as_deref());
    body.put_if_some("tool_choice", tools.choice.as_deref());
    body.put_if_some("parallel_tool_calls", tools.are_parallel.map(|flag| if flag { "true" } else { "false" }));
    body.put("reasoning", &reasoning(&object, choice.effort.as_deref())?);
    body.put_if_some("text", text(&object, format)?.as_deref());
    body.put_if_some("service_tier", choice.tier.as_deref().map(json_string).as_deref());
    body.put("prompt_cache_key", &json_string(&prompt_cache_key));
    body.put("include", &format!("[{}]", json_string(ENCRYPTED_REASONING)));
    body.put("store", "false");
    body.put("stream", "true");

    let wants_stream = object.get("stream", "a boolean")?.unwrap_or(false);
    let answer = ChatAnswer {
        model: choice.model.clone(),
        has_legacy_calls: tools.are_legacy,
        tells_usage: tells_usage(&object)?,
    };
    Ok(PreparedRequest {
        head: UpstreamHead::responses(),
        body: Bytes::from(body.into_json()),
        answer: if wants_stream { AnswerShape::ChatStream(answer) } else { AnswerShape::ChatJson(answer) },
        model_requested: Some(choice.requested),
        model: Some(choice.model),
        effort: choice.effort,
        tier: choice.tier,
        ignored_params: ignored_params(&object)?,
        prompt_cache_key: Some(prompt_cache_key),
        previous_response_id: None,
        new_turn: None,
        named_by: None,
        owner: None,
    })
}

/// A value that has a wrong type.
pub(super) fn wrong_type(param: &str, expected: &str) -> Rejection {
    Rejection::invalid_value(param, format!("Invalid type for '{param}': expected {expected}."))
}

fn refuse_what_cannot_be_done(object: &JsonObject) -> Result<(), Rejection> {
    match object.get::<u64>("n", "a number")? {
        None | Some(1) => {}
        Some(_) => {
            let message = "Invalid value for 'n': this gateway makes one choice per request.";
            return Err(Rejection::invalid_value("n", message));
        }
    }
    let modalities: Vec<String> = object.get("modalities", "an array of strings")?.unwrap_or_default();
    let asks_for_audio = modalities.iter().any(|modality| modality == "audio");
    for (param, is_asked) in [("modalities", asks_for_audio), ("audio", is_given(object, "audio"))] {
        if is_asked {
            let message = format!("'{param}' asks for audio, which is not supported: answers are text.");
            return Err(Rejection::invalid_value(param, message));
        }
    }
    Ok(())
}

fn ignored_params(object: &JsonObject) -> Result<Vec<String>, Rejection> {
    let is_left_out = |name: &&str| !ACTED_ON.contains(name) && is_given(object, name);
    let is_to_be_stored = object.get("store", "a boolean")?.unwrap_or(false);
    let stored = is_to_be_stored.then_some("store");
    Ok(openai_params::tellable(object.names().filter(is_left_out).chain(stored)))
}

/// The effort that a body names: by OpenAI's parameter, else inside the object that some clients send.
fn effort(object: &JsonObject) -> Result<Option<String>, Rejection> {
    match object.get("reasoning_effort", "a string")? {
        None => read_effort(object),
        effort => Ok(effort),
    }
}

/// Clients of this API show the summary of the reasoning, and upstream makes one only if asked.
fn reasoning(object: &JsonObject, effort: Option<&str>) -> Result<String, Rejection> {
    #[derive(Default, Deserialize)]
    struct Named {
        summary: Option<String>,
        #[serde(default)]
        exclude: Option<bool>,
    }
    let named: Named = object.get("reasoning", "an object")?.unwrap_or_default();
    let mut reasoning = Members::new(0);
    reasoning.put_if_some("effort", effort.map(json_string).as_deref());
    if effort != Some("none") && named.exclude != Some(true) {
        reasoning.put("summary", &json_string(named.summary.as_deref().unwrap_or("auto")));
    }
    Ok(reasoning.into_json())
}

/// How the answer's text is to look: `text` of a response, if anything is said about it.
fn text(object: &JsonObject, format: Option<ResponseFormat>) -> Result<Option<String>, Rejection> {
    let verbosity: Option<String> = object.get("verbosity", "a string")?;
    if format.is_none() && verbosity.is_none() {
        return Ok(None);
    }
    let mut text = Members::new(0);
    text.put_if_some("format", format.map(|format| format.json).as_deref());
    text.put_if_some("verbosity", verbosity.as_deref().map(json_string).as_deref());
    Ok(Some(text.into_json()))
}

/// `response_format` as a response has it.
struct ResponseFormat {
    is_json_object: bool,
    json: String,
}

fn response_format(object: &JsonObject) -> Result<Option<ResponseFormat>, Rejection> {
    let raw: Option<Box<RawValue>> = object.get("response_format", "an object")?;
    raw.map(|raw| ResponseFormat::read(&raw)).transpose()
}

impl ResponseFormat {
    fn read(raw: &RawValue) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Format<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(borrow, default)]
            json_schema: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Schema<'a> {
            #[serde(borrow, default)]
            name: Option<&'a RawValue>,
            #[serde(borrow, default)]
            schema: Option<&'a RawValue>,
            #[serde(borrow, default)]
            strict: Option<&'a RawValue>,
            #[serde(borrow, default)]
            description: Option<&'a RawValue>,
        }
        let format: Format<'_> = serde_json::from_str(raw.get())
            .map_err(|_| wrong_type("response_format", "an object with a string 'type'"))?;
        let mut json = Members::new(0);
        json.put("type", &json_string(&format.kind));
        if format.kind == "json_schema" {
            let param = "response_format.json_schema";
            let schema = format.json_schema.ok_or_else(|| Rejection::missing_field(param))?;
            let schema: Schema<'_> = serde_json::from_str(schema.get()).map_err(|_| wrong_type(param, "an object"))?;
            let name = schema.name.ok_or_else(|| Rejection::missing_field("response_format.json_schema.name"))?;
            json.put("name", name.get());
            json.put("schema", schema.schema.map_or("{}", RawValue::get));
            json.put_if_some("strict", schema.strict.map(RawValue::get));
            json.put_if_some("description", schema.description.map(RawValue::get));
        }
        Ok(Self { is_json_object: format.kind == "json_object", json: json.into_json() })
    }
}

fn tells_usage(object: &JsonObject) -> Result<bool, Rejection> {
    #[derive(Default, Deserialize)]
    struct StreamOptions {
        #[serde(default)]
        include_usage: Option<bool>,
    }
    let options: Option<StreamOptions> = object.get("stream_options", "an object with a boolean 'include_usage'")?;
    Ok(options.and_then(|options| options.include_usage).unwrap_or(false))
}
