//! Whether an account may serve an exchange now. Nothing in here ranks, and being at its concurrency cap is no reason:
//! that is over in a moment.

use std::time::Duration;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::AccountState;
use codex_lb_shared::domain::upstream_window::AccountUsage;

use super::view::{AccountView, Needs};

/// A sample that is not older than this may rule an account out.
///
/// Usage is fetched every few minutes and comes with every answer, but an account that is ruled out answers nothing. If
/// fetching fails twice we no longer know, and one request that upstream refuses, with the true end of the limit, costs
/// less than an account that nobody uses.
pub const SAMPLE_FRESH_FOR: Duration = Duration::from_secs(600);
/// A window used by this much serves no more.
const USED_UP_PERCENT: f64 = 100.0;

/// How an eligible account serves, better first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Out of its windows.
    Regular,
    /// A window is used up; its owner pays for the rest.
    OnCredits,
}

/// Why an account is not a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ineligible {
    /// The caller's api key may not use it.
    OutOfScope,
    /// The strategy is `single_account`, and it is not the one.
    NotTheSingleAccount,
    /// An operator paused it.
    Paused,
    /// A person must log in again.
    ReauthRequired,
    /// Upstream closed it.
    Deactivated,
    /// It is bound to an egress proxy that cannot be used.
    NoWayOut,
    /// It does not offer the model.
    ModelNotOffered,
    /// It does not offer the service tier.
    TierNotOffered,
    /// It is limited by upstream until then, if the end is known.
    Limited(Option<Timestamp>),
    /// It is limited until then for the exchange's model only.
    ModelLimited(Timestamp),
    /// It sits out after failures.
    CoolingDown(Timestamp),
    /// An earlier leg of this exchange ruled it out.
    Excluded,
}

/// Whether `account` may serve an exchange with these needs at `now`, and how.
///
/// # Errors
/// The reason why not; of several, a lasting one before a passing one.
pub fn eligibility(account: &AccountView, needs: &Needs<'_>, now: Timestamp) -> Result<Standing, Ineligible> {
    if needs.scope.is_some_and(|scope| !scope.contains(&account.id)) {
        return Err(Ineligible::OutOfScope);
    }
    let limited_until = match account.state {
        AccountState::Active => None,
        AccountState::Paused => return Err(Ineligible::Paused),
        AccountState::ReauthRequired => return Err(Ineligible::ReauthRequired),
        AccountState::Deactivated => return Err(Ineligible::Deactivated),
        AccountState::RateLimited | AccountState::QuotaExceeded => Some(Ineligible::Limited(account.state_until)),
    };
    if !account.has_way_out {
        return Err(Ineligible::NoWayOut);
    }
    offers(account, needs)?;
    if let Some(limited) = limited_until {
        return Err(limited);
    }
    let standing = room(account, needs, now)?;
    if let Some(until) = account.cooling_until.filter(|until| now < *until) {
        return Err(Ineligible::CoolingDown(until));
    }
    if needs.excluded.contains(&account.id) {
        return Err(Ineligible::Excluded);
    }
    Ok(standing)
}

fn offers(account: &AccountView, needs: &Needs<'_>) -> Result<(), Ineligible> {
    if needs.model_plans.is_some_and(|plans| !plans.contains(&account.plan))
        || needs.model_refused_by.is_some_and(|refused| refused.contains(&account.id))
    {
        return Err(Ineligible::ModelNotOffered);
    }
    if needs.tier_plans.is_some_and(|plans| !plans.contains(&account.plan)) {
        return Err(Ineligible::TierNotOffered);
    }
    Ok(())
}

/// Whether the limits that meter the model leave room. A model with a limit of its own is not metered by the windows.
fn room(account: &AccountView, needs: &Needs<'_>, now: Timestamp) -> Result<Standing, Ineligible> {
    if let Some(named_limit) = needs.named_limit {
        let cooldown = account.named_cooldowns.iter().find(|cooldown| cooldown.named_limit == named_limit);
        return match cooldown.filter(|cooldown| now < cooldown.until) {
            Some(cooldown) => Err(Ineligible::ModelLimited(cooldown.until)),
            None => Ok(Standing::Regular),
        };
    }
    let fresh = account.usage.as_ref().filter(|usage| now.since(usage.observed_at) <= SAMPLE_FRESH_FOR);
    match fresh.and_then(|usage| used_up(usage, now)) {
        Some(_) if account.credits.can_pay() => Ok(Standing::OnCredits),
        // Nothing would end a limit without a known end but a request, which tells for sure.
        Some(UsedUp { until: Some(until) }) => Err(Ineligible::Limited(Some(until))),
        Some(UsedUp { until: None }) | None => Ok(Standing::Regular),
    }
}

struct UsedUp {
    /// The latest known reset of the windows that are used up: all of them must leave room.
    until: Option<Timestamp>,
}

fn used_up(usage: &AccountUsage, now: Timestamp) -> Option<UsedUp> {
    [usage.primary, usage.secondary]
        .into_iter()
        .flatten()
        .filter(|window| window.used_percent_at(now) >= USED_UP_PERCENT)
        .map(|window| window.resets_at)
        .reduce(Ord::max)
        .map(|until| UsedUp { until })
}
