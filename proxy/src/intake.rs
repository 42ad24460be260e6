//! Reads a request's body up to its bound, decodes it under a bound, and finds its top-level members. What we do not
//! act on stays byte for byte as it came.

mod budget;
mod decode;
mod json_object;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use pingora::ErrorType;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::rejection::Rejection;
pub(crate) use budget::{BodyBudget, HeldBytes};
pub(crate) use json_object::{JsonObject, Patch, json_string};

/// How a body may arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Largest body, as sent and decoded.
    pub(crate) bytes_max: u64,
    /// Longest wait for the next piece.
    pub(crate) piece_timeout: Duration,
    /// How many times its size the body takes in memory at most, until it is sent: itself, and what is made of it.
    pub(crate) copies: u64,
}

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum NoBody {
    /// It may not be, or cannot be read.
    Rejected(Rejection),
    /// The client left before its end.
    ClientGone,
}

impl From<Rejection> for NoBody {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Reads and decodes the body of a request whose caller is proven.
///
/// # Errors
/// When the client left; 413 above the bound, 415 for an unknown coding, 400 for a corrupt body, 408 when it stops
/// arriving, 503 when there is no memory for it.
pub(crate) async fn read_body(
    session: &mut Session,
    bounds: Bounds,
    held: &mut HeldBytes<'_>,
) -> Result<Bytes, NoBody> {
    let coding = content_coding(&session.req_header().headers)?;
    let declared = declared_length(&session.req_header().headers).unwrap_or(0);
    if declared > bounds.bytes_max {
        return Err(Rejection::payload_too_large(bounds.bytes_max).into());
    }
    // What is declared is held at once: bodies that grow side by side could wait for each other for ever.
    held.grow_to(bounds.copies * declared).await?;
    if session.req_header().headers.contains_key(http::header::EXPECT) {
        session.downstream_session.write_continue_response().await.map_err(|_| NoBody::ClientGone)?;
    }
    // Pingora's own time-out would strike first and call it something else.
    session.downstream_session.set_read_timeout(Some(bounds.piece_timeout + Duration::from_secs(5)));
    let began = Instant::now();
    let mut body = BytesMut::with_capacity(usize::try_from(declared).unwrap_or_default());
    loop {
        let read = tokio::time::timeout(bounds.piece_timeout, session.downstream_session.read_request_body());
        let piece = match read.await.map_err(|_| Rejection::body_timeout())? {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) if matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError) => {
                return Err(NoBody::ClientGone);
            }
            Err(_) => {
                // Where this body ends nobody knows, so nothing behind it may be taken for a request.
                session.set_keepalive(None);
                return Err(Rejection::body_cut().into());
            }
        };
        let length = body.len() as u64 + piece.len() as u64;
        if length > bounds.bytes_max {
            return Err(Rejection::payload_too_large(bounds.bytes_max).into());
        }
        // Whoever trickles a body holds memory that others wait for.
        let spent = began.elapsed();
        if spent > bounds.piece_timeout && length < spent.as_secs() * BYTES_PER_SECOND_MIN {
            return Err(Rejection::body_timeout().into());
        }
        held.grow_to(bounds.copies * length).await?;
        body.extend_from_slice(&piece);
    }
    match coding {
        None => Ok(body.freeze()),
        Some(coding) => Ok(decode::decode(coding, body.freeze(), bounds.bytes_max, held).await?),
    }
}

/// Slowest upload, on average, once it has taken longer than one piece may.
const BYTES_PER_SECOND_MIN: u64 = 16 * 1024;

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn content_coding(headers: &HeaderMap) -> Result<Option<decode::Coding>, Rejection> {
    let mut codings = headers.get_all(http::header::CONTENT_ENCODING).iter();
    let coding = match codings.next().map(http::HeaderValue::to_str) {
        None => return Ok(None),
        Some(Ok(text)) => decode::Coding::parse(text.trim()),
        Some(Err(_)) => Err(()),
    };
    // Several codings on top of each other are legal, used by nobody, and a way to make bombs.
    if codings.next().is_some() {
        Err(Rejection::unsupported_encoding())
    } else {
        coding.map_err(|()| Rejection::unsupported_encoding())
    }
}
