//! A public Responses request in the form that the ChatGPT backend takes.

use codex_lb_shared::domain::models::ModelCatalog;
use serde_json::Value;

use super::input_items::{self, UpstreamInput};
use super::openai_params::{self, ENCRYPTED_REASONING, ModelChoice, REFUSED_UPSTREAM};
use super::request::{AnswerShape, PreparedRequest, UpstreamHead, read_effort};
use crate::intake::{JsonObject, Patch, json_string};
use crate::rejection::Rejection;

type Patches = Vec<(&'static str, Patch)>;

/// Prepares a public request.
///
/// # Errors
/// 400 naming what is missing, wrong, or cannot be done.
pub(super) fn prepare(
    object: &JsonObject,
    caller_scope: &str,
    catalog: &ModelCatalog,
) -> Result<PreparedRequest, Rejection> {
    let choice = ModelChoice::read(object, catalog, || read_effort(object))?;
    refuse_what_cannot_be_done(object)?;
    let input = input_items::to_upstream(object)?;
    let instructions = joined_instructions(object, &input)?;
    let prompt_cache_key =
        openai_params::cache_key(object, caller_scope, &choice.model, &instructions, &input.first_user_text)?;
    let ignored_params: Vec<String> = openai_params::refused(object).map(str::to_owned).collect();

    let mut patches: Patches = REFUSED_UPSTREAM.into_iter().map(|param| (param, Patch::Remove)).collect();
    patches.extend([
        ("model", Patch::Set(json_string(&choice.model))),
        ("store", Patch::Set("false".to_owned())),
        ("stream", Patch::Set("true".to_owned())),
        ("stream_options", Patch::Remove),
        ("background", Patch::Remove),
        ("previous_response_id", Patch::Remove),
        ("instructions", Patch::Set(json_string(&instructions))),
        ("input", Patch::Set(input.json)),
        ("include", Patch::Set(with_encrypted_reasoning(object)?)),
        ("prompt_cache_key", Patch::Set(json_string(&prompt_cache_key))),
        ("service_tier", choice.tier.as_deref().map_or(Patch::Remove, |tier| Patch::Set(json_string(tier)))),
    ]);
    patches.extend(choice.effort.as_deref().map(|effort| with_effort(object, effort)).transpose()?);
    patches.extend(upstream_tools(object)?);

    let wants_stream = object.get("stream", "a boolean")?.unwrap_or(false);
    Ok(PreparedRequest {
        head: UpstreamHead::responses(),
        body: object.patched(&patches),
        answer: if wants_stream { AnswerShape::OpenAiStream } else { AnswerShape::OpenAiJson },
        model: Some(choice.model),
        model_requested: Some(choice.requested),
        effort: choice.effort,
        tier: choice.tier,
        ignored_params,
        prompt_cache_key: Some(prompt_cache_key),
        previous_response_id: None,
        new_turn: None,
        named_by: None,
        owner: None,
    })
}

fn refuse_what_cannot_be_done(object: &JsonObject) -> Result<(), Rejection> {
    for param in ["conversation", "prompt"] {
        if object.raw(param).is_some_and(|raw| raw != "null") {
            let message =
                format!("'{param}' is not supported: nothing is stored upstream. Send everything in `input`.");
            return Err(Rejection::invalid_request(Some(param), message));
        }
    }
    if object.get("background", "a boolean")?.unwrap_or(false) {
        let message = "'background' is not supported: answers are not stored. Stream the response instead.";
        return Err(Rejection::invalid_request(Some("background"), message));
    }
    Ok(())
}

fn joined_instructions(object: &JsonObject, input: &UpstreamInput) -> Result<String, Rejection> {
    let own: Option<String> = object.get("instructions", "a string")?;
    let parts = own.iter().chain(&input.instructions).map(String::as_str).filter(|text| !text.is_empty());
    Ok(parts.collect::<Vec<_>>().join("\n\n"))
}

fn with_encrypted_reasoning(object: &JsonObject) -> Result<String, Rejection> {
    let mut include: Vec<String> = object.get("include", "an array of strings")?.unwrap_or_default();
    if !include.iter().any(|item| item == ENCRYPTED_REASONING) {
        include.push(ENCRYPTED_REASONING.to_owned());
    }
    Ok(Value::from(include).to_string())
}

fn with_effort(object: &JsonObject, effort: &str) -> Result<(&'static str, Patch), Rejection> {
    let mut reasoning: serde_json::Map<String, Value> = object.get("reasoning", "an object")?.unwrap_or_default();
    reasoning.insert("effort".to_owned(), Value::from(effort));
    Ok(("reasoning", Patch::Set(Value::from(reasoning).to_string())))
}

/// The public names of the preview web search are unknown upstream.
fn upstream_tools(object: &JsonObject) -> Result<Patches, Rejection> {
    let mut patches = Patches::new();
    for name in ["tools", "tool_choice"] {
        if object.raw(name).is_some_and(|raw| raw.contains("web_search_preview")) {
            let mut value: Value = object.get(name, "tools")?.unwrap_or_default();
            openai_params::name_web_search(&mut value);
            patches.push((name, Patch::Set(value.to_string())));
        }
    }
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use codex_lb_shared::domain::account::Plan;
    use serde_json::json;

    fn catalog() -> ModelCatalog {
        let mut catalog = ModelCatalog::default();
        let entries = ["gpt-5.5", "gpt-5.1-codex", "gpt-5.1-codex-max"].map(|slug| json!({ "slug": slug }));
        catalog.merge_plan(Plan::Plus, entries.to_vec());
        catalog
    }

    fn prepared(body: &Value) -> Result<PreparedRequest, Rejection> {
        prepare(&JsonObject::parse(Bytes::from(body.to_string())).unwrap(), "key:1", &catalog())
    }

    fn upstream_body(request: &PreparedRequest) -> Value {
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn a_plain_sdk_request_becomes_what_upstream_takes() {
        let request = prepared(&json!({"model": "gpt-5.5", "input": "hi", "temperature": 0.2, "top_p": null,
            "max_output_tokens": 5, "metadata": {"a": "b"}, "stream": false}))
        .unwrap();
        assert_eq!(request.answer, AnswerShape::OpenAiJson);
        assert_eq!(request.ignored_params, ["max_output_tokens", "temperature", "metadata"]);
        let body = upstream_body(&request);
        let key = request.prompt_cache_key.unwrap();
        assert_eq!(
            body,
            json!({"model": "gpt-5.5", "stream": true, "store": false, "instructions": "",
                "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
                "include": ["reasoning.encrypted_content"], "prompt_cache_key": key})
        );
    }

    #[test]
    fn unknown_fields_and_tools_survive_and_known_names_are_translated() {
        let request = prepared(&json!({"model": "gpt-5.5", "input": [], "future": [1.50], "include": ["x"],
            "reasoning": {"effort": "ultra", "summary": "auto"}, "service_tier": "fast", "instructions": "i",
            "tools": [{"type": "web_search_preview_2025_03_11", "x": 1}, {"type": "function", "name": "f"}]}))
        .unwrap();
        let body = upstream_body(&request);
        assert_eq!(body["future"], json!([1.50]));
        assert_eq!(body["include"], json!(["x", "reasoning.encrypted_content"]));
        assert_eq!(body["reasoning"], json!({"effort": "max", "summary": "auto"}));
        assert_eq!((body["service_tier"].as_str(), request.tier.as_deref()), (Some("priority"), Some("priority")));
        assert_eq!(body["tools"], json!([{"type": "web_search", "x": 1}, {"type": "function", "name": "f"}]));
        assert_eq!(prepared(&json!({"model": "gpt-5.5", "input": [], "service_tier": "auto"})).unwrap().tier, None);
    }

    #[test]
    fn suffixes_set_effort_and_tier_but_never_cut_a_known_model() {
        let cases = [
            ("gpt-5.5-high", "gpt-5.5", Some("high"), None),
            ("gpt-5.5-xhigh-fast", "gpt-5.5", Some("xhigh"), Some("priority")),
            ("gpt-5.5-fast", "gpt-5.5", None, Some("priority")),
            ("gpt-5.1-codex-max", "gpt-5.1-codex-max", None, None),
            ("gpt-5.1-codex-max-low", "gpt-5.1-codex-max", Some("low"), None),
            ("gpt-9-high", "gpt-9-high", None, None),
            ("gpt-5.5-high-low", "gpt-5.5-high-low", None, None),
        ];
        for (requested, model, effort, tier) in cases {
            let request = prepared(&json!({"model": requested, "input": "x"})).unwrap();
            assert_eq!(
                (request.model.as_deref(), request.effort.as_deref(), request.tier.as_deref()),
                (Some(model), effort, tier)
            );
            assert_eq!(request.model_requested.as_deref(), Some(requested));
            assert_eq!(upstream_body(&request)["model"], model);
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let cases = [
            (json!({"model": "m", "input": "x", "background": true}), "background"),
            (json!({"model": "m", "input": "x", "conversation": "c"}), "conversation"),
            (json!({"model": "m", "input": "x", "stream": "yes"}), "stream"),
            (json!({"model": "m"}), "input"),
        ];
        for (body, param) in cases {
            let rejection = prepared(&body).unwrap_err();
            assert_eq!((rejection.status, rejection.param.as_deref()), (400, Some(param)), "{body}");
        }
    }

    #[test]
    fn equal_conversations_of_one_caller_share_a_cache_key() {
        let key = |scope: &str, text: &str, tail: &str| {
            let body = json!({"model": "gpt-5.5", "instructions": "i", "input": [
                {"role": "user", "content": text}, {"role": "assistant", "content": tail}]});
            let object = JsonObject::parse(Bytes::from(body.to_string())).unwrap();
            prepare(&object, scope, &catalog()).unwrap().prompt_cache_key.unwrap()
        };
        assert_eq!(key("key:1", "hello", "a"), key("key:1", "hello", "b"));
        assert_ne!(key("key:1", "hello", "a"), key("key:2", "hello", "a"));
        assert_ne!(key("key:1", "hello", "a"), key("key:1", "other", "a"));
        let given = prepared(&json!({"model": "gpt-5.5", "input": "x", "prompt_cache_key": "mine"})).unwrap();
        assert_eq!(given.prompt_cache_key.as_deref(), Some("mine"));
    }
}
