//! What comes before every strategy: cost, an operator's wish, health.

use super::*;

/// Every strategy but `single_account`, which lets one account through only.
fn every_kind() -> impl Iterator<Item = StrategyKind> {
    StrategyKind::ALL.into_iter().filter(|kind| *kind != StrategyKind::SingleAccount)
}

fn check(name: &str, first: &AccountView, second: &AccountView) {
    for kind in every_kind() {
        for pool in [[first.clone(), second.clone()], [second.clone(), first.clone()]] {
            assert_eq!(pick(&pool, kind), first.id.as_u128(), "{name}, {kind:?}");
        }
    }
}

#[test]
fn policies_come_before_the_strategy() {
    let with = |number, routing_policy| AccountView { routing_policy, ..account(number) };
    let burn = with(3, RoutingPolicy::BurnFirst);
    let normal = with(2, RoutingPolicy::Normal);
    let preserve = with(1, RoutingPolicy::Preserve);
    check("burn first before normal", &burn, &normal);
    check("normal before preserve", &normal, &preserve);
    check("burn first before preserve", &burn, &preserve);
}

#[test]
fn the_best_tier_serves() {
    let healthy = account(3);
    let probing = AccountView { health: probing(), ..account(2) };
    let draining = AccountView { health: failing(), ..account(1) };
    check("healthy before probing", &healthy, &probing);
    check("probing before draining", &probing, &draining);
    check("healthy before draining", &healthy, &draining);
    check("healthy before nearly used up", &used_account(3, 84.9, 89.9), &used_account(2, 85.0, 0.0));
    let burn = AccountView { routing_policy: RoutingPolicy::BurnFirst, ..draining.clone() };
    check("health before burn first", &healthy, &burn);
    let preserve = AccountView { routing_policy: RoutingPolicy::Preserve, ..healthy };
    check("preserve only when no other can", &draining, &preserve);
}

#[test]
fn an_account_on_credits_is_the_last_resort() {
    let credits = Credits { has_credits: true, is_unlimited: false };
    let paying = AccountView {
        credits,
        routing_policy: RoutingPolicy::BurnFirst,
        ..AccountView { plan: Plan::Pro, ..used_account(1, 0.0, 100.0) }
    };
    let regular =
        AccountView { routing_policy: RoutingPolicy::Preserve, health: failing(), ..used_account(2, 99.0, 99.0) };
    check("regular before credits", &regular, &paying);
    for kind in every_kind() {
        assert_eq!(pick(&[busy(regular.clone()), paying.clone()], kind), 1, "{kind:?}");
    }
}

#[test]
fn who_has_no_free_slot_takes_no_part() {
    let best = AccountView { routing_policy: RoutingPolicy::BurnFirst, ..busy(account(1)) };
    let worst = AccountView { routing_policy: RoutingPolicy::Preserve, health: failing(), ..account(2) };
    for kind in every_kind() {
        assert_eq!(pick(&[best.clone(), worst.clone()], kind), 2, "{kind:?}");
    }
}

#[test]
fn a_probing_account_that_was_idle_gets_the_next_request() {
    let idle = |number, ms: Option<i64>| AccountView {
        health: HealthFacts { last_used_at: ms.map(|ms| at(-ms)), ..probing() },
        ..account(number)
    };
    check("idle long enough", &idle(2, Some(60_000)), &account(1));
    check("used lately", &account(1), &idle(2, Some(59_999)));
    check("never used", &idle(2, None), &account(1));
    check("idle longest", &idle(2, Some(70_000)), &idle(1, Some(60_000)));
    check("never used is idle longest", &idle(2, None), &idle(1, Some(DAY)));
    check("equally idle", &idle(1, None), &idle(2, None));
    let burn = AccountView { routing_policy: RoutingPolicy::BurnFirst, ..account(1) };
    check("whatever the policies of others", &idle(2, None), &burn);
    let draining = AccountView { health: failing(), ..account(1) };
    check("probing is better anyway", &idle(2, Some(0)), &draining);
}

#[test]
fn a_probe_is_no_way_around_preserve_and_caps() {
    let due = |number| AccountView { health: HealthFacts { last_used_at: None, ..probing() }, ..account(number) };
    let preserved = AccountView { routing_policy: RoutingPolicy::Preserve, ..due(1) };
    check("preserved", &account(2), &preserved);
    check("a preserved one never hides another", &due(2), &preserved);
    let used_preserved = AccountView { routing_policy: RoutingPolicy::Preserve, ..account(2) };
    check("among preserved ones", &preserved, &used_preserved);
    check("busy", &account(2), &busy(due(1)));
    // Whoever is healthy needs no probe.
    let idle = AccountView { last_chosen: 1, ..account(1) };
    assert_eq!(pick(&[idle, account(2)], StrategyKind::RoundRobin), 2);
}
