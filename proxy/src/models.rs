//! The model list, out of memory: OpenAI's shape, or the Codex catalog.

use std::sync::Arc;

use bytes::Bytes;
use codex_lb_shared::clock;
use codex_lb_shared::domain::models::{CatalogModel, ModelCatalog};
use parking_lot::Mutex;
use pingora_proxy::Session;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::caller;
use crate::rejection::Rejection;
use crate::relay::{AnswerHead, ClientGone};
use crate::route::Dialect;
use crate::serve::DataPlane;
use crate::trail::Trail;

/// Answers `GET …/models`. A Codex client asks `/v1/models` too, and tells by `client_version` that it wants a catalog.
pub(crate) async fn list(plane: &DataPlane, session: &mut Session, dialect: Dialect) {
    let is_codex = dialect == Dialect::Native
        || session
            .req_header()
            .uri
            .query()
            .is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("client_version")));
    answer(plane, session, "models", |catalog| {
        Ok(if is_codex {
            codex_catalog(catalog)
        } else {
            json!({"object": "list", "data": catalog.models.iter().map(openai_model).collect::<Vec<_>>()})
        })
    })
    .await;
}

/// Answers `GET /v1/models/{slug}`.
pub(crate) async fn one(plane: &DataPlane, session: &mut Session, slug: &str) {
    answer(plane, session, "model", |catalog| {
        catalog.find(slug).map(openai_model).ok_or_else(|| Rejection::model_not_found(slug))
    })
    .await;
}

async fn answer(
    plane: &DataPlane,
    session: &mut Session,
    route: &'static str,
    body: impl FnOnce(&ModelCatalog) -> Result<Value, Rejection>,
) {
    let now = clock::now();
    let trail = Trail::begin(route, &session.req_header().headers, now);
    let socket_peer = caller::socket_peer(session);
    let caller = caller::prove(&plane.state, &session.req_header().headers, socket_peer, now).await;
    let answered = caller.and_then(|_| body(&plane.state.models.load()));
    let mut downstream = plane.downstream(session, trail.id);
    // A client that left needs no answer.
    let (Ok(()) | Err(ClientGone)) = match answered {
        Ok(body) => {
            let body = Bytes::from(body.to_string());
            let head = AnswerHead { headers: vec![("etag", etag(&body))] };
            downstream.answer(200, "application/json", &head, body).await
        }
        Err(rejection) => {
            plane.state.metrics.rejected(rejection.code);
            downstream.reject(&rejection).await
        }
    };
}

/// The ETag of the Codex catalog as answers name it, worked out once per catalog. A client that holds another one asks
/// for the list again.
#[derive(Default)]
pub(crate) struct CatalogEtag {
    known: Mutex<Option<(Arc<ModelCatalog>, String)>>,
}

impl CatalogEtag {
    /// The ETag of this catalog; `None` while it is empty, which no client needs to fetch.
    pub(crate) fn of(&self, catalog: &Arc<ModelCatalog>) -> Option<String> {
        if catalog.models.is_empty() {
            return None;
        }
        let mut known = self.known.lock();
        match &*known {
            Some((seen, etag)) if Arc::ptr_eq(seen, catalog) => Some(etag.clone()),
            Some(_) | None => {
                let etag = etag(codex_catalog(catalog).to_string().as_bytes());
                *known = Some((Arc::clone(catalog), etag.clone()));
                Some(etag)
            }
        }
    }
}

/// Codex parses the catalog strictly, so each entry is upstream's own, with all its keys.
fn codex_catalog(catalog: &ModelCatalog) -> Value {
    json!({ "models": catalog.models.iter().map(|model| &model.entry).collect::<Vec<_>>() })
}

fn openai_model(model: &CatalogModel) -> Value {
    json!({"id": model.slug, "object": "model", "created": 0, "owned_by": "openai"})
}

fn etag(body: &[u8]) -> String {
    let hex: String = Sha256::digest(body).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}
