//! Runs the data plane: its listener, its background tasks, and an orderly stop.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_lb_shared::ids::ExchangeId;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::StoreError;
use parking_lot::Mutex;
use pingora::apps::HttpServerOptions;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora_proxy::{ProxyServiceBuilder, Session};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::affinity::StickySessions;
use crate::egress::EgressLegs;
use crate::file_pins::FilePins;
use crate::gateway::Gateway;
use crate::intake::BodyBudget;
use crate::model_notes::ModelNotes;
use crate::models::CatalogEtag;
use crate::origin::Origin;
use crate::queue::SlotQueue;
use crate::relay::Downstream;
use crate::replay_store::ReplayStore;
use crate::response_owners::ResponseOwners;
use crate::settlement::{Recorder, recorder};
use crate::thread_claims::ThreadClaims;

/// Buffers of a client's connection: small, since events are small and connections are many.
const CONNECTION_BUFFER_BYTES: usize = 4_096;
/// Idle connections to upstream that are kept.
const UPSTREAM_KEEPALIVE_POOL: usize = 512;
/// How often a stopping data plane looks whether exchanges still run.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Longest wait for the listener to close and for idle connections to be told.
const LISTENER_STOP_MAX: Duration = Duration::from_secs(5);
/// Longest wait for exchanges to tell their clients that the drain time-out ran out.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// What every exchange works with.
pub(crate) struct DataPlane {
    pub(crate) state: Arc<SharedState>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) recorder: Recorder,
    pub(crate) sticky_sessions: Arc<StickySessions>,
    pub(crate) file_pins: FilePins,
    pub(crate) thread_claims: ThreadClaims,
    pub(crate) response_owners: ResponseOwners,
    pub(crate) replay_store: ReplayStore,
    pub(crate) model_notes: ModelNotes,
    pub(crate) catalog_etag: Arc<CatalogEtag>,
    pub(crate) body_budget: BodyBudget,
    pub(crate) queue: Arc<SlotQueue>,
    /// The drain time-out ran out: whatever still runs ends now.
    pub(crate) drain_over: CancellationToken,
    /// Where the control plane listens for what is handed on; `None` when nothing is.
    pub(crate) control_plane_socket: Option<PathBuf>,
}

impl DataPlane {
    /// The answer to a request.
    pub(crate) fn downstream<'s>(&self, session: &'s mut Session, exchange_id: ExchangeId) -> Downstream<'s> {
        Downstream::new(session, exchange_id, &self.state.config.proxy.cors_origins)
    }

    /// Whether requests that are not the data plane's are handed to the control plane.
    pub(crate) const fn hops_to_control_plane(&self) -> bool {
        self.control_plane_socket.is_some()
    }
}

