//! What upstream reports about an account's limits, beside its answers: in headers, and in an event of its own.

use std::time::Duration;

use codex_lb_decide::retry_hint;
use codex_lb_decide::selection::named_limits::canonical;
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{Credits, NamedCooldown};
use codex_lb_shared::domain::upstream_window::{AccountUsage, UpstreamWindow};
use codex_lb_shared::pool::{Pool, PooledAccount};
use http::HeaderMap;
use serde::Deserialize;

/// Names the limit that metered an answer.
const ACTIVE_LIMIT_HEADER: &str = "x-codex-active-limit";
/// Ends the header by which each limit tells how much of it is used; its name stands between this and `x-`.
const USED_PERCENT_SUFFIX: &str = "-primary-used-percent";
/// The family of the account's own windows.
const MAIN_FAMILY: &str = "codex";
/// From here on a limit lets nothing through.
const USED_UP_PERCENT: f64 = 100.0;
/// Used-up limits that are taken from one answer at most.
const NAMED_LIMITS_MAX: usize = 16;

/// What one answer reported about its account.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct UsageReport {
    /// The account's own windows.
    usage: Option<AccountUsage>,
    /// Bought credits.
    credits: Option<Credits>,
    /// Limits of single models that are used up.
    used_up: Vec<NamedCooldown>,
}

impl UsageReport {
    /// Makes it known at once.
    pub(crate) fn tell(self, pool: &Pool, account: &PooledAccount, now: Timestamp) {
        if let Some(usage) = self.usage {
            pool.observe_usage(account, usage);
        }
        if let Some(credits) = self.credits {
            account.live.observe_credits(credits);
        }
        for NamedCooldown { named_limit, until } in self.used_up {
            account.live.cool_named_limit(named_limit, until, now);
        }
    }
}

/// The limit that metered an answer, as upstream spells it, if it says so.
pub(crate) fn active_limit(headers: &HeaderMap) -> Option<&str> {
    headers.get(ACTIVE_LIMIT_HEADER)?.to_str().ok()
}

/// What the headers of an answer report.
pub(crate) fn in_headers(headers: &HeaderMap, now: Timestamp) -> UsageReport {
    // Metered apart: whether the main family then tells of the account or of that limit is not known for sure, and an
    // account that counts as used up for a limit of one model would serve no model at all.
    let is_metered_apart = active_limit(headers).and_then(canonical).is_some();
    let usage = if is_metered_apart { None } else { Family::new(headers, MAIN_FAMILY).usage(now) };
    let flag = |name: &str| headers.get(name).map(|value| is_true(value.as_bytes()));
    let flags = (flag("x-codex-credits-has-credits"), flag("x-codex-credits-unlimited"));
    let credits = (flags != (None, None))
        .then(|| Credits { has_credits: flags.0.unwrap_or(false), is_unlimited: flags.1.unwrap_or(false) });
    let family = |name: &http::HeaderName| {
        let name = name.as_str().strip_prefix("x-")?.strip_suffix(USED_PERCENT_SUFFIX)?;
        Some((name.to_owned(), canonical(name)?))
    };
    let used_up = headers.keys().filter_map(family).take(NAMED_LIMITS_MAX).filter_map(|(name, named_limit)| {
        let until = used_up_until(&Family::new(headers, &name).usage(now)?, now)?;
        Some(NamedCooldown { named_limit, until })
    });
    UsageReport { usage, credits, used_up: used_up.collect() }
}

/// What a `codex.rate_limits` event reports, if it is one.
pub(crate) fn in_event(data: &[u8], now: Timestamp) -> Option<UsageReport> {
    #[derive(Deserialize)]
    struct RateLimits<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(default)]
        rate_limits: Option<Windows>,
        #[serde(default)]
        credits: Option<ReportedCredits>,
        #[serde(default)]
        metered_limit_name: Option<String>,
        #[serde(default)]
        limit_name: Option<String>,
    }
    #[derive(Deserialize)]
    struct Windows {
        #[serde(default)]
        primary: Option<Reported>,
        #[serde(default)]
        secondary: Option<Reported>,
    }
    #[derive(Deserialize)]
    struct ReportedCredits {
        #[serde(default)]
        has_credits: bool,
        #[serde(default)]
        unlimited: bool,
    }
    let event: RateLimits<'_> = serde_json::from_slice(data).ok()?;
    if event.kind != "codex.rate_limits" {
        return None;
    }
    let window = |reported: Option<Reported>| reported.and_then(|reported| reported.window(now));
    let usage = event
        .rate_limits
        .and_then(|windows| AccountUsage::from_reported(window(windows.primary), window(windows.secondary), now));
    let named_limit = event.metered_limit_name.or(event.limit_name).and_then(|name| canonical(&name));
    let credits = event.credits.map(|told| Credits { has_credits: told.has_credits, is_unlimited: told.unlimited });
    Some(match named_limit {
        None => UsageReport { usage, credits, used_up: Vec::new() },
        Some(named_limit) => {
            let until = usage.as_ref().and_then(|usage| used_up_until(usage, now));
            let used_up = until.map(|until| NamedCooldown { named_limit, until }).into_iter().collect();
            UsageReport { usage: None, credits, used_up }
        }
    })
}

