//! `usage_weighted`: the account that is used least.

use super::{AccountView, Figure, Sight, Strategy, least};

/// Orders by the long window used, then by the short one; of equal ones the one chosen longest ago comes first.
pub(super) struct UsageWeighted;

impl Strategy for UsageWeighted {
    fn best<'a>(&self, candidates: &[&'a AccountView], sight: &Sight) -> Option<&'a AccountView> {
        least(candidates, |account| {
            (Figure(sight.secondary_used(account)), Figure(sight.primary_used(account)), account.last_chosen)
        })
    }
}
