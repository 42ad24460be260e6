//! `POST /api/v1/egress-proxies/{id}/test`: connects to upstream through an egress proxy, TLS included, and hangs up. No
//! account takes part, and nothing is sent.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::egress::AccountEgress;
use codex_lb_shared::ids::EgressProxyId;
use codex_lb_shared::state::SharedState;
use serde::Serialize;

use super::view;
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::extract::IdInPath;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    ok: bool,
    duration_ms: u64,
    /// What was tried and why it failed.
    error: Option<String>,
}

pub(crate) async fn test(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<EgressProxyId>,
) -> Result<Json<Answer>, ApiError> {
    view::find(&state, id).await?;
    let began = Instant::now();
    let error = match state.pool.snapshot().egresses.of(Some(id)) {
        AccountEgress::Closed(closed) => Some(closed.to_string()),
        AccountEgress::Direct => return Err(ApiError::Impossible("an egress proxy that is none")),
        AccountEgress::Through(egress) => {
            let upstream = &state.config.upstream.base_url;
            let tried = state.egress_dialer.try_out(&egress, upstream.host(), upstream.port(), upstream.is_tls());
            tried.await.ok_or(ApiError::TestedTooOften)?.err().map(|error| error.whole_story())
        }
    };
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(Answer { ok: error.is_none(), duration_ms, error }))
}
