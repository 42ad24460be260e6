//! `accounts`: the pool's logins, with their tokens sealed.
//!
//! Tokens enter and leave sealed; nothing here can read them. Every write raises the `accounts` generation.

use crate::clock::Timestamp;
use crate::domain::account::{Account, AccountState, AccountStatus, Plan, RoutingPolicy, UpstreamIdentity};
use crate::ids::{AccountId, EgressProxyId};
use crate::secret::SealedTokens;

use super::columns::{Column, moment, moment_some};
use super::encryption::is_key_retired;
use super::generations::{Topic, raise};
use super::{Store, StoreError, read, transact};

/// An account with its sealed tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAccount {
    /// The account.
    pub account: Account,
    /// Its tokens, sealed for it.
    pub tokens: SealedTokens,
}

/// A login to put into the pool.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// What [`Store::account_id_for`] said, else a new id. The tokens are sealed for it.
    pub id: AccountId,
    /// Who it is to upstream.
    pub identity: UpstreamIdentity,
    /// The login's e-mail address.
    pub email: String,
    /// The subscription.
    pub plan: Plan,
    /// The random id to send upstream if the account is new; one that exists keeps its own.
    pub installation_id: String,
    /// Its tokens, sealed for `id`.
    pub tokens: SealedTokens,
    /// When the access token expires, if it says so.
    pub access_token_expires_at: Option<Timestamp>,
}

/// What became of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upserted {
    /// The account.
    pub id: AccountId,
    /// Whether it joined the pool just now.
    pub was_new: bool,
}

/// What an operator changes about an account; `None` leaves a thing as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountPatch {
    /// Another name, or `Some(None)` for none.
    pub alias: Option<Option<String>>,
    /// Another routing policy.
    pub routing_policy: Option<RoutingPolicy>,
    /// Another cap, or `Some(None)` for the setting's default.
    pub concurrency_cap: Option<Option<u32>>,
    /// Another egress proxy, or `Some(None)` for the installation's default.
    pub egress_proxy_id: Option<Option<EgressProxyId>>,
}

macro_rules! select_accounts {
    ($rest:literal) => {
        concat!(
            "select id, chatgpt_account_id, chatgpt_user_id, email, alias, plan, state, state_reason, state_until, ",
            "routing_policy, concurrency_cap, egress_proxy_id, installation_id, id_token_sealed, access_token_sealed, ",
            "refresh_token_sealed, access_token_expires_at, tokens_refreshed_at, token_version, created_at ",
            "from accounts ",
            $rest
        )
    };
}

const LIST: &str = select_accounts!("order by created_at, id");
const FIND: &str = select_accounts!("where id = $1");
const FIND_ID: &str = "select id from accounts where chatgpt_account_id = $1 and chatgpt_user_id = $2";

// A new login cures what only a new login can cure; what an operator or a window decided stays. The row changes only if
// it has the id that the tokens were sealed for.
const UPSERT: &str = "\
    insert into accounts (id, chatgpt_account_id, chatgpt_user_id, email, plan, state, routing_policy, \
        installation_id, id_token_sealed, access_token_sealed, refresh_token_sealed, access_token_expires_at, \
        tokens_refreshed_at, token_version, created_at, updated_at) \
    values ($1, $2, $3, $4, $5, 'active', 'normal', $6, $7, $8, $9, $10, $11, 1, $11, $11) \
    on conflict (chatgpt_account_id, chatgpt_user_id) do update set \
        email = excluded.email, \
        plan = excluded.plan, \
        id_token_sealed = excluded.id_token_sealed, \
        access_token_sealed = excluded.access_token_sealed, \
        refresh_token_sealed = excluded.refresh_token_sealed, \
        access_token_expires_at = excluded.access_token_expires_at, \
        tokens_refreshed_at = excluded.tokens_refreshed_at, \
        token_version = accounts.token_version + 1, \
        state = case when accounts.state in ('reauth_required', 'deactivated') then 'active' \
            else accounts.state end, \
        state_reason = case when accounts.state in ('reauth_required', 'deactivated') then null \
            else accounts.state_reason end, \
        state_until = case when accounts.state in ('reauth_required', 'deactivated') then null \
            else accounts.state_until end, \
        updated_at = excluded.updated_at \
    where accounts.id = excluded.id \
    returning token_version";

