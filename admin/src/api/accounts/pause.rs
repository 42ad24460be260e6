//! `POST /api/v1/accounts/{id}/pause`: takes an account out until somebody resumes it. What runs on it ends in peace.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock;
use codex_lb_shared::domain::account::{AccountState, AccountStatus};
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::state::SharedState;

use super::view::AccountView;
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::IdInPath;

pub(crate) async fn pause(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<AccountId>,
) -> Result<Json<AccountView>, ApiError> {
    let status =
        AccountStatus { state: AccountState::Paused, reason: Some("paused by an operator".to_owned()), until: None };
    set_status(&state, id, &status).await
}

/// Sets an account's state by an operator's word.
pub(super) async fn set_status(
    state: &SharedState,
    id: AccountId,
    status: &AccountStatus,
) -> Result<Json<AccountView>, ApiError> {
    // What the data plane learned before is written first: as long as it is pending it would win over this word.
    state.pool.write_pending().await;
    if !state.store.set_account_status(id, status, clock::now()).await? {
        return Err(ApiError::NotFound("account"));
    }
    effect::accounts_changed(state).await?;
    AccountView::load(state, id).await.map(Json)
}
