//! Keeps the accounts' tokens fresh: one refresh at a time per account, stored before it is used.
//!
//! Refresh tokens are single-use: a refresh that is started must end, and its pair must reach the database, even when
//! the exchange that asked for it is gone. So it runs in a task of its own, and everybody who asks meanwhile waits for
//! the same one. Other replicas are kept off by a claim in the database; see `turn`.

mod new_pair;
mod trouble;
mod turn;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::clock;
use crate::domain::account::{Account, AccountState, AccountStatus};
use crate::egress::AccountEgress;
use crate::ids::AccountId;
use crate::pool::Pool;
use crate::secret::Sealer;
use crate::store::{Store, StoreError};
use crate::upstream_api::oauth::RefreshError;
use crate::upstream_api::{UpstreamApi, oauth};

use new_pair::NewPair;
use trouble::Trouble;
use turn::{Claim, Turn};

/// Longest call to the issuer. The client ends its calls earlier; this holds even if that changes.
const ISSUER_CALL_MAX: Duration = Duration::from_secs(40);
/// How often a caller's tokens are refreshed at most: once more, if the first refresh was meant for an older pair.
const FLIGHTS_MAX: u32 = 2;
/// Longest wait at a stop for refreshes that run: a call, then storing its pair.
const STOP_MAX: Duration = Duration::from_secs(60);

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
    troubles: Mutex<HashMap<AccountId, Trouble>>,
    /// Pairs that the issuer gave and the database does not hold yet. At most one per account.
    unsaved: Mutex<HashMap<AccountId, Arc<NewPair>>>,
    /// Fingerprint of the key that the database names and we do not have; it is complained about once.
    missing_key: Mutex<Option<String>>,
    tasks: TaskTracker,
    process_tasks: TaskTracker,
}

