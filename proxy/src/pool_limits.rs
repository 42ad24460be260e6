//! How much of the pool is used: what callers see instead of any account's own limits, as headers and as an answer.
//!
//! [`aggregate`] is pure. Nothing in here tells one account from another.

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{AccountState, Plan};
use codex_lb_shared::domain::upstream_window::{AccountUsage, PRIMARY_MINUTES, UpstreamWindow, WEEKLY_MINUTES};
use codex_lb_shared::state::SharedState;
use serde_json::{Value, json};

/// Stands where upstream names a login: whoever asks is none of the pool's.
const SYNTHETIC_ID: &str = "codex-lb";

/// One account, as far as its limits go.
#[derive(Clone, Copy, Debug)]
struct AccountLimits {
    plan: Plan,
    state: AccountState,
    usage: Option<AccountUsage>,
}

/// All accounts together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PoolLimits {
    /// The strongest plan, if there is an account.
    pub(crate) plan: Option<Plan>,
    /// The short window, if any account has one.
    primary: Option<PoolWindow>,
    /// The long window, if any account has one.
    secondary: Option<PoolWindow>,
    /// Whether limits alone keep every account from serving.
    is_limited: bool,
}

/// One kind of window over all accounts that have it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PoolWindow {
    used_percent: f64,
    window_minutes: u32,
    /// When the first used one starts anew, if any is used.
    resets_at: Option<Timestamp>,
}

/// The limits of the accounts that a caller may use: all of them, until api keys have a scope. Of their windows a caller
/// with an api key sees none if the settings say so.
pub(crate) fn of_callers_accounts(state: &SharedState, has_api_key: bool, now: Timestamp) -> PoolLimits {
    let snapshot = state.pool.snapshot();
    let accounts = snapshot.accounts.iter().map(|pooled| {
        let live = pooled.live.view(now);
        AccountLimits { plan: pooled.account.plan, state: live.state, usage: live.usage }
    });
    let limits = aggregate(accounts, now);
    if has_api_key && state.settings.load().access.hide_pool_quota {
        return PoolLimits { plan: limits.plan, ..PoolLimits::default() };
    }
    limits
}

/// Adds accounts up. Each window weighs as much as its account's plan holds in it, so that a large account that is
/// empty and a small one that is full are not "half". Accounts that no limit but a person or a lost login keeps out
/// count for nothing.
fn aggregate(accounts: impl Iterator<Item = AccountLimits>, now: Timestamp) -> PoolLimits {
    let mut limits = PoolLimits::default();
    let (mut primary, mut secondary) = (Sum::default(), Sum::default());
    let (mut counted, mut limited) = (0_usize, 0_usize);
    for account in accounts {
        let is_counted = match account.state {
            AccountState::Active | AccountState::RateLimited | AccountState::QuotaExceeded => true,
            AccountState::Paused | AccountState::ReauthRequired | AccountState::Deactivated => false,
        };
        if !is_counted {
            continue;
        }
        counted += 1;
        let is_full = account
            .usage
            .is_some_and(|usage| usage.primary_percent_at(now) >= 100.0 || usage.secondary_percent_at(now) >= 100.0);
        limited += usize::from(is_full || account.state != AccountState::Active);
        let strength = |plan: Plan| (plan.secondary_credits(), plan.primary_credits());
        limits.plan = limits.plan.into_iter().chain([account.plan]).max_by_key(|plan| strength(*plan));
        // Without an observation we know the plan's windows only, and count them as unused.
        let windows = account.usage.map(|usage| (usage.primary, usage.secondary));
        let (short, long) = windows.unwrap_or((Some(unused(PRIMARY_MINUTES)), Some(unused(WEEKLY_MINUTES))));
        primary.add(short, account.plan.primary_credits(), now);
        secondary.add(long, account.plan.secondary_credits(), now);
    }
    limits.is_limited = counted > 0 && limited == counted;
    limits.primary = primary.window(PRIMARY_MINUTES);
    limits.secondary = secondary.window(WEEKLY_MINUTES);
    limits
}

