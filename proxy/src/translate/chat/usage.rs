//! What stands beside an answer's text, in the words of Chat Completions: usage and sources.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// `usage` of a response as a chat's; `None` when upstream told no counts.
pub(super) fn of_chat(usage: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Usage {
        input_tokens: Option<u64>,
        output_tokens: Option<u64>,
        total_tokens: Option<u64>,
        input_tokens_details: Option<InputDetails>,
        output_tokens_details: Option<OutputDetails>,
    }
    #[derive(Deserialize)]
    struct InputDetails {
        cached_tokens: Option<u64>,
    }
    #[derive(Deserialize)]
    struct OutputDetails {
        reasoning_tokens: Option<u64>,
    }
    let usage: Usage = serde_json::from_str(usage.get()).ok()?;
    if usage.input_tokens.is_none() && usage.output_tokens.is_none() {
        return None;
    }
    let (prompt, completion) = (usage.input_tokens.unwrap_or(0), usage.output_tokens.unwrap_or(0));
    let total = usage.total_tokens.unwrap_or_else(|| prompt.saturating_add(completion));
    let mut told = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total});
    if let Some(cached) = usage.input_tokens_details.and_then(|details| details.cached_tokens) {
        told["prompt_tokens_details"] = json!({ "cached_tokens": cached });
    }
    if let Some(reasoning) = usage.output_tokens_details.and_then(|details| details.reasoning_tokens) {
        told["completion_tokens_details"] = json!({ "reasoning_tokens": reasoning });
    }
    Some(told.to_string())
}

/// A source that a text cites, as a chat has it: `url_citation`. `begins_at` is where the part that cites begins in the whole text.
pub(super) fn citation_of_chat(annotation: &RawValue, begins_at: usize) -> Option<String> {
    let annotation: Value = serde_json::from_str(annotation.get()).ok()?;
    if annotation["type"] != "url_citation" {
        return None;
    }
    let place = |name: &str| annotation[name].as_u64().map(|index| index.saturating_add(begins_at as u64));
    let citation = json!({
        "start_index": place("start_index"),
        "end_index": place("end_index"),
        "url": annotation["url"],
        "title": annotation["title"],
    });
    Some(citation.to_string())
}
