//! What we need to know of a request, what is asked of upstream for it, and what its answer becomes.

use bytes::Bytes;
use codex_lb_shared::domain::models::ModelCatalog;
use codex_lb_shared::ids::AccountId;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{ChatAnswer, chat, compaction, images, openai_request, raw};
use crate::intake::JsonObject;
use crate::rejection::Rejection;
use crate::relay::FailureForm;
use crate::replay_store::{NewTurn, ReplayStore};
use crate::route::{Dialect, Endpoint, ImageTask};

/// Longest model name we look at.
const MODEL_CHARS_MAX: usize = 128;

/// A request as it came, its body decoded.
#[derive(Clone, Copy)]
pub(crate) struct Inquiry<'a> {
    /// What is asked.
    pub(crate) endpoint: Endpoint<'a>,
    /// The method.
    pub(crate) method: &'a Method,
    /// The query, without its question mark.
    pub(crate) query: Option<&'a str>,
    /// The client's headers.
    pub(crate) headers: &'a HeaderMap,
    /// The body.
    pub(crate) body: &'a Bytes,
    /// What separates this caller's conversations and ids from everybody else's.
    pub(crate) caller_scope: &'a str,
    /// What callers were answered lately.
    pub(crate) replay_store: &'a ReplayStore,
}

/// A request that is ready to be sent, and what the exchange needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct PreparedRequest {
    /// How upstream is asked, the same on every leg.
    pub(crate) head: UpstreamHead,
    /// What goes upstream, replayed whole on every leg.
    pub(crate) body: Bytes,
    /// What the caller gets of the answer.
    pub(crate) answer: AnswerShape,
    /// The model the caller asked for, if any.
    pub(crate) model_requested: Option<String>,
    /// The model that is asked of upstream, if any.
    pub(crate) model: Option<String>,
    /// Reasoning effort, if named.
    pub(crate) effort: Option<String>,
    /// Service tier, if named.
    pub(crate) tier: Option<String>,
    /// Parameters that were taken out because upstream refuses them.
    pub(crate) ignored_params: Vec<String>,
    /// The key under which upstream caches the prompt.
    pub(crate) prompt_cache_key: Option<String>,
    /// The response that the request goes on from, if upstream is to look it up.
    pub(crate) previous_response_id: Option<String>,
    /// What is to be remembered together with the answer.
    pub(crate) new_turn: Option<NewTurn>,
    /// The header that names the conversation, if the client sends none like it.
    pub(crate) named_by: Option<(HeaderName, HeaderValue)>,
    /// The only account that can serve it: what the request refers to is known to nobody else.
    pub(crate) owner: Option<AccountId>,
}

/// How upstream is asked, beside the body and what every leg's header holds.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamHead {
    /// The method.
    pub(crate) method: Method,
    /// Below the base URL, with its query.
    pub(crate) path: String,
    /// What the body is.
    pub(crate) content_type: Option<HeaderValue>,
    /// What the answer should be.
    pub(crate) accept: Option<HeaderValue>,
}

impl UpstreamHead {
    /// The head by which a model is asked: whatever the caller gets, upstream answers by events.
    pub(super) fn responses() -> Self {
        Self {
            method: Method::POST,
            path: "/codex/responses".to_owned(),
            content_type: Some(HeaderValue::from_static("application/json")),
            accept: Some(HeaderValue::from_static("text/event-stream")),
        }
    }
}

/// What the caller gets of upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AnswerShape {
    /// The same events in the same bytes.
    NativeStream,
    /// OpenAI's events.
    OpenAiStream,
    /// One response object.
    OpenAiJson,
    /// One compaction object.
    Compaction {
        /// The user's messages, which stay beside the compaction: JSON items, separated by commas.
        user_messages: String,
    },
    /// The chunks of a chat.
    ChatStream(ChatAnswer),
    /// One chat completion.
    ChatJson(ChatAnswer),
    /// One Images object.
    Images,
    /// The events of the Images API.
    ImageStream(ImageTask),
    /// The same bytes; not a model's answer, so nothing is counted.
    Raw,
    /// The same, and the file that it names is pinned to the account that answers.
    File {
        /// Whose file it is.
        caller_scope: String,
    },
    /// The same, and the thread that it is about belongs to its caller.
    Goal {
        /// Whose thread it is.
        caller_scope: String,
        /// Which.
        thread_id: String,
    },
}

impl AnswerShape {
    /// Whether the caller gets an event stream.
    pub(crate) const fn is_stream(&self) -> bool {
        match self {
            Self::NativeStream | Self::OpenAiStream | Self::ChatStream(_) | Self::ImageStream(_) => true,
            Self::OpenAiJson | Self::Compaction { .. } | Self::ChatJson(_) | Self::Images => false,
            Self::Raw | Self::File { .. } | Self::Goal { .. } => false,
        }
    }

