//! Where the database is, as operators write it. The password is never shown again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Where the database is. `Display` and `Debug` show everything but the password.
#[derive(Clone)]
pub struct DatabaseUrl(Place);

#[derive(Clone)]
pub(super) enum Place {
    SqliteFile(PathBuf),
    SqliteMemory,
    Postgres(Box<PgConnectOptions>),
}

/// What the driver reads from a PostgreSQL url. It would log any other parameter with its value, secret or not.
const POSTGRES_PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// A text that names no database. Never holds a part of the text: it may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// It begins like no url we know.
    #[error(
        "not a database url; expected `sqlite://relative.db`, `sqlite:///absolute.db`, \
         `sqlite+aiosqlite:///relative.db`, `sqlite+aiosqlite:////absolute.db` or \
         `postgres://user:password@host:5432/database` (also `postgresql://`, `postgresql+asyncpg://` and \
         `postgresql+psycopg://`)"
    )]
    UnknownForm,
    /// A SQLite url without a file.
    #[error("the SQLite url names no file")]
    NoFile,
    /// A SQLite url with parameters.
    #[error("a SQLite url takes no parameters: leave out everything from the `?` on")]
    SqliteParameters,
    /// A PostgreSQL url with a parameter that would have no effect.
    #[error(
        "a PostgreSQL url takes no parameter of that name: leave out all but `sslmode`, `sslrootcert`, `sslcert`, \
         `sslkey`, `host`, `port`, `application_name` and `options`"
    )]
    PostgresParameter,
    /// A PostgreSQL url that does not read.
    #[error(
        "the PostgreSQL url does not read; expected `postgres://user:password@host:5432/database?sslmode=require` with \
         special characters of the password written as %XX"
    )]
    Postgres,
}

impl DatabaseUrl {
    /// The SQLite file at `path`.
    pub fn sqlite_file(path: impl Into<PathBuf>) -> Self {
        Self(Place::SqliteFile(path.into()))
    }

    /// The SQLite file, if it is one.
    pub fn sqlite_path(&self) -> Option<&Path> {
        match &self.0 {
            Place::SqliteFile(path) => Some(path),
            Place::SqliteMemory | Place::Postgres(_) => None,
        }
    }

    /// Whether several replicas may share it.
    pub const fn is_postgres(&self) -> bool {
        matches!(self.0, Place::Postgres(_))
    }

    /// Whether it is gone with the process; for tests only.
    pub const fn is_in_memory(&self) -> bool {
        matches!(self.0, Place::SqliteMemory)
    }

    pub(super) const fn place(&self) -> &Place {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        let text = text.trim();
        if text == "sqlite::memory:" {
            return Ok(Self(Place::SqliteMemory));
        }
        let (scheme, rest) = text.split_once("://").ok_or(InvalidDatabaseUrl::UnknownForm)?;
        match scheme {
            "sqlite" => sqlite_file(rest),
            // SQLAlchemy ends the (empty) host with a slash of its own, so its paths have one more than ours.
            "sqlite+aiosqlite" => sqlite_file(rest.strip_prefix('/').ok_or(InvalidDatabaseUrl::NoFile)?),
            "postgres" | "postgresql" | "postgresql+asyncpg" | "postgresql+psycopg" => postgres(rest),
            _ => Err(InvalidDatabaseUrl::UnknownForm),
        }
    }
}

fn sqlite_file(path: &str) -> Result<DatabaseUrl, InvalidDatabaseUrl> {
    if path.contains('?') {
        return Err(InvalidDatabaseUrl::SqliteParameters);
    }
    if path.is_empty() || path.ends_with('/') {
        return Err(InvalidDatabaseUrl::NoFile);
    }
    Ok(DatabaseUrl::sqlite_file(path))
}

fn postgres(rest: &str) -> Result<DatabaseUrl, InvalidDatabaseUrl> {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let parameters: Vec<_> = parameters.split('&').filter(|parameter| !parameter.is_empty()).collect();
    let parameters = parameters.into_iter().map(postgres_parameter).collect::<Result<Vec<_>, _>>()?.join("&");
    let url = format!("postgres://{place}?{parameters}");
    let options = url.parse::<PgConnectOptions>().map_err(|_| InvalidDatabaseUrl::Postgres)?;
    Ok(DatabaseUrl(Place::Postgres(Box::new(options))))
}

