//! The verdict table: one recorded reply per row, one row per recorded reply.
//!
//! A recording holds a head and a body as they come over the wire: `<status>-<what>.http` is a refusal, `<what>.sse` an
//! answer whose stream begins badly. They were received at [`NOW`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;

/// What follows from each recording, in the order of the verdict table.
fn rows() -> Vec<(&'static str, Verdict)> {
    const HOUR_MS: u64 = 3_600_000;
    vec![
        // The way to the model is broken.
        ("302-login-page.http", next_way()),
        ("408-request-timeout.http", next_way()),
        ("421-misdirected-request.http", next_way()),
        ("425-too-early.http", next_way()),
        ("502-bad-gateway.http", next_way()),
        ("503-rate-limit-exceeded.http", next_way()),
        ("503-server-is-overloaded.http", next_way()),
        ("503-unavailable.http", next_way()),
        ("504-gateway-timeout.http", next_way()),
        ("520-edge-error.http", next_way()),
        ("529-overloaded.http", next_way()),
        ("ended-before-its-first-event.sse", next_way()),
        ("first-event-error-of-status-503.sse", next_way()),
        // Upstream wants to see a person.
        ("403-challenge-page.http", next_account(AccountEffect::Failure)),
        ("403-without-a-body.http", next_account(AccountEffect::Failure)),
        // Upstream stumbled.
        ("500-server-error.http", once_more()),
        ("500-without-a-body.http", once_more()),
        ("first-event-at-capacity-with-an-article.sse", once_more()),
        ("first-event-at-capacity.sse", once_more()),
        ("first-event-error-without-a-reason.sse", once_more()),
        ("first-event-overloaded-error.sse", once_more()),
        ("first-event-overloaded.sse", once_more()),
        ("first-event-server-error.sse", once_more()),
        ("first-event-server-is-overloaded.sse", once_more()),
        ("first-event-slow-down.sse", once_more()),
        ("first-event-without-a-reason.sse", once_more()),
        // The account is limited for a while.
        ("429-code-beside-another-type.http", limited(7_000)),
        ("429-plain-text.http", limited(30_000)),
        ("429-resets-at-no-number.http", limited(30_000)),
        ("429-resets-before-it-was-sent.http", limited(30_000)),
        ("429-resets-beyond-all-bounds.http", limited(30_000)),
        ("429-resets-in-milliseconds.http", limited(30_000)),
        ("429-resets-in-ten-years.http", limited(30_000)),
        ("429-resets-in-the-past.http", limited(3_000)),
        ("429-resets-now.http", limited(30_000)),
        ("429-retry-after-date.http", limited(120_000)),
        ("429-retry-after-seconds.http", limited(7_000)),
        ("429-server-is-overloaded.http", limited(5_000)),
        ("429-try-again-in-seconds.http", limited(1_300)),
        ("429-try-again-in-words.http", limited(3_723_500)),
        ("429-usage-limit-reached-in.http", limited(120_500)),
        ("429-usage-limit-reached-with-another-code.http", limited(120_000)),
        ("429-usage-limit-reached.http", limited(60_000)),
        ("429-without-a-hint.http", limited(30_000)),
        ("first-event-error-of-status-429-with-a-number.sse", limited(9_000)),
        ("first-event-error-of-status-429-with-headers.sse", limited(7_000)),
        ("first-event-error-of-status-429.sse", limited(60_000)),
        ("first-event-error.sse", limited(20)),
        ("first-event-rate-limit-exceeded.sse", limited(11_054)),
        ("first-event-usage-limit-reached.sse", limited(120_000)),
        // Its quota is used up.
        ("429-insufficient-quota.http", used_up(HOUR_MS)),
        ("429-quota-exceeded-in-ten-years.http", used_up(HOUR_MS)),
        ("429-quota-exceeded.http", used_up(72 * HOUR_MS)),
        ("429-type-beside-another-code.http", used_up(90_000)),
        ("429-usage-not-included.http", used_up(60_000)),
        ("first-event-insufficient-quota.sse", used_up(HOUR_MS)),
        ("first-event-quota-exceeded.sse", used_up(2 * HOUR_MS)),
        ("first-event-usage-not-included.sse", used_up(HOUR_MS)),
        // Its token is refused.
        ("401-token-expired.http", fresh_token()),
        ("401-token-invalidated.http", fresh_token()),
        ("401-token-revoked.http", fresh_token()),
        ("401-unauthorized.http", fresh_token()),
        ("first-event-error-of-status-401.sse", fresh_token()),
        ("first-event-token-expired.sse", fresh_token()),
        // It is closed, or not paid for.
        ("401-account-deactivated.http", closed("account_deactivated")),
        ("402-deactivated-workspace.http", closed("deactivated_workspace")),
        ("402-payment-required.http", next_account(AccountEffect::Failure)),
        ("403-account-deleted.http", closed("account_deleted")),
        ("403-account-suspended.http", closed("account_suspended")),
        ("first-event-account-deactivated.sse", closed("account_deactivated")),
        // Another account made what the body holds.
        ("400-encrypted-content-could-not-be-verified.http", foreign_content()),
        ("400-invalid-encrypted-content-in-its-text.http", foreign_content()),
        ("400-invalid-encrypted-content.http", foreign_content()),
        ("first-event-invalid-encrypted-content.sse", foreign_content()),
        // It does not serve this model.
        ("400-model-not-supported.http", next_account(AccountEffect::ModelUnsupported)),
        ("first-event-model-not-supported.sse", next_account(AccountEffect::ModelUnsupported)),
        // The request is at fault, whoever serves it.
        ("400-context-length-exceeded.http", passed_on()),
        ("400-identity-could-not-be-verified.http", passed_on()),
        ("400-item-not-found.http", passed_on()),
        ("400-stream-must-be-true.http", passed_on()),
        ("400-unsupported-parameter.http", passed_on()),
        ("400-validation-list.http", passed_on()),
        ("400-parameter-that-quotes.http", passed_on()),
        ("400-quotes-a-capacity.http", passed_on()),
        ("400-quotes-an-unsupported-model.http", passed_on()),
        ("403-forbidden.http", passed_on()),
        ("404-not-found.http", passed_on()),
        ("409-conflict.http", passed_on()),
        ("413-payload-too-large.http", passed_on()),
        ("422-unprocessable.http", passed_on()),
        ("first-event-context-length-exceeded.sse", passed_on()),
        ("first-event-error-about-the-request.sse", passed_on()),
        ("first-event-error-of-status-400.sse", passed_on()),
        ("first-event-invalid-prompt.sse", passed_on()),
    ]
}

