//! An answer that has begun: relayed, translated or collected until either side ends. Usage is settled before the
//! caller sees the end.

mod collected;
mod streamed;

use std::time::Duration;

use bytes::Bytes;
use codex_lb_decide::verdict::{BrokenOff, UpstreamError, judge_late};
use codex_lb_shared::clock;
use codex_lb_shared::domain::exchange_record::ExchangeStatus;
use codex_lb_shared::kind::Kind;
use codex_lb_shared::pool::Lease;
use http::HeaderMap;
use tokio::time::Instant;

use super::Asked;
use crate::account_effects::JudgedLeg;
use crate::attempt::Started;
use crate::leg::{Leg, LegItem};
use crate::rejection::Rejection;
use crate::relay::{AnswerHead, ClientGone, Downstream};
use crate::replay_store::NewTurn;
use crate::route::Dialect;
use crate::serve::DataPlane;
use crate::settlement::OpenExchange;
use crate::translate::{AnswerShape, ChatStream, ImageStream, OpenAiStream};
use streamed::Filter;

/// How long a stream may stay open behind its terminal event.
const AFTER_TERMINAL_MAX: Duration = Duration::from_secs(5);

/// An answer that has begun.
pub(super) struct Answering {
    leg: Leg,
    status: u16,
    content_type: Option<String>,
    held: std::vec::IntoIter<Bytes>,
    head: AnswerHead,
    /// Held as long as the account works for us.
    lease: Lease,
    /// What the end of the answer still has to be held against.
    judged: Option<JudgedLeg>,
    caller_scope: String,
}

/// How an answer ended, as far as its account answers for it.
enum End {
    /// It was whole.
    Whole,
    /// Upstream said that it failed.
    Failed,
    /// It broke off.
    Cut,
    /// It stopped coming.
    Silent,
}

