//! Which account a conversation belongs to: in memory, written behind to the database, and following what other
//! replicas wrote there. A look-up never asks the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::{StickySession, StickyWrite, StoreError};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Conversation, StickyKey};

/// Sticky sessions of each kind in memory at most; the least used go first.
const SESSIONS_MAX: u64 = 500_000;
/// Life of a Codex session's entry after its last use.
const CODEX_SESSION_IDLE: Duration = Duration::from_secs(24 * 3600);
/// Life of any other entry after its last use.
const CONVERSATION_IDLE: Duration = Duration::from_secs(30 * 60);
/// How often what is new is written, and what others wrote is read.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// A use is written again only when the written one is older than this: far less than any life, far more than a turn.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);
/// How far behind the newest known row others' rows are looked for: clocks differ, and commits come late.
const FOLLOW_OVERLAP: Duration = Duration::from_secs(10);
/// Placements that wait to be written at most. Above it new ones stay in this process alone.
const PENDING_MAX: usize = 100_000;
/// How often dead rows are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(600);

/// Which account each conversation belongs to. An entry is wrong once its account cannot serve; the choice then takes
/// another one and [`Self::remember`]s that. What another replica wrote is known here within two seconds.
pub(crate) struct StickySessions {
    codex_sessions: Cache<[u8; 16], Entry>,
    conversations: Cache<[u8; 16], Entry>,
    pending: Mutex<HashMap<[u8; 16], StickyWrite>>,
}

#[derive(Clone, Copy)]
struct Entry {
    account: AccountId,
    written_at: Timestamp,
}

impl StickySessions {
    pub(crate) fn new() -> Self {
        let cache = |idle| {
            Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(SESSIONS_MAX)
                .time_to_idle(idle)
                .build()
        };
        Self {
            codex_sessions: cache(CODEX_SESSION_IDLE),
            conversations: cache(CONVERSATION_IDLE),
            pending: Mutex::default(),
        }
    }

    /// The account of a conversation: under its most telling name that is known.
    pub(crate) fn find(&self, conversation: &Conversation) -> Option<AccountId> {
        conversation
            .keys
            .iter()
            .find_map(|key| self.cache(key.is_codex_session).get(&key.hash).map(|entry| entry.account))
    }

    /// The conversation was served by this account and belongs to it from now on, whichever of its names comes next.
    pub(crate) fn remember(&self, conversation: &Conversation, account: AccountId, now: Timestamp) {
        conversation.keys.iter().for_each(|key| self.remember_key(*key, account, now));
    }

    fn remember_key(&self, key: StickyKey, account: AccountId, now: Timestamp) {
        let cache = self.cache(key.is_codex_session);
        let before = cache.get(&key.hash);
        let is_move = before.is_some_and(|entry| entry.account != account);
        let is_fresh = before.is_some_and(|entry| now.since(entry.written_at) < TOUCH_INTERVAL);
        if is_fresh && !is_move {
            return;
        }
        cache.insert(key.hash, Entry { account, written_at: now });
        let mut pending = self.pending.lock();
        if pending.len() >= PENDING_MAX && !pending.contains_key(&key.hash) {
            return;
        }
        let session = StickySession {
            key: key.hash,
            account_id: account,
            is_codex_session: key.is_codex_session,
            last_used_at: now,
        };
        let dead_before = before_span(now, idle(key.is_codex_session));
        let was_move = pending.get(&key.hash).is_some_and(|write| write.is_move);
        pending.insert(key.hash, StickyWrite { session, is_move: is_move || was_move, dead_before });
    }

