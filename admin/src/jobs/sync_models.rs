//! Keeps the model catalog in step with what upstream offers to each plan of the pool.
//!
//! A plan that nobody was asked for yet is asked within seconds of its first account; after that every few minutes. A
//! list that cannot be fetched leaves the old one as it is.

mod next_catalog;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use codex_lb_shared::account_tokens::Freshness;
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::{AccountState, Plan};
use codex_lb_shared::pool::{PoolSnapshot, PooledAccount};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::upstream_api::models::ModelsError;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{info, warn};

use self::next_catalog::next_catalog;
use super::Job;

/// How often the pool is looked at for plans that are due. Costs nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How old a plan's list may become.
const SYNC_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Longest pause after failures in a row; the first is [`LOOK_INTERVAL`], and each is twice the one before.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Accounts of one plan that are asked in one run.
const ACCOUNTS_TRIED_MAX: usize = 3;

/// The job.
#[derive(Default)]
pub(super) struct SyncModels {
    plans: HashMap<Plan, PlanSync>,
}

/// How it went with one plan.
#[derive(Default)]
struct PlanSync {
    next_at: Option<Instant>,
    failures_in_a_row: u32,
}

/// Why no account of a plan told its models.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Models(#[from] ModelsError),
    #[error("the access token was refused and could not be renewed")]
    TokenRefused,
    #[error("upstream's list of models is empty")]
    Empty,
}

#[async_trait]
impl Job for SyncModels {
    fn name(&self) -> &'static str {
        "sync_models"
    }

    fn interval(&self) -> Duration {
        LOOK_INTERVAL
    }

    async fn run(&mut self, state: &SharedState) {
        let pool = state.pool.snapshot();
        let mut fetched = Vec::new();
        for (plan, accounts) in active_accounts(&pool, clock::now()) {
            if !self.is_due(plan) {
                continue;
            }
            match fetch_plan(state, &accounts).await {
                Ok(entries) => {
                    self.note_success(plan);
                    fetched.push((plan, entries));
                }
                Err(error) => self.note_failure(plan, &error),
            }
        }
        if !fetched.is_empty() {
            publish(state, &present_plans(&pool), fetched).await;
        }
    }
}

impl SyncModels {
    fn is_due(&self, plan: Plan) -> bool {
        let next_at = self.plans.get(&plan).and_then(|sync| sync.next_at);
        next_at.is_none_or(|next_at| next_at <= Instant::now())
    }

    fn note_success(&mut self, plan: Plan) {
        let sync = self.plans.entry(plan).or_default();
        if sync.failures_in_a_row > 0 {
            info!(plan = plan.as_str(), "upstream's models can be listed again");
        }
        *sync = PlanSync { next_at: Some(Instant::now() + SYNC_INTERVAL), failures_in_a_row: 0 };
    }

    /// Logged once per outage.
    fn note_failure(&mut self, plan: Plan, error: &FetchError) {
        let sync = self.plans.entry(plan).or_default();
        if sync.failures_in_a_row == 0 {
            let error = error as &(dyn std::error::Error + 'static);
            warn!(plan = plan.as_str(), error, "upstream's models could not be listed; the old list stays");
        }
        sync.next_at = Some(Instant::now() + back_off(sync.failures_in_a_row));
        sync.failures_in_a_row = sync.failures_in_a_row.saturating_add(1);
    }
}

fn back_off(failures_before: u32) -> Duration {
    LOOK_INTERVAL.saturating_mul(2_u32.saturating_pow(failures_before)).min(BACK_OFF_MAX)
}

/// Plans of all accounts, in the order of their first account.
fn present_plans(pool: &PoolSnapshot) -> Vec<Plan> {
    let mut plans = Vec::new();
    for pooled in &pool.accounts {
        if !plans.contains(&pooled.account.plan) {
            plans.push(pooled.account.plan);
        }
    }
    plans
}

/// The accounts that may be asked, by plan.
fn active_accounts(pool: &PoolSnapshot, now: Timestamp) -> Vec<(Plan, Vec<Arc<PooledAccount>>)> {
    let is_active = |pooled: &&Arc<PooledAccount>| pooled.live.view(now).state == AccountState::Active;
    let of_plan = |plan| pool.accounts.iter().filter(is_active).filter(move |pooled| pooled.account.plan == plan);
    let by_plan = present_plans(pool).into_iter().map(|plan| (plan, of_plan(plan).cloned().collect::<Vec<_>>()));
    by_plan.filter(|(_, accounts)| !accounts.is_empty()).collect()
}

/// Asks the accounts of one plan, one after the other, until one tells its models.
async fn fetch_plan(state: &SharedState, accounts: &[Arc<PooledAccount>]) -> Result<Vec<Value>, FetchError> {
    let mut last_error = FetchError::Empty;
    for pooled in accounts.iter().take(ACCOUNTS_TRIED_MAX) {
        match fetch_from(state, pooled).await {
            // A list without any model would take every model from the plan's accounts.
            Ok(entries) if entries.is_empty() => last_error = FetchError::Empty,
            Ok(entries) => return Ok(entries),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Asks one account, with a fresh token if upstream no longer takes the one it has.
async fn fetch_from(state: &SharedState, pooled: &PooledAccount) -> Result<Vec<Value>, FetchError> {
    let account = &pooled.account;
    let chatgpt_account_id = &account.identity.chatgpt_account_id;
    match state.upstream.fetch_models(&pooled.egress, &pooled.access_token, chatgpt_account_id).await {
        Err(ModelsError::Refused(401)) => {}
        outcome => return Ok(outcome?),
    }
    match state.account_tokens.refresh(account.id, account.token_version).await {
        Freshness::Fresh => {}
        Freshness::LoginEnded | Freshness::Failed => return Err(FetchError::TokenRefused),
    }
    let pool = state.pool.snapshot();
    let fresh = pool.find(account.id).ok_or(FetchError::TokenRefused)?;
    Ok(state.upstream.fetch_models(&fresh.egress, &fresh.access_token, chatgpt_account_id).await?)
}

/// Stores the new catalog and makes it the one that requests see.
async fn publish(state: &SharedState, present: &[Plan], fetched: Vec<(Plan, Vec<Value>)>) {
    let catalog = next_catalog(&state.models.load(), present, fetched);
    match state.store.save_model_catalog(&catalog, clock::now()).await {
        Ok(has_changed) => {
            state.models.store(Arc::new(catalog));
            if has_changed {
                state.changes.notify();
            }
        }
        Err(error) => {
            state.note_database_error(&error);
            // Requests see it all the same; it is stored when the lists are fetched again.
            state.models.store(Arc::new(catalog));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = [0, 1, 2, 4, 5, 40, u32::MAX].into_iter().map(|n| back_off(n).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 32, 60, 60, 60]);
    }
}
