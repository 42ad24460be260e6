//! `token_refresh_claims`: which process may use an account's refresh token, and for how long.
//!
//! Leases are measured by the database's clock, so that replicas whose clocks differ agree on when one is over. Nothing
//! here raises a generation: no server remembers claims.

use std::time::Duration;

use crate::domain::account::AccountState;
use crate::ids::AccountId;

use super::columns::Column;
use super::{Store, StoreError, TwinSql, read, transact};

/// Milliseconds since the Unix epoch by the database's clock: SQLite and PostgreSQL have no common word for it.
macro_rules! claim {
    ($now:literal) => {
        concat!(
            "insert into token_refresh_claims (account_id, claimed_by, claimed_until) select id, $2, ",
            $now,
            " + $3 from accounts where id = $1 on conflict (account_id) do update set ",
            "claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until ",
            "where token_refresh_claims.claimed_until <= ",
            $now,
            " or token_refresh_claims.claimed_by = excluded.claimed_by"
        )
    };
}

macro_rules! progress {
    ($now:literal) => {
        concat!(
            "select token_version, state, token_refresh_claims.claimed_until > ",
            $now,
            " as is_running from accounts ",
            "left join token_refresh_claims on token_refresh_claims.account_id = accounts.id where accounts.id = $1"
        )
    };
}

const CLAIM: TwinSql = TwinSql {
    sqlite: claim!("cast(unixepoch('subsec') * 1000 as integer)"),
    postgres: claim!("cast(extract(epoch from clock_timestamp()) * 1000 as bigint)"),
};
const PROGRESS: TwinSql = TwinSql {
    sqlite: progress!("cast(unixepoch('subsec') * 1000 as integer)"),
    postgres: progress!("cast(extract(epoch from clock_timestamp()) * 1000 as bigint)"),
};
const RELEASE: &str = "delete from token_refresh_claims where account_id = $1 and claimed_by = $2";

/// How far a refresh has come that another process may be running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshProgress {
    /// Version of the stored tokens.
    pub token_version: i64,
    /// The stored state.
    pub state: AccountState,
    /// The claim on the account.
    pub claim: ClaimState,
}

/// A claim, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Nobody refreshes: whoever did is done.
    None,
    /// Somebody refreshes.
    Running,
    /// Somebody claimed it and did not come back in time.
    Expired,
}

impl Store {
    /// Takes the right to refresh this account's tokens for the span of `lease`. Whether it was taken: of several
    /// claimants at once exactly one succeeds. It can be taken while nobody has it, from somebody whose lease is over,
    /// and anew by its own holder.
    ///
    /// # Errors
    /// When the database does not answer. The claim may have been taken then; it ends with its lease.
    pub async fn claim_token_refresh(
        &self,
        id: AccountId,
        claimed_by: &str,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 2);
        transact!(self, "claim a token refresh", |tx| {
            let claim = sqlx::query(self.either(&CLAIM)).bind(id.to_string()).bind(claimed_by).bind(lease_ms);
            claim.execute(&mut *tx).await?.rows_affected() > 0
        })
    }

    /// Gives a claim back. One that somebody else took over meanwhile stays theirs.
    ///
    /// # Errors
    /// When the database does not answer; the claim then ends with its lease.
    pub async fn release_token_refresh(&self, id: AccountId, claimed_by: &str) -> Result<(), StoreError> {
        transact!(self, "release a token refresh", |tx| {
            sqlx::query(RELEASE).bind(id.to_string()).bind(claimed_by).execute(&mut *tx).await?;
        })
    }

    /// What has become of this account's tokens and of the claim on them; `None` when there is no such account.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn token_refresh_progress(&self, id: AccountId) -> Result<Option<RefreshProgress>, StoreError> {
        let row: Option<(i64, String, Option<bool>)> = read!(self, "look at a token refresh", |db| {
            sqlx::query_as(self.either(&PROGRESS)).bind(id.to_string()).fetch_optional(db)
        })?;
        row.map(|(token_version, state, is_running)| {
            let claim = match is_running {
                None => ClaimState::None,
                Some(true) => ClaimState::Running,
                Some(false) => ClaimState::Expired,
            };
            let state = AccountState::parse(&state).ok_or_else(|| Column("accounts", "state").corrupt())?;
            Ok(RefreshProgress { token_version, state, claim })
        })
        .transpose()
    }
}
