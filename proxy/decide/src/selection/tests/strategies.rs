//! Each strategy's order, taken apart.

use super::*;

/// The order in which a strategy takes the candidates.
fn order(kind: StrategyKind, pool: &[AccountView], sight: &Sight) -> Vec<u128> {
    let mut candidates: Vec<&AccountView> = pool.iter().collect();
    let mut order = Vec::new();
    while let Some(best) = strategy(kind).best(&candidates, sight) {
        candidates.retain(|candidate| candidate.id != best.id);
        order.push(best.id.as_u128());
    }
    order
}

fn check(kind: StrategyKind, pool: &[AccountView], expected: &[u128]) {
    let sight = Sight::new(NOW, Basis::Process, 7);
    assert_eq!(order(kind, pool, &sight), expected);
    let reversed: Vec<AccountView> = pool.iter().rev().cloned().collect();
    assert_eq!(order(kind, &reversed, &sight), expected, "the order of the pool must not matter");
}

/// How often each of the accounts 1 to `N` comes first.
fn shares<const N: usize>(kind: StrategyKind, pool: &[AccountView], rounds: u32) -> [f64; N] {
    let candidates: Vec<&AccountView> = pool.iter().collect();
    let mut counts = [0_u32; N];
    for dice in 0..rounds {
        let sight = Sight::new(NOW, Basis::Process, u128::from(dice));
        let best = strategy(kind).best(&candidates, &sight).unwrap();
        counts[best.id.as_u128() as usize - 1] += 1;
    }
    counts.map(|count| f64::from(count) / f64::from(rounds))
}

fn assert_near<const N: usize>(shares: [f64; N], weights: [f64; N]) {
    let sum: f64 = weights.iter().sum();
    for (share, weight) in shares.into_iter().zip(weights) {
        assert!((share - weight / sum).abs() < 0.01, "{shares:?} for weights {weights:?}");
    }
}

fn planned(number: u128, plan: Plan) -> AccountView {
    AccountView { plan, ..account(number) }
}

#[test]
fn capacity_weighted_draws_by_the_credits_left() {
    let pool = [
        account(1),
        AccountView { plan: Plan::Pro, ..used_account(2, 0.0, 50.0) },
        AccountView { in_flight: 4, ..planned(3, Plan::Prolite) },
        planned(4, Plan::Free),
    ];
    let weights = [7_560.0, 25_200.0, 37_800.0 * 0.9, 1_134.0];
    assert_near(shares(StrategyKind::CapacityWeighted, &pool, 40_000), weights);
    let nothing_left = [used_account(1, 0.0, 100.0), AccountView { in_flight: 99, ..account(2) }];
    assert_near(shares(StrategyKind::CapacityWeighted, &nothing_left, 10_000), [1.0, 1.0]);
}

#[test]
fn relative_availability_draws_by_the_square_of_credits_per_second() {
    let resets_in = |number, ms| AccountView { usage: used_until(0.0, None, 0.0, Some(at(ms))), ..account(number) };
    let pool = [resets_in(1, 2 * DAY), resets_in(2, DAY), planned(3, Plan::Prolite)];
    // Credits per day until the reset: 3,780, 7,560 and 37,800 in 7 days.
    assert_near(shares(StrategyKind::RelativeAvailability, &pool, 40_000), [0.25, 1.0, 0.510_2]);
    // A reset in less than 5 minutes counts as one in 5.
    let pool = [resets_in(1, SECOND), resets_in(2, 300 * SECOND), resets_in(3, 600 * SECOND)];
    assert_near(shares(StrategyKind::RelativeAvailability, &pool, 40_000), [1.0, 1.0, 0.25]);
    // Without credits left, the nearer reset still counts.
    let spent = |number, ms| AccountView { usage: used_until(0.0, None, 100.0, Some(at(ms))), ..account(number) };
    assert_near(shares(StrategyKind::RelativeAvailability, &[spent(1, DAY), spent(2, 2 * DAY)], 40_000), [1.0, 0.25]);
}

