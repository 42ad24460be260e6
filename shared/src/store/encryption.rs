//! Which encryption key the database is sealed with, and how its rows move to another one.
//!
//! The database decides which key seals, not the processes: two facts in `settings` name it, and every write of sealed
//! tokens is refused that was sealed with another. So once [`Store::switch_encryption_key`] has committed no row can
//! fall back to the key before, whatever a server that has not noticed yet does.

use crate::clock::Timestamp;
use crate::ids::{AccountId, EgressProxyId};
use crate::secret::{SealedEgressPassword, SealedTokens};

use super::columns::Column;
use super::settings::{from_json, to_json};
use super::{Store, StoreError, TwinSql, read, transact};

const FINGERPRINT: &str = "encryption_fingerprint";
/// Written by the first rotation: until then there is only one key.
const SEALING_KEY_ID: &str = "sealing_key_id";

const LOAD: &str = "select value from settings where name = $1";
const RECORD: &str = "\
    insert into settings (name, value, version, updated_at) values ($1, $2, 1, $3) on conflict (name) do nothing";
const SWITCH: &str = "\
    update settings set value = $3, version = version + 1, updated_at = $4 where name = $1 and value = $2";
const NAME_KEY: &str = "\
    insert into settings (name, value, version, updated_at) values ($1, $2, 1, $3) \
    on conflict (name) do update set \
        value = excluded.value, version = settings.version + 1, updated_at = excluded.updated_at";
const PAGE: &str = "\
    select id, token_version, id_token_sealed, access_token_sealed, refresh_token_sealed \
    from accounts where id > $1 order by id limit $2";
// No new version: the tokens are the same. A refresh that runs meanwhile must still be able to store its pair.
const RESEAL: &str = "\
    update accounts set id_token_sealed = $3, access_token_sealed = $4, refresh_token_sealed = $5 \
    where id = $1 and token_version = $2";
const PASSWORD_PAGE: &str = "\
    select id, password_sealed from egress_proxies \
    where id > $1 and password_sealed is not null order by id limit $2";
// Every seal is another text, so an equal one is the very password that was read.
const RESEAL_PASSWORD: &str = "\
    update egress_proxies set password_sealed = $3 where id = $1 and password_sealed = $2";

/// Holds a switch back until the writer's transaction has ended. SQLite has one writer at a time anyway.
pub(super) const HOLD_KEY: TwinSql = TwinSql {
    sqlite: "select value from settings where name = 'encryption_fingerprint'",
    postgres: "select value from settings where name = 'encryption_fingerprint' for share",
};
pub(super) const SEALING_KEY: &str = "select value from settings where name = 'sealing_key_id'";

/// Whether the configured encryption key is the one this database was filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerprintCheck {
    /// No key was recorded yet; this one is now.
    Recorded,
    /// It is the recorded one.
    Matches,
    /// Another key was recorded; nothing that was sealed will open.
    Differs,
}

/// An account's sealed tokens as a rotation reads and writes them.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedRow {
    /// The account.
    pub id: AccountId,
    /// Version of its tokens.
    pub token_version: i64,
    /// The tokens.
    pub tokens: SealedTokens,
}

/// An egress proxy's sealed password as a rotation reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPasswordRow {
    /// The egress proxy.
    pub id: EgressProxyId,
    /// Its password.
    pub password: SealedEgressPassword,
}

/// The same password under two seals, as a rotation writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResealedPassword {
    /// What was read.
    pub before: SealedPasswordRow,
    /// What to write instead.
    pub after: SealedEgressPassword,
}

