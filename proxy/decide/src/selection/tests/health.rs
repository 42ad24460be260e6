//! The tiers of health, at every boundary.

use super::*;
use crate::selection::health::{HealthFacts, HealthTier, health_tier, is_due_for_probe};

fn tier(usage: Option<AccountUsage>, health: HealthFacts) -> HealthTier {
    health_tier(&AccountView { usage, health, ..account(1) }, NOW)
}

#[test]
fn windows_that_are_nearly_used_up_drain_an_account() {
    use HealthTier::{Draining, Healthy};
    let cases = [
        (0.0, 0.0, Healthy),
        (84.9, 89.9, Healthy),
        (85.0, 0.0, Draining),
        (0.0, 90.0, Draining),
        (100.0, 100.0, Draining),
        (f64::NAN, f64::NAN, Healthy),
        (f64::INFINITY, 0.0, Draining),
        (-5.0, -5.0, Healthy),
    ];
    for (primary, secondary, expected) in cases {
        assert_eq!(tier(used(primary, secondary), HealthFacts::default()), expected, "{primary} and {secondary}");
    }
    assert_eq!(tier(None, HealthFacts::default()), Healthy);
}

#[test]
fn two_errors_within_a_minute_drain_an_account() {
    let after = |errors: &[i64]| {
        let mut facts = HealthFacts::default();
        errors.iter().for_each(|ms| facts.note_error(at(*ms)));
        tier(None, facts)
    };
    assert_eq!(after(&[-1]), HealthTier::Healthy);
    assert_eq!(after(&[-60_001, 0]), HealthTier::Healthy);
    assert_eq!(after(&[-60_000, 0]), HealthTier::Draining);
    assert_eq!(after(&[-1, 0]), HealthTier::Draining);
    assert_eq!(after(&[-59_999 - 1_000, -59_999]), HealthTier::Draining);
    assert_eq!(after(&[-60_000 - 1_000, -60_000]), HealthTier::Probing);
    // The reason is the last error that had one close before it, and later single ones do not hide it.
    assert_eq!(after(&[-300_000, -299_000, -100_000, -1]), HealthTier::Probing);
}

#[test]
fn a_minute_after_the_last_reason_an_account_is_probing() {
    let since = |ms: i64| tier(None, HealthFacts { last_reason_at: Some(at(-ms)), ..HealthFacts::default() });
    assert_eq!(since(0), HealthTier::Draining);
    assert_eq!(since(59_999), HealthTier::Draining);
    assert_eq!(since(60_000), HealthTier::Probing);
    assert_eq!(since(DAY), HealthTier::Probing);
    // A clock that jumped back makes no reason younger than now.
    assert_eq!(since(-HOUR), HealthTier::Draining);
}

#[test]
fn a_window_that_was_nearly_used_up_is_a_reason_until_its_reset() {
    let after_reset = |primary: f64, secondary: f64, ms: i64| {
        tier(used_until(primary, Some(at(-ms)), secondary, Some(at(-ms))), HealthFacts::default())
    };
    assert_eq!(after_reset(84.9, 89.9, 0), HealthTier::Healthy);
    assert_eq!(after_reset(85.0, 0.0, 0), HealthTier::Draining);
    assert_eq!(after_reset(0.0, 90.0, 59_999), HealthTier::Draining);
    assert_eq!(after_reset(85.0, 0.0, 60_000), HealthTier::Probing);
    // The later of two resets counts, and a fact that is younger than both.
    let both = used_until(90.0, Some(at(-30_000)), 90.0, Some(at(-90_000)));
    assert_eq!(tier(both, HealthFacts::default()), HealthTier::Draining);
    let younger = HealthFacts { last_reason_at: Some(at(-1)), ..HealthFacts::default() };
    assert_eq!(tier(used_until(90.0, Some(at(-90_000)), 0.0, None), younger), HealthTier::Draining);
}

#[test]
fn three_successes_make_a_probing_account_healthy() {
    let after = |successes: &[i64]| {
        let mut facts = HealthFacts { last_reason_at: Some(at(-90_000)), ..HealthFacts::default() };
        successes.iter().for_each(|ms| facts.note_success(at(*ms)));
        tier(None, facts)
    };
    assert_eq!(after(&[-3, -2]), HealthTier::Probing);
    assert_eq!(after(&[-30_000, -2, -1]), HealthTier::Healthy);
    // A success from before it was probing proves nothing.
    assert_eq!(after(&[-30_001, -2, -1]), HealthTier::Probing);
    assert_eq!(after(&[-30_001, -3, -2, -1]), HealthTier::Healthy);
    assert_eq!(after(&[-50_000, -40_000, -30_001, -2]), HealthTier::Probing);
}

#[test]
fn an_error_in_between_begins_the_proof_anew() {
    let mut facts = HealthFacts { last_reason_at: Some(at(-DAY)), ..HealthFacts::default() };
    facts.note_success(at(-500_000));
    facts.note_success(at(-400_000));
    facts.note_error(at(-300_000));
    facts.note_success(at(-200_000));
    assert_eq!(tier(None, facts), HealthTier::Probing);
    facts.note_success(at(-100_000));
    facts.note_success(NOW);
    assert_eq!(tier(None, facts), HealthTier::Healthy);
}

#[test]
fn a_reported_window_near_its_end_is_remembered_as_a_reason() {
    let note = |primary, secondary| {
        let mut facts = HealthFacts::default();
        facts.note_usage(&used(primary, secondary).unwrap(), NOW);
        facts.last_reason_at
    };
    assert_eq!(note(84.9, 89.9), None);
    assert_eq!(note(85.0, 0.0), Some(NOW));
    assert_eq!(note(0.0, 90.0), Some(NOW));
    let mut facts = HealthFacts::default();
    facts.note_usage(&used(85.0, 0.0).unwrap(), at(-60_000));
    facts.note_usage(&used(1.0, 0.0).unwrap(), at(-10_000));
    assert_eq!(tier(used(1.0, 0.0), facts), HealthTier::Probing);
}

#[test]
fn a_probe_is_due_after_a_minute_without_use() {
    let due = |last_used_at| {
        let mut facts = probing();
        facts.last_used_at = last_used_at;
        is_due_for_probe(&AccountView { health: facts, ..account(1) }, NOW)
    };
    assert!(due(None));
    assert!(!due(Some(at(-59_999))));
    assert!(due(Some(at(-60_000))));
    let mut facts = HealthFacts::default();
    facts.note_used(at(-1));
    assert_eq!(facts.last_used_at, Some(at(-1)));
}
