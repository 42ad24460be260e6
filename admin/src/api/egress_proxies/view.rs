//! An egress proxy as the API shows it: never its password.

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::egress_proxy::{EgressKind, EgressProxy};
use codex_lb_shared::egress::AccountEgress;
use codex_lb_shared::ids::EgressProxyId;
use codex_lb_shared::pool::PoolSnapshot;
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::StoredEgressProxy;
use serde::Serialize;

use crate::api_error::ApiError;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EgressProxyView {
    id: EgressProxyId,
    name: String,
    kind: EgressKind,
    host: String,
    port: u16,
    user: Option<String>,
    has_password: bool,
    /// How many accounts are bound to it.
    accounts: usize,
    /// Why nobody can go out through it.
    trouble: Option<String>,
    created_at: Timestamp,
}

impl EgressProxyView {
    pub(super) fn of(egress: EgressProxy, pool: &PoolSnapshot) -> Self {
        let is_bound = |bound: &Option<EgressProxyId>| *bound == Some(egress.id);
        Self {
            accounts: pool.accounts.iter().filter(|pooled| is_bound(&pooled.account.egress_proxy_id)).count(),
            trouble: match pool.egresses.of(Some(egress.id)) {
                AccountEgress::Closed(closed) => Some(closed.to_string()),
                AccountEgress::Direct | AccountEgress::Through(_) => None,
            },
            id: egress.id,
            name: egress.name,
            kind: egress.endpoint.kind,
            host: egress.endpoint.host,
            port: egress.endpoint.port,
            user: egress.endpoint.user,
            has_password: egress.has_password,
            created_at: egress.created_at,
        }
    }

    /// The egress proxy with this id, as it is stored now.
    pub(super) async fn load(state: &SharedState, id: EgressProxyId) -> Result<Self, ApiError> {
        let stored = find(state, id).await?;
        Ok(Self::of(stored.egress, &state.pool.snapshot()))
    }
}

pub(super) async fn find(state: &SharedState, id: EgressProxyId) -> Result<StoredEgressProxy, ApiError> {
    state.store.find_egress_proxy(id).await?.ok_or(ApiError::NotFound("egress proxy"))
}
