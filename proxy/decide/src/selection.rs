//! Choosing an account: who is eligible, who of them comes first, and whether a conversation stays where it is.
//!
//! Eligibility never ranks and a strategy never checks eligibility; between them stand the things that always come
//! first, whatever the strategy: a free slot, no extra cost, an operator's wish, good health.

mod eligibility;
mod field;
pub mod health;
pub mod named_limits;
mod outcome;
mod sight;
mod strategy;
mod view;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::RoutingPolicy;
pub use codex_lb_shared::domain::account::{Credits, NamedCooldown};
use codex_lb_shared::domain::settings::RoutingSettings;
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use codex_lb_shared::ids::AccountId;

pub use eligibility::{Ineligible, SAMPLE_FRESH_FOR, Standing, eligibility};
use field::Field;
use health::{HealthTier, health_tier};
pub use outcome::{AtCapacity, Chosen, NotChosen, OwnerUnavailable, PoolTrouble, Why};
pub use sight::{Basis, IN_FLIGHT_PRESSURE_PERCENT, Sight};
use strategy::draws_by_weight;
pub use strategy::{Strategy, strategy};
pub use view::{AccountIds, AccountView, Needs};

/// What ties an exchange to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Nothing names its conversation.
    None,
    /// It begins a conversation, which this key names.
    New {
        /// The sticky key.
        key: [u8; 16],
    },
    /// It goes on with a conversation.
    Sticky {
        /// The sticky key.
        key: [u8; 16],
        /// The conversation's account.
        account: AccountId,
        /// It has waited for that account as long as it may, so a busy account no longer holds it up.
        has_waited: bool,
    },
    /// It refers to what only this account knows.
    Owner(AccountId),
}

/// The accounts, the exchange and the rules of one choice.
#[derive(Clone, Copy)]
struct Choice<'a> {
    accounts: &'a [AccountView],
    needs: &'a Needs<'a>,
    settings: &'a RoutingSettings,
    now: Timestamp,
}

/// Chooses an account for an exchange. `dice` decide where the conversation's key does not.
///
/// # Errors
/// When no account can serve now: the error says whether to wait for a slot, or what is wrong and until when.
pub fn choose(
    accounts: &[AccountView],
    needs: &Needs<'_>,
    settings: &RoutingSettings,
    affinity: Affinity,
    dice: u128,
    now: Timestamp,
) -> Result<Chosen, NotChosen> {
    let choice = Choice { accounts, needs, settings, now };
    match affinity {
        Affinity::Owner(owner) => choose_owner(accounts, needs, owner, now),
        Affinity::Sticky { key, account, has_waited } if settings.sticky_sessions => {
            choice.stay_or_leave(key, account, has_waited, dice)
        }
        Affinity::New { key } if settings.sticky_sessions => choice.place(key, |_| true),
        Affinity::None | Affinity::New { .. } | Affinity::Sticky { .. } => {
            choice.best(Basis::Process, dice, Why::Strategy, |_| true)
        }
    }
}

/// Chooses the account of a new conversation. With a strategy that draws by weight, all replicas that know the same
/// accounts choose the same one, whatever else runs on them.
///
/// # Errors
/// As [`choose`].
pub fn place(
    accounts: &[AccountView],
    needs: &Needs<'_>,
    settings: &RoutingSettings,
    key: [u8; 16],
    now: Timestamp,
) -> Result<Chosen, NotChosen> {
    Choice { accounts, needs, settings, now }.place(key, |_| true)
}

/// Chooses the owner of what the exchange refers to, or nobody: any other account would answer as if it never existed.
/// Neither strategy nor health nor an operator's preference matters.
///
/// # Errors
/// When the owner is busy or cannot serve, and why.
pub fn choose_owner(
    accounts: &[AccountView],
    needs: &Needs<'_>,
    owner: AccountId,
    now: Timestamp,
) -> Result<Chosen, NotChosen> {
    let unavailable = |reason| NotChosen::OwnerUnavailable(OwnerUnavailable { owner, reason });
    let account = accounts.iter().find(|account| account.id == owner).ok_or_else(|| unavailable(None))?;
    eligibility(account, needs, now).map_err(|reason| unavailable(Some(reason)))?;
    if !account.has_free_slot() {
        return Err(AtCapacity::for_one(Why::Owner, owner));
    }
    Ok(Chosen { account: owner, why: Why::Owner })
}

