//! A control plane on a database of its own, requests to it, and their answers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use codex_lb_admin::access::{Entrance, PeerAddress, REQUEST_HEADER};
use codex_lb_admin::router::router;
use codex_lb_shared::account_import::import_login;
use codex_lb_shared::clock;
use codex_lb_shared::config::{Config, LoadOptions};
use codex_lb_shared::hop::{HOP_HEADER, HopPeer};
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::secret::{EncryptionKey, Sealer};
use codex_lb_shared::state::SharedState;
use codex_lb_shared::store::{DatabaseUrl, Store};
use codex_lb_shared::telemetry::metrics::Metrics;
use codex_lb_shared::upstream_api::{UpstreamApi, UpstreamEndpoints};
use fake_chatgpt::{AccountSpec, FakeAccount, FakeChatGpt};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// A control plane whose upstream is a fake.
pub(crate) struct Plane {
    pub(crate) state: Arc<SharedState>,
    pub(crate) fake: FakeChatGpt,
    directory: tempfile::TempDir,
}

pub(crate) fn sealer() -> Sealer {
    Sealer::new(&EncryptionKey::from_bytes([1; 32]))
}

impl Plane {
    pub(crate) async fn new() -> Self {
        Self::with_accounts(&[]).await
    }

    /// With one account for each plan, imported before the state is loaded.
    pub(crate) async fn with_accounts(plans: &[&str]) -> Self {
        // Every test wants it and the second call fails.
        drop(rustls::crypto::ring::default_provider().install_default());
        let directory = tempfile::tempdir().unwrap();
        let fake = FakeChatGpt::start().await.unwrap();
        let store = Store::connect(&DatabaseUrl::sqlite_file(directory.path().join("gateway.db"))).await.unwrap();
        store.migrate().await.unwrap();
        for plan in plans {
            let account = add_fake_account(&fake, plan);
            import_login(&store, &sealer(), &account.auth_json().to_string(), clock::now()).await.unwrap();
        }
        let state = load(config(directory.path()), store, &fake, sealer()).await;
        Self { state, fake, directory }
    }

    /// The state of another process on the same database, configured differently.
    pub(crate) async fn state_with(&self, change: impl FnOnce(&mut Config)) -> Arc<SharedState> {
        let mut config = config(self.data_dir());
        change(&mut config);
        load(config, self.state.store.clone(), &self.fake, sealer()).await
    }

    /// The state of another process on the same database, with other encryption keys.
    pub(crate) async fn state_sealed_by(&self, sealer: Sealer) -> Arc<SharedState> {
        load(config(self.data_dir()), self.state.store.clone(), &self.fake, sealer).await
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn router(&self, entrance: Entrance) -> Router {
        router(Arc::clone(&self.state), entrance)
    }

    /// Calls as somebody at this machine does.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(Call::here(method, path).body(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn send(&self, call: Call) -> Answer {
        let router = self.router(call.entrance);
        let response = router.oneshot(call.request()).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// The header that the data plane sends for this peer.
    pub(crate) fn signed(&self, ip: &str, was_forwarded: bool) -> String {
        self.state.hop_secret.sign(HopPeer { ip: ip.parse().unwrap(), is_tls: false, was_forwarded })
    }

    /// Imports a new login of the fake through the API.
    pub(crate) async fn import_account(&self, plan: &str) -> (AccountId, FakeAccount) {
        let account = add_fake_account(&self.fake, plan);
        let file = json!({"name": "auth.json", "content": account.auth_json().to_string()});
        let answer = self.post("/api/v1/accounts/import", json!({ "files": [file] })).await.ok();
        let id = answer["results"][0]["account"]["id"].as_str().unwrap().parse().unwrap();
        (id, account)
    }
}

pub(crate) fn add_fake_account(fake: &FakeChatGpt, plan: &str) -> FakeAccount {
    fake.add_account(AccountSpec { plan: plan.to_owned(), ..AccountSpec::default() })
}

async fn load(config: Config, store: Store, fake: &FakeChatGpt, sealer: Sealer) -> Arc<SharedState> {
    let upstream = UpstreamApi::new(endpoints(&config, fake)).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    SharedState::load(Arc::new(config), store, Arc::new(sealer), upstream, metrics).await.unwrap().0
}

fn endpoints(config: &Config, fake: &FakeChatGpt) -> UpstreamEndpoints {
    UpstreamEndpoints {
        base_url: fake.base_url(),
        issuer: fake.issuer_url(),
        client_id: config.oauth.client_id.clone(),
        client_version: config.upstream.client_version.clone(),
        originator: "codex_lb".to_owned(),
        user_agent: "codex-lb/test".to_owned(),
        ca_file: None,
    }
}

fn config(data_dir: &Path) -> Config {
    let variables = [
        ("CODEX_LB_DATA_DIR", data_dir.to_str().unwrap()),
        ("CODEX_LB_PROXY__LISTEN", "127.0.0.1:0"),
        ("CODEX_LB_ADMIN__LISTEN", "127.0.0.1:0"),
        ("CODEX_LB_METRICS__LISTEN", "127.0.0.1:0"),
    ];
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = LoadOptions { file: None, environment, working_dir: data_dir.to_owned() };
    Config::load(&options).unwrap()
}

/// A request in the making.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Option<Value>,
    peer: SocketAddr,
    entrance: Entrance,
}

impl Call {
    /// From this machine over TCP, with all that a mutation needs.
    pub(crate) fn here(method: Method, path: &str) -> Self {
        let peer = "127.0.0.1:40000".parse().unwrap();
        let call = Self {
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: None,
            peer,
            entrance: Entrance::Tcp,
        };
        let call = call.header("host", "localhost:2456");
        if call.is_mutation() { call.header(REQUEST_HEADER, "1").body(Some(json!({}))) } else { call }
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn is_mutation(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD
    }

    pub(crate) fn from(mut self, ip: &str) -> Self {
        self.peer = SocketAddr::new(ip.parse().unwrap(), 40000);
        self
    }

    /// Over the data plane's socket, with this as its header.
    pub(crate) fn through_hop(mut self, signed: &str) -> Self {
        self.entrance = Entrance::Hop;
        self.header(HOP_HEADER, signed)
    }

    pub(crate) fn by(mut self, entrance: Entrance) -> Self {
        self.entrance = entrance;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    pub(crate) fn body(mut self, body: Option<Value>) -> Self {
        if body.is_some() {
            self = self.header("content-type", "application/json");
        }
        self.body = body;
        self
    }

    fn request(self) -> Request<Body> {
        let body = self.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = Request::builder().method(self.method).uri(self.path).body(body).unwrap();
        *request.headers_mut() = self.headers;
        if self.entrance == Entrance::Tcp {
            request.extensions_mut().insert(ConnectInfo(PeerAddress(self.peer)));
        }
        request
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// The body of a failure with this status and code.
    #[track_caller]
    pub(crate) fn refused(&self, status: StatusCode, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["error"]["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert!(body["error"]["message"].as_str().unwrap().ends_with('.'), "{}", self.text);
        body
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
