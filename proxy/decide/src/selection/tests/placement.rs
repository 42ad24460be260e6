//! First placements: alike on every replica, near their shares, and hardly moved by a change of the pool.

use std::time::Duration;

use super::*;

const WEIGHTED: [StrategyKind; 2] = [StrategyKind::CapacityWeighted, StrategyKind::RelativeAvailability];

/// A cheap row of numbers that look random.
fn scramble(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11
}

/// The key of a conversation, as a digest would be.
fn key(number: u64) -> [u8; 16] {
    let low = scramble(number + 1_000_000_000);
    (u128::from(scramble(number)) << 64 | u128::from(low)).to_le_bytes()
}

/// Accounts with what every replica knows of them.
fn shared_pool(size: u64) -> Vec<AccountView> {
    (0..size)
        .map(|number| {
            let dice = scramble(number + 7);
            let percent = |shift: u32| ((dice >> shift) % 800) as f64 / 10.0;
            let resets_at = at(4 * DAY + (dice % (3 * DAY as u64)) as i64);
            AccountView {
                plan: [Plan::Plus, Plan::Team, Plan::Prolite, Plan::Pro, Plan::Free][number as usize % 5],
                usage: used_until(percent(10), Some(at(HOUR)), percent(20), Some(resets_at)),
                ..account(u128::from(number) + 1)
            }
        })
        .collect()
}

/// The same pool as one process sees it that has its own exchanges running, its own failures and its own history.
fn replica(mut pool: Vec<AccountView>, seed: u64) -> Vec<AccountView> {
    for (number, view) in pool.iter_mut().enumerate() {
        let dice = scramble(number as u64 * 31 + seed);
        view.in_flight = (dice % 8) as u32;
        view.last_chosen = dice % 1_000;
        view.health = match dice % 5 {
            0 => failing(),
            1 => probing(),
            2 => HealthFacts { last_used_at: None, ..probing() },
            _ => HealthFacts::default(),
        };
    }
    if seed.is_multiple_of(2) {
        pool.reverse();
    }
    pool
}

fn placed(pool: &[AccountView], kind: StrategyKind, key: [u8; 16], now: Timestamp) -> u128 {
    let placed = place(pool, &Needs::default(), &rules(kind), key, now).unwrap();
    assert_eq!(placed.why, Why::Placed);
    placed.account.as_u128()
}

#[test]
fn two_replicas_place_new_conversations_alike() {
    for kind in WEIGHTED {
        for size in [2, 8, 40] {
            let (one, other) = (replica(shared_pool(size), 1), replica(shared_pool(size), 2));
            let agreed = (0..10_000).filter(|number| {
                // The same conversation does not reach both at the same moment.
                placed(&one, kind, key(*number), NOW) == placed(&other, kind, key(*number), at(700))
            });
            let agreed = agreed.count();
            assert!(agreed >= 9_990, "{kind:?} agreed on {agreed} of 10,000 among {size}");
        }
    }
}

#[test]
fn replicas_whose_samples_differ_a_little_still_mostly_agree() {
    let one = replica(shared_pool(40), 1);
    let mut other = replica(shared_pool(40), 2);
    for view in &mut other {
        let jitter = if view.id.as_u128().is_multiple_of(2) { 0.5 } else { -0.5 };
        let secondary = view.usage.as_mut().and_then(|usage| usage.secondary.as_mut()).unwrap();
        secondary.used_percent += jitter;
        secondary.resets_at = secondary.resets_at.map(|resets_at| resets_at.plus(Duration::from_secs(2)));
    }
    // What remains are conversations of accounts whose samples were rounded to different tens.
    for (kind, agreed_min) in WEIGHTED.into_iter().zip([9_900, 9_500]) {
        let is_agreed = |number: &u64| placed(&one, kind, key(*number), NOW) == placed(&other, kind, key(*number), NOW);
        let agreed = (0..10_000).filter(is_agreed).count();
        assert!(agreed >= agreed_min, "{kind:?} agreed on {agreed} of 10,000");
    }
}

#[test]
fn placements_are_near_their_shares() {
    let pool = [
        AccountView { in_flight: 7, ..used_account(1, 0.0, 4.9) },
        AccountView { plan: Plan::Pro, ..used_account(2, 0.0, 54.9) },
        AccountView { plan: Plan::Prolite, health: failing(), ..used_account(3, 0.0, 20.0) },
    ];
    let weights = [7_560.0, 25_200.0, 30_240.0];
    let mut counts = [0_u32; 3];
    let rounds = 30_000;
    for number in 0..rounds {
        counts[placed(&pool, StrategyKind::CapacityWeighted, key(number), NOW) as usize - 1] += 1;
    }
    let sum: f64 = weights.iter().sum();
    for (count, weight) in counts.into_iter().zip(weights) {
        let share = f64::from(count) / rounds as f64;
        assert!((share - weight / sum).abs() < 0.01, "{counts:?}");
    }
}

