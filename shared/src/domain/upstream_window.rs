//! Upstream's own usage windows on an account: how much of each is used, and when it starts anew.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Minutes of the short window (5 h).
pub const PRIMARY_MINUTES: u32 = 300;
/// Minutes of the weekly window.
pub const WEEKLY_MINUTES: u32 = 10_080;
/// A window at least this long is the long one, whatever position it is reported in.
const LONG_WINDOW_MINUTES_MIN: u32 = 1_440;

/// One window as last observed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamWindow {
    /// Percent used, 0 to 100 (upstream may report fractions).
    pub used_percent: f64,
    /// Length in minutes; 0 when upstream did not say.
    pub window_minutes: u32,
    /// When it starts anew, if upstream said.
    pub resets_at: Option<Timestamp>,
}

impl UpstreamWindow {
    /// Percent used at `now`: a window whose reset has passed counts as unused.
    pub fn used_percent_at(&self, now: Timestamp) -> f64 {
        match self.resets_at {
            Some(resets_at) if resets_at <= now => 0.0,
            _ => self.used_percent.clamp(0.0, 100.0),
        }
    }
}

/// Both windows of an account at one observation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountUsage {
    /// The short window (5 h), if the plan has one.
    pub primary: Option<UpstreamWindow>,
    /// The long window (a week, on free plans a month).
    pub secondary: Option<UpstreamWindow>,
    /// When this was observed.
    pub observed_at: Timestamp,
}

impl AccountUsage {
    /// Sorts two reported windows by their length instead of by their position: a plan that has only a long window
    /// reports it as primary.
    pub fn from_reported(
        first: Option<UpstreamWindow>,
        second: Option<UpstreamWindow>,
        observed_at: Timestamp,
    ) -> Option<Self> {
        let is_long = |window: &UpstreamWindow| window.window_minutes >= LONG_WINDOW_MINUTES_MIN;
        let (primary, secondary) = match (first, second) {
            (None, None) => return None,
            (Some(lone), None) if is_long(&lone) => (None, Some(lone)),
            (Some(first), Some(second)) if is_long(&first) && !is_long(&second) => (Some(second), Some(first)),
            other => other,
        };
        Some(Self { primary, secondary, observed_at })
    }

    /// Percent of the short window used at `now`; an unknown window counts as unused.
    pub fn primary_percent_at(&self, now: Timestamp) -> f64 {
        self.primary.map_or(0.0, |window| window.used_percent_at(now))
    }

    /// Percent of the long window used at `now`; an unknown window counts as unused.
    pub fn secondary_percent_at(&self, now: Timestamp) -> f64 {
        self.secondary.map_or(0.0, |window| window.used_percent_at(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(used_percent: f64, window_minutes: u32) -> UpstreamWindow {
        UpstreamWindow { used_percent, window_minutes, resets_at: Some(Timestamp::from_unix_ms(1_000)) }
    }

    #[test]
    fn windows_are_told_apart_by_their_minutes() {
        let now = Timestamp::from_unix_ms(0);
        let (short, weekly, monthly) = (window(1.0, PRIMARY_MINUTES), window(2.0, WEEKLY_MINUTES), window(3.0, 43_200));
        let cases = [
            (Some(short), Some(weekly), Some(short), Some(weekly)),
            (Some(weekly), Some(short), Some(short), Some(weekly)),
            (Some(weekly), None, None, Some(weekly)),
            (Some(monthly), None, None, Some(monthly)),
            (Some(short), None, Some(short), None),
        ];
        for (first, second, primary, secondary) in cases {
            let usage = AccountUsage::from_reported(first, second, now).unwrap();
            assert_eq!((usage.primary, usage.secondary), (primary, secondary));
        }
        assert_eq!(AccountUsage::from_reported(None, None, now), None);
    }

    #[test]
    fn a_window_whose_reset_has_passed_counts_as_unused() {
        let full = window(100.0, PRIMARY_MINUTES);
        assert!((full.used_percent_at(Timestamp::from_unix_ms(999)) - 100.0).abs() < f64::EPSILON);
        assert!(full.used_percent_at(Timestamp::from_unix_ms(1_000)).abs() < f64::EPSILON);
    }
}
