//! Egress proxies: what an account's connections go out through, and how one is written as a url.
//!
//! No text of this module, errors and `Debug` included, ever holds a password.

use core::net::Ipv6Addr;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::EgressProxyId;

/// Longest host name there is.
const HOST_BYTES_MAX: usize = 253;
/// Longest user or password of an HTTP proxy.
const BASIC_BYTES_MAX: usize = 1_024;
/// Longest user and password of a SOCKS5 proxy together. The protocol allows 255 bytes each, but the handshake that we
/// use sends all its messages from one small buffer.
const SOCKS_LOGIN_BYTES_MAX: usize = 180;

/// How an egress proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressKind {
    /// HTTP CONNECT in clear text; what goes through is still TLS to upstream.
    Http,
    /// HTTP CONNECT over TLS to the proxy.
    Https,
    /// SOCKS5. Names are always resolved by the proxy.
    Socks5,
}

impl EgressKind {
    /// The name in the database, in JSON and in the UI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }

    /// Reads the name that [`Self::as_str`] writes.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Http, Self::Https, Self::Socks5].into_iter().find(|kind| kind.as_str() == name)
    }

    /// The scheme of a url that names such a proxy. SOCKS5 has two; this one says that the proxy resolves names.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5h",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 => 1080,
        }
    }
}

/// An egress proxy as it is listed: everything but its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressProxy {
    /// Ours.
    pub id: EgressProxyId,
    /// An operator's name for it.
    pub name: String,
    /// Where it is and who we are to it.
    pub endpoint: EgressEndpoint,
    /// Whether it has a password.
    pub has_password: bool,
    /// Grows by one with every change; the compare half of compare-and-set.
    pub version: i64,
    /// When it was added.
    pub created_at: Timestamp,
}

/// Where an egress proxy is and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressEndpoint {
    /// How it is spoken to.
    pub kind: EgressKind,
    /// Its host name or address; an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user it knows us by.
    pub user: Option<String>,
}

impl EgressEndpoint {
    /// Its host and port, as a url has them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// An egress proxy with all that is needed to go through it. Only valid ones exist.
#[derive(Clone)]
pub struct EgressAccess {
    endpoint: EgressEndpoint,
    password: Option<SecretString>,
}

/// Why something is no egress proxy. For an operator; never with what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEgress {
    /// There is no scheme, or another one.
    #[error("the url of an egress proxy starts with http://, https://, socks5:// or socks5h://")]
    Scheme,
    /// A path, a query or a fragment.
    #[error("the url of an egress proxy ends after its host and port")]
    Rest,
    /// No host, or none that a name server or an address could have.
    #[error("the egress proxy's host is neither a host name nor an IP address")]
    Host,
    /// Not a port.
    #[error("the egress proxy's port is not a number from 1 to 65535")]
    Port,
    /// User or password hold what cannot be sent.
    #[error("the egress proxy's user or password holds bytes that cannot be sent (in a url, write them as %XX)")]
    Login,
    /// Too long for the protocol.
    #[error("the egress proxy's user or password is too long for its protocol")]
    LoginTooLong,
    /// A password without a user.
    #[error("an egress proxy's password needs a user")]
    PasswordWithoutUser,
}

impl EgressAccess {
    /// An egress proxy, once everything about it fits together.
    ///
    /// # Errors
    /// What does not fit.
    pub fn new(endpoint: EgressEndpoint, password: Option<SecretString>) -> Result<Self, InvalidEgress> {
        if !is_host(&endpoint.host) {
            return Err(InvalidEgress::Host);
        }
        if endpoint.port == 0 {
            return Err(InvalidEgress::Port);
        }
        check_login(endpoint.kind, endpoint.user.as_deref(), password.as_ref().map(SecretString::expose_secret))?;
        Ok(Self { endpoint, password })
    }

    /// Where it is and who we are to it.
    pub const fn endpoint(&self) -> &EgressEndpoint {
        &self.endpoint
    }