impl AccountTokens {
    /// Refreshes run in tasks of their own, which [`Self::stop`] waits for; `process_tasks` knows them too.
    pub fn new(
        store: Store,
        sealer: Arc<Sealer>,
        pool: Arc<Pool>,
        upstream: UpstreamApi,
        process_tasks: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            sealer,
            pool,
            upstream,
            flights: Mutex::default(),
            troubles: Mutex::default(),
            unsaved: Mutex::default(),
            missing_key: Mutex::default(),
            tasks: TaskTracker::new(),
            process_tasks,
        })
    }

    /// Makes sure that the pool holds a token of this account that is newer than `stale_version`. While an account is in
    /// trouble this fails at once, without asking the issuer.
    pub async fn refresh(self: &Arc<Self>, id: AccountId, stale_version: i64) -> Freshness {
        for _ in 0..FLIGHTS_MAX {
            if self.holds_another(id, stale_version) {
                return Freshness::Fresh;
            }
            let Some(flight) = self.flight(id, stale_version) else { return Freshness::Failed };
            match flight.await {
                // Perhaps it only was newer than what somebody else knew.
                Freshness::Fresh => {}
                outcome @ (Freshness::LoginEnded | Freshness::Failed) => return outcome,
            }
        }
        if self.holds_another(id, stale_version) { Freshness::Fresh } else { Freshness::Failed }
    }

    /// Seals with the key that the database names from now on. Whether it is another one than before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn follow_encryption_key(&self) -> Result<bool, StoreError> {
        let Some(recorded) = self.store.encryption_fingerprint().await? else { return Ok(false) };
        if recorded == self.sealer.fingerprint() {
            return Ok(false);
        }
        let is_known = self.sealer.seal_with(&recorded);
        let missing = (!is_known).then_some(recorded);
        let missed_before = std::mem::replace(&mut *self.missing_key.lock(), missing.clone());
        if missing.is_some() && missing != missed_before {
            warn!("the database was moved to an encryption key that this server does not have; give it that key");
        }
        Ok(is_known)
    }

    /// Waits until no refresh runs and every pair is stored, for a minute at most. Whoever waits for another replica
    /// stops waiting.
    pub async fn stop(&self) {
        self.tasks.close();
        if tokio::time::timeout(STOP_MAX, self.tasks.wait()).await.is_err() {
            warn!("token refreshes did not end in time");
        }
    }

    /// Any other version will do: after a restored backup the newer pair has the lower number.
    fn holds_another(&self, id: AccountId, stale_version: i64) -> bool {
        self.pool.snapshot().find(id).is_some_and(|pooled| pooled.account.token_version != stale_version)
    }

    /// The running refresh of this account, or a new one; none while the account must be left alone.
    fn flight(self: &Arc<Self>, id: AccountId, stale_version: i64) -> Option<Flight> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&id) {
            return Some(flight.clone());
        }
        if self.trouble(id, stale_version).is_some_and(|trouble| trouble.must_wait(Instant::now())) {
            return None;
        }
        let keeper = Arc::clone(self);
        let task = self.spawn(async move {
            let freshness = keeper.run_flight(id, stale_version).await;
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
        Some(flight)
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
        self.tasks.spawn(self.process_tasks.track_future(task))
    }

    /// The trouble that these very tokens are in.
    fn trouble(&self, id: AccountId, version: i64) -> Option<Trouble> {
        self.troubles.lock().get(&id).filter(|trouble| trouble.token_version == version).cloned()
    }

    async fn run_flight(self: &Arc<Self>, id: AccountId, stale_version: i64) -> Freshness {
        match self.refresh_in_turn(id, stale_version).await {
            Ok(freshness @ Freshness::Fresh) => {
                self.troubles.lock().remove(&id);
                freshness
            }
            // Noted where it was learned, with its code.
            Ok(freshness @ Freshness::LoginEnded) => freshness,
            Ok(freshness @ Freshness::Failed) => {
                let before = self.trouble(id, stale_version);
                self.note_trouble(id, Trouble::after_failure(before.as_ref(), stale_version, Instant::now()));
                freshness
            }
            Err(error) => {
                warn!(account.id = %id, error = %error, "a token refresh could not use the database");
                // The issuer was spared, so the pause need not grow.
                self.note_trouble(id, Trouble::after_failure(None, stale_version, Instant::now()));
                Freshness::Failed
            }
        }
    }

    fn note_trouble(&self, id: AccountId, trouble: Trouble) {
        let pool = self.pool.snapshot();
        let mut troubles = self.troubles.lock();
        troubles.retain(|known, _| pool.find(*known).is_some());
        troubles.insert(id, trouble);
    }

    async fn refresh_in_turn(self: &Arc<Self>, id: AccountId, stale_version: i64) -> Result<Freshness, StoreError> {
        // The refresh token of the stored pair is used up; what it gave must be stored, whoever asks.
        if let Some(claim) = self.store_unsaved(id).await? {
            self.release(id, &claim).await;
            return Ok(self.reload().await);
        }
        if let Some(code) = self.trouble(id, stale_version).and_then(|trouble| trouble.ended_by) {
            return self.end_login(id, stale_version, code).await;
        }
        match self.take_turn(id, stale_version).await? {
            Turn::Over(freshness) => Ok(freshness),
            Turn::Ours(claim) => {
                let outcome = self.refresh_claimed(id, stale_version, &claim).await;
                // While a pair is not stored nobody may use the refresh token before it.
                if self.unsaved_pair(id).is_none() {
                    self.release(id, &claim).await;
                }
                outcome
            }
        }
    }

    /// Runs while we hold the claim, so the stored pair is the one to start from.
    async fn refresh_claimed(
        self: &Arc<Self>,
        id: AccountId,
        stale_version: i64,
        claim: &Claim,
    ) -> Result<Freshness, StoreError> {
        let Some(stored) = self.store.find_account(id).await? else { return Ok(Freshness::Failed) };
        let version = stored.account.token_version;
        if version != stale_version {
            // Another replica was faster; using its refresh token up would only cost a round trip.
            return Ok(self.reload().await);
        }
        if needs_person(stored.account.status.state) {
            self.reload().await;
            return Ok(Freshness::LoginEnded);
        }
        let tokens = match stored.tokens.open(&self.sealer, id) {
            Ok(tokens) => tokens,
            Err(error) => {
                warn!(account.id = %id, error = %error, "the stored tokens do not open");
                return Ok(Freshness::Failed);
            }
        };
        let Some(egress) = self.egress_of(&stored.account).await else {
            warn!(account.id = %id, "what the account is bound to could not be read; its tokens were not refreshed");
            return Ok(Freshness::Failed);
        };
        if !claim.covers_a_call() {
            debug!(account.id = %id, "the database was too slow to refresh under this claim");
            return Ok(Freshness::Failed);
        }
        let call = self.upstream.refresh_tokens(&egress, &tokens.refresh_token);
        let failed = match tokio::time::timeout(ISSUER_CALL_MAX, call).await {
            Ok(Ok(refreshed)) => return self.keep(id, NewPair::new(version, tokens, refreshed, claim.clone())).await,
            Ok(Err(RefreshError::LoginEnded(code))) => return self.end_login(id, version, code).await,
            Ok(Err(
                error @ (RefreshError::NoWayOut(_)
                | RefreshError::Refused(_)
                | RefreshError::Unreachable(_)
                | RefreshError::Unreadable),
            )) => Some(error),
            Err(_) => None,
        };
        let error = failed.as_ref().map(|error: &oauth::RefreshError| error as &(dyn std::error::Error + 'static));
        warn!(account.id = %id, error, "a token refresh failed");
        Ok(Freshness::Failed)
    }

    /// How the account leaves by what is stored now: somebody may have bound it to another egress proxy a moment ago.
    async fn egress_of(&self, stored: &Account) -> Option<AccountEgress> {
        let known = |pool: &Pool| {
            let snapshot = pool.snapshot();
            let pooled = snapshot.find(stored.id)?;
            (pooled.account.egress_proxy_id == stored.egress_proxy_id).then(|| pooled.egress.clone())
        };
        match known(&self.pool) {
            Some(egress) => Some(egress),
            None => {
                self.reload().await;
                known(&self.pool)
            }
        }
    }

    /// The issuer says that these tokens never work again.
    async fn end_login(&self, id: AccountId, version: i64, code: &'static str) -> Result<Freshness, StoreError> {
        let status = AccountStatus {
            state: AccountState::ReauthRequired,
            reason: Some(format!("login ended: {code}")),
            until: None,
        };
        // "Reused" may mean that another replica just used it: then the database holds a newer pair, which stays.
        if self.store.end_login(id, version, &status, clock::now()).await? {
            warn!(account.id = %id, code, "the account's login has ended; it must log in again");
        }
        self.reload().await;
        if self.holds_another(id, version) {
            return Ok(Freshness::Fresh);
        }
        // A pause stands above it and hides it, so it is remembered here: the issuer need not say it twice.
        self.note_trouble(id, Trouble::ended(version, code));
        Ok(Freshness::LoginEnded)
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

/// Whether only a person can bring the account back; its refresh token is dead.
const fn needs_person(state: AccountState) -> bool {
    match state {
        AccountState::ReauthRequired | AccountState::Deactivated => true,
        AccountState::Active | AccountState::RateLimited | AccountState::QuotaExceeded | AccountState::Paused => false,
    }
}
