//! The pool: all accounts, in memory, as an immutable snapshot that is swapped whole, beside the live state that
//! changes with every reply.
//!
//! The database is the truth about which accounts exist, their tokens and their states. What the data plane learns
//! (limits, usage) takes effect in memory at once and is written behind by [`Pool::run_writer`]. Nothing in here waits
//! for the database while an exchange runs.

mod live;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use secrecy::SecretString;
use tokio::sync::Notify;
use tracing::warn;

use crate::clock::Timestamp;
use crate::domain::account::{Account, AccountStatus};
use crate::domain::egress_proxy::EgressAccess;
use crate::domain::settings::RoutingSettings;
use crate::domain::upstream_window::AccountUsage;
use crate::egress::{AccountEgress, Egress, EgressTable};
use crate::ids::AccountId;
use crate::reload_order::ReloadOrder;
use crate::secret::{SealError, Sealer};
use crate::store::{Store, StoreError};

pub use live::{AccountLive, Lease, LiveView};

/// One account of a snapshot.
pub struct PooledAccount {
    /// Identity, plan and what an operator set. Its `status` is the one at load time; ask [`Self::live`] for now.
    pub account: Account,
    /// Sent upstream and nowhere else.
    pub access_token: SecretString,
    /// How all its connections leave.
    pub egress: AccountEgress,
    /// What changes with every reply; shared by all snapshots.
    pub live: Arc<AccountLive>,
}

/// All accounts at one moment.
#[derive(Default)]
pub struct PoolSnapshot {
    /// In the order they joined the pool.
    pub accounts: Vec<Arc<PooledAccount>>,
    /// The egress proxies that they, or calls that belong to no account, go out through.
    pub egresses: Arc<EgressTable>,
}

impl PoolSnapshot {
    /// The account with this id.
    pub fn find(&self, id: AccountId) -> Option<&Arc<PooledAccount>> {
        self.accounts.iter().find(|pooled| pooled.account.id == id)
    }
}

/// Why the pool could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The database did not answer, or held something unreadable.
    #[error("load the accounts")]
    Store(#[from] StoreError),
    /// A token does not open with the configured encryption key.
    #[error("open the tokens of account {account}")]
    Seal {
        /// Whose.
        account: AccountId,
        /// Why.
        #[source]
        source: SealError,
    },
}

/// The accounts of this installation, shared by both planes.
pub struct Pool {
    store: Store,
    sealer: Arc<Sealer>,
    snapshot: ArcSwap<PoolSnapshot>,
    pending: parking_lot::Mutex<HashMap<AccountId, writer::PendingWrite>>,
    pending_added: Notify,
    choices: AtomicU64,
    default_cap: AtomicU32,
    slot_freed: Arc<OnceLock<live::SlotFreed>>,
    reloads: ReloadOrder,
    /// Of accounts that are bound to no egress proxy, and of calls that belong to no account.
    default_egress: AccountEgress,
}

impl Pool {
    /// Loads all accounts. Those that are bound to no egress proxy go out through `default_egress`.
    ///
    /// # Errors
    /// When the database does not answer or a token does not open.
    pub async fn load(
        store: Store,
        sealer: Arc<Sealer>,
        default_egress: Option<EgressAccess>,
    ) -> Result<Arc<Self>, PoolError> {
        let default_egress =
            default_egress.map_or(AccountEgress::Direct, |access| AccountEgress::Through(Egress::new(access)));
        let pool = Arc::new(Self {
            store,
            sealer,
            default_egress,
            snapshot: ArcSwap::default(),
            pending: parking_lot::Mutex::default(),
            pending_added: Notify::new(),
            choices: AtomicU64::new(1),
            default_cap: AtomicU32::new(RoutingSettings::default().account_concurrency_cap),
            slot_freed: Arc::default(),
            reloads: ReloadOrder::default(),
        });
        pool.reload().await?;
        Ok(pool)
    }

    /// The accounts now. Cheap; never blocks.
    pub fn snapshot(&self) -> Arc<PoolSnapshot> {
        self.snapshot.load_full()
    }

