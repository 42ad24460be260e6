//! What the caller is told when nobody can serve.

use super::*;

fn trouble(accounts: &[AccountView], needs: &Needs<'_>, settings: &RoutingSettings) -> PoolTrouble {
    match choose(accounts, needs, settings, Affinity::None, 7, NOW) {
        Err(NotChosen::Nobody(trouble)) => trouble,
        other => panic!("somebody was chosen: {other:?}"),
    }
}

fn limited(number: u128, plan: Plan, until: Option<i64>) -> AccountView {
    let state_until = until.map(at);
    AccountView { plan, state: AccountState::RateLimited, state_until, ..account(number) }
}

#[test]
fn an_empty_pool_is_no_trouble_of_any_account() {
    let trouble = trouble(&[], &Needs::default(), &RoutingSettings::default());
    assert_eq!(trouble, PoolTrouble::default());
    assert_eq!(trouble.earliest_change(), None);
}

#[test]
fn every_account_counts_once_for_its_reason() {
    let out_of_service = PoolTrouble { accounts: 2, out_of_service: 2, ..PoolTrouble::default() };
    let limited = PoolTrouble { accounts: 2, limited: 2, ..PoolTrouble::default() };
    let cases = [
        (AccountState::Paused, &out_of_service),
        (AccountState::ReauthRequired, &out_of_service),
        (AccountState::Deactivated, &out_of_service),
        (AccountState::RateLimited, &limited),
        (AccountState::QuotaExceeded, &limited),
    ];
    for (state, expected) in cases {
        let pool = [1, 2].map(|number| AccountView { state, ..account(number) });
        let trouble = trouble(&pool, &Needs::default(), &RoutingSettings::default());
        assert_eq!(trouble, *expected, "{state:?}");
        assert_eq!(trouble.earliest_change(), None);
    }
    let pool = [account(1), account(2)];
    let (both, none) = ([id(1), id(2)], Needs::default());
    let normal = RoutingSettings::default();
    let out_of_scope = trouble(&pool, &Needs { scope: Some(&AccountIds::default()), ..none }, &normal);
    assert_eq!(out_of_scope, PoolTrouble { accounts: 2, out_of_scope: 2, ..PoolTrouble::default() });
    let excluded = trouble(&pool, &Needs { excluded: &both, ..none }, &normal);
    assert_eq!(excluded, PoolTrouble { accounts: 2, excluded: 2, ..PoolTrouble::default() });
    let model = trouble(&pool, &Needs { model_plans: Some(&[Plan::Pro]), ..none }, &normal);
    assert_eq!(model, PoolTrouble { accounts: 2, model_not_offered: 2, ..PoolTrouble::default() });
    let tier = trouble(&pool, &Needs { tier_plans: Some(&[Plan::Pro]), ..none }, &normal);
    assert_eq!(tier, PoolTrouble { accounts: 2, tier_not_offered: 2, ..PoolTrouble::default() });
    let single = trouble(&pool, &none, &rules(StrategyKind::SingleAccount));
    assert_eq!(single, PoolTrouble { accounts: 2, not_the_single_account: 2, ..PoolTrouble::default() });
}

#[test]
fn the_limit_that_ends_first_is_told_with_its_plan() {
    let pool = [
        limited(1, Plan::Plus, Some(20)),
        limited(2, Plan::Pro, Some(10)),
        limited(3, Plan::Team, Some(10)),
        limited(4, Plan::Free, None),
    ];
    let mut expected = PoolTrouble {
        accounts: 4,
        limited: 4,
        earliest_reset: Some(at(10)),
        earliest_reset_plan: Some(Plan::Pro),
        ..PoolTrouble::default()
    };
    assert_eq!(trouble(&pool, &Needs::default(), &RoutingSettings::default()), expected);
    // A model's own limit counts like the account's.
    let named_cooldowns = vec![NamedCooldown { named_limit: "spark".to_owned(), until: at(5) }];
    let spark = AccountView { named_cooldowns, plan: Plan::Edu, ..account(5) };
    let pool = [limited(1, Plan::Plus, Some(20)), spark];
    let needs = Needs { named_limit: Some("spark"), ..Needs::default() };
    expected = PoolTrouble {
        accounts: 2,
        limited: 2,
        earliest_reset: Some(at(5)),
        earliest_reset_plan: Some(Plan::Edu),
        ..PoolTrouble::default()
    };
    assert_eq!(trouble(&pool, &needs, &RoutingSettings::default()), expected);
}

#[test]
fn the_earliest_change_is_a_reset_or_the_end_of_a_cooldown() {
    let cooling = |number, until| AccountView { cooling_until: Some(at(until)), ..account(number) };
    let told = |pool: &[AccountView]| trouble(pool, &Needs::default(), &RoutingSettings::default());
    let both = told(&[cooling(1, 30), cooling(2, 25), limited(3, Plan::Plus, Some(27))]);
    assert_eq!((both.cooling_down, both.limited), (2, 1));
    assert_eq!(both.earliest_cooldown_end, Some(at(25)));
    assert_eq!(both.earliest_change(), Some(at(25)));
    let reset_first = told(&[cooling(1, 30), limited(3, Plan::Plus, Some(27))]);
    assert_eq!(reset_first.earliest_change(), Some(at(27)));
    let cooling_only = told(&[cooling(1, 30), cooling(2, 40)]);
    assert_eq!((cooling_only.earliest_reset, cooling_only.earliest_change()), (None, Some(at(30))));
}

#[test]
fn a_busy_pool_is_told_apart_from_a_broken_one() {
    let paused = AccountView { state: AccountState::Paused, ..account(3) };
    let settings = RoutingSettings::default();
    assert_eq!(
        choose_free(&[busy(account(1)), paused.clone(), busy(account(2))], &settings),
        at_capacity(Why::Strategy, &[1, 2])
    );
    let almost = AccountView { in_flight: 7, ..account(2) };
    assert_eq!(choose_free(&[busy(account(1)), paused, almost], &settings), chosen(2, Why::Strategy));
    let over = AccountView { in_flight: 9, ..account(1) };
    assert_eq!(choose_free(&[over], &settings), at_capacity(Why::Strategy, &[1]));
}

#[test]
fn only_who_waits_for_one_account_waits_for_its_own() {
    let waits = |why| AtCapacity { why, eligible: vec![id(1)] }.is_for_own();
    assert_eq!([Why::Sticky, Why::Owner].map(waits), [true, true]);
    assert_eq!([Why::Placed, Why::Overflow, Why::Strategy].map(waits), [false, false, false]);
}
