//! The database: the only SQL in the program, one file per table, one text for SQLite and PostgreSQL.
//!
//! Every call is bounded in time and every write is one short transaction. Nothing here decides anything, and no error
//! of it shows a password, a secret or what a row holds.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgPool, SqlitePool};

mod account_usage;
mod accounts;
mod api_keys;
mod columns;
mod connect;
mod database_url;
mod egress_proxies;
mod encryption;
mod error;
mod generations;
mod request_log;
mod settings;
mod sticky_sessions;
mod token_refresh_claims;
mod usage_hourly;

pub use accounts::{AccountPatch, NewAccount, StoredAccount, Upserted};
pub use connect::StoreOptions;
pub use database_url::{DatabaseUrl, InvalidDatabaseUrl};
pub use egress_proxies::{
    EGRESS_PROXIES_MAX, EgressProxyAdded, EgressProxyDeleted, EgressProxyForm, StoredEgressProxy,
};
pub use encryption::{FingerprintCheck, ResealedPassword, SealedPasswordRow, SealedRow};
pub use error::{Cause, StoreError};
pub use generations::Generations;
pub use request_log::{LoggedExchange, PAGE_ROWS_MAX, PageRequest};
pub use settings::{SettingsGroup, Versioned};
pub use sticky_sessions::{StickySession, StickyWrite};
pub use token_refresh_claims::{ClaimState, RefreshProgress};
pub use usage_hourly::{UsageOf, UsageTotals};

/// Longest any one call may take, waiting for a connection included.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// An open database. Cheap to clone; all clones share the same connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    pools: Pools,
    /// Which database this is, in words fit for an error: never with its password.
    what: String,
}

enum Pools {
    /// SQLite allows one writer at a time, so writers queue for one connection here instead of failing over there.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PgPool),
}

/// Two texts for one statement, where the databases cannot run the same.
struct TwinSql {
    sqlite: &'static str,
    postgres: &'static str,
}

/// Runs queries outside a transaction, on whichever database is open. The body is a future of `Result<_, sqlx::Error>`.
macro_rules! read {
    ($store:expr, $action:expr, |$db:ident| $body:expr) => {
        $store
            .bounded($action, async {
                match &$store.inner.pools {
                    $crate::store::Pools::Sqlite { readers: $db, .. } => $body.await,
                    $crate::store::Pools::Postgres($db) => $body.await,
                }
            })
            .await
    };
}

/// Runs the body in one transaction, on whichever database is open. The transaction commits when the body ends, and is
/// rolled back when a `?` in it leaves early. The body's last value is the outcome.
macro_rules! transact {
    ($store:expr, $action:expr, |$tx:ident| $body:expr) => {
        $store
            .bounded($action, async {
                match &$store.inner.pools {
                    $crate::store::Pools::Sqlite { writer, .. } => {
                        // Takes the write lock at once: a transaction that upgrades later fails instead of waiting.
                        let mut $tx = writer.begin_with("begin immediate").await?;
                        let outcome = $body;
                        $tx.commit().await?;
                        Ok(outcome)
                    }
                    $crate::store::Pools::Postgres(pool) => {
                        let mut $tx = pool.begin().await?;
                        let outcome = $body;
                        $tx.commit().await?;
                        Ok(outcome)
                    }
                }
            })
            .await
    };
}

use {read, transact};

impl Store {
    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let one: i64 =
            read!(self, "ping the database", |db| sqlx::query_scalar("select cast(1 as bigint)").fetch_one(db))?;
        debug_assert_eq!(one, 1);
        Ok(())
    }

    /// Closes all connections, after the calls under way have ended. SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        match &self.inner.pools {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    /// The statement of a pair that the open database understands.
    fn either(&self, sql: &TwinSql) -> &'static str {
        match self.inner.pools {
            Pools::Sqlite { .. } => sql.sqlite,
            Pools::Postgres(_) => sql.postgres,
        }
    }

    /// Runs `work` under the time bound, and turns what the driver says into what a caller can act on.
    async fn bounded<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let what = &self.inner.what;
        let is_file = matches!(self.inner.pools, Pools::Sqlite { .. });
        match tokio::time::timeout(CALL_TIMEOUT, work).await {
            Ok(outcome) => outcome.map_err(|error| StoreError::from_driver(what, is_file, action, error)),
            Err(_) => Err(StoreError::no_answer(what, action, CALL_TIMEOUT)),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.inner.what).finish()
    }
}
