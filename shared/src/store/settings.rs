//! `settings`: one JSON document per group of live settings, and the model catalog. Which encryption key is in use
//! stands there too: see [`super::encryption`].

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::domain::models::ModelCatalog;
use crate::domain::settings::Settings;

use super::error::Cause;
use super::generations::{Topic, raise};
use super::{Store, StoreError, read, transact};

const MODEL_CATALOG: &str = "model_catalog";

/// A group of live settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SettingsGroup {
    /// How accounts are chosen.
    Routing,
    /// Who may call.
    Access,
}

impl SettingsGroup {
    /// The name in the database, in JSON and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Access => "access",
        }
    }
}

/// A group with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The group.
    pub value: T,
    /// Grows by one with every save; 0 while all is default and nothing was saved.
    pub version: i64,
}

const LOAD: &str = "select value, version from settings where name = $1";
const LOAD_GROUPS: &str = "select name, value from settings where name in ('routing', 'access')";

// Expecting version 0 means expecting no row, so only then may one be made.
const SAVE: &str = "\
    insert into settings (name, value, version, updated_at) \
    select $1, $2, 1, $4 where $3 = 0 or exists (select 1 from settings where name = $1) \
    on conflict (name) do update set \
        value = excluded.value, version = settings.version + 1, updated_at = excluded.updated_at \
    where settings.version = $3 \
    returning version";

const SAVE_IF_NEW: &str = "\
    insert into settings (name, value, version, updated_at) values ($1, $2, 1, $3) \
    on conflict (name) do update set \
        value = excluded.value, version = settings.version + 1, updated_at = excluded.updated_at \
    where settings.value <> excluded.value";

impl Store {
    /// All groups; what was never saved has its default.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the group's name when one does not read: a newer version may have written it. The
    /// defaults would be worse than the error, as they may let more callers in.
    pub async fn load_settings(&self) -> Result<Settings, StoreError> {
        let rows: Vec<(String, String)> =
            read!(self, "load the settings", |db| sqlx::query_as(LOAD_GROUPS).fetch_all(db))?;
        let mut settings = Settings::default();
        for (name, value) in rows {
            match name.as_str() {
                "routing" => settings.routing = from_json("routing", &value)?,
                _ => settings.access = from_json("access", &value)?,
            }
        }
        Ok(settings)
    }

    /// One group with its version, which [`Self::save_settings_group`] wants back.
    ///
    /// # Errors
    /// As [`Self::load_settings`].
    pub async fn load_settings_group<T: DeserializeOwned + Default>(
        &self,
        group: SettingsGroup,
    ) -> Result<Versioned<T>, StoreError> {
        let row: Option<(String, i64)> = read!(self, "load a group of settings", |db| {
            sqlx::query_as(LOAD).bind(group.as_str()).fetch_optional(db)
        })?;
        match row {
            Some((value, version)) => Ok(Versioned { value: from_json(group.as_str(), &value)?, version }),
            None => Ok(Versioned { value: T::default(), version: 0 }),
        }
    }

    /// Saves a group if it still has the version that the change was made from, and tells its new version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else saved the group since.
    pub async fn save_settings_group(
        &self,
        group: SettingsGroup,
        value: &(impl Serialize + Sync),
        expected_version: i64,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        const ACTION: &str = "save a group of settings";
        let value = to_json(ACTION, value)?;
        let version: Option<i64> = transact!(self, ACTION, |tx| {
            let version = sqlx::query_scalar(SAVE)
                .bind(group.as_str())
                .bind(&value)
                .bind(expected_version)
                .bind(now.as_unix_ms())
                .fetch_optional(&mut *tx)
                .await?;
            if version.is_some() {
                raise!(tx, Topic::Settings);
            }
            version
        })?;
        version.ok_or(StoreError::Conflict { action: ACTION })
    }

    /// The model catalog as last saved; empty if none was.
    ///
    /// # Errors
    /// As [`Self::load_settings`].
    pub async fn load_model_catalog(&self) -> Result<ModelCatalog, StoreError> {
        let row: Option<(String, i64)> = read!(self, "load the model catalog", |db| {
            sqlx::query_as(LOAD).bind(MODEL_CATALOG).fetch_optional(db)
        })?;
        row.map_or_else(|| Ok(ModelCatalog::default()), |(value, _)| from_json(MODEL_CATALOG, &value))
    }

    /// Saves the model catalog over the one before. Whether it differed; only then is anybody told.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn save_model_catalog(&self, catalog: &ModelCatalog, now: Timestamp) -> Result<bool, StoreError> {
        const ACTION: &str = "save the model catalog";
        let value = to_json(ACTION, catalog)?;
        transact!(self, ACTION, |tx| {
            let save = sqlx::query(SAVE_IF_NEW).bind(MODEL_CATALOG).bind(&value).bind(now.as_unix_ms());
            let has_changed = save.execute(&mut *tx).await?.rows_affected() > 0;
            if has_changed {
                raise!(tx, Topic::Settings);
            }
            has_changed
        })
    }
}

pub(super) fn to_json(action: &'static str, value: &(impl Serialize + ?Sized)) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Query { action, source: Cause::new(error) })
}

/// The parser's words may quote the document, so only where it stumbled is kept.
pub(super) fn from_json<T: DeserializeOwned>(name: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column());
        StoreError::Corrupt { table: "settings", column: name, source: Some(Cause::new(place)) }
    })
}
