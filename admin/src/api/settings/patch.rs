//! `PATCH /api/v1/settings/{group}`: changes the fields of a group that `value` names, if the group still has the
//! `version` that the change was made from.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use codex_lb_shared::clock;
use codex_lb_shared::domain::settings::{AccessSettings, RoutingSettings};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::{SettingsGroup, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{GroupInPath, GroupView};
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::{JsonBody, does_not_fit};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    version: i64,
    value: Map<String, Value>,
}

pub(crate) async fn patch(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    GroupInPath(group): GroupInPath,
    JsonBody(patch): JsonBody<Patch>,
) -> Result<Response, ApiError> {
    match group {
        SettingsGroup::Routing => change::<RoutingSettings>(&state, group, patch).await,
        SettingsGroup::Access => change::<AccessSettings>(&state, group, patch).await,
    }
}

async fn change<T: Serialize + DeserializeOwned + Default + Sync>(
    state: &SharedState,
    group: SettingsGroup,
    patch: Patch,
) -> Result<Response, ApiError> {
    let stored = state.store.load_settings_group::<T>(group).await?;
    if stored.version != patch.version {
        return Err(StoreError::Conflict { action: "change a group of settings" }.into());
    }
    let value: T = merged(&stored.value, patch.value).map_err(|error| does_not_fit(&error))?;
    let version = state.store.save_settings_group(group, &value, patch.version, clock::now()).await?;
    effect::settings_changed(state).await?;
    Ok(Json(GroupView { version, value }).into_response())
}

/// The group with some of its fields replaced; the group's own type refuses what does not belong there.
fn merged<T: Serialize + DeserializeOwned>(group: &T, changes: Map<String, Value>) -> Result<T, serde_json::Error> {
    let mut fields = serde_json::to_value(group)?;
    if let Value::Object(fields) = &mut fields {
        fields.extend(changes);
    }
    serde_json::from_value(fields)
}
