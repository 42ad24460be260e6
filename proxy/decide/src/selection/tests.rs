//! Cases and laws of the choice, and what they are built from.

mod eligibility;
mod health;
mod laws;
mod named_limits;
mod order;
mod outcome;
mod owner;
mod placement;
mod settings;
mod sight;
mod sticky;
mod strategies;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{AccountState, Plan, RoutingPolicy};
use codex_lb_shared::domain::settings::RoutingSettings;
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use codex_lb_shared::domain::upstream_window::{AccountUsage, PRIMARY_MINUTES, UpstreamWindow, WEEKLY_MINUTES};
use codex_lb_shared::ids::AccountId;

use super::health::HealthFacts;
use super::*;

/// 2023-11-14 22:13:20 UTC.
const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);
const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const KEY: [u8; 16] = [7; 16];

/// So many milliseconds after (or before) now.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(NOW.as_unix_ms() + ms)
}

fn id(number: u128) -> AccountId {
    AccountId::from_u128(number)
}

fn ids<const N: usize>(numbers: [u128; N]) -> AccountIds {
    numbers.into_iter().map(id).collect()
}

/// An account that nothing speaks against.
fn account(number: u128) -> AccountView {
    AccountView {
        id: id(number),
        plan: Plan::Plus,
        state: AccountState::Active,
        state_until: None,
        cooling_until: None,
        named_cooldowns: Vec::new(),
        usage: None,
        credits: Credits::default(),
        has_way_out: true,
        routing_policy: RoutingPolicy::Normal,
        concurrency_cap: 8,
        in_flight: 0,
        last_chosen: 0,
        health: HealthFacts::default(),
    }
}

fn window(used_percent: f64, window_minutes: u32, resets_at: Option<Timestamp>) -> Option<UpstreamWindow> {
    Some(UpstreamWindow { used_percent, window_minutes, resets_at })
}

/// A fresh sample of both windows, which reset in 2 hours and in 3 days.
fn used(primary: f64, secondary: f64) -> Option<AccountUsage> {
    used_until(primary, Some(at(2 * HOUR)), secondary, Some(at(3 * DAY)))
}

fn used_until(
    primary: f64,
    primary_resets_at: Option<Timestamp>,
    secondary: f64,
    secondary_resets_at: Option<Timestamp>,
) -> Option<AccountUsage> {
    Some(AccountUsage {
        primary: window(primary, PRIMARY_MINUTES, primary_resets_at),
        secondary: window(secondary, WEEKLY_MINUTES, secondary_resets_at),
        observed_at: NOW,
    })
}

/// An account with a fresh sample.
fn used_account(number: u128, primary: f64, secondary: f64) -> AccountView {
    AccountView { usage: used(primary, secondary), ..account(number) }
}

/// An account that runs as many exchanges as it may.
fn busy(account: AccountView) -> AccountView {
    AccountView { in_flight: account.concurrency_cap, ..account }
}

/// Facts that make an account probing, used lately.
fn probing() -> HealthFacts {
    HealthFacts { last_reason_at: Some(at(-HOUR)), last_used_at: Some(NOW), ..HealthFacts::default() }
}

/// Facts that make an account draining because it failed.
fn failing() -> HealthFacts {
    let mut facts = HealthFacts::default();
    facts.note_error(at(-2 * SECOND));
    facts.note_error(at(-SECOND));
    facts
}

fn rules(strategy: StrategyKind) -> RoutingSettings {
    RoutingSettings { strategy, ..RoutingSettings::default() }
}

/// Chooses for an exchange without a conversation.
fn choose_free(accounts: &[AccountView], settings: &RoutingSettings) -> Result<Chosen, NotChosen> {
    choose(accounts, &Needs::default(), settings, Affinity::None, 7, NOW)
}

/// The number of the account chosen for an exchange without a conversation.
fn pick(accounts: &[AccountView], kind: StrategyKind) -> u128 {
    choose_free(accounts, &rules(kind)).unwrap().account.as_u128()
}

fn chosen(number: u128, why: Why) -> Result<Chosen, NotChosen> {
    Ok(Chosen { account: id(number), why })
}

fn at_capacity(why: Why, numbers: &[u128]) -> Result<Chosen, NotChosen> {
    let eligible = numbers.iter().copied().map(id).collect();
    Err(NotChosen::AtCapacity(AtCapacity { why, eligible }))
}
