//! `change_generation`: one counter per topic, which every write of the topic raises in its own transaction. A server
//! that remembers a topic compares counters to notice what another process wrote.

use super::{Store, StoreError, read};

/// The topics that servers remember.
#[derive(Clone, Copy, Debug)]
pub(super) enum Topic {
    Accounts,
    ApiKeys,
    Settings,
}

impl Topic {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::ApiKeys => "api_keys",
            Self::Settings => "settings",
        }
    }
}

/// The counters at one moment. Equal counters mean that nothing was written in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// Of `accounts`. Account usage is not part of it.
    pub accounts: i64,
    /// Of `api_keys`, last-used marks excepted.
    pub api_keys: i64,
    /// Of `settings`, the model catalog included.
    pub settings: i64,
}

/// Binds the topic's name. Run it last in a transaction: all writers of a topic queue for this row.
pub(super) const RAISE: &str = "update change_generation set value = value + 1 where topic = $1";

const LIST: &str = "select topic, value from change_generation";

impl Store {
    /// Reads all counters in one cheap query. Read them before what they stand for, not after: then a write in between
    /// is noticed the next time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn generations(&self) -> Result<Generations, StoreError> {
        let rows: Vec<(String, i64)> =
            read!(self, "read the change generations", |db| sqlx::query_as(LIST).fetch_all(db))?;
        let mut generations = Generations::default();
        for (topic, value) in rows {
            match topic.as_str() {
                "accounts" => generations.accounts = value,
                "api_keys" => generations.api_keys = value,
                "settings" => generations.settings = value,
                // A newer version may know more topics.
                _ => {}
            }
        }
        Ok(generations)
    }
}

/// Raises a topic's counter in the transaction at hand.
macro_rules! raise {
    ($tx:ident, $topic:expr) => {
        sqlx::query($crate::store::generations::RAISE).bind($topic.as_str()).execute(&mut *$tx).await?
    };
}

pub(super) use raise;
