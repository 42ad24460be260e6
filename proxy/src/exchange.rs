//! THE STORY: one downstream request, from its arrival until its answer ended. Read [`serve`] from top to bottom.
//!
//! Until the first meaningful event of an answer nothing has gone downstream that could not be taken back, so every
//! failure before it is tried on another account. Afterwards there is no way back: the answer is relayed, and what
//! breaks is told inside it.

mod answering;
mod choosing;
mod failover;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use codex_lb_shared::clock;
use codex_lb_shared::config::IntakeConfig;
use codex_lb_shared::domain::exchange_record::ExchangeStatus;
use codex_lb_shared::ids::AccountId;
use http::HeaderMap;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::affinity::Conversation;
use crate::intake::Bounds;
use crate::rejection::Rejection;
use crate::relay::{AnswerHead, ClientGone, Downstream, Headers};
use crate::replay_store::NewTurn;
use crate::route::{Dialect, Endpoint};
use crate::serve::DataPlane;
use crate::settlement::OpenExchange;
use crate::trail::Trail;
use crate::translate::{AnswerShape, Inquiry, PreparedRequest};
use crate::{caller, intake, pool_limits, translate};

/// Taken off what a client waits for an answer, so that it still hears ours.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);
/// Bytes of a body that make one token, when nothing better is known.
const BYTES_PER_TOKEN: u64 = 4;

/// What an account is looked for.
struct Asked<'a> {
    dialect: Dialect,
    request: &'a PreparedRequest,
    /// What separates this caller's conversations and ids from everybody else's.
    caller_scope: &'a str,
    conversation: Conversation,
    /// When the client gives up waiting, if it says so.
    answer_by: Option<Instant>,
}

/// Why an exchange ends without a relayed answer.
enum Stop {
    /// We refuse.
    Rejected(Box<Rejection>),
    /// Upstream refused, and the caller gets its word.
    PassOn(refusal::UpstreamRefusal),
    /// The client left.
    ClientGone,
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(Box::new(rejection))
    }
}

impl From<intake::NoBody> for Stop {
    fn from(no_body: intake::NoBody) -> Self {
        match no_body {
            intake::NoBody::Rejected(rejection) => rejection.into(),
            intake::NoBody::ClientGone => Self::ClientGone,
        }
    }
}

impl From<ClientGone> for Stop {
    fn from(_: ClientGone) -> Self {
        Self::ClientGone
    }
}

/// Runs an exchange and settles it, however it ends.
///
/// # Errors
/// When the client left, so that its connection is dropped and not waited for.
pub(crate) async fn run(plane: &DataPlane, session: &mut Session, endpoint: Endpoint<'_>) -> Result<(), ClientGone> {
    let trail = Trail::begin(endpoint.name(), &session.req_header().headers, clock::now());
    let mut downstream = plane.downstream(session, trail.id);
    let mut open = OpenExchange::new(trail, plane.recorder.clone());
    let whole = tokio::time::timeout(
        plane.state.config.upstream.exchange_timeout,
        serve(plane, &mut downstream, &mut open, endpoint),
    );
    let stop = tokio::select! {
        whole = whole => match whole {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(stop)) => stop,
            Err(_) => Rejection::upstream_timeout().into(),
        },
        () = plane.drain_over.cancelled() => Rejection::stopping().into(),
    };
    conclude(plane, &mut downstream, &mut open, endpoint, stop).await
}

