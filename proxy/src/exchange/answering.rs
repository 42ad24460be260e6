//! An answer that has begun: relayed, translated or collected until either side ends. Usage is settled before the
//! caller sees the end.

use std::time::Duration;

use bytes::Bytes;
use codex_lb_decide::verdict::UpstreamError;
use codex_lb_shared::domain::exchange_record::ExchangeStatus;
use codex_lb_shared::kind::Kind;
use codex_lb_shared::pool::Lease;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::attempt::{Refusal, Started};
use crate::leg::{Leg, LegItem};
use crate::rejection::Rejection;
use crate::relay::{AnswerHead, ClientGone, Downstream, EventSplitter, EventTooLarge};
use crate::route::Dialect;
use crate::serve::DataPlane;
use crate::settlement::OpenExchange;
use crate::translate::{Collected, OpenAiStream, OutputItems, PreparedRequest};

/// How long a stream may stay open behind its terminal event.
const AFTER_TERMINAL_MAX: Duration = Duration::from_secs(5);

/// An answer that has begun.
pub(super) struct Answering {
    leg: Leg,
    held: std::vec::IntoIter<Bytes>,
    head: AnswerHead,
    /// Held as long as the account works for us.
    _lease: Lease,
}

/// An error reply of upstream that the caller gets.
#[derive(Clone, Debug)]
pub(super) struct UpstreamRefusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// Upstream's body, where the dialect passes it on as it is.
    body: Option<Bytes>,
    /// The same as an OpenAI error.
    openai_error: Value,
    /// `error.code`, for the request log.
    pub(super) code: Option<String>,
}

impl UpstreamRefusal {
    /// The reply, unless it is about the account: a caller would throw its own login away for a 401.
    pub(super) fn from_reply(refusal: &Refusal) -> Option<Self> {
        let error = UpstreamError::from_body(&refusal.body);
        // A redirect or anything else that is no error has no meaning for a caller.
        if refusal.status < 400 {
            return None;
        }
        let is_about_account = matches!(refusal.status, 401 | 402) || (refusal.status == 403 && error.is_not_json);
        if is_about_account {
            return None;
        }
        let body = (!error.is_not_json).then(|| refusal.body.clone());
        Some(Self { body, ..Self::new(refusal.status, &error) })
    }

    /// A refusal that is told as an OpenAI error.
    pub(super) fn new(status: u16, error: &UpstreamError) -> Self {
        let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        let default_type = if status < 500 { "invalid_request_error" } else { "server_error" };
        let code = Some(error.name()).filter(|name| !name.is_empty()).map(str::to_owned);
        let openai_error = json!({"error": {
            "message": or(&error.message, "Upstream refused the request without saying why."),
            "type": or(&error.error_type, default_type),
            "param": null,
            "code": code,
        }});
        Self { status, body: None, openai_error, code }
    }
}

/// Tells an upstream refusal: on the native route as it came, elsewhere in OpenAI's shape.
pub(super) async fn pass_on(
    downstream: &mut Downstream<'_>,
    dialect: Dialect,
    refusal: &UpstreamRefusal,
) -> Result<(), ClientGone> {
    if downstream.is_head_sent() {
        let event = json!({"type": "response.failed", "response": {
            "object": "response", "status": "failed", "output": [], "error": refusal.openai_error["error"]}});
        downstream.write(Bytes::from(format!("event: response.failed\ndata: {event}\n\n"))).await?;
        return downstream.end().await;
    }
    let own = refusal.body.as_ref().filter(|body| dialect == Dialect::Native || is_openai_error(body));
    let body = own.cloned().unwrap_or_else(|| Bytes::from(refusal.openai_error.to_string()));
    downstream.answer(refusal.status, "application/json", &AnswerHead::default(), body).await
}

fn is_openai_error(body: &[u8]) -> bool {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    parsed.is_some_and(|body| body.pointer("/error/message").is_some_and(Value::is_string))
}

