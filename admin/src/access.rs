//! Who may do what: the real peer of a request, and the extractors that are permissions.
//!
//! A handler that takes [`Viewer`] or [`Admin`] runs only for somebody who may. People and logins come later; until
//! then both grant the same, and only to somebody who sits at this machine (or has a tunnel to it).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use codex_lb_shared::hop::{HOP_HEADER, is_forwarding_header};
use codex_lb_shared::state::SharedState;
use http::request::Parts;
use http::{HeaderMap, Method, Uri, header};
use tracing::info;

use crate::api_error::ApiError;

/// The way a request came in, which decides whom it is believed to be from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// Our own TCP listener: the peer is the one of the socket.
    Tcp,
    /// The private socket of the data plane: the peer is the one that the signed header names.
    Hop,
}

/// The address at the other end of a TCP connection, as connect info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Who really called, proven by the socket or by the data plane's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Where from.
    pub(crate) ip: IpAddr,
    /// Whether it spoke TLS to us.
    pub(crate) is_tls: bool,
    /// Whether a header says that somebody stands in between.
    pub(crate) was_forwarded: bool,
}

/// May look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer(());

/// May change things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin(());

/// What a page of another origin cannot send without asking first: a header of our own. Every mutation needs it, with
/// any value.
pub const REQUEST_HEADER: &str = "x-codex-lb-request";

/// Middleware: finds out who really called, and lets nobody pretend.
pub(crate) async fn identify(
    State((state, entrance)): State<(Arc<SharedState>, Entrance)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let peer = match entrance {
        Entrance::Tcp => socket_peer(&request)?,
        Entrance::Hop => signed_peer(&state, request.headers())?,
    };
    request.headers_mut().remove(HOP_HEADER);
    request.extensions_mut().insert(peer);
    Ok(next.run(request).await)
}

fn socket_peer(request: &Request) -> Result<Peer, ApiError> {
    if request.headers().contains_key(HOP_HEADER) {
        return Err(ApiError::HopHeader);
    }
    let address = request.extensions().get::<ConnectInfo<PeerAddress>>();
    let ConnectInfo(PeerAddress(address)) = address.ok_or(ApiError::Impossible("a TCP request without its peer"))?;
    let was_forwarded = request.headers().keys().any(|name| is_forwarding_header(name.as_str()));
    Ok(Peer { ip: address.ip().to_canonical(), is_tls: false, was_forwarded })
}

fn signed_peer(state: &SharedState, headers: &HeaderMap) -> Result<Peer, ApiError> {
    let signed = only_text(headers, HOP_HEADER).and_then(|value| state.hop_secret.verify(value));
    let peer = signed.ok_or(ApiError::HopHeader)?;
    Ok(Peer { ip: peer.ip.to_canonical(), is_tls: peer.is_tls, was_forwarded: peer.was_forwarded })
}

/// Middleware: a mutation must come from our own page or from a program, never from a page of another origin. Tells the
/// log of every mutation that succeeded.
pub(crate) async fn guard_mutations(request: Request, next: Next) -> Result<Response, ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(next.run(request).await);
    }
    refuse_foreign_origin(request.headers(), request.uri())?;
    if only_text(request.headers(), REQUEST_HEADER).is_none_or(str::is_empty) {
        return Err(ApiError::NoRequestHeader);
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get::<Peer>().map(|peer| tracing::field::display(peer.ip));
    let response = next.run(request).await;
    if response.status().is_success() {
        info!(%method, path, peer, "something was changed through the control plane");
    }
    Ok(response)
}

fn refuse_foreign_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    if headers.contains_key(header::ORIGIN) {
        let origin = only_text(headers, header::ORIGIN.as_str());
        let authority = origin.and_then(|origin| origin.strip_prefix("http://").or(origin.strip_prefix("https://")));
        let is_own = match (authority, host(headers, uri)) {
            (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
            _ => false,
        };
        if !is_own {
            return Err(ApiError::ForeignOrigin);
        }
    }
    // Old browsers and programs do not send it. What it may say is a closed list, so an unknown word is refused.
    let is_own_site = !headers.contains_key("sec-fetch-site")
        || matches!(only_text(headers, "sec-fetch-site"), Some("same-origin" | "none"));
    if is_own_site { Ok(()) } else { Err(ApiError::ForeignOrigin) }
}

