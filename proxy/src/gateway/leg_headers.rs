//! The header that goes upstream: an allow-list of the client's, the account's credentials, and who we are.
//!
//! An allow-list, because a deny-list leaks the credentials of whatever sign-on proxy stands in front of us.

use codex_lb_shared::config::UpstreamConfig;
use http::{HeaderMap, HeaderName, Method, header};
use pingora::Result;
use pingora::http::RequestHeader;
use secrecy::ExposeSecret as _;

use crate::leg::LegOrder;

/// Prefixes of headers that go on.
const PREFIXES: [&str; 3] = ["x-codex-", "x-openai-", "x-oai-"];
/// Headers that go on by name: protocol switches and conversation ids.
const NAMES: [&str; 9] = [
    "openai-beta",
    "accept-language",
    "x-client-request-id",
    "session-id",
    "session_id",
    "thread-id",
    "thread_id",
    "conversation-id",
    "conversation_id",
];
/// Headers that tell who a native Codex client is; everybody else goes out under our own name.
const IDENTITY: [&str; 3] = ["originator", "user-agent", "version"];
/// Never sent on although a prefix fits: the first is set per account, the second is ours towards clients.
const NEVER: [&str; 2] = ["x-codex-installation-id", "x-codex-lb-"];

/// Builds the upstream header of a leg.
///
/// # Errors
/// When a configured or stored value is no header value.
pub(super) fn build(
    client: &RequestHeader,
    upstream_version: http::Version,
    order: &LegOrder,
    config: &UpstreamConfig,
) -> Result<RequestHeader> {
    let mut request = RequestHeader::build(order.head.method.clone(), order.path.as_bytes(), Some(24))?;
    request.set_version(upstream_version);
    request.insert_header(header::HOST, &order.authority)?;
    let hop_by_hop = connection_options(&client.headers);
    let is_native = is_native_codex(&client.headers);
    for (name, value) in &client.headers {
        let is_named_hop_by_hop = hop_by_hop.iter().any(|option| name.as_str().eq_ignore_ascii_case(option));
        if !is_named_hop_by_hop && goes_on(name, is_native, &config.forward_headers) {
            request.append_header(name.clone(), value.clone())?;
        }
    }
    if !is_native {
        request.insert_header("originator", config.originator.clone())?;
        request.insert_header(header::USER_AGENT, config.user_agent.clone())?;
    }
    for (name, value) in [(header::ACCEPT, &order.head.accept), (header::CONTENT_TYPE, &order.head.content_type)] {
        if let Some(value) = value {
            request.insert_header(name, value)?;
        }
    }
    // A GET with a length, be it 0, is taken for a mistake by some proxies.
    if order.body_bytes > 0 || order.head.method != Method::GET {
        request.insert_header(header::CONTENT_LENGTH, order.body_bytes)?;
    }
    request.insert_header("x-request-id", order.exchange_id.to_string())?;
    let account = &order.account;
    request.insert_header("x-codex-installation-id", &account.account.installation_id)?;
    request.insert_header("chatgpt-account-id", &account.account.identity.chatgpt_account_id)?;
    let mut bearer =
        http::HeaderValue::from_str(&format!("Bearer {}", account.access_token.expose_secret())).map_err(|_| {
            pingora::Error::explain(pingora::ErrorType::InternalError, "the account's token is no header value")
        })?;
    bearer.set_sensitive(true);
    request.insert_header(header::AUTHORIZATION, bearer)?;
    Ok(request)
}

fn goes_on(name: &HeaderName, is_native: bool, configured: &[HeaderName]) -> bool {
    let text = name.as_str();
    if NEVER.iter().any(|never| text.starts_with(never)) || is_credential(name) {
        return false;
    }
    PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        || NAMES.contains(&text)
        || (is_native && IDENTITY.contains(&text))
        || configured.contains(name)
}

/// Credentials never go on, whatever prefix they hide under and even when they are configured to: a client's own key or
/// account has no business beside a pooled account's token.
fn is_credential(name: &HeaderName) -> bool {
    const WORDS: [&str; 8] = ["authorization", "cookie", "key", "token", "secret", "account", "password", "credential"];
    name.as_str().split(['-', '_']).any(|word| WORDS.contains(&word))
}

/// Header names that the client's `Connection` header declares hop by hop.
fn connection_options(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|option| option.trim().to_owned()).collect()
}

/// Whether the client is of the Codex family: it then keeps its own identity.
fn is_native_codex(headers: &HeaderMap) -> bool {
    let is_codex = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            (value.starts_with("codex_")
                || value.starts_with("codex-")
                || value == "codex"
                || value.starts_with("codex/"))
                && !value.starts_with("codex_lb")
                && !value.starts_with("codex-lb")
        })
    };
    is_codex("originator") && is_codex("user-agent")
}
