//! `GET /api/v1/egress-proxies`: all egress proxies, oldest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::state::SharedState;
use serde::Serialize;

use super::view::EgressProxyView;
use crate::access::Viewer;
use crate::api_error::ApiError;

#[derive(Serialize)]
pub(crate) struct Answer {
    items: Vec<EgressProxyView>,
}

pub(crate) async fn list(_: Viewer, State(state): State<Arc<SharedState>>) -> Result<Json<Answer>, ApiError> {
    let stored = state.store.list_egress_proxies().await?;
    let pool = state.pool.snapshot();
    Ok(Json(Answer { items: stored.into_iter().map(|stored| EgressProxyView::of(stored.egress, &pool)).collect() }))
}
