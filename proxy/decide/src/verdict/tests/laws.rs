//! What holds of every reply.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A reply of any kind: what a leg saw, with what it borrows.
#[derive(Clone, Debug)]
enum Reply {
    NoHead,
    TimedOut,
    EndedEarly,
    Refused { status: u16, retry_after: Option<String>, body: Vec<u8> },
    FailedEvent(Vec<u8>),
}

impl Reply {
    fn seen(&self) -> Seen<'_> {
        match self {
            Self::NoHead => Seen::NoHead,
            Self::TimedOut => Seen::TimedOut,
            Self::EndedEarly => Seen::EndedEarly,
            Self::Refused { status, retry_after, body } => {
                Seen::Refused { status: *status, retry_after: retry_after.as_deref(), body }
            }
            Self::FailedEvent(event) => Seen::FirstEventFailed { event },
        }
    }
}

fn any_seconds() -> impl Strategy<Value = f64> {
    let now = NOW.as_unix_seconds() as f64;
    prop_oneof![
        any::<f64>(),
        -10.0..100.0,
        (-10.0..100.0).prop_map(move |seconds| now + seconds),
        prop::sample::select(vec![0.0, -0.0, now, now * 1_000.0, 32.0 * 86_400.0, 1e300, f64::MAX]),
    ]
}

prop_compose! {
    fn any_error()(
        name in prop::sample::select(vec![
            "", "usage_limit_reached", "rate_limit_exceeded", "insufficient_quota", "account_deleted", "server_error",
            "token_expired", "invalid_encrypted_content", "context_length_exceeded",
        ]),
        message in prop_oneof![
            Just(String::new()),
            Just("Selected model is at capacity.".to_owned()),
            any_seconds().prop_map(|seconds| format!("Please try again in {seconds}s.")),
            any::<String>(),
        ],
        resets_at in prop::option::of(any_seconds()),
        resets_in in prop::option::of(any_seconds()),
        status in prop::option::of(200_u16..600),
    ) -> serde_json::Value {
        let error = json!({"code": name, "message": message, "resets_at": resets_at, "resets_in_seconds": resets_in});
        json!({"type": "error", "status": status, "error": error})
    }
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => any_error().prop_map(|error| error.to_string().into_bytes()), 1 => any::<Vec<u8>>()]
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let retry_after =
        prop::option::of(prop_oneof![any_seconds().prop_map(|seconds| seconds.to_string()), any::<String>()]);
    let status = prop_oneof![300_u16..600, prop::sample::select(vec![400, 401, 402, 403, 429, 500, 503])];
    prop_oneof![
        1 => prop::sample::select(vec![Reply::NoHead, Reply::TimedOut, Reply::EndedEarly]),
        6 => (status, retry_after, any_bytes())
            .prop_map(|(status, retry_after, body)| Reply::Refused { status, retry_after, body }),
        3 => any_bytes().prop_map(Reply::FailedEvent),
    ]
}

fn any_tried() -> impl Strategy<Value = Tried> {
    (any::<[bool; 3]>(), 0_u32..5).prop_map(
        |([same_account_again, fresh_token, without_encrypted_content], failures)| Tried {
            same_account_again,
            fresh_token,
            without_encrypted_content,
            server_failures: failures,
        },
    )
}

proptest! {
    #[test]
    fn a_limit_ends_after_now_and_within_a_month(reply in any_reply(), tried in any_tried()) {
        match judge(reply.seen(), tried, NOW).account {
            AccountEffect::RateLimited(until) | AccountEffect::QuotaExceeded(until) => {
                prop_assert!(NOW < until && until <= NOW.plus(Duration::from_secs(32 * 86_400)), "{until:?}");
            }
            AccountEffect::None
            | AccountEffect::Failure
            | AccountEffect::Deactivated(_)
            | AccountEffect::ModelUnsupported => {}
        }
    }

    /// A caller would throw its own login away.
    #[test]
    fn a_refused_login_or_payment_does_not_end_the_search(status in 401_u16..=402, body in any_bytes()) {
        let seen = Seen::Refused { status, retry_after: None, body: &body };
        for fresh_token in [false, true] {
            prop_assert_ne!(judge(seen, Tried { fresh_token, ..Tried::default() }, NOW).next, Next::PassOn);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever upstream answers: nothing is tried for ever, and server failures end the search.
    #[test]
    fn a_search_ends(replies in prop::collection::vec(any_reply(), 24)) {
        const ACCOUNTS: usize = 8;
        let mut replies = replies.iter().cycle();
        let (mut legs, mut tried) = (0, Tried::default());
        'search: for _ in 0..ACCOUNTS {
            (tried.same_account_again, tried.fresh_token) = (false, false);
            loop {
                legs += 1;
                let verdict = judge(replies.next().unwrap().seen(), tried, NOW);
                tried.server_failures += u32::from(counts_as_server_failure(&verdict));
                match verdict.next {
                    Next::SameAccount(_) => tried.same_account_again = true,
                    Next::SameAccountWithFreshToken => tried.fresh_token = true,
                    Next::SameAccountWithoutEncryptedContent => tried.without_encrypted_content = true,
                    Next::NextAccount => break,
                    Next::PassOn => break 'search,
                }
            }
        }
        prop_assert!(tried.server_failures <= SERVER_FAILURES_MAX);
        // At most one more leg for each account's token, and few for the whole exchange.
        prop_assert!(legs <= 2 * ACCOUNTS + 1 + SERVER_FAILURES_MAX as usize, "{legs} legs");
    }
}
