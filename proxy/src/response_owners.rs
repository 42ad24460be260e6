//! Responses live on the account that gave them. An id remembers which one, for the caller that was answered: to
//! anybody else it is unknown.

use std::time::Duration;

use codex_lb_shared::ids::AccountId;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::affinity::response_key;

/// Responses that are remembered at most; the least used go first.
const RESPONSES_MAX: u64 = 500_000;
/// How long an id is known after its last use: as long as a conversation.
const RESPONSE_IDLE: Duration = Duration::from_secs(30 * 60);

/// Which account gave which response. In this process only: a turn goes on where it began, and whoever asks elsewhere
/// is told honestly that its response is unknown, upon which Codex sends its whole history.
pub(crate) struct ResponseOwners {
    owners: Cache<[u8; 16], AccountId>,
}

impl ResponseOwners {
    pub(crate) fn new() -> Self {
        Self {
            owners: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(RESPONSES_MAX)
                .time_to_idle(RESPONSE_IDLE)
                .build(),
        }
    }

    /// This account gave this response to the caller.
    pub(crate) fn remember(&self, caller_scope: &str, response_id: &str, account: AccountId) {
        self.owners.insert(response_key(caller_scope, response_id), account);
    }

    /// The account that gave the caller this response.
    pub(crate) fn find(&self, caller_scope: &str, response_id: &str) -> Option<AccountId> {
        self.owners.get(&response_key(caller_scope, response_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_s_response_is_unknown_to_another() {
        let (owners, account) = (ResponseOwners::new(), AccountId::from_u128(1));
        owners.remember("key:1", "resp_1", account);
        assert_eq!(owners.find("key:1", "resp_1"), Some(account));
        assert_eq!((owners.find("key:2", "resp_1"), owners.find("key:1", "resp_2")), (None, None));
    }
}
