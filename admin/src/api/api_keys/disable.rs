//! `POST /api/v1/api-keys/{id}/disable`: keeps an api key from opening the door until it is enabled again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::ids::ApiKeyId;
use codex_lb_shared::state::SharedState;

use super::enable::set_enabled;
use super::view::ApiKeyView;
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::extract::IdInPath;

pub(crate) async fn disable(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<ApiKeyId>,
) -> Result<Json<ApiKeyView>, ApiError> {
    set_enabled(&state, id, false).await
}
