//! How much of its rate limits an account has used, and the three shapes in which the backend tells it: response
//! headers, the `codex.rate_limits` event and the usage payload.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::account::Profile;
use crate::clock;

const FIVE_HOURS_MINUTES: u64 = 300;
const WEEK_MINUTES: u64 = 10_080;
const MONTH_MINUTES: u64 = 43_200;

/// What the backend reports about an account. Nothing here makes requests fail; scripts do that.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageState {
    /// Usually five hours; a month or a week on some plans, where it stands alone.
    pub primary: Option<UsageWindow>,
    /// Usually a week.
    pub secondary: Option<UsageWindow>,
    /// `credits`.
    pub credits: Credits,
    /// `limit_reached` of the payload; whether a window stands at 100 % when absent.
    pub limit_reached: Option<bool>,
    /// `plan_type` where it is reported; the plan of the account when absent.
    pub plan: Option<String>,
    /// Taken into `additional_rate_limits` of the payload as they are.
    pub additional_rate_limits: Vec<Value>,
}

/// One rate limit window.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UsageWindow {
    /// 0 to 100.
    pub used_percent: f64,
    /// Length of the window.
    pub window_minutes: u64,
    /// Unix time of its end.
    pub reset_at: u64,
}

/// Bought credits.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credits {
    /// Whether there are any.
    pub has_credits: bool,
    /// Whether they never run out.
    pub unlimited: bool,
    /// The balance, which the backend prints as text.
    pub balance: Option<String>,
}

impl UsageWindow {
    /// A window that ends when a whole one would, counted from now.
    pub fn new(used_percent: f64, window_minutes: u64) -> Self {
        Self { used_percent, window_minutes, reset_at: clock::unix_now() + window_minutes * 60 }
    }

    fn seconds_left(&self) -> u64 {
        self.reset_at.saturating_sub(clock::unix_now())
    }

    fn payload(&self) -> Value {
        json!({
            "used_percent": self.used_percent.round() as u64, "limit_window_seconds": self.window_minutes * 60,
            "reset_after_seconds": self.seconds_left(), "reset_at": self.reset_at,
        })
    }

    fn event(&self) -> Value {
        json!({
            "used_percent": self.used_percent, "window_minutes": self.window_minutes,
            "reset_after_seconds": self.seconds_left(), "reset_at": self.reset_at,
        })
    }
}

impl UsageState {
    /// Five hours and a week used by so many percent.
    pub fn used(primary_percent: f64, secondary_percent: f64) -> Self {
        Self {
            primary: Some(UsageWindow::new(primary_percent, FIVE_HOURS_MINUTES)),
            secondary: Some(UsageWindow::new(secondary_percent, WEEK_MINUTES)),
            ..Self::default()
        }
    }

    /// A plan whose only window is a week, which the backend reports as the primary one.
    pub fn weekly_only(used_percent: f64) -> Self {
        Self { primary: Some(UsageWindow::new(used_percent, WEEK_MINUTES)), ..Self::default() }
    }

    /// An unused account.
    pub(crate) fn for_plan(plan: &str) -> Self {
        if plan == "free" {
            Self { primary: Some(UsageWindow::new(0.0, MONTH_MINUTES)), ..Self::default() }
        } else {
            Self::used(0.0, 0.0)
        }
    }

    fn is_limit_reached(&self) -> bool {
        let is_full = |window: &UsageWindow| window.used_percent >= 100.0;
        self.limit_reached.unwrap_or_else(|| self.primary.iter().chain(&self.secondary).any(is_full))
    }

    fn plan<'a>(&'a self, profile: &'a Profile) -> &'a str {
        self.plan.as_deref().unwrap_or(&profile.plan)
    }

    /// The `x-codex-…` headers of a response.
    pub(crate) fn write_headers(&self, profile: &Profile, headers: &mut HeaderMap) {
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-codex-active-limit", "premium".to_owned());
        set("x-codex-plan-type", self.plan(profile).to_owned());
        if let Some(window) = self.primary {
            set("x-codex-primary-used-percent", window.used_percent.to_string());
            set("x-codex-primary-window-minutes", window.window_minutes.to_string());
            set("x-codex-primary-reset-at", window.reset_at.to_string());
            set("x-codex-primary-reset-after-seconds", window.seconds_left().to_string());
        }
        // A plan without a secondary window reports zeros.
        let window = self.secondary.unwrap_or_default();
        set("x-codex-secondary-used-percent", window.used_percent.to_string());
        set("x-codex-secondary-window-minutes", window.window_minutes.to_string());
        set("x-codex-secondary-reset-at", window.reset_at.to_string());
        set("x-codex-secondary-reset-after-seconds", window.seconds_left().to_string());
        set("x-codex-primary-over-secondary-limit-percent", "0".to_owned());
        let title_case = |claim: bool| if claim { "True" } else { "False" }.to_owned();
        set("x-codex-credits-has-credits", title_case(self.credits.has_credits));
        set("x-codex-credits-unlimited", title_case(self.credits.unlimited));
        set("x-codex-credits-balance", self.credits.balance.clone().unwrap_or_default());
    }

    /// The fields of a `codex.rate_limits` event, without its `type`.
    pub(crate) fn event(&self, profile: &Profile) -> Value {
        json!({
            "plan_type": self.plan(profile),
            "rate_limits": {
                "allowed": !self.is_limit_reached(), "limit_reached": self.is_limit_reached(),
                "primary": self.primary.as_ref().map(UsageWindow::event),
                "secondary": self.secondary.as_ref().map(UsageWindow::event),
            },
            "credits": self.credits,
        })
    }

    /// The answer of `GET wham/usage`.
    pub(crate) fn payload(&self, profile: &Profile) -> Value {
        let limit_reached = self.is_limit_reached();
        json!({
            "user_id": profile.chatgpt_user_id, "account_id": profile.chatgpt_account_id, "email": profile.email,
            "plan_type": self.plan(profile),
            "rate_limit": {
                "allowed": !limit_reached, "limit_reached": limit_reached,
                "primary_window": self.primary.as_ref().map(UsageWindow::payload),
                "secondary_window": self.secondary.as_ref().map(UsageWindow::payload),
            },
            "code_review_rate_limit": null,
            "additional_rate_limits": self.additional_rate_limits,
            "credits": {
                "has_credits": self.credits.has_credits, "unlimited": self.credits.unlimited,
                "balance": self.credits.balance, "approx_local_messages": [0, 0], "approx_cloud_messages": [0, 0],
            },
            "spend_control": {
                "reached": false, "reached_limit_type": null, "individual_limit": null, "group_default_limit": null,
            },
            "rate_limit_reached_type": if limit_reached { json!({"type": "rate_limit_reached"}) } else { Value::Null },
            "rate_limit_reset_credits": {"available_count": 0, "applicable_available_count": 0},
            "promo": null,
        })
    }
}
