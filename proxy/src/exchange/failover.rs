//! Legs, one after the other, until one begins well or there is no point in another. The only place that retries.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codex_lb_decide::selection::Why;
use codex_lb_decide::verdict::{self, AccountEffect, Next, Seen, Tried, Verdict, judge};
use codex_lb_shared::account_tokens::Freshness;
use codex_lb_shared::clock;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::kind::Kind;
use codex_lb_shared::pool::{Lease, PooledAccount};
use codex_lb_shared::state::SharedState;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::answering::Answering;
use super::refusal::UpstreamRefusal;
use super::{Asked, BYTES_PER_TOKEN, Stop, answer_head};
use crate::account_effects::JudgedLeg;
use crate::affinity::TURN_STATE_HEADER;
use crate::attempt::{FirstAnswer, Patience, Started, first_answer};
use crate::leg::{Leg, LegOrder};
use crate::rejection::Rejection;
use crate::relay::{Downstream, Meter, Vigil};
use crate::serve::DataPlane;
use crate::settlement::OpenExchange;
use crate::translate::{AnswerShape, has_compaction, without_encrypted_items};

/// Most tokens that a body's size is taken for.
const INPUT_TOKENS_ESTIMATE_MAX: u64 = 64_000;

/// Longest wait for a fresh token; the refresh itself goes on.
const REFRESH_WAIT_MAX: Duration = Duration::from_secs(35);

/// Where an exchange's search for an answer stands.
pub(super) struct Search<'a> {
    pub(super) plane: &'a DataPlane,
    pub(super) asked: Asked<'a>,
    /// What goes upstream; the request's body unless something had to be dropped.
    body: Bytes,
    /// Keeps the client alive while it waits, and holds what the head of its answer will say.
    pub(super) vigil: Vigil,
    pub(super) excluded: Vec<AccountId>,
    /// The account that the next leg is to use, if the last verdict said so.
    pub(super) again: Option<AccountId>,
    /// The right to use the account that the next leg is to use, if there was a wait for it.
    pub(super) waited_for: Option<Lease>,
    /// Where the conversation was when the exchange began, until there was a wait for that account.
    home: Option<AccountId>,
    tried: Tried,
    /// What the caller gets if nobody is left.
    pub(super) last_failure: Option<Stop>,
    /// No leg begins after this; it counts from the first one, however long that waited for a slot.
    deadline: Option<Instant>,
}

/// Runs legs until one begins to answer.
pub(super) async fn find_answer(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    open: &mut OpenExchange,
    asked: Asked<'_>,
) -> Result<Answering, Stop> {
    let (began, config) = (Instant::now(), &plane.state.config.upstream);
    let request = asked.request;
    let mut search = Search {
        plane,
        body: request.body.clone(),
        vigil: Vigil {
            status_hold_until: request.answer.is_stream().then(|| began + config.status_hold),
            interval: config.keep_alive_interval,
            dialect: asked.dialect,
            head: answer_head(request),
            told_at: began,
        },
        excluded: Vec::new(),
        again: None,
        waited_for: None,
        home: plane.sticky_sessions.find(&asked.conversation),
        asked,
        tried: Tried::default(),
        last_failure: None,
        deadline: None,
    };
    loop {
        let (why, lease) = search.choose(downstream).await?;
        let account = Arc::clone(lease.account());
        let judged = JudgedLeg { account: Arc::clone(&account), model: request.model.clone(), began_at: clock::now() };
        let leg_began = Instant::now();
        let mut leg = search.start_leg(downstream, open, &account)?;
        let patience = search.patience();
        let first = first_answer(&mut leg, downstream, &mut search.vigil, patience).await?;

        let now = clock::now();
        if let Some((model, named_limit)) = request.model.as_deref().zip(first.active_limit()) {
            plane.model_notes.note_limit(model, named_limit);
        }
        let verdict = seen(&first).map(|seen| judge(seen, search.tried, now));
        plane.state.metrics.leg_ended(outcome(&first, verdict.as_ref()));
        let Some(verdict) = verdict else {
            return Ok(search.begin(open, (leg, lease, Some(judged)), why, first));
        };
        judged.suffer(plane, &verdict.account, now);
        search.note_failure(open, &first, &verdict);
        let deadline = *search.deadline.get_or_insert(leg_began + config.failover_deadline);
        let is_failed_stream =
            request.answer == AnswerShape::NativeStream && matches!(first, FirstAnswer::FailedEvent(_));
        match verdict.next {
            // A native client reads the failure best in the stream that it came in.
            Next::PassOn if is_failed_stream => {
                open.trail.error_code = search.failed_code();
                open.trail.error_kind = Some(Kind::Upstream);
                return Ok(search.begin(open, (leg, lease, None), why, first));
            }
            Next::PassOn => return Err(search.give_up()),
            Next::NextAccount
            | Next::SameAccount(_)
            | Next::SameAccountWithFreshToken
            | Next::SameAccountWithoutEncryptedContent
                if Instant::now() >= deadline =>
            {
                return Err(search.give_up());
            }
            Next::NextAccount => search.exclude(account.account.id),
            next @ (Next::SameAccount(_)
            | Next::SameAccountWithFreshToken
            | Next::SameAccountWithoutEncryptedContent) => {
                drop((leg, lease));
                search.prepare_same_account(downstream, &account, next).await?;
            }
        }
    }
}