    /// Reads all accounts again and swaps the snapshot. Live state survives; a state or usage that is still to be
    /// written wins over what the database says.
    ///
    /// # Errors
    /// When the database does not answer or a token does not open; the old snapshot stays.
    pub async fn reload(&self) -> Result<(), PoolError> {
        let reload = self.reloads.begin();
        let stored = self.store.list_accounts().await?;
        // After the accounts: whatever they are bound to can then only be missing if it was taken from them meanwhile.
        let egresses = self.store.list_egress_proxies().await?;
        let usage: HashMap<AccountId, AccountUsage> = self.store.list_account_usage().await?.into_iter().collect();
        let before = self.snapshot.load_full();
        let egresses = EgressTable::open(egresses, &self.default_egress, &self.sealer, &before.egresses);
        for (id, closed) in egresses.closed_since(&before.egresses) {
            warn!(egress.id = %id, error = %closed, "an egress proxy cannot be used; accounts bound to it cannot serve");
        }
        let mut accounts = Vec::with_capacity(stored.len());
        for row in stored {
            let known = before.find(row.account.id);
            let access_token = match known {
                Some(known) if known.account.token_version == row.account.token_version => known.access_token.clone(),
                _ => {
                    let opened = row.tokens.open_access_token(&self.sealer, row.account.id);
                    opened.map_err(|source| PoolError::Seal { account: row.account.id, source })?
                }
            };
            let live = known.map_or_else(Arc::default, |known| Arc::clone(&known.live));
            let egress = egresses.of(row.account.egress_proxy_id);
            accounts.push(Arc::new(PooledAccount { account: row.account, access_token, egress, live }));
        }
        self.reloads.apply(reload, || {
            for pooled in &accounts {
                self.bring_live(pooled, usage.get(&pooled.account.id));
            }
            self.snapshot.store(Arc::new(PoolSnapshot { accounts, egresses: Arc::new(egresses) }));
        });
        Ok(())
    }

    /// Brings the live state of a loaded account up to what the database says. A status that is still to be written
    /// wins, but never over what a person or the end of a login says.
    fn bring_live(&self, pooled: &PooledAccount, usage: Option<&AccountUsage>) {
        let stored = &pooled.account.status;
        let pending = self.pending.lock().get(&pooled.account.id).and_then(|pending| pending.status.clone());
        let status = pending.filter(|_| stored.state.yields_to_upstream()).unwrap_or_else(|| stored.clone());
        pooled.live.set_status(status);
        if let Some(usage) = usage {
            pooled.live.observe_usage(*usage);
        }
    }

    /// The right to use `pooled` for one leg, if it has a slot under its cap; in flight until it is dropped.
    pub fn try_lease(&self, pooled: &Arc<PooledAccount>) -> Option<Lease> {
        let choice = self.choices.fetch_add(1, Ordering::Relaxed);
        Lease::take(pooled, self.cap_of(&pooled.account), choice, &self.slot_freed)
    }

    /// How many exchanges may run on an account at once.
    pub fn cap_of(&self, account: &Account) -> u32 {
        account.concurrency_cap.unwrap_or_else(|| self.default_cap.load(Ordering::Relaxed))
    }

    /// Sets the cap of accounts that have none of their own.
    pub fn set_default_cap(&self, cap: u32) {
        self.default_cap.store(cap, Ordering::Relaxed);
    }

    /// Calls `listener` whenever a lease ends, with the account whose slot is free. Only the first listener counts.
    pub fn on_slot_freed(&self, listener: impl Fn(&Arc<PooledAccount>) + Send + Sync + 'static) {
        if self.slot_freed.set(Box::new(listener)).is_err() {
            debug_assert!(false, "the pool has one data plane");
        }
    }

    /// Takes note of what upstream reported about an account's windows.
    pub fn observe_usage(&self, pooled: &PooledAccount, usage: AccountUsage) {
        if pooled.live.observe_usage(usage) {
            self.pending.lock().entry(pooled.account.id).or_default().usage = Some(usage);
            self.pending_added.notify_one();
        }
    }

    /// Takes an account out because of an upstream reply, at once here and soon in the database. Neither here nor
    /// there does it overrule an operator's pause or a login that has ended.
    pub fn apply_status(&self, pooled: &PooledAccount, status: AccountStatus) {
        if !pooled.live.apply_upstream_status(&status) {
            return;
        }
        self.pending.lock().entry(pooled.account.id).or_default().status = Some(status);
        self.pending_added.notify_one();
    }

    /// The views that the choice of an account needs, at `now`.
    pub fn live_views(&self, snapshot: &PoolSnapshot, now: Timestamp) -> Vec<LiveView> {
        snapshot.accounts.iter().map(|pooled| pooled.live.view(now)).collect()
    }
}