    /// Whether a model answers, by events that tell what was used.
    pub(crate) const fn is_of_model(&self) -> bool {
        match self {
            Self::Raw | Self::File { .. } | Self::Goal { .. } => false,
            Self::NativeStream
            | Self::OpenAiStream
            | Self::OpenAiJson
            | Self::Compaction { .. }
            | Self::ChatStream(_)
            | Self::ChatJson(_)
            | Self::Images
            | Self::ImageStream(_) => true,
        }
    }

    /// How a failure is told once the head went out.
    pub(crate) const fn failure_form(&self) -> FailureForm {
        match self {
            Self::ImageStream(_) => FailureForm::Error,
            Self::ChatStream(_) => FailureForm::Chat,
            Self::NativeStream
            | Self::OpenAiStream
            | Self::OpenAiJson
            | Self::Compaction { .. }
            | Self::ChatJson(_)
            | Self::Images
            | Self::Raw
            | Self::File { .. }
            | Self::Goal { .. } => FailureForm::Response,
        }
    }
}

/// Prepares a request.
///
/// # Errors
/// 400 naming what is missing or wrong.
pub(crate) fn prepare(inquiry: &Inquiry<'_>, catalog: &ModelCatalog) -> Result<PreparedRequest, Rejection> {
    match inquiry.endpoint {
        Endpoint::Responses(dialect) => prepare_responses(dialect, inquiry, catalog),
        Endpoint::Compact(dialect) => compaction::prepare(prepare_responses(dialect, inquiry, catalog)?),
        Endpoint::ChatCompletions => chat::prepare(inquiry, catalog),
        Endpoint::Images(task, _) => images::prepare(inquiry, task, catalog),
        Endpoint::NewFile => Ok(raw::new_file(inquiry)),
        Endpoint::FileUploaded(id) => Ok(raw::file_uploaded(inquiry, id)),
        Endpoint::Transcription(_) => raw::transcription(inquiry),
        Endpoint::Control(control) => raw::control(inquiry, control, catalog),
    }
}

fn prepare_responses(
    dialect: Dialect,
    inquiry: &Inquiry<'_>,
    catalog: &ModelCatalog,
) -> Result<PreparedRequest, Rejection> {
    let object = JsonObject::parse(inquiry.body.clone())?;
    match dialect {
        Dialect::Native => prepare_native(&object),
        Dialect::OpenAi => {
            let (object, new_turn) = inquiry.replay_store.resolve(object, inquiry.caller_scope)?;
            let request = openai_request::prepare(&object, inquiry.caller_scope, catalog)?;
            Ok(PreparedRequest { new_turn, ..request })
        }
    }
}

/// On the native route a body goes through untouched.
fn prepare_native(object: &JsonObject) -> Result<PreparedRequest, Rejection> {
    let model = read_model(object)?;
    Ok(PreparedRequest {
        head: UpstreamHead::responses(),
        body: object.as_bytes().clone(),
        answer: AnswerShape::NativeStream,
        model_requested: Some(model.clone()),
        model: Some(model),
        effort: read_effort(object)?,
        tier: object.get("service_tier", "a string")?,
        ignored_params: Vec::new(),
        prompt_cache_key: object.get("prompt_cache_key", "a string")?,
        previous_response_id: object.get("previous_response_id", "a string")?,
        new_turn: None,
        named_by: None,
        owner: None,
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
        let (headers, body) = (HeaderMap::new(), Bytes::copy_from_slice(text.as_bytes()));
        let inquiry = Inquiry {
            endpoint: Endpoint::Responses(Dialect::Native),
            method: &Method::POST,
            query: None,
            headers: &headers,
            body: &body,
            caller_scope: "keyless",
            replay_store: &crate::replay_store::ReplayStore::off(),
        };
        prepare(&inquiry, &ModelCatalog::default())
    }

    #[test]
    fn a_native_body_goes_through_untouched() {
        let text = r#"{"model":"gpt-5.5","unknown":{"b":1,"a":[]},"input":[{"type":"brand_new"}], "reasoning":{"effort":"high","context":"all_turns"},"temperature":0.5,"prompt_cache_key":"k"}"#;
        let request = native(text).unwrap();
        assert_eq!(request.body, text);
        assert_eq!((request.model.as_deref(), request.effort.as_deref()), (Some("gpt-5.5"), Some("high")));
        assert_eq!(request.prompt_cache_key.as_deref(), Some("k"));
        assert!(request.answer == AnswerShape::NativeStream && request.ignored_params.is_empty());
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
