//! Knowing when bytes have really left: frames that carry a receipt, and the socket wrapper that redeems it.
//!
//! HTTP libraries take a body frame long before it is written. A [`Frame`] with a receipt files it with its connection's
//! [`FlushQueue`] once its last byte has been copied out for writing, and [`Tracked`] delivers everything filed as soon
//! as the socket has taken all bytes and been flushed. If the stream dies on the way the receipt is dropped instead.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::record::{Outcome, Ticket};

/// What happens once the bytes have left.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// The request ends like this.
    End(Ticket, Outcome),
    /// Somebody waits for it.
    Wake(oneshot::Sender<()>),
}

impl Delivery {
    fn deliver(self) {
        match self {
            Self::End(ticket, outcome) => ticket.end(outcome),
            // The waiting body may have been dropped with its stream; then nobody is left to tell.
            Self::Wake(sender) => drop(sender.send(())),
        }
    }
}

/// The deliveries of one connection that wait for its next complete flush.
#[derive(Debug, Default)]
pub(crate) struct FlushQueue {
    is_waiting: AtomicBool,
    deliveries: Mutex<Vec<Delivery>>,
    reset_on_close: AtomicBool,
}

impl FlushQueue {
    fn file(&self, delivery: Delivery) {
        self.deliveries.lock().push(delivery);
        self.is_waiting.store(true, Ordering::Release);
    }

    /// Makes the peer see a reset when the connection closes.
    pub(crate) fn reset_on_close(&self) {
        self.reset_on_close.store(true, Ordering::Release);
    }

    fn flushed(&self) {
        if self.is_waiting.swap(false, Ordering::AcqRel) {
            let deliveries = std::mem::take(&mut *self.deliveries.lock());
            deliveries.into_iter().for_each(Delivery::deliver);
        }
    }
}

/// A delivery and the queue in which it will wait.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) queue: Arc<FlushQueue>,
    pub(crate) delivery: Delivery,
}

/// A piece of a response body.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Bytes,
    receipt: Option<Receipt>,
}

impl Frame {
    pub(crate) fn plain(bytes: Bytes) -> Self {
        Self { bytes, receipt: None }
    }

    /// `bytes` must not be empty: an empty frame is never written.
    pub(crate) fn with_receipt(bytes: Bytes, receipt: Receipt) -> Self {
        debug_assert!(!bytes.is_empty(), "a receipt on nothing is never redeemed");
        Self { bytes, receipt: Some(receipt) }
    }
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if self.bytes.is_empty()
            && let Some(receipt) = self.receipt.take()
        {
            receipt.queue.file(receipt.delivery);
        }
    }
}

/// A socket (or the TLS session on it) that tells its queue about flushes.
#[derive(Debug)]
pub(crate) struct Tracked<S> {
    socket: S,
    queue: Arc<FlushQueue>,
}

impl<S> Tracked<S> {
    pub(crate) fn new(socket: S, queue: Arc<FlushQueue>) -> Self {
        Self { socket, queue }
    }
}

impl<S: Read + Unpin> Read for Tracked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

// Vectored writes stay off: copying small events into one buffer is cheaper than a list of slices per event.
impl<S: Write + Unpin> Write for Tracked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Both HTTP versions call this only after the socket has taken everything they had buffered.
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.queue.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A TCP connection that can be made to close with a reset.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    queue: Arc<FlushQueue>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, queue: Arc<FlushQueue>) -> Self {
        Self { stream, queue }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.queue.reset_on_close.load(Ordering::Acquire) {
            // Where it cannot be set the peer sees an ordinary close, which is torn enough.
            drop(self.stream.set_zero_linger());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
