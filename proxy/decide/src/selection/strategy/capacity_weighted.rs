//! `capacity_weighted`: a weighted draw by the credits left in the long window.

use codex_lb_shared::clock::Timestamp;
use rand::{Rng, RngExt as _};

use super::super::IN_FLIGHT_PRESSURE_PERCENT;
use super::{AccountView, Strategy};

/// No account's weight falls below this, so that none starves while it is eligible.
const WEIGHT_MIN: f64 = 1.0;

/// Draws without replacement, each account weighted by its remaining long-window credits.
pub(super) struct CapacityWeighted;

impl Strategy for CapacityWeighted {
    fn order(&self, candidates: &mut Vec<&AccountView>, now: Timestamp, dice: &mut dyn Rng) {
        // Exponential variates scaled by the weight, sorted, are a weighted draw without replacement
        // (Efraimidis and Spirakis, 2006). The id breaks ties and makes the input order irrelevant.
        candidates.sort_unstable_by_key(|account| account.id);
        let mut drawn: Vec<(f64, &AccountView)> = candidates
            .drain(..)
            .map(|account| {
                let uniform: f64 = dice.random_range(f64::MIN_POSITIVE..1.0);
                (-uniform.ln() / weight(account, now), account)
            })
            .collect();
        drawn.sort_by(|(left, _), (right, _)| left.total_cmp(right));
        candidates.extend(drawn.into_iter().map(|(_, account)| account));
    }
}

fn weight(account: &AccountView, now: Timestamp) -> f64 {
    let used = account.usage.map_or(0.0, |usage| usage.secondary_percent_at(now));
    let pressed = used + IN_FLIGHT_PRESSURE_PERCENT * f64::from(account.in_flight);
    let left = f64::from(account.plan.secondary_credits()) * (100.0 - pressed.min(100.0)) / 100.0;
    left.max(WEIGHT_MIN)
}
