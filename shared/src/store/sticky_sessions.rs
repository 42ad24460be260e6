//! `sticky_sessions`: which account a conversation belongs to. Raises no generation: it changes with every
//! conversation, and servers follow it by time.

use crate::clock::Timestamp;
use crate::ids::AccountId;

use super::columns::{Column, moment};
use super::{Store, StoreError, read, transact};

/// Rows of one page.
const PAGE_ROWS: i64 = 5_000;

/// Remembers a placement. The first writer wins while the row lives, so that replicas which met the same new
/// conversation agree; only a conversation that had to move takes a living row over.
const SAVE: &str = "\
    insert into sticky_sessions (session_key, account_id, is_codex_session, last_used_at) values ($1, $2, $3, $4) \
    on conflict (session_key) do update set \
        account_id = case when $5 or sticky_sessions.last_used_at < $6 \
            then excluded.account_id else sticky_sessions.account_id end, \
        last_used_at = case when sticky_sessions.last_used_at < excluded.last_used_at \
            then excluded.last_used_at else sticky_sessions.last_used_at end";

const PAGE: &str = "\
    select session_key, account_id, is_codex_session, last_used_at from sticky_sessions \
    where last_used_at > $1 or (last_used_at = $1 and session_key > $2) \
    order by last_used_at, session_key limit $3";

const PRUNE: &str = "\
    delete from sticky_sessions where (is_codex_session and last_used_at < $1) \
        or (not is_codex_session and last_used_at < $2)";

/// One conversation's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickySession {
    /// A hash of the caller and of what names the conversation.
    pub key: [u8; 16],
    /// Its account.
    pub account_id: AccountId,
    /// Whether a Codex session named it: such a row lives longer.
    pub is_codex_session: bool,
    /// When it was last used.
    pub last_used_at: Timestamp,
}

/// A placement to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyWrite {
    /// The placement.
    pub session: StickySession,
    /// Whether the conversation had to leave the account it had.
    pub is_move: bool,
    /// A row that was last used before this is dead and may be taken over.
    pub dead_before: Timestamp,
}

impl Store {
    /// Remembers placements, in one transaction.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn save_sticky_sessions(&self, writes: &[StickyWrite]) -> Result<(), StoreError> {
        // Always in the same order, so that two replicas cannot wait for each other's rows.
        let mut writes: Vec<&StickyWrite> = writes.iter().collect();
        writes.sort_by_key(|write| write.session.key);
        transact!(self, "save sticky sessions", |tx| {
            for write in writes {
                sqlx::query(SAVE)
                    .bind(hex(write.session.key))
                    .bind(write.session.account_id.to_string())
                    .bind(write.session.is_codex_session)
                    .bind(write.session.last_used_at.as_unix_ms())
                    .bind(write.is_move)
                    .bind(write.dead_before.as_unix_ms())
                    .execute(&mut *tx)
                    .await?;
            }
        })
    }

    /// The next page of sessions in the order of their use, behind `after` (its time and key). An empty page is the end.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn sticky_sessions_after(&self, after: (Timestamp, [u8; 16])) -> Result<Vec<StickySession>, StoreError> {
        let (since, key) = (after.0.as_unix_ms(), hex(after.1));
        let rows: Vec<SessionRow> = read!(self, "list sticky sessions", |db| sqlx::query_as(PAGE)
            .bind(since)
            .bind(&key)
            .bind(PAGE_ROWS)
            .fetch_all(db))?;
        rows.into_iter().map(SessionRow::session).collect()
    }

    /// Forgets sessions that were last used before these moments; how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn prune_sticky_sessions(
        &self,
        codex_before: Timestamp,
        others_before: Timestamp,
    ) -> Result<u64, StoreError> {
        transact!(self, "forget old sticky sessions", |tx| {
            let prune = sqlx::query(PRUNE).bind(codex_before.as_unix_ms()).bind(others_before.as_unix_ms());
            prune.execute(&mut *tx).await?.rows_affected()
        })
    }
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    session_key: String,
    account_id: String,
    is_codex_session: bool,
    last_used_at: i64,
}

impl SessionRow {
    fn session(self) -> Result<StickySession, StoreError> {
        let key = u128::from_str_radix(&self.session_key, 16).map_err(|_| column("session_key").corrupt())?;
        Ok(StickySession {
            key: key.to_be_bytes(),
            account_id: column("account_id").parse(&self.account_id)?,
            is_codex_session: self.is_codex_session,
            last_used_at: moment(self.last_used_at),
        })
    }
}

/// 32 digits, so that texts sort as the keys do.
fn hex(key: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(key))
}

const fn column(name: &'static str) -> Column {
    Column("sticky_sessions", name)
}
