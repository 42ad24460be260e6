//! `sequential_drain`: small plans before large ones, always in the same order.

use super::{AccountView, Sight, Strategy, least};

/// Orders by the plan's capacity; plans of equal capacity by the age of the account in the pool, which its id tells.
pub(super) struct SequentialDrain;

impl Strategy for SequentialDrain {
    fn best<'a>(&self, candidates: &[&'a AccountView], _sight: &Sight) -> Option<&'a AccountView> {
        least(candidates, |account| (account.plan.secondary_credits(), account.plan.primary_credits()))
    }
}
