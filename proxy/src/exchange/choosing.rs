//! Which account the next leg uses: the one that must, the one that rather should, or the best; and if all are busy, the
//! exchange waits its turn.

use std::time::Duration;

use codex_lb_decide::selection::{Affinity, AtCapacity, NotChosen, PoolTrouble, Why};
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::AccountState;
use codex_lb_shared::pool::Lease;
use tokio::time::Instant;

use super::Stop;
use super::failover::Search;
use crate::rejection::Rejection;
use crate::relay::Downstream;
use crate::selection;

/// How often a waiting exchange looks whether an account became eligible that was not when it queued up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Search<'_> {
    /// Leases an account for the next leg, waiting for a slot if all are busy.
    pub(super) async fn choose(&mut self, downstream: &mut Downstream<'_>) -> Result<(Why, Lease), Stop> {
        let routing = self.plane.state.settings.load().routing.clone();
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        let give_up_at = Instant::now() + ms(routing.queue_timeout_ms);
        let sticky_until = (Instant::now() + ms(routing.sticky_wait_ms)).min(give_up_at);
        let mut has_waited = false;
        loop {
            let affinity = self.affinity(has_waited);
            let busy = match self.lease_now(affinity) {
                Ok(leased) => return Ok(leased),
                Err(NotChosen::AtCapacity(busy)) => busy,
                Err(NotChosen::OwnerUnavailable(_)) => return Err(self.nobody(Rejection::owner_unavailable())),
                Err(NotChosen::Nobody(trouble)) => return Err(self.exhausted(&trouble)),
            };
            let waits_for_own = busy.is_for_own && matches!(affinity, Affinity::Sticky { .. });
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

    /// What ties the exchange to an account.
    fn affinity(&self, has_waited: bool) -> Affinity {
        if let Some(owner) = self.request.owner {
            return Affinity::Owner(owner);
        }
        let sticky = self.again.or_else(|| self.plane.sticky_sessions.find(&self.conversation));
        match (self.conversation.seed(), sticky) {
            (Some(key), Some(account)) => Affinity::Sticky { key, account, has_waited },
            (Some(key), None) => Affinity::New { key },
            (None, Some(account)) => Affinity::Sticky { key: [0; 16], account, has_waited },
            (None, None) => Affinity::None,
        }
    }

    fn lease_now(&mut self, affinity: Affinity) -> Result<(Why, Lease), NotChosen> {
        let model = self.request.model.as_deref();
        let leased = selection::lease(&self.plane.state, model, &self.excluded, affinity, clock::now())?;
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
        let is_for_own = busy.is_for_own;
        let wants = Box::new(move |pooled: &codex_lb_shared::pool::PooledAccount| {
            busy.eligible.contains(&pooled.account.id) && is_fit(pooled, clock::now())
        });
        let Some(mut place) = queue.enter(self.caller_scope, wants) else {
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
                return Ok(slot.map(|lease| (why(affinity, is_for_own), lease)));
            }
            match self.lease_now(affinity) {
                Ok(leased) => return Ok(Some(leased)),
                Err(NotChosen::AtCapacity(_)) => {}
                Err(NotChosen::OwnerUnavailable(_) | NotChosen::Nobody(_)) => return Ok(None),
            }
        }
        Ok(None)
    }

    fn exhausted(&mut self, trouble: &PoolTrouble) -> Stop {
        self.nobody(Rejection::pool_exhausted(trouble, clock::now()))
    }

    /// What the caller gets when nobody is left. A limit says when to come back, which helps more than what the last
    /// account happened to say.
    fn nobody(&mut self, rejection: Rejection) -> Stop {
        match self.last_failure.take().filter(|_| rejection.resets_at.is_none()) {
            Some(failure) => failure,
            None => rejection.into(),
        }
    }
}

/// Whether an account that was eligible when the exchange queued up still is.
fn is_fit(pooled: &codex_lb_shared::pool::PooledAccount, now: Timestamp) -> bool {
    let live = pooled.live.view(now);
    live.state == AccountState::Active && live.cooling_until.is_none_or(|until| until <= now)
}

const fn why(affinity: Affinity, is_for_own: bool) -> Why {
    match affinity {
        Affinity::Owner(_) => Why::Owner,
        Affinity::Sticky { .. } if is_for_own => Why::Sticky,
        Affinity::Sticky { .. } => Why::Overflow,
        Affinity::New { .. } => Why::Placed,
        Affinity::None => Why::Strategy,
    }
}
