//! What keeps an account's tokens from being refreshed, and for how long they are left alone. Plain data; the time is
//! passed in.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first failure; each further one doubles it. Short, so that one lost call costs an account little.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const BACK_OFF_MAX: Duration = Duration::from_secs(5 * 60);

/// The trouble that one version of an account's tokens is in; another version starts anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Which tokens.
    pub(super) token_version: i64,
    /// The code with which the issuer ended the login, if it did.
    pub(super) ended_by: Option<&'static str>,
    failures_in_a_row: u32,
    not_before: Option<Instant>,
}

impl Trouble {
    /// One more failure that may pass.
    pub(super) fn after_failure(before: Option<&Self>, token_version: i64, now: Instant) -> Self {
        let failures_before = before.map_or(0, |before| before.failures_in_a_row);
        Self {
            token_version,
            ended_by: None,
            failures_in_a_row: failures_before.saturating_add(1),
            not_before: Some(now + back_off(failures_before)),
        }
    }

    /// The end of a login.
    pub(super) const fn ended(token_version: i64, code: &'static str) -> Self {
        Self { token_version, ended_by: Some(code), failures_in_a_row: 0, not_before: None }
    }

    /// Whether the issuer must not be asked yet.
    pub(super) fn must_wait(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|not_before| now < not_before)
    }
}

fn back_off(failures_before: u32) -> Duration {
    BACK_OFF_FIRST.saturating_mul(2_u32.saturating_pow(failures_before)).min(BACK_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        let pauses: Vec<u64> = [0, 1, 2, 8, 9, 40, u32::MAX].into_iter().map(|n| back_off(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 256, 300, 300, 300]);
    }

    #[test]
    fn failures_in_a_row_make_the_pause_longer_and_it_ends() {
        let now = Instant::now();
        let first = Trouble::after_failure(None, 3, now);
        assert!(first.must_wait(now) && !first.must_wait(now + Duration::from_secs(1)));
        let second = Trouble::after_failure(Some(&first), 3, now);
        assert!(second.must_wait(now + Duration::from_secs(1)) && !second.must_wait(now + Duration::from_secs(2)));
    }

    #[test]
    fn an_ended_login_is_told_at_once() {
        let ended = Trouble::ended(3, "invalid_grant");
        assert!(!ended.must_wait(Instant::now()));
        assert_eq!(ended.ended_by, Some("invalid_grant"));
    }
}
