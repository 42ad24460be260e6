//! Web pages of other origins: which of them may call, and what their browsers are told. Off unless origins are listed.
//!
//! Source: the fetch standard's "HTTP extensions" (CORS protocol).

use http::{HeaderMap, Method, header};

use crate::relay::Headers;

/// Headers of our answers that a page may read, beside the few that every page may.
const EXPOSED: &str = "x-request-id, retry-after, x-codex-lb-ignored-params, x-codex-lb-dropped, x-codex-turn-state, \
                       openai-model, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, \
                       x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, \
                       x-ratelimit-reset-tokens";
/// How long a browser may remember that it may call, in seconds.
const PREFLIGHT_SECONDS: &str = "600";
/// Longest list of header names that is repeated to a browser.
const REQUESTED_HEADERS_BYTES_MAX: usize = 4_096;

/// The origin of the page that calls, if it may.
pub(crate) fn listed_origin<'h>(headers: &'h HeaderMap, listed: &[String]) -> Option<&'h str> {
    let origin = headers.get(header::ORIGIN)?.to_str().ok()?;
    listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin)).then_some(origin)
}

/// What every answer to this caller says, so that its page may read it.
pub(crate) fn answer_headers(headers: &HeaderMap, listed: &[String]) -> Headers {
    let Some(origin) = listed_origin(headers, listed) else { return Headers::new() };
    vec![
        ("access-control-allow-origin", origin.to_owned()),
        ("access-control-expose-headers", EXPOSED.to_owned()),
        ("vary", "origin".to_owned()),
    ]
}

/// Whether a browser asks whether a page may call.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What the browser of a listed page is told beside [`answer_headers`]: it may use the methods that the path has, and
/// whatever headers it asks for.
pub(crate) fn preflight_headers(headers: &HeaderMap, allow: &str) -> Headers {
    let requested = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    let requested = requested.filter(|names| names.len() <= REQUESTED_HEADERS_BYTES_MAX);
    let mut told = vec![
        ("access-control-allow-methods", allow.to_owned()),
        ("access-control-max-age", PREFLIGHT_SECONDS.to_owned()),
    ];
    told.extend(requested.map(|names| ("access-control-allow-headers", names.to_owned())));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_origin_is_told_anything() {
        let listed = ["https://app.example.com".to_owned()];
        let told = |origin: &str| {
            let headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
            answer_headers(&headers, &listed).first().map(|(_, value)| value.clone())
        };
        assert_eq!(told("https://app.example.com").as_deref(), Some("https://app.example.com"));
        for other in ["https://app.example.com.evil.org", "http://app.example.com", "null", "*", ""] {
            assert_eq!(told(other), None, "{other}");
        }
        assert_eq!(answer_headers(&HeaderMap::new(), &listed), []);
    }
}