impl Search<'_> {
    fn start_leg(
        &self,
        downstream: &mut Downstream<'_>,
        open: &mut OpenExchange,
        account: &Arc<PooledAccount>,
    ) -> Result<Leg, Stop> {
        let meter = self.asked.request.answer.is_of_model().then(Arc::<Mutex<Meter>>::default);
        if let Some(meter) = &meter {
            let input_tokens_estimate = (self.body.len() as u64 / BYTES_PER_TOKEN).min(INPUT_TOKENS_ESTIMATE_MAX);
            open.watch(Arc::clone(meter), input_tokens_estimate);
        }
        open.trail.legs += 1;
        open.trail.account_id = Some(account.account.id);
        let origin = &self.plane.origin;
        let order = LegOrder {
            account: Arc::clone(account),
            peer: origin.peer(account),
            authority: origin.authority(),
            path: origin.path(&self.asked.request.head.path),
            head: self.asked.request.head.clone(),
            body_bytes: self.body.len(),
            exchange_id: open.trail.id,
            meter,
        };
        let leg = Leg::start(downstream.session(), order, self.body.clone(), &self.plane.state.tasks);
        leg.ok_or_else(|| Rejection::internal().into())
    }

    fn patience(&self) -> Patience {
        let config = &self.plane.state.config.upstream;
        Patience {
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            awaits_event: self.asked.request.answer.is_of_model(),
        }
    }

    /// The leg answers: its account is the conversation's from now on. How the answer ends is still to be judged, unless
    /// it began with its end.
    fn begin(
        self,
        open: &mut OpenExchange,
        (leg, lease, judged): (Leg, Lease, Option<JudgedLeg>),
        why: Why,
        first: FirstAnswer,
    ) -> Answering {
        let started = match first {
            FirstAnswer::Started(started) => started,
            FirstAnswer::FailedEvent(failed) => failed.started,
            // Unreachable by the only caller; an empty stream then ends as incomplete.
            FirstAnswer::Refused(_) | FirstAnswer::EndedEarly | FirstAnswer::NoHead | FirstAnswer::TimedOut => {
                debug_assert!(false, "only a stream begins");
                Started::default()
            }
        };
        let turn_state = started.headers.get(TURN_STATE_HEADER).map(http::HeaderValue::as_bytes);
        // Who only helped out once, or failed, does not take the conversation over.
        if why != Why::Overflow && judged.is_some() {
            let conversation = self.asked.conversation.clone().with_turn_state(turn_state);
            self.plane.sticky_sessions.remember(&conversation, lease.account().account.id, clock::now());
        }
        open.trail.upstream_status = Some(started.status);
        open.trail.first_byte_at = started.head_at;
        Answering::new((leg, lease, judged), started, self.vigil.head, &self.asked)
    }

    /// What the last failure called itself, for the request log.
    fn failed_code(&self) -> Option<String> {
        match &self.last_failure {
            Some(Stop::PassOn(refusal)) => refusal.code.clone(),
            Some(Stop::Rejected(rejection)) => Some(rejection.code.to_owned()),
            Some(Stop::ClientGone) | None => None,
        }
    }

    /// What the caller gets when there is no time for another leg, or no point in one.
    fn give_up(self) -> Stop {
        self.last_failure.unwrap_or_else(|| Rejection::upstream_failed().into())
    }

    fn exclude(&mut self, id: AccountId) {
        self.excluded.push(id);
        self.tried.same_account_again = false;
        self.tried.fresh_token = false;
    }

    fn note_failure(&mut self, open: &mut OpenExchange, first: &FirstAnswer, verdict: &Verdict) {
        if verdict::counts_as_server_failure(verdict) {
            self.tried.server_failures += 1;
        }
        let failure: Stop = match first {
            FirstAnswer::Refused(refusal) => {
                open.trail.upstream_status = Some(refusal.status);
                match UpstreamRefusal::from_reply(refusal) {
                    Some(refusal) => Stop::PassOn(refusal),
                    None => Rejection::upstream_failed().into(),
                }
            }
            FirstAnswer::FailedEvent(failed) if is_about_account(verdict) => {
                open.trail.upstream_status = Some(failed.started.status);
                Rejection::upstream_failed().into()
            }
            FirstAnswer::FailedEvent(failed) => {
                open.trail.upstream_status = Some(failed.started.status);
                Stop::PassOn(UpstreamRefusal::from_event(&failed.event))
            }
            FirstAnswer::TimedOut => Rejection::upstream_timeout().into(),
            FirstAnswer::NoHead | FirstAnswer::EndedEarly | FirstAnswer::Started(_) => {
                Rejection::upstream_failed().into()
            }
        };
        match verdict.account {
            AccountEffect::None | AccountEffect::Failure | AccountEffect::ModelUnsupported => {
                self.last_failure = Some(failure);
            }
            // One account's limit or end is none of the caller's business.
            AccountEffect::RateLimited(_) | AccountEffect::QuotaExceeded(_) | AccountEffect::Deactivated(_) => {}
        }
    }

    /// Makes ready what the same account needs to be asked again.
    async fn prepare_same_account(
        &mut self,
        downstream: &mut Downstream<'_>,
        account: &PooledAccount,
        next: Next,
    ) -> Result<(), Stop> {
        let id = account.account.id;
        match next {
            Next::SameAccount(pause) => {
                self.tried.same_account_again = true;
                // Over when its time is up; there is nothing to wait for but that.
                self.vigil.wait(downstream, Instant::now() + pause, std::future::pending::<()>()).await?;
            }
            Next::SameAccountWithFreshToken => {
                self.tried.fresh_token = true;
                let refresh = refreshed(&self.plane.state, account);
                let deadline = Instant::now() + REFRESH_WAIT_MAX;
                if self.vigil.wait(downstream, deadline, refresh).await? != Some(Freshness::Fresh) {
                    self.exclude(id);
                    return Ok(());
                }
            }
            Next::SameAccountWithoutEncryptedContent => {
                // A compaction stands for all that came before it, so its owner is worth a wait.
                let owner = self.home.take().filter(|owner| *owner != id && has_compaction(&self.body));
                if let Some(owner) = owner
                    && let Some(lease) = self.wait_for_owner(downstream, owner).await?
                {
                    self.waited_for = Some(lease);
                    return Ok(());
                }
                self.tried.without_encrypted_content = true;
                let Some((body, dropped)) = without_encrypted_items(&self.body) else {
                    self.exclude(id);
                    return Ok(());
                };
                self.body = body;
                self.vigil.head.headers.push(("x-codex-lb-dropped", format!("encrypted_content={dropped}")));
            }
            Next::NextAccount | Next::PassOn => debug_assert!(false, "not about the same account"),
        }
        self.again = Some(id);
        Ok(())
    }
}

