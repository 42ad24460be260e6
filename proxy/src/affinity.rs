//! Sticky sessions: a conversation stays with its account, because its prompt cache and its encrypted reasoning live
//! there.

use std::time::Duration;

use codex_lb_shared::ids::AccountId;
use http::HeaderMap;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

/// Sticky sessions in memory at most.
const SESSIONS_MAX: u64 = 500_000;
/// Life of a Codex session's entry after its last use.
const CODEX_SESSION_IDLE: Duration = Duration::from_secs(24 * 3600);
/// Life of any other entry after its last use.
const CONVERSATION_IDLE: Duration = Duration::from_secs(30 * 60);

/// Headers that name a Codex session, in order of precedence.
const CODEX_SESSION_HEADERS: [&str; 7] = [
    "x-codex-turn-state",
    "thread-id",
    "thread_id",
    "session-id",
    "session_id",
    "x-codex-session-id",
    "conversation_id",
];
/// Headers by which other clients name a conversation.
const CONVERSATION_HEADERS: [&str; 2] = ["x-session-affinity", "x-session-id"];

/// What names a conversation. Keyed by the caller: one caller's id means nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StickyKey {
    hash: [u8; 16],
    is_codex_session: bool,
}

impl StickyKey {
    /// The first thing that names the conversation of a request, if anything does.
    pub(crate) fn find(headers: &HeaderMap, caller_scope: &str, prompt_cache_key: Option<&str>) -> Option<Self> {
        let named = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = headers.get(*name)?.as_bytes();
                (!value.is_empty()).then_some((*name, value))
            })
        };
        if let Some((name, value)) = named(&CODEX_SESSION_HEADERS) {
            return Some(Self::new(caller_scope, name, value, true));
        }
        if let Some((name, value)) = named(&CONVERSATION_HEADERS) {
            return Some(Self::new(caller_scope, name, value, false));
        }
        prompt_cache_key.map(|value| Self::new(caller_scope, "prompt_cache_key", value.as_bytes(), false))
    }

    fn new(caller_scope: &str, source: &str, value: &[u8], is_codex_session: bool) -> Self {
        let mut digest = Sha256::new();
        for part in [caller_scope.as_bytes(), source.as_bytes(), value] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest.finalize()[..16]);
        Self { hash, is_codex_session }
    }
}

/// Remembers which account a conversation belongs to. An entry may be wrong once its account cannot serve; the choice
/// then takes another and remembers that.
pub(crate) struct StickySessions {
    codex_sessions: Cache<[u8; 16], AccountId>,
    conversations: Cache<[u8; 16], AccountId>,
}

impl StickySessions {
    pub(crate) fn new() -> Self {
        let cache = |idle| Cache::builder().max_capacity(SESSIONS_MAX).time_to_idle(idle).build();
        Self { codex_sessions: cache(CODEX_SESSION_IDLE), conversations: cache(CONVERSATION_IDLE) }
    }

    /// The account of a conversation.
    pub(crate) fn find(&self, key: StickyKey) -> Option<AccountId> {
        self.cache(key).get(&key.hash)
    }

    /// The conversation belongs to this account from now on.
    pub(crate) fn remember(&self, key: StickyKey, account: AccountId) {
        self.cache(key).insert(key.hash, account);
    }

    const fn cache(&self, key: StickyKey) -> &Cache<[u8; 16], AccountId> {
        if key.is_codex_session { &self.codex_sessions } else { &self.conversations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_first_name_of_a_conversation_wins() {
        let find = |pairs: &[(&'static str, &str)], cache_key| StickyKey::find(&headers(pairs), "key:1", cache_key);
        let by_thread = find(&[("thread-id", "t")], None).unwrap();
        assert_eq!(find(&[("session-id", "s"), ("thread-id", "t")], Some("k")), Some(by_thread));
        assert_ne!(find(&[("session-id", "t")], None), Some(by_thread));
        assert!(find(&[("x-session-affinity", "ses_1")], Some("k")).is_some_and(|key| !key.is_codex_session));
        assert!(find(&[("session_id", "")], Some("k")).is_some_and(|key| !key.is_codex_session));
        assert_eq!(find(&[], None), None);
    }

    #[test]
    fn one_caller_s_conversation_means_nothing_for_another() {
        let headers = headers(&[("session-id", "s")]);
        assert_ne!(StickyKey::find(&headers, "key:1", None), StickyKey::find(&headers, "key:2", None));
    }
}
