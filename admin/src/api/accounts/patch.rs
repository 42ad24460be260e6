//! `PATCH /api/v1/accounts/{id}`: changes what an operator may change. A field that is missing stays as it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::clock;
use codex_lb_shared::domain::account::RoutingPolicy;
use codex_lb_shared::ids::{AccountId, EgressProxyId};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::AccountPatch;
use serde::Deserialize;

use super::view::AccountView;
use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::{self, IdInPath, JsonBody};

/// No account serves more at once.
const CONCURRENCY_CAP_MAX: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Patch {
    /// `null` for none.
    #[serde(default, deserialize_with = "extract::present")]
    alias: Option<Option<String>>,
    routing_policy: Option<RoutingPolicy>,
    /// `null` for the default.
    #[serde(default, deserialize_with = "extract::present")]
    concurrency_cap: Option<Option<u32>>,
    /// `null` for the installation's default.
    #[serde(default, deserialize_with = "extract::present")]
    egress_proxy_id: Option<Option<EgressProxyId>>,
}

pub(crate) async fn patch(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<AccountId>,
    JsonBody(body): JsonBody<Patch>,
) -> Result<Json<AccountView>, ApiError> {
    let change = checked(body)?;
    if let Some(Some(egress)) = change.egress_proxy_id
        && state.store.find_egress_proxy(egress).await?.is_none()
    {
        return Err(ApiError::invalid_field("egressProxyId", "There is no such egress proxy."));
    }
    if !state.store.update_account(id, &change, clock::now()).await? {
        return Err(ApiError::NotFound("account"));
    }
    effect::accounts_changed(&state).await?;
    AccountView::load(&state, id).await.map(Json)
}

fn checked(patch: Patch) -> Result<AccountPatch, ApiError> {
    if let Some(Some(cap)) = patch.concurrency_cap
        && !(1..=CONCURRENCY_CAP_MAX).contains(&cap)
    {
        let message = format!("The cap must be between 1 and {CONCURRENCY_CAP_MAX}, or null for the default.");
        return Err(ApiError::invalid_field("concurrencyCap", message));
    }
    let alias = match patch.alias {
        Some(Some(alias)) => Some(Some(extract::name("alias", &alias)?)),
        other => other,
    };
    Ok(AccountPatch {
        alias,
        routing_policy: patch.routing_policy,
        concurrency_cap: patch.concurrency_cap,
        egress_proxy_id: patch.egress_proxy_id,
    })
}
