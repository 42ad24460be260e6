//! Cases and laws of the choice.

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{AccountState, Plan, RoutingPolicy};
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use codex_lb_shared::domain::upstream_window::{AccountUsage, UpstreamWindow};
use codex_lb_shared::ids::AccountId;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;

const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

fn account(id: u128) -> AccountView {
    AccountView {
        id: AccountId::from_u128(id),
        plan: Plan::Plus,
        state: AccountState::Active,
        state_until: None,
        cooling_until: None,
        usage: None,
        routing_policy: RoutingPolicy::Normal,
        in_flight: 0,
        last_chosen: 0,
    }
}

fn used(primary: f64, secondary: f64, resets_at: Option<i64>) -> Option<AccountUsage> {
    let window = |used_percent, window_minutes| {
        Some(UpstreamWindow { used_percent, window_minutes, resets_at: resets_at.map(Timestamp::from_unix_ms) })
    };
    Some(AccountUsage { primary: window(primary, 300), secondary: window(secondary, 10_080), observed_at: NOW })
}

fn pick(accounts: &[AccountView], needs: &Needs<'_>, kind: StrategyKind) -> Result<u128, PoolTrouble> {
    choose(accounts, needs, None, kind, NOW, &mut SmallRng::seed_from_u64(7)).map(AccountId::as_u128)
}

#[test]
fn only_an_eligible_account_is_a_candidate() {
    let soon = Some(Timestamp::from_unix_ms(1_000_001));
    let cases = [
        ("active", account(1), Ok(())),
        ("paused", AccountView { state: AccountState::Paused, ..account(1) }, Err(Ineligible::Paused)),
        ("login", AccountView { state: AccountState::ReauthRequired, ..account(1) }, Err(Ineligible::ReauthRequired)),
        ("closed", AccountView { state: AccountState::Deactivated, ..account(1) }, Err(Ineligible::Deactivated)),
        (
            "limited",
            AccountView { state: AccountState::RateLimited, state_until: soon, ..account(1) },
            Err(Ineligible::Limited(soon)),
        ),
        (
            "quota",
            AccountView { state: AccountState::QuotaExceeded, state_until: None, ..account(1) },
            Err(Ineligible::Limited(None)),
        ),
        (
            "cooling",
            AccountView { cooling_until: soon, ..account(1) },
            Err(Ineligible::CoolingDown(Timestamp::from_unix_ms(1_000_001))),
        ),
        ("cooled", AccountView { cooling_until: Some(NOW), ..account(1) }, Ok(())),
        (
            "used up",
            AccountView { usage: used(100.0, 5.0, Some(1_000_001)), ..account(1) },
            Err(Ineligible::Limited(soon)),
        ),
        ("nearly used up", AccountView { usage: used(99.9, 99.9, Some(1_000_001)), ..account(1) }, Ok(())),
        ("used up but reset", AccountView { usage: used(100.0, 100.0, Some(1_000_000)), ..account(1) }, Ok(())),
        ("used up, end unknown", AccountView { usage: used(100.0, 100.0, None), ..account(1) }, Ok(())),
    ];
    for (name, account, expected) in cases {
        assert_eq!(eligibility(&account, &Needs::default(), NOW), expected, "{name}");
    }
}

#[test]
fn an_exchange_excludes_accounts_and_plans() {
    let pool = [account(1), AccountView { plan: Plan::Pro, ..account(2) }];
    let without_second = Needs { excluded: &[AccountId::from_u128(2)], ..Needs::default() };
    assert_eq!(pick(&pool, &without_second, StrategyKind::RoundRobin), Ok(1));
    let pro_only = Needs { plans: Some(&[Plan::Pro]), ..Needs::default() };
    assert_eq!(pick(&pool, &pro_only, StrategyKind::RoundRobin), Ok(2));
}

#[test]
fn trouble_names_the_earliest_reset_of_a_limited_pool() {
    let limited = |id, until| AccountView {
        state: AccountState::RateLimited,
        state_until: Some(Timestamp::from_unix_ms(until)),
        ..account(id)
    };
    let trouble = pick(&[limited(1, 2_000_000), limited(2, 1_500_000)], &Needs::default(), StrategyKind::RoundRobin);
    let trouble = trouble.unwrap_err();
    assert_eq!((trouble.accounts, trouble.limited), (2, 2));
    assert_eq!(trouble.earliest_reset, Some(Timestamp::from_unix_ms(1_500_000)));
}

