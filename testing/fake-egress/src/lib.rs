//! An egress proxy for tests: HTTP CONNECT (clear or over TLS) and SOCKS5, with or without a login.
//!
//! It resolves no name but those that it was told ([`FakeEgress::lead`]) and `localhost`, so what reaches a made-up name
//! has gone through it. It remembers every destination it was asked for, and can be told to behave badly or to die.

mod connect;
mod socks5;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CONNECT, and requests in absolute form.
    Http,
    /// The same inside TLS, for `localhost` and 127.0.0.1; see [`FakeEgress::ca_pem`].
    Https,
    /// SOCKS5 with or without user and password.
    Socks5,
}

/// How it behaves towards who connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    #[default]
    Serves,
    /// It accepts and says nothing.
    Silent,
    /// It answers with a head, or bytes, that do not end.
    Endless,
}

/// A running egress proxy. Dropping it ends all its connections.
#[derive(Debug)]
pub struct FakeEgress {
    inner: Arc<Inner>,
    kind: Kind,
    address: SocketAddr,
    ca_pem: Option<String>,
    /// Ends what runs when it is dropped.
    _end: DropGuard,
}

#[derive(Debug)]
struct Inner {
    login: Option<(String, String)>,
    names: Mutex<HashMap<String, SocketAddr>>,
    log: Mutex<Log>,
    manner: Mutex<Manner>,
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct Log {
    connections: usize,
    refused: usize,
    destinations: Vec<String>,
}

impl FakeEgress {
    /// Listens on a free port of 127.0.0.1. With a login it lets nobody else through.
    pub async fn start(kind: Kind, login: Option<(&str, &str)>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
        let address = listener.local_addr().context("read the listening address")?;
        let (acceptor, ca_pem) = match kind {
            Kind::Https => {
                let (acceptor, ca_pem) = tls::identity()?;
                (Some(acceptor), Some(ca_pem))
            }
            Kind::Http | Kind::Socks5 => (None, None),
        };
        let end = CancellationToken::new();
        let inner = Arc::new(Inner {
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
            names: Mutex::default(),
            log: Mutex::default(),
            manner: Mutex::default(),
            end: end.clone(),
        });
        tokio::spawn(accept(listener, kind, acceptor, Arc::clone(&inner)));
        Ok(Self { inner, kind, address, ca_pem, _end: end.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its url, login included.
    pub fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks5 => "socks5h",
        };
        let login = self.inner.login.as_ref().map(|(user, password)| format!("{user}:{password}@"));
        format!("{scheme}://{}{}", login.unwrap_or_default(), self.address)
    }

    /// The certificate that an https one is trusted by.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Makes a name known to it, and to nobody else.
    pub fn lead(&self, name: &str, to: SocketAddr) {
        self.inner.names.lock().insert(name.to_owned(), to);
    }

    /// How it behaves from now on.
    pub fn behave(&self, manner: Manner) {
        *self.inner.manner.lock() = manner;
    }

    /// `host:port` of everything that somebody was let through to, in order.
    pub fn destinations(&self) -> Vec<String> {
        self.inner.log.lock().destinations.clone()
    }

    /// How often somebody connected to it.
    pub fn connections(&self) -> usize {
        self.inner.log.lock().connections
    }

    /// How often a login was refused.
    pub fn refused(&self) -> usize {
        self.inner.log.lock().refused
    }

    /// Stops listening and cuts every connection.
    pub fn kill(&self) {
        self.inner.end.cancel();
    }
}

async fn accept(listener: TcpListener, kind: Kind, acceptor: Option<TlsAcceptor>, inner: Arc<Inner>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = inner.end.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        inner.log.lock().connections += 1;
        let (inner, acceptor) = (Arc::clone(&inner), acceptor.clone());
        tokio::spawn(async move {
            let end = inner.end.clone();
            let serve = async {
                match acceptor {
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => inner.serve(kind, stream).await,
                        Err(error) => Err(error),
                    },
                    None => inner.serve(kind, stream).await,
                }
            };
            // Who connects may leave at any time; that is no failure of a test's proxy.
            tokio::select! {
                Ok(()) | Err(_) = serve => {}
                () = end.cancelled() => {}
            }
        });
    }
}

impl Inner {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, kind: Kind, stream: S) -> io::Result<()> {
        let manner = *self.manner.lock();
        if manner == Manner::Silent {
            self.end.cancelled().await;
            return Ok(());
        }
        match kind {
            Kind::Http | Kind::Https => connect::serve(self, stream, manner == Manner::Endless).await,
            Kind::Socks5 => socks5::serve(self, stream, manner == Manner::Endless).await,
        }
    }

    /// Connects to where somebody wants to go. A name that it was not told leads nowhere.
    async fn reach(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let address = match (self.names.lock().get(host), host.parse::<IpAddr>()) {
            (Some(address), _) => *address,
            (None, Ok(ip)) => SocketAddr::new(ip, port),
            (None, Err(_)) if host == "localhost" => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            (None, Err(_)) => return Err(io::ErrorKind::NotFound.into()),
        };
        let stream = TcpStream::connect(address).await?;
        self.log.lock().destinations.push(format!("{host}:{port}"));
        Ok(stream)
    }

    /// Whether this login opens it.
    fn admits(&self, login: Option<(&str, &str)>) -> bool {
        let wanted = self.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        let is_admitted = wanted.is_none() || wanted == login;
        if !is_admitted {
            self.log.lock().refused += 1;
        }
        is_admitted
    }
}
