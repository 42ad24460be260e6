//! A listener that holds only so many connections, and none that is silent for long.
//!
//! axum's own loop takes whatever comes and waits for ever for a request's first byte. The control plane shares its
//! process, and so its file descriptors, with the data plane, which must not run out of them.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::access::PeerAddress;

/// Connections at once; whoever comes then waits in the operating system's queue.
const CONNECTIONS_MAX: usize = 256;

/// Accepts within the bounds.
pub(crate) struct Bounded<L> {
    listener: L,
    free: Arc<Semaphore>,
    silence_max: Duration,
}

impl<L> Bounded<L> {
    /// `silence_max` is the longest time without a byte in either direction; more than any request may take.
    pub(crate) fn new(listener: L, silence_max: Duration) -> Self {
        Self::with_bounds(listener, CONNECTIONS_MAX, silence_max)
    }

    fn with_bounds(listener: L, connections_max: usize, silence_max: Duration) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(connections_max)), silence_max }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed, so there always is a permit in the end.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let silent_until = Box::pin(sleep_until(Instant::now() + self.silence_max));
        (Connection { stream, silent_until, silence_max: self.silence_max, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Bounded<TcpListener>>> for PeerAddress {
    fn connect_info(stream: IncomingStream<'_, Bounded<TcpListener>>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection that fails once it has been silent for too long.
pub(crate) struct Connection<S> {
    stream: S,
    silent_until: Pin<Box<Sleep>>,
    silence_max: Duration,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    /// Passes on what the stream said, and puts the end of silence off if it said something.
    fn heard<T>(&mut self, said: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            let silence_max = self.silence_max;
            self.silent_until.as_mut().reset(Instant::now() + silence_max);
            return said;
        }
        self.silent_until.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let said = pin!(&mut self.stream).poll_read(context, into);
        self.heard(said, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let said = pin!(&mut self.stream).poll_write(context, bytes);
        self.heard(said, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = pin!(&mut self.stream).poll_write_vectored(context, slices);
        self.heard(said, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    async fn listener(connections_max: usize, silence_max: Duration) -> (Bounded<TcpListener>, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Bounded::with_bounds(listener, connections_max, silence_max), address)
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_waits_until_one_ends() {
        let (mut listener, address) = listener(1, Duration::from_secs(60)).await;
        let (_first, _second) =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (accepted, _) = listener.accept().await;
        let soon = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
        assert!(soon.is_err());
        drop(accepted);
        listener.accept().await;
    }

    #[tokio::test]
    async fn a_silent_connection_ends_and_one_that_speaks_goes_on() {
        let (mut listener, address) = listener(1, Duration::from_millis(200)).await;
        let mut peer = TcpStream::connect(address).await.unwrap();
        let (mut accepted, _) = listener.accept().await;
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(75)).await;
            peer.write_all(b"x").await.unwrap();
            assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        }
        assert_eq!(accepted.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
