//! What happened in an exchange, for the log line, the metrics and the request log: written by every step, read by
//! none of them.

use std::time::Instant;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::exchange_record::{ExchangeRecord, ExchangeStatus};
use codex_lb_shared::domain::pricing::PriceTable;
use codex_lb_shared::domain::usage::MeteredUsage;
use codex_lb_shared::ids::{AccountId, ApiKeyId, ExchangeId};
use codex_lb_shared::kind::Kind;
use http::HeaderMap;

use crate::translate::PreparedRequest;

/// Longest conversation id that is recorded.
const CONVERSATION_CHARS_MAX: usize = 128;

/// One exchange's trail.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    pub(crate) id: ExchangeId,
    pub(crate) requested_at: Timestamp,
    pub(crate) began: Instant,
    pub(crate) route: &'static str,
    pub(crate) transport: &'static str,
    pub(crate) user_agent_group: &'static str,
    pub(crate) conversation_id: Option<String>,
    pub(crate) is_caller_proven: bool,
    pub(crate) api_key_id: Option<ApiKeyId>,
    pub(crate) model_requested: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) effort: Option<String>,
    pub(crate) tier: Option<String>,
    pub(crate) account_id: Option<AccountId>,
    pub(crate) legs: u32,
    pub(crate) upstream_status: Option<u16>,
    pub(crate) first_byte_at: Option<Instant>,
    pub(crate) first_token_at: Option<Instant>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_kind: Option<Kind>,
}

impl Trail {
    /// The trail of a request that has just arrived.
    pub(crate) fn begin(route: &'static str, headers: &HeaderMap, now: Timestamp) -> Self {
        Self {
            id: ExchangeId::generate(),
            requested_at: now,
            began: Instant::now(),
            route,
            transport: "http",
            user_agent_group: user_agent_group(headers),
            conversation_id: conversation_id(headers),
            is_caller_proven: false,
            api_key_id: None,
            model_requested: None,
            model: None,
            effort: None,
            tier: None,
            account_id: None,
            legs: 0,
            upstream_status: None,
            first_byte_at: None,
            first_token_at: None,
            error_code: None,
            error_kind: None,
        }
    }

    /// What the body asked for.
    pub(crate) fn note_request(&mut self, request: &PreparedRequest) {
        self.model_requested.clone_from(&request.model_requested);
        self.model.clone_from(&request.model);
        self.effort.clone_from(&request.effort);
        self.tier.clone_from(&request.tier);
        self.conversation_id = self.conversation_id.take().or_else(|| request.prompt_cache_key.clone());
    }

    /// The record of the exchange, which ended now.
    pub(crate) fn record(&self, status: ExchangeStatus, usage: MeteredUsage) -> ExchangeRecord {
        let cost_micros = self
            .model
            .as_deref()
            .zip(usage.tokens())
            .and_then(|(model, tokens)| PriceTable::list_prices().cost_micros(model, self.tier.as_deref(), tokens));
        let since =
            |at: Instant| u32::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u32::MAX);
        ExchangeRecord {
            id: self.id,
            requested_at: self.requested_at,
            account_id: self.account_id,
            api_key_id: self.api_key_id,
            route: self.route,
            transport: self.transport,
            status,
            error_code: self.error_code.clone(),
            upstream_status: self.upstream_status,
            legs: self.legs,
            model_requested: self.model_requested.clone(),
            model: self.model.clone(),
            effort: self.effort.clone(),
            tier: self.tier.clone(),
            usage,
            cost_micros,
            first_byte_ms: self.first_byte_at.map(since),
            first_token_ms: self.first_token_at.map(since),
            total_ms: since(Instant::now()),
            user_agent_group: self.user_agent_group,
            conversation_id: self.conversation_id.clone(),
        }
    }
}

/// The client's program, as one of a closed set.
fn user_agent_group(headers: &HeaderMap) -> &'static str {
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    const GROUPS: [(&str, &str); 9] = [
        ("codex", "codex"),
        ("opencode/", "opencode"),
        ("OpenAI/Python", "openai-python"),
        ("AsyncOpenAI/Python", "openai-python"),
        ("OpenAI/JS", "openai-node"),
        ("ai/", "ai-sdk"),
        ("langchain", "langchain"),
        ("litellm", "litellm"),
        ("curl/", "curl"),
    ];
    GROUPS.into_iter().find(|(prefix, _)| agent.starts_with(prefix)).map_or("other", |(_, group)| group)
}

/// The conversation's id as clients send it.
fn conversation_id(headers: &HeaderMap) -> Option<String> {
    const NAMES: [&str; 6] =
        ["thread-id", "session-id", "session_id", "conversation_id", "x-codex-session-id", "x-session-affinity"];
    let value = NAMES.into_iter().find_map(|name| headers.get(name))?.to_str().ok()?;
    Some(value.chars().take(CONVERSATION_CHARS_MAX).collect())
}