// Tokens that the issuer just gave prove that the login works, whatever another replica concluded from the pair before.
const REPLACE_TOKENS: &str = "\
    update accounts set id_token_sealed = $3, access_token_sealed = $4, refresh_token_sealed = $5, \
        access_token_expires_at = $6, tokens_refreshed_at = $7, updated_at = $7, token_version = token_version + 1, \
        state = case when state = 'reauth_required' then 'active' else state end, \
        state_reason = case when state = 'reauth_required' then null else state_reason end, \
        state_until = case when state = 'reauth_required' then null else state_until end \
    where id = $1 and token_version = $2";

const SET_STATUS: &str = "\
    update accounts set state = $2, state_reason = $3, state_until = $4, updated_at = $5 where id = $1";

const APPLY_UPSTREAM_STATUS: &str = "\
    update accounts set state = $2, state_reason = $3, state_until = $4, updated_at = $5 \
    where id = $1 and state not in ('paused', 'reauth_required', 'deactivated')";

const END_LOGIN: &str = "\
    update accounts set state = $2, state_reason = $3, state_until = $4, updated_at = $5 \
    where id = $1 and token_version = $6 and state not in ('paused', 'deactivated')";

const PATCH: &str = "\
    update accounts set \
        alias = case when $2 then $3 else alias end, \
        routing_policy = coalesce($4, routing_policy), \
        concurrency_cap = case when $5 then $6 else concurrency_cap end, \
        egress_proxy_id = case when $8 then $9 else egress_proxy_id end, \
        updated_at = $7 \
    where id = $1";

const DELETE: &str = "delete from accounts where id = $1";

impl Store {
    /// All accounts with their sealed tokens, oldest first.
    ///
    /// # Errors
    /// When the database does not answer, or holds what we cannot read.
    pub async fn list_accounts(&self) -> Result<Vec<StoredAccount>, StoreError> {
        let rows: Vec<AccountRow> = read!(self, "list the accounts", |db| sqlx::query_as(LIST).fetch_all(db))?;
        rows.into_iter().map(AccountRow::read).collect()
    }

    /// The account with this id.
    ///
    /// # Errors
    /// As [`Self::list_accounts`].
    pub async fn find_account(&self, id: AccountId) -> Result<Option<StoredAccount>, StoreError> {
        let row: Option<AccountRow> =
            read!(self, "find an account", |db| sqlx::query_as(FIND).bind(id.to_string()).fetch_optional(db))?;
        row.map(AccountRow::read).transpose()
    }

    /// The id of the account with this identity, if it is in the pool: what its new tokens must be sealed for.
    ///
    /// # Errors
    /// As [`Self::list_accounts`].
    pub async fn account_id_for(&self, identity: &UpstreamIdentity) -> Result<Option<AccountId>, StoreError> {
        let id: Option<String> = read!(self, "find an account by its identity", |db| {
            sqlx::query_scalar(FIND_ID)
                .bind(&identity.chatgpt_account_id)
                .bind(&identity.chatgpt_user_id)
                .fetch_optional(db)
        })?;
        Column("accounts", "id").parse_some(id.as_deref())
    }

