//! Keeps the accounts' tokens fresh: one refresh at a time per account, stored before it is used.
//!
//! Refresh tokens are single-use: a refresh that is started must end, and its pair must reach the database, even when
//! the exchange that asked for it is gone. So it runs in a task of its own, and everybody who asks meanwhile waits for
//! the same one.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock;
use crate::domain::account::{AccountState, AccountStatus};
use crate::domain::auth_file::{TokenSet, access_token_expiry};
use crate::ids::AccountId;
use crate::pool::Pool;
use crate::secret::{SealedTokens, Sealer};
use crate::store::{Store, StoreError};
use crate::upstream_api::UpstreamApi;
use crate::upstream_api::oauth::RefreshError;

/// What came of asking for a fresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The pool holds a token newer than the one the caller knew.
    Fresh,
    /// The login is over; the account waits for a person.
    LoginEnded,
    /// It did not work this time.
    Failed,
}

type Flight = Shared<BoxFuture<'static, Freshness>>;

/// Refreshes tokens.
pub struct AccountTokens {
    store: Store,
    sealer: Arc<Sealer>,
    pool: Arc<Pool>,
    upstream: UpstreamApi,
    flights: Mutex<HashMap<AccountId, Flight>>,
    tasks: TaskTracker,
}

impl AccountTokens {
    /// Refreshes run in `tasks`, which whoever stops the process waits for.
    pub fn new(
        store: Store,
        sealer: Arc<Sealer>,
        pool: Arc<Pool>,
        upstream: UpstreamApi,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self { store, sealer, pool, upstream, flights: Mutex::default(), tasks })
    }

    /// Makes sure that the pool holds a token of this account that is newer than `stale_version`.
    pub async fn refresh(self: &Arc<Self>, id: AccountId, stale_version: i64) -> Freshness {
        if self.pool.snapshot().find(id).is_some_and(|pooled| pooled.account.token_version > stale_version) {
            return Freshness::Fresh;
        }
        self.flight(id).await
    }

    /// The running refresh of this account, or a new one.
    fn flight(self: &Arc<Self>, id: AccountId) -> Flight {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&id) {
            return flight.clone();
        }
        let keeper = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let freshness = keeper.refresh_once(id).await;
            keeper.flights.lock().remove(&id);
            freshness
        });
        // A refresh that panicked left its flight behind; the next caller must not wait for it.
        let keeper = Arc::clone(self);
        let flight = task
            .map(move |joined| {
                joined.unwrap_or_else(|_| {
                    keeper.flights.lock().remove(&id);
                    Freshness::Failed
                })
            })
            .boxed()
            .shared();
        flights.insert(id, flight.clone());
        flight
    }

    async fn refresh_once(&self, id: AccountId) -> Freshness {
        match self.refresh_and_store(id).await {
            Ok(freshness) => freshness,
            Err(error) => {
                warn!(account.id = %id, error = %error, "a token refresh could not use the database");
                Freshness::Failed
            }
        }
    }

    async fn refresh_and_store(&self, id: AccountId) -> Result<Freshness, StoreError> {
        let Some(stored) = self.store.find_account(id).await? else { return Ok(Freshness::Failed) };
        let known_version = self.pool.snapshot().find(id).map(|pooled| pooled.account.token_version);
        if known_version.is_some_and(|known| stored.account.token_version > known) {
            // Another replica was faster; using its refresh token up would only cost a round trip.
            return Ok(self.reload().await);
        }
        let Ok(tokens) = stored.tokens.open(&self.sealer, id) else {
            warn!(account.id = %id, "the stored tokens do not open with the configured encryption key");
            return Ok(Freshness::Failed);
        };
        let refreshed = match self.upstream.refresh_tokens(&tokens.refresh_token).await {
            Ok(refreshed) => refreshed,
            Err(RefreshError::LoginEnded(code)) => return self.end_login(id, stored.account.token_version, code).await,
            Err(error @ (RefreshError::Refused(_) | RefreshError::Unreachable(_) | RefreshError::Unreadable)) => {
                warn!(account.id = %id, error = %error, "a token refresh failed");
                return Ok(Freshness::Failed);
            }
        };
        let next = TokenSet {
            id_token: refreshed.id_token.unwrap_or(tokens.id_token),
            access_token: refreshed.access_token.unwrap_or(tokens.access_token),
            refresh_token: refreshed.refresh_token.unwrap_or(tokens.refresh_token),
        };
        self.keep(id, stored.account.token_version, &next).await
    }

    async fn keep(&self, id: AccountId, expected_version: i64, next: &TokenSet) -> Result<Freshness, StoreError> {
        let expires_at = access_token_expiry(secrecy::ExposeSecret::expose_secret(&next.access_token));
        let Ok(sealed) = SealedTokens::seal(&self.sealer, id, next) else {
            warn!(account.id = %id, "refreshed tokens could not be sealed");
            return Ok(Freshness::Failed);
        };
        // If somebody else stored a pair meanwhile, theirs is as new as ours and already used; keep theirs.
        let stored = self.store.replace_tokens(id, expected_version, &sealed, expires_at, clock::now()).await?;
        info!(account.id = %id, stored, "account tokens refreshed");
        Ok(self.reload().await)
    }

    async fn end_login(&self, id: AccountId, used_version: i64, code: &'static str) -> Result<Freshness, StoreError> {
        let status = AccountStatus {
            state: AccountState::ReauthRequired,
            reason: Some(format!("login ended: {code}")),
            until: None,
        };
        // "Reused" may mean that another replica just used it: then the database holds a newer pair, which stays.
        let is_ended = self.store.end_login(id, used_version, &status, clock::now()).await?;
        if is_ended {
            warn!(account.id = %id, code, "the account's login has ended; it must log in again");
        }
        let reloaded = self.reload().await;
        Ok(if is_ended && reloaded == Freshness::Fresh { Freshness::LoginEnded } else { reloaded })
    }

    async fn reload(&self) -> Freshness {
        match self.pool.reload().await {
            Ok(()) => Freshness::Fresh,
            Err(error) => {
                warn!(error = %error, "the pool could not be reloaded after a token refresh");
                Freshness::Failed
            }
        }
    }
}
