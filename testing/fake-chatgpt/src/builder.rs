//! The options that a fake is started with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket};

use crate::fake::{Fake, FakeChatGpt};
use crate::server::Server;
use crate::tls::Identity;

/// How many connections may wait to be accepted. With the usual 128 a benchmark's first burst waits for SYN retries.
const BACKLOG: u32 = 4_096;

/// What the fake is started with.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) listen: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) http2: bool,
    pub(crate) record_bodies: bool,
    pub(crate) records_max: usize,
    pub(crate) require_instructions: bool,
    pub(crate) device_interval_seconds: u64,
    pub(crate) device_lifetime: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: false,
            http2: true,
            record_bodies: true,
            records_max: 10_000,
            require_instructions: false,
            device_interval_seconds: 1,
            device_lifetime: Duration::from_secs(15 * 60),
        }
    }
}

impl Builder {
    /// Where to listen; a free port of 127.0.0.1 unless said otherwise.
    pub fn listen(mut self, listen: SocketAddr) -> Self {
        self.listen = listen;
        self
    }

    /// Serves TLS with a leaf for `localhost`, `127.0.0.1`, `::1` and `upstream.invalid` under a new CA; see [`FakeChatGpt::ca_pem`].
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// Whether ALPN offers h2 beside http/1.1 (it does). Without TLS there is only HTTP/1.1.
    pub fn http2(mut self, http2: bool) -> Self {
        self.http2 = http2;
        self
    }

    /// Whether records keep bodies and their hashes (they do). Benchmarks turn it off.
    pub fn record_bodies(mut self, record_bodies: bool) -> Self {
        self.record_bodies = record_bodies;
        self
    }

    /// How many requests are remembered before the oldest is forgotten; 10,000 unless said otherwise.
    pub fn records_max(mut self, records_max: usize) -> Self {
        self.records_max = records_max.max(1);
        self
    }

    /// Refuses requests without `instructions`, as older backends did.
    pub fn require_instructions(mut self, require_instructions: bool) -> Self {
        self.require_instructions = require_instructions;
        self
    }

    /// How a device login asks to be polled (1 s), and how long it lives (15 min).
    pub fn device_login(mut self, interval_seconds: u64, lifetime: Duration) -> Self {
        self.device_interval_seconds = interval_seconds;
        self.device_lifetime = lifetime;
        self
    }

    /// Binds and serves. Fails when the address is taken or the certificate cannot be made.
    pub async fn start(self) -> anyhow::Result<FakeChatGpt> {
        let listener = listen(self.listen).with_context(|| format!("listen on {}", self.listen))?;
        let address = listener.local_addr().context("read the listening address")?;
        let identity = if self.tls { Some(Identity::new(self.http2)?) } else { None };
        let ca_pem = identity.as_ref().map(|identity| identity.ca_pem.clone());
        let fake = Arc::new(Fake::new(self, address));
        let server = Server::start(listener, identity.map(|identity| identity.acceptor), fake.clone());
        Ok(FakeChatGpt { fake, server, ca_pem })
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
