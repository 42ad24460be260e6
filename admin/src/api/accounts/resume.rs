//! `POST /api/v1/accounts/{id}/resume`: lets an account serve again, whatever took it out. If upstream still refuses it,
//! its next exchange finds out.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::domain::account::AccountStatus;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::state::SharedState;

use super::pause::set_status;
use super::view::AccountView;
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::extract::IdInPath;

pub(crate) async fn resume(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<AccountId>,
) -> Result<Json<AccountView>, ApiError> {
    if let Some(pooled) = state.pool.snapshot().find(id) {
        // Failures of before no longer make it sit out.
        pooled.live.forget_failures();
    }
    set_status(&state, id, &AccountStatus::ACTIVE).await
}
