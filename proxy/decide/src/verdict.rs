//! What an upstream reply means for its account and for the exchange: one pure function, one row per case.
//!
//! [`judge`] is asked before the first meaningful event went downstream. Afterwards nothing is retried, and
//! [`judge_late`] says only what the account did.

mod fault;
mod upstream_error;

use std::time::Duration;

use codex_lb_shared::clock::Timestamp;

use crate::retry_hint;
use fault::Fault;
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
    is_server_failure: bool,
}

/// Judges a reply.
pub fn judge(seen: Seen<'_>, tried: Tried, now: Timestamp) -> Verdict {
    match seen {
        Seen::NoHead | Seen::TimedOut | Seen::EndedEarly => server_failure(tried, Next::NextAccount),
        Seen::Refused { status, retry_after, body } => {
            let error = UpstreamError { retry_after: retry_after.map(str::to_owned), ..UpstreamError::from_body(body) };
            verdict_on(Fault::of_reply(status, &error), &error, tried, now)
        }
        Seen::FirstEventFailed { event } => {
            let error = UpstreamError::from_event(event);
            let fault = match error.status {
                Some(status) => Fault::of_reply(status, &error),
                None => Fault::of_event(&error),
            };
            verdict_on(fault, &error, tried, now)
        }
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

/// Whether a verdict came of a server error or a time-out, which the exchange counts.
pub const fn counts_as_server_failure(verdict: &Verdict) -> bool {
    verdict.is_server_failure
}

fn verdict_on(fault: Fault, error: &UpstreamError, tried: Tried, now: Timestamp) -> Verdict {
    match fault {
        Fault::Way => server_failure(tried, Next::NextAccount),
        Fault::Server if tried.same_account_again => server_failure(tried, Next::NextAccount),
        Fault::Server => server_failure(tried, Next::SameAccount(SAME_ACCOUNT_PAUSE)),
        Fault::RateLimit => next_account(AccountEffect::RateLimited(end_of_limit(error, RATE_LIMIT_DEFAULT, now))),
        Fault::Quota => next_account(AccountEffect::QuotaExceeded(end_of_limit(error, QUOTA_DEFAULT, now))),
        // Refreshing it for every exchange would use up refresh tokens; failures make it sit out.
        Fault::Token if tried.fresh_token => next_account(AccountEffect::Failure),
        Fault::Token => unharmed(Next::SameAccountWithFreshToken),
        Fault::Challenge => next_account(AccountEffect::Failure),
        // One odd reply changes no state; an account that really lacks the money will repeat it and sit out.
        Fault::Payment => next_account(AccountEffect::Failure),
        Fault::Closed(code) => next_account(AccountEffect::Deactivated(code)),
        Fault::ForeignContent if tried.without_encrypted_content => unharmed(Next::PassOn),
        Fault::ForeignContent => unharmed(Next::SameAccountWithoutEncryptedContent),
        Fault::Model => next_account(AccountEffect::ModelUnsupported),
        Fault::Request => unharmed(Next::PassOn),
    }
}

const fn unharmed(next: Next) -> Verdict {
    Verdict { account: AccountEffect::None, next, is_server_failure: false }
}

/// Costs no budget: a pool of many limited accounts is walked to its end.
const fn next_account(account: AccountEffect) -> Verdict {
    Verdict { account, next: Next::NextAccount, is_server_failure: false }
}

/// A server error or a time-out. The last one that the exchange may meet ends it.
const fn server_failure(tried: Tried, next: Next) -> Verdict {
    let is_last = tried.server_failures >= SERVER_FAILURES_MAX - 1;
    let next = if is_last { Next::PassOn } else { next };
    Verdict { account: AccountEffect::Failure, next, is_server_failure: true }
}

/// When the account may serve again: the first hint that can be true, else `default` from now.
fn end_of_limit(error: &UpstreamError, default: Duration, now: Timestamp) -> Timestamp {
    let hints = [
        error.resets_at.map(|resets_at| resets_at.since(now)),
        error.resets_in,
        error.retry_after.as_deref().and_then(|header| retry_hint::retry_after(header, now)),
        retry_hint::try_again_in(&error.message),
    ];
    now.plus(hints.into_iter().flatten().find(|span| retry_hint::is_credible(*span)).unwrap_or(default))
}

/// How long an account sits out after so many failures in a row, if at all.
pub fn back_off(failures_in_a_row: u32) -> Option<Duration> {
    let excess = failures_in_a_row.checked_sub(FAILURES_TOLERATED + 1)?;
    let (first, longest) = BACK_OFF;
    Some(first.saturating_mul(2_u32.saturating_pow(excess)).min(longest))
}

#[cfg(test)]
mod tests;
