//! One try of an exchange on one account: a subrequest through the same gateway, fed with the body and read from here.

use std::sync::Arc;

use bytes::Bytes;
use codex_lb_shared::ids::ExchangeId;
use codex_lb_shared::pool::PooledAccount;
use http::{HeaderName, header};
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::subrequest::server::SubrequestHandle;
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::Session;
use pingora_proxy::subrequest::{BodyMode, Ctx};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::relay::Meter;
use crate::translate::UpstreamHead;

/// Pieces in which the body is fed. Larger ones stall some paths of Pingora's body reader (measured with 0.9.1).
const FEED_BYTES: usize = 64 * 1024;

/// What the stock phases need to run one leg. It travels in the subrequest's context.
pub(crate) struct LegOrder {
    /// The account whose token is injected.
    pub(crate) account: Arc<PooledAccount>,
    /// Where to connect.
    pub(crate) peer: HttpPeer,
    /// What stands in `Host`.
    pub(crate) authority: String,
    /// The path upstream, with its query.
    pub(crate) path: String,
    /// How upstream is asked.
    pub(crate) head: UpstreamHead,
    /// The body's length.
    pub(crate) body_bytes: usize,
    /// Sent as `x-request-id`.
    pub(crate) exchange_id: ExchangeId,
    /// Reads a model's answer as it passes.
    pub(crate) meter: Option<Arc<Mutex<Meter>>>,
}

/// What a leg yields.
#[derive(Debug)]
pub(crate) enum LegItem {
    /// The head of the answer.
    Head(Box<ResponseHeader>),
    /// Bytes of its body.
    Body(Bytes),
    /// The answer ended as HTTP ends; whether it was whole is the meter's word.
    End,
    /// The leg failed.
    Failed,
}

/// A running leg. Dropping it cancels it.
pub(crate) struct Leg {
    handle: SubrequestHandle,
    body: Bytes,
    feed: Feed,
    is_ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Feed {
    NotWanted,
    Feeding,
    Over,
}

impl Leg {
    /// Starts a leg. The front's header is what the leg is made from, so its framing is set to the new body's.
    pub(crate) fn start(session: &mut Session, order: LegOrder, body: Bytes, tasks: &TaskTracker) -> Option<Self> {
        set_framing(session, body.len()).ok()?;
        let spawner = session.subrequest_spawner.as_ref()?;
        let context = Ctx::builder().user_ctx(Box::new(Some(order))).body_mode(BodyMode::ExpectBody).build();
        let (prepared, handle) = spawner.create_subrequest(session.downstream_session.as_ref(), context);
        tasks.spawn(prepared.run());
        Some(Self { handle, body, feed: Feed::NotWanted, is_ended: false })
    }

    /// The next part of the answer, while the body is fed beside. Cancelling the wait is safe.
    pub(crate) async fn next(&mut self) -> LegItem {
        if self.is_ended {
            return LegItem::End;
        }
        loop {
            let SubrequestHandle { tx, rx, subreq_wants_body, .. } = &mut self.handle;
            let task = tokio::select! {
                biased;
                task = rx.recv() => task,
                () = feed(tx, subreq_wants_body, &mut self.body, &mut self.feed), if self.feed != Feed::Over => continue,
            };
            if let Some(item) = self.item(task) {
                return item;
            }
        }
    }

    fn item(&mut self, task: Option<HttpTask>) -> Option<LegItem> {
        match task {
            Some(HttpTask::Header(head, is_end)) => {
                self.is_ended = is_end;
                // 1xx heads are hop by hop; the real one follows.
                (!head.status.is_informational()).then_some(LegItem::Head(head))
            }
            Some(HttpTask::Body(bytes, is_end) | HttpTask::UpgradedBody(bytes, is_end)) => {
                self.is_ended = is_end;
                match bytes.filter(|bytes| !bytes.is_empty()) {
                    Some(bytes) => Some(LegItem::Body(bytes)),
                    None if is_end => Some(LegItem::End),
                    None => None,
                }
            }
            Some(HttpTask::Trailer(_) | HttpTask::Done) => {
                self.is_ended = true;
                Some(LegItem::End)
            }
            Some(HttpTask::Failed(_)) => {
                self.is_ended = true;
                Some(LegItem::Failed)
            }
            None => {
                self.is_ended = true;
                let has_failed = self.handle.subreq_proxy_error.try_recv().is_ok();
                Some(if has_failed { LegItem::Failed } else { LegItem::End })
            }
        }
    }
}

/// Hands the next piece of the body over, once the leg wants it.
async fn feed(tx: &mpsc::Sender<HttpTask>, wants_body: &mut oneshot::Receiver<()>, body: &mut Bytes, state: &mut Feed) {
    if *state == Feed::NotWanted {
        // The leg may end without ever wanting the body.
        *state = if wants_body.await.is_ok() { Feed::Feeding } else { Feed::Over };
        return;
    }
    let Ok(permit) = tx.reserve().await else {
        *state = Feed::Over;
        return;
    };
    let piece = body.split_to(body.len().min(FEED_BYTES));
    let is_last = body.is_empty();
    permit.send(HttpTask::Body(Some(piece), is_last));
    if is_last {
        *state = Feed::Over;
        // An empty remainder would keep the whole body alive for as long as its answer takes.
        *body = Bytes::new();
    }
}

/// Makes a header frame a body of this length, for HTTP/1.1, whatever the client used.
pub(crate) fn set_framing(session: &mut Session, body_bytes: usize) -> pingora::Result<()> {
    let authority = session.req_header().uri.authority().map(|authority| authority.as_str().to_owned());
    let header = session.req_header_mut();
    header.set_version(http::Version::HTTP_11);
    remove_hop_by_hop(header);
    for name in [header::TRANSFER_ENCODING, header::CONTENT_ENCODING, header::EXPECT] {
        header.remove_header(&name);
    }
    if let Some(authority) = authority.filter(|_| header.headers.get(header::HOST).is_none()) {
        header.insert_header(header::HOST, authority)?;
    }
    header.insert_header(header::CONTENT_LENGTH, body_bytes)
}

/// Removes what the client said about its connection to us, and what it named as part of that. Pingora refuses to send
/// some of it on, and a leg that never left would look like a failure of its account.
fn remove_hop_by_hop(header: &mut RequestHeader) {
    let values =
        header.headers.get_all(header::CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let named = values.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    // Where a request goes is never a matter of one connection.
    let removed: Vec<HeaderName> =
        named.filter(|name| name != header::HOST).chain([header::CONNECTION, header::UPGRADE, header::TE]).collect();
    for name in removed {
        header.remove_header(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_of_its_connection_stays_there() {
        let mut header = RequestHeader::build("POST", b"/", None).unwrap();
        for (name, value) in [
            ("host", "h"),
            ("connection", "x-a, \"x-b\" ,host,,:path, content-length"),
            ("connection", "X-C, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("x-c", "3"),
            ("content-length", "7"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
        ] {
            header.append_header(name, value).unwrap();
        }
        remove_hop_by_hop(&mut header);
        let mut left: Vec<_> = header.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-b"]);
    }
}