fn next_way() -> Verdict {
    Verdict { account: AccountEffect::Failure, next: Next::NextAccount, is_server_failure: true }
}

fn once_more() -> Verdict {
    let next = Next::SameAccount(Duration::from_millis(200));
    Verdict { account: AccountEffect::Failure, next, is_server_failure: true }
}

fn next_account(account: AccountEffect) -> Verdict {
    Verdict { account, next: Next::NextAccount, is_server_failure: false }
}

fn limited(ms: u64) -> Verdict {
    next_account(AccountEffect::RateLimited(in_ms(ms)))
}

fn used_up(ms: u64) -> Verdict {
    next_account(AccountEffect::QuotaExceeded(in_ms(ms)))
}

fn closed(code: &'static str) -> Verdict {
    next_account(AccountEffect::Deactivated(code))
}

fn unharmed(next: Next) -> Verdict {
    Verdict { account: AccountEffect::None, next, is_server_failure: false }
}

fn fresh_token() -> Verdict {
    unharmed(Next::SameAccountWithFreshToken)
}

fn foreign_content() -> Verdict {
    unharmed(Next::SameAccountWithoutEncryptedContent)
}

fn passed_on() -> Verdict {
    unharmed(Next::PassOn)
}

/// A reply as it came over the wire.
struct Recording {
    status: u16,
    retry_after: Option<String>,
    body: String,
    /// The data of its first failure event.
    failure: Option<String>,
}

impl Recording {
    fn read(wire: &str) -> Self {
        let (head, body) = wire.split_once("\n\n").unwrap_or((wire.trim_end(), ""));
        let (status_line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let retry_after = headers.lines().find_map(|line| line.strip_prefix("retry-after: "));
        let is_failure =
            |event: &&str| ["event: response.failed\n", "event: error\n"].iter().any(|of| event.starts_with(of));
        let failure = body.split("\n\n").find(is_failure).and_then(|event| event.split_once("data: "));
        Self {
            status,
            retry_after: retry_after.map(str::to_owned),
            body: body.to_owned(),
            failure: failure.map(|(_, data)| data.to_owned()),
        }
    }

    fn seen(&self) -> Seen<'_> {
        match &self.failure {
            _ if self.status != 200 => Seen::Refused {
                status: self.status,
                retry_after: self.retry_after.as_deref(),
                body: self.body.as_bytes(),
            },
            Some(event) => Seen::FirstEventFailed { event: event.as_bytes() },
            None => Seen::EndedEarly,
        }
    }
}

/// All recordings by the names of their files.
fn recordings() -> BTreeMap<String, Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded");
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, Recording::read(&fs::read_to_string(path).unwrap()))
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

#[test]
fn every_recorded_reply_has_its_verdict() {
    let recordings = recordings();
    let mut wrong = Vec::new();
    for (name, expected) in rows() {
        let recording = recordings.get(name).unwrap_or_else(|| panic!("there is no recording {name}"));
        let verdict = judge(recording.seen(), Tried::default(), NOW);
        if verdict != expected {
            wrong.push(format!("{name}: {verdict:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_recording_has_one_row() {
    let mut listed: Vec<&str> = rows().into_iter().map(|(name, _)| name).collect();
    listed.sort_unstable();
    let recordings = recordings();
    let recorded: Vec<&str> = recordings.keys().map(String::as_str).collect();
    assert_eq!(listed, recorded);
}

/// What a name of a recording says of its status is true, and an event is one that a stream begins with.
#[test]
fn recordings_are_what_they_are_called() {
    for (name, recording) in recordings() {
        let (what, kind) = name.rsplit_once('.').unwrap();
        match kind {
            "http" => assert!(what.starts_with(&format!("{}-", recording.status)), "{name}"),
            "sse" => {
                assert_eq!(recording.status, 200, "{name}");
                assert_eq!(recording.failure.is_some(), what.starts_with("first-event-"), "{name}");
            }
            other => panic!("{name}: {other}"),
        }
    }
}

/// The account has done the same, whatever this exchange tried before and however late it was told.
#[test]
fn the_account_is_judged_alike_early_and_late() {
    for (name, recording) in recordings() {
        let at_first = judge(recording.seen(), Tried::default(), NOW).account;
        let again =
            Tried { same_account_again: true, without_encrypted_content: true, server_failures: 2, fresh_token: false };
        assert_eq!(judge(recording.seen(), again, NOW).account, at_first, "{name}");
        if let Seen::FirstEventFailed { event } = recording.seen() {
            assert_eq!(judge_late(BrokenOff::Failed { event }, NOW), at_first, "{name}");
        }
    }
}
