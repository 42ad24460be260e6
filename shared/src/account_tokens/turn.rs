//! Whose turn it is to use an account's refresh token, of all replicas.
//!
//! A row in the database is the claim. Whoever does not get it waits for the other's result and never uses the token
//! meanwhile. No transaction and no lock is held while the issuer is asked: a holder that died is waited for until its
//! lease is over, by the database's clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::{AccountTokens, Freshness, ISSUER_CALL_MAX, needs_person};
use crate::ids::{AccountId, ExchangeId};
use crate::store::{ClaimState, StoreError};

/// How long after the claim the refresh token may still be sent. What is sent later might outlast the lease.
const SEND_WITHIN: Duration = Duration::from_secs(30);
/// How long a claim keeps others off: from the claim to the send, the call, and storing what it answers.
const LEASE: Duration = SEND_WITHIN.saturating_add(ISSUER_CALL_MAX).saturating_add(Duration::from_secs(20));
/// Longest wait for another replica: a little more than its call may take. The next caller waits anew.
const WAIT_MAX: Duration = Duration::from_secs(45);
/// The pause between two looks at the other's progress grows up to the second.
const LOOK_FIRST: Duration = Duration::from_millis(25);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// The outcome of asking for a turn.
pub(super) enum Turn {
    /// We may use the refresh token.
    Ours(Claim),
    /// Nothing is left to do.
    Over(Freshness),
}

/// A claim of ours. Each has a name of its own, so that releasing one cannot release a later one.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    name: Arc<str>,
    asked_at: Instant,
}

impl Claim {
    /// Whether a call that is sent now ends, and its answer is stored, before the lease does.
    pub(super) fn covers_a_call(&self) -> bool {
        self.asked_at.elapsed() < SEND_WITHIN
    }
}

/// How things stand with an account that we want to refresh.
enum Look {
    Free,
    Running,
    Over(Freshness),
}

impl AccountTokens {
    /// Claims the account, or waits for whoever did.
    pub(super) async fn take_turn(&self, id: AccountId, stale_version: i64) -> Result<Turn, StoreError> {
        let wait_until = Instant::now() + WAIT_MAX;
        let mut pause = LOOK_FIRST;
        let mut has_waited = false;
        loop {
            match self.look(id, stale_version, has_waited).await? {
                Look::Over(freshness) => return Ok(Turn::Over(freshness)),
                Look::Free => {
                    let claim = Claim { name: ExchangeId::generate().to_string().into(), asked_at: Instant::now() };
                    if self.store.claim_token_refresh(id, &claim.name, LEASE).await? {
                        return Ok(Turn::Ours(claim));
                    }
                    debug!(account.id = %id, "another replica was faster to refresh this account's tokens");
                    has_waited = true;
                }
                Look::Running if Instant::now() > wait_until || self.tasks.is_closed() => {
                    return Ok(Turn::Over(Freshness::Failed));
                }
                Look::Running => {
                    has_waited = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK_MAX);
                }
            }
        }
    }

    async fn look(&self, id: AccountId, stale_version: i64, has_waited: bool) -> Result<Look, StoreError> {
        let Some(progress) = self.store.token_refresh_progress(id).await? else {
            return Ok(Look::Over(Freshness::Failed));
        };
        if progress.token_version != stale_version {
            return Ok(Look::Over(self.reload().await));
        }
        if needs_person(progress.state) {
            self.reload().await;
            return Ok(Look::Over(Freshness::LoginEnded));
        }
        Ok(match progress.claim {
            ClaimState::Running => Look::Running,
            // The other one failed just now; doing the same again at once would help nobody.
            ClaimState::None if has_waited => Look::Over(Freshness::Failed),
            ClaimState::None | ClaimState::Expired => Look::Free,
        })
    }

    /// Gives a claim back. If that fails its lease ends it.
    pub(super) async fn release(&self, id: AccountId, claim: &Claim) {
        if let Err(error) = self.store.release_token_refresh(id, &claim.name).await {
            debug!(account.id = %id, error = %error, "a claim on a token refresh could not be released");
        }
    }

    /// Keeps others off for longer, if the database can be told.
    pub(super) async fn extend(&self, id: AccountId, claim: &Claim) {
        if let Err(error) = self.store.claim_token_refresh(id, &claim.name, LEASE).await {
            debug!(account.id = %id, error = %error, "a claim on a token refresh could not be extended");
        }
    }
}
