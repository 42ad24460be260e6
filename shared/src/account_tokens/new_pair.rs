//! A pair that the issuer gave, on its way into the database.
//!
//! It must not be lost: the refresh token before it is used up. So it is kept in memory until it is stored, and tried
//! again for a day while the database is away.
//!
//! Until it is stored nobody uses it, on purpose. A version of an account's tokens means, on every replica, the pair that
//! the database holds under it; if one process used another pair under that number, a refusal of it would be held against
//! the stored one. Using it early would gain little: the access token before it mostly works until its own end, the other
//! accounts serve meanwhile, and a process that dies loses the pair whether it was used or not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::turn::Claim;
use super::{AccountTokens, Freshness};
use crate::clock::{self, Timestamp};
use crate::domain::auth_file::{TokenSet, access_token_expiry};
use crate::ids::AccountId;
use crate::secret::SealedTokens;
use crate::store::StoreError;
use crate::upstream_api::oauth::RefreshedTokens;
use secrecy::ExposeSecret as _;

/// How long a pair is tried to be stored.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// The same once the process is being stopped.
const PATIENCE_AT_STOP: Duration = Duration::from_secs(10);
/// The pauses between two tries grow up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a refresh answered.
pub(super) struct NewPair {
    /// Version of the tokens that it replaces.
    replaces_version: i64,
    tokens: TokenSet,
    received_at: Timestamp,
    /// Under which it was fetched; held until it is stored.
    claim: Claim,
}

impl NewPair {
    /// What the answer leaves out stays as it was.
    pub(super) fn new(replaces_version: i64, before: TokenSet, answer: RefreshedTokens, claim: Claim) -> Self {
        let tokens = TokenSet {
            id_token: answer.id_token.unwrap_or(before.id_token),
            access_token: answer.access_token.unwrap_or(before.access_token),
            refresh_token: answer.refresh_token.unwrap_or(before.refresh_token),
        };
        Self { replaces_version, tokens, received_at: clock::now(), claim }
    }
}

impl AccountTokens {
    /// Stores a new pair and makes the pool use it. If the database does not take it, a task goes on trying.
    pub(super) async fn keep(self: &Arc<Self>, id: AccountId, pair: NewPair) -> Result<Freshness, StoreError> {
        self.unsaved.lock().insert(id, Arc::new(pair));
        if let Err(error) = self.store_unsaved(id).await {
            warn!(account.id = %id, error = %error, "refreshed tokens could not be stored yet; trying on");
            let keeper = Arc::clone(self);
            // Its end is waited for at a stop, and nobody needs what it returns.
            drop(self.spawn(async move { keeper.store_in_the_end(id).await }));
            return Ok(Freshness::Failed);
        }
        Ok(self.reload().await)
    }

    pub(super) fn unsaved_pair(&self, id: AccountId) -> Option<Arc<NewPair>> {
        self.unsaved.lock().get(&id).cloned()
    }

    /// Stores the pair of this account that is not stored yet. Its claim, now to be released, if there was one.
    pub(super) async fn store_unsaved(&self, id: AccountId) -> Result<Option<Claim>, StoreError> {
        let Some(pair) = self.unsaved_pair(id) else { return Ok(None) };
        let is_stored = match self.replace(id, &pair).await {
            Err(StoreError::Conflict { .. }) => {
                // The installation moved to another encryption key since we last looked.
                self.follow_encryption_key().await?;
                self.replace(id, &pair).await?
            }
            outcome => outcome?,
        };
        // If somebody else stored a pair meanwhile, theirs is as new as ours and already used; theirs stays.
        info!(account.id = %id, stored = is_stored, "account tokens refreshed");
        self.forget(id, &pair);
        Ok(Some(pair.claim.clone()))
    }

    async fn replace(&self, id: AccountId, pair: &NewPair) -> Result<bool, StoreError> {
        let expires_at = access_token_expiry(pair.tokens.access_token.expose_secret());
        let Ok(sealed) = SealedTokens::seal(&self.sealer, id, &pair.tokens) else {
            return Err(StoreError::Conflict { action: "seal refreshed tokens" });
        };
        self.store.replace_tokens(id, pair.replaces_version, &sealed, expires_at, pair.received_at).await
    }

    /// Only this very pair: a newer one may have come meanwhile.
    fn forget(&self, id: AccountId, pair: &Arc<NewPair>) {
        let mut unsaved = self.unsaved.lock();
        if unsaved.get(&id).is_some_and(|known| Arc::ptr_eq(known, pair)) {
            unsaved.remove(&id);
        }
    }

    async fn store_in_the_end(&self, id: AccountId) {
        let Some(pair) = self.unsaved_pair(id) else { return };
        let mut give_up_at = Instant::now() + PATIENCE;
        let mut pause = PAUSE_FIRST;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            match self.store_unsaved(id).await {
                // A flight was faster, and releases.
                Ok(None) => return,
                Ok(Some(claim)) => {
                    self.release(id, &claim).await;
                    self.reload().await;
                    return;
                }
                Err(_) if Instant::now() < give_up_at => self.extend(id, &pair.claim).await,
                Err(error) => {
                    self.forget(id, &pair);
                    let error = &error as &(dyn std::error::Error + 'static);
                    error!(account.id = %id, error, "refreshed tokens are lost; the account must log in again");
                    return;
                }
            }
            if self.tasks.is_closed() {
                give_up_at = give_up_at.min(Instant::now() + PATIENCE_AT_STOP);
            }
        }
    }
}
