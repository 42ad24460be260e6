//! What an operator's rules change.

use super::*;

#[test]
fn the_single_account_serves_or_nobody() {
    let pool = [account(1), account(2), account(3)];
    let rules = |single_account| RoutingSettings { single_account, ..rules(StrategyKind::SingleAccount) };
    assert_eq!(choose_free(&pool, &rules(Some(id(2)))), chosen(2, Why::Strategy));
    for absent in [None, Some(id(9))] {
        let trouble = PoolTrouble { accounts: 3, not_the_single_account: 3, ..PoolTrouble::default() };
        assert_eq!(choose_free(&pool, &rules(absent)), Err(NotChosen::Nobody(trouble)));
    }
    let mut pool = pool;
    pool[1] = busy(account(2));
    assert_eq!(choose_free(&pool, &rules(Some(id(2)))), at_capacity(Why::Strategy, &[2]));
    pool[1].cooling_until = Some(at(1));
    let trouble = PoolTrouble {
        accounts: 3,
        not_the_single_account: 2,
        cooling_down: 1,
        earliest_cooldown_end: Some(at(1)),
        ..PoolTrouble::default()
    };
    assert_eq!(choose_free(&pool, &rules(Some(id(2)))), Err(NotChosen::Nobody(trouble)));
    // The setting means nothing to any other strategy.
    let other = RoutingSettings { single_account: Some(id(9)), ..RoutingSettings::default() };
    assert!(choose_free(&[account(1)], &other).is_ok());
}

/// Accounts 1 and 2 reset on the next day, account 3 at its last moment, account 4 a moment later, on the day after.
fn pool_by_reset() -> Vec<AccountView> {
    let next_day_end = 19_677 * DAY;
    let resets_at = |ms| Some(Timestamp::from_unix_ms(ms));
    let view = |number, primary, secondary, ms| AccountView {
        usage: used_until(primary, Some(at(HOUR)), secondary, resets_at(ms)),
        ..account(number)
    };
    vec![
        view(4, 80.0, 0.0, next_day_end),
        view(1, 1.0, 30.0, next_day_end - DAY),
        view(2, 2.0, 20.0, next_day_end - 2),
        view(3, 3.0, 10.0, next_day_end - 1),
        account(5),
    ]
}

#[test]
fn prefer_earlier_reset_narrows_three_strategies_to_the_earliest_day() {
    let pool = pool_by_reset();
    let picked = |kind, prefer_earlier_reset| {
        let settings = RoutingSettings { prefer_earlier_reset, ..rules(kind) };
        choose_free(&pool, &settings).unwrap().account.as_u128()
    };
    assert_eq!((picked(StrategyKind::UsageWeighted, false), picked(StrategyKind::UsageWeighted, true)), (5, 3));
    assert_eq!((picked(StrategyKind::FillFirst, false), picked(StrategyKind::FillFirst, true)), (4, 3));
}

#[test]
fn prefer_earlier_reset_means_nothing_to_the_other_strategies() {
    let view = |number, secondary, ms| AccountView {
        usage: used_until(0.0, None, secondary, Some(at(ms))),
        ..account(number)
    };
    // Each of them, but reset_drain, has a reason to take the account that resets later.
    let pool = [
        AccountView { plan: Plan::Pro, last_chosen: 9, ..view(1, 80.0, 2 * DAY) },
        AccountView { plan: Plan::Plus, last_chosen: 0, ..view(2, 0.0, 3 * DAY) },
    ];
    let picked = |kind, prefer_earlier_reset| -> Vec<u128> {
        let settings = RoutingSettings { prefer_earlier_reset, ..rules(kind) };
        let choose = |dice| choose(&pool, &Needs::default(), &settings, Affinity::None, dice, NOW);
        (0..50).map(|dice| choose(dice).unwrap().account.as_u128()).collect()
    };
    for (kind, takes) in [
        (StrategyKind::RelativeAvailability, 2),
        (StrategyKind::RoundRobin, 2),
        (StrategyKind::SequentialDrain, 2),
        (StrategyKind::ResetDrain, 1),
    ] {
        assert!(picked(kind, false).contains(&takes), "{kind:?}");
        assert_eq!(picked(kind, true), picked(kind, false), "{kind:?}");
    }
}

#[test]
fn prefer_earlier_reset_narrows_the_weighted_draw_and_its_placements() {
    let pool = pool_by_reset();
    let drawn = |prefer_earlier_reset, affinity: fn(u8) -> Affinity| {
        let settings = RoutingSettings { prefer_earlier_reset, ..RoutingSettings::default() };
        let draw = |dice: u8| choose(&pool, &Needs::default(), &settings, affinity(dice), u128::from(dice), NOW);
        let numbers: std::collections::BTreeSet<u128> =
            (0..=255).map(|dice| draw(dice).unwrap().account.as_u128()).collect();
        Vec::from_iter(numbers)
    };
    for affinity in [|_| Affinity::None, |dice| Affinity::New { key: [dice; 16] }] as [fn(u8) -> Affinity; 2] {
        assert_eq!(drawn(false, affinity), [1, 2, 3, 4, 5]);
        assert_eq!(drawn(true, affinity), [1, 2, 3]);
    }
}

#[test]
fn the_earliest_day_is_sought_among_the_best_accounts_only() {
    let mut pool = pool_by_reset();
    pool.iter_mut().filter(|view| view.id <= id(3)).for_each(|view| view.in_flight = view.concurrency_cap);
    let settings = RoutingSettings { prefer_earlier_reset: true, ..rules(StrategyKind::UsageWeighted) };
    assert_eq!(choose_free(&pool, &settings), chosen(4, Why::Strategy));
}
