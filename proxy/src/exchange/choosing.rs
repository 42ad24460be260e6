//! Which account the next leg uses: the one that must, the one that rather should, or the best; and if all are busy, the
//! exchange waits its turn.

use std::time::Duration;

use codex_lb_decide::selection::{Affinity, AtCapacity, Ineligible, NotChosen, OwnerUnavailable, PoolTrouble, Why};
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::AccountState;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::pool::Lease;
use tokio::time::Instant;

use super::failover::Search;
use super::{Asked, Stop};
use crate::rejection::Rejection;
use crate::relay::Downstream;
use crate::route::Dialect;
use crate::selection;

/// How often a waiting exchange looks whether an account became eligible that was not when it queued up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Search<'_> {
    /// Leases an account for the next leg, waiting for a slot if all are busy.
    pub(super) async fn choose(&mut self, downstream: &mut Downstream<'_>) -> Result<(Why, Lease), Stop> {
        if let Some(lease) = self.waited_for.take() {
            return Ok((Why::Owner, lease));
        }
        let give_up_at = self.give_up_at();
        let sticky_wait_ms = self.plane.state.settings.load().routing.sticky_wait_ms;
        let sticky_until = (Instant::now() + Duration::from_millis(u64::from(sticky_wait_ms))).min(give_up_at);
        let mut has_waited = false;
        loop {
            let affinity = self.affinity(has_waited);
            let busy = match self.lease_now(affinity) {
                Ok(leased) => return Ok(leased),
                Err(NotChosen::AtCapacity(busy)) => busy,
                Err(NotChosen::OwnerUnavailable(_)) => return Err(self.owner_unavailable()),
                Err(NotChosen::Nobody(trouble)) => return Err(self.exhausted(&trouble)),
            };
            let waits_for_own = busy.is_for_own() && matches!(affinity, Affinity::Sticky { .. });
            let deadline = if waits_for_own { sticky_until } else { give_up_at };
            if let Some(leased) = self.wait_in_queue(downstream, affinity, busy, deadline).await? {
                return Ok(leased);
            }
            if waits_for_own && !has_waited {
                has_waited = true;
            } else if Instant::now() >= give_up_at {
                return Err(self.nobody(Rejection::pool_busy()));
            }
        }
    }

    /// When a wait for a slot ends: after the setting's time, or when the client would give up waiting for the answer.
    fn give_up_at(&self) -> Instant {
        let queue_timeout_ms = self.plane.state.settings.load().routing.queue_timeout_ms;
        let by_setting = Instant::now() + Duration::from_millis(u64::from(queue_timeout_ms));
        self.asked.answer_by.map_or(by_setting, |answer_by| answer_by.min(by_setting))
    }

    /// Leases the account that alone can read what the request holds, if it can serve before a wait for a slot ends.
    pub(super) async fn wait_for_owner(
        &mut self,
        downstream: &mut Downstream<'_>,
        owner: AccountId,
    ) -> Result<Option<Lease>, Stop> {
        let (give_up_at, affinity) = (self.give_up_at(), Affinity::Owner(owner));
        while Instant::now() < give_up_at {
            // Earlier legs say nothing about a moment to come.
            match selection::lease(self.plane, self.asked.request, &[], affinity, clock::now()) {
                Ok((_, lease)) => return Ok(Some(lease)),
                Err(NotChosen::OwnerUnavailable(OwnerUnavailable { reason, .. })) => {
                    let Some(able_at) = reason.and_then(ends_at) else { return Ok(None) };
                    let look_at = Instant::now() + able_at.since(clock::now()).min(LOOK_AGAIN);
                    self.vigil.wait(downstream, look_at.min(give_up_at), std::future::pending::<()>()).await?;
                }
                Err(NotChosen::AtCapacity(busy)) => {
                    if let Some((_, lease)) = self.wait_in_queue(downstream, affinity, busy, give_up_at).await? {
                        return Ok(Some(lease));
                    }
                }
                Err(NotChosen::Nobody(_)) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// What ties the exchange to an account.
    fn affinity(&self, has_waited: bool) -> Affinity {
        if let Some(owner) = self.asked.request.owner {
            return Affinity::Owner(owner);
        }
        let sticky = self.again.or_else(|| self.plane.sticky_sessions.find(&self.asked.conversation));
        match (self.asked.conversation.seed(), sticky) {
            (Some(key), Some(account)) => Affinity::Sticky { key, account, has_waited },
            (Some(key), None) => Affinity::New { key },
            (None, Some(account)) => Affinity::Sticky { key: [0; 16], account, has_waited },
            (None, None) => Affinity::None,
        }
    }

    fn lease_now(&mut self, affinity: Affinity) -> Result<(Why, Lease), NotChosen> {
        let leased = selection::lease(self.plane, self.asked.request, &self.excluded, affinity, clock::now())?;
        self.again = None;
        Ok((leased.0.why, leased.1))
    }

    /// Waits for a slot until the deadline, or a second: then it is time to look who is eligible by now.
    async fn wait_in_queue(
        &mut self,
        downstream: &mut Downstream<'_>,
        affinity: Affinity,
        busy: AtCapacity,
        deadline: Instant,
    ) -> Result<Option<(Why, Lease)>, Stop> {
        let queue = std::sync::Arc::clone(&self.plane.queue);
        let why = busy.why;
        let wants = Box::new(move |pooled: &codex_lb_shared::pool::PooledAccount| {
            busy.eligible.contains(&pooled.account.id) && is_fit(pooled, clock::now())
        });
        let Some(mut place) = queue.enter(self.asked.caller_scope, wants) else {
            return Err(self.nobody(Rejection::pool_busy()));
        };
        // A slot that was freed between the choice and the queue is told to nobody.
        match self.lease_now(affinity) {
            Ok(leased) => return Ok(Some(leased)),
            Err(NotChosen::AtCapacity(_) | NotChosen::OwnerUnavailable(_) | NotChosen::Nobody(_)) => {}
        }
        // The place is kept over the looks, so that looking costs nobody its turn.
        while Instant::now() < deadline {
            let look_at = deadline.min(Instant::now() + LOOK_AGAIN);
            if let Some(slot) = self.vigil.wait(downstream, look_at, place.slot()).await? {
                self.again = None;
                return Ok(slot.map(|lease| (why, lease)));
            }
            match self.lease_now(affinity) {
                Ok(leased) => return Ok(Some(leased)),
                Err(NotChosen::AtCapacity(_)) => {}
                Err(NotChosen::OwnerUnavailable(_) | NotChosen::Nobody(_)) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Codex sends its whole history, which any account can take, once it is told that its last response is unknown.
    fn owner_unavailable(&mut self) -> Stop {
        let Asked { dialect, request, .. } = &self.asked;
        let can_start_over = *dialect == Dialect::Native && request.previous_response_id.is_some();
        let rejection =
            if can_start_over { Rejection::previous_response_not_found() } else { Rejection::owner_unavailable() };
        self.nobody(rejection)
    }

    fn exhausted(&mut self, trouble: &PoolTrouble) -> Stop {
        self.nobody(Rejection::pool_exhausted(trouble, clock::now()))
    }

    /// What the caller gets when nobody is left. What says when to come back helps more than what the last account
    /// happened to say.
    fn nobody(&mut self, rejection: Rejection) -> Stop {
        let says_when = rejection.resets_at.is_some()
            || (self.asked.dialect == Dialect::Native && rejection.as_rate_limit().is_some());
        match self.last_failure.take().filter(|_| !says_when) {
            Some(failure) => failure,
            None => rejection.into(),
        }
    }
}

/// When an account that cannot serve may be able to again by itself, if that is known.
const fn ends_at(reason: Ineligible) -> Option<Timestamp> {
    match reason {
        Ineligible::Limited(until) => until,
        Ineligible::ModelLimited(until) | Ineligible::CoolingDown(until) => Some(until),
        Ineligible::OutOfScope
        | Ineligible::NotTheSingleAccount
        | Ineligible::Paused
        | Ineligible::ReauthRequired
        | Ineligible::Deactivated
        | Ineligible::NoWayOut
        | Ineligible::ModelNotOffered
        | Ineligible::TierNotOffered
        | Ineligible::Excluded => None,
    }
}

/// Whether an account that was eligible when the exchange queued up still is.
fn is_fit(pooled: &codex_lb_shared::pool::PooledAccount, now: Timestamp) -> bool {
    let live = pooled.live.view(now);
    live.state == AccountState::Active && live.cooling_until.is_none_or(|until| until <= now)
}
