//! The verdict table, row by row.

use super::*;

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

fn refused(status: u16, body: &str) -> Seen<'_> {
    Seen::Refused { status, retry_after: None, body: body.as_bytes() }
}

fn failed(event: &str) -> Seen<'_> {
    Seen::FirstEventFailed { event: event.as_bytes() }
}

fn in_ms(ms: u64) -> Timestamp {
    NOW.plus(Duration::from_millis(ms))
}

/// One row per promise of the verdict table: what upstream sent, and what follows.
#[test]
fn every_reply_has_its_verdict() {
    use AccountEffect as A;
    use Next as N;
    let usage_limit = r#"{"error":{"type":"usage_limit_reached","message":"The usage limit has been reached","plan_type":"plus","resets_at":1700000060,"resets_in_seconds":9999}}"#;
    let usage_limit_in = r#"{"error":{"type":"usage_limit_reached","message":"x","resets_in_seconds":120}}"#;
    let try_again = r#"{"error":{"type":"tokens","code":"rate_limit_exceeded","message":"Rate limit reached. Please try again in 1.3s."}}"#;
    let quota = r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota","message":"You exceeded"}}"#;
    let not_included = r#"{"error":{"type":"usage_not_included","message":"x","resets_in_seconds":60}}"#;
    let suspended = r#"{"error":{"code":"account_suspended","message":"x"}}"#;
    let encrypted =
        r#"{"error":{"message":"x","type":"invalid_request_error","param":null,"code":"invalid_encrypted_content"}}"#;
    let encrypted_by_text = r#"{"error":{"message":"The encrypted content gAAA could not be verified.","code":null}}"#;
    let unsupported = r#"{"detail":"The 'gpt-x' model is not supported when using Codex with a ChatGPT account."}"#;
    let overloaded = r#"{"error":{"code":"server_is_overloaded","message":"x"}}"#;
    let failed_limit = r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"try again in 20ms"}}}"#;
    let failed_server = r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"x"}}}"#;
    let failed_capacity = r#"{"type":"error","error":{"message":"Selected model is at capacity."}}"#;
    let failed_context =
        r#"{"type":"response.failed","response":{"error":{"code":"context_length_exceeded","message":"x"}}}"#;
    let cases = [
        ("no connection", Seen::NoHead, A::Failure, N::NextAccount),
        ("time-out", Seen::TimedOut, A::Failure, N::NextAccount),
        ("ended after its head", Seen::EndedEarly, A::Failure, N::NextAccount),
        ("500", refused(500, "{}"), A::Failure, N::SameAccount(SAME_ACCOUNT_PAUSE)),
        ("502", refused(502, "<html>"), A::Failure, N::NextAccount),
        ("503", refused(503, "{}"), A::Failure, N::NextAccount),
        ("503 overloaded", refused(503, overloaded), A::Failure, N::NextAccount),
        ("504", refused(504, ""), A::Failure, N::NextAccount),
        ("429 with resets_at", refused(429, usage_limit), A::RateLimited(in_ms(60_000)), N::NextAccount),
        ("429 with resets_in", refused(429, usage_limit_in), A::RateLimited(in_ms(120_000)), N::NextAccount),
        ("429 with words", refused(429, try_again), A::RateLimited(in_ms(1_300)), N::NextAccount),
        ("429 bare", refused(429, "slow down"), A::RateLimited(in_ms(30_000)), N::NextAccount),
        ("insufficient quota", refused(429, quota), A::QuotaExceeded(in_ms(3_600_000)), N::NextAccount),
        ("usage not included", refused(429, not_included), A::QuotaExceeded(in_ms(60_000)), N::NextAccount),
        ("401", refused(401, r#"{"detail":"Unauthorized"}"#), A::None, N::SameAccountWithFreshToken),
        ("suspended", refused(403, suspended), A::Deactivated("account_suspended"), N::NextAccount),
        (
            "closed workspace",
            refused(402, r#"{"detail":{"code":"deactivated_workspace"}}"#),
            A::Deactivated("deactivated_workspace"),
            N::NextAccount,
        ),
        ("foreign reasoning", refused(400, encrypted), A::None, N::SameAccountWithoutEncryptedContent),
        ("foreign reasoning, by text", refused(400, encrypted_by_text), A::None, N::SameAccountWithoutEncryptedContent),
        ("challenge page", refused(403, "<html>Just a moment</html>"), A::Failure, N::NextAccount),
        ("model not on the plan", refused(400, unsupported), A::ModelUnsupported, N::NextAccount),
        ("400", refused(400, r#"{"error":{"code":"invalid_value","message":"x"}}"#), A::None, N::PassOn),
        ("403 json", refused(403, r#"{"error":{"message":"x"}}"#), A::None, N::PassOn),
        ("404", refused(404, "{}"), A::None, N::PassOn),
        ("413", refused(413, "{}"), A::None, N::PassOn),
        ("event: limited", failed(failed_limit), A::RateLimited(in_ms(20)), N::NextAccount),
        ("event: server error", failed(failed_server), A::Failure, N::SameAccount(SAME_ACCOUNT_PAUSE)),
        ("event: at capacity", failed(failed_capacity), A::Failure, N::SameAccount(SAME_ACCOUNT_PAUSE)),
        ("event: context", failed(failed_context), A::None, N::PassOn),
    ];
    for (name, seen, account, next) in cases {
        assert_eq!(judge(seen, Tried::default(), NOW), Verdict { account, next }, "{name}");
    }
}

#[test]
fn retry_after_serves_when_the_body_names_no_end() {
    let seen = Seen::Refused { status: 429, retry_after: Some("7"), body: b"{}" };
    assert_eq!(judge(seen, Tried::default(), NOW).account, AccountEffect::RateLimited(in_ms(7_000)));
}

#[test]
fn a_reset_in_the_past_is_not_believed() {
    let body = r#"{"error":{"type":"usage_limit_reached","resets_at":5,"resets_in_seconds":3}}"#;
    assert_eq!(judge(refused(429, body), Tried::default(), NOW).account, AccountEffect::RateLimited(in_ms(3_000)));
}

#[test]
fn nothing_is_tried_twice_that_was_tried_once() {
    let again = Tried { same_account_again: true, ..Tried::default() };
    assert_eq!(judge(refused(500, "{}"), again, NOW).next, Next::NextAccount);
    let fresh = Tried { fresh_token: true, ..Tried::default() };
    let refused_again = Verdict { account: AccountEffect::Failure, next: Next::NextAccount };
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
    // Limits cost no budget: a pool of many used-up accounts is walked to its end.
    let tried = Tried { server_failures: 2, ..Tried::default() };
    assert_eq!(judge(refused(429, "{}"), tried, NOW).next, Next::NextAccount);
}

#[test]
fn an_account_sits_out_from_its_third_failure_on() {
    let seconds: Vec<_> = (0..9).map(|failures| back_off(failures).map(|span| span.as_secs())).collect();
    let expected = [None, None, None, Some(30), Some(60), Some(120), Some(240), Some(300), Some(300)];
    assert_eq!(seconds, expected);
    assert_eq!(back_off(u32::MAX), Some(Duration::from_secs(300)));
}

#[test]
fn an_account_answers_for_an_answer_that_broke_off() {
    use AccountEffect as A;
    let failed = |event: &'static str| BrokenOff::Failed { event: event.as_bytes() };
    let cases = [
        ("cut", BrokenOff::Cut, A::Failure),
        ("silent", BrokenOff::Silent, A::Failure),
        (
            "limited",
            failed(
                r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Please try again in 2s."}}}"#,
            ),
            A::RateLimited(in_ms(2_000)),
        ),
        (
            "used up",
            failed(r#"{"type":"response.failed","response":{"error":{"code":"insufficient_quota","message":"x"}}}"#),
            A::QuotaExceeded(in_ms(3_600_000)),
        ),
        (
            "closed",
            failed(r#"{"type":"error","error":{"code":"account_deactivated","message":"x"}}"#),
            A::Deactivated("account_deactivated"),
        ),
        (
            "overloaded",
            failed(r#"{"type":"response.failed","response":{"error":{"code":"server_is_overloaded","message":"x"}}}"#),
            A::Failure,
        ),
        (
            "about the request",
            failed(
                r#"{"type":"response.failed","response":{"error":{"code":"context_length_exceeded","message":"x"}}}"#,
            ),
            A::None,
        ),
        ("without a reason", failed(r#"{"type":"response.failed","response":{"error":null}}"#), A::None),
        ("unreadable", failed("{"), A::None),
    ];
    for (name, broken_off, expected) in cases {
        assert_eq!(judge_late(broken_off, NOW), expected, "{name}");
    }
}
