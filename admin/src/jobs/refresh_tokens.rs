//! Refreshes access tokens before they expire, so that no request has to wait for it or meets a refusal.
//!
//! It runs on every replica: of those that find the same account due one refreshes it and the others wait for that. It
//! decides nothing about failures: an account in trouble is left alone by [`AccountTokens`] itself.
//!
//! [`AccountTokens`]: codex_lb_shared::account_tokens::AccountTokens

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::{Account, AccountState};
use codex_lb_shared::state::SharedState;
use tokio::task::JoinSet;
use tracing::error;

use super::Job;

/// How often the pool is looked at. Costs nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How long before its end an access token is refreshed.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);
/// When a token that does not tell its end is refreshed. The Codex CLI does the same.
const AGE_MAX: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// Refreshes at once. After a long stop every account is due, and the issuer must not meet them all together.
const AT_ONCE_MAX: usize = 4;

/// The job.
pub(super) struct RefreshTokens;

#[async_trait]
impl Job for RefreshTokens {
    fn name(&self) -> &'static str {
        "refresh_tokens"
    }

    fn interval(&self) -> Duration {
        LOOK_INTERVAL
    }

    async fn run(&mut self, state: &SharedState) {
        let mut running = JoinSet::new();
        for account in due_accounts(state, clock::now()) {
            if running.len() >= AT_ONCE_MAX {
                note_end(running.join_next().await);
            }
            if state.is_draining() {
                break;
            }
            let account_tokens = Arc::clone(&state.account_tokens);
            running.spawn(async move { account_tokens.refresh(account.id, account.token_version).await });
        }
        while let Some(ended) = running.join_next().await {
            note_end(Some(ended));
        }
    }
}

/// What became of it was logged where it happened.
fn note_end<T>(ended: Option<Result<T, tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        error!(%error, "a token refresh panicked");
    }
}

/// The accounts whose tokens should be refreshed now, the most urgent first.
fn due_accounts(state: &SharedState, now: Timestamp) -> Vec<Account> {
    let pool = state.pool.snapshot();
    let due = pool.accounts.iter().filter(|pooled| is_due(&pooled.account, pooled.live.view(now).state, now));
    let mut due: Vec<Account> = due.map(|pooled| pooled.account.clone()).collect();
    due.sort_by_key(refresh_at);
    due
}

/// A paused account stays fresh, so that it can resume. One whose login has ended cannot be refreshed.
fn is_due(account: &Account, state: AccountState, now: Timestamp) -> bool {
    match state {
        AccountState::Active | AccountState::RateLimited | AccountState::QuotaExceeded | AccountState::Paused => {
            refresh_at(account) <= now
        }
        AccountState::ReauthRequired | AccountState::Deactivated => false,
    }
}

/// When the tokens should be refreshed. Never sooner than half their life or a look after they came: tokens that live
/// shorter than we refresh ahead must not be refreshed for ever.
fn refresh_at(account: &Account) -> Timestamp {
    let refreshed_at = account.tokens_refreshed_at;
    let Some(expires_at) = account.access_token_expires_at else { return refreshed_at.plus(AGE_MAX) };
    let life = expires_at.since(refreshed_at);
    let ahead = AHEAD_MAX.min(life / 2);
    refreshed_at.plus((life - ahead).max(LOOK_INTERVAL))
}

#[cfg(test)]
mod tests {
    use codex_lb_shared::domain::account::{AccountStatus, Plan, RoutingPolicy, UpstreamIdentity};
    use codex_lb_shared::ids::AccountId;

    use super::*;

    const HOUR: i64 = 3_600;

    fn account(refreshed_at: i64, expires_at: Option<i64>) -> Account {
        Account {
            id: AccountId::from_u128(1),
            identity: UpstreamIdentity { chatgpt_account_id: String::new(), chatgpt_user_id: String::new() },
            email: String::new(),
            alias: None,
            plan: Plan::Plus,
            status: AccountStatus::ACTIVE,
            routing_policy: RoutingPolicy::Normal,
            concurrency_cap: None,
            egress_proxy_id: None,
            installation_id: String::new(),
            access_token_expires_at: expires_at.map(Timestamp::from_unix_seconds),
            tokens_refreshed_at: Timestamp::from_unix_seconds(refreshed_at),
            token_version: 1,
            created_at: Timestamp::from_unix_seconds(0),
        }
    }

    #[test]
    fn tokens_are_due_five_minutes_before_their_end_or_after_eight_days() {
        let cases = [
            ("ten days", Some(240 * HOUR), 240 * HOUR - 300),
            ("no end is known", None, 192 * HOUR),
            ("ten minutes", Some(600), 300),
            ("a minute", Some(60), 30),
            ("ten seconds", Some(10), 30),
            ("it had ended when it came", Some(-HOUR), 30),
        ];
        for (name, expires_at, due_at) in cases {
            let account = account(0, expires_at);
            assert_eq!(refresh_at(&account).as_unix_seconds(), due_at, "{name}");
            for (now, is_due_then) in [(due_at - 1, false), (due_at, true), (due_at + HOUR, true)] {
                let is_due = is_due(&account, AccountState::Active, Timestamp::from_unix_seconds(now));
                assert_eq!(is_due, is_due_then, "{name} at {now}");
            }
        }
    }

    #[test]
    fn only_a_login_that_has_ended_is_left_alone() {
        let (expired, now) = (account(0, Some(HOUR)), Timestamp::from_unix_seconds(2 * HOUR));
        let cases = [
            (AccountState::Active, true),
            (AccountState::RateLimited, true),
            (AccountState::QuotaExceeded, true),
            (AccountState::Paused, true),
            (AccountState::ReauthRequired, false),
            (AccountState::Deactivated, false),
        ];
        for (state, expected) in cases {
            assert_eq!(is_due(&expired, state, now), expected, "{state:?}");
        }
    }
}
