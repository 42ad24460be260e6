//! An api key as the API shows it: never its secret, nor the hash of it.

use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::api_key::ApiKey;
use codex_lb_shared::ids::ApiKeyId;
use codex_lb_shared::state::SharedState;
use serde::Serialize;

use crate::api_error::ApiError;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiKeyView {
    id: ApiKeyId,
    name: String,
    /// The secret's first characters.
    visible_prefix: String,
    state: ApiKeyState,
    revoked_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
}

/// Whether it opens the door, and if not, why.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ApiKeyState {
    Active,
    Disabled,
    Expired,
    Revoked,
}

impl ApiKeyView {
    pub(super) fn of(key: ApiKey, now: Timestamp) -> Self {
        let state = if key.revoked_at.is_some() {
            ApiKeyState::Revoked
        } else if key.is_usable_at(now) {
            ApiKeyState::Active
        } else if key.is_enabled {
            ApiKeyState::Expired
        } else {
            ApiKeyState::Disabled
        };
        Self {
            id: key.id,
            name: key.name,
            visible_prefix: key.visible_prefix,
            state,
            revoked_at: key.revoked_at,
            expires_at: key.expires_at,
            created_at: key.created_at,
            last_used_at: key.last_used_at,
        }
    }

    /// The key with this id, as it is stored now.
    pub(super) async fn load(state: &SharedState, id: ApiKeyId) -> Result<Self, ApiError> {
        find(state, id).await.map(|key| Self::of(key, clock::now()))
    }
}

pub(super) async fn find(state: &SharedState, id: ApiKeyId) -> Result<ApiKey, ApiError> {
    state.store.find_api_key(id).await?.ok_or(ApiError::NotFound("api key"))
}