/// Until when a limit lets nothing through: the latest end of its windows that are used up, if all tell theirs.
fn used_up_until(usage: &AccountUsage, now: Timestamp) -> Option<Timestamp> {
    let windows = [usage.primary, usage.secondary].into_iter().flatten();
    let full = windows.filter(|window| window.used_percent_at(now) >= USED_UP_PERCENT);
    let until = full.map(|window| window.resets_at).collect::<Option<Vec<_>>>()?.into_iter().max()?;
    // Nothing would ask for the model again before then, so an end that cannot be true must not be believed.
    retry_hint::is_credible(until.since(now)).then_some(until)
}

/// Upstream writes truth in several ways.
const fn is_true(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"true") || matches!(value, b"1")
}

/// The headers of one limit.
struct Family<'a> {
    headers: &'a HeaderMap,
    name: &'a str,
}

impl<'a> Family<'a> {
    const fn new(headers: &'a HeaderMap, name: &'a str) -> Self {
        Self { headers, name }
    }

    fn usage(&self, now: Timestamp) -> Option<AccountUsage> {
        AccountUsage::from_reported(self.window("primary", now), self.window("secondary", now), now)
    }

    fn window(&self, position: &str, now: Timestamp) -> Option<UpstreamWindow> {
        let number = |what: &str| {
            let name = format!("x-{}-{position}-{what}", self.name);
            self.headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok()
        };
        let used_percent = Some(number("used-percent")?);
        let [window_minutes, reset_at, reset_after_seconds] =
            ["window-minutes", "reset-at", "reset-after-seconds"].map(number);
        Reported { used_percent, window_minutes, reset_at, reset_after_seconds }.window(now)
    }
}

/// One window as upstream tells it.
#[derive(Clone, Copy, Deserialize)]
struct Reported {
    #[serde(default)]
    used_percent: Option<f64>,
    #[serde(default)]
    window_minutes: Option<f64>,
    #[serde(default)]
    reset_at: Option<f64>,
    #[serde(default)]
    reset_after_seconds: Option<f64>,
}

