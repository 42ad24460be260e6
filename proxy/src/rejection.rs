//! Every answer that we invent ourselves, in OpenAI's error shape, and the only file here that chooses status codes.
//!
//! What the world reads is the message; it holds no secret, no e-mail address and nothing of the pool's inside.

use std::time::Duration;

use bytes::Bytes;
use codex_lb_decide::selection::PoolTrouble;
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::kind::Kind;
use serde_json::{Value, json};

/// An answer of our own: a refusal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rejection {
    /// The HTTP status, while the head is still ours to send.
    pub(crate) status: u16,
    /// Metric and log label.
    pub(crate) kind: Kind,
    /// `error.type`.
    pub(crate) error_type: &'static str,
    /// `error.code`.
    pub(crate) code: &'static str,
    /// `error.message`: what went wrong and what to do.
    pub(crate) message: String,
    /// `error.param`: the place in the body that is wrong.
    pub(crate) param: Option<String>,
    /// When to come back.
    pub(crate) retry_after: Option<Duration>,
    /// `error.resets_at`, for limits.
    pub(crate) resets_at: Option<Timestamp>,
    /// `error.plan_type`, for limits.
    plan_type: Option<&'static str>,
    /// The methods a path has, for 405.
    pub(crate) allow: Option<&'static str>,
    /// Whether coming back after `retry_after` may help although the caller changed nothing: the pool has to recover.
    is_pool_wait: bool,
}

/// Longest wait that a native client is told to make; after a longer one its user had better know.
const NATIVE_WAIT_MAX: Duration = Duration::from_secs(60);