impl<'a> Choice<'a> {
    /// Keeps a conversation where it is, unless its account cannot serve or has little left and a better one is there.
    /// It never moves for the sake of balance: a moved conversation is billed its whole prefix again.
    fn stay_or_leave(
        &self,
        key: [u8; 16],
        sticky: AccountId,
        has_waited: bool,
        dice: u128,
    ) -> Result<Chosen, NotChosen> {
        let own = self.accounts.iter().find(|account| account.id == sticky);
        let Some((own, Ok(standing))) = own.map(|own| (own, self.standing(own))) else {
            return self.place(key, |_| true);
        };
        if self.is_worn(own, standing)
            && let Ok(placed) = self.place(key, |other| self.is_better(other, own))
        {
            return Ok(placed);
        }
        if own.has_free_slot() {
            Ok(Chosen { account: own.id, why: Why::Sticky })
        } else if has_waited {
            self.best(Basis::Process, dice, Why::Overflow, |_| true)
        } else {
            Err(AtCapacity::for_one(Why::Sticky, own.id))
        }
    }

    /// Whether a conversation should leave this account as soon as there is a better one.
    fn is_worn(&self, own: &AccountView, standing: Standing) -> bool {
        standing == Standing::OnCredits || self.is_above_leave_threshold(own)
    }

    fn is_above_leave_threshold(&self, account: &AccountView) -> bool {
        account.primary_percent_at(self.now) > f64::from(self.settings.sticky_leave_above_percent)
    }

    /// Whether moving to `other`, which is eligible and has a free slot, is worth it: it is not worn, nearly used up or
    /// failing itself, and an operator does not want it spared more than the conversation's own.
    fn is_better(&self, other: &AccountView, own: &AccountView) -> bool {
        // Who serves on credits is draining by definition, so this leaves that one out too, and `own` itself.
        !self.is_above_leave_threshold(other)
            && health_tier(other, self.now) != HealthTier::Draining
            && (other.routing_policy != RoutingPolicy::Preserve || own.routing_policy == RoutingPolicy::Preserve)
    }

    fn place(&self, key: [u8; 16], is_wanted: impl Fn(&AccountView) -> bool) -> Result<Chosen, NotChosen> {
        let basis = if draws_by_weight(self.settings.strategy) { Basis::Shared } else { Basis::Process };
        self.best(basis, u128::from_le_bytes(key), Why::Placed, is_wanted)
    }

    /// The best of the wanted accounts.
    fn best(
        &self,
        basis: Basis,
        dice: u128,
        why: Why,
        is_wanted: impl Fn(&AccountView) -> bool,
    ) -> Result<Chosen, NotChosen> {
        let sight = Sight::new(self.now, basis, dice);
        let mut field = Field::gather(self, &sight, is_wanted);
        match field.best(self.settings, &sight) {
            Some(account) => Ok(Chosen { account: account.id, why }),
            None if field.has_eligible => Err(AtCapacity::for_any(why, self.eligible())),
            None => Err(NotChosen::Nobody(field.trouble)),
        }
    }

    fn eligible(&self) -> Vec<AccountId> {
        self.accounts.iter().filter(|account| self.standing(account).is_ok()).map(|account| account.id).collect()
    }

    /// Whether an account may serve under these rules.
    fn standing(&self, account: &AccountView) -> Result<Standing, Ineligible> {
        let is_admitted =
            self.settings.strategy != StrategyKind::SingleAccount || self.settings.single_account == Some(account.id);
        if is_admitted { eligibility(account, self.needs, self.now) } else { Err(Ineligible::NotTheSingleAccount) }
    }
}

#[cfg(test)]
mod tests;
