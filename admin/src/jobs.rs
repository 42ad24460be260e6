//! What the control plane does by itself, again and again.
//!
//! Each job has a task of its own, so none holds up another and none runs beside itself. A job that is stopped halfway
//! must leave nothing behind that it would not find again.

mod follow_encryption_key;
mod refresh_tokens;
mod sync_models;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use codex_lb_shared::state::SharedState;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use follow_encryption_key::FollowEncryptionKey;
use refresh_tokens::RefreshTokens;
use sync_models::SyncModels;

/// Something to do at intervals.
#[async_trait]
pub(crate) trait Job: Send {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// The pause between the end of a run and the next.
    fn interval(&self) -> Duration;

    /// Does it once. It logs its own failures: it knows which of them are news.
    async fn run(&mut self, state: &SharedState);
}

/// Every job there is.
pub(crate) fn all() -> Vec<Box<dyn Job>> {
    vec![Box::new(RefreshTokens), Box::new(FollowEncryptionKey), Box::new(SyncModels::default())]
}

/// Runs jobs, each at once and then at its interval, until `stop`.
pub(crate) async fn run(state: Arc<SharedState>, jobs: Vec<Box<dyn Job>>, stop: CancellationToken) {
    let mut running = JoinSet::new();
    for job in jobs {
        running.spawn(repeat(Arc::clone(&state), job));
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(Err(error)) = running.join_next() => error!(%error, "a job panicked and will not run again"),
        }
    }
    running.shutdown().await;
}

async fn repeat(state: Arc<SharedState>, mut job: Box<dyn Job>) {
    loop {
        let began = Instant::now();
        job.run(&state).await;
        debug!(job = job.name(), took_ms = began.elapsed().as_millis(), "a job ran");
        tokio::time::sleep(job.interval()).await;
    }
}
