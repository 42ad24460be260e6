//! `GET /api/v1/api-keys`: all api keys, revoked ones included, oldest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock;
use codex_lb_shared::state::SharedState;
use serde::Serialize;

use super::view::ApiKeyView;
use crate::access::Viewer;
use crate::api_error::ApiError;

#[derive(Serialize)]
pub(crate) struct Answer {
    items: Vec<ApiKeyView>,
}

pub(crate) async fn list(_: Viewer, State(state): State<Arc<SharedState>>) -> Result<Json<Answer>, ApiError> {
    let keys = state.store.list_api_keys().await?;
    let now = clock::now();
    Ok(Json(Answer { items: keys.into_iter().map(|key| ApiKeyView::of(key, now)).collect() }))
}
