//! Owners: what only one account knows goes there or nowhere.

use super::*;

fn to_owner(accounts: &[AccountView], owner: u128) -> Result<Chosen, NotChosen> {
    let affinity = Affinity::Owner(id(owner));
    let through_choose = choose(accounts, &Needs::default(), &RoutingSettings::default(), affinity, 7, NOW);
    assert_eq!(choose_owner(accounts, &Needs::default(), id(owner), NOW), through_choose);
    through_choose
}

fn unavailable(owner: u128, reason: Option<Ineligible>) -> Result<Chosen, NotChosen> {
    Err(NotChosen::OwnerUnavailable(OwnerUnavailable { owner: id(owner), reason }))
}

#[test]
fn only_the_owner_serves_or_an_error_says_why_not() {
    assert_eq!(to_owner(&[account(1), account(2)], 2), chosen(2, Why::Owner));
    assert_eq!(to_owner(&[account(1)], 2), unavailable(2, None));
    assert_eq!(to_owner(&[], 2), unavailable(2, None));
    let paused = AccountView { state: AccountState::Paused, ..account(2) };
    assert_eq!(to_owner(&[account(1), paused], 2), unavailable(2, Some(Ineligible::Paused)));
    assert_eq!(to_owner(&[account(1), busy(account(2))], 2), at_capacity(Why::Owner, &[2]));
}

#[test]
fn an_owner_serves_however_little_the_strategy_likes_it() {
    let worn = AccountView {
        routing_policy: RoutingPolicy::Preserve,
        health: failing(),
        credits: Credits { has_credits: true, is_unlimited: false },
        ..used_account(2, 99.0, 100.0)
    };
    let pool = [account(1), worn];
    assert_eq!(to_owner(&pool, 2), chosen(2, Why::Owner));
    let other_only = RoutingSettings { single_account: Some(id(1)), ..rules(StrategyKind::SingleAccount) };
    let not_sticky = RoutingSettings { sticky_sessions: false, ..RoutingSettings::default() };
    for settings in [other_only, not_sticky] {
        let owner = Affinity::Owner(id(2));
        assert_eq!(choose(&pool, &Needs::default(), &settings, owner, 7, NOW), chosen(2, Why::Owner));
    }
}

#[test]
fn an_owner_out_of_the_key_s_scope_does_not_serve() {
    let needs = Needs { scope: Some(&AccountIds::default()), ..Needs::default() };
    let answer = choose_owner(&[account(2)], &needs, id(2), NOW);
    assert_eq!(answer, unavailable(2, Some(Ineligible::OutOfScope)));
}