    /// Its password.
    pub const fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// User and password, if it knows us by any.
    pub fn login(&self) -> Option<(&str, &str)> {
        let password = self.password.as_ref().map_or("", SecretString::expose_secret);
        self.endpoint.user.as_deref().map(|user| (user, password))
    }
}

impl PartialEq for EgressAccess {
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.login() == other.login()
    }
}

impl Eq for EgressAccess {}

/// Not the user either: some providers put a customer's name there.
impl fmt::Debug for EgressAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EgressAccess({}://{})", self.endpoint.kind.scheme(), self.endpoint.authority())
    }
}

impl FromStr for EgressAccess {
    type Err = InvalidEgress;

    /// Reads a url such as `http://user:password@host:3128`.
    fn from_str(text: &str) -> Result<Self, InvalidEgress> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidEgress::Scheme)?;
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => EgressKind::Http,
            "https" => EgressKind::Https,
            "socks5" | "socks5h" => EgressKind::Socks5,
            _ => return Err(InvalidEgress::Scheme),
        };
        // The last at sign ends the credentials, so a password that holds one need not be encoded.
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains(['/', '?', '#']) {
            return Err(InvalidEgress::Rest);
        }
        let (host, port) = split_port(place)?;
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            None | Some(("", "")) => (None, None),
            Some((user, password)) => (Some(decoded(user)?), Some(decoded(password)?)),
        };
        let endpoint = EgressEndpoint {
            kind,
            host: host.to_owned(),
            port: port.unwrap_or_else(|| kind.default_port()),
            user: user.filter(|user| !user.is_empty()),
        };
        Self::new(endpoint, password.filter(|password| !password.is_empty()).map(SecretString::from))
    }
}

/// The host without brackets, and the port if one is written.
fn split_port(place: &str) -> Result<(&str, Option<u16>), InvalidEgress> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or(InvalidEgress::Port)?)),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match port.map(|port| port.parse().ok().filter(|number| *number > 0 && is_number(port))) {
        None => Ok((host, None)),
        Some(Some(port)) => Ok((host, Some(port))),
        Some(None) => Err(InvalidEgress::Port),
    }
}

fn decoded(text: &str) -> Result<String, InvalidEgress> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| InvalidEgress::Login)
}

/// Strict, because what one parser takes for a host and the next does not could lead a connection elsewhere.
fn is_host(host: &str) -> bool {
    if host.contains(':') {
        return host.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_inner)
    };
    host.len() <= HOST_BYTES_MAX && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

