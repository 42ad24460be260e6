//! What a choice looks at: each account at one moment, and what the exchange needs of it. Plain data; the caller takes
//! it from the pool and works nothing out for itself.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{AccountState, Credits, NamedCooldown, Plan, RoutingPolicy};
use codex_lb_shared::domain::upstream_window::AccountUsage;
use codex_lb_shared::ids::AccountId;

use super::health::HealthFacts;

/// One account as the choice sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountView {
    /// The account.
    pub id: AccountId,
    /// Its subscription.
    pub plan: Plan,
    /// State at the moment of the choice, ended states already counted as over.
    pub state: AccountState,
    /// When that state ends, if it does by itself.
    pub state_until: Option<Timestamp>,
    /// End of a cooldown that is running in this process.
    pub cooling_until: Option<Timestamp>,
    /// Limits of single models that are used up. Empty for nearly every account.
    pub named_cooldowns: Vec<NamedCooldown>,
    /// What upstream last reported.
    pub usage: Option<AccountUsage>,
    /// Whether it can pay for what exceeds its windows.
    pub credits: Credits,
    /// Whether its connections can leave at all: an egress proxy that cannot be used leaves none.
    pub has_way_out: bool,
    /// How eagerly an operator wants it used.
    pub routing_policy: RoutingPolicy,
    /// Exchanges that may run on it at once: its own cap, else the setting's.
    pub concurrency_cap: u32,
    /// Exchanges running on it in this process.
    pub in_flight: u32,
    /// Grows with every choice in the process; the smallest was chosen longest ago.
    pub last_chosen: u64,
    /// What its health is worked out from.
    pub health: HealthFacts,
}

impl AccountView {
    /// Percent of the short window used at `now`. What is unknown, past its reset or no number counts as unused.
    pub fn primary_percent_at(&self, now: Timestamp) -> f64 {
        sound_percent(self.usage.as_ref().map_or(0.0, |usage| usage.primary_percent_at(now)))
    }

    /// Percent of the long window used at `now`. What is unknown, past its reset or no number counts as unused.
    pub fn secondary_percent_at(&self, now: Timestamp) -> f64 {
        sound_percent(self.usage.as_ref().map_or(0.0, |usage| usage.secondary_percent_at(now)))
    }

    /// Whether one more exchange may run on it.
    pub const fn has_free_slot(&self) -> bool {
        self.in_flight < self.concurrency_cap
    }
}

/// A percentage that is no number would neither be above nor below any threshold.
const fn sound_percent(percent: f64) -> f64 {
    if percent.is_nan() { 0.0 } else { percent }
}

/// What an exchange needs of an account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// Accounts that earlier legs of this exchange ruled out.
    pub excluded: &'a [AccountId],
    /// The only accounts that the caller's api key may use; `None` for all, empty for none.
    pub scope: Option<&'a AccountIds>,
    /// Plans whose accounts offer the model; `None` when the catalog does not know it and upstream must say.
    pub model_plans: Option<&'a [Plan]>,
    /// Accounts that upstream said do not serve the model, whatever their plan; `None` when it said so of none.
    pub model_refused_by: Option<&'a AccountIds>,
    /// Plans whose accounts offer the service tier for the model; `None` when nothing is known or no tier is asked for.
    pub tier_plans: Option<&'a [Plan]>,
    /// The limit of its own that meters the model, as [`super::named_limits::ModelLimits::of`] tells.
    pub named_limit: Option<&'a str>,
}

/// A set of accounts. A key's scope may hold all of a large pool and is asked once for each account, so hashing is cheap.
pub type AccountIds = HashSet<AccountId, BuildHasherDefault<IdHasher>>;

/// Hashes ids. We make them ourselves and they are mostly random, so nobody can choose them to collide.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u128(&mut self, id: u128) {
        self.0 = (id as u64 ^ (id >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "an id is one number of 128 bits");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher as _, Hash as _};

    use super::*;

    fn hashed(id: u128) -> u64 {
        BuildHasherDefault::<IdHasher>::default().hash_one(AccountId::from_u128(id))
    }

    /// A table places by the lowest bits and tells neighbours apart by the seven highest.
    #[test]
    fn ids_that_differ_a_little_hash_far_apart() {
        let hashes: Vec<u64> = (0..256).map(|number| hashed((1 << 120) + number)).collect();
        let lowest: BTreeSet<u64> = hashes.iter().map(|hash| hash % 256).collect();
        let highest: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(lowest.len() > 100, "{} places of 256", lowest.len());
        assert!(highest.len() > 100, "{} tags of 128", highest.len());
    }

    #[test]
    fn every_bit_of_an_id_counts_in_its_hash() {
        let bits: BTreeSet<u64> = (0..128).map(|bit| hashed(1 << bit)).collect();
        assert_eq!(bits.len(), 64, "the halves are folded");
        assert_eq!(hashed(0b1100 << 64 | 0b1010), hashed(0b0110));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "one number")]
    fn nothing_but_an_id_is_hashed() {
        "text".hash(&mut IdHasher::default());
    }
}
