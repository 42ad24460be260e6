//! Where upstream is: its addresses, found asynchronously, checked and taken in turn, and how we connect to it.
//!
//! All accounts live behind one origin, so this is load balancing over the origin's addresses and not over accounts. An
//! account with an egress has no part in it: its proxy resolves the origin's name and connects.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use codex_lb_shared::config::{BaseUrl, UpstreamConfig};
use codex_lb_shared::pool::PooledAccount;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::health_check::TcpHealthCheck;
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backend, Backends, LoadBalancer};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::egress::{EgressLegs, NO_ADDRESS};

/// How often the origin's name is resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for the resolver.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the origin's addresses are checked, if it has several.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait for the connection of a check. Longer than a lost SYN packet takes to be sent again.
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// Checks in a row that take an address out: one lost packet does not. A single good one brings it back.
const FAILED_CHECKS_MAX: usize = 2;
/// Upstream closes idle connections after some 15 s; we must be first, or a request meets a closing connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The exchange's own time-outs are to strike first: they know what they mean.
const SILENCE_MARGIN: Duration = Duration::from_secs(5);
/// How much longer than its own time-out a connection through an egress may take, TLS with upstream included.
const EGRESS_MARGIN: Duration = Duration::from_millis(500);
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
    /// Whose turn it is while no address passes its checks.
    unchecked_turn: AtomicUsize,
    egress: EgressLegs,
    /// Whether an account can connect directly at all.
    is_used_directly: bool,
}

impl Origin {
    /// The origin that is configured; its addresses are found by [`Self::run_discovery`].
    pub(crate) fn new(config: &UpstreamConfig, egress: EgressLegs) -> Arc<Self> {
        let discovery = NameDiscovery { host: config.base_url.host().to_owned(), port: config.base_url.port() };
        Arc::new(Self::discovered_by(Box::new(discovery), config, egress))
    }

    fn discovered_by(
        discovery: Box<dyn ServiceDiscovery + Send + Sync>,
        config: &UpstreamConfig,
        egress: EgressLegs,
    ) -> Self {
        let mut balancer = LoadBalancer::from_backends(Backends::new(discovery));
        let mut check = TcpHealthCheck::new();
        check.consecutive_failure = FAILED_CHECKS_MAX;
        check.peer_template.options.connection_timeout = Some(HEALTH_CHECK_TIMEOUT.min(config.connect_timeout));
        balancer.set_health_check(check);
        Self {
            base_url: config.base_url.clone(),
            connect_timeout: config.connect_timeout,
            silence_max: config.first_byte_timeout.max(config.idle_timeout) + SILENCE_MARGIN,
            balancer,
            unchecked_turn: AtomicUsize::new(0),
            egress,
            is_used_directly: config.egress.is_none(),
        }
    }

    /// Finds the origin's addresses once. A failure is told and leaves the known addresses in place. With a default
    /// egress nobody connects directly, and the name is never resolved here.
    pub(crate) async fn discover(&self) {
        if !self.is_used_directly {
            return;
        }
        if let Err(error) = self.balancer.update().await {
            warn!(error = %error, host = self.base_url.host(), "upstream's name could not be resolved");
        }
    }

    /// Finds the origin's addresses and checks them, again and again, until `stop`.
    pub(crate) async fn run_discovery(&self, stop: CancellationToken) {
        let again_and_again = async {
            let mut resolve = every(RESOLVE_INTERVAL);
            let mut check = every(HEALTH_CHECK_INTERVAL);
            loop {
                tokio::select! {
                    _ = resolve.tick() => self.discover().await,
                    _ = check.tick() => self.check_health().await,
                }
            }
        };
        tokio::select! {
            () = again_and_again => {}
            () = stop.cancelled() => {}
        }
    }

    /// Connects to each address once, if there is one to choose over another.
    async fn check_health(&self) {
        if self.balancer.backends().get_backend().len() > 1 {
            self.balancer.backends().run_health_check(true).await;
        }
    }

    /// How an account connects, with everything that matters for the connection. While the origin has no known address,
    /// and for an account without a way out, the peer fails to connect; another account may have another way.
    pub(crate) fn peer(&self, account: &PooledAccount) -> HttpPeer {
        let Some((connect, group)) = self.egress.connect(account.account.id, &account.egress) else {
            return self.peer_at(self.next_address().unwrap_or(NO_ADDRESS.into()));
        };
        let mut peer = self.peer_at(NO_ADDRESS.into());
        peer.group_key = group;
        let options = &mut peer.options;
        options.custom_l4 = Some(Arc::new(connect));
        // The egress keeps the time-out itself, and says more when it runs out.
        options.total_connection_timeout = Some(self.connect_timeout + EGRESS_MARGIN);
        peer
    }

