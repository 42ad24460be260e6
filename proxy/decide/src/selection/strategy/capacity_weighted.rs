//! `capacity_weighted`: a weighted draw by the credits left in the long window.

use super::{AccountView, Sight, Strategy};

/// No account's weight falls below this, so that none starves while it is eligible.
const WEIGHT_MIN: f64 = 1.0;

/// Draws each account as often as its share of all credits left.
pub(super) struct CapacityWeighted;

impl Strategy for CapacityWeighted {
    fn best<'a>(&self, candidates: &[&'a AccountView], sight: &Sight) -> Option<&'a AccountView> {
        sight.draw(candidates.iter().map(|account| (*account, sight.credits_left(account).max(WEIGHT_MIN))))
    }
}
