//! `GET /api/v1/accounts/{id}`: one account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::state::SharedState;

use super::view::AccountView;
use crate::access::Viewer;
use crate::api_error::ApiError;
use crate::extract::IdInPath;

pub(crate) async fn show(
    _: Viewer,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<AccountId>,
) -> Result<Json<AccountView>, ApiError> {
    AccountView::load(&state, id).await.map(Json)
}
