//! Choosing an account: eligibility first, then one strategy orders the candidates.
//!
//! A strategy never checks eligibility and eligibility never ranks.

mod eligibility;
mod strategy;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{AccountState, Plan, RoutingPolicy};
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use codex_lb_shared::domain::upstream_window::AccountUsage;
use codex_lb_shared::ids::AccountId;
use rand::Rng;

pub use eligibility::{Ineligible, PoolTrouble, eligibility};
pub use strategy::{Strategy, strategy};

/// Percent points that each running exchange adds to an account's used percentage while ranking.
pub const IN_FLIGHT_PRESSURE_PERCENT: f64 = 2.5;

/// One account as the choice sees it: plain data, taken from the pool at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountView {
    /// The account.
    pub id: AccountId,
    /// Its subscription.
    pub plan: Plan,
    /// State at the moment of the choice, ended states already counted as over.
    pub state: AccountState,
    /// When that state ends, if it does by itself.
    pub state_until: Option<Timestamp>,
    /// End of a cooldown that is running in this process.
    pub cooling_until: Option<Timestamp>,
    /// What upstream last reported.
    pub usage: Option<AccountUsage>,
    /// How eagerly an operator wants it used.
    pub routing_policy: RoutingPolicy,
    /// Exchanges running on it in this process.
    pub in_flight: u32,
    /// Grows with every choice in the process; the smallest was chosen longest ago.
    pub last_chosen: u64,
}

/// What an exchange needs of an account.
#[derive(Clone, Debug, Default)]
pub struct Needs<'a> {
    /// Accounts that earlier legs of this exchange ruled out.
    pub excluded: &'a [AccountId],
    /// Plans whose accounts offer the model; `None` when the catalog does not know it and upstream must say.
    pub plans: Option<&'a [Plan]>,
}

/// Chooses one account, or says what is wrong with all of them.
///
/// `sticky` is chosen if it is eligible, whatever its rank: a moved conversation is billed its whole prefix again.
///
/// # Errors
/// When no account is eligible; the error tells the earliest moment at which one may be.
pub fn choose(
    accounts: &[AccountView],
    needs: &Needs<'_>,
    sticky: Option<AccountId>,
    kind: StrategyKind,
    now: Timestamp,
    dice: &mut dyn Rng,
) -> Result<AccountId, PoolTrouble> {
    let mut trouble = PoolTrouble::default();
    let mut candidates: Vec<&AccountView> = Vec::with_capacity(accounts.len());
    for account in accounts {
        match eligibility(account, needs, now) {
            Ok(()) => candidates.push(account),
            Err(reason) => trouble.count(reason),
        }
    }
    if let Some(kept) = candidates.iter().find(|account| Some(account.id) == sticky) {
        return Ok(kept.id);
    }
    let Some(best_policy) = candidates.iter().map(|account| account.routing_policy).min() else {
        return Err(trouble);
    };
    candidates.retain(|account| account.routing_policy == best_policy);
    strategy(kind).order(&mut candidates, now, dice);
    candidates.first().map(|account| account.id).ok_or(trouble)
}

#[cfg(test)]
mod tests;