    /// Puts a login into the pool. An identity that is in the pool keeps its id, its history and what an operator set;
    /// it gets the new tokens, and is active again if only a new login could bring it back.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the identity is in the pool under another id than the tokens were sealed for:
    /// somebody else stored the same login since [`Self::account_id_for`]. Or the key that they were sealed with was
    /// replaced meanwhile. Ask again and seal anew.
    pub async fn upsert_account(&self, login: &NewAccount, now: Timestamp) -> Result<Upserted, StoreError> {
        let token_version: Option<i64> = transact!(self, "store an account", |tx| {
            if is_key_retired!(self, tx, |key_id: &str| login.tokens.are_sealed_with(key_id)) {
                None
            } else {
                let token_version = sqlx::query_scalar(UPSERT)
                    .bind(login.id.to_string())
                    .bind(&login.identity.chatgpt_account_id)
                    .bind(&login.identity.chatgpt_user_id)
                    .bind(&login.email)
                    .bind(login.plan.as_str())
                    .bind(&login.installation_id)
                    .bind(&login.tokens.id_token)
                    .bind(&login.tokens.access_token)
                    .bind(&login.tokens.refresh_token)
                    .bind(login.access_token_expires_at.map(Timestamp::as_unix_ms))
                    .bind(now.as_unix_ms())
                    .fetch_optional(&mut *tx)
                    .await?;
                if token_version.is_some() {
                    raise!(tx, Topic::Accounts);
                }
                token_version
            }
        })?;
        let token_version = token_version.ok_or(StoreError::Conflict { action: "store an account" })?;
        Ok(Upserted { id: login.id, was_new: token_version == 1 })
    }

    /// Stores what a refresh answered, if nobody replaced the tokens since `expected_token_version` was read. Whether
    /// this call did it: of several with the same expectation exactly one does. A login that was thought to have ended
    /// works again; every other status stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the key that they were sealed with was replaced meanwhile; seal anew.
    pub async fn replace_tokens(
        &self,
        id: AccountId,
        expected_token_version: i64,
        tokens: &SealedTokens,
        access_token_expires_at: Option<Timestamp>,
        refreshed_at: Timestamp,
    ) -> Result<bool, StoreError> {
        const ACTION: &str = "replace an account's tokens";
        let is_replaced: Option<bool> = transact!(self, ACTION, |tx| {
            if is_key_retired!(self, tx, |key_id: &str| tokens.are_sealed_with(key_id)) {
                None
            } else {
                let replace = sqlx::query(REPLACE_TOKENS)
                    .bind(id.to_string())
                    .bind(expected_token_version)
                    .bind(&tokens.id_token)
                    .bind(&tokens.access_token)
                    .bind(&tokens.refresh_token)
                    .bind(access_token_expires_at.map(Timestamp::as_unix_ms))
                    .bind(refreshed_at.as_unix_ms());
                let is_replaced = replace.execute(&mut *tx).await?.rows_affected() > 0;
                if is_replaced {
                    raise!(tx, Topic::Accounts);
                }
                Some(is_replaced)
            }
        })?;
        is_replaced.ok_or(StoreError::Conflict { action: ACTION })
    }

