//! What replies have shown about single models: which accounts do not serve one, whatever their plan, and which limit
//! of its own meters one. Kept in this process; a note that is missing costs one leg, which no client sees.

use std::sync::Arc;
use std::time::Duration;

use codex_lb_decide::selection::AccountIds;
use codex_lb_decide::selection::named_limits::{ModelLimits, canonical};
use codex_lb_shared::ids::AccountId;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::RwLock;

/// How long an account is not asked for a model that it refused. Plans change, and models are rolled out.
const REFUSAL_LIFE: Duration = Duration::from_secs(3_600);
/// Models with refusals that are remembered at most; a client chooses the names.
const REFUSED_MODELS_MAX: u64 = 1_000;

/// Notes about models.
pub(crate) struct ModelNotes {
    refused: Cache<String, Arc<AccountIds>>,
    limits: RwLock<ModelLimits>,
}

impl ModelNotes {
    pub(crate) fn new() -> Self {
        let refused = Cache::builder()
            .eviction_policy(EvictionPolicy::lru())
            .max_capacity(REFUSED_MODELS_MAX)
            .time_to_live(REFUSAL_LIFE)
            .build();
        Self { refused, limits: RwLock::default() }
    }

    /// Upstream said that this account does not serve the model.
    pub(crate) fn note_refusal(&self, model: &str, account: AccountId) {
        self.refused.entry_by_ref(model).and_upsert_with(|known| {
            let mut accounts = known.map_or_else(AccountIds::default, |known| AccountIds::clone(known.value()));
            accounts.insert(account);
            Arc::new(accounts)
        });
    }

    /// The accounts that do not serve the model, if upstream said so of any.
    pub(crate) fn refused_by(&self, model: &str) -> Option<Arc<AccountIds>> {
        self.refused.get(model)
    }

    /// Upstream named the limit that metered an answer for this model.
    pub(crate) fn note_limit(&self, model: &str, upstream_name: &str) {
        // Nearly every answer tells what is known already, which must not make exchanges wait for each other.
        if self.limits.read().of(model) != canonical(upstream_name).as_deref() {
            self.limits.write().learn(model, upstream_name);
        }
    }

    /// The limit of its own that meters the model; `None` when the account's windows do.
    pub(crate) fn limit_of(&self, model: &str) -> Option<String> {
        self.limits.read().of(model).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_about_one_model_on_one_account() {
        let notes = ModelNotes::new();
        let (one, two) = (AccountId::from_u128(1), AccountId::from_u128(2));
        notes.note_refusal("a", one);
        notes.note_refusal("a", two);
        notes.note_refusal("b", one);
        let refused = |model: &str| {
            let accounts = notes.refused_by(model);
            [one, two].map(|account| accounts.as_ref().is_some_and(|accounts| accounts.contains(&account)))
        };
        assert_eq!((refused("a"), refused("b"), refused("c")), ([true, true], [true, false], [false, false]));
    }

    #[test]
    fn a_limit_is_learned_from_an_answer() {
        let notes = ModelNotes::new();
        assert_eq!(notes.limit_of("gpt-new"), None);
        notes.note_limit("gpt-new", "codex_new_limit");
        assert_eq!(notes.limit_of("gpt-new").as_deref(), Some("codex-new-limit"));
        notes.note_limit("gpt-new", "codex");
        assert_eq!(notes.limit_of("gpt-new"), None);
    }
}
