//! Conversations: when they stay with their account, wait for it, or leave.

use super::*;

fn sticky(account: u128, has_waited: bool) -> Affinity {
    Affinity::Sticky { key: KEY, account: id(account), has_waited }
}

/// Where a conversation of account 1 goes.
fn goes(accounts: &[AccountView], settings: &RoutingSettings) -> Result<Chosen, NotChosen> {
    choose(accounts, &Needs::default(), settings, sticky(1, false), 7, NOW)
}

const STAYS: (u128, Why) = (1, Why::Sticky);
const LEAVES: (u128, Why) = (2, Why::Placed);

fn check(name: &str, pool: &[AccountView], (number, why): (u128, Why)) {
    for kind in StrategyKind::ALL {
        if kind != StrategyKind::SingleAccount {
            assert_eq!(goes(pool, &rules(kind)), chosen(number, why), "{name}, {kind:?}");
        }
    }
}

#[test]
fn a_live_conversation_never_moves_for_balance() {
    let mut own = AccountView { in_flight: 7, last_chosen: 99, ..used_account(1, 84.0, 89.0) };
    check("much used", &[own.clone(), account(2)], STAYS);
    own.usage = used(94.9, 99.9);
    check("draining", &[own.clone(), account(2)], STAYS);
    own.health = failing();
    check("failing", &[own.clone(), account(2)], STAYS);
    own.routing_policy = RoutingPolicy::Preserve;
    let burn = AccountView { routing_policy: RoutingPolicy::BurnFirst, ..account(2) };
    check("preserved", &[own.clone(), burn], STAYS);
    let due = AccountView { health: HealthFacts { last_used_at: None, ..probing() }, ..account(2) };
    check("another is due for a probe", &[own, due], STAYS);
}

#[test]
fn a_conversation_leaves_an_account_that_cannot_serve() {
    let own = AccountView { state: AccountState::Paused, ..account(1) };
    check("paused", &[own, account(2)], LEAVES);
    let own = AccountView { cooling_until: Some(at(1)), ..account(1) };
    check("cooling", &[own, account(2)], LEAVES);
    check("used up", &[used_account(1, 100.0, 0.0), account(2)], LEAVES);
    check("not in the pool", &[account(2)], LEAVES);
    let last_resort = AccountView { routing_policy: RoutingPolicy::Preserve, ..used_account(2, 99.0, 99.0) };
    check("only a worn one is left", &[last_resort], LEAVES);
    assert_eq!(goes(&[busy(account(2))], &RoutingSettings::default()), at_capacity(Why::Placed, &[2]));
    assert!(matches!(goes(&[], &RoutingSettings::default()), Err(NotChosen::Nobody(_))));
}

#[test]
fn above_the_threshold_a_conversation_leaves_for_a_better_account() {
    let other = account(2);
    check("below", &[used_account(1, 94.9, 0.0), other.clone()], STAYS);
    check("at", &[used_account(1, 95.0, 0.0), other.clone()], STAYS);
    check("above", &[used_account(1, 95.1, 0.0), other.clone()], LEAVES);
    check("the long window has no threshold", &[used_account(1, 0.0, 99.9), other.clone()], STAYS);
    let reset = AccountView { usage: used_until(99.0, Some(NOW), 0.0, None), ..account(1) };
    check("reset", &[reset, other.clone()], STAYS);
    // An account in front that is worse is passed over, whatever the strategy says of it.
    let worse = AccountView { id: id(3), ..used_account(3, 86.0, 0.0) };
    check("a better and a worse one", &[worse, used_account(1, 95.1, 0.0), other], LEAVES);
}

