//! Connections: accepting them, speaking HTTP/1.1 or HTTP/2 on them, and tearing them down.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fake::Fake;
use crate::route;
use crate::wire::{FlushQueue, Socket, Tracked};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// What one HTTP/1.1 connection buffers before it waits for the peer.
const HTTP1_BUFFER_BYTES: usize = 64 * 1024;
const HTTP2_STREAMS_MAX: u32 = 10_000;
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How long to pause after `accept` failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The accepting task and the connections. Dropping it cancels them all.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    /// Cancelled to drop the connections that are open; the next ones get a new one.
    open: Arc<Mutex<CancellationToken>>,
    tasks: TaskTracker,
}

impl Server {
    pub(crate) fn start(listener: TcpListener, acceptor: Option<TlsAcceptor>, fake: Arc<Fake>) -> Self {
        let stop = CancellationToken::new();
        let open = Arc::new(Mutex::new(stop.child_token()));
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, acceptor, fake, stop.clone(), open.clone(), tasks.clone()));
        Self { stop, open, tasks }
    }

    pub(crate) fn drop_connections(&self) {
        std::mem::replace(&mut *self.open.lock(), self.stop.child_token()).cancel();
    }

    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    fake: Arc<Fake>,
    stop: CancellationToken,
    open: Arc<Mutex<CancellationToken>>,
    tasks: TaskTracker,
) {
    let numbers = AtomicU64::new(1);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let closed = open.lock().clone();
        let connection = Connection {
            fake: fake.clone(),
            number: numbers.fetch_add(1, Ordering::Relaxed),
            queue: Arc::new(FlushQueue::default()),
        };
        let acceptor = acceptor.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = connection.serve(stream, acceptor) => {}
            }
        });
    }
}

/// One connection, as its requests see it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) fake: Arc<Fake>,
    pub(crate) number: u64,
    pub(crate) queue: Arc<FlushQueue>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        // Without it small events would wait for each other's acknowledgements; a peer that is gone shows later.
        drop(stream.set_nodelay(true));
        let socket = Socket::new(stream, self.queue.clone());
        let Some(acceptor) = acceptor else { return self.serve_http1(socket).await };
        let Ok(Ok(session)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await else { return };
        if session.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.serve_http2(session).await;
        } else {
            self.serve_http1(session).await;
        }
    }

    async fn serve_http1(self, socket: impl AsyncRead + AsyncWrite + Unpin) {
        let io = Tracked::new(TokioIo::new(socket), self.queue.clone());
        let fake = self.fake.clone();
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .max_buf_size(HTTP1_BUFFER_BYTES)
            .serve_connection(io, service_fn(move |request| route::serve(self.clone(), request)));
        // Its failure is the client's going or a script's tearing; both are in the records.
        drop(Progress { connection: Box::pin(connection), fake }.await);
    }

    async fn serve_http2(self, socket: impl AsyncRead + AsyncWrite + Unpin) {
        let io = Tracked::new(TokioIo::new(socket), self.queue.clone());
        let fake = self.fake.clone();
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .serve_connection(io, service_fn(move |request| route::serve(self.clone(), request)));
        drop(Progress { connection: Box::pin(connection), fake }.await);
    }
}

/// A connection that says when it makes progress, for [`Fake::settled`].
struct Progress<F> {
    connection: Pin<Box<F>>,
    fake: Arc<Fake>,
}

impl<F: Future> Future for Progress<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let fake = self.fake.clone();
        let _progress = fake.progress.read();
        self.connection.as_mut().poll(cx)
    }
}
