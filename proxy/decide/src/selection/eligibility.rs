//! Whether an account may serve an exchange now, and if none may, why and until when.

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::AccountState;

use super::{AccountView, Needs};

/// Why an account is not a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ineligible {
    /// An earlier leg of this exchange ruled it out.
    Excluded,
    /// Its plan does not offer the model.
    ModelNotOffered,
    /// An operator paused it.
    Paused,
    /// A person must log in again.
    ReauthRequired,
    /// Upstream closed it.
    Deactivated,
    /// It is limited by upstream until then, if the end is known.
    Limited(Option<Timestamp>),
    /// It sits out after failures.
    CoolingDown(Timestamp),
}

/// What is wrong with every account of the pool, when none is eligible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolTrouble {
    /// Accounts looked at.
    pub accounts: u32,
    /// Of these, limited by upstream.
    pub limited: u32,
    /// Of these, sitting out after failures.
    pub cooling_down: u32,
    /// Of these, whose plan does not offer the model.
    pub model_not_offered: u32,
    /// Of these, ruled out by earlier legs of the exchange.
    pub excluded: u32,
    /// The earliest end of a limit.
    pub earliest_reset: Option<Timestamp>,
    /// The earliest end of a cooldown.
    pub earliest_cooldown_end: Option<Timestamp>,
}

impl PoolTrouble {
    /// Adds one account's reason.
    pub fn count(&mut self, reason: Ineligible) {
        self.accounts += 1;
        match reason {
            Ineligible::Excluded => self.excluded += 1,
            Ineligible::ModelNotOffered => self.model_not_offered += 1,
            Ineligible::Limited(until) => {
                self.limited += 1;
                self.earliest_reset = earlier(self.earliest_reset, until);
            }
            Ineligible::CoolingDown(until) => {
                self.cooling_down += 1;
                self.earliest_cooldown_end = earlier(self.earliest_cooldown_end, Some(until));
            }
            Ineligible::Paused | Ineligible::ReauthRequired | Ineligible::Deactivated => {}
        }
    }
}

fn earlier(known: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (known, other) {
        (Some(known), Some(other)) => Some(known.min(other)),
        (known, other) => known.or(other),
    }
}

/// Whether `account` may serve an exchange with these needs at `now`.
///
/// # Errors
/// The first reason why not.
pub fn eligibility(account: &AccountView, needs: &Needs<'_>, now: Timestamp) -> Result<(), Ineligible> {
    match account.state {
        AccountState::Active => {}
        AccountState::Paused => return Err(Ineligible::Paused),
        AccountState::ReauthRequired => return Err(Ineligible::ReauthRequired),
        AccountState::Deactivated => return Err(Ineligible::Deactivated),
        AccountState::RateLimited | AccountState::QuotaExceeded => {
            return Err(Ineligible::Limited(account.state_until));
        }
    }
    if needs.plans.is_some_and(|plans| !plans.contains(&account.plan)) {
        return Err(Ineligible::ModelNotOffered);
    }
    if let Some(until) = account.cooling_until.filter(|until| now < *until) {
        return Err(Ineligible::CoolingDown(until));
    }
    if let Some(resets_at) = exhausted_window_end(account, now) {
        return Err(Ineligible::Limited(Some(resets_at)));
    }
    if needs.excluded.contains(&account.id) {
        return Err(Ineligible::Excluded);
    }
    Ok(())
}

/// The end of the latest window that is known to be used up and has not reset.
///
/// A window without a known reset never blocks: nothing would ever unblock it but a request, which tells for sure.
fn exhausted_window_end(account: &AccountView, now: Timestamp) -> Option<Timestamp> {
    let usage = account.usage?;
    [usage.primary, usage.secondary]
        .into_iter()
        .flatten()
        .filter(|window| window.used_percent_at(now) >= 100.0)
        .filter_map(|window| window.resets_at)
        .max()
}