#[test]
fn a_sticky_account_is_kept_while_it_is_eligible() {
    let mut pool = [account(1), account(2)];
    pool[1].usage = used(94.0, 94.0, Some(2_000_000));
    let mut dice = SmallRng::seed_from_u64(1);
    let sticky = Some(AccountId::from_u128(2));
    let kind = StrategyKind::RoundRobin;
    let chosen = choose(&pool, &Needs::default(), sticky, kind, NOW, &mut dice).unwrap();
    assert_eq!(chosen.as_u128(), 2);
    pool[1].state = AccountState::Paused;
    let chosen = choose(&pool, &Needs::default(), sticky, kind, NOW, &mut dice).unwrap();
    assert_eq!(chosen.as_u128(), 1);
}

#[test]
fn policies_come_before_the_strategy() {
    let mut pool = [account(1), account(2), account(3)];
    pool[0].routing_policy = RoutingPolicy::Preserve;
    pool[2].routing_policy = RoutingPolicy::BurnFirst;
    pool[2].last_chosen = 9;
    assert_eq!(pick(&pool, &Needs::default(), StrategyKind::RoundRobin), Ok(3));
    pool[2].state = AccountState::Paused;
    assert_eq!(pick(&pool, &Needs::default(), StrategyKind::RoundRobin), Ok(2));
    pool[1].state = AccountState::Paused;
    assert_eq!(pick(&pool, &Needs::default(), StrategyKind::RoundRobin), Ok(1));
}

#[test]
fn capacity_weights_are_near_their_share() {
    let mut pool = [account(1), account(2)];
    pool[1].plan = Plan::Pro; // 50,400 against 7,560 credits
    pool[1].usage = used(0.0, 50.0, None);
    let mut dice = SmallRng::seed_from_u64(42);
    let rounds = 20_000;
    let picked = (0..rounds)
        .filter(|_| {
            choose(&pool, &Needs::default(), None, StrategyKind::CapacityWeighted, NOW, &mut dice)
                .is_ok_and(|id| id.as_u128() == 2)
        })
        .count();
    let share = f64::from(u32::try_from(picked).unwrap()) / f64::from(rounds);
    let expected = 25_200.0 / (25_200.0 + 7_560.0);
    assert!((share - expected).abs() < 0.02, "share {share}, expected {expected}");
}

#[test]
fn running_exchanges_press_an_account_down() {
    let mut pool = [account(1), account(2)];
    pool[0].in_flight = 40; // 40 × 2.5 points: as if used up
    let mut dice = SmallRng::seed_from_u64(3);
    for _ in 0..50 {
        let chosen = choose(&pool, &Needs::default(), None, StrategyKind::CapacityWeighted, NOW, &mut dice);
        assert_eq!(chosen.unwrap().as_u128(), 2);
    }
}

prop_compose! {
    fn any_account()(
        id in 1_u128..50,
        plan in prop::sample::select(vec![Plan::Plus, Plan::Prolite, Plan::Pro]),
        usage in prop::option::of((0.0_f64..120.0, 0.0_f64..120.0, prop::option::of(0_i64..2_000_000))),
        in_flight in 0_u32..50,
        last_chosen in 0_u64..5,
    ) -> AccountView {
        AccountView { plan, usage: usage.and_then(|(p, s, r)| used(p, s, r)), in_flight, last_chosen, ..account(id) }
    }
}

proptest! {
    #[test]
    fn every_strategy_keeps_the_set_and_is_deterministic_given_the_dice(
        pool in prop::collection::vec(any_account(), 0..20),
        seed in any::<u64>(),
    ) {
        for kind in StrategyKind::ALL {
            let mut first: Vec<&AccountView> = pool.iter().collect();
            let mut second = first.clone();
            strategy(kind).order(&mut first, NOW, &mut SmallRng::seed_from_u64(seed));
            strategy(kind).order(&mut second, NOW, &mut SmallRng::seed_from_u64(seed));
            let ids = |order: &[&AccountView]| order.iter().map(|account| account.id).collect::<Vec<_>>();
            prop_assert_eq!(ids(&first), ids(&second));
            let (mut before, mut after) = (ids(&pool.iter().collect::<Vec<_>>()), ids(&first));
            before.sort_unstable();
            after.sort_unstable();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn no_account_starves(pool in prop::collection::vec(any_account(), 1..6)) {
        let mut pool: Vec<AccountView> = pool
            .into_iter()
            .enumerate()
            .map(|(index, view)| AccountView { id: AccountId::from_u128(index as u128), usage: None, in_flight: 0, ..view })
            .collect();
        let mut choices = 10_u64;
        for kind in StrategyKind::ALL {
            let mut dice = SmallRng::seed_from_u64(11);
            let mut chosen = std::collections::HashSet::new();
            for _ in 0..2_000 {
                let id = choose(&pool, &Needs::default(), None, kind, NOW, &mut dice).unwrap();
                chosen.insert(id);
                choices += 1;
                pool.iter_mut().filter(|view| view.id == id).for_each(|view| view.last_chosen = choices);
            }
            prop_assert_eq!(chosen.len(), pool.len(), "{:?}", kind);
        }
    }
}
