//! The verdict table, row by row.

mod laws;
mod recorded;

use super::*;

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

fn refused(status: u16, body: &str) -> Seen<'_> {
    Seen::Refused { status, retry_after: None, body: body.as_bytes() }
}

fn in_ms(ms: u64) -> Timestamp {
    NOW.plus(Duration::from_millis(ms))
}

#[test]
fn a_leg_without_an_answer_is_a_failure_of_its_account() {
    for seen in [Seen::NoHead, Seen::TimedOut, Seen::EndedEarly] {
        let expected = Verdict { account: AccountEffect::Failure, next: Next::NextAccount, is_server_failure: true };
        assert_eq!(judge(seen, Tried::default(), NOW), expected, "{seen:?}");
    }
}

#[test]
fn nothing_is_tried_twice_that_was_tried_once() {
    let again = Tried { same_account_again: true, ..Tried::default() };
    assert_eq!(judge(refused(500, "{}"), again, NOW).next, Next::NextAccount);
    let fresh = Tried { fresh_token: true, ..Tried::default() };
    let refused_again = Verdict { account: AccountEffect::Failure, next: Next::NextAccount, is_server_failure: false };
    assert_eq!(judge(refused(401, "{}"), fresh, NOW), refused_again);
    let stripped = Tried { without_encrypted_content: true, ..Tried::default() };
    let encrypted = r#"{"error":{"code":"invalid_encrypted_content"}}"#;
    assert_eq!(judge(refused(400, encrypted), stripped, NOW).next, Next::PassOn);
}

#[test]
fn the_third_server_failure_is_the_last() {
    for seen in [Seen::NoHead, Seen::TimedOut, Seen::EndedEarly, refused(503, ""), refused(500, "")] {
        let tried = |server_failures| Tried { server_failures, same_account_again: true, ..Tried::default() };
        assert_eq!(judge(seen, tried(1), NOW).next, Next::NextAccount, "{seen:?}");
        assert_eq!(judge(seen, tried(2), NOW).next, Next::PassOn, "{seen:?}");
    }
    let tried = Tried { server_failures: 2, ..Tried::default() };
    assert_eq!(judge(refused(500, ""), tried, NOW).next, Next::PassOn);
    let beyond = Tried { server_failures: u32::MAX, ..Tried::default() };
    assert_eq!(judge(Seen::NoHead, beyond, NOW).next, Next::PassOn);
}

#[test]
fn only_server_failures_cost_budget() {
    // A pool of many limited, closed or logged-out accounts is walked to its end.
    let tried = Tried { server_failures: 2, fresh_token: true, ..Tried::default() };
    let suspended = r#"{"error":{"code":"account_suspended"}}"#;
    let quota = r#"{"error":{"code":"insufficient_quota"}}"#;
    for seen in [
        refused(429, "{}"),
        refused(429, quota),
        refused(401, "{}"),
        refused(402, "{}"),
        refused(403, suspended),
        refused(403, ""),
    ] {
        let verdict = judge(seen, tried, NOW);
        assert_eq!((verdict.next, counts_as_server_failure(&verdict)), (Next::NextAccount, false), "{seen:?}");
    }
    for seen in [Seen::NoHead, Seen::TimedOut, Seen::EndedEarly, refused(500, ""), refused(503, "")] {
        assert!(counts_as_server_failure(&judge(seen, Tried::default(), NOW)), "{seen:?}");
    }
}

#[test]
fn an_account_sits_out_from_its_third_failure_on() {
    let seconds: Vec<_> = (0..9).map(|failures| back_off(failures).map(|span| span.as_secs())).collect();
    let expected = [None, None, None, Some(30), Some(60), Some(120), Some(240), Some(300), Some(300)];
    assert_eq!(seconds, expected);
    assert_eq!(back_off(u32::MAX), Some(Duration::from_secs(300)));
}

#[test]
fn an_answer_without_its_end_is_a_failure_of_its_account() {
    for broken_off in [BrokenOff::Cut, BrokenOff::Silent] {
        assert_eq!(judge_late(broken_off, NOW), AccountEffect::Failure, "{broken_off:?}");
    }
}

#[test]
fn an_event_that_cannot_be_read_is_upstreams_own_failure() {
    for event in ["", "{", "null", "[]", r#""failed""#, r#"{"type":"response.failed"}"#] {
        let verdict = judge(Seen::FirstEventFailed { event: event.as_bytes() }, Tried::default(), NOW);
        assert_eq!(verdict.next, Next::SameAccount(SAME_ACCOUNT_PAUSE), "{event}");
        assert_eq!(verdict.account, AccountEffect::Failure, "{event}");
    }
}

#[test]
fn an_event_that_says_anything_at_all_is_about_the_request() {
    let odd = [
        r#"{"type":"error","code":"odd"}"#,
        r#"{"type":"error","message":"odd"}"#,
        r#"{"type":"response.failed","response":{"error":{"type":"odd"}}}"#,
    ];
    for event in odd {
        let verdict = judge(Seen::FirstEventFailed { event: event.as_bytes() }, Tried::default(), NOW);
        assert_eq!(
            verdict,
            Verdict { account: AccountEffect::None, next: Next::PassOn, is_server_failure: false },
            "{event}"
        );
    }
}

/// The name that a caller and the request log get.
#[test]
fn an_error_is_called_by_its_code_or_by_the_type_that_tells_more() {
    let cases = [
        (r#"{"error":{"type":"tokens","code":"rate_limit_exceeded"}}"#, "rate_limit_exceeded"),
        (r#"{"error":{"type":"usage_not_included"}}"#, "usage_not_included"),
        (r#"{"error":{"type":"usage_limit_reached","code":"limit_reached"}}"#, "usage_limit_reached"),
        (r#"{"error":{"type":"invalid_request_error","code":"invalid_value"}}"#, "invalid_value"),
        (r#"{"detail":{"code":"deactivated_workspace"}}"#, "deactivated_workspace"),
        (r#"{"detail":"Not Found"}"#, ""),
        ("<html>", ""),
    ];
    for (body, name) in cases {
        assert_eq!(UpstreamError::from_body(body.as_bytes()).name(), name, "{body}");
    }
}
