//! What must hold of every exchange of a fault run, judged from three sides: what its client saw, what reached upstream
//! for it, and what the gateway recorded.

use codex_lb_shared::domain::usage::TokenUsage;
use codex_lb_shared::store::LoggedExchange;
use fake_chatgpt::{RequestRecord, Usage};

use super::deck::{Fate, fate};

/// Server errors and time-outs that end an exchange.
const FAILURES_MAX: u32 = 3;
/// When an exchange stops looking for another account.
const FAILOVER_DEADLINE_MS: u32 = 30_000;

/// What a client saw of its exchange.
#[derive(Debug)]
pub(super) struct Seen {
    /// The answer's `x-request-id`.
    pub(super) id: String,
    pub(super) is_stream: bool,
    pub(super) status: u16,
    pub(super) end: End,
    /// Text deltas that arrived.
    pub(super) deltas: u64,
}

/// How it ended for the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a terminal event, or a whole object.
    Whole,
    /// With a failure and nothing of an answer before it.
    FailedAtOnce,
    /// With a failure behind a part of an answer.
    FailedInside,
    /// The client left.
    Left,
    /// As no answer may end.
    Broken(String),
}

/// How an exchange went, once it is known to be lawful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Served, after so many legs that did not.
    Served { legs_before: u32 },
    /// It met as many failures as an exchange may.
    BudgetSpent,
    /// Nobody was found in time.
    Late,
    /// The answer broke after it had begun.
    BrokeInside,
    /// Upstream refused the request itself.
    RequestRefused,
    /// The client left.
    Left,
}

/// Judges one exchange. `legs` is what reached upstream for it, in order.
pub(super) fn judge(
    seen: &Seen,
    legs: &[RequestRecord],
    row: &LoggedExchange,
    is_http2: bool,
) -> Result<Course, String> {
    if let End::Broken(how) = &seen.end {
        return Err(format!("its answer is no answer: {how}"));
    }
    if matches!(seen.status, 401..=403) {
        return Err(format!("an account's trouble became the client's: {}", seen.status));
    }
    let spent = failures(seen, legs, row, is_http2)?;
    if spent > FAILURES_MAX {
        return Err(format!("it met {spent} failures"));
    }
    let course = course(seen, legs, row, spent)?;
    check_row(course, seen, legs, row, is_http2)?;
    Ok(course)
}

/// How many failures of the budget an exchange met before its answer began.
fn failures(seen: &Seen, legs: &[RequestRecord], row: &LoggedExchange, is_http2: bool) -> Result<u32, String> {
    // A leg whose connection broke before its request was read is known to the gateway only.
    let unread = row.legs.checked_sub(u32::try_from(legs.len()).unwrap());
    let mut spent =
        unread.ok_or_else(|| format!("{} legs reached upstream, {} were recorded", legs.len(), row.legs))?;
    for (number, leg) in legs.iter().enumerate() {
        let is_last = number + 1 == legs.len();
        spent += match fate_of(leg) {
            Fate::Answers if !is_last && !leg.is_cancelled() => {
                return Err("it was tried again although it was answered".to_owned());
            }
            // The machine was slower than the time-outs of this run.
            Fate::Answers => u32::from(!is_last || (leg.is_cancelled() && seen.end == End::FailedAtOnce)),
            Fate::Fails => 1,
            Fate::Breaks { may_be_lost, .. } if !is_last => {
                if !may_be_lost && !is_http2 {
                    return Err("it was tried again after its answer had begun".to_owned());
                }
                1
            }
            Fate::Breaks { may_be_lost, .. } => {
                u32::from((may_be_lost || is_http2) && seen.is_stream && seen.end == End::FailedAtOnce)
            }
            Fate::RefusesRequest if !is_last => {
                return Err("it was tried again although upstream refused the request itself".to_owned());
            }
            Fate::Moves | Fate::RefusesRequest => 0,
        };
    }
    Ok(spent)
}

fn fate_of(leg: &RequestRecord) -> Fate {
    match &leg.script {
        Some(script) => fate(script),
        // Refused before any script: its token had been revoked.
        None => Fate::Moves,
    }
}

/// The law of failing over: a failure that comes at once is one that no healthy account could have served. Two accounts
/// never fail, so only the end of the budget or of the time, or a refusal of the request itself, excuses one. (What is
/// collected for a client that does not stream counts as begun with its first event, as for one that does.)
fn course(seen: &Seen, legs: &[RequestRecord], row: &LoggedExchange, spent: u32) -> Result<Course, String> {
    let last = legs.last().map(fate_of);
    let has_begun = matches!(last, Some(Fate::Breaks { .. })) || legs.last().is_some_and(RequestRecord::is_cancelled);
    match (&seen.end, last) {
        (End::Left, _) => Ok(Course::Left),
        (End::Whole, Some(Fate::Answers)) => Ok(Course::Served { legs_before: row.legs - 1 }),
        (End::FailedInside, _) if has_begun => Ok(Course::BrokeInside),
        (End::FailedAtOnce, Some(Fate::RefusesRequest)) => Ok(Course::RequestRefused),
        (End::FailedAtOnce, _) if spent == FAILURES_MAX => Ok(Course::BudgetSpent),
        (End::FailedAtOnce, _) if has_begun && !seen.is_stream => Ok(Course::BrokeInside),
        (End::FailedAtOnce, _) if row.total_ms >= FAILOVER_DEADLINE_MS => Ok(Course::Late),
        (End::FailedAtOnce, _) => Err(format!("a healthy account could have served it after {spent} failures")),
        (End::Whole | End::FailedInside | End::Broken(_), last) => Err(format!("it ended so on a leg that {last:?}")),
    }
}

/// What was recorded is what happened.
fn check_row(
    course: Course,
    seen: &Seen,
    legs: &[RequestRecord],
    row: &LoggedExchange,
    is_http2: bool,
) -> Result<(), String> {
    let status = match course {
        Course::Served { .. } => "ok",
        Course::BudgetSpent | Course::Late | Course::BrokeInside | Course::RequestRefused => "error",
        Course::Left => return Ok(()),
    };
    if row.status.as_str() != status {
        return Err(format!("it is recorded as {}", row.status.as_str()));
    }
    let last = legs.last().ok_or("nothing reached upstream")?;
    let usage = row.usage.unwrap_or_default();
    match course {
        Course::Served { .. } => {
            let reported = last.usage().map(token_usage);
            if row.usage != reported || row.is_estimated {
                return Err(format!("upstream reported {reported:?}"));
            }
        }
        Course::BrokeInside => {
            let mut seen_at_least = seen.deltas;
            if let Fate::Breaks { deltas, may_be_lost: false } = fate_of(last)
                && !is_http2
            {
                seen_at_least = seen_at_least.max(deltas);
            }
            if !row.is_estimated || usage.output < seen_at_least || usage.input == 0 {
                return Err(format!("{seen_at_least} tokens were seen"));
            }
        }
        Course::BudgetSpent | Course::Late | Course::RequestRefused | Course::Left => {}
    }
    Ok(())
}

/// Upstream's report in the gateway's words.
pub(super) fn token_usage(usage: Usage) -> TokenUsage {
    TokenUsage { input: usage.input, cached_input: usage.cached, output: usage.output, reasoning: usage.reasoning }
}
