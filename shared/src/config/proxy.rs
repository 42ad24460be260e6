//! Sections `[proxy]`, `[intake]` and `[replay]`: the data plane's side towards its callers.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::reader::Reader;

/// Section `[proxy]`: the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Host names, lower case, that a caller without an api key may use besides loopback names and addresses.
    pub host_names: Vec<String>,
    /// Origins of web pages that may call, lower case.
    pub cors_origins: Vec<String>,
    /// Worker threads; at least one.
    pub threads: usize,
    /// How long an idle downstream connection is kept.
    pub keepalive_timeout: Duration,
    /// How long a caller may take nothing of its answer.
    pub write_timeout: Duration,
}

impl ProxyConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let seconds = Duration::from_secs;
        let listen = reader.socket_addr("proxy.listen");
        let trusted_proxies = reader.list("proxy.trusted_proxies", "write CIDRs such as \"10.0.0.0/8\"", parse_network);
        let host_names = reader.list(
            "proxy.host_names",
            "write names such as \"gateway.internal\", without scheme, port and path",
            parse_host_name,
        );
        let cors_origins = reader.list(
            "proxy.cors_origins",
            "write origins such as \"https://chat.example.com\", without a path",
            parse_origin,
        );
        let threads = reader.count("proxy.threads", 0..=1024);
        let keepalive_timeout = reader.duration("proxy.keepalive_timeout", seconds(1)..=seconds(24 * 3600));
        let write_timeout = reader.duration("proxy.write_timeout", seconds(1)..=seconds(24 * 3600));
        Some(Self {
            listen: listen?,
            trusted_proxies: trusted_proxies?,
            host_names: host_names?,
            cors_origins: cors_origins?,
            threads: match threads? {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                threads => threads,
            },
            keepalive_timeout: keepalive_timeout?,
            write_timeout: write_timeout?,
        })
    }
}

/// Section `[intake]`: bounds on request bodies. Each bound holds for the body as sent and again as decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeConfig {
    /// Largest body on Responses routes.
    pub responses_body_bytes_max: usize,
    /// Largest body on every other route.
    pub other_body_bytes_max: usize,
    /// All bodies in memory at once; no single bound is larger.
    pub buffered_bytes_max: usize,
    /// Longest wait for the next piece of a body.
    pub body_timeout: Duration,
}

impl IntakeConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        const KIB: usize = 1 << 10;
        const GIB: usize = 1 << 30;
        let responses = reader.bytes("intake.responses_body_bytes_max", 64 * KIB..=4 * GIB);
        let other = reader.bytes("intake.other_body_bytes_max", 64 * KIB..=4 * GIB);
        let buffered = reader.bytes("intake.buffered_bytes_max", 64 * KIB..=1024 * GIB);
        let body_timeout = reader.duration("intake.body_timeout", Duration::from_secs(1)..=Duration::from_secs(3600));
        let (responses, other, buffered) = (responses?, other?, buffered?);
        if buffered < responses.max(other) {
            reader.refuse(
                "intake.buffered_bytes_max",
                "smaller than the largest body, which could never be held".to_owned(),
                "raise it, or lower intake.responses_body_bytes_max and intake.other_body_bytes_max",
            );
        }
        Some(Self {
            responses_body_bytes_max: responses,
            other_body_bytes_max: other,
            buffered_bytes_max: buffered,
            body_timeout: body_timeout?,
        })
    }
}

/// Section `[replay]`: what callers were answered lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayConfig {
    /// Memory for it; 0 keeps nothing.
    pub bytes_max: usize,
    /// How long something is kept after its last use.
    pub idle: Duration,
}

impl ReplayConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let bytes_max = reader.bytes("replay.bytes_max", 0..=1 << 40);
        let idle = reader.duration("replay.idle", Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600));
        Some(Self { bytes_max: bytes_max?, idle: idle? })
    }
}

/// A network; a bare address means itself alone.
fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse().map(|address: std::net::IpAddr| IpNet::from(address)))
        .map_err(|_| "not a network".to_owned())
}

/// An origin as browsers write it: scheme, host, and the port if it is not the scheme's own.
fn parse_origin(text: &str) -> Result<String, String> {
    let not_an_origin = || "not an origin".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(not_an_origin)?;
    let is_web = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https");
    let is_authority = !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']'));
    if is_web && is_authority { Ok(text.to_ascii_lowercase()) } else { Err(not_an_origin()) }
}

fn parse_host_name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("not a host name".to_owned())
    }
}