impl Answering {
    pub(super) fn new(
        (leg, lease, judged): (Leg, Lease, Option<JudgedLeg>),
        started: Started,
        mut head: AnswerHead,
        asked: &Asked<'_>,
    ) -> Self {
        head.headers.extend(passed_headers(&started.headers, asked.request.model_requested.as_deref()));
        let content_type = started.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        Self {
            leg,
            status: started.status,
            content_type,
            held: started.held.into_iter(),
            head,
            lease,
            judged,
            caller_scope: asked.caller_scope.to_owned(),
        }
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
fn passed_headers(upstream: &HeaderMap, model_requested: Option<&str>) -> Vec<(&'static str, String)> {
    let text = |name: &str| upstream.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut headers = Vec::new();
    for name in ["x-codex-turn-state", "x-reasoning-included"] {
        headers.extend(text(name).map(|value| (name, value)));
    }
    // Any other model's name here makes Codex warn its user.
    let is_requested = |model: &String| model_requested.is_some_and(|requested| model.eq_ignore_ascii_case(requested));
    headers.extend(text("openai-model").filter(is_requested).map(|model| ("openai-model", model)));
    headers
}

/// The way of an answer from its first byte to its end.
pub(super) struct Relay<'a, 's> {
    pub(super) plane: &'a DataPlane,
    pub(super) downstream: &'a mut Downstream<'s>,
    pub(super) open: &'a mut OpenExchange,
    pub(super) dialect: Dialect,
    pub(super) answering: Answering,
    /// What is to be remembered together with the answer.
    pub(super) new_turn: Option<NewTurn>,
    /// When the client last heard something.
    pub(super) written_at: Instant,
}

impl Relay<'_, '_> {
    /// Relays the answer to its end, in the shape that the caller asked for, and settles it.
    ///
    /// # Errors
    /// Only when the client left.
    pub(super) async fn run(self, shape: &AnswerShape) -> Result<(), ClientGone> {
        match shape {
            AnswerShape::NativeStream => self.stream(Filter::Untouched).await,
            AnswerShape::OpenAiStream => self.stream(Filter::OpenAi(OpenAiStream::default())).await,
            AnswerShape::ChatStream(answer) => {
                let (id, requested_at) = (self.open.trail.id, self.open.trail.requested_at);
                self.stream(Filter::Chat(Box::new(ChatStream::new(answer.clone(), id, requested_at)))).await
            }
            AnswerShape::ImageStream(task) => self.stream(Filter::Images(ImageStream::new(*task))).await,
            shape @ (AnswerShape::OpenAiJson
            | AnswerShape::Compaction { .. }
            | AnswerShape::ChatJson(_)
            | AnswerShape::Images) => self.collect_response(shape).await,
            shape @ (AnswerShape::Raw | AnswerShape::File { .. } | AnswerShape::Goal { .. }) => {
                self.collect_raw(shape).await
            }
        }
    }

    /// Remembers an answer for whoever refers to it, before its caller can.
    fn remember(&mut self, items: Vec<String>) {
        if let Some((response_id, new_turn)) = self.open.response_id().zip(self.new_turn.take()) {
            self.plane.replay_store.remember(&self.answering.caller_scope, &response_id, new_turn, items);
        }
    }

    /// Settles an answer whose terminal event came.
    async fn settle(&mut self) {
        let status = self.open.status_by_meter();
        if let Some(failure) = self.open.failure() {
            let code = UpstreamError::from_event(&failure).name().to_owned();
            self.open.trail.error_code = Some(code).filter(|code| !code.is_empty());
            self.open.trail.error_kind = Some(Kind::Upstream);
        }
        self.judge(if status == ExchangeStatus::Ok { End::Whole } else { End::Failed });
        if let Some(response_id) = self.open.response_id().filter(|_| status == ExchangeStatus::Ok) {
            let account = self.answering.lease.account().account.id;
            self.plane.response_owners.remember(&self.answering.caller_scope, &response_id, account);
        }
        self.open.close(status).await;
    }

    /// Holds the end of the answer against its account, once.
    fn judge(&mut self, end: End) {
        let Some(judged) = self.answering.judged.take() else { return };
        let now = clock::now();
        let failure = self.open.failure();
        let broken_off = match end {
            End::Whole => return judged.succeed(now),
            End::Failed => BrokenOff::Failed { event: failure.as_deref().unwrap_or_default() },
            End::Cut => BrokenOff::Cut,
            End::Silent => BrokenOff::Silent,
        };
        judged.suffer(self.plane, &judge_late(broken_off, now), now);
    }

    /// Settles an answer that we could not finish, and tells why.
    async fn reject(mut self, rejection: Rejection) -> Result<(), ClientGone> {
        self.fail(&rejection).await;
        self.downstream.reject(&rejection).await
    }

    /// Settles an answer that we could not finish.
    async fn fail(&mut self, rejection: &Rejection) {
        self.plane.state.metrics.rejected(rejection.code);
        self.open.trail.error_code = Some(rejection.code.to_owned());
        self.open.trail.error_kind = Some(rejection.kind);
        self.open.close(ExchangeStatus::Error).await;
    }

    /// The next part of the answer; `None` when upstream was silent for too long. With keep-alives the client hears
    /// something at least every interval, whatever upstream sends that does not concern it.
    async fn next(&mut self, with_keep_alives: bool) -> Result<Option<LegItem>, ClientGone> {
        let config = &self.plane.state.config.upstream;
        // What follows the end of an answer is at most a last frame.
        let has_ended = self.open.has_terminal();
        let limit = if has_ended { AFTER_TERMINAL_MAX } else { config.idle_timeout };
        let silence_ends = Instant::now() + limit;
        loop {
            let wake_at = match with_keep_alives && !has_ended {
                true => silence_ends.min(self.written_at + config.keep_alive_interval),
                false => silence_ends,
            };
            tokio::select! {
                biased;
                item = self.answering.next() => return Ok(Some(item)),
                gone = self.downstream.client_gone() => return Err(gone),
                () = tokio::time::sleep_until(wake_at) => {}
            }
            if Instant::now() >= silence_ends {
                return Ok(None);
            }
            self.downstream.keep_alive(self.dialect).await?;
            self.written_at = Instant::now();
        }
    }
}
