//! The Pingora service: the front of an exchange, its legs, and the hop to the control plane.
//!
//! The front runs wholly in `request_filter` (see [`crate::exchange`]). A leg is a subrequest that comes back to this
//! same type and runs the stock phases: peer, request filter (header rewriting and token injection), response filters
//! (rate-limit knowledge and the usage meter).

mod hop;
mod leg_headers;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use codex_lb_shared::clock;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::cors;
use crate::leg::{LegOrder, set_framing};
use crate::rejection::Rejection;
use crate::relay::{AnswerHead, ClientGone};
use crate::route::{Route, route};
use crate::serve::DataPlane;
use crate::trail::Trail;
use crate::{exchange, health, models, own_answers, usage_report};

/// What a request is while the phases run.
pub(crate) enum Context {
    /// Not looked at yet.
    New,
    /// The front of an exchange, or an answer of our own: finished in `request_filter`.
    Front,
    /// A request that is handed to the control plane.
    Hop,
    /// A leg.
    Leg(Box<LegOrder>, LegProgress),
}

/// What a leg's response filters know.
#[derive(Default)]
pub(crate) struct LegProgress {
    is_success: bool,
}

/// The data plane's service.
pub(crate) struct Gateway {
    plane: DataPlane,
}

impl Gateway {
    pub(crate) const fn new(plane: DataPlane) -> Self {
        Self { plane }
    }

    /// Answers a request, or says that it is the control plane's.
    async fn front(&self, session: &mut Session) -> Result<bool, ClientGone> {
        let header = session.req_header();
        let (method, path) = (header.method.clone(), header.uri.path().to_owned());
        match route(&method, &path) {
            Ok(Route::ControlPlane) if self.plane.hops_to_control_plane() => return Ok(false),
            Ok(Route::ControlPlane) => {
                let rejection = Rejection::unknown_path(method.as_str(), &path);
                self.reject(session, &rejection).await;
            }
            Ok(Route::Exchange(endpoint)) => exchange::run(&self.plane, session, endpoint).await?,
            Ok(Route::Own(question)) => own_answers::answer(&self.plane, session, question).await?,
            Ok(Route::Models(dialect)) => models::list(&self.plane, session, dialect).await,
            Ok(Route::Model(slug)) => models::one(&self.plane, session, slug).await,
            Ok(Route::Health(question)) => health::answer(&self.plane, session, question).await,
            Err(rejection) if self.is_preflight_of_listed_page(session) && rejection.allow.is_some() => {
                self.answer_preflight(session, rejection.allow.unwrap_or_default()).await?;
            }
            Err(_) if is_websocket_upgrade(session) => self.reject(session, &Rejection::upgrade_required()).await,
            Err(rejection) => self.reject(session, &rejection).await,
        }
        Ok(true)
    }

    fn is_preflight_of_listed_page(&self, session: &Session) -> bool {
        let request = session.req_header();
        cors::is_preflight(&request.method, &request.headers)
            && cors::listed_origin(&request.headers, &self.plane.state.config.proxy.cors_origins).is_some()
    }

    /// Tells a browser that the page which it shows may call.
    async fn answer_preflight(&self, session: &mut Session, allow: &str) -> Result<(), ClientGone> {
        let headers = &session.req_header().headers;
        let trail = Trail::begin("preflight", headers, clock::now());
        let head = AnswerHead { headers: cors::preflight_headers(headers, allow) };
        self.plane.downstream(session, trail.id).answer(204, "text/plain", &head, Bytes::new()).await
    }

    /// Answers a request that has no endpoint.
    async fn reject(&self, session: &mut Session, rejection: &Rejection) {
        let trail = Trail::begin("unknown", &session.req_header().headers, clock::now());
        self.plane.state.metrics.rejected(rejection.code);
        // A client that left needs no answer.
        let (Ok(()) | Err(ClientGone)) = self.plane.downstream(session, trail.id).reject(rejection).await;
    }
}