#[test]
fn an_account_that_leaves_moves_its_own_conversations_only() {
    let pool = shared_pool(10);
    let gone = pool[3].id.as_u128();
    let rest: Vec<AccountView> = pool.iter().filter(|view| view.id.as_u128() != gone).cloned().collect();
    let mut moved = 0;
    for number in 0..2_000 {
        let before = placed(&pool, StrategyKind::CapacityWeighted, key(number), NOW);
        let after = placed(&rest, StrategyKind::CapacityWeighted, key(number), NOW);
        assert!(before == after || before == gone);
        moved += u32::from(before != after);
    }
    assert!(moved > 0);
}

#[test]
fn placements_avoid_what_is_nearly_used_up_as_far_as_replicas_know() {
    for kind in WEIGHTED {
        for number in 0..200 {
            let pool = [AccountView { plan: Plan::Pro, ..used_account(1, 85.0, 0.0) }, used_account(2, 84.9, 84.9)];
            assert_eq!(placed(&pool, kind, key(number), NOW), 2);
            let pool = [AccountView { plan: Plan::Pro, ..used_account(1, 0.0, 85.0) }, account(2)];
            assert_eq!(placed(&pool, kind, key(number), NOW), 2);
            let preserved = AccountView { routing_policy: RoutingPolicy::Preserve, ..account(1) };
            assert_eq!(placed(&[preserved, used_account(2, 99.0, 99.0)], kind, key(number), NOW), 2);
        }
    }
}

#[test]
fn a_placement_needs_a_free_slot() {
    let pool = [busy(AccountView { plan: Plan::Pro, ..account(1) }), account(2)];
    for kind in WEIGHTED {
        for number in 0..100 {
            assert_eq!(placed(&pool, kind, key(number), NOW), 2);
        }
        let all_busy = pool.clone().map(busy);
        assert_eq!(place(&all_busy, &Needs::default(), &rules(kind), KEY, NOW), at_capacity(Why::Placed, &[1, 2]));
    }
}

#[test]
fn other_strategies_place_as_they_choose() {
    let pool = [
        AccountView { last_chosen: 9, ..used_account(1, 50.0, 0.0) },
        AccountView { plan: Plan::Free, in_flight: 1, last_chosen: 5, ..used_account(2, 48.0, 1.0) },
        AccountView { usage: used_until(10.0, None, 60.0, Some(at(HOUR))), ..account(3) },
    ];
    let expected = [
        (StrategyKind::UsageWeighted, 1),
        (StrategyKind::RoundRobin, 3),
        (StrategyKind::FillFirst, 2),
        (StrategyKind::SequentialDrain, 2),
        (StrategyKind::ResetDrain, 3),
    ];
    for (kind, number) in expected {
        assert_eq!(placed(&pool, kind, KEY, NOW), number, "{kind:?}");
        assert_eq!(pick(&pool, kind), number, "{kind:?}");
    }
    // Health counts for them, since they need not agree with anybody.
    let failing = AccountView { health: failing(), ..account(1) };
    assert_eq!(placed(&[failing, busy(account(3)), account(2)], StrategyKind::RoundRobin, KEY, NOW), 2);
}

#[test]
fn a_new_conversation_is_placed_by_its_key_whatever_the_dice() {
    let pool = shared_pool(20);
    for kind in WEIGHTED {
        for dice in 0..20 {
            let new = choose(&pool, &Needs::default(), &rules(kind), Affinity::New { key: KEY }, dice, NOW);
            assert_eq!(new, place(&pool, &Needs::default(), &rules(kind), KEY, NOW));
        }
    }
    let different: std::collections::BTreeSet<u128> =
        (0..200).map(|number| placed(&pool, StrategyKind::CapacityWeighted, key(number), NOW)).collect();
    assert!(different.len() > 10, "{different:?}");
}

/// Replicas of different versions must place alike, so this row never changes.
#[test]
fn placements_are_the_same_in_every_version() {
    let pool = shared_pool(20);
    for (kind, expected) in WEIGHTED.into_iter().zip([GOLDEN_BY_CAPACITY, GOLDEN_BY_AVAILABILITY]) {
        let placed: Vec<u128> = (0..12).map(|number| placed(&pool, kind, key(number), NOW)).collect();
        assert_eq!(placed, expected, "{kind:?}");
    }
}

const GOLDEN_BY_CAPACITY: [u128; 12] = [13, 8, 8, 9, 19, 4, 8, 19, 6, 14, 6, 18];
const GOLDEN_BY_AVAILABILITY: [u128; 12] = [13, 8, 8, 19, 19, 4, 8, 19, 14, 14, 4, 13];
