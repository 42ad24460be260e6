//! Does to an account what a verdict says, at once in this process and soon in the database.

use std::sync::Arc;

use codex_lb_decide::verdict::{self, AccountEffect};
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{AccountState, AccountStatus};
use codex_lb_shared::pool::PooledAccount;

use crate::serve::DataPlane;

/// The leg that a verdict is about.
#[derive(Clone)]
pub(crate) struct JudgedLeg {
    /// On which account it ran.
    pub(crate) account: Arc<PooledAccount>,
    /// The model it asked for, if any.
    pub(crate) model: Option<String>,
    /// When it began: legs that ran side by side and fail together count as one failure.
    pub(crate) began_at: Timestamp,
}

impl JudgedLeg {
    /// Does what the verdict on this leg says.
    pub(crate) fn suffer(&self, plane: &DataPlane, effect: &AccountEffect, now: Timestamp) {
        let apply = |state, reason: &str, until| {
            let status = AccountStatus { state, reason: Some(reason.to_owned()), until };
            plane.state.pool.apply_status(&self.account, status);
        };
        match effect {
            AccountEffect::None => {}
            AccountEffect::Failure => self.account.live.note_failure(self.began_at, now, verdict::back_off),
            AccountEffect::ModelUnsupported => {
                if let Some(model) = &self.model {
                    plane.model_notes.note_refusal(model, self.account.account.id);
                }
            }
            AccountEffect::RateLimited(until) => match self.named_limit(plane) {
                Some(named_limit) => self.account.live.cool_named_limit(named_limit, *until, now),
                None => apply(AccountState::RateLimited, "upstream limits its rate", Some(*until)),
            },
            AccountEffect::QuotaExceeded(until) => match self.named_limit(plane) {
                Some(named_limit) => self.account.live.cool_named_limit(named_limit, *until, now),
                None => apply(AccountState::QuotaExceeded, "an upstream window is used up", Some(*until)),
            },
            AccountEffect::Deactivated(code) => apply(AccountState::Deactivated, code, None),
        }
    }

    /// The leg answered to its end: earlier failures no longer count.
    pub(crate) fn succeed(&self, now: Timestamp) {
        self.account.live.note_success(now);
    }

    /// The limit that metered it, if it was not the account's own: the account then serves all other models.
    fn named_limit(&self, plane: &DataPlane) -> Option<String> {
        plane.model_notes.limit_of(self.model.as_deref()?)
    }
}
