//! Writes behind what the data plane learned about accounts. At most one pending write per account, so this needs no
//! queue and has no bound to overflow.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Pool;
use crate::clock;
use crate::domain::account::AccountStatus;
use crate::domain::upstream_window::AccountUsage;
use crate::ids::AccountId;
use crate::store::StoreError;

/// Pause between two rounds, so that a busy account is written once a second and not once an exchange.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// What is still to be written of one account.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingWrite {
    pub(super) status: Option<AccountStatus>,
    pub(super) usage: Option<AccountUsage>,
}

impl Pool {
    /// Writes behind until `stop`, then once more. Run it as one task per process.
    pub async fn run_writer(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = self.pending_added.notified() => {}
                () = stop.cancelled() => {}
            }
            self.write_pending().await;
            tokio::select! {
                () = tokio::time::sleep(WRITE_INTERVAL) => {}
                () = stop.cancelled() => {}
            }
        }
        self.write_pending().await;
    }

    /// Writes what is pending now. What fails stays pending and is tried again in the next round.
    pub async fn write_pending(&self) {
        let batch: Vec<(AccountId, PendingWrite)> =
            self.pending.lock().iter().map(|(id, write)| (*id, write.clone())).collect();
        if batch.is_empty() {
            return;
        }
        match self.write_batch(&batch).await {
            Ok(is_overruled) => {
                self.forget_written(&batch);
                // Somebody else's word stands in the database; take it over.
                if is_overruled && let Err(error) = self.reload().await {
                    warn!(error = %error, "the pool could not be reloaded after a status was overruled");
                }
            }
            Err(error) => {
                warn!(error = %error, accounts = batch.len(), "account states could not be written yet");
                self.pending_added.notify_one();
            }
        }
    }

    /// Whether a status was not taken, because a person or the end of a login had said more.
    async fn write_batch(&self, batch: &[(AccountId, PendingWrite)]) -> Result<bool, StoreError> {
        let usage: Vec<_> = batch.iter().filter_map(|(id, write)| write.usage.map(|usage| (*id, usage))).collect();
        if !usage.is_empty() {
            self.store.save_account_usage(&usage).await?;
        }
        let mut is_overruled = false;
        for (id, write) in batch {
            if let Some(status) = &write.status {
                is_overruled |= !self.store.apply_upstream_status(*id, status, clock::now()).await?;
            }
        }
        Ok(is_overruled)
    }

    fn forget_written(&self, batch: &[(AccountId, PendingWrite)]) {
        let mut pending = self.pending.lock();
        for (id, written) in batch {
            if let Some(current) = pending.get_mut(id) {
                if current.status == written.status {
                    current.status = None;
                }
                if current.usage == written.usage {
                    current.usage = None;
                }
                if current.status.is_none() && current.usage.is_none() {
                    pending.remove(id);
                }
            }
        }
        if !pending.is_empty() {
            self.pending_added.notify_one();
        }
    }
}
