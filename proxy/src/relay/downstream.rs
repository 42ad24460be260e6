//! The client's side of an exchange: the head is sent once, bytes go out as they come, and whatever goes wrong is told
//! in the form that is still possible.

use bytes::Bytes;
use codex_lb_shared::ids::ExchangeId;
use http::header;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use serde_json::{Value, json};

use crate::cors;
use crate::rejection::Rejection;
use crate::route::Dialect;

/// The client is gone, or does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientGone;

/// A piece of silence, told in a way that each client counts as life. Codex ignores unknown events but not comments:
/// a comment does not reset its idle timer.
const NATIVE_KEEP_ALIVE: &[u8] = b"data: {\"type\":\"keepalive\"}\n\n";
const OPENAI_KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// What the head of an answer says beside its status and type.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerHead {
    /// Headers of upstream that may go on, and ours.
    pub(crate) headers: Headers,
}

/// How a failure is told once the head went out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FailureForm {
    /// As the last event of a response.
    #[default]
    Response,
    /// As an error event, where there is no response.
    Error,
    /// As a chunk of a chat, which has no name.
    Chat,
}

impl FailureForm {
    /// The event that tells it.
    pub(crate) fn event(self, error: &Value) -> Bytes {
        let (kind, event) = match self {
            Self::Response => (
                "response.failed",
                json!({"type": "response.failed", "response": {
                "object": "response", "status": "failed", "output": [], "error": error}}),
            ),
            Self::Error => ("error", json!({"type": "error", "error": error})),
            Self::Chat => return Bytes::from(format!("data: {}\n\n", json!({ "error": error }))),
        };
        Bytes::from(format!("event: {kind}\ndata: {event}\n\n"))
    }
}

/// Headers by their names.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// Writes the answer.
pub(crate) struct Downstream<'s> {
    session: &'s mut Session,
    exchange_id: ExchangeId,
    is_head_sent: bool,
    /// A body without a length needs chunks on HTTP/1.1: without, only the end of the connection would end it, and a
    /// stream that is cut would look whole. HTTP/2 has frames, and HTTP/1.0 knows neither.
    is_chunked: bool,
    /// How a failure is told once the head went out.
    pub(crate) failure_form: FailureForm,
    standing_headers: Option<Box<dyn Fn() -> Headers + Send + Sync>>,
    /// What lets the page that calls read the answer.
    page_headers: Headers,
}

impl<'s> Downstream<'s> {
    /// An answer of which nothing was sent, to a caller on one of these pages or on none.
    pub(crate) fn new(session: &'s mut Session, exchange_id: ExchangeId, page_origins: &[String]) -> Self {
        let page_headers = cors::answer_headers(&session.req_header().headers, page_origins);
        let is_chunked = session.req_header().version == http::Version::HTTP_11;
        Self {
            session,
            exchange_id,
            is_head_sent: false,
            is_chunked,
            failure_form: FailureForm::default(),
            standing_headers: None,
            page_headers,
        }
    }

    /// Whatever is answered says this too, as it is when the head goes out.
    pub(crate) fn say_always(&mut self, headers: impl Fn() -> Headers + Send + Sync + 'static) {
        self.standing_headers = Some(Box::new(headers));
    }

    /// The request's session, for reading.
    pub(crate) fn session(&mut self) -> &mut Session {
        self.session
    }

    /// Whether the status line went out.
    pub(crate) const fn is_head_sent(&self) -> bool {
        self.is_head_sent
    }

