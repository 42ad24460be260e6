//! Notices that the installation moved to another encryption key, so that new account tokens are sealed with that one.

use std::time::Duration;

use async_trait::async_trait;
use codex_lb_shared::state::SharedState;
use tracing::info;

use super::Job;

/// How often the database is asked; as soon as every other change is noticed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The job.
pub(super) struct FollowEncryptionKey;

#[async_trait]
impl Job for FollowEncryptionKey {
    fn name(&self) -> &'static str {
        "follow_encryption_key"
    }

    fn interval(&self) -> Duration {
        LOOK_INTERVAL
    }

    async fn run(&mut self, state: &SharedState) {
        match state.account_tokens.follow_encryption_key().await {
            Ok(true) => info!("account tokens are sealed with another encryption key from now on"),
            Ok(false) => {}
            Err(error) => state.note_database_error(&error),
        }
    }
}
