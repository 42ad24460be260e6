//! `round_robin`: the account that was chosen longest ago.

use super::{AccountView, Sight, Strategy, least};

/// Orders by the last choice, oldest first.
pub(super) struct RoundRobin;

impl Strategy for RoundRobin {
    fn best<'a>(&self, candidates: &[&'a AccountView], _sight: &Sight) -> Option<&'a AccountView> {
        least(candidates, |account| account.last_chosen)
    }
}