/// Whether a request asks for a WebSocket.
fn is_websocket_upgrade(session: &Session) -> bool {
    let upgrade = session.req_header().headers.get(http::header::UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::New
    }

    /// None: the default would add a compression module, and an event stream must not be collected for compression.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _context: &mut Context) -> Result<()> {
        if session.subrequest_ctx.is_none() {
            let config = &self.plane.state.config.proxy;
            // A stopping process promises nobody another request on this connection, and a client of HTTP/1.0 that did
            // not ask for one waits for its end.
            let is_last = self.plane.state.is_draining() || session.get_keepalive().is_none();
            session.set_keepalive((!is_last).then_some(config.keepalive_timeout.as_secs()));
            // Without this a stray byte behind a request aborts the answer that is running.
            session.set_pipelining_enabled(true);
            // Without this a reader that stalls holds its exchange, lease and buffers for ever.
            session.set_write_timeout(Some(config.write_timeout));
        }
        Ok(())
    }

    fn allow_spawning_subrequest(&self, session: &Session, _context: &Context) -> bool {
        session.subrequest_ctx.is_none()
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let Some(subrequest) = session.subrequest_ctx.as_mut() else {
            // A client that left must not be waited for: what is left to be flushed could take for ever.
            let gone = |ClientGone| Error::explain(ErrorType::ConnectionClosed, "the client left").into_down();
            *context = Context::Front;
            let is_answered = self.front(session).await.map_err(gone)?;
            *context = if is_answered { Context::Front } else { Context::Hop };
            return Ok(is_answered);
        };
        let order = subrequest.user_ctx_mut().and_then(|user| user.downcast_mut::<Option<LegOrder>>());
        let order = order.and_then(Option::take);
        let order = order.ok_or_else(|| Error::explain(ErrorType::InternalError, "a subrequest without an order"))?;
        set_framing(session, order.body_bytes)?;
        *context = Context::Leg(Box::new(order), LegProgress::default());
        Ok(false)
    }

    async fn upstream_peer(&self, _session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        match context {
            Context::Leg(order, _) => Ok(Box::new(order.peer.clone())),
            Context::Hop => hop::peer(&self.plane),
            Context::New | Context::Front => Error::e_explain(ErrorType::InternalError, "no upstream for this request"),
        }
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        match context {
            Context::Leg(order, _) => {
                let (version, config) = (upstream_request.version, &self.plane.state.config.upstream);
                *upstream_request = leg_headers::build(session.req_header(), version, order, config)?;
                Ok(())
            }
            Context::Hop => hop::rewrite(&self.plane, session, upstream_request),
            Context::New | Context::Front => Ok(()),
        }
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if let Context::Leg(order, progress) = context {
            progress.is_success = response.status.is_success();
            let now = clock::now();
            usage_report::in_headers(&response.headers, now).tell(&self.plane.state.pool, &order.account, now);
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        if let (Context::Leg(order, progress), Some(bytes)) = (context, body)
            && progress.is_success
            && let Some(meter) = &order.meter
        {
            let mut meter = meter.lock();
            meter.read(bytes, Instant::now());
            if let Some(report) = meter.take_usage_report() {
                report.tell(&self.plane.state.pool, &order.account, clock::now());
            }
        }
        Ok(None)
    }

    /// A leg writes nothing on failure: the exchange decides. A failed hop tells the browser.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let is_told = matches!(context, Context::Hop)
            && session.response_written().is_none()
            && error.esource() != &pingora::ErrorSource::Downstream;
        if is_told {
            tracing::warn!(error = %error, "the control plane did not answer a handed-on request");
            let trail = Trail::begin("control_plane", &session.req_header().headers, clock::now());
            let mut downstream = self.plane.downstream(session, trail.id);
            let text = Bytes::from_static(b"The dashboard does not answer right now. Try again in a few seconds.\n");
            let head = AnswerHead::default();
            let (Ok(()) | Err(ClientGone)) = downstream.answer(503, "text/plain; charset=utf-8", &head, text).await;
        }
        FailToProxy { error_code: 0, can_reuse_downstream: false }
    }

    /// A leg's failure is the exchange's to judge and to log.
    fn suppress_error_log(&self, _session: &Session, context: &Context, _error: &Error) -> bool {
        match context {
            Context::Leg(..) | Context::Front => true,
            Context::New | Context::Hop => false,
        }
    }
}
