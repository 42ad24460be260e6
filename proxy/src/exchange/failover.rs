//! Legs, one after the other, until one begins well or there is no point in another. The only place that retries.

use std::sync::Arc;

use bytes::Bytes;
use codex_lb_decide::verdict::{self, AccountEffect, Next, Seen, Tried, UpstreamError, Verdict, judge};
use codex_lb_shared::account_tokens::Freshness;
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::{AccountState, AccountStatus};
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::kind::Kind;
use codex_lb_shared::pool::{Lease, PooledAccount};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answering::{Answering, UpstreamRefusal};
use super::{BYTES_PER_TOKEN, Stop, answer_head};
use crate::affinity::{Conversation, TURN_STATE_HEADER};
use crate::attempt::{FirstAnswer, Patience, Started, first_answer};
use crate::leg::{Leg, LegOrder};
use crate::rejection::Rejection;
use crate::relay::{AnswerHead, Downstream, Meter};
use crate::route::Dialect;
use crate::selection;
use crate::serve::DataPlane;
use crate::settlement::OpenExchange;
use crate::translate::{PreparedRequest, without_encrypted_items};

/// Most tokens that a body's size is taken for.
const INPUT_TOKENS_ESTIMATE_MAX: u64 = 64_000;

/// Where an exchange's search for an answer stands.
struct Search<'a> {
    plane: &'a DataPlane,
    dialect: Dialect,
    request: &'a PreparedRequest,
    conversation: Conversation,
    /// What goes upstream; the request's body unless something had to be dropped.
    body: Bytes,
    /// What the head of the answer will say.
    head: AnswerHead,
    excluded: Vec<AccountId>,
    /// The account that the next leg is to use, if the last verdict said so.
    again: Option<AccountId>,
    tried: Tried,
    /// What the caller gets if nobody is left.
    last_failure: Option<Stop>,
    began: Instant,
}

