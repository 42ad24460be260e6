//! Opening a database: its file or its server, the bounds of its pool, and its tables brought up to date.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, PgConnection, PgPool, SqlitePool};

use super::database_url::Place;
use super::error::Cause;
use super::{DatabaseUrl, Inner, Pools, Store, StoreError};

/// How long a connection may take to open, and a call may wait for a free one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process that writes, such as the command line beside a server.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for all migrations, other replicas' included: a backfill may take minutes.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const SQLITE_READERS_MAX: u32 = 4;
const POSTGRES_CONNECTIONS_MAX: u32 = 10;
/// The server ends what we would no longer wait for, so that a lost client holds no lock. Set on the open connection:
/// poolers such as PgBouncer refuse them at its start.
const POSTGRES_BOUNDS: &str = "set statement_timeout = '10s'; set idle_in_transaction_session_timeout = '30s'";

/// What may be tuned about the connections.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Connections to PostgreSQL at once, at least 1. SQLite always has one writer and a few readers.
    pub connections_max: u32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { connections_max: POSTGRES_CONNECTIONS_MAX }
    }
}

impl Store {
    /// Opens the database with the default options. See [`Self::connect_with`].
    ///
    /// # Errors
    /// As [`Self::connect_with`].
    pub async fn connect(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Self::connect_with(url, StoreOptions::default()).await
    }

    /// Opens the database and proves that it answers. A SQLite file and its directory are made if they are missing,
    /// readable by their owner alone. The tables are not touched: see [`Self::migrate`].
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] within about five seconds when there is no such database, or none that lets us in.
    pub async fn connect_with(url: &DatabaseUrl, options: StoreOptions) -> Result<Self, StoreError> {
        let what = url.to_string();
        let pools = match url.place() {
            Place::SqliteFile(path) => open_sqlite_file(path).await,
            Place::SqliteMemory => open_sqlite_memory().await,
            Place::Postgres(server) => open_postgres(server, options).await,
        };
        let pools = pools.map_err(|error| StoreError::cannot_open(&what, error))?;
        Ok(Self { inner: Arc::new(Inner { pools, what }) })
    }

    /// Brings the tables up to date; changes nothing when they are. Any number of processes may do this at once: they
    /// queue. Migrations that this version does not know are left alone, because during an upgrade a process of the
    /// previous version must still be able to restart.
    ///
    /// # Errors
    /// [`StoreError::Migrate`] when a migration fails, or when one that was applied differs from ours.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let work = async {
            match &self.inner.pools {
                Pools::Sqlite { writer, .. } => migrate_sqlite(writer).await,
                Pools::Postgres(pool) => migrate_postgres(pool).await,
            }
        };
        let outcome = tokio::time::timeout(MIGRATE_TIMEOUT, work).await;
        let cause = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Cause::new(error),
            Err(_) => Cause::new(format!("not done within {} s", MIGRATE_TIMEOUT.as_secs())),
        };
        Err(StoreError::Migrate { what: self.inner.what.clone(), source: cause })
    }
}

async fn open_sqlite_file(path: &Path) -> Result<Pools, sqlx::Error> {
    create_private_file(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // With a write-ahead log this loses the last commits at a power loss, never the database.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(2 * CONNECT_TIMEOUT)
        .connect_with(options.clone())
        .await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(SQLITE_READERS_MAX)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options.pragma("query_only", "on"))
        .await?;
    Ok(Pools::Sqlite { writer, readers })
}

/// One connection for all, which must never close: the database lives in it.
async fn open_sqlite_memory() -> Result<Pools, sqlx::Error> {
    let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
    let only = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options)
        .await?;
    Ok(Pools::Sqlite { writer: only.clone(), readers: only })
}

/// Makes the file and its directory if they are missing. SQLite gives its side files the permissions of the file.
fn create_private_file(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        builder.mode(0o700);
        builder.create(directory)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path).map(drop)
}

async fn open_postgres(server: &PgConnectOptions, options: StoreOptions) -> Result<Pools, sqlx::Error> {
    let server = match server.get_application_name() {
        Some(_) => server.clone(),
        None => server.clone().application_name("codex-lb"),
    };
    // The pool would try again until its time-out and then forget why; one connection of our own keeps the reason.
    match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&server)).await {
        Ok(connection) => connection?.close().await?,
        Err(_) => return Err(sqlx::Error::PoolTimedOut),
    }
    let pool = PgPoolOptions::new()
        .max_connections(options.connections_max.max(1))
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(POSTGRES_BOUNDS).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(server);
    Ok(Pools::Postgres(pool))
}

/// SQLite has no lock for migrators, so the write lock serves: all migrations are one transaction.
async fn migrate_sqlite(writer: &SqlitePool) -> Result<(), MigrateError> {
    let mut tx = writer.begin_with("begin immediate").await?;
    tolerant(sqlx::migrate!("./../migrations/sqlite")).run_direct(None, &mut *tx, false).await?;
    Ok(tx.commit().await?)
}

/// The driver takes an advisory lock. Whoever waits for it must not run into the bounds of ordinary statements, hence a
/// connection from outside the pool.
async fn migrate_postgres(pool: &PgPool) -> Result<(), MigrateError> {
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
    let outcome = tolerant(sqlx::migrate!("./../migrations/postgres")).run_direct(None, &mut connection, false).await;
    connection.close().await?;
    outcome
}

fn tolerant(mut migrator: Migrator) -> Migrator {
    migrator.set_ignore_missing(true);
    migrator
}
