//! `usage_hourly`: the log summed per UTC hour, account, api key, model, tier and end. It is what usage pages and
//! budgets read, and it outlives the log's rows. Only recording exchanges writes it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::ids::{AccountId, ApiKeyId};

use super::columns::Column;
use super::request_log::NewRow;
use super::{Store, StoreError, TwinSql, read};

/// Sums over exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct UsageTotals {
    /// Exchanges, whatever their end.
    pub requests: i64,
    /// Those among them that ended in an error.
    pub error_requests: i64,
    /// Input tokens, cached ones included.
    pub input_tokens: i64,
    /// Input tokens from upstream's prompt cache.
    pub cached_input_tokens: i64,
    /// Output tokens, reasoning included.
    pub output_tokens: i64,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: i64,
    /// Cost at list prices, in millionths of a dollar.
    pub cost_micros: i64,
    /// Exchanges that used tokens of a model without a known price: their cost is missing above.
    pub unpriced_requests: i64,
}

/// The sums of one account, api key or model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageOf<T> {
    /// Whose; `None` for exchanges without one.
    pub of: Option<T>,
    /// The sums.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// The increments of a batch, one row per key of the table. `None` is stored as ''.
macro_rules! add_hours {
    ($rows:literal) => {
        concat!(
            "insert into usage_hourly (hour_at, account_id, api_key_id, model, tier, status, requests, input_tokens, ",
            "cached_input_tokens, output_tokens, reasoning_tokens, cost_micros, unpriced_requests) ",
            "select cast(value ->> 'hour_at' as bigint), value ->> 'account_id', value ->> 'api_key_id', ",
            "value ->> 'model', value ->> 'tier', value ->> 'status', cast(value ->> 'requests' as bigint), ",
            "cast(value ->> 'input_tokens' as bigint), cast(value ->> 'cached_input_tokens' as bigint), ",
            "cast(value ->> 'output_tokens' as bigint), cast(value ->> 'reasoning_tokens' as bigint), ",
            "cast(value ->> 'cost_micros' as bigint), cast(value ->> 'unpriced_requests' as bigint) ",
            "from ",
            $rows,
            " where true on conflict (hour_at, account_id, api_key_id, model, tier, status) do update set ",
            "requests = usage_hourly.requests + excluded.requests, ",
            "input_tokens = usage_hourly.input_tokens + excluded.input_tokens, ",
            "cached_input_tokens = usage_hourly.cached_input_tokens + excluded.cached_input_tokens, ",
            "output_tokens = usage_hourly.output_tokens + excluded.output_tokens, ",
            "reasoning_tokens = usage_hourly.reasoning_tokens + excluded.reasoning_tokens, ",
            "cost_micros = usage_hourly.cost_micros + excluded.cost_micros, ",
            "unpriced_requests = usage_hourly.unpriced_requests + excluded.unpriced_requests"
        )
    };
}

pub(super) const ADD_HOURS: TwinSql = TwinSql {
    sqlite: add_hours!("json_each($1)"),
    postgres: add_hours!("jsonb_array_elements(cast($1 as jsonb)) as batch (value)"),
};

/// PostgreSQL widens sums to `numeric`, hence the casts; the sum of no row is null.
macro_rules! select_sums {
    ($of:literal, $group_by:literal) => {
        concat!(
            "select ",
            $of,
            "cast(coalesce(sum(requests), 0) as bigint) as requests, ",
            "cast(coalesce(sum(case when status = 'error' then requests else 0 end), 0) as bigint) as error_requests, ",
            "cast(coalesce(sum(input_tokens), 0) as bigint) as input_tokens, ",
            "cast(coalesce(sum(cached_input_tokens), 0) as bigint) as cached_input_tokens, ",
            "cast(coalesce(sum(output_tokens), 0) as bigint) as output_tokens, ",
            "cast(coalesce(sum(reasoning_tokens), 0) as bigint) as reasoning_tokens, ",
            "cast(coalesce(sum(cost_micros), 0) as bigint) as cost_micros, ",
            "cast(coalesce(sum(unpriced_requests), 0) as bigint) as unpriced_requests ",
            "from usage_hourly where hour_at >= $1 and hour_at < $2",
            $group_by
        )
    };
}

const TOTALS: &str = select_sums!("", "");
const BY_ACCOUNT: &str = select_sums!("account_id as of_whom, ", " group by account_id order by account_id");
const BY_API_KEY: &str = select_sums!("api_key_id as of_whom, ", " group by api_key_id order by api_key_id");
const BY_MODEL: &str = select_sums!("model as of_whom, ", " group by model order by model");

