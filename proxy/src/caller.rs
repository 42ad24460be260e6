//! Proves who calls: an api key that we issued, or a peer that may call without one.
//!
//! There is one answer for unknown, expired and disabled keys. Web pages must not profit from a keyless gateway on
//! somebody's own machine, so the keyless rule also looks at what a browser cannot forge.

use std::net::IpAddr;
use std::sync::Arc;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::config::Config;
use codex_lb_shared::domain::api_key::{ApiKey, ApiKeyHash, SECRET_PREFIX};
use codex_lb_shared::domain::settings::KeylessAccess;
use codex_lb_shared::hop::is_forwarding_header;
use codex_lb_shared::ids::ApiKeyId;
use codex_lb_shared::state::SharedState;
use http::HeaderMap;
use ipnet::IpNet;
use pingora_proxy::Session;

use crate::cors;
use crate::rejection::Rejection;

/// A caller that may come in.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Proven by an api key.
    ApiKey(Arc<ApiKey>),
    /// Let in without one.
    Keyless {
        /// Where from.
        peer: IpAddr,
    },
}

impl Caller {
    /// The api key, if there is one.
    pub(crate) fn api_key_id(&self) -> Option<ApiKeyId> {
        match self {
            Self::ApiKey(key) => Some(key.id),
            Self::Keyless { .. } => None,
        }
    }

    /// What separates this caller's conversations and ids from everybody else's.
    pub(crate) fn scope(&self) -> String {
        match self {
            Self::ApiKey(key) => format!("key:{}", key.id),
            Self::Keyless { peer } => format!("keyless:{peer}"),
        }
    }
}

/// Proves the caller of a request.
///
/// # Errors
/// 401 with what to do; 503 when an unseen key cannot be checked because the database is away.
pub(crate) async fn prove(
    state: &SharedState,
    headers: &HeaderMap,
    socket_peer: Option<IpAddr>,
    now: Timestamp,
) -> Result<Caller, Rejection> {
    let access = state.settings.load().access.clone();
    if let Some(presented) = presented_key(headers) {
        let found = state.api_keys.find(ApiKeyHash::of(presented)).await;
        let found = found.map_err(|error| {
            state.note_database_error(&error);
            Rejection::database_away()
        })?;
        match found {
            Some(key) if key.is_usable_at(now) => return Ok(Caller::ApiKey(key)),
            Some(_) => return Err(Rejection::invalid_api_key()),
            // A key of ours that nobody issued is a mistake worth telling even while keys are optional.
            None if access.api_key_auth || presented.starts_with(SECRET_PREFIX) => {
                return Err(Rejection::invalid_api_key());
            }
            None => {}
        }
    }
    if access.api_key_auth {
        return Err(Rejection::api_key_required("This gateway needs an API key."));
    }
    let facts = KeylessFacts::read(headers, socket_peer, &state.config);
    facts.judge(access.keyless_access, &state.config.proxy.host_names).map_err(Rejection::api_key_required)?;
    facts.effective_peer.map(|peer| Caller::Keyless { peer }).ok_or_else(Rejection::internal)
}

/// The address at the other end of the client's socket.
pub(crate) fn socket_peer(session: &Session) -> Option<IpAddr> {
    session.client_addr()?.as_inet().map(|address| address.ip())
}

/// The key in `Authorization: Bearer`, `x-api-key` or `api-key`.
fn presented_key(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let named = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    bearer.or_else(|| named("x-api-key")).or_else(|| named("api-key")).filter(|key| !key.is_empty())
}

/// What the keyless rule looks at.
#[derive(Debug, Default)]
struct KeylessFacts {
    effective_peer: Option<IpAddr>,
    is_forwarded_by_stranger: bool,
    host: Option<String>,
    has_foreign_origin: bool,
    is_cross_site: bool,
}