fn check_login(kind: EgressKind, user: Option<&str>, password: Option<&str>) -> Result<(), InvalidEgress> {
    let Some(user) = user else {
        return if password.is_some() { Err(InvalidEgress::PasswordWithoutUser) } else { Ok(()) };
    };
    let password = password.unwrap_or_default();
    let is_sendable = |text: &str| !text.chars().any(char::is_control);
    // Basic credentials end the user at the first colon.
    let is_basic_user = || !user.contains(':');
    let (is_fit, is_short) = match kind {
        EgressKind::Http | EgressKind::Https => {
            (is_basic_user(), user.len() <= BASIC_BYTES_MAX && password.len() <= BASIC_BYTES_MAX)
        }
        EgressKind::Socks5 => (true, user.len() + password.len() <= SOCKS_LOGIN_BYTES_MAX),
    };
    if user.is_empty() || !is_fit || !is_sendable(user) || !is_sendable(password) {
        Err(InvalidEgress::Login)
    } else if is_short {
        Ok(())
    } else {
        Err(InvalidEgress::LoginTooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (EgressKind, String, u16, Option<(String, String)>) {
        let access: EgressAccess = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        let login = access.login().map(|(user, password)| (user.to_owned(), password.to_owned()));
        (access.endpoint().kind, access.endpoint().host.clone(), access.endpoint().port, login)
    }

    fn login(user: &str, password: &str) -> Option<(String, String)> {
        Some((user.to_owned(), password.to_owned()))
    }

    #[test]
    fn a_url_names_kind_place_and_login() {
        let host = |name: &str| name.to_owned();
        let cases = [
            ("http://proxy.example:3128", (EgressKind::Http, host("proxy.example"), 3128, None)),
            ("https://u:p@10.0.0.7", (EgressKind::Https, host("10.0.0.7"), 443, login("u", "p"))),
            ("socks5://u:p@h:1081/", (EgressKind::Socks5, host("h"), 1081, login("u", "p"))),
            ("SOCKS5H://[fd00::1]", (EgressKind::Socks5, host("fd00::1"), 1080, None)),
            ("http://[::1]:8080", (EgressKind::Http, host("::1"), 8080, None)),
            ("http://u@h", (EgressKind::Http, host("h"), 80, login("u", ""))),
            ("http://a%40b:p%3a%2F%20@h", (EgressKind::Http, host("h"), 80, login("a@b", "p:/ "))),
            ("http://u:p@ss:w/rd@h:1", (EgressKind::Http, host("h"), 1, login("u", "p@ss:w/rd"))),
            ("http://@h", (EgressKind::Http, host("h"), 80, None)),
        ];
        for (url, expected) in cases {
            assert_eq!(parts(url), expected, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_what_was_written() {
        let long = "x".repeat(SOCKS_LOGIN_BYTES_MAX);
        let cases = [
            ("s3cret", InvalidEgress::Scheme),
            ("u:s3cret@h:3128", InvalidEgress::Scheme),
            ("ftp://u:s3cret@h", InvalidEgress::Scheme),
            ("http://u:s3cret@", InvalidEgress::Host),
            ("http://u:s3cret@h h", InvalidEgress::Host),
            ("http://u:s3cret@[::1", InvalidEgress::Port),
            ("http://u:s3cret@[::g]", InvalidEgress::Host),
            ("http://u:s3cret@h..h", InvalidEgress::Host),
            ("http://u:s3cret@h:0", InvalidEgress::Port),
            ("http://u:s3cret@h:+80", InvalidEgress::Port),
            ("http://u:s3cret@h:99999", InvalidEgress::Port),
            ("http://u:s3cret@h:", InvalidEgress::Port),
            ("http://u:s3cret@h/path", InvalidEgress::Rest),
            ("http://u:s3cret@h?x=1", InvalidEgress::Rest),
            ("http://:s3cret@h", InvalidEgress::PasswordWithoutUser),
            ("http://u:s3cret%0d%0a@h", InvalidEgress::Login),
            ("http://u:s3cret%ff@h", InvalidEgress::Login),
            ("http://a%3ab:s3cret@h", InvalidEgress::Login),
        ];
        for (url, expected) in cases {
            let error = url.parse::<EgressAccess>().unwrap_err();
            assert_eq!(error, expected, "{url}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{url}");
        }
        let socks = format!("socks5://u:{long}@h");
        assert_eq!(socks.parse::<EgressAccess>(), Err(InvalidEgress::LoginTooLong));
        assert!(format!("http://u:{long}@h").parse::<EgressAccess>().is_ok());
    }

    #[test]
    fn neither_user_nor_password_are_ever_printed() {
        let access: EgressAccess = "http://customer:s3cret@h:1".parse().unwrap();
        assert_eq!(format!("{access:?}"), "EgressAccess(http://h:1)");
    }

    #[test]
    fn every_kind_reads_back() {
        for kind in [EgressKind::Http, EgressKind::Https, EgressKind::Socks5] {
            assert_eq!(EgressKind::parse(kind.as_str()), Some(kind));
            assert_eq!(parts(&format!("{}://h:9", kind.scheme())).0, kind);
        }
        assert_eq!(EgressKind::parse("socks4"), None);
    }
}