const fn unused(window_minutes: u32) -> UpstreamWindow {
    UpstreamWindow { used_percent: 0.0, window_minutes, resets_at: None }
}

/// A weighted sum of windows.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    credits: f64,
    used_credits: f64,
    resets_at: Option<Timestamp>,
    /// The length of the heaviest window, and its weight.
    longest: (u32, u32),
}

impl Sum {
    fn add(&mut self, window: Option<UpstreamWindow>, credits: u32, now: Timestamp) {
        let Some(window) = window else { return };
        let used_percent = window.used_percent_at(now);
        self.credits += f64::from(credits);
        self.used_credits += f64::from(credits) * used_percent / 100.0;
        if used_percent > 0.0 && credits > 0 {
            self.resets_at = self.resets_at.into_iter().chain(window.resets_at).min();
        }
        if credits > self.longest.1 && window.window_minutes > 0 {
            self.longest = (window.window_minutes, credits);
        }
    }

    fn window(self, default_minutes: u32) -> Option<PoolWindow> {
        (self.credits > 0.0).then(|| PoolWindow {
            used_percent: 100.0 * self.used_credits / self.credits,
            window_minutes: if self.longest.0 > 0 { self.longest.0 } else { default_minutes },
            resets_at: self.resets_at,
        })
    }
}

impl PoolLimits {
    /// The headers that Codex takes its limits from.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        const PRIMARY: [&str; 3] =
            ["x-codex-primary-used-percent", "x-codex-primary-window-minutes", "x-codex-primary-reset-at"];
        const SECONDARY: [&str; 3] =
            ["x-codex-secondary-used-percent", "x-codex-secondary-window-minutes", "x-codex-secondary-reset-at"];
        let mut headers = Vec::with_capacity(6);
        for (window, [used, minutes, reset]) in [(self.primary, PRIMARY), (self.secondary, SECONDARY)] {
            let Some(window) = window else { continue };
            headers.push((used, ((window.used_percent * 100.0).round() / 100.0).to_string()));
            headers.push((minutes, window.window_minutes.to_string()));
            headers.extend(window.resets_at.map(|at| (reset, at.as_unix_seconds().to_string())));
        }
        headers
    }

    /// The plan as upstream spells it.
    pub(crate) fn plan_type(&self) -> &'static str {
        self.plan.map_or("guest", Plan::as_str)
    }

    /// The answer to the question for one's own usage, in upstream's shape.
    pub(crate) fn to_json(self, now: Timestamp) -> Value {
        let window = |window: Option<PoolWindow>| window.map(|window| window.to_json(now));
        let reached = if self.is_limited { json!({"type": "rate_limit_reached"}) } else { Value::Null };
        json!({
            "user_id": SYNTHETIC_ID, "account_id": SYNTHETIC_ID, "email": "",
            "plan_type": self.plan_type(),
            "rate_limit": {
                "allowed": self.plan.is_some() && !self.is_limited, "limit_reached": self.is_limited,
                "primary_window": window(self.primary), "secondary_window": window(self.secondary),
            },
            "code_review_rate_limit": null,
            "additional_rate_limits": [],
            "credits": {
                "has_credits": false, "unlimited": false, "balance": null,
                "approx_local_messages": [0, 0], "approx_cloud_messages": [0, 0],
            },
            "spend_control": {
                "reached": false, "reached_limit_type": null, "individual_limit": null, "group_default_limit": null,
            },
            "rate_limit_reached_type": reached,
            "rate_limit_reset_credits": {"available_count": 0, "applicable_available_count": 0},
            "promo": null,
        })
    }
}

