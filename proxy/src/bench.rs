//! What benchmarks measure: translations as an exchange runs them, without the network around them.

use bytes::Bytes;
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::models::ModelCatalog;
use codex_lb_shared::ids::ExchangeId;
use http::{HeaderMap, Method};

use crate::relay::EventSplitter;
use crate::route::Endpoint;
use crate::translate::{self, ChatAnswer, ChatStream, Inquiry};

/// The body that goes upstream for a chat; `None` if it is refused.
pub fn chat_request(body: &Bytes) -> Option<Bytes> {
    let headers = HeaderMap::new();
    let inquiry = Inquiry {
        endpoint: Endpoint::ChatCompletions,
        method: &Method::POST,
        query: None,
        headers: &headers,
        body,
        caller_scope: "bench",
    };
    translate::prepare(&inquiry, &ModelCatalog::default()).ok().map(|request| request.body)
}

/// The chunks that a client gets of these events; `None` if one of them has no end.
pub fn chat_stream(events: &[u8]) -> Option<Vec<u8>> {
    let answer = ChatAnswer { model: "gpt-5.5".to_owned(), has_legacy_calls: false, tells_usage: true };
    let mut stream = ChatStream::new(answer, ExchangeId::from_u128(1), Timestamp::from_unix_ms(0));
    let mut out = Vec::with_capacity(2 * events.len());
    EventSplitter::default().push(events, |event| stream.translate(event, &mut out)).ok()?;
    Some(out)
}
