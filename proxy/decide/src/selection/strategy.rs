//! The strategies: each names the best of a set of candidates. None of them checks whether a candidate may serve.

mod capacity_weighted;
mod fill_first;
mod relative_availability;
mod reset_drain;
mod round_robin;
mod sequential_drain;
mod single_account;
mod usage_weighted;

use std::cmp::Ordering;

use codex_lb_shared::domain::strategy_kind::StrategyKind;

use super::sight::Sight;
use super::view::AccountView;

/// An order among candidates.
pub trait Strategy: Sync {
    /// The best candidate; `None` only if there is none. Equal dice and figures give the same answer, in whatever order
    /// the candidates come.
    fn best<'a>(&self, candidates: &[&'a AccountView], sight: &Sight) -> Option<&'a AccountView>;
}

/// The strategy of this kind.
pub fn strategy(kind: StrategyKind) -> &'static dyn Strategy {
    match kind {
        StrategyKind::CapacityWeighted => &capacity_weighted::CapacityWeighted,
        StrategyKind::RelativeAvailability => &relative_availability::RelativeAvailability,
        StrategyKind::UsageWeighted => &usage_weighted::UsageWeighted,
        StrategyKind::RoundRobin => &round_robin::RoundRobin,
        StrategyKind::FillFirst => &fill_first::FillFirst,
        StrategyKind::SequentialDrain => &sequential_drain::SequentialDrain,
        StrategyKind::ResetDrain => &reset_drain::ResetDrain,
        StrategyKind::SingleAccount => &single_account::SingleAccount,
    }
}

/// Whether the strategy draws by weights: such a draw can be made alike on every replica.
pub(super) const fn draws_by_weight(kind: StrategyKind) -> bool {
    match kind {
        StrategyKind::CapacityWeighted | StrategyKind::RelativeAvailability => true,
        StrategyKind::UsageWeighted
        | StrategyKind::RoundRobin
        | StrategyKind::FillFirst
        | StrategyKind::SequentialDrain
        | StrategyKind::ResetDrain
        | StrategyKind::SingleAccount => false,
    }
}

/// Whether `prefer_earlier_reset` applies. The others either look at the reset themselves or have a fixed order.
pub(super) const fn heeds_reset_day(kind: StrategyKind) -> bool {
    match kind {
        StrategyKind::CapacityWeighted | StrategyKind::UsageWeighted | StrategyKind::FillFirst => true,
        StrategyKind::RelativeAvailability
        | StrategyKind::RoundRobin
        | StrategyKind::SequentialDrain
        | StrategyKind::ResetDrain
        | StrategyKind::SingleAccount => false,
    }
}

/// The candidate with the least rank; equal ranks fall to the smaller id, so that the order is total.
fn least<'a, Rank: Ord>(
    candidates: &[&'a AccountView],
    rank: impl Fn(&AccountView) -> Rank,
) -> Option<&'a AccountView> {
    candidates.iter().copied().min_by_key(|account| (rank(account), account.id))
}

/// A figure to rank by. Ordered wholly, whatever it is.
#[derive(Clone, Copy, Debug)]
struct Figure(f64);

impl Ord for Figure {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Figure {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Figure {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Figure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_ordered_wholly_and_equal_as_they_are_ordered() {
        let rising = [f64::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f64::INFINITY, f64::NAN].map(Figure);
        for (place, one) in rising.into_iter().enumerate() {
            for (other_place, other) in rising.into_iter().enumerate() {
                let expected = place.cmp(&other_place);
                assert_eq!((one.cmp(&other), one.partial_cmp(&other)), (expected, Some(expected)), "{one:?} {other:?}");
                assert_eq!(one == other, expected.is_eq(), "{one:?} {other:?}");
            }
        }
    }
}
