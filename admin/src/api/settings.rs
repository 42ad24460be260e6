//! `/api/v1/settings`: what may change while the gateway runs, by group. Each group has a version, which a change must
//! name, so that of two people who change it at once one is told.

mod list;
mod patch;
mod show;

pub(crate) use list::list;
pub(crate) use patch::patch;
pub(crate) use show::show;

use axum::extract::{FromRequestParts, Path};
use codex_lb_shared::store::{SettingsGroup, Versioned};
use http::request::Parts;
use serde::Serialize;

use crate::api_error::ApiError;

/// The group that the path names.
pub(crate) struct GroupInPath(SettingsGroup);

impl<S: Send + Sync> FromRequestParts<S> for GroupInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let found = [SettingsGroup::Routing, SettingsGroup::Access]
            .into_iter()
            .find(|group| name.as_ref().is_ok_and(|Path(name)| name == group.as_str()));
        found.map(Self).ok_or(ApiError::NotFound("group of settings"))
    }
}

/// A group as the API shows it.
#[derive(Serialize)]
pub(crate) struct GroupView<T> {
    version: i64,
    value: T,
}

impl<T> From<Versioned<T>> for GroupView<T> {
    fn from(group: Versioned<T>) -> Self {
        Self { version: group.version, value: group.value }
    }
}
