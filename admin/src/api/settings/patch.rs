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
        SettingsGroup::Routing => change(&state, group, patch, RoutingSettings::out_of_range).await,
        SettingsGroup::Access => change(&state, group, patch, |_: &AccessSettings| None).await,
    }
}

async fn change<T: Serialize + DeserializeOwned + Default>(
    state: &SharedState,
    group: SettingsGroup,
    patch: Patch,
    out_of_range: impl FnOnce(&T) -> Option<&'static str>,
) -> Result<Response, ApiError> {
    // As it stands, not as we read it: fields that only a newer version knows must survive a change made here.
    let stored = state.store.load_settings_group::<Map<String, Value>>(group).await?;
    if stored.version != patch.version {
        return Err(StoreError::Conflict { action: "change a group of settings" }.into());
    }
    refuse_unknown::<T>(&patch.value)?;
    let mut fields = stored.value;
    fields.extend(patch.value);
    let value: T = serde_json::from_value(Value::Object(fields.clone())).map_err(|error| does_not_fit(&error))?;
    if out_of_range(&value).is_some() {
        return Err(ApiError::invalid_field("value", "A field is outside the range that its documentation names."));
    }
    let version = state.store.save_settings_group(group, &fields, patch.version, clock::now()).await?;
    effect::settings_changed(state).await?;
    Ok(Json(GroupView { version, value }).into_response())
}

/// Reading passes over fields that it does not know, so a mistyped one would seem to be set.
fn refuse_unknown<T: Serialize + Default>(changes: &Map<String, Value>) -> Result<(), ApiError> {
    let known = serde_json::to_value(T::default()).unwrap_or_default();
    match changes.keys().find(|name| known.get(name.as_str()).is_none()) {
        Some(_) => Err(ApiError::invalid_field("value", "This group has no field of that name.")),
        None => Ok(()),
    }
}
