//! `reset_drain`: the account whose long window resets soonest, because what it has left is lost then.

use super::{AccountView, Figure, Sight, Strategy, least};

/// Resets within one such step count as equal: upstream's times jitter by seconds.
const RESET_STEP_SECONDS: i64 = 600;

/// Orders by the reset of the long window, then by the short window used, least first.
pub(super) struct ResetDrain;

impl Strategy for ResetDrain {
    fn best<'a>(&self, candidates: &[&'a AccountView], sight: &Sight) -> Option<&'a AccountView> {
        least(candidates, |account| {
            let reset_step = sight.resets_at(account).as_unix_seconds().div_euclid(RESET_STEP_SECONDS);
            (reset_step, Figure(sight.primary_used(account)), Figure(sight.secondary_used(account)))
        })
    }
}
