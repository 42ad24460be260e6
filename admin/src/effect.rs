//! Makes a change that was stored effective in this process before it is answered, and wakes whoever watches.
//!
//! If that fails the change is stored all the same, and the change watch goes on trying; the caller is told so.

use codex_lb_shared::state::SharedState;

use crate::api_error::{ApiError, NotReadBack};

/// An account was added, changed or removed.
pub(crate) async fn accounts_changed(state: &SharedState) -> Result<(), ApiError> {
    state.changes.notify();
    state.pool.reload().await.map_err(|error| ApiError::NotEffectiveYet(NotReadBack::from(error)))
}

/// An api key was added or changed.
pub(crate) async fn api_keys_changed(state: &SharedState) -> Result<(), ApiError> {
    state.changes.notify();
    state.api_keys.reload().await.map_err(|error| ApiError::NotEffectiveYet(NotReadBack::from(error)))
}

/// A group of settings was changed.
pub(crate) async fn settings_changed(state: &SharedState) -> Result<(), ApiError> {
    state.changes.notify();
    state.reload_settings().await.map_err(|error| ApiError::NotEffectiveYet(NotReadBack::from(error)))
}
