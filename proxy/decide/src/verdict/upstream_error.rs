//! What an upstream error says of itself, read out of the several shapes it comes in.

use std::time::Duration;

use codex_lb_shared::clock::Timestamp;
use serde_json::Value;

/// The parts of an upstream error that we act on. Every part may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamError {
    /// `error.type`.
    pub error_type: String,
    /// `error.code`, or the code inside a `detail` object.
    pub code: String,
    /// `error.message`, or a `detail` text. For the caller only: it may quote a prompt, so never log it.
    pub message: String,
    /// `error.resets_at`.
    pub resets_at: Option<Timestamp>,
    /// `error.resets_in_seconds`.
    pub resets_in: Option<Duration>,
    /// `Retry-After`: of the reply, or among the headers that an `error` event carries.
    pub retry_after: Option<String>,
    /// The status of the HTTP reply that an `error` event stands for.
    pub status: Option<u16>,
    /// The body was no JSON object: a proxy's or a challenge's page.
    pub is_not_json: bool,
}

impl UpstreamError {
    /// Reads an HTTP error body: `{"error":{…}}`, `{"detail":"…"}` or `{"detail":{"code":…}}`.
    pub fn from_body(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(object @ Value::Object(_)) => Self::from_object(&object),
            Ok(_) | Err(_) => Self { is_not_json: true, ..Self::default() },
        }
    }

    /// Reads a failure event: `response.failed` (`response.error`) or `error` (`error`, or the event itself).
    pub fn from_event(event: &[u8]) -> Self {
        // What cannot be read says nothing.
        let event = serde_json::from_slice::<Value>(event).unwrap_or_default();
        let error =
            [event.pointer("/response/error"), event.get("error")].into_iter().flatten().find(|at| at.is_object());
        let parts = match error {
            Some(error) => Self::from_parts(error),
            // The type is the event's then, and no name of an error.
            None => Self { error_type: String::new(), ..Self::from_parts(&event) },
        };
        let status = event.get("status").or_else(|| event.get("status_code")).and_then(Value::as_u64);
        Self {
            status: status.and_then(|status| u16::try_from(status).ok()),
            retry_after: event.get("headers").and_then(retry_after),
            ..parts
        }
    }

    fn from_object(object: &Value) -> Self {
        if let Some(error) = object.get("error").filter(|error| error.is_object()) {
            return Self::from_parts(error);
        }
        match object.get("detail") {
            Some(Value::String(message)) => Self { message: message.clone(), ..Self::default() },
            Some(detail @ Value::Object(_)) => Self::from_parts(detail),
            _ => Self::from_parts(object),
        }
    }

    fn from_parts(error: &Value) -> Self {
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| error.get(name).and_then(Value::as_f64);
        Self {
            error_type: text("type"),
            code: text("code"),
            message: text("message"),
            resets_at: number("resets_at").map(seconds_since_epoch),
            resets_in: number("resets_in_seconds").and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            ..Self::default()
        }
    }

    /// What the error calls itself: its code, else its type.
    pub fn name(&self) -> &str {
        // Usage limits carry the telling name in `type`, with or without a generic code beside it.
        if self.code.is_empty() || self.error_type == "usage_limit_reached" { &self.error_type } else { &self.code }
    }

    /// All that the error calls itself, the nearer name first.
    pub(super) fn names(&self) -> [&str; 2] {
        [&self.code, &self.error_type]
    }

    /// Whether the error neither names nor explains itself.
    pub(super) fn says_nothing(&self) -> bool {
        [&self.code, &self.error_type, &self.message].into_iter().all(String::is_empty)
    }

    /// Whether the message begins with the words by which upstream says that it has no room for a model just now.
    pub(super) fn says_model_is_at_capacity(&self) -> bool {
        let message = self.message.trim().to_ascii_lowercase();
        message.strip_prefix("the ").unwrap_or(&message).starts_with("selected model is at capacity")
    }

    /// Whether the message is the sentence by which upstream says that an account does not serve a model, and nothing
    /// but that.
    pub(super) fn says_model_is_unsupported(&self) -> bool {
        let message = self.message.trim().to_ascii_lowercase();
        let name_and_rest = message.strip_prefix("the '").and_then(|rest| rest.split_once('\''));
        let sentence = "model is not supported when using codex with a chatgpt account";
        name_and_rest.is_some_and(|(_, rest)| rest.trim().trim_end_matches('.') == sentence)
    }

    /// Whether the message has these words, whatever their case.
    pub(super) fn message_has(&self, words: &str) -> bool {
        self.message.to_ascii_lowercase().contains(words)
    }
}

/// The `Retry-After` among the headers that an event carries, which may be texts or numbers.
fn retry_after(headers: &Value) -> Option<String> {
    let (_, value) = headers.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(seconds) => Some(seconds.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn seconds_since_epoch(seconds: f64) -> Timestamp {
    Timestamp::from_unix_ms((seconds * 1000.0) as i64)
}
