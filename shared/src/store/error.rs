//! What can go wrong with the database, sorted by what a caller can do about it.
//!
//! No text of these errors, `Debug` included, holds a password or what a row contains.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a call on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or did not answer in time. Trying later may help.
    #[error("{action}: {what} cannot be reached")]
    Unreachable {
        /// What was tried.
        action: &'static str,
        /// Which database, without its password.
        what: String,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// Somebody else held a lock for too long, or the statement took too long. Trying again soon may help.
    #[error("{action}: the database was busy for too long")]
    Busy {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// There is one like it already.
    #[error("{action}: there is one like it already")]
    AlreadyExists {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// Somebody else changed it, or what it refers to, first; nothing was written. Read again and decide anew.
    #[error("{action}: somebody else changed it first")]
    Conflict {
        /// What was tried.
        action: &'static str,
    },
    /// A stored value that this version cannot read. A person must look.
    #[error("{table}.{column} holds a value that this version cannot read")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column; for settings the group.
        column: &'static str,
        /// What is wrong with it, if more is known.
        #[source]
        source: Option<Cause>,
    },
    /// The tables could not be brought up to date.
    #[error("bring the tables of {what} up to date")]
    Migrate {
        /// Which database, without its password.
        what: String,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// Anything else; a fault of ours or of the database.
    #[error("{action}")]
    Query {
        /// What was tried.
        action: &'static str,
        /// What the driver said.
        #[source]
        source: Cause,
    },
}

/// What the driver said, in words only.
///
/// A driver's error holds more than it says: PostgreSQL's carries the offending row in its details, which `Debug` would
/// print. So `Debug` prints the words too.
pub struct Cause(Box<dyn Error + Send + Sync>);

impl Cause {
    pub(super) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.to_string())
    }
}

// No `source()`: the driver's words already repeat those of its own causes.
impl Error for Cause {}

impl StoreError {
    /// Sorts what the driver said.
    pub(super) fn from_driver(what: &str, is_file: bool, action: &'static str, error: sqlx::Error) -> Self {
        // A file does not go away: all its connections were in use.
        let is_queue = is_file && matches!(error, sqlx::Error::PoolTimedOut);
        let trouble = if is_queue { Trouble::Busy } else { Trouble::of(&error) };
        let source = Cause::new(error);
        match trouble {
            Trouble::Unreachable => Self::Unreachable { action, what: what.to_owned(), source },
            Trouble::Busy => Self::Busy { action, source },
            Trouble::AlreadyExists => Self::AlreadyExists { action, source },
            Trouble::BrokenReference => Self::Conflict { action },
            Trouble::Other => Self::Query { action, source },
        }
    }

    /// A call that ran out of time.
    pub(super) fn no_answer(what: &str, action: &'static str, waited: Duration) -> Self {
        let source = Cause::new(format!("no answer within {} s", waited.as_secs()));
        Self::Unreachable { action, what: what.to_owned(), source }
    }

    /// A database that could not be opened.
    pub(super) fn cannot_open(what: &str, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreachable { action: "open the database", what: what.to_owned(), source: Cause::new(error) }
    }
}

enum Trouble {
    Unreachable,
    Busy,
    AlreadyExists,
    /// What a row refers to is gone, or something refers to a row that was to go. Callers look first, so somebody else
    /// was faster.
    BrokenReference,
    Other,
}

impl Trouble {
    fn of(error: &sqlx::Error) -> Self {
        if let Some(error) = error.as_database_error() {
            if error.is_unique_violation() {
                return Self::AlreadyExists;
            }
            if error.is_foreign_key_violation() {
                return Self::BrokenReference;
            }
            return error.code().map_or(Self::Other, |code| Self::of_code(&code));
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "the driver's enum is open; these mean the connection")]
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// SQLite's codes are numbers of one to four digits, PostgreSQL's are five characters, so they cannot be confused.
    fn of_code(code: &str) -> Self {
        if code.len() == 5 {
            return match code {
                // Serialization failure, deadlock, lock not available, statement time-out.
                "40001" | "40P01" | "55P03" | "57014" => Self::Busy,
                // Shutdown, crash, starting up; too many connections.
                "57P01" | "57P02" | "57P03" | "53300" => Self::Unreachable,
                // Connection exceptions; wrong role or password; no such database.
                _ if code.starts_with("08") || code.starts_with("28") || code == "3D000" => Self::Unreachable,
                _ => Self::Other,
            };
        }
        // Extended codes keep the primary one in their low byte.
        match code.parse::<u32>().map(|code| code & 0xff) {
            Ok(SQLITE_BUSY | SQLITE_LOCKED) => Self::Busy,
            Ok(SQLITE_IOERR | SQLITE_FULL | SQLITE_CANTOPEN) => Self::Unreachable,
            Ok(_) | Err(_) => Self::Other,
        }
    }
}

const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;
const SQLITE_IOERR: u32 = 10;
const SQLITE_FULL: u32 = 13;
const SQLITE_CANTOPEN: u32 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_are_sorted_by_what_a_caller_can_do() {
        let cases = [
            ("5", "busy"),
            ("517", "busy"),
            ("6", "busy"),
            ("262", "busy"),
            ("14", "unreachable"),
            ("13", "unreachable"),
            ("522", "unreachable"),
            ("1", "other"),
            ("787", "other"),
            ("40001", "busy"),
            ("40P01", "busy"),
            ("57014", "busy"),
            ("57P01", "unreachable"),
            ("08006", "unreachable"),
            ("28P01", "unreachable"),
            ("3D000", "unreachable"),
            ("42601", "other"),
            ("", "other"),
        ];
        for (code, expected) in cases {
            let sorted = match Trouble::of_code(code) {
                Trouble::Unreachable => "unreachable",
                Trouble::Busy => "busy",
                Trouble::AlreadyExists => "already exists",
                Trouble::BrokenReference => "broken reference",
                Trouble::Other => "other",
            };
            assert_eq!(sorted, expected, "{code}");
        }
    }

    #[test]
    fn the_words_of_a_cause_are_all_that_debug_shows() {
        #[derive(Debug)]
        struct Talkative(#[expect(dead_code, reason = "only Debug would show it")] &'static str);
        impl fmt::Display for Talkative {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("it failed")
            }
        }
        impl Error for Talkative {}
        let error = StoreError::Query { action: "save it", source: Cause::new(Talkative("the row")) };
        let shown = format!("{error:?}");
        assert!(shown.contains("it failed") && !shown.contains("the row"), "{shown}");
    }
}
