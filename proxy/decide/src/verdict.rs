//! What an upstream reply means for its account and for the exchange: one pure function, one row per case.
//!
//! [`judge`] is asked before the first meaningful event went downstream. Afterwards nothing is retried, and
//! [`judge_late`] says only what the account did.

mod upstream_error;

use std::time::Duration;

use codex_lb_shared::clock::Timestamp;

use crate::retry_hint;
pub use upstream_error::UpstreamError;

/// How long an account sits out after a 429 that names no end.
pub const RATE_LIMIT_DEFAULT: Duration = Duration::from_secs(30);
/// How long an account sits out after "quota exceeded" that names no end.
pub const QUOTA_DEFAULT: Duration = Duration::from_secs(3_600);
/// Pause before the same account is tried again after a 500.
pub const SAME_ACCOUNT_PAUSE: Duration = Duration::from_millis(200);
/// Server errors and time-outs that one exchange may meet before it gives up.
pub const SERVER_FAILURES_MAX: u32 = 3;
/// First and longest time that an account sits out after repeated failures.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// Consecutive failures that an account may have before it sits out.
const FAILURES_TOLERATED: u32 = 2;

/// What came of a leg that did not start to answer well.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// No head: the connection could not be made, or closed first.
    NoHead,
    /// No head, or no first event, within its time.
    TimedOut,
    /// A head with a status outside 2xx, and its body.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` header.
        retry_after: Option<&'a str>,
        /// The body, as much of it as is kept.
        body: &'a [u8],
    },
    /// A 200 whose first meaningful event is this failure (`response.failed` or `error`, as JSON).
    FirstEventFailed {
        /// The event's data.
        event: &'a [u8],
    },
    /// A 200 that ended before its first meaningful event.
    EndedEarly,
}

/// How an answer broke off after its first meaningful event. What we ended ourselves broke nothing off: the client left,
/// the process stops, or an event was larger than we hold.
#[derive(Clone, Copy, Debug)]
pub enum BrokenOff<'a> {
    /// Upstream said that it failed (`response.failed` or `error`, as JSON).
    Failed {
        /// The event's data.
        event: &'a [u8],
    },
    /// It ended without a terminal event.
    Cut,
    /// No further event came within its time.
    Silent,
}

/// What earlier legs of the same exchange already tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// This account was already tried again after a 500.
    pub same_account_again: bool,
    /// This account's token was already refreshed for this exchange.
    pub fresh_token: bool,
    /// The body was already resent without encrypted content.
    pub without_encrypted_content: bool,
    /// Server errors and time-outs so far, this one not counted.
    pub server_failures: u32,
}

/// What the reply does to its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountEffect {
    /// Nothing: the reply was about the request.
    None,
    /// One more failure; repeated ones make it sit out.
    Failure,
    /// Upstream limits it until then.
    RateLimited(Timestamp),
    /// An upstream window is used up until then.
    QuotaExceeded(Timestamp),
    /// Upstream closed it; the code says how.
    Deactivated(&'static str),
    /// It cannot serve this model.
    ModelUnsupported,
}

/// What the exchange does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same account again after a pause.
    SameAccount(Duration),
    /// The same account with a refreshed token.
    SameAccountWithFreshToken,
    /// The same account without items that only another account can decrypt.
    SameAccountWithoutEncryptedContent,
    /// The next account.
    NextAccount,
    /// No further leg: the caller gets this reply.
    PassOn,
}

/// The judgement on one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it does to the account.
    pub account: AccountEffect,
    /// What the exchange does next.
    pub next: Next,
}

const fn verdict(account: AccountEffect, next: Next) -> Verdict {
    Verdict { account, next }
}

/// Judges a reply.
pub fn judge(seen: Seen<'_>, tried: Tried, now: Timestamp) -> Verdict {
    match seen {
        Seen::NoHead | Seen::TimedOut | Seen::EndedEarly => server_failure(tried),
        Seen::Refused { status, retry_after, body } => {
            judge_refusal(status, retry_after, &UpstreamError::from_body(body), tried, now)
        }
        Seen::FirstEventFailed { event } => judge_failed_event(&UpstreamError::from_event(event), tried, now),
    }
}

/// Judges the account by an answer that broke off. The exchange has nothing left to decide: the caller is told in-band.
pub fn judge_late(broken_off: BrokenOff<'_>, now: Timestamp) -> AccountEffect {
    match broken_off {
        // An account answers for the same failures, early or late; only who may try again depends on the moment.
        BrokenOff::Failed { event } => judge(Seen::FirstEventFailed { event }, Tried::default(), now).account,
        BrokenOff::Cut | BrokenOff::Silent => AccountEffect::Failure,
    }
}

