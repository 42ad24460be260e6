//! The table of contents of the control plane.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{self, MethodRouter};
use codex_lb_shared::state::SharedState;
use http::Method;

use crate::access::{Entrance, guard_mutations, identify};
use crate::api::{accounts, api_keys, egress_proxies, overview, requests, settings};
use crate::api_error::ApiError;
use crate::middleware::{bound_time, secure_answer};
use crate::{dashboard, health};

/// Largest body of a request.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Everything below `/api/v1`. Each handler names who may call it: by a `Viewer` or an `Admin` among its arguments.
fn api() -> Endpoints {
    Endpoints::default()
        .get("/api/v1/overview", overview::show)
        .get("/api/v1/accounts", accounts::list)
        .post("/api/v1/accounts/import", accounts::import)
        .get("/api/v1/accounts/{id}", accounts::show)
        .patch("/api/v1/accounts/{id}", accounts::patch)
        .delete("/api/v1/accounts/{id}", accounts::delete)
        .post("/api/v1/accounts/{id}/pause", accounts::pause)
        .post("/api/v1/accounts/{id}/resume", accounts::resume)
        .get("/api/v1/api-keys", api_keys::list)
        .post("/api/v1/api-keys", api_keys::create)
        .post("/api/v1/api-keys/{id}/revoke", api_keys::revoke)
        .post("/api/v1/api-keys/{id}/enable", api_keys::enable)
        .post("/api/v1/api-keys/{id}/disable", api_keys::disable)
        .get("/api/v1/egress-proxies", egress_proxies::list)
        .post("/api/v1/egress-proxies", egress_proxies::create)
        .get("/api/v1/egress-proxies/{id}", egress_proxies::show)
        .patch("/api/v1/egress-proxies/{id}", egress_proxies::patch)
        .delete("/api/v1/egress-proxies/{id}", egress_proxies::delete)
        .post("/api/v1/egress-proxies/{id}/test", egress_proxies::test)
        .get("/api/v1/requests", requests::list)
        .get("/api/v1/settings", settings::list)
        .get("/api/v1/settings/{group}", settings::show)
        .patch("/api/v1/settings/{group}", settings::patch)
}

/// What anybody may ask who can connect: it says nothing about accounts, keys or traffic.
fn open() -> Router<Arc<SharedState>> {
    Router::new()
        .route("/", routing::get(dashboard::page))
        .route("/app.js", routing::get(dashboard::script))
        .route("/style.css", routing::get(dashboard::style))
        .route("/icon.svg", routing::get(dashboard::icon))
        .route("/health", routing::get(health::live))
        .route("/health/live", routing::get(health::live))
        .route("/health/ready", routing::get(health::ready))
        .route("/health/startup", routing::get(health::live))
}

/// The control plane for requests that come in through `entrance`.
///
/// Over TCP each request needs [`crate::access::PeerAddress`] as connect info.
pub fn router(state: Arc<SharedState>, entrance: Entrance) -> Router {
    api()
        .router
        .merge(open())
        .fallback(dashboard::fallback)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        // A request meets these from the last to the first.
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(guard_mutations))
        .layer(from_fn_with_state((Arc::clone(&state), entrance), identify))
        .layer(from_fn(bound_time))
        .layer(from_fn(secure_answer))
        .with_state(state)
}

/// Method and path of every endpoint of the API, for tests that must miss none.
pub fn api_endpoints() -> Vec<(Method, &'static str)> {
    api().listed
}

/// Endpoints, and the list of them that axum's router does not give back.
#[derive(Default)]
struct Endpoints {
    router: Router<Arc<SharedState>>,
    listed: Vec<(Method, &'static str)>,
}

type Endpoint = MethodRouter<Arc<SharedState>>;

impl Endpoints {
    fn get<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<SharedState>>) -> Self {
        self.add(Method::GET, path, routing::get(handler))
    }

    fn post<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<SharedState>>) -> Self {
        self.add(Method::POST, path, routing::post(handler))
    }

    fn patch<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<SharedState>>) -> Self {
        self.add(Method::PATCH, path, routing::patch(handler))
    }

    fn delete<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<SharedState>>) -> Self {
        self.add(Method::DELETE, path, routing::delete(handler))
    }

    fn add(mut self, method: Method, path: &'static str, endpoint: Endpoint) -> Self {
        self.listed.push((method, path));
        Self { router: self.router.route(path, endpoint), listed: self.listed }
    }
}
