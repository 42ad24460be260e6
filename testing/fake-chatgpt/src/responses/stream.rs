//! Sends a plan: a response body that is one event per frame and keeps the plan's pace.
//!
//! The body owns the request's ticket until the terminal event, whose frame takes it along. So a stream that is dropped
//! on the way reports itself as cancelled, and one whose last event is written reports itself as ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame as HttpFrame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::plan::{Plan, Step};
use super::render::DeltaCursor;
use crate::record::{Outcome, Ticket};
use crate::wire::{Delivery, FlushQueue, Frame, Receipt};

/// The fake ended the connection or the stream on purpose.
#[derive(Debug)]
pub(crate) struct Torn;

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("torn by a script")
    }
}

impl std::error::Error for Torn {}

/// Every response body of the fake.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// A whole body, or none once it has been taken.
    Whole(Option<Frame>, u64),
    /// A scripted stream.
    Stream(Box<EventStream>),
}

impl Body for ReplyBody {
    type Data = Frame;
    type Error = Torn;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<HttpFrame<Frame>, Torn>>> {
        match self.get_mut() {
            Self::Whole(frame, _) => Poll::Ready(frame.take().map(|frame| Ok(HttpFrame::data(frame)))),
            Self::Stream(stream) => stream.poll_next(cx).map(|next| next.map(|frame| frame.map(HttpFrame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(frame, _) => frame.is_none(),
            Self::Stream(stream) => stream.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(_, length) => SizeHint::with_exact(*length),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A plan in progress.
#[derive(Debug)]
pub(crate) struct EventStream {
    steps: std::iter::Peekable<std::vec::IntoIter<Step>>,
    deltas: Option<DeltaCursor>,
    interval: Option<Duration>,
    coalesce: bool,
    timer: Pin<Box<Sleep>>,
    is_timer_set: bool,
    /// When the next delta is due, if there is a pace.
    due: Option<Instant>,
    flushed: Option<oneshot::Receiver<()>>,
    ticket: Option<Ticket>,
    queue: Arc<FlushQueue>,
}

impl EventStream {
    pub(crate) fn new(plan: Plan, ticket: Ticket, queue: Arc<FlushQueue>) -> Self {
        Self {
            steps: plan.steps.into_iter().peekable(),
            deltas: None,
            interval: plan.interval,
            coalesce: plan.coalesce && plan.interval.is_none(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            is_timer_set: false,
            due: None,
            flushed: None,
            ticket: Some(ticket),
            queue,
        }
    }

    fn is_done(&self) -> bool {
        // The terminal event takes the ticket along.
        self.ticket.is_none()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Torn>>> {
        loop {
            if self.is_timer_set {
                ready!(self.timer.as_mut().poll(cx));
                self.is_timer_set = false;
            }
            if self.deltas.is_some()
                && let Some(frame) = ready!(self.poll_delta(cx))
            {
                return Poll::Ready(Some(Ok(frame)));
            }
            if let Some(flushed) = &mut self.flushed {
                // An error says that the frame before was dropped unsent, so there is nothing to wait for.
                drop(ready!(Pin::new(flushed).poll(cx)));
                self.flushed = None;
            }
            if matches!(self.steps.peek(), Some(Step::Forever)) {
                return Poll::Pending;
            }
            let Some(step) = self.steps.next() else { return Poll::Ready(None) };
            match step {
                Step::Event(bytes) => return Poll::Ready(Some(Ok(self.frame(bytes, 1)))),
                Step::Deltas(run) => {
                    self.deltas = Some(DeltaCursor::new(run));
                    self.due = self.interval.map(|_| Instant::now());
                }
                Step::Pause(duration) => self.set_timer(Instant::now() + duration),
                // Never taken: the stream stops in front of it.
                Step::Forever => {}
                Step::Tear { reset } => {
                    if reset {
                        self.queue.reset_on_close();
                    }
                    if let Some(ticket) = self.ticket.take() {
                        ticket.end(Outcome::Torn);
                    }
                    return Poll::Ready(Some(Err(Torn)));
                }
                Step::Terminal(bytes, terminal, usage) => {
                    let outcome = Outcome::Ended { terminal, usage };
                    return Poll::Ready(
                        self.ticket.take().map(|ticket| Ok(last_frame(bytes, ticket, outcome, &self.queue))),
                    );
                }
            }
        }
    }

    /// The next delta when it is due; `None` when the run is over.
    fn poll_delta(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let is_over = self.deltas.as_ref().is_none_or(DeltaCursor::is_over);
        if let (false, Some(due), Some(interval)) = (is_over, self.due, self.interval) {
            if due > Instant::now() {
                self.set_timer(due);
                ready!(self.timer.as_mut().poll(cx));
                self.is_timer_set = false;
            }
            // Counted from when it was due, so that a late timer does not slow the stream down.
            self.due = Some(due + interval);
        }
        let Some(cursor) = &mut self.deltas else { return Poll::Ready(None) };
        let next = if self.coalesce { cursor.next_block() } else { cursor.next_event().map(|event| (event, 1)) };
        match next {
            Some((bytes, events)) => Poll::Ready(Some(self.frame(bytes, events))),
            None => {
                self.deltas = None;
                Poll::Ready(None)
            }
        }
    }

    fn set_timer(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
        self.is_timer_set = true;
    }

    fn frame(&mut self, bytes: Bytes, events: u64) -> Frame {
        if let Some(ticket) = &self.ticket {
            ticket.events_sent(events);
        }
        let is_last_before_tear = matches!(self.steps.peek(), Some(Step::Tear { .. }));
        if !is_last_before_tear {
            return Frame::plain(bytes);
        }
        // Within a run of deltas each one asks; the last receiver is the one that counts.
        let (sender, receiver) = oneshot::channel();
        self.flushed = Some(receiver);
        Frame::with_receipt(bytes, Receipt { queue: self.queue.clone(), delivery: Delivery::Wake(sender) })
    }
}

/// The frame that ends a request once it is written.
pub(crate) fn last_frame(bytes: Bytes, ticket: Ticket, outcome: Outcome, queue: &Arc<FlushQueue>) -> Frame {
    match outcome {
        Outcome::Ended { .. } => ticket.events_sent(1),
        Outcome::InFlight | Outcome::Answered | Outcome::Torn | Outcome::Cancelled => {}
    }
    let receipt = Receipt { queue: queue.clone(), delivery: Delivery::End(ticket, outcome) };
    Frame::with_receipt(bytes, receipt)
}