impl Store {
    /// Compares the fingerprint of the configured encryption key with the recorded one, or records it if there is none.
    /// Of several processes that start at once with different keys, one records and the others differ.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn check_encryption_fingerprint(
        &self,
        fingerprint: &str,
        now: Timestamp,
    ) -> Result<FingerprintCheck, StoreError> {
        const ACTION: &str = "check the encryption key's fingerprint";
        let ours = to_json(ACTION, fingerprint)?;
        transact!(self, ACTION, |tx| {
            let record = sqlx::query(RECORD).bind(FINGERPRINT).bind(&ours).bind(now.as_unix_ms());
            if record.execute(&mut *tx).await?.rows_affected() > 0 {
                FingerprintCheck::Recorded
            } else {
                let recorded: String = sqlx::query_scalar(LOAD).bind(FINGERPRINT).fetch_one(&mut *tx).await?;
                if recorded == ours { FingerprintCheck::Matches } else { FingerprintCheck::Differs }
            }
        })
    }

    /// The fingerprint of the key that seals, if one was recorded.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn encryption_fingerprint(&self) -> Result<Option<String>, StoreError> {
        let value: Option<String> = read!(self, "read the encryption key's fingerprint", |db| {
            sqlx::query_scalar(LOAD).bind(FINGERPRINT).fetch_optional(db)
        })?;
        value.map(|value| from_json(FINGERPRINT, &value)).transpose()
    }

    /// From now on the key with the fingerprint `to` and the id `key_id` seals. When this returns, every write that was
    /// sealed with another key has either committed before or is refused.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the recorded fingerprint is not `from`.
    pub async fn switch_encryption_key(
        &self,
        from: &str,
        to: &str,
        key_id: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "switch to another encryption key";
        let (from, to, key_id) = (to_json(ACTION, from)?, to_json(ACTION, to)?, to_json(ACTION, key_id)?);
        let is_switched = transact!(self, ACTION, |tx| {
            let switch = sqlx::query(SWITCH).bind(FINGERPRINT).bind(&from).bind(&to).bind(now.as_unix_ms());
            let is_switched = switch.execute(&mut *tx).await?.rows_affected() > 0;
            if is_switched {
                let name = sqlx::query(NAME_KEY).bind(SEALING_KEY_ID).bind(&key_id).bind(now.as_unix_ms());
                name.execute(&mut *tx).await?;
            }
            is_switched
        })?;
        if is_switched { Ok(()) } else { Err(StoreError::Conflict { action: ACTION }) }
    }

    /// A page of accounts with their sealed tokens, in the order of their ids, after the account `after`.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn sealed_rows(&self, after: Option<AccountId>, rows_max: u32) -> Result<Vec<SealedRow>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows: Vec<(String, i64, String, String, String)> = read!(self, "list sealed tokens", |db| {
            sqlx::query_as(PAGE).bind(&after).bind(i64::from(rows_max)).fetch_all(db)
        })?;
        rows.into_iter()
            .map(|(id, token_version, id_token, access_token, refresh_token)| {
                let id = Column("accounts", "id").parse(&id)?;
                Ok(SealedRow { id, token_version, tokens: SealedTokens { id_token, access_token, refresh_token } })
            })
            .collect()
    }

    /// Writes the same tokens under another seal, in one transaction. How many rows took it: those whose tokens somebody
    /// replaced meanwhile keep theirs. Raises no generation, because what servers remember stays true.
    ///
    /// # Errors
    /// When the database does not answer. No row was changed then.
    pub async fn reseal(&self, rows: &[SealedRow]) -> Result<u64, StoreError> {
        transact!(self, "seal tokens anew", |tx| {
            let mut resealed = 0;
            for row in rows {
                let reseal = sqlx::query(RESEAL)
                    .bind(row.id.to_string())
                    .bind(row.token_version)
                    .bind(&row.tokens.id_token)
                    .bind(&row.tokens.access_token)
                    .bind(&row.tokens.refresh_token);
                resealed += reseal.execute(&mut *tx).await?.rows_affected();
            }
            resealed
        })
    }

    /// A page of egress proxies with their sealed passwords, in the order of their ids, after `after`.
    ///
    /// # Errors
    /// As [`Self::sealed_rows`].
    pub async fn sealed_passwords(
        &self,
        after: Option<EgressProxyId>,
        rows_max: u32,
    ) -> Result<Vec<SealedPasswordRow>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows: Vec<(String, String)> = read!(self, "list sealed passwords", |db| {
            sqlx::query_as(PASSWORD_PAGE).bind(&after).bind(i64::from(rows_max)).fetch_all(db)
        })?;
        rows.into_iter()
            .map(|(id, password)| {
                let id = Column("egress_proxies", "id").parse(&id)?;
                Ok(SealedPasswordRow { id, password: SealedEgressPassword::from_stored(password) })
            })
            .collect()
    }

    /// Writes the same passwords under another seal, in one transaction. How many rows took it, as [`Self::reseal`].
    ///
    /// # Errors
    /// When the database does not answer. No row was changed then.
    pub async fn reseal_passwords(&self, rows: &[ResealedPassword]) -> Result<u64, StoreError> {
        transact!(self, "seal passwords anew", |tx| {
            let mut resealed = 0;
            for row in rows {
                let reseal = sqlx::query(RESEAL_PASSWORD)
                    .bind(row.before.id.to_string())
                    .bind(row.before.password.as_str())
                    .bind(row.after.as_str());
                resealed += reseal.execute(&mut *tx).await?.rows_affected();
            }
            resealed
        })
    }
}

/// Whether the key that these secrets were sealed with may no longer be used; it then stays so for the rest of the
/// transaction, and so does the opposite.
macro_rules! is_key_retired {
    ($store:expr, $tx:ident, $is_sealed_with:expr) => {{
        sqlx::query($store.either(&$crate::store::encryption::HOLD_KEY)).execute(&mut *$tx).await?;
        // A statement of its own: on PostgreSQL the one above may have waited, and this one sees what it waited for.
        let key_id: Option<String> =
            sqlx::query_scalar($crate::store::encryption::SEALING_KEY).fetch_optional(&mut *$tx).await?;
        let is_sealed_with = $is_sealed_with;
        key_id.is_some_and(|key_id: String| !is_sealed_with(key_id.trim_matches('"')))
    }};
}

pub(super) use is_key_retired;