    /// Waits until the client leaves. Cancelling the wait is safe.
    pub(crate) async fn client_gone(&mut self) -> ClientGone {
        loop {
            // Pipelined bytes are kept for the next request. Behind them Pingora reads no further, so of a client that
            // sends them early we learn that it left only when we next write to it.
            match self.session.downstream_session.read_body_or_idle(true).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return ClientGone,
            }
        }
    }

    /// Sends a 200 event-stream head, unless one was sent.
    pub(crate) async fn begin_stream(&mut self, head: &AnswerHead) -> Result<(), ClientGone> {
        if self.is_head_sent {
            return Ok(());
        }
        let mut response = self.head(200, "text/event-stream; charset=utf-8", head)?;
        insert(&mut response, "cache-control", "no-cache")?;
        // Proxies in between must not collect a stream.
        insert(&mut response, "x-accel-buffering", "no")?;
        if self.is_chunked {
            insert(&mut response, header::TRANSFER_ENCODING.as_str(), "chunked")?;
        }
        self.is_head_sent = true;
        self.session.downstream_session.write_response_header(Box::new(response)).await.map_err(|_| ClientGone)
    }

    /// Sends bytes of the body.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), ClientGone> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.session.downstream_session.write_response_body(bytes, false).await.map_err(|_| ClientGone)
    }

    /// Tells that we are alive.
    pub(crate) async fn keep_alive(&mut self, dialect: Dialect) -> Result<(), ClientGone> {
        let bytes = match dialect {
            Dialect::Native => NATIVE_KEEP_ALIVE,
            Dialect::OpenAi => OPENAI_KEEP_ALIVE,
        };
        self.write(Bytes::from_static(bytes)).await
    }

    /// Ends the body of a stream.
    pub(crate) async fn end(&mut self) -> Result<(), ClientGone> {
        self.session.downstream_session.write_response_body(Bytes::new(), true).await.map_err(|_| ClientGone)
    }

    /// Ends the body of a stream with a failure.
    pub(crate) async fn end_with(&mut self, error: &Value) -> Result<(), ClientGone> {
        self.write(self.failure_form.event(error)).await?;
        self.end().await
    }

    /// Sends a whole answer at once.
    pub(crate) async fn answer(
        &mut self,
        status: u16,
        content_type: &str,
        head: &AnswerHead,
        body: Bytes,
    ) -> Result<(), ClientGone> {
        let mut response = self.head(status, content_type, head)?;
        // Such an answer has no body, and a length of 0 would already say too much.
        if status != 204 {
            insert(&mut response, header::CONTENT_LENGTH.as_str(), &body.len().to_string())?;
        }
        self.is_head_sent = true;
        let session = &mut self.session.downstream_session;
        if !session.is_body_done() {
            // The rest of the request is not read, so the connection ends with this answer; the client is to know.
            session.set_keepalive(None);
        }
        let is_head_only = session.req_header().method == http::Method::HEAD;
        session.write_response_header(Box::new(response)).await.map_err(|_| ClientGone)?;
        let body = if is_head_only { Bytes::new() } else { body };
        session.write_response_body(body, true).await.map_err(|_| ClientGone)
    }

    /// Tells a rejection: as an HTTP error while the head is ours, else as the last event of the stream.
    pub(crate) async fn reject(&mut self, rejection: &Rejection) -> Result<(), ClientGone> {
        if self.is_head_sent {
            return self.end_with(&rejection.error()).await;
        }
        let mut head = AnswerHead::default();
        if let Some(wait) = rejection.retry_after {
            head.headers.push(("retry-after", wait.as_secs().to_string()));
        }
        if let Some(allow) = rejection.allow {
            head.headers.push(("allow", allow.to_owned()));
        }
        self.answer(rejection.status, "application/json", &head, rejection.to_json()).await
    }

    fn head(&self, status: u16, content_type: &str, head: &AnswerHead) -> Result<ResponseHeader, ClientGone> {
        let mut response = ResponseHeader::build(status, Some(8)).map_err(|_| ClientGone)?;
        insert(&mut response, "content-type", content_type)?;
        insert(&mut response, "x-request-id", &self.exchange_id.to_string())?;
        let standing_headers = self.standing_headers.as_ref().map(|headers| headers()).unwrap_or_default();
        for (name, value) in self.page_headers.iter().chain(&standing_headers).chain(&head.headers) {
            insert(&mut response, name, value)?;
        }
        Ok(response)
    }
}

/// Sets a header. A value that no header can hold ends the answer: it could only come from a bug of ours.
fn insert(response: &mut ResponseHeader, name: &str, value: &str) -> Result<(), ClientGone> {
    response.insert_header(name.to_owned(), value).map_err(|_| ClientGone)
}
