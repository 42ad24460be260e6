//! The model catalog, with the union of the fields that clients from 0.104 to 0.169 require.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The slugs that every plan offers unless a test says otherwise.
pub const DEFAULT_MODELS: [&str; 5] = ["gpt-5.5", "gpt-5.4", "gpt-5.4-mini", "gpt-5.3-codex", "gpt-5.6-sol"];

/// The limit of its own that meters a model, if it has one.
pub(crate) fn named_limit(slug: &str) -> Option<&'static str> {
    (slug == "gpt-5.3-codex-spark").then_some("codex_bengalfox")
}

/// The answer of `GET codex/models` for these slugs. Unknown ones get the traits of an ordinary model.
pub(crate) fn catalog(slugs: &[String]) -> Value {
    let models: Vec<_> = slugs.iter().enumerate().map(|(index, slug)| model(slug, index)).collect();
    json!({"models": models})
}

/// The `ETag` of [`catalog`], which `x-models-etag` repeats.
pub(crate) fn etag(slugs: &[String]) -> String {
    let digest = Sha256::digest(slugs.join("\n"));
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("W/\"{hex}\"")
}

/// Whether requests for this model use the "responses lite" form.
pub(crate) fn is_lite(slug: &str) -> bool {
    slug.starts_with("gpt-5.6") || slug.starts_with("gpt-6")
}

fn model(slug: &str, index: usize) -> Value {
    let is_lite = is_lite(slug);
    let mut model = json!({
        "slug": slug,
        "display_name": slug.replacen("gpt", "GPT", 1),
        "description": "A model of the fake backend.",
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": reasoning_levels(),
        "shell_type": if is_lite { "unified_exec" } else { "shell_command" },
        "visibility": "list",
        "supported_in_api": true,
        "minimal_client_version": "0.98.0",
        "priority": index,
        "availability_nux": null,
        "upgrade": null,
        "base_instructions": "You are Codex, a coding agent. You and the user share the same workspace.",
        "supports_reasoning_summaries": true,
        "default_reasoning_summary": "auto",
        "support_verbosity": true,
        "default_verbosity": "low",
        "apply_patch_tool_type": "freeform",
        "web_search_tool_type": "text_and_image",
        "truncation_policy": {"mode": "tokens", "limit": 10_000},
        "supports_parallel_tool_calls": !is_lite,
        "supports_image_detail_original": true,
        "context_window": 272_000,
        "max_context_window": 272_000,
        "auto_compact_token_limit": null,
        "effective_context_window_percent": 95,
        "experimental_supported_tools": [],
        "input_modalities": ["text", "image"],
        "additional_speed_tiers": ["fast"],
        "service_tiers": [{"id": "priority", "name": "Fast", "description": "1.5x speed, increased usage"}],
        "default_service_tier": null,
        "supports_search_tool": true,
        "use_responses_lite": is_lite,
        "prefer_websockets": false,
        "include_skills_usage_instructions": false,
        "comp_hash": "3000",
    });
    extend(
        &mut model,
        json!({
            "model_messages": {
                "instructions_template": "You are Codex, a coding agent.\n\n{{ personality }}",
                "instructions_variables": {
                    "personality_default": "", "personality_friendly": "Be friendly.", "personality_pragmatic": "Be brief.",
                },
            },
        }),
    );
    if is_lite {
        extend(&mut model, json!({"tool_mode": "code_mode_only", "multi_agent_version": "v2"}));
    }
    model
}

fn reasoning_levels() -> Value {
    json!([
        {"effort": "low", "description": "Fast responses with lighter reasoning"},
        {"effort": "medium", "description": "Balances speed and reasoning depth for everyday tasks"},
        {"effort": "high", "description": "Greater reasoning depth for complex problems"},
        {"effort": "xhigh", "description": "Extra high reasoning depth for complex problems"},
    ])
}

fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
