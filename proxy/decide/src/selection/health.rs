//! How well an account does: a tier, worked out from what upstream reports about its windows and from a few moments
//! that this process remembers.

use std::time::Duration;

use codex_lb_shared::clock::Timestamp;
pub use codex_lb_shared::domain::health::{
    DRAIN_PRIMARY_PERCENT, DRAIN_SECONDARY_PERCENT, ERRORS_SPAN, HealthFacts, has_usage_reason,
};
use codex_lb_shared::domain::upstream_window::AccountUsage;

use super::view::AccountView;

/// This long after the last reason an account is tried again.
pub const PROBE_AFTER: Duration = Duration::from_secs(60);
/// A probing account that was not used for this long gets the next request.
pub const PROBE_IDLE: Duration = Duration::from_secs(60);

/// How well an account does, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthTier {
    /// Nothing speaks against it.
    Healthy,
    /// What spoke against it is over; a few successes will prove it.
    Probing,
    /// Nearly used up, or it failed lately: used when nobody better is there.
    Draining,
}

/// The tier of an account at `now`.
pub fn health_tier(account: &AccountView, now: Timestamp) -> HealthTier {
    if account.usage.as_ref().is_some_and(|usage| has_usage_reason(usage, now)) {
        return HealthTier::Draining;
    }
    let reset_at = account.usage.as_ref().and_then(|usage| usage_reason_ended_at(usage, now));
    let Some(last_reason_at) = account.health.last_reason_at.max(reset_at) else {
        return HealthTier::Healthy;
    };
    if now.since(last_reason_at) < PROBE_AFTER {
        HealthTier::Draining
    } else if account.health.is_proven_since(last_reason_at.plus(PROBE_AFTER)) {
        HealthTier::Healthy
    } else {
        HealthTier::Probing
    }
}

/// Whether a probing account was idle for so long that it gets the next request, so that it can prove itself.
pub fn is_due_for_probe(account: &AccountView, now: Timestamp) -> bool {
    account.health.last_used_at.is_none_or(|at| PROBE_IDLE <= now.since(at))
}

/// When a window that was nearly used up was reset, if that is over. No sample tells of this moment.
fn usage_reason_ended_at(usage: &AccountUsage, now: Timestamp) -> Option<Timestamp> {
    [(usage.primary, DRAIN_PRIMARY_PERCENT), (usage.secondary, DRAIN_SECONDARY_PERCENT)]
        .into_iter()
        .filter_map(|(window, threshold)| window.filter(|window| window.used_percent >= threshold))
        .filter_map(|window| window.resets_at.filter(|resets_at| *resets_at <= now))
        .max()
}
