//! What a strategy sees of an account: its figures, either as this process knows them or as every replica does, and its
//! luck in the draw.

use std::time::Duration;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::upstream_window::WEEKLY_MINUTES;

use super::health::{DRAIN_PRIMARY_PERCENT, DRAIN_SECONDARY_PERCENT, HealthTier, health_tier};
use super::view::AccountView;

/// Percent points that each running exchange adds to an account's used percentages while ranking.
pub const IN_FLIGHT_PRESSURE_PERCENT: f64 = 2.5;
/// Used percentages are rounded to this where replicas must agree, so that samples which differ a little do not matter.
const SHARED_STEP_PERCENT: f64 = 10.0;
/// And times to a reset to this.
const SHARED_STEP_SECONDS: u64 = 3_600;
const DAY_SECONDS: i64 = 86_400;

/// Which figures of an account count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// All that this process knows: running exchanges, health, exact percentages.
    Process,
    /// Only what every replica knows, coarse enough that all see the same.
    Shared,
}

/// The figures of accounts at one moment, and the dice.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    now: Timestamp,
    basis: Basis,
    seed: u64,
}

impl Sight {
    /// Sees accounts at `now`; equal dice draw equally, in every process and in every order of the accounts.
    pub const fn new(now: Timestamp, basis: Basis, dice: u128) -> Self {
        Self { now, basis, seed: mix(mix(0, dice as u64), (dice >> 64) as u64) }
    }

    /// Percent of the short window used. May exceed 100 by what running exchanges add.
    pub fn primary_used(&self, account: &AccountView) -> f64 {
        self.used(account, account.primary_percent_at(self.now))
    }

    /// Percent of the long window used. May exceed 100 by what running exchanges add.
    pub fn secondary_used(&self, account: &AccountView) -> f64 {
        self.used(account, account.secondary_percent_at(self.now))
    }

    fn used(&self, account: &AccountView, percent: f64) -> f64 {
        match self.basis {
            Basis::Process => percent + IN_FLIGHT_PRESSURE_PERCENT * f64::from(account.in_flight),
            // Rounds without the function call that f64::round is on plain x86-64; a percentage is never negative.
            Basis::Shared => f64::from((percent / SHARED_STEP_PERCENT + 0.5) as u32) * SHARED_STEP_PERCENT,
        }
    }

    /// Credits left in the long window.
    pub fn credits_left(&self, account: &AccountView) -> f64 {
        let left_percent = (100.0 - self.secondary_used(account)).max(0.0);
        f64::from(account.plan.secondary_credits()) * left_percent / 100.0
    }

    /// When the long window resets. One that has reset, or of which nothing is known, begins with its next use and lasts
    /// its whole length from then on.
    pub fn resets_at(&self, account: &AccountView) -> Timestamp {
        let window = account.usage.as_ref().and_then(|usage| usage.secondary);
        let still_to_come = window.and_then(|window| window.resets_at).filter(|resets_at| self.now < *resets_at);
        still_to_come.unwrap_or_else(|| {
            let known_minutes = window.map(|window| window.window_minutes).filter(|minutes| *minutes > 0);
            self.now.plus(Duration::from_secs(60 * u64::from(known_minutes.unwrap_or(WEEKLY_MINUTES))))
        })
    }

    /// The day (UTC) on which the long window resets.
    pub fn reset_day(&self, account: &AccountView) -> i64 {
        self.resets_at(account).as_unix_seconds().div_euclid(DAY_SECONDS)
    }

    /// Seconds until the long window resets. On the shared basis in whole hours, since replicas do not look at the same
    /// moment.
    pub fn seconds_to_reset(&self, account: &AccountView) -> f64 {
        let to_reset = self.resets_at(account).since(self.now);
        match self.basis {
            Basis::Process => to_reset.as_secs_f64(),
            Basis::Shared => (to_reset.as_secs().div_ceil(SHARED_STEP_SECONDS) * SHARED_STEP_SECONDS) as f64,
        }
    }

    /// How well the account does, as far as the basis allows to tell.
    pub fn tier(&self, account: &AccountView) -> HealthTier {
        match self.basis {
            Basis::Process => health_tier(account, self.now),
            Basis::Shared => {
                // A rounded 90 begins at 85, where a short window's draining begins.
                let is_draining = self.primary_used(account) >= DRAIN_PRIMARY_PERCENT
                    || self.secondary_used(account) >= DRAIN_SECONDARY_PERCENT;
                if is_draining { HealthTier::Draining } else { HealthTier::Healthy }
            }
        }
    }

    /// Draws one of the candidates, each as often as its share of the weights, which are positive.
    ///
    /// Each account gets an exponential variate divided by its weight, and the smallest wins (weighted rendezvous). A
    /// change of one account's weight moves only what that account gains or loses.
    pub fn draw<'a>(
        &self,
        weighted_candidates: impl Iterator<Item = (&'a AccountView, f64)>,
    ) -> Option<&'a AccountView> {
        let mut winner: Option<(f64, &AccountView)> = None;
        for (account, weight) in weighted_candidates {
            let uniform = uniform(self.luck(account));
            // No ticket lies below this line, so most candidates are out without a logarithm.
            let ticket_min = (1.0 - uniform) / weight;
            if winner.is_some_and(|(best, _)| best.total_cmp(&ticket_min).is_lt()) {
                continue;
            }
            let ticket = -uniform.ln() / weight;
            if winner.is_none_or(|(best, holder)| ticket.total_cmp(&best).then(account.id.cmp(&holder.id)).is_lt()) {
                winner = Some((ticket, account));
            }
        }
        winner.map(|(_, account)| account)
    }

    /// A number that only dice and account decide, for ties that must not fall the same way every time.
    pub fn luck(&self, account: &AccountView) -> u64 {
        let id = account.id.as_u128();
        mix(mix(self.seed, id as u64), (id >> 64) as u64)
    }
}

/// Luck as a number between 0 and 1, never either: 52 bits and a half.
pub(super) const fn uniform(luck: u64) -> f64 {
    ((luck >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// Stirs a value into a state (the finalizer of SplitMix64). Replicas of different versions must agree, so this never
/// changes.
const fn mix(state: u64, value: u64) -> u64 {
    let mut mixed = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
