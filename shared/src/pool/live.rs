//! The live state of one account: what changes with every reply and must not wait for the database.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::PooledAccount;
use crate::clock::{self, Timestamp};
use crate::domain::account::{AccountState, AccountStatus, Credits, NamedCooldown};
use crate::domain::health::HealthFacts;
use crate::domain::upstream_window::AccountUsage;

/// Limits of single models that are remembered of one account; upstream has a handful.
const NAMED_COOLDOWNS_MAX: usize = 32;

/// What changes with every reply of one account.
#[derive(Default)]
pub struct AccountLive {
    in_flight: AtomicU32,
    last_chosen: AtomicU64,
    known: Mutex<Known>,
}

struct Known {
    status: AccountStatus,
    usage: Option<AccountUsage>,
    credits: Credits,
    failures_in_a_row: u32,
    failure_counted_at: Option<Timestamp>,
    cooling_until: Option<Timestamp>,
    named_cooldowns: Vec<NamedCooldown>,
    health: HealthFacts,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            status: AccountStatus::ACTIVE,
            usage: None,
            credits: Credits::default(),
            failures_in_a_row: 0,
            failure_counted_at: None,
            cooling_until: None,
            named_cooldowns: Vec::new(),
            health: HealthFacts::default(),
        }
    }
}

/// The live state at one moment, as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveView {
    /// State, with ended states already counted as over.
    pub state: AccountState,
    /// When it ends, if it does by itself.
    pub state_until: Option<Timestamp>,
    /// End of a cooldown after failures.
    pub cooling_until: Option<Timestamp>,
    /// Limits of single models that are used up; empty for nearly every account.
    pub named_cooldowns: Vec<NamedCooldown>,
    /// Upstream windows as last observed.
    pub usage: Option<AccountUsage>,
    /// Whether it can pay for what exceeds its windows, as last reported.
    pub credits: Credits,
    /// Exchanges running in this process.
    pub in_flight: u32,
    /// Number of the last choice; smaller is longer ago.
    pub last_chosen: u64,
    /// What its health is worked out from.
    pub health: HealthFacts,
}

impl AccountLive {
    /// The state at `now`.
    pub fn view(&self, now: Timestamp) -> LiveView {
        let known = self.known.lock();
        LiveView {
            state: known.status.state_at(now),
            state_until: known.status.until,
            cooling_until: known.cooling_until,
            named_cooldowns: known.named_cooldowns.clone(),
            usage: known.usage,
            credits: known.credits,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            last_chosen: self.last_chosen.load(Ordering::Relaxed),
            health: known.health,
        }
    }

    /// State, reason and end.
    pub fn status(&self) -> AccountStatus {
        self.known.lock().status.clone()
    }

    /// Takes over what upstream's reply says, unless a person or the end of a login said more. Whether it did.
    pub(super) fn apply_upstream_status(&self, status: &AccountStatus) -> bool {
        let mut known = self.known.lock();
        let may_change = known.status.state.yields_to_upstream();
        if may_change {
            known.status = status.clone();
        }
        may_change
    }

    /// Replaces state, reason and end.
    pub(super) fn set_status(&self, status: AccountStatus) {
        self.known.lock().status = status;
    }

    /// Keeps the newer of two observations; says whether this one was.
    pub(super) fn observe_usage(&self, usage: AccountUsage) -> bool {
        let mut known = self.known.lock();
        let is_news = known.usage.is_none_or(|before| before.observed_at < usage.observed_at);
        if is_news {
            known.usage = Some(usage);
            known.health.note_usage(&usage, usage.observed_at);
        }
        is_news
    }

    /// Takes note of what upstream reported about bought credits.
    pub fn observe_credits(&self, credits: Credits) {
        self.known.lock().credits = credits;
    }

    /// One limit that meters single models is used up until then; the account serves all others.
    pub fn cool_named_limit(&self, named_limit: String, until: Timestamp, now: Timestamp) {
        let cooldowns = &mut self.known.lock().named_cooldowns;
        cooldowns.retain(|cooldown| cooldown.named_limit != named_limit && now < cooldown.until);
        if cooldowns.len() < NAMED_COOLDOWNS_MAX {
            cooldowns.push(NamedCooldown { named_limit, until });
        }
    }

    /// Counts one more failure of a leg that began at `leg_began_at`; `back_off` says how long so many in a row make
    /// the account sit out. Legs that ran side by side fail together when one connection breaks: they count once.
    pub fn note_failure(
        &self,
        leg_began_at: Timestamp,
        now: Timestamp,
        back_off: impl FnOnce(u32) -> Option<Duration>,
    ) {
        let mut known = self.known.lock();
        if known.failure_counted_at.is_some_and(|counted_at| leg_began_at <= counted_at) {
            return;
        }
        known.failure_counted_at = Some(now);
        known.failures_in_a_row = known.failures_in_a_row.saturating_add(1);
        known.health.note_error(now);
        if let Some(span) = back_off(known.failures_in_a_row) {
            known.cooling_until = Some(now.plus(span));
        }
    }

    /// A person says that earlier failures no longer count.
    pub fn forget_failures(&self) {
        let mut known = self.known.lock();
        known.failures_in_a_row = 0;
        known.cooling_until = None;
        known.named_cooldowns.clear();
    }

