//! The metrics listener: Prometheus' text, and a sign of life for who watches only this port.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use codex_lb_shared::clock;
use codex_lb_shared::domain::account::AccountState;
use codex_lb_shared::state::SharedState;
use http::header;

use crate::health;

/// What the metrics listener serves.
pub(crate) fn router(state: Arc<SharedState>) -> Router {
    Router::new().route("/metrics", get(render)).route("/health/live", get(health::live)).with_state(state)
}

/// Accounts are counted when somebody asks: a state that ended by itself a moment ago has ended here too.
async fn render(State(state): State<Arc<SharedState>>) -> impl IntoResponse {
    state.metrics.set_accounts(accounts_by_state(&state));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.render())
}

/// How many accounts are in each state now; states without accounts are left out.
pub(crate) fn accounts_by_state(state: &SharedState) -> HashMap<AccountState, usize> {
    let mut counts = HashMap::new();
    for view in state.pool.live_views(&state.pool.snapshot(), clock::now()) {
        *counts.entry(view.state).or_insert(0) += 1;
    }
    counts
}
