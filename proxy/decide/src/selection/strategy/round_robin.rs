//! `round_robin`: the account that was chosen longest ago.

use codex_lb_shared::clock::Timestamp;
use rand::Rng;

use super::{AccountView, Strategy};

/// Orders by the last choice, oldest first; ties by id, so that the order is total.
pub(super) struct RoundRobin;

impl Strategy for RoundRobin {
    fn order(&self, candidates: &mut Vec<&AccountView>, _now: Timestamp, _dice: &mut dyn Rng) {
        candidates.sort_unstable_by_key(|account| (account.last_chosen, account.id));
    }
}
