//! `codex-lb serve`: both planes in one process, until a signal.

use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use codex_lb_shared::config::Config;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::telemetry::metrics::Metrics;
use codex_lb_shared::upstream_api::{UpstreamApi, UpstreamEndpoints};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::open;

/// Longest wait for background tasks at a stop: longer than any control call may take.
const LAST_TASKS_MAX: Duration = Duration::from_secs(35);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// With one sentence, when something cannot be opened or listened on.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.proxy.threads > 0 {
        builder.worker_threads(config.proxy.threads);
    }
    builder.enable_all().build()?.block_on(serve(Arc::new(config)))
}

async fn serve(config: Arc<Config>) -> anyhow::Result<()> {
    let store = open::store(&config).await?;
    let _only_server = lock_sqlite(&config)?;
    let sealer = open::sealer(&config, &store).await?;
    let metrics = Arc::new(Metrics::new()?);
    let upstream = UpstreamApi::new(endpoints(&config)?)?;
    let (state, generations) = SharedState::load(Arc::clone(&config), store, sealer, upstream, metrics).await?;

    // Signals are caught from here on, so that a stop during start is a stop and not a crash.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let stop = CancellationToken::new();
    let watch = state.tasks.spawn({
        let (state, stop) = (Arc::clone(&state), stop.clone());
        async move { state.changes.run_watch(Arc::clone(&state), generations, stop).await }
    });
    let writer = state.tasks.spawn({
        let (pool, stop) = (Arc::clone(&state.pool), stop.clone());
        async move { pool.run_writer(stop).await }
    });
    let control_plane = codex_lb_admin::serve(Arc::clone(&state)).await?;
    let data_plane = codex_lb_proxy::serve(Arc::clone(&state), control_plane.hop_socket.clone()).await?;
    info!(
        proxy = %data_plane.address,
        admin = %control_plane.address,
        metrics = %control_plane.metrics_address,
        accounts = state.pool.snapshot().accounts.len(),
        version = env!("CARGO_PKG_VERSION"),
        "codex-lb is serving"
    );

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping: not ready any more");
    state.begin_draining();
    let orderly = async {
        tokio::time::sleep(config.shutdown.grace).await;
        data_plane.stop(config.shutdown.drain_timeout).await;
        control_plane.stop().await;
        state.account_tokens.stop().await;
        stop.cancel();
        for task in [watch, writer] {
            if task.await.is_err() {
                warn!("a background task panicked");
            }
        }
        // A refresh token that was just exchanged is used up: its successor must reach the database.
        state.tasks.close();
        if tokio::time::timeout(LAST_TASKS_MAX, state.tasks.wait()).await.is_err() {
            warn!("background tasks did not end in time");
        }
        state.store.close().await;
    };
    tokio::select! {
        () = orderly => info!("stopped"),
        _ = terminate.recv() => warn!("a second signal: stopping at once"),
        _ = interrupt.recv() => warn!("a second signal: stopping at once"),
    }
    Ok(())
}

fn endpoints(config: &Config) -> anyhow::Result<UpstreamEndpoints> {
    let upstream = &config.upstream;
    Ok(UpstreamEndpoints {
        base_url: upstream.base_url.as_str().to_owned(),
        issuer: config.oauth.issuer.as_str().to_owned(),
        client_id: config.oauth.client_id.clone(),
        client_version: upstream.client_version.clone(),
        originator: upstream.originator.to_str().context("read upstream.originator")?.to_owned(),
        user_agent: upstream.user_agent.to_str().context("read upstream.user_agent")?.to_owned(),
        ca_file: upstream.ca_file.clone(),
    })
}

/// On SQLite a second server would not see what this one holds in memory. The lock ends with the process.
fn lock_sqlite(config: &Config) -> anyhow::Result<Option<File>> {
    let Some(database) = open::database_url(config)?.sqlite_path().map(std::path::Path::to_owned) else {
        return Ok(None);
    };
    let path = database.with_extension("lock");
    let file = File::create(&path).with_context(|| format!("make the lock file {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => bail!(
            "another codex-lb serves from {}; several replicas need PostgreSQL (database_url)",
            database.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}
