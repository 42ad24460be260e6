//! What came of a choice: an account and why it, or what is wrong with all of them, until when, and what to wait for.

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::ids::AccountId;

use super::eligibility::Ineligible;
use super::view::AccountView;

/// The account that serves, and why it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The account.
    pub account: AccountId,
    /// Why it.
    pub why: Why,
}

/// Why an account was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The conversation is there already.
    Sticky,
    /// The conversation belongs there from now on: it is new, or left its account.
    Placed,
    /// The conversation's own account stayed busy, so this one serves once. The conversation still belongs to its own.
    Overflow,
    /// Nothing names the conversation.
    Strategy,
    /// Nobody else knows what the exchange refers to.
    Owner,
}

/// Why no account was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotChosen {
    /// Waiting for a slot helps.
    AtCapacity(AtCapacity),
    /// No account is eligible.
    Nobody(PoolTrouble),
    /// The one account that could serve is not eligible.
    OwnerUnavailable(OwnerUnavailable),
}

/// Accounts are eligible, and all are busy up to their caps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtCapacity {
    /// Why the account would be chosen whose slot is free first.
    pub why: Why,
    /// The accounts of which one with a free slot may serve. Never empty.
    pub eligible: Vec<AccountId>,
}

impl AtCapacity {
    /// Whether the exchange waits for its own account only: the conversation's, for a while, or the owner.
    pub const fn is_for_own(&self) -> bool {
        match self.why {
            Why::Sticky | Why::Owner => true,
            Why::Placed | Why::Overflow | Why::Strategy => false,
        }
    }

    pub(super) fn for_one(why: Why, account: AccountId) -> NotChosen {
        NotChosen::AtCapacity(Self { why, eligible: vec![account] })
    }

    pub(super) const fn for_any(why: Why, eligible: Vec<AccountId>) -> NotChosen {
        NotChosen::AtCapacity(Self { why, eligible })
    }
}

/// Only this account could serve the exchange, and it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerUnavailable {
    /// Whose the exchange is.
    pub owner: AccountId,
    /// Why it cannot; `None` when it left the pool.
    pub reason: Option<Ineligible>,
}

/// What is wrong with the accounts of the pool when none is eligible. Each account counts once, for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolTrouble {
    /// Accounts looked at.
    pub accounts: u32,
    /// Of these, limited by upstream, altogether or for the exchange's model.
    pub limited: u32,
    /// Of these, sitting out after failures.
    pub cooling_down: u32,
    /// Of these, not offering the model.
    pub model_not_offered: u32,
    /// Of these, not offering the service tier.
    pub tier_not_offered: u32,
    /// Of these, ruled out by earlier legs of the exchange.
    pub excluded: u32,
    /// Of these, not among those that the caller's api key may use.
    pub out_of_scope: u32,
    /// Of these, not the one that `single_account` uses.
    pub not_the_single_account: u32,
    /// Of these, paused, closed, waiting for a login or without a way out: until a person does something.
    pub out_of_service: u32,
    /// The earliest end of a limit.
    pub earliest_reset: Option<Timestamp>,
    /// The plan of the account whose limit ends first, for the error that upstream itself would have sent.
    pub earliest_reset_plan: Option<Plan>,
    /// The earliest end of a cooldown.
    pub earliest_cooldown_end: Option<Timestamp>,
}

impl PoolTrouble {
    /// The earliest moment at which an account may become eligible by itself.
    pub fn earliest_change(&self) -> Option<Timestamp> {
        [self.earliest_reset, self.earliest_cooldown_end].into_iter().flatten().min()
    }

    pub(super) fn count(&mut self, account: &AccountView, reason: Ineligible) {
        self.accounts += 1;
        match reason {
            Ineligible::OutOfScope => self.out_of_scope += 1,
            Ineligible::NotTheSingleAccount => self.not_the_single_account += 1,
            Ineligible::Paused | Ineligible::ReauthRequired | Ineligible::Deactivated | Ineligible::NoWayOut => {
                self.out_of_service += 1;
            }
            Ineligible::ModelNotOffered => self.model_not_offered += 1,
            Ineligible::TierNotOffered => self.tier_not_offered += 1,
            Ineligible::Limited(until) => self.count_limited(account.plan, until),
            Ineligible::ModelLimited(until) => self.count_limited(account.plan, Some(until)),
            Ineligible::CoolingDown(until) => {
                self.cooling_down += 1;
                let earliest = self.earliest_cooldown_end.map_or(until, |known| known.min(until));
                self.earliest_cooldown_end = Some(earliest);
            }
            Ineligible::Excluded => self.excluded += 1,
        }
    }

    fn count_limited(&mut self, plan: Plan, until: Option<Timestamp>) {
        self.limited += 1;
        if let Some(until) = until.filter(|until| self.earliest_reset.is_none_or(|known| *until < known)) {
            self.earliest_reset = Some(until);
            self.earliest_reset_plan = Some(plan);
        }
    }
}
