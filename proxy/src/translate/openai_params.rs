//! What Responses and Chat Completions ask for in the same words, in the words of the ChatGPT backend.

use codex_lb_shared::domain::models::ModelCatalog;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::request::read_model;
use crate::intake::JsonObject;
use crate::rejection::Rejection;

/// Public parameters that the backend refuses. They are taken out, and the answer says so.
pub(super) const REFUSED_UPSTREAM: [&str; 18] = [
    "max_output_tokens",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "metadata",
    "user",
    "safety_identifier",
    "truncation",
    "prompt_cache_retention",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "n",
    "logprobs",
    "top_logprobs",
];

/// What the encrypted form of reasoning must be asked for with.
pub(super) const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

/// Model suffixes that name an effort.
const EFFORT_SUFFIXES: [&str; 6] = ["minimal", "low", "medium", "high", "xhigh", "max"];

/// Characters of the instructions that identify a conversation.
const INSTRUCTIONS_CHARS: usize = 512;

/// Longest name of a parameter that is told back.
const NAME_CHARS_MAX: usize = 64;
/// Parameters that are told back at most.
const NAMES_MAX: usize = 32;

/// The parameters of a body that are taken out because the backend refuses them.
pub(super) fn refused(object: &JsonObject) -> impl Iterator<Item = &'static str> {
    REFUSED_UPSTREAM.into_iter().filter(|param| is_given(object, param))
}

/// Whether a body has a parameter that is not null.
pub(super) fn is_given(object: &JsonObject, param: &str) -> bool {
    object.raw(param).is_some_and(|raw| raw != "null")
}

/// The names of what was left out, as far as a header can hold them.
pub(super) fn tellable<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_name = |name: &&str| {
        name.len() <= NAME_CHARS_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    names.filter(is_name).take(NAMES_MAX).map(str::to_owned).collect()
}

/// Which model a body asks for, and how it is to work.
#[derive(Debug)]
pub(super) struct ModelChoice {
    /// The name that the caller used.
    pub(super) requested: String,
    /// The model that upstream is asked for.
    pub(super) model: String,
    /// Its effort, if named.
    pub(super) effort: Option<String>,
    /// Its service tier, if named.
    pub(super) tier: Option<String>,
}

impl ModelChoice {
    /// Reads the choice. A suffix of the model's name goes before what the body says elsewhere; `named_effort` is the
    /// effort that it says.
    ///
    /// # Errors
    /// 400 naming what is missing or wrong.
    pub(super) fn read(
        object: &JsonObject,
        catalog: &ModelCatalog,
        named_effort: impl FnOnce() -> Result<Option<String>, Rejection>,
    ) -> Result<Self, Rejection> {
        let requested = read_model(object)?;
        let name = ModelName::split(&requested, catalog);
        let effort = name.effort.map(str::to_owned).or(named_effort()?).map(upstream_effort);
        let tier = name.is_fast.then(|| "priority".to_owned()).or(upstream_tier(object)?);
        let model = name.model.to_owned();
        Ok(Self { requested, model, effort, tier })
    }
}

/// A model's name, split from the suffixes that set effort and tier.
struct ModelName<'a> {
    model: &'a str,
    effort: Option<&'static str>,
    is_fast: bool,
}

impl<'a> ModelName<'a> {
    /// Splits only a name that the catalog does not know, and only if what is left is known: `gpt-5.1-codex-max` is a
    /// model and not an effort.
    fn split(requested: &'a str, catalog: &ModelCatalog) -> Self {
        let whole = Self { model: requested, effort: None, is_fast: false };
        if catalog.find(requested).is_some() {
            return whole;
        }
        let mut split = Self { ..whole };
        while let Some((rest, suffix)) = split.model.rsplit_once('-') {
            match EFFORT_SUFFIXES.into_iter().find(|effort| *effort == suffix) {
                Some(effort) if split.effort.is_none() => split.effort = Some(effort),
                None if suffix == "fast" && !split.is_fast => split.is_fast = true,
                Some(_) | None => break,
            }
            split.model = rest;
            if catalog.find(rest).is_some() {
                return split;
            }
        }
        Self { model: requested, effort: None, is_fast: false }
    }
}

fn upstream_effort(effort: String) -> String {
    if effort == "ultra" { "max".to_owned() } else { effort }
}

/// The tier in upstream's words: it knows `priority` and `flex`, and refuses the names of the default.
fn upstream_tier(object: &JsonObject) -> Result<Option<String>, Rejection> {
    let tier: Option<String> = object.get("service_tier", "a string")?;
    Ok(match tier.as_deref() {
        Some("fast") => Some("priority".to_owned()),
        Some("auto" | "default") => None,
        Some(_) | None => tier,
    })
}

/// Gives the public names of the preview web search, which are unknown upstream, their later one: in a list of tools
/// or in a single one.
pub(super) fn name_web_search(value: &mut Value) {
    let tools = match value.is_array() {
        true => value.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default(),
        false => std::slice::from_mut(value),
    };
    for tool in tools {
        if let Some(kind) = tool.get_mut("type")
            && kind.as_str().is_some_and(|kind| kind.starts_with("web_search_preview"))
        {
            *kind = Value::from("web_search");
        }
    }
}

/// The key under which upstream caches the prompt: the caller's own, else one derived from how the conversation began.
///
/// # Errors
/// 400 when the caller's is no text.
pub(super) fn cache_key(
    object: &JsonObject,
    caller_scope: &str,
    model: &str,
    instructions: &str,
    first_user_text: &str,
) -> Result<String, Rejection> {
    let own: Option<String> = object.get("prompt_cache_key", "a string")?;
    Ok(own.unwrap_or_else(|| derived_cache_key(caller_scope, model, instructions, first_user_text)))
}

/// Equal conversations get equal keys, so that they land on one account and its prompt cache.
fn derived_cache_key(caller_scope: &str, model: &str, instructions: &str, first_user_text: &str) -> String {
    let mut hash = Sha256::new();
    let beginning: String = instructions.chars().take(INSTRUCTIONS_CHARS).collect();
    for part in [caller_scope, model, &beginning, first_user_text] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("clb-{hex}")
}