impl Answering {
    pub(super) fn new(
        leg: Leg,
        lease: Lease,
        started: Started,
        mut head: AnswerHead,
        request: &PreparedRequest,
    ) -> Self {
        head.headers.extend(passed_headers(&started.headers, &request.model_requested));
        Self { leg, held: started.held.into_iter(), head, _lease: lease }
    }

    /// The next bytes: first those that were held, then the leg's.
    async fn next(&mut self) -> LegItem {
        match self.held.next() {
            Some(bytes) => LegItem::Body(bytes),
            None => self.leg.next().await,
        }
    }
}

/// Upstream's headers that clients need. Everything else stays here: cookies, ids, the account's own limits.
fn passed_headers(upstream: &HeaderMap, model_requested: &str) -> Vec<(&'static str, String)> {
    let text = |name: &str| upstream.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut headers = Vec::new();
    for name in ["x-codex-turn-state", "x-reasoning-included"] {
        headers.extend(text(name).map(|value| (name, value)));
    }
    // Any other model's name here makes Codex warn its user.
    let model = text("openai-model").filter(|model| model.eq_ignore_ascii_case(model_requested));
    headers.extend(model.map(|model| ("openai-model", model)));
    headers
}

/// Relays the answer to its end and settles it.
///
/// # Errors
/// Only when the client left.
pub(super) async fn relay(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    open: &mut OpenExchange,
    dialect: Dialect,
    wants_stream: bool,
    answering: Answering,
) -> Result<(), ClientGone> {
    if wants_stream {
        open.trail.transport = "sse";
        stream(plane, downstream, open, dialect, answering).await
    } else {
        collect(plane, downstream, open, answering).await
    }
}

/// How a relayed stream is changed on its way.
enum Filter {
    /// Not at all: the same bytes in the same pieces.
    Untouched,
    /// Into OpenAI's events.
    OpenAi(OpenAiStream),
}

async fn stream(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    open: &mut OpenExchange,
    dialect: Dialect,
    mut answering: Answering,
) -> Result<(), ClientGone> {
    let mut filter = match dialect {
        Dialect::Native => Filter::Untouched,
        Dialect::OpenAi => Filter::OpenAi(OpenAiStream::default()),
    };
    let mut splitter = EventSplitter::default();
    downstream.begin_stream(&answering.head).await?;
    let mut written_at = Instant::now();
    loop {
        let silence = match open.has_terminal() {
            // What follows the end is at most a last frame.
            true => Silence { limit: AFTER_TERMINAL_MAX, keep_alive: None },
            false => Silence {
                limit: plane.state.config.upstream.idle_timeout,
                keep_alive: splitter.is_between_events().then_some(dialect),
            },
        };
        let item = next_or_keep_alive(plane, downstream, &mut answering, silence, &mut written_at).await?;
        let failure = match item {
            Some(LegItem::Body(bytes)) => match filter.pass(&mut splitter, bytes) {
                Ok(bytes) => {
                    if open.has_terminal() {
                        open.close(open.status_by_meter()).await;
                    }
                    if !bytes.is_empty() {
                        downstream.write(bytes).await?;
                        written_at = Instant::now();
                    }
                    continue;
                }
                Err(EventTooLarge) => Some(Rejection::answer_too_large()),
            },
            Some(LegItem::Head(_)) => continue,
            Some(LegItem::End | LegItem::Failed) if open.has_terminal() => None,
            Some(LegItem::End | LegItem::Failed) => Some(Rejection::stream_incomplete()),
            None if open.has_terminal() => None,
            None => Some(Rejection::upstream_timeout()),
        };
        let Some(rejection) = failure else {
            open.close(open.status_by_meter()).await;
            return downstream.end().await;
        };
        fail(plane, open, &rejection).await;
        // A native stream may have been cut inside an event, which must not swallow ours.
        if dialect == Dialect::Native && !splitter.is_between_events() {
            downstream.write(Bytes::from_static(b"\n\n")).await?;
        }
        return downstream.reject(&rejection).await;
    }
}

