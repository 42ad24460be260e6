//! `GET /api/v1/accounts`: all accounts, oldest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock;
use codex_lb_shared::state::SharedState;
use serde::Serialize;

use super::view::AccountView;
use crate::access::Viewer;
use crate::api_error::ApiError;

#[derive(Serialize)]
pub(crate) struct Answer {
    items: Vec<AccountView>,
}

pub(crate) async fn list(_: Viewer, State(state): State<Arc<SharedState>>) -> Result<Json<Answer>, ApiError> {
    let stored = state.store.list_accounts().await?;
    let (pool, now) = (state.pool.snapshot(), clock::now());
    let items = stored.into_iter().map(|stored| AccountView::of(stored.account, &pool, now)).collect();
    Ok(Json(Answer { items }))
}
