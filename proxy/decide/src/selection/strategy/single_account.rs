//! `single_account`: one configured account. The choice lets no other account through, so nothing is left to order.

use super::{AccountView, Sight, Strategy, least};

/// Any candidate; the choice made sure that there is only one.
pub(super) struct SingleAccount;

impl Strategy for SingleAccount {
    fn best<'a>(&self, candidates: &[&'a AccountView], _sight: &Sight) -> Option<&'a AccountView> {
        least(candidates, |_| ())
    }
}
