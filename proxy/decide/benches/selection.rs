//! How long a choice among 1,000 accounts takes: at most 50 µs, because it is made before each leg.

use std::hint::black_box;
use std::time::Duration;

use codex_lb_decide::selection::health::HealthFacts;
use codex_lb_decide::selection::{AccountIds, AccountView, Affinity, Credits, Needs, choose};
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{AccountState, Plan, RoutingPolicy};
use codex_lb_shared::domain::settings::RoutingSettings;
use codex_lb_shared::domain::strategy_kind::StrategyKind;
use codex_lb_shared::domain::upstream_window::{AccountUsage, PRIMARY_MINUTES, UpstreamWindow, WEEKLY_MINUTES};
use codex_lb_shared::ids::AccountId;
use criterion::{Criterion, criterion_group, criterion_main};

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

/// Accounts as a busy pool has them: all eligible, on several plans, each used a little differently.
fn pool(size: u32) -> Vec<AccountView> {
    (0..size).map(account).collect()
}

fn account(index: u32) -> AccountView {
    let window = |percent: u32, window_minutes: u32| {
        let resets_at = NOW.plus(Duration::from_secs(u64::from(60 + index * 97 % (window_minutes * 60))));
        Some(UpstreamWindow { used_percent: f64::from(percent), window_minutes, resets_at: Some(resets_at) })
    };
    AccountView {
        id: AccountId::from_u128((1_700_000_000_000_u128 << 80) + u128::from(index) * 7_919),
        plan: [Plan::Plus, Plan::Team, Plan::Prolite, Plan::Pro][index as usize % 4],
        state: AccountState::Active,
        state_until: None,
        cooling_until: None,
        named_cooldowns: Vec::new(),
        usage: Some(AccountUsage {
            primary: window(index * 31 % 80, PRIMARY_MINUTES),
            secondary: window(index * 17 % 85, WEEKLY_MINUTES),
            observed_at: NOW,
        }),
        credits: Credits::default(),
        has_way_out: true,
        routing_policy: RoutingPolicy::Normal,
        concurrency_cap: 8,
        in_flight: index % 5,
        last_chosen: u64::from(index * 13 % 1_000),
        health: HealthFacts { last_used_at: Some(NOW), ..HealthFacts::default() },
    }
}

fn selection(criterion: &mut Criterion) {
    let accounts = pool(1_000);
    let everybody: AccountIds = accounts.iter().map(|account| account.id).collect();
    let (some, last) = (accounts[500].id, accounts[999].id);
    let needs = Needs {
        scope: Some(&everybody),
        model_plans: Some(&[Plan::Plus, Plan::Team, Plan::Prolite, Plan::Pro]),
        ..Needs::default()
    };
    let key = [7; 16];
    for kind in StrategyKind::ALL {
        let settings = RoutingSettings { strategy: kind, single_account: Some(some), ..RoutingSettings::default() };
        let cases = [
            ("no conversation", Affinity::None),
            ("new conversation", Affinity::New { key }),
            ("known conversation", Affinity::Sticky { key, account: last, has_waited: false }),
        ];
        let mut group = criterion.benchmark_group(format!("{kind:?}"));
        for (name, affinity) in cases {
            let mut dice = 0_u128;
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    dice += 1;
                    choose(black_box(&accounts), &needs, &settings, affinity, dice, NOW)
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = selection
}
criterion_main!(benches);
