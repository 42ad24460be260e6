//! `request_log`: one row per ended exchange. Recording is the one write that also adds to `usage_hourly` and marks api
//! keys as used, in the same transaction, so that the sums always equal the log.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::clock::Timestamp;
use crate::domain::exchange_record::{ExchangeRecord, ExchangeStatus};
use crate::domain::usage::TokenUsage;
use crate::ids::{AccountId, ApiKeyId, ExchangeId};

use super::columns::{Column, moment};
use super::usage_hourly::{ADD_HOURS, HourlySums};
use super::{Store, StoreError, TwinSql, read, transact};

mod new_row;

pub(super) use new_row::NewRow;

/// Most rows in one page.
pub const PAGE_ROWS_MAX: u32 = 200;
const PAGE_ROWS: u32 = 50;

/// Which part of the log to read.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRequest {
    /// Only exchanges before this one: the `requested_at` and `id` of the last row of the page before.
    pub before: Option<(Timestamp, ExchangeId)>,
    /// How many rows, between 1 and [`PAGE_ROWS_MAX`].
    pub limit: u32,
    /// Only of this account.
    pub account_id: Option<AccountId>,
    /// Only of this api key.
    pub api_key_id: Option<ApiKeyId>,
    /// Only of this model.
    pub model: Option<String>,
    /// Only with this end.
    pub status: Option<ExchangeStatus>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { before: None, limit: PAGE_ROWS, account_id: None, api_key_id: None, model: None, status: None }
    }
}

/// An exchange as the log remembers it. The fields mean what those of [`ExchangeRecord`] mean.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedExchange {
    /// Ours.
    pub id: ExchangeId,
    /// When it arrived.
    pub requested_at: Timestamp,
    /// The account that served it; it may be gone by now.
    pub account_id: Option<AccountId>,
    /// The api key that called; it may be gone by now.
    pub api_key_id: Option<ApiKeyId>,
    /// The endpoint's short name.
    pub route: String,
    /// How the answer travelled.
    pub transport: String,
    /// How it ended.
    pub status: ExchangeStatus,
    /// The error code the caller saw.
    pub error_code: Option<String>,
    /// Upstream's last HTTP status.
    pub upstream_status: Option<u16>,
    /// How many legs were run.
    pub legs: u32,
    /// The model the caller asked for.
    pub model_requested: Option<String>,
    /// The model that was asked of upstream.
    pub model: Option<String>,
    /// Reasoning effort.
    pub effort: Option<String>,
    /// Service tier.
    pub tier: Option<String>,
    /// What was used, or `None` when no model was reached.
    pub usage: Option<TokenUsage>,
    /// Whether `usage` is a lower bound.
    pub is_estimated: bool,
    /// What it cost at list prices; `None` when the model has no known price.
    pub cost_micros: Option<i64>,
    /// Milliseconds until the first byte of upstream's answer.
    pub first_byte_ms: Option<u32>,
    /// Milliseconds until the first token.
    pub first_token_ms: Option<u32>,
    /// Milliseconds until its end.
    pub total_ms: u32,
    /// The caller's program.
    pub user_agent_group: String,
    /// The conversation's id as the client sent it.
    pub conversation_id: Option<String>,
}

/// A whole batch in one statement and one round trip: its rows travel as one JSON array, which each database takes
/// apart with a function of its own. The rest of the text is the same.
macro_rules! insert_rows {
    ($rows:literal) => {
        concat!(
            "insert into request_log (id, requested_at, account_id, api_key_id, route, transport, status, error_code, ",
            "upstream_status, legs, model_requested, model, effort, tier, input_tokens, cached_input_tokens, ",
            "output_tokens, reasoning_tokens, is_estimated, cost_micros, first_byte_ms, first_token_ms, total_ms, ",
            "user_agent_group, conversation_id) ",
            "select value ->> 'id', cast(value ->> 'requested_at' as bigint), value ->> 'account_id', ",
            "value ->> 'api_key_id', value ->> 'route', value ->> 'transport', value ->> 'status', ",
            "value ->> 'error_code', cast(value ->> 'upstream_status' as bigint), cast(value ->> 'legs' as bigint), ",
            "value ->> 'model_requested', value ->> 'model', value ->> 'effort', value ->> 'tier', ",
            "cast(value ->> 'input_tokens' as bigint), cast(value ->> 'cached_input_tokens' as bigint), ",
            "cast(value ->> 'output_tokens' as bigint), cast(value ->> 'reasoning_tokens' as bigint), ",
            "cast(value ->> 'is_estimated' as boolean), cast(value ->> 'cost_micros' as bigint), ",
            "cast(value ->> 'first_byte_ms' as bigint), cast(value ->> 'first_token_ms' as bigint), ",
            "cast(value ->> 'total_ms' as bigint), value ->> 'user_agent_group', value ->> 'conversation_id' ",
            "from ",
            $rows,
            " where true on conflict (id) do nothing returning id"
        )
    };
}

