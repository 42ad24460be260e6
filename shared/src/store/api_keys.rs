//! `api_keys`: what we know of the secrets that we issued. Never the secrets themselves.

use crate::clock::Timestamp;
use crate::domain::api_key::{ApiKey, ApiKeyHash};
use crate::ids::ApiKeyId;

use super::columns::{Column, moment, moment_some};
use super::generations::{Topic, raise};
use super::{Store, StoreError, read, transact};

macro_rules! select_api_keys {
    ($rest:literal) => {
        concat!(
            "select id, name, secret_hash, visible_prefix, is_enabled, revoked_at, expires_at, created_at, last_used_at ",
            "from api_keys ",
            $rest
        )
    };
}

const LIST: &str = select_api_keys!("order by created_at, id");
const FIND: &str = select_api_keys!("where id = $1");
const FIND_BY_HASH: &str = select_api_keys!("where secret_hash = $1");

const INSERT: &str = "\
    insert into api_keys (id, name, secret_hash, visible_prefix, is_enabled, revoked_at, expires_at, created_at, \
        last_used_at) \
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const REVOKE: &str = "update api_keys set revoked_at = $2 where id = $1 and revoked_at is null";
const SET_ENABLED: &str = "update api_keys set is_enabled = $2 where id = $1";

impl Store {
    /// Adds an api key. Servers know it from the next change of the `api_keys` generation on.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when its id or its hash is taken.
    pub async fn insert_api_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        transact!(self, "add an api key", |tx| {
            sqlx::query(INSERT)
                .bind(key.id.to_string())
                .bind(&key.name)
                .bind(key.hash.to_hex())
                .bind(&key.visible_prefix)
                .bind(key.is_enabled)
                .bind(key.revoked_at.map(Timestamp::as_unix_ms))
                .bind(key.expires_at.map(Timestamp::as_unix_ms))
                .bind(key.created_at.as_unix_ms())
                .bind(key.last_used_at.map(Timestamp::as_unix_ms))
                .execute(&mut *tx)
                .await?;
            raise!(tx, Topic::ApiKeys);
        })
    }

    /// All api keys, revoked ones included, oldest first.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn list_api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows: Vec<ApiKeyRow> = read!(self, "list the api keys", |db| sqlx::query_as(LIST).fetch_all(db))?;
        rows.into_iter().map(ApiKeyRow::read).collect()
    }

    /// The api key with this id.
    ///
    /// # Errors
    /// As [`Self::list_api_keys`].
    pub async fn find_api_key(&self, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        let row: Option<ApiKeyRow> =
            read!(self, "find an api key", |db| sqlx::query_as(FIND).bind(id.to_string()).fetch_optional(db))?;
        row.map(ApiKeyRow::read).transpose()
    }

    /// The api key whose secret has this hash, usable or not: the caller asks [`ApiKey::is_usable_at`].
    ///
    /// # Errors
    /// As [`Self::list_api_keys`].
    pub async fn find_api_key_by_hash(&self, hash: &ApiKeyHash) -> Result<Option<ApiKey>, StoreError> {
        let row: Option<ApiKeyRow> = read!(self, "find an api key by its hash", |db| {
            sqlx::query_as(FIND_BY_HASH).bind(hash.to_hex()).fetch_optional(db)
        })?;
        row.map(ApiKeyRow::read).transpose()
    }

    /// Revokes an api key for good. Whether this call did it: not when there is none, or when it was revoked before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_api_key(&self, id: ApiKeyId, now: Timestamp) -> Result<bool, StoreError> {
        transact!(self, "revoke an api key", |tx| {
            let revoke = sqlx::query(REVOKE).bind(id.to_string()).bind(now.as_unix_ms());
            let is_revoked = revoke.execute(&mut *tx).await?.rows_affected() > 0;
            if is_revoked {
                raise!(tx, Topic::ApiKeys);
            }
            is_revoked
        })
    }

    /// Switches an api key on or off. Whether there is such a key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn set_api_key_enabled(&self, id: ApiKeyId, is_enabled: bool) -> Result<bool, StoreError> {
        transact!(self, "switch an api key on or off", |tx| {
            let switch = sqlx::query(SET_ENABLED).bind(id.to_string()).bind(is_enabled);
            let is_found = switch.execute(&mut *tx).await?.rows_affected() > 0;
            if is_found {
                raise!(tx, Topic::ApiKeys);
            }
            is_found
        })
    }
}

#[derive(sqlx::FromRow)]
struct ApiKeyRow {
    id: String,
    name: String,
    secret_hash: String,
    visible_prefix: String,
    is_enabled: bool,
    revoked_at: Option<i64>,
    expires_at: Option<i64>,
    created_at: i64,
    last_used_at: Option<i64>,
}

impl ApiKeyRow {
    fn read(self) -> Result<ApiKey, StoreError> {
        let column = |name| Column("api_keys", name);
        Ok(ApiKey {
            id: column("id").parse(&self.id)?,
            name: self.name,
            hash: ApiKeyHash::from_hex(&self.secret_hash).ok_or_else(|| column("secret_hash").corrupt())?,
            visible_prefix: self.visible_prefix,
            is_enabled: self.is_enabled,
            revoked_at: moment_some(self.revoked_at),
            expires_at: moment_some(self.expires_at),
            created_at: moment(self.created_at),
            last_used_at: moment_some(self.last_used_at),
        })
    }
}
