//! Where upstream is: its addresses, found asynchronously and taken in turn, and how we connect to it.
//!
//! All accounts live behind one origin, so this is load balancing over the origin's addresses and not over accounts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use codex_lb_shared::config::{BaseUrl, UpstreamConfig};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backend, Backends, LoadBalancer};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often the origin's name is resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for the resolver.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Upstream closes idle connections after some 15 s; we must be first, or a request meets a closing connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The exchange's own time-outs are to strike first: they know what they mean.
const SILENCE_MARGIN: Duration = Duration::from_secs(5);
/// Streams on one HTTP/2 connection.
const H2_STREAMS_MAX: usize = 100;
/// How often a quiet HTTP/2 connection is asked whether it still lives.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Addresses looked at before an origin counts as gone.
const SELECT_TRIES: usize = 16;

/// The ChatGPT backend.
pub(crate) struct Origin {
    base_url: BaseUrl,
    connect_timeout: Duration,
    silence_max: Duration,
    balancer: LoadBalancer<RoundRobin>,
}

impl Origin {
    /// The origin that is configured; its addresses are found by [`Self::run_discovery`].
    pub(crate) fn new(config: &UpstreamConfig) -> Arc<Self> {
        let discovery = NameDiscovery { host: config.base_url.host().to_owned(), port: config.base_url.port() };
        Arc::new(Self {
            base_url: config.base_url.clone(),
            connect_timeout: config.connect_timeout,
            silence_max: config.first_byte_timeout.max(config.idle_timeout) + SILENCE_MARGIN,
            balancer: LoadBalancer::from_backends(Backends::new(Box::new(discovery))),
        })
    }

    /// Finds the origin's addresses once. A failure is told and leaves the known addresses in place.
    pub(crate) async fn discover(&self) {
        if let Err(error) = self.balancer.update().await {
            warn!(error = %error, host = self.base_url.host(), "upstream's name could not be resolved");
        }
    }

    /// Finds the origin's addresses again and again, until `stop`.
    pub(crate) async fn run_discovery(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RESOLVE_INTERVAL) => self.discover().await,
                () = stop.cancelled() => return,
            }
        }
    }

    /// The next address to connect to, with everything that matters for the connection; `None` while none is known.
    pub(crate) fn peer(&self) -> Option<HttpPeer> {
        let backend = self.balancer.select(b"", SELECT_TRIES)?;
        let SocketAddr::Inet(address) = backend.addr else { return None };
        let mut peer = HttpPeer::new(address, self.base_url.is_tls(), self.base_url.host().to_owned());
        let options = &mut peer.options;
        options.connection_timeout = Some(self.connect_timeout);
        options.total_connection_timeout = Some(self.connect_timeout);
        options.read_timeout = Some(self.silence_max);
        options.write_timeout = Some(self.silence_max);
        options.idle_timeout = Some(POOL_IDLE_TIMEOUT);
        if self.base_url.is_tls() {
            options.set_http_version(2, 1);
            options.max_h2_streams = H2_STREAMS_MAX;
            options.h2_ping_interval = Some(H2_PING_INTERVAL);
        }
        Some(peer)
    }

    /// What stands in `Host`.
    pub(crate) fn authority(&self) -> String {
        self.base_url.authority()
    }

    /// A path below the base URL.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base_url.path())
    }
}

struct NameDiscovery {
    host: String,
    port: u16,
}

#[async_trait]
impl ServiceDiscovery for NameDiscovery {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let failed = |why: String| pingora::Error::explain(pingora::ErrorType::ConnectNoRoute, why);
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, lookup)
            .await
            .map_err(|_| failed("the resolver did not answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let backends: BTreeSet<Backend> = found.filter_map(|address| Backend::new(&address.to_string()).ok()).collect();
        if backends.is_empty() {
            return Err(failed("the name has no address".to_owned()));
        }
        Ok((backends, HashMap::new()))
    }
}