fn judge_refusal(
    status: u16,
    retry_after: Option<&str>,
    error: &UpstreamError,
    tried: Tried,
    now: Timestamp,
) -> Verdict {
    // A gateway status tells of a broken way to the model, whatever its body calls itself: the same account has the
    // same way, another one may not.
    if matches!(status, 502..=504) {
        return server_failure(tried);
    }
    if let Some(verdict) = judge_code(error, retry_after, tried, now) {
        return verdict;
    }
    match status {
        // Refreshing it for every exchange would use up refresh tokens; failures make it sit out.
        401 if tried.fresh_token => verdict(AccountEffect::Failure, Next::NextAccount),
        401 => verdict(AccountEffect::None, Next::SameAccountWithFreshToken),
        429 => verdict(
            AccountEffect::RateLimited(end_of_limit(error, retry_after, RATE_LIMIT_DEFAULT, now)),
            Next::NextAccount,
        ),
        403 if error.is_not_json => verdict(AccountEffect::Failure, Next::NextAccount),
        500 => server_error_once_more(tried),
        501.. => server_failure(tried),
        _ => verdict(AccountEffect::None, Next::PassOn),
    }
}

fn judge_failed_event(error: &UpstreamError, tried: Tried, now: Timestamp) -> Verdict {
    judge_code(error, None, tried, now).unwrap_or(verdict(AccountEffect::None, Next::PassOn))
}

/// Judges by what the error calls itself, wherever it came: the same codes arrive as bodies and as events.
fn judge_code(error: &UpstreamError, retry_after: Option<&str>, tried: Tried, now: Timestamp) -> Option<Verdict> {
    let judged = match error.name() {
        "usage_limit_reached" | "rate_limit_exceeded" => {
            let until = end_of_limit(error, retry_after, RATE_LIMIT_DEFAULT, now);
            verdict(AccountEffect::RateLimited(until), Next::NextAccount)
        }
        "insufficient_quota" | "usage_not_included" | "quota_exceeded" => {
            let until = end_of_limit(error, retry_after, QUOTA_DEFAULT, now);
            verdict(AccountEffect::QuotaExceeded(until), Next::NextAccount)
        }
        "account_deactivated" => verdict(AccountEffect::Deactivated("account_deactivated"), Next::NextAccount),
        "account_suspended" => verdict(AccountEffect::Deactivated("account_suspended"), Next::NextAccount),
        "account_deleted" => verdict(AccountEffect::Deactivated("account_deleted"), Next::NextAccount),
        "deactivated_workspace" => verdict(AccountEffect::Deactivated("deactivated_workspace"), Next::NextAccount),
        "server_error" | "overloaded" | "server_is_overloaded" | "slow_down" => server_error_once_more(tried),
        _ if error.is_encrypted_content_refusal() => {
            let next =
                if tried.without_encrypted_content { Next::PassOn } else { Next::SameAccountWithoutEncryptedContent };
            verdict(AccountEffect::None, next)
        }
        _ if error.is_model_unsupported() => verdict(AccountEffect::ModelUnsupported, Next::NextAccount),
        _ if error.message_has("at capacity") => server_error_once_more(tried),
        _ => return None,
    };
    Some(judged)
}

fn server_error_once_more(tried: Tried) -> Verdict {
    if tried.same_account_again || tried.server_failures + 1 >= SERVER_FAILURES_MAX {
        server_failure(tried)
    } else {
        verdict(AccountEffect::Failure, Next::SameAccount(SAME_ACCOUNT_PAUSE))
    }
}

fn server_failure(tried: Tried) -> Verdict {
    let is_last = tried.server_failures + 1 >= SERVER_FAILURES_MAX;
    verdict(AccountEffect::Failure, if is_last { Next::PassOn } else { Next::NextAccount })
}

/// Whether a verdict came of a server error or a time-out, which the exchange counts.
pub fn counts_as_server_failure(verdict: &Verdict) -> bool {
    verdict.account == AccountEffect::Failure
}

fn end_of_limit(error: &UpstreamError, retry_after: Option<&str>, default: Duration, now: Timestamp) -> Timestamp {
    error
        .resets_at
        .filter(|resets_at| *resets_at > now)
        .or_else(|| error.resets_in.map(|span| now.plus(span)))
        .or_else(|| retry_after.and_then(retry_hint::retry_after).map(|span| now.plus(span)))
        .or_else(|| retry_hint::try_again_in(&error.message).map(|span| now.plus(span)))
        .unwrap_or_else(|| now.plus(default))
}

/// How long an account sits out after so many failures in a row, if at all.
pub fn back_off(failures_in_a_row: u32) -> Option<Duration> {
    let excess = failures_in_a_row.checked_sub(FAILURES_TOLERATED + 1)?;
    let (first, longest) = BACK_OFF;
    Some(first.saturating_mul(2_u32.saturating_pow(excess)).min(longest))
}

#[cfg(test)]
mod tests;
