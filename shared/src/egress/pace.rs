//! How often egress proxies may be tried out: each try is a connection that somebody else's server has to answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Tries within [`SPAN`].
pub(super) const TRIES_MAX: usize = 20;
const SPAN: Duration = Duration::from_secs(60);

/// Remembers the last tries.
#[derive(Debug, Default)]
pub(super) struct Pace {
    began_at: Mutex<VecDeque<Instant>>,
}

impl Pace {
    /// Whether one more may begin at `now`; then it counts.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut began_at = self.began_at.lock();
        while began_at.front().is_some_and(|began| now.duration_since(*began) >= SPAN) {
            began_at.pop_front();
        }
        let is_allowed = began_at.len() < TRIES_MAX;
        if is_allowed {
            began_at.push_back(now);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_tries_in_a_minute_and_each_makes_room_after_one() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..TRIES_MAX as u64 {
            assert!(pace.allows(at(second)));
        }
        assert!(!pace.allows(at(59)));
        assert!(pace.allows(at(60)));
        assert!(!pace.allows(at(60)));
        assert!(pace.allows(at(61)));
    }
}
