//! `POST /api/v1/api-keys/{id}/revoke`: ends an api key for good. One that was revoked before stays so.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock;
use codex_lb_shared::ids::ApiKeyId;
use codex_lb_shared::state::SharedState;

use super::view::ApiKeyView;
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::IdInPath;

pub(crate) async fn revoke(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<ApiKeyId>,
) -> Result<Json<ApiKeyView>, ApiError> {
    // Also when somebody revoked it before: whoever asks again may have been told that it is not effective yet.
    state.store.revoke_api_key(id, clock::now()).await?;
    effect::api_keys_changed(&state).await?;
    ApiKeyView::load(&state, id).await.map(Json)
}