    /// A good answer: earlier failures no longer count.
    pub fn note_success(&self, now: Timestamp) {
        let mut known = self.known.lock();
        known.health.note_success(now);
        known.failures_in_a_row = 0;
        known.cooling_until = None;
    }
}

/// Called with the account whose slot was freed.
pub(super) type SlotFreed = Box<dyn Fn(&Arc<PooledAccount>) + Send + Sync>;

/// The right to use one account for one leg. While it lives the account counts one more exchange in flight.
#[must_use = "a lease that is dropped at once frees the account before its leg ran"]
pub struct Lease {
    pooled: Arc<PooledAccount>,
    slot_freed: Arc<OnceLock<SlotFreed>>,
    tells_nobody: bool,
}

impl Lease {
    /// Takes a slot if the account has one under its cap.
    pub(super) fn take(
        pooled: &Arc<PooledAccount>,
        cap: u32,
        choice: u64,
        slot_freed: &Arc<OnceLock<SlotFreed>>,
    ) -> Option<Self> {
        let one_more = |in_flight: u32| (in_flight < cap).then_some(in_flight + 1);
        pooled.live.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        pooled.live.last_chosen.store(choice, Ordering::Relaxed);
        pooled.live.known.lock().health.note_used(clock::now());
        Some(Self { pooled: Arc::clone(pooled), slot_freed: Arc::clone(slot_freed), tells_nobody: false })
    }

    /// The account.
    pub fn account(&self) -> &Arc<PooledAccount> {
        &self.pooled
    }

    /// Frees the slot without telling: for whoever was told and found that nobody waits.
    pub fn release_quietly(mut self) {
        self.tells_nobody = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pooled.live.in_flight.fetch_sub(1, Ordering::AcqRel);
        if !self.tells_nobody
            && let Some(slot_freed) = self.slot_freed.get()
        {
            slot_freed(&self.pooled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_000);

    #[test]
    fn an_older_observation_never_replaces_a_newer_one() {
        let live = AccountLive::default();
        let at = |ms| AccountUsage { primary: None, secondary: None, observed_at: Timestamp::from_unix_ms(ms) };
        assert!(live.observe_usage(at(5)));
        assert!(!live.observe_usage(at(4)));
        assert_eq!(live.view(NOW).usage, Some(at(5)));
    }

    #[test]
    fn a_limit_of_single_models_is_kept_once_and_forgotten_when_it_ended() {
        let live = AccountLive::default();
        let at = Timestamp::from_unix_ms;
        let names = || -> Vec<String> {
            live.view(NOW).named_cooldowns.into_iter().map(|cooldown| cooldown.named_limit).collect()
        };
        live.cool_named_limit("a".to_owned(), at(2_000), NOW);
        live.cool_named_limit("b".to_owned(), at(3_000), NOW);
        live.cool_named_limit("a".to_owned(), at(4_000), NOW);
        assert_eq!(names(), ["b", "a"]);
        live.cool_named_limit("c".to_owned(), at(9_000), at(3_000));
        assert_eq!(names(), ["a", "c"]);
        for index in 0..NAMED_COOLDOWNS_MAX {
            live.cool_named_limit(format!("more {index}"), at(9_000), NOW);
        }
        assert_eq!(names().len(), NAMED_COOLDOWNS_MAX);
        live.forget_failures();
        assert_eq!(names(), [""; 0]);
    }

    #[test]
    fn a_reply_of_upstream_never_overrules_a_person_or_the_end_of_a_login() {
        let status = |state| AccountStatus { state, reason: None, until: None };
        for (before, is_applied) in [
            (AccountState::Active, true),
            (AccountState::RateLimited, true),
            (AccountState::QuotaExceeded, true),
            (AccountState::Paused, false),
            (AccountState::ReauthRequired, false),
            (AccountState::Deactivated, false),
        ] {
            let live = AccountLive::default();
            live.set_status(status(before));
            assert_eq!(live.apply_upstream_status(&status(AccountState::RateLimited)), is_applied, "{before:?}");
            assert_eq!(live.status().state == AccountState::RateLimited, is_applied, "{before:?}");
        }
    }

    #[test]
    fn failures_in_a_row_cool_an_account_and_one_success_clears_them() {
        let live = AccountLive::default();
        let at = Timestamp::from_unix_ms;
        let back_off = |failures| (failures >= 2).then_some(Duration::from_millis(10));
        live.note_failure(at(1), at(2), back_off);
        assert_eq!(live.view(NOW).cooling_until, None);
        live.note_failure(at(3), at(4), back_off);
        assert_eq!(live.view(NOW).cooling_until, Some(at(14)));
        live.note_success(NOW);
        assert_eq!(live.view(NOW).cooling_until, None);
        live.note_failure(at(5), at(6), back_off);
        assert_eq!(live.view(NOW).cooling_until, None);
    }

    #[test]
    fn legs_that_fail_together_count_as_one_failure() {
        let live = AccountLive::default();
        let at = Timestamp::from_unix_ms;
        let back_off = |failures| (failures >= 2).then_some(Duration::from_millis(10));
        for leg_began in [1, 2, 3, 4] {
            live.note_failure(at(leg_began), at(5), back_off);
        }
        assert_eq!(live.view(NOW).cooling_until, None);
        live.note_failure(at(6), at(7), back_off);
        assert_eq!(live.view(NOW).cooling_until, Some(at(17)));
    }
}
