//! `fill_first`: the account whose short window is used most, so that the others' windows begin as late as possible.

use std::cmp::Reverse;

use super::{AccountView, Figure, Sight, Strategy, least};

/// Orders by the short window used, then by the long one, most first.
pub(super) struct FillFirst;

impl Strategy for FillFirst {
    fn best<'a>(&self, candidates: &[&'a AccountView], sight: &Sight) -> Option<&'a AccountView> {
        least(candidates, |account| {
            (Reverse(Figure(sight.primary_used(account))), Reverse(Figure(sight.secondary_used(account))))
        })
    }
}
