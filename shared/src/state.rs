//! What both planes share in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::account_tokens::AccountTokens;
use crate::caches::ApiKeyCache;
use crate::changes::Changes;
use crate::config::Config;
use crate::domain::models::ModelCatalog;
use crate::domain::settings::Settings;
use crate::egress::{EgressDialer, EgressSetupError};
use crate::hop::HopSecret;
use crate::pool::{Pool, PoolError};
use crate::reload_order::ReloadOrder;
use crate::secret::Sealer;
use crate::store::{Generations, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::upstream_api::UpstreamApi;

/// Everything the planes agree on while the process runs.
pub struct SharedState {
    /// What was configured at start.
    pub config: Arc<Config>,
    /// The database.
    pub store: Store,
    /// Opens and seals account tokens.
    pub sealer: Arc<Sealer>,
    /// The accounts.
    pub pool: Arc<Pool>,
    /// Keeps their tokens fresh.
    pub account_tokens: Arc<AccountTokens>,
    /// Control calls to ChatGPT.
    pub upstream: UpstreamApi,
    /// Opens connections through egress proxies.
    pub egress_dialer: EgressDialer,
    /// Api keys by hash.
    pub api_keys: ApiKeyCache,
    /// What upstream offers.
    pub models: ArcSwap<ModelCatalog>,
    /// Live settings.
    pub settings: ArcSwap<Settings>,
    /// Wakes the change watch.
    pub changes: Changes,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Signs the identity of callers that the data plane hands to the control plane.
    pub hop_secret: HopSecret,
    /// Tasks that must end before the process does.
    pub tasks: TaskTracker,
    setting_reloads: ReloadOrder,
    is_draining: AtomicBool,
    is_database_lost: AtomicBool,
}

/// Why the shared state could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The accounts could not be loaded.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Connections through egress proxies cannot be set up.
    #[error(transparent)]
    Egress(#[from] EgressSetupError),
    /// Something else could not be read.
    #[error("load keys, settings and models")]
    Store(#[from] StoreError),
}

impl SharedState {
    /// Loads everything from a migrated database. Also returns the generations it was loaded at, for the watch.
    ///
    /// # Errors
    /// When the database does not answer, a token does not open with the sealer's key, or the certificates of
    /// `upstream.ca_file` cannot be read.
    pub async fn load(
        config: Arc<Config>,
        store: Store,
        sealer: Arc<Sealer>,
        upstream: UpstreamApi,
        metrics: Arc<Metrics>,
    ) -> Result<(Arc<Self>, Generations), LoadError> {
        let generations = store.generations().await?;
        let tasks = TaskTracker::new();
        let pool = Pool::load(store.clone(), Arc::clone(&sealer), config.upstream.egress.clone()).await?;
        let egress_dialer = EgressDialer::new(config.upstream.ca_file.as_deref(), config.upstream.connect_timeout)?;
        let account_tokens =
            AccountTokens::new(store.clone(), Arc::clone(&sealer), Arc::clone(&pool), upstream.clone(), tasks.clone());
        let settings = store.load_settings().await?;
        pool.set_default_cap(settings.routing.account_concurrency_cap);
        let state = Self {
            api_keys: ApiKeyCache::load(store.clone()).await?,
            models: ArcSwap::from_pointee(store.load_model_catalog().await?),
            settings: ArcSwap::from_pointee(settings),
            changes: Changes::default(),
            hop_secret: HopSecret::generate(),
            setting_reloads: ReloadOrder::default(),
            is_draining: AtomicBool::new(false),
            is_database_lost: AtomicBool::new(false),
            config,
            store,
            sealer,
            pool,
            account_tokens,
            upstream,
            egress_dialer,
            metrics,
            tasks,
        };
        Ok((Arc::new(state), generations))
    }

    /// Reads the live settings again.
    ///
    /// # Errors
    /// When the database does not answer; the old settings stay.
    pub async fn reload_settings(&self) -> Result<(), StoreError> {
        let reload = self.setting_reloads.begin();
        let (settings, models) = (self.store.load_settings().await?, self.store.load_model_catalog().await?);
        self.setting_reloads.apply(reload, || {
            self.pool.set_default_cap(settings.routing.account_concurrency_cap);
            self.settings.store(Arc::new(settings));
            self.models.store(Arc::new(models));
        });
        Ok(())
    }

    /// From now on the process is not ready: it is being stopped.
    pub fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Whether the process is being stopped.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Whether the last look at the database failed. Reported as `degraded`, never as not ready: pods that are
    /// restarted for it would turn an outage of the database into an outage of everything.
    pub fn is_database_lost(&self) -> bool {
        self.is_database_lost.load(Ordering::Acquire)
    }

    /// The database answered.
    pub fn note_database_ok(&self) {
        if self.is_database_lost.swap(false, Ordering::AcqRel) {
            info!("the database answers again");
        }
    }

    /// The database did not answer. Logged once per outage.
    pub fn note_database_error(&self, error: &StoreError) {
        if !self.is_database_lost.swap(true, Ordering::AcqRel) {
            warn!(error = %error, "the database does not answer; serving from memory");
        }
    }
}