impl PoolWindow {
    fn to_json(self, now: Timestamp) -> Value {
        let seconds = i64::from(self.window_minutes) * 60;
        // A window that nobody has begun would end when a whole one does.
        let resets_at = self.resets_at.map_or(now.as_unix_seconds() + seconds, Timestamp::as_unix_seconds);
        // Codex reads whole numbers, and only a window that is full may look it.
        let rounded = self.used_percent.round().min(if self.used_percent < 100.0 { 99.0 } else { 100.0 });
        json!({
            "used_percent": rounded as u8, "limit_window_seconds": seconds,
            "reset_after_seconds": (resets_at - now.as_unix_seconds()).max(0), "reset_at": resets_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

    fn window(used_percent: f64, window_minutes: u32, resets_at: i64) -> UpstreamWindow {
        UpstreamWindow { used_percent, window_minutes, resets_at: Some(Timestamp::from_unix_seconds(resets_at)) }
    }

    fn used(plan: Plan, primary: f64, secondary: f64) -> AccountLimits {
        let usage = AccountUsage {
            primary: Some(window(primary, 300, 2_000)),
            secondary: Some(window(secondary, 10_080, 9_000)),
            observed_at: NOW,
        };
        AccountLimits { plan, state: AccountState::Active, usage: Some(usage) }
    }

    fn pool(accounts: &[AccountLimits]) -> PoolLimits {
        aggregate(accounts.iter().copied(), NOW)
    }

    /// Used percent of the short and the long window.
    type Percents = (Option<f64>, Option<f64>);

    fn percents(limits: PoolLimits) -> Percents {
        let rounded = |window: PoolWindow| (window.used_percent * 1_000.0).round() / 1_000.0;
        (limits.primary.map(rounded), limits.secondary.map(rounded))
    }

    #[test]
    fn accounts_weigh_what_their_plans_hold() {
        use AccountState as S;
        let unknown = AccountLimits { plan: Plan::Plus, state: S::Active, usage: None };
        let free = AccountUsage { primary: None, secondary: Some(window(50.0, 43_200, 5_000)), observed_at: NOW };
        let free = AccountLimits { plan: Plan::Free, state: S::Active, usage: Some(free) };
        let weekly = AccountUsage { primary: None, secondary: Some(window(30.0, 10_080, 5_000)), observed_at: NOW };
        let weekly = AccountLimits { plan: Plan::Plus, state: S::Active, usage: Some(weekly) };
        let over = AccountUsage { primary: Some(window(80.0, 300, 1_000)), secondary: None, observed_at: NOW };
        let over = AccountLimits { plan: Plan::Plus, state: S::Active, usage: Some(over) };
        let in_state = |state, account: AccountLimits| AccountLimits { state, ..account };
        let cases: [(&str, Vec<AccountLimits>, Percents); 9] = [
            ("no accounts", vec![], (None, None)),
            ("one", vec![used(Plan::Plus, 40.0, 10.0)], (Some(40.0), Some(10.0))),
            ("equal ones", vec![used(Plan::Plus, 40.0, 10.0), used(Plan::Team, 0.0, 30.0)], (Some(20.0), Some(20.0))),
            // (225 × 100 + 1,500 × 0) / 1,725, and 7,560 × 50 / 57,960.
            (
                "small and large",
                vec![used(Plan::Plus, 100.0, 50.0), used(Plan::Pro, 0.0, 0.0)],
                (Some(13.043), Some(6.522)),
            ),
            ("never observed", vec![used(Plan::Plus, 40.0, 20.0), unknown], (Some(20.0), Some(10.0))),
            ("no short window", vec![used(Plan::Plus, 40.0, 10.0), weekly], (Some(40.0), Some(20.0))),
            ("free holds a long window only", vec![free], (None, Some(50.0))),
            ("a reset that has passed", vec![over], (Some(0.0), None)),
            (
                "out for good, and out for now",
                vec![
                    in_state(S::Paused, used(Plan::Pro, 90.0, 90.0)),
                    in_state(S::ReauthRequired, used(Plan::Pro, 90.0, 90.0)),
                    in_state(S::Deactivated, used(Plan::Pro, 90.0, 90.0)),
                    in_state(S::RateLimited, used(Plan::Plus, 100.0, 20.0)),
                    in_state(S::QuotaExceeded, used(Plan::Plus, 0.0, 100.0)),
                ],
                (Some(50.0), Some(60.0)),
            ),
        ];
        for (name, accounts, expected) in cases {
            assert_eq!(percents(pool(&accounts)), expected, "{name}");
        }
    }

    #[test]
    fn a_pool_is_limited_when_all_its_accounts_are() {
        let state = |state| AccountLimits { state, ..used(Plan::Plus, 0.0, 0.0) };
        let (full, fresh) = (used(Plan::Plus, 100.0, 0.0), used(Plan::Plus, 0.0, 0.0));
        let cases = [
            (vec![], false),
            (vec![full, fresh], false),
            (vec![full, used(Plan::Plus, 0.0, 100.0), state(AccountState::RateLimited)], true),
            (vec![full, state(AccountState::Paused)], true),
            (vec![state(AccountState::Paused)], false),
            (vec![state(AccountState::QuotaExceeded), fresh], false),
        ];
        for (accounts, expected) in cases {
            assert_eq!(pool(&accounts).is_limited, expected, "{accounts:?}");
        }
    }

    #[test]
    fn the_first_used_window_to_reset_says_when_and_the_heaviest_how_long() {
        let mut early = used(Plan::Plus, 10.0, 10.0);
        early.usage.as_mut().unwrap().primary = Some(window(10.0, 299, 1_500));
        let mut idle = used(Plan::Plus, 0.0, 0.0);
        idle.usage.as_mut().unwrap().primary = Some(window(0.0, 300, 1_100));
        let limits = pool(&[used(Plan::Pro, 5.0, 5.0), early, idle]);
        let primary = limits.primary.unwrap();
        assert_eq!((primary.resets_at, primary.window_minutes), (Some(Timestamp::from_unix_seconds(1_500)), 300));
        assert_eq!(pool(&[idle]).primary.unwrap().resets_at, None);
        assert_eq!(limits.plan, Some(Plan::Pro));
        assert_eq!(pool(&[used(Plan::Enterprise, 0.0, 0.0), used(Plan::Free, 0.0, 0.0)]).plan_type(), "enterprise");
        assert_eq!(pool(&[]).plan_type(), "guest");
    }

    #[test]
    fn headers_and_answer_say_the_same() {
        let limits = pool(&[used(Plan::Plus, 100.0, 50.0), used(Plan::Pro, 0.0, 0.0)]);
        let expected = [
            ("x-codex-primary-used-percent", "13.04"),
            ("x-codex-primary-window-minutes", "300"),
            ("x-codex-primary-reset-at", "2000"),
            ("x-codex-secondary-used-percent", "6.52"),
            ("x-codex-secondary-window-minutes", "10080"),
            ("x-codex-secondary-reset-at", "9000"),
        ];
        assert_eq!(limits.headers(), expected.map(|(name, value)| (name, value.to_owned())));
        let answer = limits.to_json(NOW);
        let window = json!({"used_percent": 13, "limit_window_seconds": 18_000, "reset_after_seconds": 1_000, "reset_at": 2_000});
        assert_eq!(answer["rate_limit"]["primary_window"], window);
        assert_eq!((&answer["email"], &answer["plan_type"]), (&json!(""), &json!("pro")));
        assert_eq!(
            (&answer["rate_limit"]["allowed"], &answer["rate_limit_reached_type"]),
            (&json!(true), &Value::Null)
        );

        let almost = pool(&[used(Plan::Plus, 99.9, 100.0)]).to_json(NOW);
        assert_eq!(almost["rate_limit"]["primary_window"]["used_percent"], 99);
        assert_eq!(
            (&almost["rate_limit"]["allowed"], &almost["rate_limit"]["limit_reached"]),
            (&json!(false), &json!(true))
        );
        let unknown = AccountLimits { plan: Plan::Plus, state: AccountState::Active, usage: None };
        let unknown = pool(&[unknown]);
        assert_eq!(unknown.headers().iter().filter(|(name, _)| name.ends_with("reset-at")).count(), 0);
        assert_eq!(unknown.to_json(NOW)["rate_limit"]["secondary_window"]["reset_at"], 1_000 + 604_800);
        let empty = pool(&[]);
        assert_eq!((empty.headers(), &empty.to_json(NOW)["rate_limit"]["allowed"]), (vec![], &json!(false)));
    }
}