    /// Loads what lives.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn load(&self, state: &SharedState) -> Result<Follow, StoreError> {
        let mut follow = Follow { since: before_span(clock::now(), CODEX_SESSION_IDLE) };
        self.read_others(state, &mut follow).await?;
        Ok(follow)
    }

    /// Writes behind and follows, until `stop`; then writes once more.
    pub(crate) async fn run(&self, state: Arc<SharedState>, mut follow: Follow, stop: CancellationToken) {
        let mut pruned_at = clock::now();
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(SYNC_INTERVAL) => {}
                () = stop.cancelled() => {}
            }
            if let Err(error) = self.sync(&state, &mut follow).await {
                state.note_database_error(&error);
            }
            let now = clock::now();
            if now.since(pruned_at) >= PRUNE_INTERVAL {
                pruned_at = now;
                let dead = (before_span(now, CODEX_SESSION_IDLE), before_span(now, CONVERSATION_IDLE));
                if let Err(error) = state.store.prune_sticky_sessions(dead.0, dead.1).await {
                    state.note_database_error(&error);
                }
            }
        }
    }

    async fn sync(&self, state: &SharedState, follow: &mut Follow) -> Result<(), StoreError> {
        let batch: Vec<StickyWrite> = std::mem::take(&mut *self.pending.lock()).into_values().collect();
        if !batch.is_empty()
            && let Err(error) = state.store.save_sticky_sessions(&batch).await
        {
            // What was not written waits for the next round, unless something newer took its place.
            let mut pending = self.pending.lock();
            for write in batch {
                pending.entry(write.session.key).or_insert(write);
            }
            return Err(error);
        }
        self.read_others(state, follow).await
    }

    /// Reads rows that are new since the last look. The database decided who came first, so its word counts.
    async fn read_others(&self, state: &SharedState, follow: &mut Follow) -> Result<(), StoreError> {
        let mut after = (before_span(follow.since, FOLLOW_OVERLAP), [0; 16]);
        loop {
            let page = state.store.sticky_sessions_after(after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.last_used_at, last.key);
            follow.since = follow.since.max(last.last_used_at);
            let now = clock::now();
            for session in page {
                let is_dead = session.last_used_at < before_span(now, idle(session.is_codex_session));
                if !is_dead && !self.pending.lock().contains_key(&session.key) {
                    let entry = Entry { account: session.account_id, written_at: session.last_used_at };
                    self.adopt(session.key, session.is_codex_session, entry);
                }
            }
        }
    }

    /// Takes over what the database says, without making an unchanged entry look used.
    fn adopt(&self, key: [u8; 16], is_codex_session: bool, entry: Entry) {
        let cache = self.cache(is_codex_session);
        let is_known = cache.get(&key).is_some_and(|known| known.account == entry.account);
        if !is_known {
            cache.insert(key, entry);
        }
    }

    const fn cache(&self, is_codex_session: bool) -> &Cache<[u8; 16], Entry> {
        if is_codex_session { &self.codex_sessions } else { &self.conversations }
    }
}

/// How far the database was followed.
pub(crate) struct Follow {
    since: Timestamp,
}

const fn idle(is_codex_session: bool) -> Duration {
    if is_codex_session { CODEX_SESSION_IDLE } else { CONVERSATION_IDLE }
}

fn before_span(now: Timestamp, span: Duration) -> Timestamp {
    Timestamp::from_unix_ms(now.as_unix_ms() - i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> StickyKey {
        StickyKey { hash: [byte; 16], is_codex_session: true }
    }

    #[test]
    fn a_placement_is_written_once_and_a_use_again_only_after_a_while() {
        let sessions = StickySessions::new();
        let (one, now) = (AccountId::from_u128(1), Timestamp::from_unix_ms(1_000_000));
        sessions.remember_key(key(1), one, now);
        assert_eq!(sessions.cache(true).get(&[1; 16]).map(|entry| entry.account), Some(one));
        assert!(!sessions.pending.lock().remove(&[1; 16]).unwrap().is_move);
        sessions.remember_key(key(1), one, now.plus(Duration::from_secs(59)));
        assert!(sessions.pending.lock().is_empty());
        sessions.remember_key(key(1), one, now.plus(Duration::from_secs(60)));
        assert!(!sessions.pending.lock().remove(&[1; 16]).unwrap().is_move);
    }

    #[test]
    fn a_conversation_that_moved_takes_its_row_over_even_if_it_is_used_again_before_the_write() {
        let sessions = StickySessions::new();
        let (one, two) = (AccountId::from_u128(1), AccountId::from_u128(2));
        let now = Timestamp::from_unix_ms(1_000_000);
        sessions.remember_key(key(1), one, now);
        sessions.remember_key(key(1), two, now.plus(Duration::from_secs(1)));
        sessions.remember_key(key(1), two, now.plus(Duration::from_secs(90)));
        assert_eq!(sessions.cache(true).get(&[1; 16]).map(|entry| entry.account), Some(two));
        let pending = sessions.pending.lock();
        assert!(pending[&[1; 16]].is_move);
        assert_eq!(pending[&[1; 16]].session.account_id, two);
    }

    #[test]
    fn placements_that_cannot_be_written_do_not_pile_up() {
        let sessions = StickySessions::new();
        let now = Timestamp::from_unix_ms(1_000_000);
        for index in 0..PENDING_MAX as u128 + 10 {
            let key = StickyKey { hash: index.to_be_bytes(), is_codex_session: false };
            sessions.remember_key(key, AccountId::from_u128(1), now);
        }
        assert_eq!(sessions.pending.lock().len(), PENDING_MAX);
    }
}
