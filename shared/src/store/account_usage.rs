//! `account_usage_latest`: what upstream last said about each window of an account. Raises no generation: it changes
//! with every answer, and servers keep their own newer view of it.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::domain::upstream_window::{AccountUsage, UpstreamWindow};
use crate::ids::AccountId;

use super::columns::{Column, moment, moment_some};
use super::{Store, StoreError, read, transact};

const PRIMARY: &str = "primary";
const SECONDARY: &str = "secondary";

// Selecting from `accounts` leaves out an account that was deleted meanwhile, instead of failing the whole batch.
const SAVE: &str = "\
    insert into account_usage_latest (account_id, window_kind, used_percent, window_minutes, resets_at, observed_at) \
    select id, $2, $3, $4, $5, $6 from accounts where id = $1 \
    on conflict (account_id, window_kind) do update set \
        used_percent = excluded.used_percent, \
        window_minutes = excluded.window_minutes, \
        resets_at = excluded.resets_at, \
        observed_at = excluded.observed_at \
    where account_usage_latest.observed_at <= excluded.observed_at";

const FORGET: &str = "\
    delete from account_usage_latest where account_id = $1 and window_kind = $2 and observed_at <= $3";

const LIST: &str = "\
    select account_id, window_kind, used_percent, window_minutes, resets_at, observed_at \
    from account_usage_latest order by account_id, window_kind";

impl Store {
    /// Remembers observations, each unless a newer one is known. A window that an observation lacks is forgotten: the
    /// plan no longer has it. Observations of accounts that are not in the pool are left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn save_account_usage(&self, observations: &[(AccountId, AccountUsage)]) -> Result<(), StoreError> {
        // Always in the same order, so that two replicas cannot wait for each other's rows.
        let mut observations: Vec<_> = observations.iter().collect();
        observations.sort_by_key(|(account_id, usage)| (*account_id, usage.observed_at));
        transact!(self, "save account usage", |tx| {
            for (account_id, usage) in observations {
                let account_id = account_id.to_string();
                let observed_at = usage.observed_at.as_unix_ms();
                for (kind, window) in [(PRIMARY, usage.primary), (SECONDARY, usage.secondary)] {
                    let query = match window {
                        Some(window) => sqlx::query(SAVE)
                            .bind(&account_id)
                            .bind(kind)
                            .bind(window.used_percent)
                            .bind(i64::from(window.window_minutes))
                            .bind(window.resets_at.map(Timestamp::as_unix_ms))
                            .bind(observed_at),
                        None => sqlx::query(FORGET).bind(&account_id).bind(kind).bind(observed_at),
                    };
                    query.execute(&mut *tx).await?;
                }
            }
        })
    }

    /// What is remembered of every account that was ever observed. An observation without any window is not kept.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn list_account_usage(&self) -> Result<Vec<(AccountId, AccountUsage)>, StoreError> {
        let rows: Vec<WindowRow> = read!(self, "list account usage", |db| sqlx::query_as(LIST).fetch_all(db))?;
        let mut by_account = BTreeMap::new();
        for row in rows {
            let account_id: AccountId = column("account_id").parse(&row.account_id)?;
            let observed_at = moment(row.observed_at);
            let usage =
                by_account.entry(account_id).or_insert(AccountUsage { primary: None, secondary: None, observed_at });
            usage.observed_at = usage.observed_at.max(observed_at);
            match row.window_kind.as_str() {
                PRIMARY => usage.primary = Some(row.window()?),
                SECONDARY => usage.secondary = Some(row.window()?),
                _ => return Err(column("window_kind").corrupt()),
            }
        }
        Ok(by_account.into_iter().collect())
    }
}

#[derive(sqlx::FromRow)]
struct WindowRow {
    account_id: String,
    window_kind: String,
    used_percent: f64,
    window_minutes: i64,
    resets_at: Option<i64>,
    observed_at: i64,
}

impl WindowRow {
    fn window(&self) -> Result<UpstreamWindow, StoreError> {
        Ok(UpstreamWindow {
            used_percent: self.used_percent,
            window_minutes: column("window_minutes").number(self.window_minutes)?,
            resets_at: moment_some(self.resets_at),
        })
    }
}

const fn column(name: &'static str) -> Column {
    Column("account_usage_latest", name)
}
