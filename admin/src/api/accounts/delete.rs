//! `DELETE /api/v1/accounts/{id}`: removes an account with its tokens. Its history stays.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::state::SharedState;
use serde::Serialize;

use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::IdInPath;

#[derive(Serialize)]
pub(crate) struct Answer {
    id: AccountId,
}

pub(crate) async fn delete(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<AccountId>,
) -> Result<Json<Answer>, ApiError> {
    if !state.store.delete_account(id).await? {
        return Err(ApiError::NotFound("account"));
    }
    effect::accounts_changed(&state).await?;
    Ok(Json(Answer { id }))
}