impl KeylessFacts {
    fn read(headers: &HeaderMap, socket_peer: Option<IpAddr>, config: &Config) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let socket_peer = socket_peer.map(|ip| ip.to_canonical());
        let is_forwarded = headers.keys().any(|name| is_forwarding_header(name.as_str()));
        let trusted = &config.proxy.trusted_proxies;
        let is_trusted = |ip: &IpAddr| trusted.iter().any(|range: &IpNet| range.contains(ip));
        let comes_from_trusted = socket_peer.as_ref().is_some_and(is_trusted);
        let effective_peer = if comes_from_trusted && is_forwarded {
            // From the right: everything left of the first address we do not trust may be made up.
            let chain = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
            let hops: Vec<&str> = chain.flat_map(|value| value.split(',')).map(str::trim).collect();
            let parsed = hops.iter().rev().map(|hop| hop.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()));
            let hops: Vec<IpAddr> = parsed.take_while(Option::is_some).flatten().collect();
            // If every hop is trusted, the farthest one is who called.
            hops.iter().find(|ip| !is_trusted(ip)).or(hops.last()).copied()
        } else {
            socket_peer
        };
        Self {
            effective_peer,
            is_forwarded_by_stranger: is_forwarded && !comes_from_trusted,
            host: text("host").map(host_name),
            has_foreign_origin: headers.contains_key("origin")
                && cors::listed_origin(headers, &config.proxy.cors_origins).is_none(),
            is_cross_site: text("sec-fetch-site").is_some_and(|site| site.eq_ignore_ascii_case("cross-site")),
        }
    }

    /// Whether this peer may call without a key; the error says why not.
    fn judge(&self, access: KeylessAccess, host_names: &[String]) -> Result<(), &'static str> {
        let Some(peer) = self.effective_peer else {
            return Err("The address you call from is not known, so an API key is needed.");
        };
        let is_near = match access {
            KeylessAccess::None => false,
            KeylessAccess::Loopback => peer.is_loopback(),
            KeylessAccess::Private => peer.is_loopback() || is_private(peer),
            KeylessAccess::Any => true,
        };
        if !is_near {
            return Err("Calls without an API key are not allowed from your address.");
        }
        if self.is_forwarded_by_stranger {
            return Err("Calls without an API key must not come through a proxy that the gateway does not trust.");
        }
        if self.has_foreign_origin || self.is_cross_site {
            return Err("Calls without an API key must not come from a web page.");
        }
        let is_known_host = self.host.as_deref().is_some_and(|host| {
            host == "localhost"
                || host.ends_with(".localhost")
                || host.parse::<IpAddr>().is_ok()
                || host_names.iter().any(|name| name.eq_ignore_ascii_case(host))
        });
        if is_known_host {
            Ok(())
        } else {
            Err("Calls without an API key need a Host that is localhost, an IP address, or listed in proxy.host_names.")
        }
    }
}

/// The name in a `Host` header, without its port and without the brackets of IPv6.
fn host_name(host: &str) -> String {
    let host = host.trim().to_ascii_lowercase();
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default().to_owned();
    }
    host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).trim_end_matches('.').to_owned()
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(peer: &str, host: &str) -> KeylessFacts {
        KeylessFacts {
            effective_peer: Some(peer.parse().unwrap()),
            host: Some(host_name(host)),
            ..KeylessFacts::default()
        }
    }

    #[test]
    fn who_may_call_without_a_key() {
        use KeylessAccess as K;
        let names = ["gateway.example.test".to_owned()];
        let cases = [
            ("127.0.0.1", "localhost:2455", K::Loopback, true),
            ("::1", "[::1]:2455", K::Loopback, true),
            ("10.1.2.3", "10.0.0.1:2455", K::Loopback, false),
            ("10.1.2.3", "10.0.0.1:2455", K::Private, true),
            ("192.168.0.9", "Gateway.example.test", K::Private, true),
            ("fd00::1", "localhost", K::Private, true),
            ("169.254.1.1", "localhost", K::Private, true),
            ("203.0.113.5", "localhost", K::Private, false),
            ("203.0.113.5", "localhost", K::Any, true),
            ("127.0.0.1", "localhost", K::None, false),
            // DNS rebinding: the peer is near, but the page's own name is in Host.
            ("127.0.0.1", "evil.example.com:2455", K::Private, false),
            ("127.0.0.1", "localhost.evil.example.com", K::Any, false),
        ];
        for (peer, host, access, expected) in cases {
            assert_eq!(facts(peer, host).judge(access, &names).is_ok(), expected, "{peer} {host} {access:?}");
        }
    }

    #[test]
    fn a_web_page_or_a_strange_proxy_never_calls_without_a_key() {
        let near = || facts("127.0.0.1", "localhost");
        assert!(KeylessFacts { has_foreign_origin: true, ..near() }.judge(KeylessAccess::Any, &[]).is_err());
        assert!(KeylessFacts { is_cross_site: true, ..near() }.judge(KeylessAccess::Any, &[]).is_err());
        assert!(KeylessFacts { is_forwarded_by_stranger: true, ..near() }.judge(KeylessAccess::Any, &[]).is_err());
        assert!(KeylessFacts { effective_peer: None, ..near() }.judge(KeylessAccess::Any, &[]).is_err());
        assert!(KeylessFacts { host: None, ..near() }.judge(KeylessAccess::Any, &[]).is_err());
    }

    #[test]
    fn a_key_is_read_from_each_of_its_headers() {
        let cases = [
            ("authorization", "Bearer sk-1", Some("sk-1")),
            ("authorization", "bearer  sk-1 ", Some("sk-1")),
            ("authorization", "Basic abc", None),
            ("authorization", "Bearer ", None),
            ("x-api-key", "sk-2", Some("sk-2")),
            ("api-key", "sk-3", Some("sk-3")),
        ];
        for (name, value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(presented_key(&headers), expected, "{name}: {value}");
        }
    }
}
