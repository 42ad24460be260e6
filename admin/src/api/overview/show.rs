//! `GET /api/v1/overview?range=24h|7d|28d`: usage in the range, and how the pool is now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::AccountState;
use codex_lb_shared::ids::{AccountId, ApiKeyId};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::{UsageOf, UsageTotals};
use serde::{Deserialize, Serialize};

use crate::access::Viewer;
use crate::api_error::ApiError;
use crate::extract::Parameters;
use crate::metrics::accounts_by_state;

const HOUR: Duration = Duration::from_secs(3_600);

/// Every state has its number, also when it is zero.
const STATES: [AccountState; 6] = [
    AccountState::Active,
    AccountState::RateLimited,
    AccountState::QuotaExceeded,
    AccountState::Paused,
    AccountState::ReauthRequired,
    AccountState::Deactivated,
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    #[serde(default)]
    range: Range,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
enum Range {
    #[default]
    #[serde(rename = "24h")]
    Day,
    #[serde(rename = "7d")]
    Week,
    #[serde(rename = "28d")]
    FourWeeks,
}

impl Range {
    /// How many hours it has, the running one included.
    const fn hours(self) -> u32 {
        match self {
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::FourWeeks => 28 * 24,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    range: Range,
    /// Start of the first hour that counts.
    from: Timestamp,
    to: Timestamp,
    totals: UsageTotals,
    /// `of` is the account's id; `null` for exchanges that reached none.
    by_account: Vec<UsageOf<AccountId>>,
    /// `of` is the api key's id; `null` for exchanges without one.
    by_api_key: Vec<UsageOf<ApiKeyId>>,
    /// `of` is the model's name; `null` for exchanges without one.
    by_model: Vec<UsageOf<String>>,
    accounts_by_state: BTreeMap<&'static str, usize>,
}

pub(crate) async fn show(
    _: Viewer,
    State(state): State<Arc<SharedState>>,
    Parameters(Query { range }): Parameters<Query>,
) -> Result<Json<Answer>, ApiError> {
    let to = clock::now();
    let from = first_hour(range, to);
    let counts = accounts_by_state(&state);
    let store = &state.store;
    Ok(Json(Answer {
        range,
        from,
        to,
        totals: store.usage_totals(from, to).await?,
        by_account: store.usage_by_account(from, to).await?,
        by_api_key: store.usage_by_api_key(from, to).await?,
        by_model: store.usage_by_model(from, to).await?,
        accounts_by_state: STATES.map(|of| (of.as_str(), counts.get(&of).copied().unwrap_or(0))).into(),
    }))
}

/// Usage is kept by the hour, so a range is so many hours of which the last is still running.
fn first_hour(range: Range, now: Timestamp) -> Timestamp {
    let span = HOUR * (range.hours() - 1);
    let back_ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(now.hour_start().as_unix_ms().saturating_sub(back_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_the_running_hour_and_the_23_before_it() {
        let hour_ms = 3_600_000;
        let now = Timestamp::from_unix_ms(100 * hour_ms + 5);
        assert_eq!(first_hour(Range::Day, now), Timestamp::from_unix_ms(77 * hour_ms));
        assert_eq!(first_hour(Range::FourWeeks, now), Timestamp::from_unix_ms((101 - 672) * hour_ms));
    }
}
