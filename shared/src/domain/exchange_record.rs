//! What is recorded of an exchange, once, when it ended: the request log's row and the rollups' increments.
//!
//! Never a prompt, an answer, a secret or an e-mail address.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::domain::usage::MeteredUsage;
use crate::ids::{AccountId, ApiKeyId, ExchangeId};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeStatus {
    /// Upstream's answer ended well and was relayed whole.
    Ok,
    /// Upstream or we failed.
    Error,
    /// The caller left first.
    Cancelled,
    /// We refused it ourselves; no account was involved.
    Rejected,
}

impl ExchangeStatus {
    /// The name in the database, in JSON, in metrics and in the UI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }

    /// Reads the name that [`Self::as_str`] writes.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Ok, Self::Error, Self::Cancelled, Self::Rejected].into_iter().find(|status| status.as_str() == name)
    }
}

/// One ended exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeRecord {
    /// Ours; recording the same id again changes nothing.
    pub id: ExchangeId,
    /// When it arrived.
    pub requested_at: Timestamp,
    /// The account that served it (the last one tried), if any was.
    pub account_id: Option<AccountId>,
    /// The api key that called, or `None` for keyless traffic.
    pub api_key_id: Option<ApiKeyId>,
    /// The endpoint's short name, such as `responses`.
    pub route: &'static str,
    /// How the answer travelled: `http` or `sse`.
    pub transport: &'static str,
    /// How it ended.
    pub status: ExchangeStatus,
    /// The error code the caller saw, if it saw one.
    pub error_code: Option<String>,
    /// Upstream's last HTTP status, if upstream answered.
    pub upstream_status: Option<u16>,
    /// How many legs were run.
    pub legs: u32,
    /// The model the caller asked for.
    pub model_requested: Option<String>,
    /// The model that was asked of upstream.
    pub model: Option<String>,
    /// Reasoning effort, if the body named one.
    pub effort: Option<String>,
    /// Service tier, if the body named one.
    pub tier: Option<String>,
    /// What was used, and how sure we are.
    pub usage: MeteredUsage,
    /// What it cost at list prices, in millionths of a dollar; `None` when the model has no known price.
    pub cost_micros: Option<i64>,
    /// Milliseconds until the first byte of upstream's answer.
    pub first_byte_ms: Option<u32>,
    /// Milliseconds until the first token.
    pub first_token_ms: Option<u32>,
    /// Milliseconds until its end.
    pub total_ms: u32,
    /// The caller's program, as one of a closed set of groups.
    pub user_agent_group: &'static str,
    /// The conversation's id as the client sent it, if it did, cut at 128 characters.
    pub conversation_id: Option<String>,
}
