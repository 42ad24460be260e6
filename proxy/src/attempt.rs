//! Waits for the first meaningful answer of a leg: the head, and for an event stream the first event that says more
//! than "created". Until then nothing has gone downstream that could not be taken back.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pingora::http::ResponseHeader;
use tokio::time::Instant;

use crate::leg::{Leg, LegItem};
use crate::relay::{ClientGone, Downstream, Event, EventSplitter, Vigil};
use crate::usage_report::active_limit;

/// How much of an error body is kept.
const ERROR_BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest wait for an error body.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How much is held while the first meaningful event is awaited.
const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a leg began with.
#[derive(Debug)]
pub(crate) enum FirstAnswer {
    /// A stream whose first meaningful event is no failure.
    Started(Started),
    /// A head with an error status.
    Refused(Refusal),
    /// A stream whose first meaningful event is a failure.
    FailedEvent(FailedStart),
    /// A stream that ended before it said anything.
    EndedEarly,
    /// No head.
    NoHead,
    /// No head, or no event, in time.
    TimedOut,
}

impl FirstAnswer {
    /// The limit that metered it, as upstream spells it, if it was named.
    pub(crate) fn active_limit(&self) -> Option<&str> {
        match self {
            Self::Started(started) | Self::FailedEvent(FailedStart { started, .. }) => active_limit(&started.headers),
            Self::Refused(refusal) => refusal.active_limit.as_deref(),
            Self::EndedEarly | Self::NoHead | Self::TimedOut => None,
        }
    }
}

/// A stream that has begun.
#[derive(Debug, Default)]
pub(crate) struct Started {
    /// Upstream's status.
    pub(crate) status: u16,
    /// Upstream's headers.
    pub(crate) headers: HeaderMap,
    /// When they came.
    pub(crate) head_at: Option<std::time::Instant>,
    /// The bytes that were held, in order.
    pub(crate) held: Vec<Bytes>,
}

/// A stream that began with a failure.
#[derive(Debug)]
pub(crate) struct FailedStart {
    /// What was held, the failure included.
    pub(crate) started: Started,
    /// The failure event's data.
    pub(crate) event: Bytes,
}

/// An error reply.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The `Retry-After` header.
    pub(crate) retry_after: Option<String>,
    /// The limit that metered it, if it was named.
    pub(crate) active_limit: Option<String>,
    /// The body, cut at its bound.
    pub(crate) body: Bytes,
}

/// How long each kind of silence may last.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// Until the head.
    pub(crate) first_byte: Duration,
    /// Between two parts of the body.
    pub(crate) idle: Duration,
    /// Whether the head alone is no answer yet: a model says more in its first event.
    pub(crate) awaits_event: bool,
}

/// Waits for the first answer of `leg`.
///
/// # Errors
/// When the client left.
pub(crate) async fn first_answer(
    leg: &mut Leg,
    downstream: &mut Downstream<'_>,
    vigil: &mut Vigil,
    patience: Patience,
) -> Result<FirstAnswer, ClientGone> {
    let mut limit = patience.first_byte;
    let mut head: Option<Box<ResponseHeader>> = None;
    let mut head_at = None;
    let mut splitter = EventSplitter::default();
    let mut held = Vec::new();
    let mut held_bytes = 0;
    loop {
        let Some(item) = vigil.wait(downstream, Instant::now() + limit, leg.next()).await? else {
            return Ok(FirstAnswer::TimedOut);
        };
        match item {
            LegItem::Head(answered) if answered.status.is_success() && !patience.awaits_event => {
                let (status, headers) = (answered.status.as_u16(), answered.headers.clone());
                let head_at = Some(std::time::Instant::now());
                return Ok(FirstAnswer::Started(Started { status, headers, head_at, held }));
            }
            LegItem::Head(answered) if answered.status.is_success() => {
                head = Some(answered);
                head_at = Some(std::time::Instant::now());
                limit = patience.idle;
            }
            LegItem::Head(refused) => return refusal(leg, downstream, &refused).await.map(FirstAnswer::Refused),
            LegItem::Body(bytes) => {
                held_bytes += bytes.len();
                held.push(bytes.clone());
                let mut first = FirstEvent::None;
                let split = splitter.push(&bytes, |event| first.look_at(event));
                let Some(answered) =
                    head.take_if(|_| split.is_err() || held_bytes > HELD_BYTES_MAX || !first.is_none())
                else {
                    continue;
                };
                let started =
                    Started { status: answered.status.as_u16(), headers: answered.headers.clone(), head_at, held };
                return Ok(match first {
                    FirstEvent::Failure(event) => FirstAnswer::FailedEvent(FailedStart { started, event }),
                    // More than we hold: let it go, the relay has bounds of its own.
                    FirstEvent::None | FirstEvent::Meaningful => FirstAnswer::Started(started),
                });
            }
            LegItem::End | LegItem::Failed => {
                return Ok(if head.is_some() { FirstAnswer::EndedEarly } else { FirstAnswer::NoHead });
            }
        }
    }
}

/// The first meaningful event of some bytes.
enum FirstEvent {
    None,
    Meaningful,
    Failure(Bytes),
}

impl FirstEvent {
    const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    fn look_at(&mut self, event: Event<'_>) {
        if !self.is_none() {
            return;
        }
        match event.kind() {
            "response.created" | "response.in_progress" | "response.queued" | "keepalive" => {}
            kind if kind.starts_with("codex.") => {}
            "response.failed" | "error" => *self = Self::Failure(Bytes::from(event.data().into_owned())),
            _ if event.data().is_empty() => {}
            _ => *self = Self::Meaningful,
        }
    }
}

async fn refusal(leg: &mut Leg, downstream: &mut Downstream<'_>, head: &ResponseHeader) -> Result<Refusal, ClientGone> {
    let retry_after = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let mut body = Vec::new();
    let deadline = Instant::now() + ERROR_BODY_TIMEOUT;
    while body.len() < ERROR_BODY_BYTES_MAX {
        let item = tokio::select! {
            biased;
            item = leg.next() => item,
            gone = downstream.client_gone() => return Err(gone),
            () = tokio::time::sleep_until(deadline) => break,
        };
        match item {
            LegItem::Body(bytes) => body.extend_from_slice(&bytes),
            LegItem::End | LegItem::Failed => break,
            LegItem::Head(_) => {}
        }
    }
    Ok(Refusal {
        status: head.status.as_u16(),
        retry_after: retry_after.map(str::to_owned),
        active_limit: active_limit(&head.headers).map(str::to_owned),
        body: Bytes::from(body),
    })
}
