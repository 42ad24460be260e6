//! `GET /api/v1/egress-proxies/{id}`: one egress proxy.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::ids::EgressProxyId;
use codex_lb_shared::state::SharedState;

use super::view::EgressProxyView;
use crate::access::Viewer;
use crate::api_error::ApiError;
use crate::extract::IdInPath;

pub(crate) async fn show(
    _: Viewer,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<EgressProxyId>,
) -> Result<Json<EgressProxyView>, ApiError> {
    EgressProxyView::load(&state, id).await.map(Json)
}
