//! `egress_proxies`: what accounts' connections go out through, with their passwords sealed.
//!
//! Passwords enter and leave sealed; nothing here can read them. Every write raises the `accounts` generation, because
//! what an account goes out through is part of what servers remember of it.

use crate::clock::Timestamp;
use crate::domain::egress_proxy::{EgressEndpoint, EgressKind, EgressProxy};
use crate::ids::EgressProxyId;
use crate::secret::SealedEgressPassword;

use super::columns::{Column, moment};
use super::encryption::is_key_retired;
use super::generations::{Topic, raise};
use super::{Store, StoreError, read, transact};

/// Egress proxies that an installation may have.
pub const EGRESS_PROXIES_MAX: u32 = 500;

/// An egress proxy with its sealed password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEgressProxy {
    /// The egress proxy.
    pub egress: EgressProxy,
    /// Its password, sealed for it.
    pub password: Option<SealedEgressPassword>,
}

/// What an egress proxy is to be; everything about it but its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressProxyForm {
    /// An operator's name for it, taken by no other.
    pub name: String,
    /// Where it is and who we are to it.
    pub endpoint: EgressEndpoint,
    /// Its password, sealed for its id.
    pub password: Option<SealedEgressPassword>,
}

/// What became of a new egress proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressProxyAdded {
    /// It is there.
    Added,
    /// There are [`EGRESS_PROXIES_MAX`] already.
    TooMany,
}

/// What became of an egress proxy that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressProxyDeleted {
    /// It is gone.
    Deleted,
    /// There was none.
    NotFound,
    /// So many accounts are bound to it; it stays.
    InUse(u32),
}

macro_rules! select_egress_proxies {
    ($rest:literal) => {
        concat!(
            "select id, name, kind, host, port, login_user, password_sealed, version, created_at from egress_proxies ",
            $rest
        )
    };
}

const LIST: &str = select_egress_proxies!("order by created_at, id");
const FIND: &str = select_egress_proxies!("where id = $1");
const COUNT: &str = "select count(*) from egress_proxies";
const INSERT: &str = "\
    insert into egress_proxies (id, name, kind, host, port, login_user, password_sealed, version, created_at, updated_at) \
    values ($1, $2, $3, $4, $5, $6, $7, 1, $8, $8)";
const UPDATE: &str = "\
    update egress_proxies set name = $3, kind = $4, host = $5, port = $6, login_user = $7, password_sealed = $8, \
        version = version + 1, updated_at = $9 \
    where id = $1 and version = $2";
const COUNT_BOUND: &str = "select count(*) from accounts where egress_proxy_id = $1";
const DELETE: &str = "delete from egress_proxies where id = $1";

/// Whether a form's password was sealed with a key that may no longer be used.
macro_rules! is_password_retired {
    ($store:expr, $tx:ident, $form:expr) => {
        match &$form.password {
            Some(password) => is_key_retired!($store, $tx, |key_id: &str| password.is_sealed_with(key_id)),
            None => false,
        }
    };
}

