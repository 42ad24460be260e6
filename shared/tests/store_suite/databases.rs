//! A fresh database for every test, on either kind of server, gone when the test ends.

use std::future::Future;

use codex_lb_shared::ids::ExchangeId;
use codex_lb_shared::store::{DatabaseUrl, Store};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

/// A migrated database of a test's own.
pub(crate) struct Database {
    pub(crate) store: Store,
    pub(crate) url: DatabaseUrl,
    direct: Direct,
}

/// How to go around the store, for what it must not offer.
enum Direct {
    Sqlite(String),
    Postgres(String),
}

impl Database {
    async fn open(url: DatabaseUrl, direct: Direct) -> Self {
        let store = Store::connect(&url).await.unwrap();
        store.migrate().await.unwrap();
        Self { store, url, direct }
    }

    /// What another process would open.
    pub(crate) async fn another(&self) -> Store {
        Store::connect(&self.url).await.unwrap()
    }

    pub(crate) const fn is_postgres(&self) -> bool {
        matches!(self.direct, Direct::Postgres(_))
    }

    /// Runs a statement behind the store's back.
    pub(crate) async fn execute(&self, sql: &'static str) {
        match &self.direct {
            Direct::Sqlite(url) => {
                let mut connection = SqliteConnection::connect(url).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Direct::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Reads one column of texts behind the store's back, from the text that is meant for this kind of database.
    pub(crate) async fn texts(&self, sqlite: &'static str, postgres: &'static str) -> Vec<String> {
        match &self.direct {
            Direct::Sqlite(url) => {
                let mut connection = SqliteConnection::connect(url).await.unwrap();
                sqlx::query_scalar(sqlite).fetch_all(&mut connection).await.unwrap()
            }
            Direct::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(postgres).fetch_all(&mut connection).await.unwrap()
            }
        }
    }

    /// Takes every lock a writer could want, until the returned connection is dropped.
    pub(crate) async fn lock_everything(&self) -> Box<dyn Send> {
        match &self.direct {
            Direct::Sqlite(url) => {
                let mut connection = SqliteConnection::connect(url).await.unwrap();
                sqlx::raw_sql("begin immediate").execute(&mut connection).await.unwrap();
                Box::new(connection)
            }
            Direct::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::raw_sql("begin; lock table change_generation").execute(&mut connection).await.unwrap();
                Box::new(connection)
            }
        }
    }
}

/// Runs a test on a new SQLite file.
pub(crate) async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Database) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/store.db");
    let direct = Direct::Sqlite(format!("sqlite://{}", path.display()));
    test(Database::open(DatabaseUrl::sqlite_file(&path), direct).await).await;
}

/// Runs a test on a new PostgreSQL database.
pub(crate) async fn on_postgres<F>(test: impl FnOnce(Database) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let server = postgres_server();
    let name = format!("codex_lb_test_{}", ExchangeId::generate()).to_lowercase();
    let mut admin = PgConnection::connect(&server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.unwrap();
    let url = format!("{}/{name}", &server[..server.rfind('/').unwrap()]);
    // A task of its own, so that the database goes also when the test panics.
    let run = async { test(Database::open(url.parse().unwrap(), Direct::Postgres(url)).await).await };
    let outcome = tokio::spawn(run).await;
    sqlx::raw_sql(AssertSqlSafe(format!("drop database {name} with (force)"))).execute(&mut admin).await.unwrap();
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}

/// The server that the tests may make databases on.
pub(crate) fn postgres_server() -> String {
    #[expect(clippy::disallowed_methods, reason = "tests have no Config")]
    let server = std::env::var("CODEX_LB_TEST_POSTGRES_URL");
    server.expect(
        "CODEX_LB_TEST_POSTGRES_URL is not set: run `eval \"$(testing/postgres.sh start)\"` in this shell, or point it \
         at a superuser's url of a PostgreSQL that may be filled with test databases",
    )
}

/// Makes of every `async fn name(db: Database)` the tests `sqlite::name` and `postgres::name`.
macro_rules! both_databases {
    ($($(#[$attribute:meta])* async fn $name:ident($db:ident: Database) $body:block)+) => {
        $($(#[$attribute])* async fn $name($db: $crate::databases::Database) $body)+

        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                $crate::databases::on_sqlite(super::$name).await;
            })+
        }

        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                $crate::databases::on_postgres(super::$name).await;
            })+
        }
    };
}