const INSERT_ROWS: TwinSql = TwinSql {
    sqlite: insert_rows!("json_each($1)"),
    postgres: insert_rows!("jsonb_array_elements(cast($1 as jsonb)) as batch (value)"),
};

const MARK_API_KEY_USED: &str = "\
    update api_keys set last_used_at = $2 where id = $1 and (last_used_at is null or last_used_at < $2)";

/// A page, newest first. The filter that narrows most has an index of its own and stands first; the others are tested
/// on what it finds. A null parameter filters nothing.
macro_rules! select_page {
    ($narrowed_by:literal) => {
        concat!(
            "select id, requested_at, account_id, api_key_id, route, transport, status, error_code, upstream_status, ",
            "legs, model_requested, model, effort, tier, input_tokens, cached_input_tokens, output_tokens, ",
            "reasoning_tokens, is_estimated, cost_micros, first_byte_ms, first_token_ms, total_ms, user_agent_group, ",
            "conversation_id from request_log where ",
            $narrowed_by,
            " and (requested_at, id) < ($1, $2) and ($3 is null or account_id = $3) ",
            "and ($4 is null or api_key_id = $4) and ($5 is null or model = $5) and ($6 is null or status = $6) ",
            "order by requested_at desc, id desc limit $7"
        )
    };
}

const PAGE: &str = select_page!("true");
const PAGE_OF_ACCOUNT: &str = select_page!("account_id = $3");
const PAGE_OF_API_KEY: &str = select_page!("api_key_id = $4");
const PAGE_OF_MODEL: &str = select_page!("model = $5");

impl Store {
    /// Records ended exchanges, in one transaction: the log's rows, what they add to the hourly sums, and when each api
    /// key was last used. An exchange that was recorded before changes nothing, whoever recorded it. A few hundred at a
    /// time are recorded in one go; thousands may run into the time bound.
    ///
    /// # Errors
    /// When the database does not answer. Nothing was recorded then, or all was and the answer got lost: recording the
    /// same again is right in both cases.
    pub async fn record_exchanges(&self, records: &[ExchangeRecord]) -> Result<(), StoreError> {
        // In the order of their ids, so that writers of overlapping batches queue instead of waiting for each other.
        let mut rows: BTreeMap<ExchangeId, NewRow<'_>> = BTreeMap::new();
        for record in records {
            rows.entry(record.id).or_insert_with(|| NewRow::of(record));
        }
        if rows.is_empty() {
            return Ok(());
        }
        let batch = json_array(rows.values());
        let (insert_rows, add_hours) = (self.either(&INSERT_ROWS), self.either(&ADD_HOURS));
        transact!(self, "record exchanges", |tx| {
            let inserted: Vec<String> = sqlx::query_scalar(insert_rows).bind(&batch).fetch_all(&mut *tx).await?;
            let inserted: HashSet<&str> = inserted.iter().map(String::as_str).collect();
            let mut hours = HourlySums::default();
            let mut api_keys_used: BTreeMap<&str, i64> = BTreeMap::new();
            for row in rows.values().filter(|row| inserted.contains(row.id.as_str())) {
                hours.add(row);
                if let Some(api_key_id) = &row.api_key_id {
                    let used_at = api_keys_used.entry(api_key_id).or_insert(row.requested_at);
                    *used_at = row.requested_at.max(*used_at);
                }
            }
            if !inserted.is_empty() {
                sqlx::query(add_hours).bind(json_array(hours.rows())).execute(&mut *tx).await?;
            }
            for (api_key_id, used_at) in api_keys_used {
                sqlx::query(MARK_API_KEY_USED).bind(api_key_id).bind(used_at).execute(&mut *tx).await?;
            }
        })
    }