#[test]
fn what_is_better_is_exact() {
    let own = used_account(1, 95.1, 0.0);
    let goes_when = |change: fn(&mut AccountView)| {
        let mut other = account(2);
        change(&mut other);
        goes(&[own.clone(), other], &RoutingSettings::default())
    };
    let (stays, leaves) = (chosen(1, Why::Sticky), chosen(2, Why::Placed));
    assert_eq!(goes_when(|other| other.usage = used(84.9, 89.9)), leaves);
    assert_eq!(goes_when(|other| other.usage = used(85.0, 0.0)), stays);
    assert_eq!(goes_when(|other| other.usage = used(0.0, 90.0)), stays);
    assert_eq!(goes_when(|other| other.health = failing()), stays);
    assert_eq!(goes_when(|other| other.health = probing()), leaves);
    assert_eq!(goes_when(|other| other.in_flight = 7), leaves);
    assert_eq!(goes_when(|other| other.in_flight = 8), stays);
    assert_eq!(goes_when(|other| other.routing_policy = RoutingPolicy::BurnFirst), leaves);
    assert_eq!(goes_when(|other| other.routing_policy = RoutingPolicy::Preserve), stays);
    assert_eq!(goes_when(|other| other.state = AccountState::Paused), stays);
    let preserved =
        |number, primary| AccountView { routing_policy: RoutingPolicy::Preserve, ..used_account(number, primary, 0.0) };
    let settings = RoutingSettings::default();
    assert_eq!(goes(&[preserved(1, 95.1), preserved(2, 0.0)], &settings), leaves);
    // Nobody better, and the own account busy: it is waited for, as always.
    assert_eq!(goes(&[busy(own.clone()), used_account(2, 90.0, 0.0)], &settings), at_capacity(Why::Sticky, &[1]));
}

#[test]
fn the_threshold_is_a_setting() {
    let pool = |own, other| [used_account(1, own, 0.0), used_account(2, other, 0.0)];
    let with =
        |sticky_leave_above_percent| RoutingSettings { sticky_leave_above_percent, ..RoutingSettings::default() };
    let (stays, leaves) = (chosen(1, Why::Sticky), chosen(2, Why::Placed));
    assert_eq!(goes(&pool(50.0, 0.0), &with(50)), stays);
    assert_eq!(goes(&pool(50.1, 0.0), &with(50)), leaves);
    assert_eq!(goes(&pool(60.0, 50.0), &with(50)), leaves);
    assert_eq!(goes(&pool(60.0, 50.1), &with(50)), stays, "the other one would be left again");
    assert_eq!(goes(&pool(99.9, 0.0), &with(100)), stays);
}

#[test]
fn a_conversation_leaves_an_account_that_serves_on_credits() {
    let own =
        AccountView { credits: Credits { has_credits: true, is_unlimited: false }, ..used_account(1, 0.0, 100.0) };
    check("a regular one is there", &[own.clone(), account(2)], LEAVES);
    let other = AccountView { id: id(2), ..own.clone() };
    check("the other one pays too", &[own, other], STAYS);
}

#[test]
fn a_busy_account_is_waited_for_then_another_serves_once() {
    let pool = [busy(account(1)), account(2)];
    let settings = RoutingSettings::default();
    let go =
        |pool: &[AccountView], has_waited| choose(pool, &Needs::default(), &settings, sticky(1, has_waited), 7, NOW);
    assert_eq!(go(&pool, false), at_capacity(Why::Sticky, &[1]));
    assert_eq!(go(&pool, true), chosen(2, Why::Overflow));
    assert_eq!(go(&[account(1), account(2)], true), chosen(1, Why::Sticky));
    let all_busy = pool.map(busy);
    assert_eq!(go(&all_busy, false), at_capacity(Why::Sticky, &[1]));
    assert_eq!(go(&all_busy, true), at_capacity(Why::Overflow, &[1, 2]));
}

#[test]
fn without_sticky_sessions_every_request_is_chosen_anew() {
    let settings = RoutingSettings { sticky_sessions: false, ..rules(StrategyKind::RoundRobin) };
    let own = AccountView { last_chosen: 9, ..account(1) };
    let pool = [own, account(2)];
    assert_eq!(goes(&pool, &settings), chosen(2, Why::Strategy));
    let new = Affinity::New { key: KEY };
    assert_eq!(choose(&pool, &Needs::default(), &settings, new, 7, NOW), chosen(2, Why::Strategy));
}

#[test]
fn the_single_account_keeps_no_conversation_of_another() {
    let settings = RoutingSettings { single_account: Some(id(2)), ..rules(StrategyKind::SingleAccount) };
    assert_eq!(goes(&[account(1), account(2)], &settings), chosen(2, Why::Placed));
    let settings = RoutingSettings { single_account: Some(id(1)), ..settings };
    let pool = [used_account(1, 99.0, 0.0), account(2)];
    assert_eq!(goes(&pool, &settings), chosen(1, Why::Sticky), "nobody else is admitted, so nobody is better");
}
