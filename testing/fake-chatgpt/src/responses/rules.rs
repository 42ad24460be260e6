//! What upstream refuses before it asks a model. Nothing here has a side effect, so a refused request uses up no script.

use std::collections::HashSet;

use serde_json::Value;

use super::prompt::{is_message, items};
use super::sealed;
use crate::reply::Refusal;

/// Parameters that are known to be refused, or that belong to other APIs.
const UNSUPPORTED: [&str; 24] = [
    "max_output_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "metadata",
    "top_logprobs",
    "truncation",
    "user",
    "safety_identifier",
    "prompt_cache_retention",
    "previous_response_id",
    "logprobs",
    "logit_bias",
    "max_tokens",
    "max_completion_tokens",
    "messages",
    "n",
    "stop",
    "response_format",
    "reasoning_effort",
    "background",
    "conversation",
];
const SERVICE_TIERS: [&str; 2] = ["priority", "flex"];

/// Whether a body may go to the model, for an account of this identity whose plan offers these models.
pub(crate) fn check(
    body: &Value,
    identity: &str,
    offered: &[String],
    require_instructions: bool,
) -> Result<(), Refusal> {
    let Some(object) = body.as_object() else { return Err(Refusal::detail("Request body must be a JSON object")) };
    if let Some(name) = UNSUPPORTED.iter().find(|name| object.contains_key(**name)) {
        return Err(Refusal::detail(format!("Unsupported parameter: {name}")));
    }
    if let Some(tier) = body["service_tier"].as_str().filter(|tier| !SERVICE_TIERS.contains(tier)) {
        return Err(Refusal::detail(format!("Unsupported service_tier: {tier}")));
    }
    if body["stream"] != true {
        return Err(Refusal::detail("Stream must be set to true"));
    }
    if body["store"] != false {
        return Err(Refusal::detail("Store must be set to false"));
    }
    check_content(body, identity, offered, require_instructions)
}

/// The checks that the compaction call, which is neither streamed nor stored, shares with the ordinary one.
pub(crate) fn check_content(
    body: &Value,
    identity: &str,
    offered: &[String],
    require_instructions: bool,
) -> Result<(), Refusal> {
    let has_instructions = body["instructions"].as_str().is_some_and(|instructions| !instructions.is_empty());
    if require_instructions && !has_instructions {
        return Err(Refusal::detail("Instructions are required"));
    }
    let Some(model) = body["model"].as_str() else { return Err(Refusal::detail("Missing required parameter: model")) };
    if !offered.iter().any(|slug| slug == model) {
        let message = format!("The '{model}' model is not supported when using Codex with a ChatGPT account.");
        return Err(Refusal::detail(message));
    }
    if !body["input"].is_array() {
        return Err(Refusal::detail("Input must be a list"));
    }
    items(body).iter().enumerate().try_for_each(|(index, item)| check_item(&items(body)[..index], item, identity))
}

/// Whether every file that a body's messages refer to is one of `files`.
pub(crate) fn check_files(body: &Value, files: &HashSet<String>) -> Result<(), Refusal> {
    let parts = items(body).iter().filter_map(|item| item["content"].as_array()).flatten();
    let mut referred = parts.filter_map(|part| part["file_id"].as_str());
    match referred.find(|file_id| !files.contains(*file_id)) {
        None => Ok(()),
        Some(file_id) => {
            Err(Refusal::invalid_request(&format!("The file with id {file_id} was not found."), Some("input"), None))
        }
    }
}

fn check_item(earlier: &[Value], item: &Value, identity: &str) -> Result<(), Refusal> {
    let kind = item["type"].as_str().unwrap_or("message");
    if is_message(item, "system") {
        return Err(Refusal::detail("System messages are not allowed"));
    }
    match kind {
        "item_reference" => Err(item_not_found(item)),
        "reasoning" | "compaction" | "compaction_summary" => match item["encrypted_content"].as_str() {
            None => Err(item_not_found(item)),
            Some(sealed) if sealed::opens(sealed, identity) => Ok(()),
            Some(sealed) => Err(not_verified(sealed)),
        },
        _ => match kind.strip_suffix("_output") {
            Some(call_kind) if call_kind.ends_with("_call") => check_output(earlier, item, call_kind),
            Some(_) | None => Ok(()),
        },
    }
}