/// Translates asyncpg's `ssl`, which takes booleans too, and passes on what the driver knows.
fn postgres_parameter(parameter: &str) -> Result<String, InvalidDatabaseUrl> {
    match parameter.split_once('=') {
        Some(("ssl", "true")) => Ok("sslmode=require".to_owned()),
        Some(("ssl", "false")) => Ok("sslmode=disable".to_owned()),
        Some(("ssl", mode)) => Ok(format!("sslmode={mode}")),
        Some((name, _)) if POSTGRES_PARAMETERS.contains(&name) => Ok(parameter.to_owned()),
        Some(_) | None => Err(InvalidDatabaseUrl::PostgresParameter),
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::SqliteFile(path) => write!(f, "sqlite://{}", path.display()),
            Place::SqliteMemory => f.write_str("sqlite::memory:"),
            // Built anew from the harmless parts, so that no way of writing a password gets through.
            Place::Postgres(server) => {
                write!(f, "postgres://{}:***@", server.get_username())?;
                match server.get_socket() {
                    Some(socket) => write!(f, "{}", socket.display())?,
                    None => write!(f, "{}:{}", server.get_host(), server.get_port())?,
                }
                let database = server.get_database().unwrap_or_else(|| server.get_username());
                write!(f, "/{database}?sslmode={}", ssl_mode_name(server.get_ssl_mode()))
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const fn ssl_mode_name(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_operators_write_is_understood_and_shown_without_its_password() {
        let cases = [
            ("sqlite://data/store.db", "sqlite://data/store.db"),
            ("sqlite:///var/lib/store.db", "sqlite:///var/lib/store.db"),
            ("sqlite+aiosqlite:///data/store.db", "sqlite://data/store.db"),
            ("sqlite+aiosqlite:////var/lib/store.db", "sqlite:///var/lib/store.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            (" postgres://u:hunter2@db/x ", "postgres://u:***@db:5432/x?sslmode=prefer"),
            ("postgresql://u:hunter2@db:6432/x", "postgres://u:***@db:6432/x?sslmode=prefer"),
            ("postgresql+asyncpg://u:hunter2@db/x?ssl=require", "postgres://u:***@db:5432/x?sslmode=require"),
            ("postgresql+asyncpg://u:hunter2@db/x?ssl=true", "postgres://u:***@db:5432/x?sslmode=require"),
            ("postgresql+psycopg://u@db/x?sslmode=verify-full", "postgres://u:***@db:5432/x?sslmode=verify-full"),
            ("postgres://u:hunter%402@db/x?password=hunter2", "postgres://u:***@db:5432/x?sslmode=prefer"),
            ("postgres://u@%2Fvar%2Frun/x", "postgres://u:***@/var/run/x?sslmode=prefer"),
        ];
        for (text, shown) in cases {
            let url = text.parse::<DatabaseUrl>().unwrap();
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(format!("{url:?}"), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_database_is_refused_without_repeating_it() {
        let cases = [
            ("", InvalidDatabaseUrl::UnknownForm),
            ("store.db", InvalidDatabaseUrl::UnknownForm),
            ("mysql://u:hunter2@db/x", InvalidDatabaseUrl::UnknownForm),
            ("sqlite://", InvalidDatabaseUrl::NoFile),
            ("sqlite:///data/", InvalidDatabaseUrl::NoFile),
            ("sqlite+aiosqlite://", InvalidDatabaseUrl::NoFile),
            ("sqlite+aiosqlite:///", InvalidDatabaseUrl::NoFile),
            ("sqlite://store.db?mode=ro", InvalidDatabaseUrl::SqliteParameters),
            ("postgres://u:hunter2@db:port/x", InvalidDatabaseUrl::Postgres),
            ("postgres://u@db/x?sslmode=require&passwd=hunter2", InvalidDatabaseUrl::PostgresParameter),
            ("postgres://u@db/x?hunter2", InvalidDatabaseUrl::PostgresParameter),
            ("postgres://u:hunter2@db/x?sslmode=maybe", InvalidDatabaseUrl::Postgres),
        ];
        for (text, expected) in cases {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
        assert!(InvalidDatabaseUrl::UnknownForm.to_string().contains("postgresql+asyncpg://"));
    }
}
