//! Runs the control plane: its listeners, its jobs, and an orderly stop.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use codex_lb_shared::state::SharedState;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::{Entrance, PeerAddress};
use crate::connections::Bounded;
use crate::hop_socket::{HopSocket, SocketFile};
use crate::router::router;
use crate::{jobs, metrics};

/// Longest wait for requests that are running at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// When a silent TCP connection is closed.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// When a silent connection of the data plane is closed: late, because it keeps them for its next request, and one that
/// we close may be the one it is about to use.
const HOP_SILENCE_MAX: Duration = Duration::from_secs(60 * 60);

/// Why the control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else listens there.
    #[error("listen on {address}: the port is taken; stop the program that uses it, or change {setting}")]
    PortTaken {
        /// The configured address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The address is not ours, or may not be used.
    #[error("listen on {address} ({setting})")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The data plane's way to the dashboard could not be made.
    #[error(
        "make the socket dashboard.sock in {data_dir}; make the directory writable, or set dashboard.on_proxy_port to \
         false"
    )]
    HopSocket {
        /// The data directory.
        data_dir: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// A control plane that listens.
#[derive(Debug)]
pub struct Listening {
    /// Where the control plane answers.
    pub address: SocketAddr,
    /// Where the metrics are.
    pub metrics_address: SocketAddr,
    /// Where the data plane hands on what is not its own; `None` when it is configured not to.
    pub hop_socket: Option<PathBuf>,
    stopping: CancellationToken,
    /// Name and task of everything that runs.
    running: Vec<(&'static str, JoinHandle<()>)>,
    socket_file: Option<SocketFile>,
}

/// Starts the control plane: the API and the dashboard on `admin.listen` and, if the data plane hands on to us, on a
/// private socket; the metrics on `metrics.listen`; and the jobs.
///
/// # Errors
/// When one of the listeners cannot be made. None listens then.
pub async fn serve(state: Arc<SharedState>) -> Result<Listening, ServeError> {
    let config = &state.config;
    let (listener, address) = listen(config.admin.listen, "admin.listen").await?;
    let (metrics_listener, metrics_address) = listen(config.metrics.listen, "metrics.listen").await?;
    let socket = if config.dashboard.on_proxy_port { Some(bind_hop_socket(&config.data_dir).await?) } else { None };

    let stopping = CancellationToken::new();
    let mut running = vec![
        ("api", tokio::spawn(serve_tcp(listener, router(Arc::clone(&state), Entrance::Tcp), stopping.clone()))),
        ("metrics", tokio::spawn(serve_tcp(metrics_listener, metrics::router(Arc::clone(&state)), stopping.clone()))),
        ("jobs", tokio::spawn(jobs::run(Arc::clone(&state), jobs::all(), stopping.clone()))),
    ];
    let mut socket_file = None;
    if let Some(HopSocket { listener, file }) = socket {
        socket_file = Some(file);
        let hop = serve_hop(listener, router(state, Entrance::Hop), stopping.clone());
        running.push(("hop", tokio::spawn(hop)));
    }
    let hop_socket = socket_file.as_ref().map(|file| file.path().to_owned());
    Ok(Listening { address, metrics_address, hop_socket, stopping, running, socket_file })
}

async fn listen(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            ServeError::PortTaken { address, setting, source }
        } else {
            ServeError::Listen { address, setting, source }
        }
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn bind_hop_socket(data_dir: &Path) -> Result<HopSocket, ServeError> {
    let bound = HopSocket::bind(data_dir).await;
    bound.map_err(|source| ServeError::HopSocket { data_dir: data_dir.to_owned(), source })
}

async fn serve_tcp(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let service = router.into_make_service_with_connect_info::<PeerAddress>();
    let served =
        axum::serve(Bounded::new(listener, SILENCE_MAX), service).with_graceful_shutdown(stopping.cancelled_owned());
    report_end(served.await);
}

async fn serve_hop(listener: tokio::net::UnixListener, router: Router, stopping: CancellationToken) {
    let served =
        axum::serve(Bounded::new(listener, HOP_SILENCE_MAX), router).with_graceful_shutdown(stopping.cancelled_owned());
    report_end(served.await);
}

/// axum promises that this never happens; if the promise breaks, nobody listens any more.
fn report_end(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a listener of the control plane ended");
    }
}

impl Listening {
    /// Stops listening and the jobs, gives running requests 5 s to end, and removes the socket.
    pub async fn stop(self) {
        self.stopping.cancel();
        let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
        for (name, mut task) in self.running {
            match tokio::time::timeout_at(deadline, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(name, %error, "a task of the control plane panicked"),
                Err(_) => {
                    task.abort();
                    warn!(name, "a task of the control plane did not end in time");
                }
            }
        }
        if let Some(file) = self.socket_file {
            file.remove();
        }
        info!("the control plane has stopped");
    }
}