impl FromRequestParts<Arc<SharedState>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<SharedState>) -> Result<Self, ApiError> {
        check_is_here(parts, state).map(|()| Self(()))
    }
}

impl FromRequestParts<Arc<SharedState>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<SharedState>) -> Result<Self, ApiError> {
        check_is_here(parts, state).map(|()| Self(()))
    }
}

/// The peer must be this machine; the `Host` too, or a page could have its own name resolve to us; and nobody may stand
/// in between, or all the world could look like this machine.
fn check_is_here(parts: &Parts, state: &SharedState) -> Result<(), ApiError> {
    let peer = parts.extensions.get::<Peer>().ok_or(ApiError::Impossible("a request without its peer"))?;
    let is_here = peer.ip.is_loopback()
        && !peer.was_forwarded
        && host(&parts.headers, &parts.uri).is_some_and(names_this_machine);
    if is_here { Ok(()) } else { Err(ApiError::LocalOnly { port: state.config.admin.listen.port() }) }
}

/// The authority that the request is for, if all that name one agree.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let of_uri = uri.authority().map(http::uri::Authority::as_str);
    match (headers.contains_key(header::HOST), of_uri) {
        (false, of_uri) => of_uri,
        (true, None) => only_text(headers, header::HOST.as_str()),
        (true, Some(of_uri)) => only_text(headers, header::HOST.as_str()).filter(|host| *host == of_uri),
    }
}

fn names_this_machine(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].into_iter().any(|name| {
        let Some((start, rest)) = host.split_at_checked(name.len()) else { return false };
        let port = rest.strip_prefix(':');
        let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        start.eq_ignore_ascii_case(name) && (rest.is_empty() || port.is_some_and(is_port))
    })
}

/// The header's value, unless it is sent twice: then nobody knows which one the next reader would take.
fn only_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { first.to_str().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_names_of_this_machine_are_here() {
        let here = ["localhost", "LocalHost:2456", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:2455"];
        let elsewhere = [
            "",
            "localhost.",
            "localhost.evil.example",
            "localhost:",
            "localhost:80@evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.11",
            "127.0.0.2",
            "::1",
            "[::2]",
            "192.168.0.2:2456",
            "evil.example:2456",
            "lócalhost",
        ];
        assert!(here.into_iter().all(names_this_machine));
        for host in elsewhere {
            assert!(!names_this_machine(host), "{host}");
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_mutation_of_another_origin_is_refused_whatever_it_looks_like() {
        let own = ("host", "localhost:2456");
        let cases: [(&[_], bool); 13] = [
            (&[own], true),
            (&[own, ("origin", "http://localhost:2456")], true),
            (&[own, ("origin", "https://LOCALHOST:2456"), ("sec-fetch-site", "same-origin")], true),
            (&[own, ("sec-fetch-site", "none")], true),
            (&[own, ("origin", "null")], false),
            (&[own, ("origin", "")], false),
            (&[own, ("origin", "http://localhost:2455")], false),
            (&[own, ("origin", "http://evil.example")], false),
            (&[own, ("origin", "http://localhost:2456"), ("origin", "http://evil.example")], false),
            (&[("origin", "http://localhost:2456")], false),
            (&[own, ("sec-fetch-site", "cross-site")], false),
            (&[own, ("sec-fetch-site", "same-site")], false),
            (&[own, ("origin", "http://localhost:2456"), ("sec-fetch-site", "Same-Origin, none")], false),
        ];
        for (pairs, expected) in cases {
            let outcome = refuse_foreign_origin(&headers(pairs), &Uri::from_static("/api/v1/accounts"));
            assert_eq!(outcome.is_ok(), expected, "{pairs:?}");
        }
    }

    #[test]
    fn the_request_line_and_the_host_header_must_agree() {
        let (relative, absolute) = (Uri::from_static("/x"), Uri::from_static("http://localhost:1/x"));
        assert_eq!(host(&headers(&[("host", "a")]), &relative), Some("a"));
        assert_eq!(host(&headers(&[]), &absolute), Some("localhost:1"));
        assert_eq!(host(&headers(&[("host", "localhost:1")]), &absolute), Some("localhost:1"));
        assert_eq!(host(&headers(&[("host", "evil.example")]), &absolute), None);
        assert_eq!(host(&headers(&[("host", "localhost"), ("host", "evil.example")]), &relative), None);
        assert_eq!(host(&headers(&[]), &relative), None);
    }
}