impl Rejection {
    fn new(status: u16, kind: Kind, error_type: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            error_type,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            resets_at: None,
            plan_type: None,
            allow: None,
            is_pool_wait: false,
        }
    }

    /// The same as the error by which upstream tells Codex to wait, if there is a short wait to be told.
    pub(crate) fn as_rate_limit(&self) -> Option<Value> {
        let wait = self.retry_after.filter(|wait| self.is_pool_wait && *wait <= NATIVE_WAIT_MAX)?;
        let wait = wait.as_secs();
        let message = format!("All accounts of the pool are busy or limited right now. Please try again in {wait}s.");
        Some(json!({"code": "rate_limit_exceeded", "message": message}))
    }

    /// The caller sent something that cannot be acted on; `param` names the place.
    pub(crate) fn invalid_request(param: Option<&str>, message: impl Into<String>) -> Self {
        let rejection = Self::new(400, Kind::BadRequest, "invalid_request_error", "invalid_request_error", message);
        Self { param: param.map(str::to_owned), ..rejection }
    }

    /// A field has the wrong type or value.
    pub(crate) fn invalid_value(param: &str, message: impl Into<String>) -> Self {
        Self { code: "invalid_value", ..Self::invalid_request(Some(param), message) }
    }

    /// A field that must be there is not.
    pub(crate) fn missing_field(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self { code: "missing_required_parameter", ..Self::invalid_request(Some(param), message) }
    }

    /// The conversation's earlier part is not known here.
    pub(crate) fn previous_response_not_found() -> Self {
        let message = "Previous response not found. Send the whole conversation in `input` instead of \
                       `previous_response_id`.";
        let rejection = Self::invalid_request(Some("previous_response_id"), message);
        Self { code: "previous_response_not_found", ..rejection }
    }

    /// An item of `input` stands for one that is not known here.
    pub(crate) fn item_not_found(index: usize, item_id: &str) -> Self {
        let item_id: String = item_id.chars().take(100).collect();
        let message = format!(
            "Item with id '{item_id}' not found. Items are kept in memory for a while only: send the item itself, or \
             set `store` to false in the client so that it does."
        );
        Self::invalid_request(Some(&format!("input[{index}]")), message)
    }

    /// One answer for unknown, revoked, disabled and expired keys, so that nobody learns which.
    pub(crate) fn invalid_api_key() -> Self {
        let message = "Incorrect API key provided. Use a key that this gateway issued (it starts with `sk-clb-`), as \
                       `Authorization: Bearer <key>`.";
        Self::new(401, Kind::Unauthenticated, "invalid_request_error", "invalid_api_key", message)
    }

    /// No key was presented where one is needed.
    pub(crate) fn api_key_required(why: &str) -> Self {
        let message = format!("{why} Send a key that this gateway issued, as `Authorization: Bearer sk-clb-…`.");
        Self::new(401, Kind::Unauthenticated, "invalid_request_error", "invalid_api_key", message)
    }

    /// No such endpoint.
    pub(crate) fn unknown_path(method: &str, path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        let message =
            format!("Unknown request URL: {method} {path}. See the gateway's documentation for its endpoints.");
        Self::new(404, Kind::NotFound, "invalid_request_error", "unknown_url", message)
    }

    /// An endpoint of OpenAI's that accounts have nothing for.
    pub(crate) fn not_offered(path: &str, why: &str) -> Self {
        let message = format!("{path} is not available here: {why}");
        Self::new(404, Kind::NotFound, "invalid_request_error", "unknown_url", message)
    }

    /// The path exists, the method does not.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("Method not allowed; use {allow}.");
        let rejection = Self::new(405, Kind::BadRequest, "invalid_request_error", "method_not_allowed", message);
        Self { allow: Some(allow), ..rejection }
    }

    /// No such model in the catalog.
    pub(crate) fn model_not_found(model: &str) -> Self {
        let model: String = model.chars().take(100).collect();
        let message = format!("The model '{model}' does not exist or no account of the pool offers it.");
        let rejection = Self::new(404, Kind::NotFound, "invalid_request_error", "model_not_found", message);
        Self { param: Some("model".to_owned()), ..rejection }
    }

    /// The caller has no such file, whoever else may have it.
    pub(crate) fn file_not_found(file_id: &str, param: Option<&str>) -> Self {
        let file_id: String = file_id.chars().take(100).collect();
        let message = format!("No such File object: {file_id}. Files are kept for half an hour; upload it again.");
        let rejection = Self::new(404, Kind::NotFound, "invalid_request_error", "file_not_found", message);
        Self { param: Some(param.unwrap_or("file_id").to_owned()), ..rejection }
    }

    /// The caller has no such thread, whoever else may have it.
    pub(crate) fn thread_not_found(thread_id: &str) -> Self {
        let message = format!("No such thread: {thread_id}.");
        let rejection = Self::new(404, Kind::NotFound, "invalid_request_error", "thread_not_found", message);
        Self { param: Some("threadId".to_owned()), ..rejection }
    }

    /// No account holds all the files of a request.
    pub(crate) fn files_apart(param: &str) -> Self {
        let message = "These files were not uploaded together and cannot be used together. Upload them again.";
        Self { code: "files_apart", ..Self::invalid_request(Some(param), message) }
    }

    /// The only account that could serve the request cannot.
    pub(crate) fn owner_unavailable() -> Self {
        let message = "The account that holds what this request refers to cannot serve right now. Try again later, or \
                       upload it again.";
        let rejection = Self::new(503, Kind::Unavailable, "server_error", "owner_unavailable", message);
        Self { retry_after: Some(Duration::from_secs(30)), ..rejection }
    }

    /// The body is larger than its bound.
    pub(crate) fn payload_too_large(bytes_max: u64) -> Self {
        let message = format!("The request body is larger than the {bytes_max} bytes that this gateway accepts.");
        Self::new(413, Kind::TooLarge, "invalid_request_error", "payload_too_large", message)
    }

    /// A `Content-Encoding` that nobody here speaks.
    pub(crate) fn unsupported_encoding() -> Self {
        let message = "Unsupported Content-Encoding; use one of zstd, gzip, br, deflate, or none.";
        Self::new(415, Kind::BadRequest, "invalid_request_error", "unsupported_content_encoding", message)
    }

    /// The body stopped arriving.
    pub(crate) fn body_timeout() -> Self {
        let message = "The request body did not arrive in time.";
        Self::new(408, Kind::Timeout, "invalid_request_error", "request_timeout", message)
    }

    /// The body's framing is broken.
    pub(crate) fn body_cut() -> Self {
        let message = "The request body is broken: its chunks do not fit together.";
        Self::new(400, Kind::BadRequest, "invalid_request_error", "request_incomplete", message)
    }

    /// There is no memory for this body right now.
    pub(crate) fn busy() -> Self {
        let message = "The gateway holds too many large requests right now. Try again in a few seconds.";
        let rejection = Self::new(503, Kind::Unavailable, "server_error", "busy", message);
        Self { retry_after: Some(Duration::from_secs(5)), ..rejection }
    }

    /// The database is needed and away.
    pub(crate) fn database_away() -> Self {
        let message = "The gateway cannot check this api key right now. Try again in a few seconds.";
        let rejection = Self::new(503, Kind::Unavailable, "server_error", "temporarily_unavailable", message);
        Self { retry_after: Some(Duration::from_secs(2)), ..rejection }
    }

    /// Nobody in the pool can serve.
    pub(crate) fn pool_exhausted(trouble: &PoolTrouble, now: Timestamp) -> Self {
        // Whoever else failed might serve the next try, so only a pool in which limits alone stand in the way is limited.
        let is_all_limited = trouble.limited > 0 && trouble.excluded == 0 && trouble.cooling_down == 0;
        if is_all_limited {
            return Self::usage_limit_reached(trouble, now);
        }
        if trouble.accounts == 0 {
            let message = "The pool has no accounts yet. Add one in the dashboard or with `codex-lb accounts import`.";
            return Self::new(503, Kind::Unavailable, "server_error", "no_accounts", message);
        }
        if trouble.model_not_offered == trouble.accounts {
            let message = "No account of the pool offers this model on its plan.";
            let rejection = Self::new(404, Kind::NotFound, "invalid_request_error", "model_not_found", message);
            return Self { param: Some("model".to_owned()), ..rejection };
        }
        if trouble.tier_not_offered > 0 && trouble.tier_not_offered + trouble.model_not_offered == trouble.accounts {
            let message = "No account of the pool offers this service tier for this model. Leave `service_tier` out.";
            return Self::invalid_value("service_tier", message);
        }
        if trouble.not_the_single_account > 0 && trouble.not_the_single_account == trouble.accounts {
            let message = "The pool serves from a single account, and none of its accounts is that one. Choose the \
                           account, or another strategy, in the settings.";
            return Self::new(503, Kind::Unavailable, "server_error", "no_accounts", message);
        }
        let back = [trouble.earliest_reset, trouble.earliest_cooldown_end].into_iter().flatten().min();
        let message = "No account of the pool can serve this request right now.";
        let rejection = Self::new(503, Kind::Unavailable, "server_error", "no_accounts", message);
        Self { retry_after: back.map(|at| at_least_a_second(at.since(now))), is_pool_wait: true, ..rejection }
    }

    /// Every account is limited. Codex reads the *type* and shows when it ends.
    fn usage_limit_reached(trouble: &PoolTrouble, now: Timestamp) -> Self {
        let wait = trouble.earliest_reset.map(|at| at_least_a_second(at.since(now)));
        let message = match wait {
            Some(wait) => {
                format!("All accounts of the pool reached their usage limit. Try again in {} s.", wait.as_secs())
            }
            None => "All accounts of the pool reached their usage limit.".to_owned(),
        };
        let rejection = Self::new(429, Kind::Limited, "usage_limit_reached", "usage_limit_reached", message);
        let plan_type = trouble.earliest_reset_plan.map(Plan::as_str);
        Self { retry_after: wait, resets_at: trouble.earliest_reset, plan_type, is_pool_wait: true, ..rejection }
    }

    /// Upstream did not answer, or answered with a failure that is none of the caller's business.
    pub(crate) fn upstream_failed() -> Self {
        let message = "Upstream did not answer this request. Try again.";
        let rejection = Self::new(503, Kind::Upstream, "server_error", "upstream_unavailable", message);
        Self { retry_after: Some(Duration::from_secs(2)), ..rejection }
    }

    /// Upstream did not answer in time.
    pub(crate) fn upstream_timeout() -> Self {
        let message = "Upstream did not answer this request in time. Try again.";
        Self::new(504, Kind::Timeout, "server_error", "upstream_timeout", message)
    }

    /// Every account is busy and stayed so.
    pub(crate) fn pool_busy() -> Self {
        let message = "All accounts of the pool are busy, and none became free in time. Try again in a few seconds.";
        let rejection = Self::new(503, Kind::Unavailable, "server_error", "pool_busy", message);
        Self { retry_after: Some(Duration::from_secs(5)), is_pool_wait: true, ..rejection }
    }

    /// The process stops and the drain time-out ran out.
    pub(crate) fn stopping() -> Self {
        let message = "The gateway is being restarted. Try again.";
        let rejection = Self::new(503, Kind::Unavailable, "server_error", "restarting", message);
        Self { retry_after: Some(Duration::from_secs(2)), ..rejection }
    }

    /// WebSockets are not served. Of all statuses only this one makes Codex fall back to HTTP at once.
    pub(crate) fn upgrade_required() -> Self {
        let message = "WebSockets are not supported here; send the request as an HTTP POST.";
        Self::new(426, Kind::BadRequest, "invalid_request_error", "upgrade_required", message)
    }

    /// Upstream's stream ended without its terminal event.
    pub(crate) fn stream_incomplete() -> Self {
        let message = "Upstream's answer was cut off before its end. Try again.";
        Self::new(502, Kind::Upstream, "server_error", "stream_incomplete", message)
    }

    /// Upstream's answer is larger than we hold.
    pub(crate) fn answer_too_large() -> Self {
        let message = "Upstream's answer is larger than this gateway can hold.";
        Self::new(502, Kind::Upstream, "server_error", "answer_too_large", message)
    }

    /// Upstream answered, but not with the compaction that was asked for.
    pub(crate) fn compaction_failed() -> Self {
        let message = "Upstream did not compact this conversation. Try again.";
        Self::new(502, Kind::Upstream, "server_error", "compaction_failed", message)
    }

    /// Upstream answered, but not with the image that was asked for.
    pub(crate) fn image_failed() -> Self {
        let message = "Upstream made no image of this request. Change the prompt, or try again.";
        Self::new(502, Kind::Upstream, "server_error", "image_generation_failed", message)
    }

    /// A state that cannot be.
    pub(crate) fn internal() -> Self {
        Self::new(
            500,
            Kind::Internal,
            "server_error",
            "internal_error",
            "The gateway failed. This is a bug; please report it.",
        )
    }

    /// The `error` object.
    pub(crate) fn error(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.error_type,
            "param": self.param,
            "code": self.code,
        });
        if let (Some(resets_at), Some(wait)) = (self.resets_at, self.retry_after) {
            error["resets_at"] = json!(resets_at.as_unix_seconds());
            error["resets_in_seconds"] = json!(wait.as_secs());
        }
        if let Some(plan_type) = self.plan_type {
            error["plan_type"] = json!(plan_type);
        }
        error
    }

    /// The body of an HTTP error.
    pub(crate) fn to_json(&self) -> Bytes {
        Bytes::from(json!({ "error": self.error() }).to_string())
    }
}

