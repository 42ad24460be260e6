//! Upstream's refusals, told to the caller: as they came on the native routes, elsewhere in OpenAI's shape.

use bytes::Bytes;
use codex_lb_decide::verdict::UpstreamError;
use serde_json::{Value, json};

use crate::attempt::Refusal;
use crate::rejection::{is_about_account, status_of_failure};
use crate::relay::{AnswerHead, ClientGone, Downstream};
use crate::route::Dialect;

/// An error reply of upstream that the caller gets.
#[derive(Clone, Debug)]
pub(super) struct UpstreamRefusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// Upstream's body, where the dialect passes it on as it is.
    body: Option<Bytes>,
    /// The same as an OpenAI error.
    openai_error: Value,
    /// `error.code`, for the request log.
    pub(super) code: Option<String>,
}

impl UpstreamRefusal {
    /// The reply, unless it is about the account: a caller would throw its own login away for a 401.
    pub(super) fn from_reply(refusal: &Refusal) -> Option<Self> {
        let error = UpstreamError::from_body(&refusal.body);
        // A redirect or anything else that is no error has no meaning for a caller.
        if refusal.status < 400 {
            return None;
        }
        if is_about_account(refusal.status, error.is_not_json) {
            return None;
        }
        let body = (!error.is_not_json).then(|| refusal.body.clone());
        Some(Self { body, ..Self::new(refusal.status, &error) })
    }

    /// A failure event as the HTTP error it would have been.
    pub(super) fn from_event(event: &Bytes) -> Self {
        let error = UpstreamError::from_event(event);
        Self::new(status_of_failure(error.name()), &error)
    }

    /// A refusal that is told as an OpenAI error.
    fn new(status: u16, error: &UpstreamError) -> Self {
        let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        let default_type = if status < 500 { "invalid_request_error" } else { "server_error" };
        let code = Some(error.name()).filter(|name| !name.is_empty()).map(str::to_owned);
        let openai_error = json!({"error": {
            "message": or(&error.message, "Upstream refused the request without saying why."),
            "type": or(&error.error_type, default_type),
            "param": null,
            "code": code,
        }});
        Self { status, body: None, openai_error, code }
    }
}

/// Tells an upstream refusal: on the native route as it came, elsewhere in OpenAI's shape.
pub(super) async fn pass_on(
    downstream: &mut Downstream<'_>,
    dialect: Dialect,
    refusal: &UpstreamRefusal,
) -> Result<(), ClientGone> {
    if downstream.is_head_sent() {
        return downstream.end_with(&refusal.openai_error["error"]).await;
    }
    let own = refusal.body.as_ref().filter(|body| dialect == Dialect::Native || is_openai_error(body));
    let body = own.cloned().unwrap_or_else(|| Bytes::from(refusal.openai_error.to_string()));
    downstream.answer(refusal.status, "application/json", &AnswerHead::default(), body).await
}

fn is_openai_error(body: &[u8]) -> bool {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    parsed.is_some_and(|body| body.pointer("/error/message").is_some_and(Value::is_string))
}
