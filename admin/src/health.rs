//! Answers health checks as the data plane does: alive, ready for traffic, started.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use codex_lb_shared::state::SharedState;
use http::{StatusCode, header};
use serde_json::json;

/// `GET /health`, `/health/live`, `/health/startup`. A lost database is told as `degraded` and never as a failure: it
/// would restart every pod at once.
pub(crate) async fn live(State(state): State<Arc<SharedState>>) -> Response {
    answer(StatusCode::OK, if state.is_database_lost() { "degraded" } else { "ok" })
}

/// `GET /health/ready`: no longer while the process is being stopped.
pub(crate) async fn ready(State(state): State<Arc<SharedState>>) -> Response {
    if state.is_draining() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "draining");
    }
    live(State(state)).await
}

fn answer(status: StatusCode, word: &'static str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "status": word }))).into_response()
}
