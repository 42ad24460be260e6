//! Upstream's failures in the middle of an answer, in OpenAI's shape.

use serde_json::{Value, json};

/// The failure that an event tells, with every member that SDKs read; `default_message` where it says nothing itself.
pub(super) fn openai_error(event: &Value, default_message: &str) -> Value {
    let error = event.pointer("/response/error").or_else(|| event.get("error")).unwrap_or(event);
    let mut told = json!({"message": default_message, "type": "server_error", "param": null, "code": null});
    for name in ["message", "type", "param", "code"] {
        // An error event without an error object is its own, and its type is the event's.
        let is_event_type = name == "type" && std::ptr::eq(error, event);
        if let Some(value) = error.get(name).filter(|value| value.is_string() && !is_event_type) {
            told[name] = value.clone();
        }
    }
    told
}