/// Makes sure that the pool holds another access token than the one that was refused. A newer version of a row may hold
/// the same token, sealed anew; then that one is refreshed.
async fn refreshed(state: &SharedState, refused: &PooledAccount) -> Freshness {
    let id = refused.account.id;
    let freshness = state.account_tokens.refresh(id, refused.account.token_version).await;
    let same_token = state
        .pool
        .snapshot()
        .find(id)
        .cloned()
        .filter(|current| current.access_token.expose_secret() == refused.access_token.expose_secret());
    match same_token {
        Some(current) if freshness == Freshness::Fresh => {
            state.account_tokens.refresh(id, current.account.token_version).await
        }
        Some(_) | None => freshness,
    }
}

/// Whether a failure is the account's own trouble, such as its token or its bill: no business of the caller's.
fn is_about_account(verdict: &Verdict) -> bool {
    verdict.next == Next::SameAccountWithFreshToken
        || (verdict.account == AccountEffect::Failure && !verdict::counts_as_server_failure(verdict))
}

/// What the verdict looks at; `None` for a leg that answers well.
fn seen(first: &FirstAnswer) -> Option<Seen<'_>> {
    Some(match first {
        FirstAnswer::Started(_) => return None,
        FirstAnswer::Refused(refusal) => {
            Seen::Refused { status: refusal.status, retry_after: refusal.retry_after.as_deref(), body: &refusal.body }
        }
        FirstAnswer::FailedEvent(failed) => Seen::FirstEventFailed { event: &failed.event },
        FirstAnswer::EndedEarly => Seen::EndedEarly,
        FirstAnswer::NoHead => Seen::NoHead,
        FirstAnswer::TimedOut => Seen::TimedOut,
    })
}

/// The metric label of a leg.
const fn outcome(first: &FirstAnswer, verdict: Option<&Verdict>) -> &'static str {
    match (first, verdict) {
        (_, None) => "started",
        (_, Some(Verdict { account: AccountEffect::RateLimited(_), .. })) => "rate_limited",
        (_, Some(Verdict { account: AccountEffect::QuotaExceeded(_), .. })) => "quota_exceeded",
        (_, Some(Verdict { account: AccountEffect::Deactivated(_), .. })) => "deactivated",
        (_, Some(Verdict { account: AccountEffect::ModelUnsupported, .. })) => "model_unsupported",
        (_, Some(Verdict { next: Next::SameAccountWithFreshToken, .. })) => "token_rejected",
        (FirstAnswer::NoHead, Some(_)) => "no_answer",
        (FirstAnswer::TimedOut, Some(_)) => "timed_out",
        (FirstAnswer::EndedEarly, Some(_)) => "cut",
        (FirstAnswer::Refused(_) | FirstAnswer::FailedEvent(_) | FirstAnswer::Started(_), Some(_)) => "refused",
    }
}
