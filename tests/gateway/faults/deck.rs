//! What the failing accounts answer: a deck of every behaviour that upstream is known for, and what each of them means
//! for an exchange, worked out from the specification and not from the gateway's code.

use fake_chatgpt::{Answer, Script, SilencePlace, UnauthorizedReason};

use super::dice::Dice;

/// A silence that no exchange waits for.
const FOR_EVER: Option<u64> = None;

/// What a leg that met a script means for its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It answers to its end.
    Answers,
    /// The account is limited, gone, challenged or logged out: it is refreshed or another one is asked, at no cost.
    Moves,
    /// A server error or a time-out before the answer began. Three of them end an exchange.
    Fails,
    /// The answer begins, and breaks after at least so many deltas.
    Breaks {
        /// How many deltas are sent before.
        deltas: u64,
        /// The network may swallow what was sent, so that nothing seems to have begun.
        may_be_lost: bool,
    },
    /// Upstream refuses the request itself, which no other account would serve.
    RefusesRequest,
}

/// Every behaviour of a failing account, with good answers in between.
pub(super) fn deck(dice: &mut Dice) -> Vec<Script> {
    let mut deck = limits();
    deck.extend(refusals());
    deck.extend(failures());
    deck.extend(silences());
    deck.extend(broken_streams(dice));
    deck.extend((0..16).map(|_| Script::Auto));
    deck.extend((0..6).map(|_| slow_answer(dice)));
    for reason in ["max_output_tokens", "content_filter"] {
        deck.push(Script::Incomplete { reason: reason.to_owned(), answer: Answer::default() });
    }
    dice.shuffle(&mut deck);
    deck
}

/// An answer that keeps its account busy for a while.
pub(super) fn slow_answer(dice: &mut Dice) -> Script {
    Script::Answer(Answer {
        text_tokens: 4 + dice.below(12),
        tokens_per_second: Some(60.0),
        reasoning: dice.percent(30),
        ..Answer::default()
    })
}

fn limits() -> Vec<Script> {
    let mut deck = vec![Script::usage_limit(1), Script::usage_limit(2), Script::UsageNotIncluded];
    for message in [None, Some("Please try again in 20ms."), Some("Try again in 1h 2m."), Some("Slow down.")] {
        deck.push(Script::RateLimited { message: message.map(str::to_owned), retry_after: None });
    }
    for retry_after in ["1", "0.5", "Wed, 21 Oct 2065 07:28:00 GMT"] {
        let message = Some("Slow down.".to_owned());
        deck.push(Script::RateLimited { message, retry_after: Some(retry_after.to_owned()) });
    }
    for code in ["rate_limit_exceeded", "usage_limit_reached", "insufficient_quota", "usage_not_included"] {
        deck.push(first_event(code, "Please try again in 1s."));
    }
    deck
}