/// Runs legs until one begins to answer.
pub(super) async fn find_answer(
    plane: &DataPlane,
    downstream: &mut Downstream<'_>,
    open: &mut OpenExchange,
    dialect: Dialect,
    request: &PreparedRequest,
    conversation: Conversation,
) -> Result<Answering, Stop> {
    let mut search = Search {
        plane,
        dialect,
        request,
        conversation,
        body: request.body.clone(),
        head: answer_head(request),
        excluded: Vec::new(),
        again: None,
        tried: Tried::default(),
        last_failure: None,
        began: Instant::now(),
    };
    loop {
        let lease = search.choose()?;
        let account = Arc::clone(lease.account());
        let leg_began_at = clock::now();
        let mut leg = search.start_leg(downstream, open, &account)?;
        let first = first_answer(&mut leg, downstream, &search.patience()).await?;

        let now = clock::now();
        let verdict = match seen(&first) {
            None => None,
            Some(seen) => Some(judge(seen, search.tried, now)),
        };
        plane.state.metrics.leg_ended(outcome(&first, verdict.as_ref()));
        let Some(verdict) = verdict else {
            account.live.note_success();
            return Ok(search.begin(open, leg, lease, first));
        };
        affect(plane, &account, &verdict, leg_began_at, now);
        search.note_failure(open, &first, &verdict);
        let gives_up = search.began.elapsed() >= plane.state.config.upstream.failover_deadline;
        match if gives_up { Next::PassOn } else { verdict.next } {
            // A native client reads the failure best in the stream that it came in.
            Next::PassOn if dialect == Dialect::Native && matches!(first, FirstAnswer::FailedEvent(_)) => {
                open.trail.error_code = search.failed_code();
                open.trail.error_kind = Some(Kind::Upstream);
                return Ok(search.begin(open, leg, lease, first));
            }
            Next::PassOn => return Err(search.last_failure.unwrap_or_else(|| Rejection::upstream_failed().into())),
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
    /// Leases an account for the next leg.
    fn choose(&mut self) -> Result<Lease, Stop> {
        let sticky = || self.plane.sticky_sessions.find(&self.conversation);
        let preferred = self.again.or_else(sticky);
        let now = clock::now();
        let leased = selection::lease(&self.plane.state, &self.request.model, &self.excluded, preferred, now);
        self.again = None;
        leased.map_err(|trouble| {
            let rejection = Rejection::pool_exhausted(&trouble, now);
            // A limit says when to come back, which helps more than what the last account happened to say.
            match self.last_failure.take().filter(|_| rejection.resets_at.is_none()) {
                Some(failure) => failure,
                None => rejection.into(),
            }
        })
    }

    fn start_leg(
        &self,
        downstream: &mut Downstream<'_>,
        open: &mut OpenExchange,
        account: &Arc<PooledAccount>,
    ) -> Result<Leg, Stop> {
        let meter = Arc::<Mutex<Meter>>::default();
        let input_tokens_estimate = (self.body.len() as u64 / BYTES_PER_TOKEN).min(INPUT_TOKENS_ESTIMATE_MAX);
        open.watch(Arc::clone(&meter), input_tokens_estimate);
        open.trail.legs += 1;
        open.trail.account_id = Some(account.account.id);
        let origin = &self.plane.origin;
        let order = LegOrder {
            account: Arc::clone(account),
            peer: origin.peer().ok_or_else(Rejection::upstream_failed)?,
            authority: origin.authority(),
            path: origin.path("/codex/responses"),
            body_bytes: self.body.len(),
            exchange_id: open.trail.id,
            meter,
        };
        let leg = Leg::start(downstream.session(), order, self.body.clone(), &self.plane.state.tasks);
        leg.ok_or_else(|| Rejection::internal().into())
    }

    fn patience(&self) -> Patience<'_> {
        let config = &self.plane.state.config.upstream;
        Patience {
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            keep_alive: config.keep_alive_interval,
            status_hold_until: self.request.wants_stream.then(|| self.began + config.status_hold),
            dialect: self.dialect,
            head: &self.head,
        }
    }

    /// The leg answers: its account is the conversation's from now on.
    fn begin(self, open: &mut OpenExchange, leg: Leg, lease: Lease, first: FirstAnswer) -> Answering {
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
        let conversation = self.conversation.with_turn_state(turn_state);
        self.plane.sticky_sessions.remember(&conversation, lease.account().account.id);
        open.trail.upstream_status = Some(started.status);
        open.trail.first_byte_at = started.head_at;
        Answering::new(leg, lease, started, self.head, self.request)
    }

    /// What the last failure called itself, for the request log.
    fn failed_code(&self) -> Option<String> {
        match &self.last_failure {
            Some(Stop::PassOn(refusal)) => refusal.code.clone(),
            Some(Stop::Rejected(rejection)) => Some(rejection.code.to_owned()),
            Some(Stop::ClientGone) | None => None,
        }
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
                tokio::select! {
                    gone = downstream.client_gone() => return Err(gone.into()),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            Next::SameAccountWithFreshToken => {
                self.tried.fresh_token = true;
                let freshness = tokio::select! {
                    gone = downstream.client_gone() => return Err(gone.into()),
                    freshness = self.plane.state.account_tokens.refresh(id, account.account.token_version) => freshness,
                };
                if freshness != Freshness::Fresh {
                    self.exclude(id);
                    return Ok(());
                }
            }
            Next::SameAccountWithoutEncryptedContent => {
                self.tried.without_encrypted_content = true;
                let Some((body, dropped)) = without_encrypted_items(&self.body) else {
                    self.exclude(id);
                    return Ok(());
                };
                self.body = body;
                self.head.headers.push(("x-codex-lb-dropped", format!("encrypted_content={dropped}")));
            }
            Next::NextAccount | Next::PassOn => debug_assert!(false, "not about the same account"),
        }
        self.again = Some(id);
        Ok(())
    }
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

/// Does to the account what the verdict says.
fn affect(plane: &DataPlane, account: &Arc<PooledAccount>, verdict: &Verdict, leg_began_at: Timestamp, now: Timestamp) {
    let apply = |state, reason: &str, until| {
        plane.state.pool.apply_status(account, AccountStatus { state, reason: Some(reason.to_owned()), until });
    };
    match &verdict.account {
        AccountEffect::None | AccountEffect::ModelUnsupported => {}
        AccountEffect::Failure => account.live.note_failure(leg_began_at, now, verdict::back_off),
        AccountEffect::RateLimited(until) => apply(AccountState::RateLimited, "upstream limits its rate", Some(*until)),
        AccountEffect::QuotaExceeded(until) => {
            apply(AccountState::QuotaExceeded, "an upstream window is used up", Some(*until));
        }
        AccountEffect::Deactivated(code) => apply(AccountState::Deactivated, code, None),
    }
}

impl UpstreamRefusal {
    /// A failure event as the HTTP error it would have been.
    pub(super) fn from_event(event: &Bytes) -> Self {
        let error = UpstreamError::from_event(event);
        let status = match error.name() {
            "rate_limit_exceeded" | "usage_limit_reached" | "insufficient_quota" | "usage_not_included" => 429,
            "server_is_overloaded" | "slow_down" | "overloaded" => 503,
            "server_error" | "" => 502,
            _ => 400,
        };
        Self::new(status, &error)
    }
}
