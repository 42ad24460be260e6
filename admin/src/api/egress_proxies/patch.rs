//! `PATCH /api/v1/egress-proxies/{id}`: changes an egress proxy. A field that is missing stays as it is, but a password
//! is never taken to another place: who changes kind, host or port gives it anew. New connections go the new way at
//! once; what runs on old ones ends in peace.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock;
use codex_lb_shared::domain::egress_proxy::{EgressEndpoint, EgressKind};
use codex_lb_shared::ids::EgressProxyId;
use codex_lb_shared::secret::SealedEgressPassword;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::{EgressProxyForm, StoredEgressProxy};
use secrecy::SecretString;
use serde::Deserialize;

use super::fields;
use super::view::{self, EgressProxyView};
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::{self, IdInPath, JsonBody};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Patch {
    name: Option<String>,
    kind: Option<EgressKind>,
    host: Option<String>,
    port: Option<u16>,
    /// `null` for none; its password goes with it.
    #[serde(default, deserialize_with = "extract::present")]
    user: Option<Option<String>>,
    /// `null` for none.
    #[serde(default, deserialize_with = "extract::present")]
    password: Option<Option<SecretString>>,
}

pub(crate) async fn patch(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<EgressProxyId>,
    JsonBody(body): JsonBody<Patch>,
) -> Result<Json<EgressProxyView>, ApiError> {
    let mut changed = change(&state, id, &body).await;
    if fields::is_to_be_tried_again(&state, &changed).await? {
        changed = change(&state, id, &body).await;
    }
    changed?;
    effect::accounts_changed(&state).await?;
    EgressProxyView::load(&state, id).await.map(Json)
}

async fn change(state: &SharedState, id: EgressProxyId, patch: &Patch) -> Result<(), ApiError> {
    let stored = view::find(state, id).await?;
    let version = stored.egress.version;
    let form = merged(state, stored, patch)?;
    Ok(state.store.update_egress_proxy(id, version, &form, clock::now()).await?)
}

/// What the egress proxy is to be.
fn merged(state: &SharedState, stored: StoredEgressProxy, patch: &Patch) -> Result<EgressProxyForm, ApiError> {
    let StoredEgressProxy { egress, password: sealed } = stored;
    let name = patch.name.as_deref().map_or(Ok(egress.name), |name| extract::name("name", name))?;
    let before = (egress.endpoint.kind, egress.endpoint.host.clone(), egress.endpoint.port);
    let endpoint = EgressEndpoint {
        kind: patch.kind.unwrap_or(egress.endpoint.kind),
        host: patch.host.clone().unwrap_or(egress.endpoint.host),
        port: patch.port.unwrap_or(egress.endpoint.port),
        user: patch.user.clone().unwrap_or(egress.endpoint.user),
    };
    let has_moved = before != (endpoint.kind, endpoint.host.clone(), endpoint.port);
    if has_moved && sealed.is_some() && patch.password.is_none() && endpoint.user.is_some() {
        let why = "Give the password again, or null: it is not sent to another place than the one it was given for.";
        return Err(ApiError::invalid_field("password", why));
    }
    let (password, kept) = match (&patch.password, &patch.user) {
        (Some(password), _) => (password.clone(), None),
        (None, Some(None)) => (None, None),
        (None, Some(Some(_)) | None) => {
            let opened = sealed.as_ref().map(|sealed| sealed.open(&state.sealer, egress.id)).transpose();
            // A password that does not open stays what it is: closed, until somebody sets it anew.
            (opened.unwrap_or(None), sealed)
        }
    };
    let endpoint = fields::checked(endpoint, password.as_ref())?;
    let password: Option<SealedEgressPassword> = match kept {
        Some(sealed) => Some(sealed),
        None => fields::seal(state, egress.id, password.as_ref())?,
    };
    Ok(EgressProxyForm { name, endpoint, password })
}
