//! The caches in front of the database. Each says what makes an entry wrong, who removes it, and how stale it may be.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use parking_lot::Mutex;

use crate::domain::api_key::{ApiKey, ApiKeyHash};
use crate::reload_order::ReloadOrder;
use crate::store::{Store, StoreError};

/// Keys that the cache holds at most; installations have hundreds.
const API_KEYS_MAX: u64 = 100_000;
/// Look-ups of unknown hashes that may ask the database per second, over all callers together: guessing is cheap for
/// the guesser and must not be expensive for the database.
const UNKNOWN_LOOKUPS_PER_SECOND: u32 = 5;
/// Hashes known to be nobody's, kept for a moment so that one misconfigured client does not eat the budget.
const UNKNOWN_TTL: Duration = Duration::from_secs(2);

/// Api keys by hash.
///
/// An entry is wrong once its key was edited or revoked. The change watch calls [`ApiKeyCache::reload`] at once for a
/// change made in this process and within 2 s for one made elsewhere.
pub struct ApiKeyCache {
    store: Store,
    known: Cache<ApiKeyHash, Arc<ApiKey>>,
    unknown: Cache<ApiKeyHash, ()>,
    budget: Mutex<LookupBudget>,
    reloads: ReloadOrder,
}

struct LookupBudget {
    second_began: Instant,
    left: u32,
}

impl ApiKeyCache {
    /// Loads all keys.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn load(store: Store) -> Result<Self, StoreError> {
        let cache = Self {
            store,
            known: Cache::new(API_KEYS_MAX),
            unknown: Cache::builder().max_capacity(10_000).time_to_live(UNKNOWN_TTL).build(),
            budget: Mutex::new(LookupBudget { second_began: Instant::now(), left: UNKNOWN_LOOKUPS_PER_SECOND }),
            reloads: ReloadOrder::default(),
        };
        cache.reload().await?;
        Ok(cache)
    }

    /// Reads all keys again and drops those that are gone.
    ///
    /// # Errors
    /// When the database does not answer; the old entries stay.
    pub async fn reload(&self) -> Result<(), StoreError> {
        let reload = self.reloads.begin();
        let keys = self.store.list_api_keys().await?;
        let current: HashSet<ApiKeyHash> = keys.iter().map(|key| key.hash).collect();
        self.reloads.apply(reload, || {
            for key in keys {
                self.known.insert(key.hash, Arc::new(key));
            }
            for (hash, _) in &self.known {
                if !current.contains(&hash) {
                    self.known.invalidate(hash.as_ref());
                }
            }
            self.unknown.invalidate_all();
        });
        Ok(())
    }

    /// The key with this hash, if there is one. Whether it is usable is the caller's question.
    ///
    /// # Errors
    /// When an unknown hash had to be looked up and the database did not answer.
    pub async fn find(&self, hash: ApiKeyHash) -> Result<Option<Arc<ApiKey>>, StoreError> {
        if let Some(key) = self.known.get(&hash) {
            return Ok(Some(key));
        }
        if self.unknown.contains_key(&hash) || !self.budget.lock().take(Instant::now()) {
            return Ok(None);
        }
        let since = self.reloads.last_applied();
        let found = self.store.find_api_key_by_hash(&hash).await?.map(Arc::new);
        // A reload that read later knows better, and what it knows is in the cache.
        let is_newest = self.reloads.apply_single(since, || match &found {
            Some(found) => self.known.insert(hash, Arc::clone(found)),
            None => self.unknown.insert(hash, ()),
        });
        Ok(if is_newest { found } else { self.known.get(&hash) })
    }
}

impl LookupBudget {
    fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.second_began) >= Duration::from_secs(1) {
            *self = Self { second_began: now, left: UNKNOWN_LOOKUPS_PER_SECOND };
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_hashes_ask_the_database_five_times_a_second_at_most() {
        let start = Instant::now();
        let mut budget = LookupBudget { second_began: start, left: UNKNOWN_LOOKUPS_PER_SECOND };
        let granted = (0..100).filter(|_| budget.take(start)).count();
        assert_eq!(granted, 5);
        assert!(!budget.take(start + Duration::from_millis(999)));
        assert!(budget.take(start + Duration::from_secs(1)));
    }
}
