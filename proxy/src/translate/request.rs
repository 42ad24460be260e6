//! What we need to know of a request's body, and the body that goes upstream.

use bytes::Bytes;
use codex_lb_shared::domain::models::ModelCatalog;

use super::openai_request;
use crate::intake::JsonObject;
use crate::rejection::Rejection;
use crate::route::Dialect;

/// Longest model name we look at.
const MODEL_CHARS_MAX: usize = 128;

/// A request that is ready to be sent, and what the exchange needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct PreparedRequest {
    /// What goes upstream, replayed whole on every leg.
    pub(crate) body: Bytes,
    /// The model the caller asked for.
    pub(crate) model_requested: String,
    /// The model that is asked of upstream.
    pub(crate) model: String,
    /// Reasoning effort, if named.
    pub(crate) effort: Option<String>,
    /// Service tier, if named.
    pub(crate) tier: Option<String>,
    /// Whether the caller wants an event stream.
    pub(crate) wants_stream: bool,
    /// Parameters that were taken out because upstream refuses them.
    pub(crate) ignored_params: Vec<&'static str>,
    /// The key under which upstream caches the prompt.
    pub(crate) prompt_cache_key: Option<String>,
}

/// Prepares a body. On the native route it goes through untouched.
///
/// # Errors
/// 400 naming what is missing or wrong.
pub(crate) fn prepare(
    dialect: Dialect,
    object: &JsonObject,
    caller_scope: &str,
    catalog: &ModelCatalog,
) -> Result<PreparedRequest, Rejection> {
    match dialect {
        Dialect::Native => prepare_native(object),
        Dialect::OpenAi => openai_request::prepare(object, caller_scope, catalog),
    }
}

fn prepare_native(object: &JsonObject) -> Result<PreparedRequest, Rejection> {
    let model = read_model(object)?;
    Ok(PreparedRequest {
        body: object.as_bytes().clone(),
        model_requested: model.clone(),
        model,
        effort: read_effort(object)?,
        tier: object.get("service_tier", "a string")?,
        wants_stream: true,
        ignored_params: Vec::new(),
        prompt_cache_key: object.get("prompt_cache_key", "a string")?,
    })
}

/// The model a body names.
///
/// # Errors
/// 400 when there is none, or it is no name.
pub(super) fn read_model(object: &JsonObject) -> Result<String, Rejection> {
    let model: String = object.get("model", "a string")?.ok_or_else(|| Rejection::missing_field("model"))?;
    if model.is_empty() || model.len() > MODEL_CHARS_MAX || model.chars().any(char::is_control) {
        return Err(Rejection::invalid_value("model", "Invalid value for 'model': expected a model's name."));
    }
    Ok(model)
}

/// The reasoning effort a body names.
///
/// # Errors
/// 400 when `reasoning` is no object or its effort no text.
pub(super) fn read_effort(object: &JsonObject) -> Result<Option<String>, Rejection> {
    #[derive(serde::Deserialize)]
    struct Reasoning {
        effort: Option<String>,
    }
    let reasoning: Option<Reasoning> = object.get("reasoning", "an object with a string 'effort'")?;
    Ok(reasoning.and_then(|reasoning| reasoning.effort))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(text: &str) -> Result<PreparedRequest, Rejection> {
        let object = JsonObject::parse(Bytes::copy_from_slice(text.as_bytes()))?;
        prepare(Dialect::Native, &object, "keyless", &ModelCatalog::default())
    }

    #[test]
    fn a_native_body_goes_through_untouched() {
        let text = r#"{"model":"gpt-5.5","unknown":{"b":1,"a":[]},"input":[{"type":"brand_new"}], "reasoning":{"effort":"high","context":"all_turns"},"temperature":0.5,"prompt_cache_key":"k"}"#;
        let request = native(text).unwrap();
        assert_eq!(request.body, text);
        assert_eq!((request.model.as_str(), request.effort.as_deref()), ("gpt-5.5", Some("high")));
        assert_eq!(request.prompt_cache_key.as_deref(), Some("k"));
        assert!(request.wants_stream && request.ignored_params.is_empty());
    }

    #[test]
    fn a_body_without_a_usable_model_is_refused_by_name() {
        for text in ["{}", r#"{"model":""}"#, r#"{"model":5}"#, r#"{"model":null}"#, "{\"model\":\"a\\nb\"}"] {
            let rejection = native(text).unwrap_err();
            assert_eq!((rejection.status, rejection.param.as_deref()), (400, Some("model")), "{text}");
        }
        assert_eq!(native(r#"{"model":"m","reasoning":7}"#).unwrap_err().param.as_deref(), Some("reasoning"));
    }
}
