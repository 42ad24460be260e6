//! `DELETE /api/v1/egress-proxies/{id}`: removes an egress proxy that no account is bound to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::ids::EgressProxyId;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::EgressProxyDeleted;
use serde::Serialize;

use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::IdInPath;

#[derive(Serialize)]
pub(crate) struct Answer {
    id: EgressProxyId,
}

pub(crate) async fn delete(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    IdInPath(id): IdInPath<EgressProxyId>,
) -> Result<Json<Answer>, ApiError> {
    match state.store.delete_egress_proxy(id).await? {
        EgressProxyDeleted::Deleted => {}
        EgressProxyDeleted::NotFound => return Err(ApiError::NotFound("egress proxy")),
        EgressProxyDeleted::InUse(accounts) => return Err(ApiError::EgressProxyInUse { accounts }),
    }
    effect::accounts_changed(&state).await?;
    Ok(Json(Answer { id }))
}
