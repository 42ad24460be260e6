//! `GET /api/v1/settings/{group}`: one group with its version.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use codex_lb_shared::domain::settings::{AccessSettings, RoutingSettings};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::SettingsGroup;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{GroupInPath, GroupView};
use crate::access::Viewer;
use crate::api_error::ApiError;

pub(crate) async fn show(
    _: Viewer,
    State(state): State<Arc<SharedState>>,
    GroupInPath(group): GroupInPath,
) -> Result<Response, ApiError> {
    match group {
        SettingsGroup::Routing => load::<RoutingSettings>(&state, group).await,
        SettingsGroup::Access => load::<AccessSettings>(&state, group).await,
    }
}

async fn load<T: Serialize + DeserializeOwned + Default>(
    state: &SharedState,
    group: SettingsGroup,
) -> Result<Response, ApiError> {
    let stored = state.store.load_settings_group::<T>(group).await?;
    Ok(Json(GroupView::from(stored)).into_response())
}
