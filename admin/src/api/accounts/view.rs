//! An account as the API shows it: what is stored, and over it what this process knows better.

use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::{Account, AccountState, AccountStatus, Plan, RoutingPolicy};
use codex_lb_shared::domain::upstream_window::{AccountUsage, UpstreamWindow};
use codex_lb_shared::egress::AccountEgress;
use codex_lb_shared::ids::{AccountId, EgressProxyId};
use codex_lb_shared::pool::PoolSnapshot;
use codex_lb_shared::state::SharedState;
use serde::Serialize;

use crate::api_error::ApiError;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountView {
    id: AccountId,
    email: String,
    alias: Option<String>,
    plan: Plan,
    /// A state whose time is up is over.
    state: AccountState,
    state_reason: Option<String>,
    state_until: Option<Timestamp>,
    /// It sits out until then after failures in a row, whatever its state.
    cooling_until: Option<Timestamp>,
    routing_policy: RoutingPolicy,
    concurrency_cap: Option<u32>,
    egress_proxy_id: Option<EgressProxyId>,
    /// Why it cannot serve: it has no way out.
    egress_trouble: Option<String>,
    usage: Option<UsageView>,
    /// Exchanges that this process runs on it.
    in_flight: u32,
    access_token_expires_at: Option<Timestamp>,
    tokens_refreshed_at: Timestamp,
    created_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageView {
    primary: Option<WindowView>,
    secondary: Option<WindowView>,
    observed_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WindowView {
    used_percent: f64,
    window_minutes: Option<u32>,
    resets_at: Option<Timestamp>,
}

impl AccountView {
    pub(super) fn of(account: Account, pool: &PoolSnapshot, now: Timestamp) -> Self {
        let live = pool.find(account.id).map(|pooled| &pooled.live);
        let status = live.map_or(account.status, |live| live.status());
        let seen = live.map(|live| live.view(now));
        let status = if status.state_at(now) == AccountState::Active { AccountStatus::ACTIVE } else { status };
        Self {
            id: account.id,
            email: account.email,
            alias: account.alias,
            plan: account.plan,
            state: status.state,
            state_reason: status.reason,
            state_until: status.until,
            cooling_until: seen.as_ref().and_then(|seen| seen.cooling_until).filter(|until| *until > now),
            routing_policy: account.routing_policy,
            concurrency_cap: account.concurrency_cap,
            egress_proxy_id: account.egress_proxy_id,
            egress_trouble: match pool.find(account.id).map(|pooled| &pooled.egress) {
                Some(AccountEgress::Closed(closed)) => Some(closed.to_string()),
                Some(AccountEgress::Direct | AccountEgress::Through(_)) | None => None,
            },
            usage: seen.as_ref().and_then(|seen| seen.usage).map(|usage| UsageView::of(usage, now)),
            in_flight: seen.map_or(0, |seen| seen.in_flight),
            access_token_expires_at: account.access_token_expires_at,
            tokens_refreshed_at: account.tokens_refreshed_at,
            created_at: account.created_at,
        }
    }

    /// The account with this id, as it is stored now.
    pub(super) async fn load(state: &SharedState, id: AccountId) -> Result<Self, ApiError> {
        let stored = state.store.find_account(id).await?.ok_or(ApiError::NotFound("account"))?;
        Ok(Self::of(stored.account, &state.pool.snapshot(), clock::now()))
    }
}

impl UsageView {
    fn of(usage: AccountUsage, now: Timestamp) -> Self {
        let window = |window: UpstreamWindow| WindowView {
            used_percent: window.used_percent_at(now),
            window_minutes: Some(window.window_minutes).filter(|minutes| *minutes > 0),
            resets_at: window.resets_at.filter(|at| *at > now),
        };
        Self {
            primary: usage.primary.map(window),
            secondary: usage.secondary.map(window),
            observed_at: usage.observed_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_whose_reset_has_passed_is_shown_as_unused_and_without_a_reset() {
        let at = Timestamp::from_unix_ms;
        let window = UpstreamWindow { used_percent: 80.0, window_minutes: 0, resets_at: Some(at(10)) };
        let usage = AccountUsage { primary: Some(window), secondary: None, observed_at: at(1) };
        let before = serde_json::to_value(UsageView::of(usage, at(9))).unwrap();
        assert_eq!(before["primary"]["usedPercent"], 80.0);
        assert_eq!(before["primary"]["resetsAt"], 10);
        assert_eq!(before["primary"]["windowMinutes"], serde_json::Value::Null);
        assert_eq!(before["secondary"], serde_json::Value::Null);
        let after = serde_json::to_value(UsageView::of(usage, at(10))).unwrap();
        assert_eq!(after["primary"]["usedPercent"], 0.0);
        assert_eq!(after["primary"]["resetsAt"], serde_json::Value::Null);
    }
}
