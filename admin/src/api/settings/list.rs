//! `GET /api/v1/settings`: all groups with their versions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::domain::settings::{AccessSettings, RoutingSettings};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::SettingsGroup;
use serde::Serialize;

use super::GroupView;
use crate::access::Viewer;
use crate::api_error::ApiError;

#[derive(Serialize)]
pub(crate) struct Answer {
    routing: GroupView<RoutingSettings>,
    access: GroupView<AccessSettings>,
}

pub(crate) async fn list(_: Viewer, State(state): State<Arc<SharedState>>) -> Result<Json<Answer>, ApiError> {
    Ok(Json(Answer {
        routing: state.store.load_settings_group(SettingsGroup::Routing).await?.into(),
        access: state.store.load_settings_group(SettingsGroup::Access).await?.into(),
    }))
}