    /// Reads a page of the log, newest first. Pages that follow each other by [`PageRequest::before`] miss nothing and
    /// repeat nothing, also where many exchanges arrived in the same millisecond.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn recent_exchanges(&self, page: &PageRequest) -> Result<Vec<LoggedExchange>, StoreError> {
        let sql = match (page.account_id, page.api_key_id, &page.model) {
            (Some(_), _, _) => PAGE_OF_ACCOUNT,
            (None, Some(_), _) => PAGE_OF_API_KEY,
            (None, None, Some(_)) => PAGE_OF_MODEL,
            (None, None, None) => PAGE,
        };
        let (before_at, before_id) = match page.before {
            Some((requested_at, id)) => (requested_at.as_unix_ms(), id.to_string()),
            None => (i64::MAX, String::new()),
        };
        let rows: Vec<LogRow> = read!(self, "read the request log", |db| {
            sqlx::query_as(sql)
                .bind(before_at)
                .bind(&before_id)
                .bind(page.account_id.map(|id| id.to_string()))
                .bind(page.api_key_id.map(|id| id.to_string()))
                .bind(&page.model)
                .bind(page.status.map(ExchangeStatus::as_str))
                .bind(i64::from(page.limit.clamp(1, PAGE_ROWS_MAX)))
                .fetch_all(db)
        })?;
        rows.into_iter().map(LogRow::read).collect()
    }
}

/// What a statement takes apart again. Rows are plain texts and numbers, so writing them cannot fail.
fn json_array<T: Serialize>(rows: impl Iterator<Item = T>) -> String {
    let written = serde_json::to_string(&rows.collect::<Vec<_>>());
    debug_assert!(written.is_ok());
    written.unwrap_or_default()
}

#[derive(sqlx::FromRow)]
struct LogRow {
    id: String,
    requested_at: i64,
    account_id: Option<String>,
    api_key_id: Option<String>,
    route: String,
    transport: String,
    status: String,
    error_code: Option<String>,
    upstream_status: Option<i64>,
    legs: i64,
    model_requested: Option<String>,
    model: Option<String>,
    effort: Option<String>,
    tier: Option<String>,
    input_tokens: Option<i64>,
    cached_input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    is_estimated: bool,
    cost_micros: Option<i64>,
    first_byte_ms: Option<i64>,
    first_token_ms: Option<i64>,
    total_ms: i64,
    user_agent_group: String,
    conversation_id: Option<String>,
}

impl LogRow {
    fn read(self) -> Result<LoggedExchange, StoreError> {
        Ok(LoggedExchange {
            usage: self.usage()?,
            id: column("id").parse(&self.id)?,
            requested_at: moment(self.requested_at),
            account_id: column("account_id").parse_some(self.account_id.as_deref())?,
            api_key_id: column("api_key_id").parse_some(self.api_key_id.as_deref())?,
            route: self.route,
            transport: self.transport,
            status: ExchangeStatus::parse(&self.status).ok_or_else(|| column("status").corrupt())?,
            error_code: self.error_code,
            upstream_status: column("upstream_status").number_some(self.upstream_status)?,
            legs: column("legs").number(self.legs)?,
            model_requested: self.model_requested,
            model: self.model,
            effort: self.effort,
            tier: self.tier,
            is_estimated: self.is_estimated,
            cost_micros: self.cost_micros,
            first_byte_ms: column("first_byte_ms").number_some(self.first_byte_ms)?,
            first_token_ms: column("first_token_ms").number_some(self.first_token_ms)?,
            total_ms: column("total_ms").number(self.total_ms)?,
            user_agent_group: self.user_agent_group,
            conversation_id: self.conversation_id,
        })
    }

    /// The four counts are known or unknown together.
    fn usage(&self) -> Result<Option<TokenUsage>, StoreError> {
        let (Some(input), Some(output)) = (self.input_tokens, self.output_tokens) else { return Ok(None) };
        Ok(Some(TokenUsage {
            input: column("input_tokens").number(input)?,
            cached_input: column("cached_input_tokens").number(self.cached_input_tokens.unwrap_or(0))?,
            output: column("output_tokens").number(output)?,
            reasoning: column("reasoning_tokens").number(self.reasoning_tokens.unwrap_or(0))?,
        }))
    }
}

const fn column(name: &'static str) -> Column {
    Column("request_log", name)
}
