//! `POST /api/v1/api-keys/{id}/enable`: lets a disabled api key open the door again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::ids::ApiKeyId;
use codex_lb_shared::state::SharedState;

use super::view::{ApiKeyView, find};
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::IdInPath;

pub(crate) async fn enable(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<ApiKeyId>,
) -> Result<Json<ApiKeyView>, ApiError> {
    set_enabled(&state, id, true).await
}

/// Switches a key that was not revoked.
pub(super) async fn set_enabled(
    state: &SharedState,
    id: ApiKeyId,
    is_enabled: bool,
) -> Result<Json<ApiKeyView>, ApiError> {
    if find(state, id).await?.revoked_at.is_some() {
        return Err(ApiError::ApiKeyRevoked);
    }
    state.store.set_api_key_enabled(id, is_enabled).await?;
    effect::api_keys_changed(state).await?;
    ApiKeyView::load(state, id).await.map(Json)
}