    /// The address whose turn it is.
    ///
    /// One that fails its checks is passed over; but if all do, it is rather the checks that are wrong (a firewall, a
    /// moment without network), and a request that fails costs less than a gateway that does not try.
    fn next_address(&self) -> Option<std::net::SocketAddr> {
        match self.balancer.select(b"", SELECT_TRIES).or_else(|| self.any_backend())?.addr {
            SocketAddr::Inet(address) => Some(address),
            SocketAddr::Unix(_) => None,
        }
    }

    /// Counts by itself: the balancer's own turn moves on by the same even number of addresses with each failed search,
    /// and would come to the same one again and again.
    fn any_backend(&self) -> Option<Backend> {
        let backends = self.balancer.backends().get_backend();
        let turn = self.unchecked_turn.fetch_add(1, Ordering::Relaxed);
        backends.iter().nth(turn.checked_rem(backends.len())?).cloned()
    }

    fn peer_at(&self, address: std::net::SocketAddr) -> HttpPeer {
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
        peer
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

/// Ticks at an interval, first after one interval, and never faster to make up for a late tick.
fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use codex_lb_shared::config::{Config, LoadOptions};
    use codex_lb_shared::egress::EgressDialer;
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    struct Fixed(Vec<SocketAddr>);

    #[async_trait]
    impl ServiceDiscovery for Fixed {
        async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
            let backends = self.0.iter().map(|address| Backend::new(&address.to_string()).unwrap());
            Ok((backends.collect(), HashMap::new()))
        }
    }

    /// An origin that is found, at these addresses.
    async fn origin(addresses: &[SocketAddr]) -> Origin {
        let environment = vec![("CODEX_LB_DATA_DIR".to_owned(), "/nowhere".to_owned())];
        let config = Config::load(&LoadOptions { environment, ..LoadOptions::default() }).unwrap().upstream;
        let dialer = EgressDialer::new(None, config.connect_timeout).unwrap();
        let egress = EgressLegs::new(dialer, "upstream.invalid", 443, TaskTracker::new(), CancellationToken::new());
        let origin = Origin::discovered_by(Box::new(Fixed(addresses.to_vec())), &config, egress);
        origin.discover().await;
        origin
    }

    /// An address that accepts while the listener lives, and one of another loopback address that never does.
    async fn alive_and_dead() -> (TcpListener, SocketAddr, SocketAddr) {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap();
        let address = alive.local_addr().unwrap();
        (alive, address, dead)
    }

    fn next_addresses(origin: &Origin) -> BTreeSet<SocketAddr> {
        (0..10).filter_map(|_| origin.next_address()).collect()
    }

    #[tokio::test]
    async fn an_address_that_does_not_accept_is_passed_over_after_two_checks_and_returns_after_one() {
        let (_listener, alive, dead) = alive_and_dead().await;
        let origin = origin(&[alive, dead]).await;
        assert_eq!(next_addresses(&origin), [alive, dead].into());
        origin.check_health().await;
        assert_eq!(next_addresses(&origin), [alive, dead].into());
        origin.check_health().await;
        assert_eq!(next_addresses(&origin), [alive].into());

        let _revived = TcpListener::bind(dead).await.unwrap();
        origin.check_health().await;
        assert_eq!(next_addresses(&origin), [alive, dead].into());
    }

    #[tokio::test]
    async fn when_every_address_fails_its_checks_all_are_tried_all_the_same() {
        let (listener, first, second) = alive_and_dead().await;
        drop(listener);
        let origin = origin(&[first, second]).await;
        for _ in 0..3 {
            origin.check_health().await;
        }
        assert_eq!(next_addresses(&origin), [first, second].into());
    }

    #[tokio::test]
    async fn a_single_address_is_not_checked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let alive = listener.local_addr().unwrap();
        let origin = origin(&[alive]).await;
        origin.check_health().await;
        origin.check_health().await;
        assert!(listener.accept().is_err(), "somebody connected");
        assert_eq!(next_addresses(&origin), [alive].into());
    }
}
