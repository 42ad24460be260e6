//! `POST /api/v1/api-keys`: makes an api key. The answer is the only one that ever holds its secret.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::api_key::{ApiKey, NewApiKeySecret};
use codex_lb_shared::ids::ApiKeyId;
use codex_lb_shared::state::SharedState;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::view::ApiKeyView;
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::{self, JsonBody};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Create {
    name: String,
    /// In the future; for ever without it.
    expires_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_key: ApiKeyView,
    secret: &'a str,
}

pub(crate) async fn create(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    JsonBody(body): JsonBody<Create>,
) -> Result<Response, ApiError> {
    let now = clock::now();
    let name = extract::name("name", &body.name)?;
    if body.expires_at.is_some_and(|end| end <= now) {
        return Err(ApiError::invalid_field("expiresAt", "The end must lie in the future, in UTC milliseconds."));
    }
    let made = NewApiKeySecret::from_random(rand::random());
    let key = ApiKey {
        id: ApiKeyId::generate(),
        name,
        hash: made.hash,
        visible_prefix: made.visible_prefix,
        is_enabled: true,
        revoked_at: None,
        expires_at: body.expires_at,
        created_at: now,
        last_used_at: None,
    };
    state.store.insert_api_key(&key).await?;
    // The key exists now and its secret is shown only here, so it is shown even if this process learns of the key a
    // moment later than it should: the change watch sees to that.
    if let Err(error) = effect::api_keys_changed(&state).await {
        tracing::warn!(error = %error, "a new api key is not effective yet");
    }
    let answer = Answer { api_key: ApiKeyView::of(key, now), secret: made.secret.expose_secret() };
    Ok(extract::shown_once(answer))
}