fn refusals() -> Vec<Script> {
    let reasons = [
        UnauthorizedReason::TokenInvalidated,
        UnauthorizedReason::TokenExpired,
        UnauthorizedReason::TokenRevoked,
        UnauthorizedReason::Detail,
    ];
    let mut deck: Vec<Script> = reasons.map(|reason| Script::Unauthorized { reason }).to_vec();
    deck.push(Script::DeactivatedWorkspace);
    deck.push(first_event("account_deactivated", "This account is closed."));
    deck.push(raw(400, "application/json", r#"{"detail":"Unsupported parameter: xyz"}"#));
    deck.push(first_event("invalid_prompt", "The prompt was refused."));
    deck
}

fn failures() -> Vec<Script> {
    let mut deck = Vec::new();
    for (status, html) in [(500, false), (502, true), (503, false), (503, true), (504, true), (529, false)] {
        deck.push(Script::ServerError { status, html, code: None, message: None, retry_after: None });
    }
    let overloaded = Some("server_is_overloaded".to_owned());
    deck.push(Script::ServerError {
        status: 503,
        html: false,
        code: overloaded,
        message: None,
        retry_after: Some("1".into()),
    });
    for code in ["server_error", "server_is_overloaded", "slow_down"] {
        deck.push(first_event(code, "The server had an error."));
    }
    deck.push(first_event("other", "The selected model is at capacity."));
    deck.push(raw(403, "text/html", "<html><title>Just a moment...</title></html>"));
    deck.push(raw(200, "text/event-stream", ": nothing comes after this\n\n"));
    deck.push(Script::CutBeforeHead);
    deck
}

fn silences() -> Vec<Script> {
    let places =
        [SilencePlace::BeforeHead, SilencePlace::AfterHead, SilencePlace::AfterEvents(1), SilencePlace::AfterEvents(6)];
    let silence = |duration_ms| move |place| Script::Silence { place, duration_ms };
    places.map(silence(FOR_EVER)).into_iter().chain(places.map(silence(Some(150)))).collect()
}

fn broken_streams(dice: &mut Dice) -> Vec<Script> {
    let mut deck = Vec::new();
    for code in ["server_error", "rate_limit_exceeded", "usage_limit_reached"] {
        let message = "It broke in the middle.".to_owned();
        deck.push(Script::FailMidStream { after_deltas: 1 + dice.below(20), code: code.to_owned(), message });
    }
    for reset in [false, true] {
        deck.push(Script::CutMidStream { after_deltas: 1 + dice.below(20), reset });
    }
    deck
}

fn first_event(code: &str, message: &str) -> Script {
    Script::FirstEventFailure { code: code.to_owned(), message: message.to_owned() }
}

fn raw(status: u16, content_type: &str, body: &str) -> Script {
    let headers = vec![("content-type".to_owned(), content_type.to_owned())];
    Script::Raw { status, headers, body: body.to_owned() }
}

/// A name for a script; the same for scripts that differ in a rolled number only.
pub(super) fn kind(script: &Script) -> String {
    if let Script::FailMidStream { code, .. } = script {
        format!("FailMidStream {code}")
    } else if let Script::CutMidStream { reset, .. } = script {
        format!("CutMidStream, reset: {reset}")
    } else if let Script::Answer(_) = script {
        "Answer".to_owned()
    } else {
        format!("{script:?}")
    }
}

/// What a script means for an exchange.
pub(super) fn fate(script: &Script) -> Fate {
    match script {
        Script::Auto | Script::Answer(_) | Script::EchoShellTool { .. } | Script::Incomplete { .. } => Fate::Answers,
        Script::Silence { duration_ms: Some(_), .. } => Fate::Answers,
        Script::UsageLimit { .. }
        | Script::UsageNotIncluded
        | Script::RateLimited { .. }
        | Script::DeactivatedWorkspace
        | Script::Unauthorized { .. }
        | Script::Raw { status: 403, .. } => Fate::Moves,
        Script::ServerError { .. } | Script::CutBeforeHead => Fate::Fails,
        Script::FirstEventFailure { code, message } => match code.as_str() {
            "rate_limit_exceeded" | "usage_limit_reached" | "insufficient_quota" | "usage_not_included" => Fate::Moves,
            "account_deactivated" => Fate::Moves,
            "server_error" | "server_is_overloaded" | "slow_down" => Fate::Fails,
            _ if message.contains("at capacity") => Fate::Fails,
            _ => Fate::RefusesRequest,
        },
        Script::Raw { status: 400, .. } => Fate::RefusesRequest,
        Script::Raw { .. } => Fate::Fails,
        Script::FailMidStream { after_deltas, .. } => Fate::Breaks { deltas: *after_deltas, may_be_lost: false },
        Script::CutMidStream { after_deltas, reset } => Fate::Breaks { deltas: *after_deltas, may_be_lost: *reset },
        Script::Silence { duration_ms: None, place } => match place {
            // `created`, `in_progress`, two events that open the message, then its deltas.
            SilencePlace::AfterEvents(events) if *events > 2 => {
                Fate::Breaks { deltas: events.saturating_sub(4), may_be_lost: false }
            }
            SilencePlace::BeforeHead | SilencePlace::AfterHead | SilencePlace::AfterEvents(_) => Fate::Fails,
        },
    }
}
