//! What an account's health is worked out from: a few moments that the data plane notes as it goes.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::upstream_window::AccountUsage;

/// From here on an account is spared, in percent of its short window.
pub const DRAIN_PRIMARY_PERCENT: f64 = 85.0;
/// From here on an account is spared, in percent of its long window.
pub const DRAIN_SECONDARY_PERCENT: f64 = 90.0;
/// Two errors no further apart than this are a reason to spare an account.
pub const ERRORS_SPAN: Duration = Duration::from_secs(60);
/// Successes without an error in between that a probing account needs to count as healthy.
const PROBE_SUCCESSES: usize = 3;

/// The moments that an account's tier depends on. The caller notes what happens; nothing in here reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthFacts {
    /// The last error.
    pub last_error_at: Option<Timestamp>,
    /// When a reason to spare the account was last seen: a second error, or a window that is nearly used up.
    pub last_reason_at: Option<Timestamp>,
    /// The last successes since the last error, newest first.
    pub successes_at: [Option<Timestamp>; PROBE_SUCCESSES],
    /// When an exchange was last given to it.
    pub last_used_at: Option<Timestamp>,
}

impl HealthFacts {
    /// Upstream failed an exchange on this account.
    pub fn note_error(&mut self, now: Timestamp) {
        let is_second = self.last_error_at.is_some_and(|before| now.since(before) <= ERRORS_SPAN);
        if is_second {
            self.last_reason_at = Some(now);
        }
        self.last_error_at = Some(now);
        self.successes_at = Default::default();
    }

    /// Upstream answered an exchange on this account well.
    pub fn note_success(&mut self, now: Timestamp) {
        self.successes_at.rotate_right(1);
        self.successes_at[0] = Some(now);
    }

    /// Upstream reported its windows; without this, a drop below the thresholds would be forgiven at once.
    pub fn note_usage(&mut self, usage: &AccountUsage, now: Timestamp) {
        if has_usage_reason(usage, now) {
            self.last_reason_at = Some(now);
        }
    }

    /// An exchange was given to this account.
    pub fn note_used(&mut self, now: Timestamp) {
        self.last_used_at = Some(now);
    }

    /// Whether enough successes came since that moment, without an error in between.
    pub fn is_proven_since(&self, began_probing_at: Timestamp) -> bool {
        self.successes_at.iter().all(|at| at.is_some_and(|at| began_probing_at <= at))
    }
}

/// Whether a window is so nearly used up that the account is to be spared.
pub fn has_usage_reason(usage: &AccountUsage, now: Timestamp) -> bool {
    usage.primary_percent_at(now) >= DRAIN_PRIMARY_PERCENT || usage.secondary_percent_at(now) >= DRAIN_SECONDARY_PERCENT
}
