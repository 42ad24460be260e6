//! Requests that go to upstream as they come, and whose answers come back as they are: no model answers them, so there
//! is nothing to translate and nothing to count.

use bytes::Bytes;
use codex_lb_shared::domain::models::ModelCatalog;
use http::{HeaderName, HeaderValue, Method, header};
use serde::Deserialize;

use super::request::{AnswerShape, Inquiry, PreparedRequest, UpstreamHead};
use super::thread_goal;
use crate::rejection::Rejection;
use crate::route::ControlPath;

/// All files of a caller that names no conversation form one: together they are of use on one account only.
const FILES: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-session-id"), HeaderValue::from_static("codex-lb-files"));

/// A new file. Its id, once known, belongs to this caller.
pub(super) fn new_file(inquiry: &Inquiry<'_>) -> PreparedRequest {
    let request = json(inquiry, "/files".to_owned());
    let answer = AnswerShape::File { caller_scope: inquiry.caller_scope.to_owned() };
    PreparedRequest { answer, named_by: Some(FILES), ..request }
}

/// The word that a file was uploaded. `id` is one that the route let through, so it names no other path.
pub(super) fn file_uploaded(inquiry: &Inquiry<'_>, id: &str) -> PreparedRequest {
    let request = json(inquiry, format!("/files/{id}/uploaded"));
    PreparedRequest { answer: AnswerShape::File { caller_scope: inquiry.caller_scope.to_owned() }, ..request }
}

/// A recording, as a form.
///
/// # Errors
/// 400 when it is no form.
pub(super) fn transcription(inquiry: &Inquiry<'_>) -> Result<PreparedRequest, Rejection> {
    let content_type = inquiry.headers.get(header::CONTENT_TYPE);
    // The boundary stands in here, so the value must arrive as it was sent.
    let is_form = content_type.and_then(|value| value.to_str().ok()).is_some_and(|text| {
        let kind = text.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("multipart/form-data")
    });
    if !is_form {
        return Err(Rejection::invalid_request(None, "The recording must be sent as multipart/form-data."));
    }
    Ok(raw(inquiry, "/transcribe".to_owned(), content_type.cloned(), None))
}

/// A control call.
///
/// # Errors
/// 400 when it is about a thread and does not say plainly which.
pub(super) fn control(
    inquiry: &Inquiry<'_>,
    control: ControlPath,
    catalog: &ModelCatalog,
) -> Result<PreparedRequest, Rejection> {
    #[derive(Default, Deserialize)]
    struct Known {
        #[serde(default)]
        model: Option<String>,
    }
    let path = match inquiry.query {
        Some(query) => format!("/codex/{}?{query}", control.path()),
        None => format!("/codex/{}", control.path()),
    };
    let header = |name| inquiry.headers.get(name).cloned();
    let request = raw(inquiry, path, header(header::CONTENT_TYPE), header(header::ACCEPT));
    if control.is_about_thread() {
        return thread_goal::prepare(request, inquiry);
    }
    // Whatever the body is, it goes on; this only helps to find an account that offers the model.
    let known: Known = serde_json::from_slice(inquiry.body).unwrap_or_default();
    let model = known.model.filter(|model| catalog.find(model).is_some());
    Ok(PreparedRequest { model_requested: model.clone(), model, ..request })
}

fn json(inquiry: &Inquiry<'_>, path: String) -> PreparedRequest {
    let json = HeaderValue::from_static("application/json");
    raw(inquiry, path, Some(json.clone()), Some(json))
}

fn raw(
    inquiry: &Inquiry<'_>,
    path: String,
    content_type: Option<HeaderValue>,
    accept: Option<HeaderValue>,
) -> PreparedRequest {
    // What comes with a GET means nothing.
    let body = if inquiry.method == Method::GET { Bytes::new() } else { inquiry.body.clone() };
    PreparedRequest {
        head: UpstreamHead { method: inquiry.method.clone(), path, content_type, accept },
        body,
        answer: AnswerShape::Raw,
        model_requested: None,
        model: None,
        effort: None,
        tier: None,
        ignored_params: Vec::new(),
        prompt_cache_key: None,
        previous_response_id: None,
        new_turn: None,
        named_by: None,
        owner: None,
    }
}