/// The status of a failure that upstream told by an event, had it told it before its head. The events' names are the
/// codes of OpenAI's API.
pub(crate) fn status_of_failure(code: &str) -> u16 {
    match code {
        "rate_limit_exceeded" | "usage_limit_reached" | "insufficient_quota" | "usage_not_included" => 429,
        "server_is_overloaded" | "slow_down" | "overloaded" => 503,
        "server_error" | "" => 502,
        _ => 400,
    }
}

/// Whether a refusal of upstream's is about the account and no business of the caller's, who would throw its own login
/// away for a 401. Upstream's edge refuses an account with a page.
pub(crate) const fn is_about_account(status: u16, is_page: bool) -> bool {
    matches!(status, 401 | 402) || (status == 403 && is_page)
}

/// Whole seconds, rounded up, and never "now": a client that comes back at once meets the same limit.
fn at_least_a_second(span: Duration) -> Duration {
    let seconds = span.as_millis().div_ceil(1_000).max(1);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_has_openai_s_shape() {
        let body: Value = serde_json::from_slice(&Rejection::missing_field("model").to_json()).unwrap();
        assert_eq!(
            body,
            json!({"error": {
                "message": "Missing required parameter: 'model'.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "missing_required_parameter",
            }})
        );
    }

    #[test]
    fn a_limited_pool_says_when_to_come_back_and_an_empty_one_what_to_do() {
        let now = Timestamp::from_unix_ms(1_000_000);
        let limited = PoolTrouble {
            accounts: 3,
            limited: 2,
            earliest_reset: Some(Timestamp::from_unix_ms(1_059_001)),
            earliest_reset_plan: Some(Plan::Team),
            ..PoolTrouble::default()
        };
        let rejection = Rejection::pool_exhausted(&limited, now);
        assert_eq!((rejection.status, rejection.error_type), (429, "usage_limit_reached"));
        assert_eq!(rejection.retry_after, Some(Duration::from_secs(60)));
        let body: Value = serde_json::from_slice(&rejection.to_json()).unwrap();
        assert_eq!(body["error"]["resets_at"], 1_059);
        assert_eq!((&body["error"]["resets_in_seconds"], &body["error"]["plan_type"]), (&json!(60), &json!("team")));
        let empty = Rejection::pool_exhausted(&PoolTrouble::default(), now);
        assert_eq!((empty.status, empty.code), (503, "no_accounts"));
        let mixed = PoolTrouble { accounts: 2, limited: 1, cooling_down: 1, ..PoolTrouble::default() };
        assert_eq!(Rejection::pool_exhausted(&mixed, now).status, 503);
    }

    #[test]
    fn a_short_wait_for_the_pool_is_told_as_codex_understands_it_and_a_long_one_is_not() {
        let now = Timestamp::from_unix_ms(1_000_000);
        let limited_until = |ms: i64| PoolTrouble {
            accounts: 1,
            limited: 1,
            earliest_reset: Some(Timestamp::from_unix_ms(1_000_000 + ms)),
            ..PoolTrouble::default()
        };
        let cooling_until = |ms: i64| PoolTrouble {
            accounts: 1,
            cooling_down: 1,
            earliest_cooldown_end: Some(Timestamp::from_unix_ms(1_000_000 + ms)),
            ..PoolTrouble::default()
        };
        let told = |trouble: &PoolTrouble| Rejection::pool_exhausted(trouble, now).as_rate_limit();
        for trouble in [limited_until(59_500), cooling_until(60_000)] {
            let error = told(&trouble).unwrap();
            assert_eq!(error["code"], "rate_limit_exceeded");
            assert!(error["message"].as_str().unwrap().ends_with("Please try again in 60s."), "{error}");
        }
        assert_eq!((told(&limited_until(60_001)), told(&cooling_until(61_000))), (None, None));
        assert_eq!(told(&PoolTrouble::default()), None);
        assert!(Rejection::pool_busy().as_rate_limit().is_some());
        assert_eq!(Rejection::stopping().as_rate_limit(), None);
    }

    #[test]
    fn a_pool_without_the_tier_or_the_single_account_says_what_to_change() {
        let rejected = |trouble: &PoolTrouble| Rejection::pool_exhausted(trouble, Timestamp::from_unix_ms(1));
        let tier = PoolTrouble { accounts: 2, tier_not_offered: 1, model_not_offered: 1, ..PoolTrouble::default() };
        assert_eq!((rejected(&tier).status, rejected(&tier).param.as_deref()), (400, Some("service_tier")));
        let paused = PoolTrouble { accounts: 2, tier_not_offered: 1, out_of_service: 1, ..PoolTrouble::default() };
        assert_eq!(rejected(&paused).status, 503);
        let single = PoolTrouble { accounts: 2, not_the_single_account: 2, ..PoolTrouble::default() };
        assert!(rejected(&single).message.contains("single account"));
        let limited =
            PoolTrouble { accounts: 2, not_the_single_account: 1, out_of_service: 1, ..PoolTrouble::default() };
        assert!(!rejected(&limited).message.contains("single account"));
    }
}
