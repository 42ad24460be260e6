//! Takes the pool's snapshot to the pure choice and brings a lease back.

use codex_lb_decide::selection::{AccountView, Affinity, Chosen, Credits, Needs, NotChosen, choose};
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::pool::{Lease, PoolSnapshot};
use codex_lb_shared::state::SharedState;

/// Choices that lost their slot to somebody faster before the pool counts as full.
const LOST_RACES_MAX: usize = 8;

/// Leases an account for a leg.
///
/// # Errors
/// When nobody can serve now; the error says whether to wait for a slot, or what is wrong and until when.
pub(crate) fn lease(
    state: &SharedState,
    model: Option<&str>,
    excluded: &[AccountId],
    affinity: Affinity,
    now: Timestamp,
) -> Result<(Chosen, Lease), NotChosen> {
    let snapshot = state.pool.snapshot();
    let models = state.models.load();
    let model_plans: Option<&[Plan]> = model.and_then(|model| models.find(model)).map(|known| known.plans.as_slice());
    let needs = Needs { excluded, model_plans, ..Needs::default() };
    let routing = state.settings.load().routing.clone();
    let mut lost_races = 0;
    loop {
        let chosen = choose(&views(state, &snapshot, now), &needs, &routing, affinity, rand::random(), now)?;
        let leased = snapshot.find(chosen.account).and_then(|pooled| state.pool.try_lease(pooled));
        match leased {
            Some(lease) => return Ok((chosen, lease)),
            None if lost_races < LOST_RACES_MAX => lost_races += 1,
            None => {
                let eligible = vec![chosen.account];
                let is_for_own = false;
                return Err(NotChosen::AtCapacity(codex_lb_decide::selection::AtCapacity { is_for_own, eligible }));
            }
        }
    }
}

fn views(state: &SharedState, snapshot: &PoolSnapshot, now: Timestamp) -> Vec<AccountView> {
    let view = |pooled: &std::sync::Arc<codex_lb_shared::pool::PooledAccount>| {
        let live = pooled.live.view(now);
        AccountView {
            id: pooled.account.id,
            plan: pooled.account.plan,
            state: live.state,
            state_until: live.state_until,
            cooling_until: live.cooling_until,
            named_cooldowns: Vec::new(),
            usage: live.usage,
            credits: Credits::default(),
            routing_policy: pooled.account.routing_policy,
            concurrency_cap: state.pool.cap_of(&pooled.account),
            in_flight: live.in_flight,
            last_chosen: live.last_chosen,
            health: live.health,
        }
    };
    snapshot.accounts.iter().map(view).collect()
}
