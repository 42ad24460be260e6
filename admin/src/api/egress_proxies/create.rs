//! `POST /api/v1/egress-proxies`: adds an egress proxy. Nothing goes through it until an account is bound to it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock;
use codex_lb_shared::domain::egress_proxy::{EgressEndpoint, EgressKind};
use codex_lb_shared::ids::EgressProxyId;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::{EgressProxyAdded, EgressProxyForm};
use secrecy::SecretString;
use serde::Deserialize;

use super::fields;
use super::view::EgressProxyView;
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::{self, JsonBody};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Create {
    name: String,
    kind: EgressKind,
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<SecretString>,
}

pub(crate) async fn create(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    JsonBody(body): JsonBody<Create>,
) -> Result<Json<EgressProxyView>, ApiError> {
    let id = EgressProxyId::generate();
    let name = extract::name("name", &body.name)?;
    let endpoint = EgressEndpoint { kind: body.kind, host: body.host, port: body.port, user: body.user };
    let endpoint = fields::checked(endpoint, body.password.as_ref())?;
    let mut form = EgressProxyForm { name, endpoint, password: None };
    let mut added = add(&state, id, &mut form, body.password.as_ref()).await;
    if fields::is_to_be_tried_again(&state, &added).await? {
        added = add(&state, id, &mut form, body.password.as_ref()).await;
    }
    match added? {
        EgressProxyAdded::Added => {}
        EgressProxyAdded::TooMany => return Err(ApiError::TooManyEgressProxies),
    }
    effect::accounts_changed(&state).await?;
    EgressProxyView::load(&state, id).await.map(Json)
}

async fn add(
    state: &SharedState,
    id: EgressProxyId,
    form: &mut EgressProxyForm,
    password: Option<&SecretString>,
) -> Result<EgressProxyAdded, ApiError> {
    form.password = fields::seal(state, id, password)?;
    Ok(state.store.insert_egress_proxy(id, form, clock::now()).await?)
}
