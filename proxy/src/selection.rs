//! Takes the pool's snapshot to the pure choice and brings a lease back.

use codex_lb_decide::selection::{AccountView, Needs, PoolTrouble, choose};
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::pool::Lease;
use codex_lb_shared::state::SharedState;

/// Leases an account for a leg.
///
/// # Errors
/// When nobody can serve; the error says why and until when.
pub(crate) fn lease(
    state: &SharedState,
    model: &str,
    excluded: &[AccountId],
    sticky: Option<AccountId>,
    now: Timestamp,
) -> Result<Lease, PoolTrouble> {
    let snapshot = state.pool.snapshot();
    let models = state.models.load();
    let plans: Option<&[Plan]> = models.find(model).map(|known| known.plans.as_slice());
    let views: Vec<AccountView> = snapshot
        .accounts
        .iter()
        .map(|pooled| {
            let live = pooled.live.view(now);
            AccountView {
                id: pooled.account.id,
                plan: pooled.account.plan,
                state: live.state,
                state_until: live.state_until,
                cooling_until: live.cooling_until,
                usage: live.usage,
                routing_policy: pooled.account.routing_policy,
                in_flight: live.in_flight,
                last_chosen: live.last_chosen,
            }
        })
        .collect();
    let strategy = state.settings.load().routing.strategy;
    let needs = Needs { excluded, plans };
    let chosen = choose(&views, &needs, sticky, strategy, now, &mut rand::rng())?;
    snapshot.find(chosen).map(|pooled| state.pool.lease(pooled)).ok_or_else(PoolTrouble::default)
}