impl Filter {
    /// What goes downstream of these bytes.
    fn pass(&mut self, splitter: &mut EventSplitter, bytes: Bytes) -> Result<Bytes, EventTooLarge> {
        match self {
            Self::Untouched => splitter.push(&bytes, |_| {}).map(|()| bytes),
            Self::OpenAi(translator) => {
                let mut out = Vec::with_capacity(bytes.len() + 256);
                splitter.push(&bytes, |event| translator.translate(event, &mut out))?;
                Ok(Bytes::from(out))
            }
        }
    }
}

async fn collect(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    open: &mut OpenExchange,
    mut answering: Answering,
) -> Result<(), ClientGone> {
    let mut splitter = EventSplitter::default();
    let mut items = OutputItems::default();
    let mut collected = Collected::More;
    while collected == Collected::More {
        let silence = Silence { limit: plane.state.config.upstream.idle_timeout, keep_alive: None };
        match next_or_keep_alive(plane, downstream, &mut answering, silence, &mut Instant::now()).await? {
            Some(LegItem::Body(bytes)) => {
                let split = splitter.push(&bytes, |event| {
                    if collected == Collected::More {
                        collected = items.collect(event);
                    }
                });
                if split.is_err() {
                    collected = Collected::TooLarge;
                }
            }
            Some(LegItem::Head(_)) => {}
            Some(LegItem::End | LegItem::Failed) => {
                let rejection = Rejection::stream_incomplete();
                fail(plane, open, &rejection).await;
                return downstream.reject(&rejection).await;
            }
            None => {
                let rejection = Rejection::upstream_timeout();
                fail(plane, open, &rejection).await;
                return downstream.reject(&rejection).await;
            }
        }
    }
    match collected {
        Collected::Done(body) => {
            open.close(open.status_by_meter()).await;
            downstream.answer(200, "application/json", &answering.head, body).await
        }
        Collected::Failed(event) => {
            let refusal = UpstreamRefusal::from_event(&event);
            open.trail.error_code = refusal.code.clone();
            open.trail.error_kind = Some(Kind::Upstream);
            open.close(ExchangeStatus::Error).await;
            pass_on(downstream, Dialect::OpenAi, &refusal).await
        }
        Collected::TooLarge | Collected::More => {
            let rejection = Rejection::answer_too_large();
            fail(plane, open, &rejection).await;
            downstream.reject(&rejection).await
        }
    }
}

async fn fail(plane: &DataPlane, open: &mut OpenExchange, rejection: &Rejection) {
    plane.state.metrics.rejected(rejection.code);
    open.trail.error_code = Some(rejection.code.to_owned());
    open.trail.error_kind = Some(rejection.kind);
    open.close(ExchangeStatus::Error).await;
}

/// How long upstream may be silent, and how that is filled.
struct Silence {
    limit: Duration,
    /// Whose keep-alives are sent, if any may be sent here.
    keep_alive: Option<Dialect>,
}

/// The next part of the answer; `None` when upstream was silent for too long. The client hears something at least every
/// keep-alive interval, whatever upstream sends that does not concern it.
async fn next_or_keep_alive(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    answering: &mut Answering,
    silence: Silence,
    written_at: &mut Instant,
) -> Result<Option<LegItem>, ClientGone> {
    let silence_ends = Instant::now() + silence.limit;
    loop {
        let wake_at = match silence.keep_alive {
            Some(_) => silence_ends.min(*written_at + plane.state.config.upstream.keep_alive_interval),
            None => silence_ends,
        };
        tokio::select! {
            biased;
            item = answering.next() => return Ok(Some(item)),
            gone = downstream.client_gone() => return Err(gone),
            () = tokio::time::sleep_until(wake_at) => {}
        }
        if Instant::now() >= silence_ends {
            return Ok(None);
        }
        if let Some(dialect) = silence.keep_alive {
            downstream.keep_alive(dialect).await?;
            *written_at = Instant::now();
        }
    }
}
