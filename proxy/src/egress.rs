//! Connections of accounts that have an egress: Pingora asks here for one instead of dialling upstream.
//!
//! Whatever goes wrong is a connection that failed. There is no other way out to fall back to.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use codex_lb_shared::egress::{AccountEgress, Egress, EgressClosed, EgressDialer, EgressStream};
use codex_lb_shared::ids::AccountId;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Stands for the address of a connection that is made here.
///
/// A proxy has a name, perhaps several addresses, and the connection to an https one ends in a pair of sockets, so there
/// is no address that Pingora could compare a kept connection with; it skips that for this one. What keeps connections
/// apart is the peer's group.
pub(crate) const NO_ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 0);

/// Bytes that are read from Pingora at once.
const CARRY_BYTES: usize = 16 * 1024;
/// How long a proxy may take nothing before its connection is given up.
const STUCK_MAX: Duration = Duration::from_secs(60);

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
    fn bridged(&self, tls: EgressStream) -> Result<Stream> {
        let pair = UnixStream::pair();
        let (near, far) =
            pair.map_err(|error| Error::because(ErrorType::ConnectError, "make a pair of sockets", error))?;
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                carried = carry(far, tls) => {
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

/// Carries bytes between Pingora and the proxy until Pingora hangs up or the proxy's side breaks. Pingora never closes
/// half a connection, so its end is the end of both directions: a proxy that goes on talking holds nothing here.
async fn carry(far: UnixStream, egress: EgressStream) -> io::Result<()> {
    let (mut from_pingora, mut to_pingora) = far.into_split();
    let (mut from_proxy, mut to_proxy) = tokio::io::split(egress);
    let up = async {
        let mut buffer = vec![0; CARRY_BYTES];
        loop {
            let count = from_pingora.read(&mut buffer).await?;
            if count == 0 {
                return timeout(STUCK_MAX, to_proxy.shutdown()).await?;
            }
            let write = async {
                to_proxy.write_all(&buffer[..count]).await?;
                to_proxy.flush().await
            };
            timeout(STUCK_MAX, write).await??;
        }
    };
    let down = async {
        tokio::io::copy(&mut from_proxy, &mut to_pingora).await?;
        to_pingora.shutdown().await?;
        // Pingora has read the end and hangs up in its own time.
        std::future::pending().await
    };
    tokio::select! {
        ended = up => ended,
        broken = down => broken,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What Pingora holds, what the proxy holds, and the task between them.
    async fn carried() -> (UnixStream, TcpStream, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let to_proxy = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (proxy, _) = listener.accept().await.unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        (near, proxy, tokio::spawn(carry(far, EgressStream::Plain(to_proxy))))
    }

    #[tokio::test]
    async fn what_one_side_wrote_before_it_hung_up_arrives() {
        let (mut near, mut proxy, carrying) = carried().await;
        let sent = vec![7; 100 * CARRY_BYTES];
        let mut received = Vec::new();
        let send = async {
            near.write_all(&sent).await.unwrap();
            drop(near);
        };
        let (read, ()) = tokio::join!(proxy.read_to_end(&mut received), send);
        read.unwrap();
        assert_eq!(received, sent);
        carrying.await.unwrap().unwrap();

        let (mut near, mut proxy, carrying) = carried().await;
        let mut received = Vec::new();
        let send = async {
            proxy.write_all(&sent).await.unwrap();
            drop(proxy);
        };
        let (read, ()) = tokio::join!(near.read_to_end(&mut received), send);
        read.unwrap();
        assert_eq!(received, sent);
        drop(near);
        carrying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_proxy_that_goes_on_talking_holds_nothing_once_pingora_has_hung_up() {
        let (near, proxy, carrying) = carried().await;
        drop(near);
        // The proxy's end stays open: only our own end of it is over.
        carrying.await.unwrap().unwrap();
        drop(proxy);
    }
}
