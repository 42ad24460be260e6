//! Goals lie at upstream under their thread's id, on an account that callers share. A claim remembers whose thread it
//! is: to anybody else it is unknown.

use std::sync::Arc;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::ids::AccountId;

use crate::affinity::{Conversation, StickySessions};
use crate::rejection::Rejection;

/// Whose threads there are: remembered for a day after their last use, beside the sticky sessions.
pub(crate) struct ThreadClaims {
    sessions: Arc<StickySessions>,
}

impl ThreadClaims {
    pub(crate) const fn new(sessions: Arc<StickySessions>) -> Self {
        Self { sessions }
    }

    /// Whether the thread is nobody else's.
    ///
    /// # Errors
    /// 404 when it is.
    pub(crate) fn check(&self, thread_id: &str, caller_scope: &str) -> Result<(), Rejection> {
        let is_known = |scope| self.sessions.find(&claim(scope, thread_id)).is_some();
        if is_known(ANYBODY) && !is_known(caller_scope) {
            return Err(Rejection::thread_not_found(thread_id));
        }
        Ok(())
    }

    /// From now on the thread is this caller's.
    pub(crate) fn claim(&self, thread_id: &str, caller_scope: &str, account: AccountId, now: Timestamp) {
        for scope in [ANYBODY, caller_scope] {
            self.sessions.remember(&claim(scope, thread_id), account, now);
        }
    }
}

/// No caller's scope is empty.
const ANYBODY: &str = "";

fn claim(scope: &str, thread_id: &str) -> Conversation {
    Conversation::of_thread_goal(scope, thread_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_the_first_caller_and_is_unknown_to_others() {
        let claims = ThreadClaims::new(Arc::new(StickySessions::new()));
        let may = |thread_id: &str, scope| claims.check(thread_id, scope).map_err(|rejection| rejection.status);
        assert_eq!((may("t", "key:1"), may("t", "key:2")), (Ok(()), Ok(())));
        claims.claim("t", "key:1", AccountId::from_u128(1), Timestamp::from_unix_ms(1));
        assert_eq!((may("t", "key:1"), may("t", "key:2"), may("u", "key:2")), (Ok(()), Err(404), Ok(())));
    }
}
