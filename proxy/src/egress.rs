//! Connections of accounts that have an egress: Pingora asks here for one instead of dialling upstream.
//!
//! Whatever goes wrong is a connection that failed. There is no other way out to fall back to.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use codex_lb_shared::egress::{AccountEgress, Egress, EgressClosed, EgressDialer, EgressStream};
use codex_lb_shared::ids::AccountId;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, Result};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Stands for the address of a connection that is made here.
///
/// A proxy has a name, perhaps several addresses, and the connection to an https one ends in a pair of sockets, so there
/// is no address that Pingora could compare a kept connection with; it skips that for this one. What keeps connections
/// apart is the peer's group.
pub(crate) const NO_ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 0);

/// What it takes to connect through egress proxies.
#[derive(Clone)]
pub(crate) struct EgressLegs {
    dialer: EgressDialer,
    host: Arc<str>,
    port: u16,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl EgressLegs {
    /// Connections to `host` and `port`. What carries their bytes runs among `tasks` until `stop`.
    pub(crate) fn new(
        dialer: EgressDialer,
        host: &str,
        port: u16,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { dialer, host: host.into(), port, tasks, stop }
    }

    /// How an account connects, and the group that keeps its connections to itself; `None` if it connects directly.
    pub(crate) fn connect(&self, account: AccountId, egress: &AccountEgress) -> Option<(EgressConnect, u64)> {
        match egress {
            AccountEgress::Direct => None,
            AccountEgress::Through(egress) => {
                let way = Way::Through(Box::new(self.clone()), Arc::clone(egress));
                Some((EgressConnect { account, way }, egress.connection_group(account)))
            }
            // No connection is ever made of it, so none is ever kept under this group.
            AccountEgress::Closed(closed) => Some((EgressConnect { account, way: Way::Closed(*closed) }, 1)),
        }
    }
}

/// Makes the connections of one account.
pub(crate) struct EgressConnect {
    account: AccountId,
    way: Way,
}

enum Way {
    Through(Box<EgressLegs>, Arc<Egress>),
    Closed(EgressClosed),
}

impl fmt::Debug for EgressConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match &self.way {
            Way::Through(_, egress) => egress.place(),
            Way::Closed(_) => "closed".to_owned(),
        };
        f.debug_struct("EgressConnect").field("account", &self.account).field("way", &way).finish()
    }
}

#[async_trait]
impl L4Connect for EgressConnect {
    async fn connect(&self, _address: &SocketAddr) -> Result<Stream> {
        let account = self.account;
        let (legs, egress) = match &self.way {
            Way::Through(legs, egress) => (legs, egress),
            Way::Closed(closed) => {
                warn!(account.id = %account, error = %closed, "an account has no way out");
                return Error::e_explain(ErrorType::ConnectError, closed.to_string());
            }
        };
        let connected = legs.dialer.connect(egress, &legs.host, legs.port).await;
        let stream = connected.map_err(|error| {
            let story = error.whole_story();
            warn!(account.id = %account, error = story, "an account's egress proxy did not connect it");
            Error::explain(ErrorType::ConnectError, story)
        })?;
        match stream {
            EgressStream::Plain(stream) => Ok(Stream::from(stream)),
            tls @ EgressStream::Tls(_) => legs.bridged(tls),
        }
    }
}

impl EgressLegs {
    /// Pingora keeps connections by their file descriptor, and TLS in a stream of ours has none. So its bytes go through
    /// a pair of sockets: Pingora has one end, and a task carries what passes the other.
    fn bridged(&self, mut tls: EgressStream) -> Result<Stream> {
        let pair = UnixStream::pair();
        let (near, mut far) =
            pair.map_err(|error| Error::because(ErrorType::ConnectError, "make a pair of sockets", error))?;
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                carried = tokio::io::copy_bidirectional(&mut far, &mut tls) => {
                    // Whoever used the connection has noticed by itself.
                    if let Err(error) = carried {
                        debug!(%error, "a connection to an https egress proxy broke");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
        Ok(Stream::from(near))
    }
}