/// An output needs its call before it.
fn check_output(earlier: &[Value], output: &Value, call_kind: &str) -> Result<(), Refusal> {
    let call_id = &output["call_id"];
    if earlier.iter().any(|item| item["type"] == call_kind && item["call_id"] == *call_id) {
        return Ok(());
    }
    let what = call_kind.replace('_', " ");
    let call_id = call_id.as_str().unwrap_or_default();
    let message = format!("No tool call found for {what} output with call_id {call_id}.");
    Err(Refusal::invalid_request(&message, Some("input"), None))
}

fn item_not_found(item: &Value) -> Refusal {
    let id = item["id"].as_str().unwrap_or_default();
    let message = format!(
        "Item with id '{id}' not found. Items are not persisted when `store` is set to false. \
         Try again with `store` set to true, or remove this item from your input."
    );
    Refusal::invalid_request(&message, Some("input"), None)
}

fn not_verified(sealed: &str) -> Refusal {
    let start: String = sealed.chars().take(8).collect();
    let message = format!(
        "The encrypted content {start}... could not be verified. Reason: Encrypted content could not be decrypted or parsed."
    );
    Refusal::invalid_request(&message, None, Some("invalid_encrypted_content"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(change: impl FnOnce(&mut Value)) -> Option<Value> {
        let mut body =
            json!({"model": "gpt-5.5", "stream": true, "store": false, "input": [{"role": "user", "content": "hi"}]});
        change(&mut body);
        check(&body, "w/u", &["gpt-5.5".to_owned()], false).err().map(|refusal| refusal.body().clone())
    }

    #[test]
    fn every_rule_of_upstream_is_kept() {
        let own = sealed::seal("w/u");
        let foreign = sealed::seal("w/other");
        assert_eq!(refusal(|_| {}), None);
        assert_eq!(
            refusal(|b| b["input"] = json!([{"type": "reasoning", "id": "rs_1", "encrypted_content": own}])),
            None
        );
        let detail = |message: &str| Some(json!({"detail": message}));
        assert_eq!(refusal(|b| b["temperature"] = json!(1)), detail("Unsupported parameter: temperature"));
        assert_eq!(
            refusal(|b| b["previous_response_id"] = json!("r")),
            detail("Unsupported parameter: previous_response_id")
        );
        assert_eq!(refusal(|b| b["stream"] = json!(false)), detail("Stream must be set to true"));
        assert_eq!(refusal(|b| b["store"] = Value::Null), detail("Store must be set to false"));
        assert_eq!(refusal(|b| b["input"] = json!("hi")), detail("Input must be a list"));
        assert_eq!(refusal(|b| b["input"][0]["role"] = json!("system")), detail("System messages are not allowed"));
        let message = "The 'gpt-4' model is not supported when using Codex with a ChatGPT account.";
        assert_eq!(refusal(|b| b["model"] = json!("gpt-4")), detail(message));

        let error = |change: fn(&mut Value, &str), text: &str| refusal(|b| change(b, text)).unwrap()["error"].clone();
        let reference = error(|b, _| b["input"] = json!([{"type": "item_reference", "id": "msg_9"}]), "");
        assert!(
            reference["message"]
                .as_str()
                .unwrap()
                .starts_with("Item with id 'msg_9' not found. Items are not persisted")
        );
        let unknown_call =
            error(|b, _| b["input"] = json!([{"type": "function_call_output", "call_id": "call_1"}]), "");
        assert_eq!(unknown_call["message"], "No tool call found for function call output with call_id call_1.");
        let stolen = error(|b, blob| b["input"] = json!([{"type": "compaction", "encrypted_content": blob}]), &foreign);
        assert_eq!(stolen["code"], "invalid_encrypted_content");
    }
}
