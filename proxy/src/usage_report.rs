//! What upstream reports about an account's windows, beside its answers: in headers, and in an event of its own.

use std::time::Duration;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::upstream_window::{AccountUsage, UpstreamWindow};
use http::HeaderMap;
use serde::Deserialize;

/// The limit that the account's own windows belong to; other names have windows of their own.
const MAIN_LIMIT: &str = "codex";

/// What the rate-limit headers of an answer report, if they report anything.
pub(crate) fn in_headers(headers: &HeaderMap, now: Timestamp) -> Option<AccountUsage> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let window = |names: [&str; 4]| {
        let [used_percent, window_minutes, reset_at, reset_after_seconds] = names.map(number);
        Reported { used_percent, window_minutes, reset_at, reset_after_seconds }.window(now)
    };
    let primary = window([
        "x-codex-primary-used-percent",
        "x-codex-primary-window-minutes",
        "x-codex-primary-reset-at",
        "x-codex-primary-reset-after-seconds",
    ]);
    let secondary = window([
        "x-codex-secondary-used-percent",
        "x-codex-secondary-window-minutes",
        "x-codex-secondary-reset-at",
        "x-codex-secondary-reset-after-seconds",
    ]);
    AccountUsage::from_reported(primary, secondary, now)
}

/// What a `codex.rate_limits` event reports, if it is one and reports anything about the account's own windows.
pub(crate) fn in_event(data: &[u8], now: Timestamp) -> Option<AccountUsage> {
    #[derive(Deserialize)]
    struct RateLimits<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        rate_limits: Windows,
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
    let event: RateLimits<'_> = serde_json::from_slice(data).ok()?;
    let limit = event.metered_limit_name.or(event.limit_name);
    let is_main = limit.is_none_or(|name| name.eq_ignore_ascii_case(MAIN_LIMIT));
    if event.kind != "codex.rate_limits" || !is_main {
        return None;
    }
    let window = |reported: Option<Reported>| reported.and_then(|reported| reported.window(now));
    AccountUsage::from_reported(window(event.rate_limits.primary), window(event.rate_limits.secondary), now)
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

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn rate_limit_headers_report_windows() {
        let now = Timestamp::from_unix_seconds(1_000);
        let both = headers(&[
            ("x-codex-primary-used-percent", "12.5"),
            ("x-codex-primary-window-minutes", "300"),
            ("x-codex-primary-reset-at", "2000"),
            ("x-codex-secondary-used-percent", "40"),
            ("x-codex-secondary-window-minutes", "10080"),
            ("x-codex-secondary-reset-after-seconds", "60"),
        ]);
        let usage = in_headers(&both, now).unwrap();
        let primary = usage.primary.unwrap();
        assert!((primary.used_percent - 12.5).abs() < f64::EPSILON);
        assert_eq!(primary.resets_at, Some(Timestamp::from_unix_seconds(2_000)));
        assert_eq!(usage.secondary.unwrap().resets_at, Some(Timestamp::from_unix_seconds(1_060)));

        let weekly_only = headers(&[
            ("x-codex-primary-used-percent", "7"),
            ("x-codex-primary-window-minutes", "10080"),
            ("x-codex-secondary-used-percent", "0"),
            ("x-codex-secondary-window-minutes", "0"),
        ]);
        let usage = in_headers(&weekly_only, now).unwrap();
        assert_eq!(
            (usage.primary.is_none(), usage.secondary.map(|window| window.window_minutes)),
            (true, Some(10_080))
        );
        assert_eq!(in_headers(&HeaderMap::new(), now), None);
        assert_eq!(in_headers(&headers(&[("x-codex-primary-used-percent", "NaN")]), now), None);
    }

    #[test]
    fn a_rate_limits_event_reports_windows() {
        let now = Timestamp::from_unix_seconds(1_000);
        let windows = r#"{"allowed":true,"primary":{"used_percent":12.5,"window_minutes":300,"reset_at":2000},"secondary":{"used_percent":40,"window_minutes":10080,"reset_after_seconds":60}}"#;
        let event =
            |more: &str| format!(r#"{{"type":"codex.rate_limits","plan_type":"plus"{more},"rate_limits":{windows}}}"#);
        for more in ["", r#","metered_limit_name":null"#, r#","limit_name":"codex""#] {
            let usage = in_event(event(more).as_bytes(), now).unwrap();
            assert_eq!(usage.primary.unwrap().resets_at, Some(Timestamp::from_unix_seconds(2_000)), "{more}");
            assert_eq!(usage.secondary.unwrap().resets_at, Some(Timestamp::from_unix_seconds(1_060)), "{more}");
        }
        let silent = [
            event(r#","metered_limit_name":"codex_bengalfox""#),
            event("").replace("codex.rate_limits", "codex.other"),
            r#"{"type":"codex.rate_limits","rate_limits":{"primary":null}}"#.to_owned(),
            r#"{"type":"codex.rate_limits","rate_limits":null}"#.to_owned(),
            "nonsense".to_owned(),
        ];
        for event in silent {
            assert_eq!(in_event(event.as_bytes(), now), None, "{event}");
        }
    }
}