    /// Sets the status whatever it was: an operator's word. Whether there is such an account.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn set_account_status(
        &self,
        id: AccountId,
        status: &AccountStatus,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_status(SET_STATUS, id, status, now, None).await
    }

    /// Sets the status that upstream's answers suggest. Whether it was set: never over an operator's pause, nor over a
    /// state that only a new login ends.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn apply_upstream_status(
        &self,
        id: AccountId,
        status: &AccountStatus,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_status(APPLY_UPSTREAM_STATUS, id, status, now, None).await
    }

    /// Sets the status of an account whose tokens no longer work. Whether it was set: only while the tokens that failed
    /// are still the stored ones, so that a failure that arrives late cannot end a login that was made meanwhile; and
    /// never over an operator's pause or an account that upstream closed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_login(
        &self,
        id: AccountId,
        failed_token_version: i64,
        status: &AccountStatus,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_status(END_LOGIN, id, status, now, Some(failed_token_version)).await
    }

    async fn write_status(
        &self,
        sql: &'static str,
        id: AccountId,
        status: &AccountStatus,
        now: Timestamp,
        token_version: Option<i64>,
    ) -> Result<bool, StoreError> {
        transact!(self, "set an account's status", |tx| {
            let set = sqlx::query(sql)
                .bind(id.to_string())
                .bind(status.state.as_str())
                .bind(&status.reason)
                .bind(status.until.map(Timestamp::as_unix_ms))
                .bind(now.as_unix_ms());
            let set = match token_version {
                Some(token_version) => set.bind(token_version),
                None => set,
            };
            let is_set = set.execute(&mut *tx).await?.rows_affected() > 0;
            if is_set {
                raise!(tx, Topic::Accounts);
            }
            is_set
        })
    }

    /// Changes what an operator may change. Whether there is such an account.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn update_account(
        &self,
        id: AccountId,
        patch: &AccountPatch,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        transact!(self, "change an account", |tx| {
            let change = sqlx::query(PATCH)
                .bind(id.to_string())
                .bind(patch.alias.is_some())
                .bind(patch.alias.as_ref().and_then(Option::as_ref))
                .bind(patch.routing_policy.map(RoutingPolicy::as_str))
                .bind(patch.concurrency_cap.is_some())
                .bind(patch.concurrency_cap.flatten().map(i64::from))
                .bind(now.as_unix_ms())
                .bind(patch.egress_proxy_id.is_some())
                .bind(patch.egress_proxy_id.flatten().map(|id| id.to_string()));
            let is_found = change.execute(&mut *tx).await?.rows_affected() > 0;
            if is_found {
                raise!(tx, Topic::Accounts);
            }
            is_found
        })
    }

    /// Removes an account with its tokens and its account usage; the request log stays. Whether there was such an
    /// account.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_account(&self, id: AccountId) -> Result<bool, StoreError> {
        transact!(self, "delete an account", |tx| {
            let is_deleted = sqlx::query(DELETE).bind(id.to_string()).execute(&mut *tx).await?.rows_affected() > 0;
            if is_deleted {
                raise!(tx, Topic::Accounts);
            }
            is_deleted
        })
    }
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    id: String,
    chatgpt_account_id: String,
    chatgpt_user_id: String,
    email: String,
    alias: Option<String>,
    plan: String,
    state: String,
    state_reason: Option<String>,
    state_until: Option<i64>,
    routing_policy: String,
    concurrency_cap: Option<i64>,
    egress_proxy_id: Option<String>,
    installation_id: String,
    id_token_sealed: String,
    access_token_sealed: String,
    refresh_token_sealed: String,
    access_token_expires_at: Option<i64>,
    tokens_refreshed_at: i64,
    token_version: i64,
    created_at: i64,
}

impl AccountRow {
    fn read(self) -> Result<StoredAccount, StoreError> {
        let column = |name| Column("accounts", name);
        let state = AccountState::parse(&self.state).ok_or_else(|| column("state").corrupt())?;
        let routing_policy =
            RoutingPolicy::parse(&self.routing_policy).ok_or_else(|| column("routing_policy").corrupt())?;
        Ok(StoredAccount {
            account: Account {
                id: column("id").parse(&self.id)?,
                identity: UpstreamIdentity {
                    chatgpt_account_id: self.chatgpt_account_id,
                    chatgpt_user_id: self.chatgpt_user_id,
                },
                email: self.email,
                alias: self.alias,
                plan: Plan::from_upstream(&self.plan),
                status: AccountStatus { state, reason: self.state_reason, until: moment_some(self.state_until) },
                routing_policy,
                concurrency_cap: column("concurrency_cap").number_some(self.concurrency_cap)?,
                egress_proxy_id: column("egress_proxy_id").parse_some(self.egress_proxy_id.as_deref())?,
                installation_id: self.installation_id,
                access_token_expires_at: moment_some(self.access_token_expires_at),
                tokens_refreshed_at: moment(self.tokens_refreshed_at),
                token_version: self.token_version,
                created_at: moment(self.created_at),
            },
            tokens: SealedTokens {
                id_token: self.id_token_sealed,
                access_token: self.access_token_sealed,
                refresh_token: self.refresh_token_sealed,
            },
        })
    }
}
