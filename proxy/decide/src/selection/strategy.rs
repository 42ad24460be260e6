//! The strategies: each orders a set of candidates, best first. None of them adds, drops or checks a candidate.

mod capacity_weighted;
mod round_robin;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use rand::Rng;

use super::AccountView;

/// An order among candidates.
pub trait Strategy: Sync {
    /// Sorts the candidates, best first. Keeps the set, and gives the same order for the same dice.
    fn order(&self, candidates: &mut Vec<&AccountView>, now: Timestamp, dice: &mut dyn Rng);
}

/// The strategy of this kind.
pub fn strategy(kind: StrategyKind) -> &'static dyn Strategy {
    match kind {
        StrategyKind::CapacityWeighted => &capacity_weighted::CapacityWeighted,
        StrategyKind::RoundRobin => &round_robin::RoundRobin,
    }
}
