//! The figures that strategies rank by.

use super::*;
use crate::selection::health::HealthTier;
use crate::selection::sight::uniform;

fn seen(basis: Basis) -> Sight {
    Sight::new(NOW, basis, 7)
}

#[test]
fn running_exchanges_press_by_two_and_a_half_points_each() {
    let view = AccountView { in_flight: 3, ..used_account(1, 40.0, 20.0) };
    let sight = seen(Basis::Process);
    assert_eq!((sight.primary_used(&view), sight.secondary_used(&view)), (47.5, 27.5));
    assert_eq!(sight.credits_left(&view), 7_560.0 * 0.725);
    let pressed_down = AccountView { in_flight: 40, ..account(1) };
    assert_eq!((sight.secondary_used(&pressed_down), sight.credits_left(&pressed_down)), (100.0, 0.0));
    let beyond = AccountView { in_flight: u32::MAX, ..account(1) };
    assert_eq!(sight.credits_left(&beyond), 0.0);
}

#[test]
fn what_replicas_share_is_rounded_to_tens_and_knows_no_running_exchange() {
    let sight = seen(Basis::Shared);
    let rounded = [(0.0, 0.0), (4.9, 0.0), (5.0, 10.0), (14.9, 10.0), (84.9, 80.0), (85.0, 90.0), (94.9, 90.0)];
    for (percent, expected) in rounded {
        let view = AccountView { in_flight: 3, ..used_account(1, percent, percent) };
        assert_eq!((sight.primary_used(&view), sight.secondary_used(&view)), (expected, expected), "{percent}");
    }
    assert_eq!(sight.credits_left(&used_account(1, 0.0, 34.9)), 7_560.0 * 0.7);
    assert_eq!(sight.primary_used(&used_account(1, f64::NAN, 0.0)), 0.0);
    assert_eq!(sight.primary_used(&used_account(1, f64::INFINITY, 0.0)), 100.0);
}

#[test]
fn a_window_resets_at_its_time_or_its_whole_length_from_now() {
    let minute = 60 * SECOND;
    let with = |window_minutes, resets_at| AccountView {
        usage: Some(AccountUsage {
            primary: None,
            secondary: window(9.0, window_minutes, resets_at),
            observed_at: NOW,
        }),
        ..account(1)
    };
    let cases = [
        ("known", with(WEEKLY_MINUTES, Some(at(1))), at(1)),
        ("passed", with(WEEKLY_MINUTES, Some(NOW)), at(7 * DAY)),
        ("unknown, monthly", with(43_200, None), at(43_200 * minute)),
        ("unknown length", with(0, None), at(7 * DAY)),
        ("no sample", account(1), at(7 * DAY)),
    ];
    for (name, view, expected) in cases {
        assert_eq!(seen(Basis::Process).resets_at(&view), expected, "{name}");
        assert_eq!(seen(Basis::Shared).resets_at(&view), expected, "{name}");
    }
}

#[test]
fn replicas_see_the_time_to_a_reset_in_whole_hours() {
    let resets_in = |ms| AccountView { usage: used_until(0.0, None, 0.0, Some(at(ms))), ..account(1) };
    for (ms, exact, shared) in [
        (1_500, 1.5, 3_600.0),
        (HOUR - 1, 3_599.999, 3_600.0),
        (HOUR, 3_600.0, 3_600.0),
        (HOUR + SECOND, 3_601.0, 7_200.0),
    ] {
        assert_eq!(seen(Basis::Process).seconds_to_reset(&resets_in(ms)), exact);
        assert_eq!(seen(Basis::Shared).seconds_to_reset(&resets_in(ms)), shared);
    }
}

#[test]
fn health_in_this_process_is_none_of_the_replicas_business() {
    let shared = |view: &AccountView| seen(Basis::Shared).tier(view);
    let failing = AccountView { health: failing(), ..account(1) };
    assert_eq!((seen(Basis::Process).tier(&failing), shared(&failing)), (HealthTier::Draining, HealthTier::Healthy));
    let probing = AccountView { health: probing(), ..account(1) };
    assert_eq!((seen(Basis::Process).tier(&probing), shared(&probing)), (HealthTier::Probing, HealthTier::Healthy));
    for (primary, secondary, expected) in
        [(84.9, 84.9, HealthTier::Healthy), (85.0, 0.0, HealthTier::Draining), (0.0, 85.0, HealthTier::Draining)]
    {
        assert_eq!(shared(&used_account(1, primary, secondary)), expected, "{primary} and {secondary}");
    }
}

/// Replicas of different versions must draw alike, so these numbers never change.
#[test]
fn the_draw_is_the_same_in_every_version() {
    let luck = |dice, number| Sight::new(NOW, Basis::Shared, dice).luck(&account(number));
    let high = 1 << 64;
    assert_eq!(luck(0, 0), GOLDEN[0]);
    assert_eq!(luck(1, 0), GOLDEN[1]);
    assert_eq!(luck(high, 0), GOLDEN[2]);
    assert_eq!(luck(0, 1), GOLDEN[3]);
    assert_eq!(luck(0, high), GOLDEN[4]);
    assert_eq!(luck(u128::MAX, u128::MAX), GOLDEN[5]);
}

/// Worked out by another program, from the definition.
const GOLDEN: [u64; 6] = [
    0x2130_748a_aac8_0268,
    0xe281_95dd_d9ee_4956,
    0xd1c0_2706_8798_4b37,
    0xd9ee_f7f0_73d3_7c42,
    0x2a4f_111b_3be5_7715,
    0x9c66_6618_c8f2_79d7,
];

/// The logarithm of nothing, or of one, would make an account that always or never wins.
#[test]
fn luck_is_a_number_between_nothing_and_one() {
    let half_step = 2_f64.powi(-53);
    assert_eq!(uniform(0), half_step);
    assert_eq!(uniform(1 << 12), 3.0 * half_step);
    assert_eq!(uniform(1 << 63), 0.5 + half_step);
    assert_eq!(uniform(u64::MAX), 1.0 - half_step);
}

/// Against a draw without any short cut: the least exponential variate over weight.
#[test]
fn the_smallest_ticket_wins_the_draw() {
    let accounts: Vec<AccountView> = (1..=9).map(account).collect();
    let weight = |view: &AccountView| 10_f64.powi(view.id.as_u128() as i32 % 4);
    for dice in 0..3_000 {
        let sight = Sight::new(NOW, Basis::Process, dice);
        let ticket = |view: &AccountView| {
            let uniform = ((sight.luck(view) >> 12) as f64 + 0.5) / 2_f64.powi(52);
            -uniform.ln() / weight(view)
        };
        let expected = accounts.iter().min_by(|one, other| ticket(one).total_cmp(&ticket(other)));
        let weighted = accounts.iter().map(|view| (view, weight(view)));
        assert_eq!(sight.draw(weighted).map(|view| view.id), expected.map(|view| view.id), "dice {dice}");
    }
    let sight = seen(Basis::Shared);
    assert_eq!(sight.draw(std::iter::empty()), None);
    // Weights may be as small or large as they like, and who holds the same ticket twice loses to nobody.
    for weight in [f64::MIN_POSITIVE, 1.0, f64::MAX] {
        let twins = [&accounts[0], &accounts[0]];
        assert_eq!(sight.draw(twins.into_iter().map(|view| (view, weight))), Some(&accounts[0]));
    }
}
