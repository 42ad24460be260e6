//! Sticky sessions: a conversation stays with its account, because its prompt cache and its encrypted reasoning live
//! there.

mod sessions;

use http::HeaderMap;
use sha2::{Digest as _, Sha256};

pub(crate) use sessions::StickySessions;

/// The header by which upstream ties the requests of one turn together: what an answer carried comes back.
pub(crate) const TURN_STATE_HEADER: &str = "x-codex-turn-state";
/// Headers that name a Codex session, in order of precedence.
const CODEX_SESSION_HEADERS: [&str; 7] =
    [TURN_STATE_HEADER, "thread-id", "thread_id", "session-id", "session_id", "x-codex-session-id", "conversation_id"];
/// Headers by which other clients name a conversation.
const CONVERSATION_HEADERS: [&str; 2] = ["x-session-affinity", "x-session-id"];

/// Everything that names a conversation, the most telling name first. A name that is not known yet (a turn's second
/// request is the first to carry its turn state) does not hide one that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conversation {
    caller_scope: String,
    keys: Vec<StickyKey>,
}

/// One name of a conversation. Keyed by the caller: one caller's id means nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StickyKey {
    hash: [u8; 16],
    is_codex_session: bool,
}

impl Conversation {
    /// What names the conversation of a request.
    pub(crate) fn find(headers: &HeaderMap, caller_scope: &str, prompt_cache_key: Option<&str>) -> Self {
        let named = |names: &'static [&'static str], is_codex_session| {
            names.iter().filter_map(move |name| {
                let value = headers.get(*name)?.as_bytes();
                (!value.is_empty()).then(|| StickyKey::new(caller_scope, name, value, is_codex_session))
            })
        };
        let cache_key =
            prompt_cache_key.map(|value| StickyKey::new(caller_scope, "prompt_cache_key", value.as_bytes(), false));
        let keys = named(&CODEX_SESSION_HEADERS, true).chain(named(&CONVERSATION_HEADERS, false)).chain(cache_key);
        Self { caller_scope: caller_scope.to_owned(), keys: keys.collect() }
    }

    /// A file of this caller: it lives on one account as a conversation does, and as long.
    pub(crate) fn of_file(caller_scope: &str, file_id: &str) -> Self {
        let key = StickyKey::new(caller_scope, "file_id", file_id.as_bytes(), false);
        Self { caller_scope: caller_scope.to_owned(), keys: vec![key] }
    }

    /// The goal of this caller's thread, which lives on one account, too.
    pub(crate) fn of_thread_goal(caller_scope: &str, thread_id: &str) -> Self {
        let key = StickyKey::new(caller_scope, "thread_goal", thread_id.as_bytes(), true);
        Self { caller_scope: caller_scope.to_owned(), keys: vec![key] }
    }

    /// The same with the turn state of its answer, which the next request of the turn will carry.
    pub(crate) fn with_turn_state(mut self, turn_state: Option<&[u8]>) -> Self {
        if let Some(value) = turn_state.filter(|value| !value.is_empty()) {
            self.keys.insert(0, StickyKey::new(&self.caller_scope, TURN_STATE_HEADER, value, true));
        }
        self
    }
}

impl Conversation {
    /// What a first placement is drawn with, if anything names the conversation: the same on every replica.
    pub(crate) fn seed(&self) -> Option<[u8; 16]> {
        self.keys.first().map(|key| key.hash)
    }
}

/// What an item of a caller's response is remembered under.
pub(crate) fn item_key(caller_scope: &str, item_id: &str) -> [u8; 16] {
    StickyKey::new(caller_scope, "item_id", item_id.as_bytes(), false).hash
}

/// What a caller's response is remembered under.
pub(crate) fn response_key(caller_scope: &str, response_id: &str) -> [u8; 16] {
    StickyKey::new(caller_scope, "response_id", response_id.as_bytes(), false).hash
}

impl StickyKey {
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

#[cfg(test)]
mod tests {
    use codex_lb_shared::clock::Timestamp;
    use codex_lb_shared::ids::AccountId;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn conversation(pairs: &[(&'static str, &str)], cache_key: Option<&str>) -> Conversation {
        Conversation::find(&headers(pairs), "key:1", cache_key)
    }

    #[test]
    fn the_most_telling_name_comes_first() {
        let all = conversation(&[("x-session-affinity", "a"), ("session-id", "s"), ("thread-id", "t")], Some("k"));
        let by_name = |pairs: &[(&'static str, &str)], key| conversation(pairs, key).keys;
        let expected = [
            by_name(&[("thread-id", "t")], None),
            by_name(&[("session-id", "s")], None),
            by_name(&[("x-session-affinity", "a")], None),
            by_name(&[], Some("k")),
        ];
        assert_eq!(all.keys, expected.concat());
        assert_eq!(by_name(&[("session_id", "")], None), []);
    }

    #[test]
    fn a_turn_stays_on_its_account_whatever_name_its_next_request_bears() {
        let sessions = StickySessions::new();
        let account = AccountId::from_u128(1);
        let first = conversation(&[("thread-id", "t")], Some("k")).with_turn_state(Some(b"turn"));
        sessions.remember(&first, account, NOW);
        for next in [
            conversation(&[("x-codex-turn-state", "turn"), ("thread-id", "t")], None),
            conversation(&[("x-codex-turn-state", "unknown"), ("thread-id", "t")], None),
            conversation(&[("x-codex-turn-state", "turn")], None),
            conversation(&[], Some("k")),
        ] {
            assert_eq!(sessions.find(&next), Some(account), "{next:?}");
        }
        assert_eq!(sessions.find(&conversation(&[("thread-id", "other")], None)), None);
    }

    #[test]
    fn one_caller_s_conversation_means_nothing_for_another() {
        let sessions = StickySessions::new();
        let headers = headers(&[("session-id", "s")]);
        sessions.remember(&Conversation::find(&headers, "key:1", None), AccountId::from_u128(1), NOW);
        assert_eq!(sessions.find(&Conversation::find(&headers, "key:2", None)), None);
    }
}
