//! What the control plane does by itself, again and again.
//!
//! One task runs all jobs, one at a time, so none needs a lock against itself. A job that is stopped halfway must leave
//! nothing behind that it would not find again.

mod sync_models;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use codex_lb_shared::state::SharedState;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

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
    vec![Box::new(SyncModels::default())]
}

/// Runs jobs, each at once and then at its interval, until `stop`.
pub(crate) async fn run(state: Arc<SharedState>, jobs: Vec<Box<dyn Job>>, stop: CancellationToken) {
    let work = async {
        let mut due: Vec<(Instant, Box<dyn Job>)> = jobs.into_iter().map(|job| (Instant::now(), job)).collect();
        while let Some((at, job)) = due.iter_mut().min_by_key(|(at, _)| *at) {
            tokio::time::sleep_until(*at).await;
            let began = Instant::now();
            job.run(&state).await;
            debug!(job = job.name(), took_ms = began.elapsed().as_millis(), "a job ran");
            *at = Instant::now() + job.interval();
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}