/// Why the data plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not ours.
    #[error("listen on {address} (proxy.listen)")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The conversations' accounts could not be loaded.
    #[error("load the sticky sessions")]
    Store(#[from] StoreError),
    /// The upstream certificates cannot be used; Pingora would panic over them.
    #[error("read the certificates in {path} (upstream.ca_file)")]
    CaFile {
        /// The configured file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A data plane that listens.
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    state: Arc<SharedState>,
    stop_listening: watch::Sender<bool>,
    service: JoinHandle<()>,
    writer: JoinHandle<()>,
    background_stop: CancellationToken,
    writer_stop: CancellationToken,
    drain_over: CancellationToken,
}

/// Starts the data plane.
///
/// # Errors
/// When it cannot listen, or cannot read the configured certificates.
pub async fn serve(state: Arc<SharedState>, control_plane_socket: Option<PathBuf>) -> Result<Listening, ServeError> {
    let address = state.config.proxy.listen;
    let listen_error = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(listen_error)?;
    listener.set_nonblocking(true).map_err(listen_error)?;
    let bound = listener.local_addr().map_err(listen_error)?;

    let background_stop = CancellationToken::new();
    let upstream = &state.config.upstream;
    let (dialer, tasks) = (state.egress_dialer.clone(), state.tasks.clone());
    let (host, port) = (upstream.base_url.host(), upstream.base_url.port());
    let origin = Origin::new(upstream, EgressLegs::new(dialer, host, port, tasks, background_stop.clone()));
    origin.discover().await;
    state.tasks.spawn({
        let (origin, stop) = (Arc::clone(&origin), background_stop.clone());
        async move { origin.run_discovery(stop).await }
    });

    let sticky_sessions = Arc::new(StickySessions::new());
    let follow = sticky_sessions.load(&state).await?;
    state.tasks.spawn({
        let (sessions, state, stop) = (Arc::clone(&sticky_sessions), Arc::clone(&state), background_stop.clone());
        async move { sessions.run(state, follow, stop).await }
    });
    let (recorder, writer) = recorder(&state);
    let (drain_over, writer_stop) = (CancellationToken::new(), CancellationToken::new());
    let plane = DataPlane {
        state: Arc::clone(&state),
        origin,
        recorder,
        sticky_sessions: Arc::clone(&sticky_sessions),
        file_pins: FilePins::new(Arc::clone(&sticky_sessions)),
        thread_claims: ThreadClaims::new(Arc::clone(&sticky_sessions)),
        response_owners: ResponseOwners::new(),
        replay_store: ReplayStore::new(&state.config.replay, state.config.intake.responses_body_bytes_max),
        model_notes: ModelNotes::new(),
        catalog_etag: Arc::default(),
        queue: SlotQueue::of(&state.pool),
        body_budget: BodyBudget::new(state.config.intake.buffered_bytes_max),
        drain_over: drain_over.clone(),
        control_plane_socket,
    };
    let mut service = ProxyServiceBuilder::new(&server_conf(&state)?, Gateway::new(plane))
        .name("codex-lb data plane")
        .server_options(HttpServerOptions::default())
        .build();
    // Pingora takes a listener that somebody else bound by its address: so a busy port is our error and not its panic.
    let mut fds = Fds::new();
    fds.add(bound.to_string(), listener.into_raw_fd());
    let fds: ListenFds = Arc::new(Mutex::new(fds));
    let buffers = L4BufferSettings::new(CONNECTION_BUFFER_BYTES, CONNECTION_BUFFER_BYTES);
    service.add_listener(ListenerConfig::tcp(bound.to_string()).l4_buffer(buffers));
    let (stop_listening, stopped) = watch::channel(false);
    Ok(Listening {
        address: bound,
        state,
        stop_listening,
        service: tokio::spawn(async move { service.start_service(Some(fds), stopped, 1).await }),
        writer: tokio::spawn(writer.run(writer_stop.clone())),
        writer_stop,
        drain_over,
        background_stop,
    })
}

fn server_conf(state: &SharedState) -> Result<Arc<ServerConf>, ServeError> {
    let ca_file = state.config.upstream.ca_file.as_ref();
    if let Some(path) = ca_file {
        std::fs::read(path).map_err(|source| ServeError::CaFile { path: path.clone(), source })?;
    }
    Ok(Arc::new(ServerConf {
        ca_file: ca_file.map(|path| path.to_string_lossy().into_owned()),
        upstream_keepalive_pool_size: UPSTREAM_KEEPALIVE_POOL,
        // One place decides about retries: the exchange.
        max_retries: 1,
        ..ServerConf::default()
    }))
}

impl Listening {
    /// Stops listening, lets running exchanges end until the deadline, ends the rest, and writes what was used.
    pub async fn stop(mut self, drain_timeout: Duration) {
        let deadline = Instant::now() + drain_timeout;
        // The service may have ended already; then nobody listens any more either.
        if self.stop_listening.send(true).is_err() {
            warn!("the data plane had stopped listening before it was told to");
        }
        // Not aborted: its last act wakes the idle connections, which would otherwise wait for ever and go on serving.
        if tokio::time::timeout(LISTENER_STOP_MAX, &mut self.service).await.is_err() {
            warn!("the listener did not close in time");
            self.service.abort();
        }
        if !self.is_idle_by(deadline).await {
            let left = self.state.metrics.in_flight.get();
            warn!(exchanges = left, "the drain time-out ran out before all exchanges ended");
            self.drain_over.cancel();
            self.is_idle_by(Instant::now() + FAREWELL_MAX).await;
        }
        self.background_stop.cancel();
        self.writer_stop.cancel();
        if self.writer.await.is_err() {
            warn!("the usage writer panicked");
        }
        info!("the data plane has stopped");
    }

    /// Waits until no exchange runs. Whether that was in time.
    async fn is_idle_by(&self, deadline: Instant) -> bool {
        while self.state.metrics.in_flight.get() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
        true
    }
}
