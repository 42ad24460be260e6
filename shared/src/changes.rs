//! Notices what others changed in the database: another replica, or the command line beside a running server.
//!
//! Every write of accounts, api keys or settings raises a generation in its own transaction. This watch compares them
//! once a second, which bounds how stale a cache can be; a change made in this process wakes it at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::state::SharedState;
use crate::store::Generations;

/// How often the generations are compared. Half of the two seconds that are promised.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Wakes the watch.
#[derive(Clone, Default)]
pub struct Changes {
    made_here: Arc<Notify>,
}

impl Changes {
    /// Something was written in this process: look now.
    pub fn notify(&self) {
        self.made_here.notify_one();
    }

    /// Reloads what changed, until `stop`. `seen` are the generations that the caches were loaded at.
    pub async fn run_watch(&self, state: Arc<SharedState>, mut seen: Generations, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.made_here.notified() => {}
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
            // Read before reloading: a write that comes in between is then seen in the next round.
            match state.store.generations().await {
                Ok(current) => seen = reload_changed(&state, seen, current).await,
                Err(error) => state.note_database_error(&error),
            }
        }
    }
}

async fn reload_changed(state: &SharedState, mut seen: Generations, current: Generations) -> Generations {
    state.note_database_ok();
    if current.accounts != seen.accounts {
        match state.pool.reload().await {
            Ok(()) => seen.accounts = current.accounts,
            Err(error) => warn!(error = %error, "changed accounts could not be loaded yet"),
        }
    }
    if current.api_keys != seen.api_keys {
        match state.api_keys.reload().await {
            Ok(()) => seen.api_keys = current.api_keys,
            Err(error) => warn!(error = %error, "changed api keys could not be loaded yet"),
        }
    }
    if current.settings != seen.settings {
        match state.reload_settings().await {
            Ok(()) => seen.settings = current.settings,
            Err(error) => warn!(error = %error, "changed settings could not be loaded yet"),
        }
    }
    seen
}
