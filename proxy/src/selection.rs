//! Takes the pool's snapshot to the pure choice and brings a lease back.

use codex_lb_decide::selection::{AccountView, Affinity, AtCapacity, Chosen, Needs, NotChosen, choose};
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::egress::AccountEgress;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::pool::{Lease, PoolSnapshot};
use codex_lb_shared::state::SharedState;

use crate::serve::DataPlane;
use crate::translate::PreparedRequest;

/// Choices that lost their slot to somebody faster before the pool counts as full.
const LOST_RACES_MAX: usize = 8;

/// Leases an account for a leg of this request.
///
/// # Errors
/// When nobody can serve now; the error says whether to wait for a slot, or what is wrong and until when.
pub(crate) fn lease(
    plane: &DataPlane,
    request: &PreparedRequest,
    excluded: &[AccountId],
    affinity: Affinity,
    now: Timestamp,
) -> Result<(Chosen, Lease), NotChosen> {
    let state = &plane.state;
    let snapshot = state.pool.snapshot();
    let models = state.models.load();
    let model = request.model.as_deref();
    let known = model.and_then(|model| models.find(model));
    let tier_plans = known.zip(request.tier.as_deref()).and_then(|(known, tier)| known.tier_plans.get(tier));
    let refused_by = model.and_then(|model| plane.model_notes.refused_by(model));
    let named_limit = model.and_then(|model| plane.model_notes.limit_of(model));
    let needs = Needs {
        excluded,
        scope: None,
        model_plans: known.map(|known| known.plans.as_slice()),
        model_refused_by: refused_by.as_deref(),
        tier_plans: tier_plans.map(Vec::as_slice),
        named_limit: named_limit.as_deref(),
    };
    let settings = state.settings.load();
    let mut lost_races = 0;
    loop {
        let chosen = choose(&views(state, &snapshot, now), &needs, &settings.routing, affinity, rand::random(), now)?;
        let leased = snapshot.find(chosen.account).and_then(|pooled| state.pool.try_lease(pooled));
        match leased {
            Some(lease) => return Ok((chosen, lease)),
            None if lost_races < LOST_RACES_MAX => lost_races += 1,
            None => {
                let eligible = vec![chosen.account];
                return Err(NotChosen::AtCapacity(AtCapacity { why: chosen.why, eligible }));
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
            named_cooldowns: live.named_cooldowns,
            usage: live.usage,
            credits: live.credits,
            has_way_out: match &pooled.egress {
                AccountEgress::Direct | AccountEgress::Through(_) => true,
                AccountEgress::Closed(_) => false,
            },
            routing_policy: pooled.account.routing_policy,
            concurrency_cap: state.pool.cap_of(&pooled.account),
            in_flight: live.in_flight,
            last_chosen: live.last_chosen,
            health: live.health,
        }
    };
    snapshot.accounts.iter().map(view).collect()
}
