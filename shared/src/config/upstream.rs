//! Sections `[upstream]` and `[oauth]`: the ChatGPT backend and its login service.

use std::path::PathBuf;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};

use crate::config::reader::Reader;
use crate::config::values::BaseUrl;
use crate::domain::egress_proxy::{EgressAccess, InvalidEgress};

/// Section `[upstream]`: the ChatGPT backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Base url of the backend.
    pub base_url: BaseUrl,
    /// Codex version named when models are listed: three numbers with dots.
    pub client_version: String,
    /// Request headers passed on besides the built-in list; never one that carries a credential or framing.
    pub forward_headers: Vec<HeaderName>,
    /// The `originator` of callers that are not Codex clients.
    pub originator: HeaderValue,
    /// The `user-agent` of those callers.
    pub user_agent: HeaderValue,
    /// Certificate authorities trusted besides the system's; the file existed when the configuration was read.
    pub ca_file: Option<PathBuf>,
    /// What everything goes out through that is bound to no egress proxy of its own.
    pub egress: Option<EgressAccess>,
    /// Time to connect, an egress proxy's handshake included.
    pub connect_timeout: Duration,
    /// Time from a sent request to the first byte of its answer.
    pub first_byte_timeout: Duration,
    /// Longest silence between two events.
    pub idle_timeout: Duration,
    /// Longest exchange.
    pub exchange_timeout: Duration,
    /// How long after its arrival a request may move on to another account.
    pub failover_deadline: Duration,
    /// How often a silent stream gets a keep-alive.
    pub keep_alive_interval: Duration,
    /// How long the status line is held for the first meaningful event.
    pub status_hold: Duration,
}

impl UpstreamConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let range = || Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
        let base_url = reader.base_url("upstream.base_url");
        let client_version =
            reader.text("upstream.client_version", "write three numbers, such as \"0.169.0\"", check_version);
        let forward_headers =
            reader.list("upstream.forward_headers", "write header names that carry no credentials", parse_forwarded);
        let originator = read_header_value(reader, "upstream.originator", "");
        let user_agent = read_header_value(reader, "upstream.user_agent", OWN_USER_AGENT);
        let ca_file = read_ca_file(reader);
        let egress = read_egress(reader);
        let connect_timeout = reader.duration("upstream.connect_timeout", range());
        let first_byte_timeout = reader.duration("upstream.first_byte_timeout", range());
        let idle_timeout = reader.duration("upstream.idle_timeout", range());
        let exchange_timeout = reader.duration("upstream.exchange_timeout", range());
        let failover_deadline = reader.duration("upstream.failover_deadline", range());
        let keep_alive_interval = reader.duration("upstream.keep_alive_interval", range());
        let status_hold = reader.duration("upstream.status_hold", range());
        Some(Self {
            base_url: base_url?,
            client_version: client_version?,
            forward_headers: forward_headers?,
            originator: originator?,
            user_agent: user_agent?,
            ca_file: ca_file?,
            egress: egress?,
            connect_timeout: connect_timeout?,
            first_byte_timeout: first_byte_timeout?,
            idle_timeout: idle_timeout?,
            exchange_timeout: exchange_timeout?,
            failover_deadline: failover_deadline?,
            keep_alive_interval: keep_alive_interval?,
            status_hold: status_hold?,
        })
    }
}

/// Section `[oauth]`: the login service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthConfig {
    /// Base url of the issuer.
    pub issuer: BaseUrl,
    /// The client id that accounts were logged in with.
    pub client_id: String,
}

impl OauthConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let issuer = reader.base_url("oauth.issuer");
        let client_id = reader.text("oauth.client_id", "write the client id of the login application", |text| {
            let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            if is_id { Ok(()) } else { Err("not a client id".to_owned()) }
        });
        Some(Self { issuer: issuer?, client_id: client_id? })
    }
}

const OWN_USER_AGENT: &str = concat!("codex-lb/", env!("CARGO_PKG_VERSION"));

/// What never goes from a caller to upstream: credentials, addresses, framing, and what we set ourselves.
const NEVER_FORWARDED: [HeaderName; 19] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::FORWARDED,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("chatgpt-account-id"),
];

fn parse_forwarded(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| "not a header name".to_owned())?;
    if NEVER_FORWARDED.contains(&name) || name.as_str().starts_with("x-forwarded-") {
        return Err("this header is never passed on".to_owned());
    }
    Ok(name)
}

fn check_version(text: &str) -> Result<(), String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if text.split('.').count() == 3 && text.split('.').all(is_number) {
        Ok(())
    } else {
        Err("not a version".to_owned())
    }
}

fn read_header_value(reader: &mut Reader, key: &'static str, empty: &str) -> Option<HeaderValue> {
    reader.read(key, "write printable ASCII", |value| {
        let text = value.as_str().ok_or("not a text")?;
        let text = if text.is_empty() { empty } else { text };
        match HeaderValue::from_str(text) {
            Ok(value) if !text.is_empty() && text.is_ascii() => Ok(value),
            _ => Err("not a header value".to_owned()),
        }
    })
}

fn read_egress(reader: &mut Reader) -> Option<Option<EgressAccess>> {
    let remedy = "write a url such as \"http://user:password@host:3128\" or \"socks5h://host:1080\", or \"\"";
    reader.read("upstream.egress", remedy, |value| match value.as_str().ok_or("not a text")? {
        "" => Ok(None),
        url => url.parse().map(Some).map_err(|error: InvalidEgress| error.to_string()),
    })
}

/// A missing file would otherwise show up as a TLS failure of every request.
fn read_ca_file(reader: &mut Reader) -> Option<Option<PathBuf>> {
    const KEY: &str = "upstream.ca_file";
    let path = reader.path(KEY, "")?;
    if path.as_os_str().is_empty() {
        return Some(None);
    }
    if path.is_file() {
        return Some(Some(path));
    }
    reader.refuse(KEY, "no such file".to_owned(), "name a PEM file, or write \"\"");
    None
}