impl Store {
    /// All egress proxies with their sealed passwords, oldest first.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn list_egress_proxies(&self) -> Result<Vec<StoredEgressProxy>, StoreError> {
        let rows: Vec<EgressProxyRow> =
            read!(self, "list the egress proxies", |db| sqlx::query_as(LIST).fetch_all(db))?;
        rows.into_iter().map(EgressProxyRow::read).collect()
    }

    /// The egress proxy with this id.
    ///
    /// # Errors
    /// As [`Self::list_egress_proxies`].
    pub async fn find_egress_proxy(&self, id: EgressProxyId) -> Result<Option<StoredEgressProxy>, StoreError> {
        let row: Option<EgressProxyRow> =
            read!(self, "find an egress proxy", |db| sqlx::query_as(FIND).bind(id.to_string()).fetch_optional(db))?;
        row.map(EgressProxyRow::read).transpose()
    }

    /// Adds an egress proxy.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when its name is taken; [`StoreError::Conflict`] when the key that its password
    /// was sealed with was replaced meanwhile: seal it anew.
    pub async fn insert_egress_proxy(
        &self,
        id: EgressProxyId,
        form: &EgressProxyForm,
        now: Timestamp,
    ) -> Result<EgressProxyAdded, StoreError> {
        const ACTION: &str = "add an egress proxy";
        let added = transact!(self, ACTION, |tx| {
            let count: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut *tx).await?;
            if count >= i64::from(EGRESS_PROXIES_MAX) {
                Some(EgressProxyAdded::TooMany)
            } else if is_password_retired!(self, tx, form) {
                None
            } else {
                sqlx::query(INSERT)
                    .bind(id.to_string())
                    .bind(&form.name)
                    .bind(form.endpoint.kind.as_str())
                    .bind(&form.endpoint.host)
                    .bind(i64::from(form.endpoint.port))
                    .bind(&form.endpoint.user)
                    .bind(form.password.as_ref().map(SealedEgressPassword::as_str))
                    .bind(now.as_unix_ms())
                    .execute(&mut *tx)
                    .await?;
                raise!(tx, Topic::Accounts);
                Some(EgressProxyAdded::Added)
            }
        })?;
        added.ok_or(StoreError::Conflict { action: ACTION })
    }

    /// Changes an egress proxy that is still as it was when `expected_version` was read.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not, when it is gone, or when the key that the password was sealed with was
    /// replaced meanwhile; [`StoreError::AlreadyExists`] when the name is another one's.
    pub async fn update_egress_proxy(
        &self,
        id: EgressProxyId,
        expected_version: i64,
        form: &EgressProxyForm,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "change an egress proxy";
        let is_changed = transact!(self, ACTION, |tx| {
            if is_password_retired!(self, tx, form) {
                false
            } else {
                let update = sqlx::query(UPDATE)
                    .bind(id.to_string())
                    .bind(expected_version)
                    .bind(&form.name)
                    .bind(form.endpoint.kind.as_str())
                    .bind(&form.endpoint.host)
                    .bind(i64::from(form.endpoint.port))
                    .bind(&form.endpoint.user)
                    .bind(form.password.as_ref().map(SealedEgressPassword::as_str))
                    .bind(now.as_unix_ms());
                let is_changed = update.execute(&mut *tx).await?.rows_affected() > 0;
                if is_changed {
                    raise!(tx, Topic::Accounts);
                }
                is_changed
            }
        })?;
        if is_changed { Ok(()) } else { Err(StoreError::Conflict { action: ACTION }) }
    }

    /// Removes an egress proxy that no account is bound to.
    ///
    /// # Errors
    /// When the database does not answer, or an account was bound to it at this very moment.
    pub async fn delete_egress_proxy(&self, id: EgressProxyId) -> Result<EgressProxyDeleted, StoreError> {
        let (bound, is_deleted) = transact!(self, "delete an egress proxy", |tx| {
            let bound: i64 = sqlx::query_scalar(COUNT_BOUND).bind(id.to_string()).fetch_one(&mut *tx).await?;
            let mut is_deleted = false;
            if bound == 0 {
                is_deleted = sqlx::query(DELETE).bind(id.to_string()).execute(&mut *tx).await?.rows_affected() > 0;
                if is_deleted {
                    raise!(tx, Topic::Accounts);
                }
            }
            (bound, is_deleted)
        })?;
        Ok(match Column("accounts", "egress_proxy_id").number(bound)? {
            0_u32 if is_deleted => EgressProxyDeleted::Deleted,
            0 => EgressProxyDeleted::NotFound,
            bound => EgressProxyDeleted::InUse(bound),
        })
    }
}

#[derive(sqlx::FromRow)]
struct EgressProxyRow {
    id: String,
    name: String,
    kind: String,
    host: String,
    port: i64,
    login_user: Option<String>,
    password_sealed: Option<String>,
    version: i64,
    created_at: i64,
}

impl EgressProxyRow {
    fn read(self) -> Result<StoredEgressProxy, StoreError> {
        let column = |name| Column("egress_proxies", name);
        Ok(StoredEgressProxy {
            egress: EgressProxy {
                id: column("id").parse(&self.id)?,
                name: self.name,
                endpoint: EgressEndpoint {
                    kind: EgressKind::parse(&self.kind).ok_or_else(|| column("kind").corrupt())?,
                    host: self.host,
                    port: column("port").number(self.port)?,
                    user: self.login_user,
                },
                has_password: self.password_sealed.is_some(),
                version: self.version,
                created_at: moment(self.created_at),
            },
            password: self.password_sealed.map(SealedEgressPassword::from_stored),
        })
    }
}