impl Store {
    /// The sums of all exchanges in the hours from the one that `from` lies in until `to`, which is left out if it is
    /// the start of an hour.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn usage_totals(&self, from: Timestamp, to: Timestamp) -> Result<UsageTotals, StoreError> {
        read!(self, "sum up usage", |db| {
            sqlx::query_as(TOTALS).bind(from.hour_start().as_unix_ms()).bind(to.as_unix_ms()).fetch_one(db)
        })
    }

    /// The sums per account, over the hours that [`Self::usage_totals`] takes.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn usage_by_account(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<UsageOf<AccountId>>, StoreError> {
        let rows = self.sums_by(BY_ACCOUNT, from, to).await?;
        rows.into_iter().map(|row| row.read(|id| Column("usage_hourly", "account_id").parse(&id))).collect()
    }

    /// The sums per api key, over the hours that [`Self::usage_totals`] takes.
    ///
    /// # Errors
    /// As [`Self::usage_by_account`].
    pub async fn usage_by_api_key(&self, from: Timestamp, to: Timestamp) -> Result<Vec<UsageOf<ApiKeyId>>, StoreError> {
        let rows = self.sums_by(BY_API_KEY, from, to).await?;
        rows.into_iter().map(|row| row.read(|id| Column("usage_hourly", "api_key_id").parse(&id))).collect()
    }

    /// The sums per model, over the hours that [`Self::usage_totals`] takes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn usage_by_model(&self, from: Timestamp, to: Timestamp) -> Result<Vec<UsageOf<String>>, StoreError> {
        let rows = self.sums_by(BY_MODEL, from, to).await?;
        rows.into_iter().map(|row| row.read(Ok)).collect()
    }

    async fn sums_by(&self, sql: &'static str, from: Timestamp, to: Timestamp) -> Result<Vec<SumRow>, StoreError> {
        read!(self, "sum up usage", |db| {
            sqlx::query_as(sql).bind(from.hour_start().as_unix_ms()).bind(to.as_unix_ms()).fetch_all(db)
        })
    }
}

#[derive(sqlx::FromRow)]
struct SumRow {
    of_whom: String,
    #[sqlx(flatten)]
    totals: UsageTotals,
}

impl SumRow {
    fn read<T>(self, of: impl FnOnce(String) -> Result<T, StoreError>) -> Result<UsageOf<T>, StoreError> {
        let of = if self.of_whom.is_empty() { None } else { Some(of(self.of_whom)?) };
        Ok(UsageOf { of, totals: self.totals })
    }
}

/// What a batch adds, row by row in the order of the table's key: concurrent batches then queue instead of waiting for
/// each other.
#[derive(Default)]
pub(super) struct HourlySums<'a>(BTreeMap<HourKey<'a>, HourSum>);

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct HourKey<'a> {
    hour_at: i64,
    account_id: &'a str,
    api_key_id: &'a str,
    model: &'a str,
    tier: &'a str,
    status: &'a str,
}

#[derive(Serialize, Default)]
struct HourSum {
    requests: i64,
    input_tokens: i64,
    cached_input_tokens: i64,
    output_tokens: i64,
    reasoning_tokens: i64,
    cost_micros: i64,
    unpriced_requests: i64,
}

/// One row; its fields are named like the columns.
#[derive(Serialize)]
pub(super) struct HourRow<'a> {
    #[serde(flatten)]
    key: HourKey<'a>,
    #[serde(flatten)]
    sum: &'a HourSum,
}

impl<'a> HourlySums<'a> {
    pub(super) fn add(&mut self, row: &'a NewRow<'_>) {
        let key = HourKey {
            hour_at: row.hour_at(),
            account_id: row.account_id.as_deref().unwrap_or_default(),
            api_key_id: row.api_key_id.as_deref().unwrap_or_default(),
            model: row.model.as_deref().unwrap_or_default(),
            tier: row.tier.as_deref().unwrap_or_default(),
            status: row.status,
        };
        let sum = self.0.entry(key).or_default();
        sum.requests += 1;
        sum.input_tokens += row.input_tokens.unwrap_or(0);
        sum.cached_input_tokens += row.cached_input_tokens.unwrap_or(0);
        sum.output_tokens += row.output_tokens.unwrap_or(0);
        sum.reasoning_tokens += row.reasoning_tokens.unwrap_or(0);
        sum.cost_micros += row.cost_micros.unwrap_or(0);
        // Without tokens nothing was to be priced.
        sum.unpriced_requests += i64::from(row.input_tokens.is_some() && row.cost_micros.is_none());
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = HourRow<'_>> {
        self.0.iter().map(|(key, sum)| HourRow { key: *key, sum })
    }
}