#[test]
fn relative_availability_draws_among_the_best_five() {
    let pool: Vec<AccountView> = (1..=8).map(|number| used_account(number, 0.0, number as f64)).collect();
    for rotation in 0..8 {
        let mut pool = pool.clone();
        pool.rotate_left(rotation);
        let shares: [f64; 8] = shares(StrategyKind::RelativeAvailability, &pool, 2_000);
        assert!(shares[..5].iter().all(|share| *share > 0.15), "{shares:?}");
        assert_eq!(shares[5..], [0.0; 3]);
    }
    // Of eight equal ones each gets its turn among the five.
    let equal: Vec<AccountView> = (1..=8).map(account).collect();
    assert_near(shares(StrategyKind::RelativeAvailability, &equal, 40_000), [1.0; 8]);
}

#[test]
fn usage_weighted_takes_the_least_used() {
    let pool = [
        AccountView { last_chosen: 1, ..used_account(1, 0.0, 30.0) },
        AccountView { last_chosen: 2, ..used_account(2, 50.0, 10.0) },
        AccountView { last_chosen: 3, ..used_account(3, 40.0, 10.0) },
        AccountView { last_chosen: 9, ..used_account(4, 40.0, 20.0) },
        AccountView { last_chosen: 8, ..used_account(5, 40.0, 20.0) },
        AccountView { last_chosen: 8, ..used_account(6, 40.0, 20.0) },
        // 2.5 points for each running exchange: as if 10 % and 45 % were used.
        AccountView { in_flight: 2, ..used_account(7, 40.0, 5.0) },
        account(8),
    ];
    check(StrategyKind::UsageWeighted, &pool, &[8, 3, 7, 2, 5, 6, 4, 1]);
}

#[test]
fn round_robin_takes_who_was_chosen_longest_ago() {
    let with = |number, last_chosen| AccountView { last_chosen, ..account(number) };
    check(StrategyKind::RoundRobin, &[with(1, 7), with(2, 0), with(3, 5), with(4, 0)], &[2, 4, 3, 1]);
}

#[test]
fn fill_first_takes_the_most_used() {
    let pool = [
        used_account(1, 10.0, 50.0),
        used_account(2, 30.0, 10.0),
        used_account(3, 30.0, 20.0),
        AccountView { in_flight: 8, ..used_account(4, 11.0, 0.0) },
        account(5),
        account(6),
    ];
    check(StrategyKind::FillFirst, &pool, &[4, 3, 2, 1, 5, 6]);
}

#[test]
fn sequential_drain_takes_small_plans_first_in_a_fixed_order() {
    let pool = [
        planned(1, Plan::Pro),
        AccountView { in_flight: 7, last_chosen: 9, plan: Plan::Team, ..used_account(2, 80.0, 80.0) },
        planned(3, Plan::Plus),
        planned(4, Plan::Prolite),
        planned(5, Plan::Free),
        planned(6, Plan::Enterprise),
    ];
    check(StrategyKind::SequentialDrain, &pool, &[5, 2, 3, 4, 1, 6]);
}

#[test]
fn reset_drain_takes_the_soonest_reset() {
    // NOW lies 200 s after the begin of a step of 600 s.
    let resets_in = |number, seconds, primary, secondary| AccountView {
        usage: used_until(primary, Some(at(HOUR)), secondary, Some(at(seconds * SECOND))),
        ..account(number)
    };
    let pool = [
        resets_in(1, 86_400, 0.0, 0.0),
        resets_in(2, 400, 0.0, 0.0),
        resets_in(3, 1, 50.0, 10.0),
        resets_in(4, 399, 40.0, 20.0),
        resets_in(5, 300, 40.0, 10.0),
        account(6),
        resets_in(7, 0, 0.0, 99.0),
        AccountView { in_flight: 1, ..resets_in(8, 86_400, 0.0, 0.0) },
    ];
    check(StrategyKind::ResetDrain, &pool, &[5, 4, 3, 2, 1, 8, 6, 7]);
}

#[test]
fn single_account_orders_nothing() {
    check(StrategyKind::SingleAccount, &[account(2), account(1)], &[1, 2]);
}