impl Reported {
    fn window(self, now: Timestamp) -> Option<UpstreamWindow> {
        let used_percent = self.used_percent.filter(|percent| percent.is_finite())?;
        let window_minutes = self.window_minutes.unwrap_or(0.0);
        // A plan without this window reports zeros for it.
        if used_percent == 0.0 && window_minutes == 0.0 {
            return None;
        }
        let span = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
        let since_epoch = self.reset_at.and_then(span);
        let resets_at = since_epoch
            .map(|since_epoch| Timestamp::from_unix_ms(0).plus(since_epoch))
            .or_else(|| self.reset_after_seconds.and_then(span).map(|span| now.plus(span)));
        // The cast saturates, and takes what is no number for 0.
        Some(UpstreamWindow { used_percent, window_minutes: window_minutes as u32, resets_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn used_up(named_limit: &str, until: i64) -> Vec<NamedCooldown> {
        vec![NamedCooldown { named_limit: named_limit.to_owned(), until: Timestamp::from_unix_seconds(until) }]
    }

    const BOTH: [(&str, &str); 6] = [
        ("x-codex-primary-used-percent", "12.5"),
        ("x-codex-primary-window-minutes", "300"),
        ("x-codex-primary-reset-at", "2000"),
        ("x-codex-secondary-used-percent", "40"),
        ("x-codex-secondary-window-minutes", "10080"),
        ("x-codex-secondary-reset-after-seconds", "60"),
    ];

    #[test]
    fn rate_limit_headers_report_windows() {
        let report = in_headers(&headers(&BOTH), NOW);
        let usage = report.usage.unwrap();
        let primary = usage.primary.unwrap();
        assert!((primary.used_percent - 12.5).abs() < f64::EPSILON);
        assert_eq!(primary.resets_at, Some(Timestamp::from_unix_seconds(2_000)));
        assert_eq!(usage.secondary.unwrap().resets_at, Some(Timestamp::from_unix_seconds(1_060)));
        assert_eq!((report.credits, report.used_up), (None, Vec::new()));

        let weekly_only = headers(&[
            ("x-codex-primary-used-percent", "7"),
            ("x-codex-primary-window-minutes", "10080"),
            ("x-codex-secondary-used-percent", "0"),
            ("x-codex-secondary-window-minutes", "0"),
        ]);
        let usage = in_headers(&weekly_only, NOW).usage.unwrap();
        assert_eq!(
            (usage.primary.is_none(), usage.secondary.map(|window| window.window_minutes)),
            (true, Some(10_080))
        );
        for silent in [headers(&[]), headers(&[("x-codex-primary-used-percent", "NaN")])] {
            assert_eq!(in_headers(&silent, NOW), UsageReport::default());
        }
    }

    #[test]
    fn credits_are_told_in_several_spellings() {
        let cases = [("True", true), ("true", true), ("1", true), ("False", false), ("0", false), ("", false)];
        for (text, expected) in cases {
            let has_credits = in_headers(&headers(&[("x-codex-credits-has-credits", text)]), NOW).credits.unwrap();
            assert_eq!(has_credits, Credits { has_credits: expected, is_unlimited: false }, "{text}");
            let unlimited = in_headers(&headers(&[("x-codex-credits-unlimited", text)]), NOW).credits.unwrap();
            assert_eq!(unlimited, Credits { has_credits: false, is_unlimited: expected }, "{text}");
        }
    }

    #[test]
    fn an_answer_that_a_limit_of_its_own_metered_says_nothing_about_the_account() {
        for (limit, is_told) in [("codex_bengalfox", false), ("codex", true), ("premium", true)] {
            let mut answer = headers(&BOTH);
            answer.insert(ACTIVE_LIMIT_HEADER, limit.parse().unwrap());
            assert_eq!(in_headers(&answer, NOW).usage.is_some(), is_told, "{limit}");
        }
    }

    #[test]
    fn a_limit_of_its_own_that_is_used_up_is_told_until_its_last_window_resets() {
        let spark = |used: &str, reset: &str, weekly: &str| {
            headers(&[
                ("x-codex-bengalfox-primary-used-percent", used),
                ("x-codex-bengalfox-primary-window-minutes", "300"),
                ("x-codex-bengalfox-primary-reset-at", reset),
                ("x-codex-bengalfox-secondary-used-percent", weekly),
                ("x-codex-bengalfox-secondary-window-minutes", "10080"),
                ("x-codex-bengalfox-secondary-reset-at", "9000"),
            ])
        };
        const SPARK: &str = "gpt-5.3-codex-spark";
        assert_eq!(in_headers(&spark("100", "2000", "10"), NOW).used_up, used_up(SPARK, 2_000));
        assert_eq!(in_headers(&spark("100", "2000", "100"), NOW).used_up, used_up(SPARK, 9_000));
        assert_eq!(in_headers(&spark("99.9", "2000", "10"), NOW).used_up, []);
        assert_eq!(in_headers(&spark("100", "1000", "10"), NOW).used_up, [], "its reset has passed");
        assert_eq!(in_headers(&spark("100", "never", "10"), NOW).used_up, [], "its end is not known");
        assert_eq!(in_headers(&spark("100", "2000000000000", "10"), NOW).used_up, [], "its end is in milliseconds");
        assert_eq!(in_headers(&spark("100", "2000", "10"), NOW).usage, None);
    }

    #[test]
    fn a_rate_limits_event_reports_windows_and_credits() {
        let windows = r#"{"allowed":true,"primary":{"used_percent":100,"window_minutes":300,"reset_at":2000},"secondary":{"used_percent":40,"window_minutes":10080,"reset_after_seconds":60}}"#;
        let event =
            |more: &str| format!(r#"{{"type":"codex.rate_limits","plan_type":"plus"{more},"rate_limits":{windows}}}"#);
        for more in ["", r#","metered_limit_name":null"#, r#","limit_name":"codex""#] {
            let report = in_event(event(more).as_bytes(), NOW).unwrap();
            let usage = report.usage.unwrap();
            assert_eq!(usage.primary.unwrap().resets_at, Some(Timestamp::from_unix_seconds(2_000)), "{more}");
            assert_eq!(usage.secondary.unwrap().resets_at, Some(Timestamp::from_unix_seconds(1_060)), "{more}");
            assert_eq!((report.credits, report.used_up), (None, Vec::new()), "{more}");
        }
        let paying = in_event(event(r#","credits":{"has_credits":true,"balance":"3"}"#).as_bytes(), NOW).unwrap();
        assert_eq!(paying.credits, Some(Credits { has_credits: true, is_unlimited: false }));
        let apart = in_event(event(r#","metered_limit_name":"codex_bengalfox""#).as_bytes(), NOW).unwrap();
        assert_eq!((apart.usage, apart.used_up), (None, used_up("gpt-5.3-codex-spark", 2_000)));
        let empty = [
            r#"{"type":"codex.rate_limits","rate_limits":{"primary":null}}"#,
            r#"{"type":"codex.rate_limits","rate_limits":null}"#,
        ];
        for event in empty {
            assert_eq!(in_event(event.as_bytes(), NOW), Some(UsageReport::default()), "{event}");
        }
        for event in [event("").replace("codex.rate_limits", "codex.other"), "nonsense".to_owned()] {
            assert_eq!(in_event(event.as_bytes(), NOW), None, "{event}");
        }
    }
}
