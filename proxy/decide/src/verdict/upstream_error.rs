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
    /// `error.plan_type`.
    pub plan_type: Option<String>,
    /// `error.resets_at`.
    pub resets_at: Option<Timestamp>,
    /// `error.resets_in_seconds`.
    pub resets_in: Option<Duration>,
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
        let Ok(object) = serde_json::from_slice::<Value>(event) else {
            return Self { is_not_json: true, ..Self::default() };
        };
        match object.get("response").filter(|response| response.get("error").is_some()) {
            Some(response) => Self::from_object(response),
            None if object.get("error").is_some_and(Value::is_object) => Self::from_object(&object),
            None => Self::from_parts(&object),
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
            plan_type: error.get("plan_type").and_then(Value::as_str).map(str::to_owned),
            resets_at: number("resets_at").map(seconds_since_epoch),
            resets_in: number("resets_in_seconds").and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            is_not_json: false,
        }
    }

    /// What the error calls itself: its code, else its type.
    pub fn name(&self) -> &str {
        // Usage limits carry the telling name in `type`, with or without a generic code beside it.
        if self.code.is_empty() || self.error_type == "usage_limit_reached" { &self.error_type } else { &self.code }
    }

    /// Whether items of the body decrypt on another account only.
    pub fn is_encrypted_content_refusal(&self) -> bool {
        self.code == "invalid_encrypted_content"
            || (self.message_has("encrypted content") && self.message_has("could not be verified"))
    }

    /// Whether this account's plan does not serve the model.
    pub fn is_model_unsupported(&self) -> bool {
        self.message_has("model is not supported when using codex")
    }

    /// Whether the message has these words, whatever their case.
    pub fn message_has(&self, words: &str) -> bool {
        self.message.to_ascii_lowercase().contains(words)
    }
}

fn seconds_since_epoch(seconds: f64) -> Timestamp {
    Timestamp::from_unix_ms((seconds * 1000.0) as i64)
}
