//! Opens a connection through an egress proxy: to the proxy, TLS with it if it is an https one, then the handshake that
//! makes it connect to the destination. The destination's name goes to the proxy; nobody resolves it here.
//!
//! The two handshakes are hyper-util's, which control calls go through as well (reqwest is built on it), so both kinds of
//! calls get on with the same proxies. It reads at most 8 KiB of a CONNECT answer and 513 bytes of a SOCKS5 one.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt as _;

use super::Egress;
use super::pace::Pace;
use crate::domain::egress_proxy::{EgressAccess, EgressKind};

/// Opens connections through egress proxies.
#[derive(Clone)]
pub struct EgressDialer {
    tls: TlsConnector,
    timeout: Duration,
    pace: Arc<Pace>,
}

/// Longest trial, whatever a connection may take: a person waits for it.
const TRIAL_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// Why connections through egress proxies cannot be set up at all.
#[derive(Debug, thiserror::Error)]
pub enum EgressSetupError {
    /// The certificate file cannot be used.
    #[error("read the certificates in {path}")]
    CaFile {
        /// The configured file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The system's certificates cannot be used.
    #[error("set up TLS with egress proxies")]
    Tls(#[from] rustls::Error),
}

/// Why a connection through an egress proxy did not come about. Its texts hold neither user nor password.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// Nobody listens there, or its name cannot be resolved.
    #[error("connect to the egress proxy {place}")]
    Unreachable {
        /// Its url without a login.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS with the proxy itself failed.
    #[error("establish TLS with the egress proxy {place}")]
    ProxyTls {
        /// Its url without a login.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It wants another login, cannot reach the destination, or speaks something else.
    #[error("be let through by the egress proxy {place}")]
    NotLetThrough {
        /// Its url without a login.
        place: String,
        /// What it said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// All of it together took too long.
    #[error("connect through the egress proxy {place} within {} ms", .waited.as_millis())]
    TimedOut {
        /// Its url without a login.
        place: String,
        /// How long it may take.
        waited: Duration,
    },
    /// TLS with the destination failed.
    #[error("establish TLS with {host} through the egress proxy {place}")]
    DestinationTls {
        /// Its url without a login.
        place: String,
        /// The destination.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl EgressError {
    /// What was tried and why it failed, in one line.
    pub fn whole_story(&self) -> String {
        let mut story = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            story = format!("{story}: {error}");
            cause = error.source();
        }
        story
    }
}

impl EgressDialer {
    /// Trusts the system's certificates and those in `ca_file`. A connection may take `timeout` until the destination is
    /// reached.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn new(ca_file: Option<&Path>, timeout: Duration) -> Result<Self, EgressSetupError> {
        let extra = match ca_file {
            Some(path) => CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|source| EgressSetupError::CaFile { path: path.to_owned(), source })?,
            None => Vec::new(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider))?;
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), timeout, pace: Arc::default() })
    }

    /// A connection to `host` and `port` through the egress proxy. The name is resolved by the proxy.
    ///
    /// # Errors
    /// When it does not come about in time; a direct connection is never tried.
    pub async fn connect(&self, egress: &Egress, host: &str, port: u16) -> Result<EgressStream, EgressError> {
        let timed_out = || EgressError::TimedOut { place: egress.place(), waited: self.timeout };
        let connecting = self.connect_untimed(egress, host, port);
        tokio::time::timeout(self.timeout, connecting).await.map_err(|_| timed_out())?
    }

    /// Connects as [`Self::connect`] does and makes sure that the destination is who it should be, then hangs up. `None`
    /// if that was asked for too often just now.
    pub async fn try_out(
        &self,
        egress: &Egress,
        host: &str,
        port: u16,
        is_tls: bool,
    ) -> Option<Result<(), EgressError>> {
        if !self.pace.allows(Instant::now()) {
            return None;
        }
        let waited = self.timeout.min(TRIAL_TIMEOUT_MAX);
        let trying = async {
            let stream = self.connect_untimed(egress, host, port).await?;
            if is_tls {
                let failed =
                    |source| EgressError::DestinationTls { place: egress.place(), host: host.to_owned(), source };
                self.handshake(host, stream).await.map_err(failed)?;
            }
            Ok(())
        };
        let tried = tokio::time::timeout(waited, trying).await;
        Some(tried.unwrap_or_else(|_| Err(EgressError::TimedOut { place: egress.place(), waited })))
    }

    async fn connect_untimed(&self, egress: &Egress, host: &str, port: u16) -> Result<EgressStream, EgressError> {
        let endpoint = egress.access().endpoint();
        let place = || egress.place();
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
        let tcp = tcp
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|source| EgressError::Unreachable { place: place(), source })?;
        let stream = match endpoint.kind {
            EgressKind::Http | EgressKind::Socks5 => EgressStream::Plain(tcp),
            EgressKind::Https => {
                let tls = self.handshake(&endpoint.host, tcp).await;
                let tls = tls.map_err(|source| EgressError::ProxyTls { place: place(), source })?;
                EgressStream::Tls(Box::new(tls))
            }
        };
        let let_through = let_through(egress.access(), stream, host, port).await;
        let_through.map_err(|source| EgressError::NotLetThrough { place: place(), source })
    }

    async fn handshake<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.tls.connect(name, stream).await
    }
}

/// Makes the proxy at the other end of `stream` connect to the destination.
async fn let_through(
    access: &EgressAccess,
    stream: EgressStream,
    host: &str,
    port: u16,
) -> Result<EgressStream, Box<dyn Error + Send + Sync>> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let destination: Uri = format!("http://{authority}").parse()?;
    let mut stream = Some(TokioIo::new(stream));
    // Both handshakes want to connect by themselves; they get what is connected already.
    let connected = tower::service_fn(move |_: Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::other("a handshake connects once")) }
    });
    let placeholder = Uri::from_static("http://connected.invalid");
    let stream = match access.endpoint().kind {
        EgressKind::Http | EgressKind::Https => {
            let tunnel = Tunnel::new(placeholder, connected);
            let tunnel = match access.login() {
                Some((user, password)) => tunnel.with_auth(basic_credentials(user, password)?),
                None => tunnel,
            };
            tunnel.oneshot(destination).await?
        }
        EgressKind::Socks5 => {
            let socks = SocksV5::new(placeholder, connected).local_dns(false);
            let socks = match access.login() {
                Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()),
                None => socks,
            };
            socks.oneshot(destination).await?
        }
    };
    Ok(stream.into_inner())
}

fn basic_credentials(user: &str, password: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A connection that an egress proxy has let through.
pub enum EgressStream {
    /// To an http or socks5 proxy.
    Plain(TcpStream),
    /// Inside TLS to an https proxy.
    Tls(Box<TlsStream<TcpStream>>),
}

impl fmt::Debug for EgressStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "EgressStream::Plain(..)",
            Self::Tls(_) => "EgressStream::Tls(..)",
        })
    }
}

impl AsyncRead for EgressStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for EgressStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