/// The exchange, in order.
async fn serve(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    open: &mut OpenExchange,
    endpoint: Endpoint<'_>,
) -> Result<(), Stop> {
    let (state, arrived) = (&plane.state, Instant::now());

    // Who calls? Before the body is read: a stranger's upload is not worth its bytes.
    let socket_peer = caller::socket_peer(downstream.session());
    let header = downstream.session().req_header();
    let (method, uri, mut headers) = (header.method.clone(), header.uri.clone(), header.headers.clone());
    let caller = caller::prove(state, &headers, socket_peer, open.trail.requested_at).await?;
    open.trail.is_caller_proven = true;
    open.trail.api_key_id = caller.api_key_id();

    // What is asked? Upstream is not called for anything that is wrong here.
    let bounds = bounds(endpoint, &state.config.intake);
    let mut held = plane.body_budget.hold(caller.api_key_id().is_none());
    let body = intake::read_body(downstream.session(), bounds, &mut held).await?;
    let caller_scope = caller.scope();
    let referred_bytes = match endpoint {
        Endpoint::Responses(Dialect::OpenAi) | Endpoint::Compact(Dialect::OpenAi) => {
            plane.replay_store.referred_bytes(&body, &caller_scope)?
        }
        Endpoint::Responses(Dialect::Native)
        | Endpoint::Compact(Dialect::Native)
        | Endpoint::ChatCompletions
        | Endpoint::Images(..)
        | Endpoint::NewFile
        | Endpoint::FileUploaded(_)
        | Endpoint::Transcription(_)
        | Endpoint::Control(_) => 0,
    };
    // What was sent in a coding has grown since, and what it refers to is as good as sent.
    held.grow_to(bounds.copies * (body.len() as u64 + referred_bytes)).await?;
    let inquiry = Inquiry {
        endpoint,
        method: &method,
        query: uri.query(),
        headers: &headers,
        body: &body,
        caller_scope: &caller_scope,
        replay_store: &plane.replay_store,
    };
    let mut request = translate::prepare(&inquiry, &state.models.load())?;
    drop(body);
    open.trail.note_request(&request);
    downstream.failure_form = request.answer.failure_form();
    if request.answer.is_of_model() {
        downstream.say_always(standing_headers(plane, caller.api_key_id().is_some()));
    }

    // Who alone knows what it refers to? A file lives on the account that took it, a response on the one that gave it.
    request.owner = owner(plane, endpoint, &request, &caller_scope)?;
    if let AnswerShape::Goal { thread_id, .. } = &request.answer {
        plane.thread_claims.check(thread_id, &caller_scope)?;
    }

    // Whose is the conversation? It stays where its cache and its encrypted reasoning are.
    if let Some((name, value)) = &request.named_by {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    let conversation = Conversation::find(&headers, &caller_scope, request.prompt_cache_key.as_deref());

    // Which account answers? Legs are tried until one begins well.
    let dialect = endpoint.dialect();
    let asked = Asked {
        dialect,
        request: &request,
        caller_scope: &caller_scope,
        conversation,
        answer_by: answer_by(&headers, arrived),
    };
    let answering = failover::find_answer(plane, downstream, open, asked).await?;

    // From here on there is no way back, and of the request only what will be remembered is needed any more.
    let PreparedRequest { answer: shape, new_turn, body, .. } = request;
    drop(body);
    held.shrink_to(new_turn.as_ref().map_or(0, NewTurn::bytes));
    let relay = answering::Relay { plane, downstream, open, dialect, answering, new_turn, written_at: Instant::now() };
    relay.run(&shape).await.map_err(Stop::from)
}

/// The only account that can serve the request, if there is only one.
fn owner(
    plane: &DataPlane,
    endpoint: Endpoint<'_>,
    request: &PreparedRequest,
    caller_scope: &str,
) -> Result<Option<AccountId>, Rejection> {
    let by_file = match endpoint {
        Endpoint::FileUploaded(id) => Some(plane.file_pins.owner_of_file(id, caller_scope)?),
        Endpoint::Responses(_) | Endpoint::Compact(_) | Endpoint::ChatCompletions | Endpoint::Images(..) => {
            plane.file_pins.owner_of(&request.body, caller_scope)?
        }
        Endpoint::NewFile | Endpoint::Transcription(_) | Endpoint::Control(_) => None,
    };
    let Some(response_id) = &request.previous_response_id else { return Ok(by_file) };
    let by_response = plane.response_owners.find(caller_scope, response_id);
    let owner = by_response.filter(|owner| by_file.is_none_or(|by_file| by_file == *owner));
    owner.map(Some).ok_or_else(Rejection::previous_response_not_found)
}

/// When the client gives up waiting: OpenAI's SDKs tell how many seconds they wait for the next byte.
fn answer_by(headers: &HeaderMap, arrived: Instant) -> Option<Instant> {
    let seconds = headers.get("x-stainless-read-timeout")?.to_str().ok()?.trim().parse().ok()?;
    let patience = Duration::try_from_secs_f64(seconds).ok()?;
    arrived.checked_add(patience.saturating_sub(ANSWER_MARGIN))
}

/// Ends an exchange that was not relayed to its end: settled first, told then.
async fn conclude(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    open: &mut OpenExchange,
    endpoint: Endpoint<'_>,
    stop: Stop,
) -> Result<(), ClientGone> {
    match stop {
        Stop::ClientGone => {
            open.close(ExchangeStatus::Cancelled).await;
            Err(ClientGone)
        }
        Stop::Rejected(rejection) => {
            plane.state.metrics.rejected(rejection.code);
            open.trail.error_code = Some(rejection.code.to_owned());
            open.trail.error_kind = Some(rejection.kind);
            let was_tried = open.trail.legs > 0;
            open.close(if was_tried { ExchangeStatus::Error } else { ExchangeStatus::Rejected }).await;
            match rejection.as_rate_limit().filter(|_| endpoint == Endpoint::Responses(Dialect::Native)) {
                // Every version of Codex waits this out, and most give the turn up on a 429.
                Some(rate_limit) => {
                    downstream.begin_stream(&AnswerHead::default()).await?;
                    downstream.end_with(&rate_limit).await
                }
                None => downstream.reject(&rejection).await,
            }
        }
        Stop::PassOn(refusal) => {
            open.trail.error_code = refusal.code.clone();
            open.trail.error_kind = Some(codex_lb_shared::kind::Kind::Upstream);
            open.close(ExchangeStatus::Error).await;
            refusal::pass_on(downstream, endpoint.dialect(), &refusal).await
        }
    }
}

/// How large a body may be: conversations are large, and nothing else is.
fn bounds(endpoint: Endpoint<'_>, config: &IntakeConfig) -> Bounds {
    let bytes_max = match endpoint {
        Endpoint::Responses(_) | Endpoint::Compact(_) | Endpoint::ChatCompletions => config.responses_body_bytes_max,
        Endpoint::Images(..)
        | Endpoint::NewFile
        | Endpoint::FileUploaded(_)
        | Endpoint::Transcription(_)
        | Endpoint::Control(_) => config.other_body_bytes_max,
    };
    // Translating a body takes a copy of its input and a new body.
    let copies = if endpoint.dialect() == Dialect::OpenAi { 4 } else { 1 };
    Bounds { bytes_max: bytes_max as u64, piece_timeout: config.body_timeout, copies }
}

/// What every answer says that Codex takes its knowledge of the pool from: how much is used, and which models there are.
fn standing_headers(plane: &DataPlane, has_api_key: bool) -> impl Fn() -> Headers + use<> {
    let (state, catalog_etag) = (Arc::clone(&plane.state), Arc::clone(&plane.catalog_etag));
    move || {
        let mut headers = pool_limits::of_callers_accounts(&state, has_api_key, clock::now()).headers();
        headers.extend(catalog_etag.of(&state.models.load_full()).map(|etag| ("x-models-etag", etag)));
        headers
    }
}

/// What the head of an answer says that does not depend on the account.
fn answer_head(request: &PreparedRequest) -> AnswerHead {
    let mut head = AnswerHead::default();
    if !request.ignored_params.is_empty() {
        head.headers.push(("x-codex-lb-ignored-params", request.ignored_params.join(",")));
    }
    head
}
