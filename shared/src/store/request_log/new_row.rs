//! A row of the log on its way into the database: texts and numbers in the bounds that a column holds.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::domain::exchange_record::ExchangeRecord;

/// Callers choose some of the texts, and an index refuses a long one: then a whole batch would fail, again and again.
const TEXT_CHARS_MAX: usize = 128;
/// No exchange uses or costs more. Upstream's word is checked nowhere else, and no sum may overflow.
const COUNT_MAX: i64 = 1_000_000_000_000;

/// One row; its fields are named like the columns.
#[derive(Serialize)]
pub(in crate::store) struct NewRow<'a> {
    pub(in crate::store) id: String,
    pub(in crate::store) requested_at: i64,
    pub(in crate::store) account_id: Option<String>,
    pub(in crate::store) api_key_id: Option<String>,
    route: &'a str,
    transport: &'a str,
    pub(in crate::store) status: &'a str,
    error_code: Option<String>,
    upstream_status: Option<u16>,
    legs: u32,
    model_requested: Option<String>,
    pub(in crate::store) model: Option<String>,
    effort: Option<String>,
    pub(in crate::store) tier: Option<String>,
    pub(in crate::store) input_tokens: Option<i64>,
    pub(in crate::store) cached_input_tokens: Option<i64>,
    pub(in crate::store) output_tokens: Option<i64>,
    pub(in crate::store) reasoning_tokens: Option<i64>,
    is_estimated: bool,
    pub(in crate::store) cost_micros: Option<i64>,
    first_byte_ms: Option<u32>,
    first_token_ms: Option<u32>,
    total_ms: u32,
    user_agent_group: &'a str,
    conversation_id: Option<String>,
}

impl<'a> NewRow<'a> {
    pub(in crate::store) fn of(record: &'a ExchangeRecord) -> Self {
        let tokens = record.usage.tokens();
        Self {
            id: record.id.to_string(),
            requested_at: record.requested_at.as_unix_ms(),
            account_id: record.account_id.map(|id| id.to_string()),
            api_key_id: record.api_key_id.map(|id| id.to_string()),
            route: record.route,
            transport: record.transport,
            status: record.status.as_str(),
            error_code: bounded_text(record.error_code.as_deref()),
            upstream_status: record.upstream_status,
            legs: record.legs,
            model_requested: bounded_text(record.model_requested.as_deref()),
            model: bounded_text(record.model.as_deref()),
            effort: bounded_text(record.effort.as_deref()),
            tier: bounded_text(record.tier.as_deref()),
            input_tokens: tokens.map(|tokens| bounded_count(tokens.input)),
            cached_input_tokens: tokens.map(|tokens| bounded_count(tokens.cached_input)),
            output_tokens: tokens.map(|tokens| bounded_count(tokens.output)),
            reasoning_tokens: tokens.map(|tokens| bounded_count(tokens.reasoning)),
            is_estimated: record.usage.is_estimated(),
            cost_micros: record.cost_micros.map(|cost| cost.clamp(0, COUNT_MAX)),
            first_byte_ms: record.first_byte_ms,
            first_token_ms: record.first_token_ms,
            total_ms: record.total_ms,
            user_agent_group: record.user_agent_group,
            conversation_id: bounded_text(record.conversation_id.as_deref()),
        }
    }

    /// The UTC hour that the row counts in.
    pub(in crate::store) const fn hour_at(&self) -> i64 {
        Timestamp::from_unix_ms(self.requested_at).hour_start().as_unix_ms()
    }
}

fn bounded_text(text: Option<&str>) -> Option<String> {
    // PostgreSQL's texts cannot hold NUL.
    text.map(|text| text.chars().filter(|char| *char != '\0').take(TEXT_CHARS_MAX).collect())
}

fn bounded_count(count: u64) -> i64 {
    i64::try_from(count).map_or(COUNT_MAX, |count| count.min(COUNT_MAX))
}
