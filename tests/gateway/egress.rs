//! Egress proxies in front of the real binary: everything of an account goes through its own, and nothing past it.
//!
//! Where a test says that nothing goes past a proxy, upstream is either found under a name that the proxy alone knows
//! (so a direct connection could not be made), or could be reached directly (so one would be noticed).

use std::collections::{HashMap, HashSet};

use codex_lb_shared::clock;
use codex_lb_shared::domain::egress_proxy::EgressAccess;
use codex_lb_shared::ids::{AccountId, EgressProxyId};
use codex_lb_shared::secret::{EncryptionKey, SealedEgressPassword, Sealer};
use codex_lb_shared::store::{AccountPatch, EgressProxyForm};
use fake_chatgpt::FakeAccount;
use fake_egress::{FakeEgress, Kind, Manner};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream, eventually, native_body};

/// A name that only a test's proxy knows.
const NAME: &str = "upstream.invalid";
const PATH: &str = "/backend-api/codex/responses";
const KINDS: [Kind; 3] = [Kind::Http, Kind::Https, Kind::Socks5];
const LOGIN: Option<(&str, &str)> = Some(("ann", "s3cret"));

/// Makes upstream known under [`NAME`] to these proxies and to nobody else.
fn hide_upstream(setup: &mut Setup, upstream: &Upstream, proxies: &[&FakeEgress]) {
    let address = upstream.fake.address();
    let hidden = |url: String| url.replace(&address.to_string(), &format!("{NAME}:{}", address.port()));
    setup.set("CODEX_LB_UPSTREAM__BASE_URL", &hidden(upstream.fake.base_url()));
    setup.set("CODEX_LB_OAUTH__ISSUER", &hidden(upstream.fake.issuer_url()));
    for proxy in proxies {
        proxy.lead(NAME, address);
    }
}

/// Makes the gateway trust upstream and these proxies.
fn trust(setup: &mut Setup, upstream: &Upstream, proxies: &[&FakeEgress]) {
    let pems = proxies.iter().filter_map(|proxy| proxy.ca_pem()).chain(upstream.fake.ca_pem());
    let bundle: String = pems.collect();
    if !bundle.is_empty() {
        let path = setup.path("ca.pem");
        std::fs::write(&path, bundle).unwrap();
        setup.set("CODEX_LB_UPSTREAM__CA_FILE", &path.to_string_lossy());
    }
}

/// A gateway whose every connection goes through `proxy` to an upstream that the proxy alone knows.
fn behind(upstream: &Upstream, proxy: &FakeEgress) -> Setup {
    let mut setup = Setup::new(upstream);
    hide_upstream(&mut setup, upstream, &[proxy]);
    trust(&mut setup, upstream, &[proxy]);
    setup.set("CODEX_LB_UPSTREAM__EGRESS", &proxy.url());
    setup
}

fn sealer(setup: &Setup) -> Sealer {
    Sealer::new(&EncryptionKey::parse(&std::fs::read_to_string(setup.path("gateway.key")).unwrap()).unwrap())
}

/// Binds an account to the proxy at `url`, in the database.
async fn bind(setup: &Setup, account: &FakeAccount, url: &str, sealer: &Sealer) -> EgressProxyId {
    let store = setup.store().await;
    let (id, access) = (EgressProxyId::generate(), url.parse::<EgressAccess>().unwrap());
    let password = access.password().map(|password| SealedEgressPassword::seal(sealer, id, password).unwrap());
    let form = EgressProxyForm { name: id.to_string(), endpoint: access.endpoint().clone(), password };
    store.insert_egress_proxy(id, &form, clock::now()).await.unwrap();
    let stored = store.list_accounts().await.unwrap();
    let account_id = stored.iter().find(|stored| stored.account.email == account.email()).unwrap().account.id;
    let patch = AccountPatch { egress_proxy_id: Some(Some(id)), ..AccountPatch::default() };
    assert!(store.update_account(account_id, &patch, clock::now()).await.unwrap());
    store.close().await;
    id
}

/// A request of a conversation of its own, so that it may go to any account.
async fn ask(gateway: &Gateway, prompt: usize) -> u16 {
    let response = gateway.post(PATH, &native_body(&format!("hi {prompt}"))).send().await.unwrap();
    let status = response.status().as_u16();
    response.bytes().await.unwrap();
    status
}

/// Calls the control plane as its own page does.
async fn control(gateway: &Gateway, method: Method, path: &str, body: Value) -> Value {
    let request =
        gateway.http.request(method, format!("{}{path}", gateway.admin_url)).header("x-codex-lb-request", "1");
    let response = request.json(&body).send().await.unwrap();
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert!(status.is_success(), "{status} {answer}");
    answer
}

/// The accounts that were served on each connection to upstream.
fn accounts_by_connection(upstream: &Upstream) -> HashMap<u64, HashSet<String>> {
    let mut served: HashMap<u64, HashSet<String>> = HashMap::new();
    for request in upstream.responses() {
        served.entry(request.connection).or_default().insert(request.account.unwrap());
    }
    served
}

async fn serves_through(kind: Kind, is_http2: bool) {
    let upstream = if is_http2 { Upstream::start_http2(1).await } else { Upstream::start(1).await };
    let proxy = FakeEgress::start(kind, LOGIN).await.unwrap();
    let gateway = behind(&upstream, &proxy).serve().await;
    let mut prompt = 0;
    // A connection that was paid for with so many handshakes is kept.
    eventually("a connection is used again", async || {
        prompt += 1;
        assert_eq!(ask(&gateway, prompt).await, 200, "{kind:?}");
        let connections: HashSet<_> = upstream.responses().iter().map(|request| request.connection).collect();
        (connections.len() < prompt).then_some(())
    })
    .await;
    let version = if is_http2 { "2" } else { "1.1" };
    assert!(upstream.responses().iter().all(|request| request.head.http_version == version), "{kind:?}");
    let wanted = format!("{NAME}:{}", upstream.fake.address().port());
    assert!(proxy.destinations().iter().all(|destination| *destination == wanted), "{:?}", proxy.destinations());
    assert!(!gateway.log().contains("s3cret"));
    // Nobody here asked who upstream is.
    assert!(!gateway.log().contains("could not be resolved"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_proxy_serves_a_plain_and_an_http2_upstream() {
    serves_through(Kind::Http, false).await;
    serves_through(Kind::Http, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_proxy_serves_a_plain_and_an_http2_upstream() {
    serves_through(Kind::Https, false).await;
    serves_through(Kind::Https, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks5_proxy_serves_a_plain_and_an_http2_upstream() {
    serves_through(Kind::Socks5, false).await;
    serves_through(Kind::Socks5, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_passes_an_https_proxy_both_ways_at_once() {
    let upstream = Upstream::start_http2(1).await;
    let proxy = FakeEgress::start(Kind::Https, None).await.unwrap();
    let gateway = behind(&upstream, &proxy).serve().await;
    let body = native_body(&"0123456789abcdef".repeat(4 * 1024 * 1024 / 16)).to_string();
    let calls = (0..4).map(|_| gateway.http.post(format!("{}{PATH}", gateway.proxy_url)).body(body.clone()).send());
    for response in futures_util::future::join_all(calls).await {
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.text().await.unwrap().contains("response.completed"));
    }
    assert!(upstream.responses().iter().all(|request| request.body == body.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_never_share_a_connection_whether_they_share_a_proxy_or_not() {
    let upstream = Upstream::start_http2(4).await;
    let (first, second, default) = (
        FakeEgress::start(Kind::Http, LOGIN).await.unwrap(),
        FakeEgress::start(Kind::Socks5, None).await.unwrap(),
        FakeEgress::start(Kind::Socks5, None).await.unwrap(),
    );
    let mut setup = behind(&upstream, &default);
    hide_upstream(&mut setup, &upstream, &[&first, &second]);
    let sealer = sealer(&setup);
    bind(&setup, &upstream.accounts[0], &first.url(), &sealer).await;
    bind(&setup, &upstream.accounts[1], &second.url(), &sealer).await;
    let gateway = setup.serve().await;
    let mut prompt = 0;
    eventually("every account has served", async || {
        let statuses = futures_util::future::join_all((prompt..prompt + 8).map(|prompt| ask(&gateway, prompt))).await;
        prompt += 8;
        assert_eq!(statuses, [200; 8]);
        let served: HashSet<_> = accounts_by_connection(&upstream).into_values().flatten().collect();
        (served.len() == 4).then_some(())
    })
    .await;
    // The first requests opened connections side by side; these find them.
    for _ in 0..24 {
        prompt += 1;
        assert_eq!(ask(&gateway, prompt).await, 200);
    }
    let connections = accounts_by_connection(&upstream).len();
    assert!(connections < prompt, "{connections} connections for {prompt} requests");
    for (connection, accounts) in accounts_by_connection(&upstream) {
        assert_eq!(accounts.len(), 1, "connection {connection} served {accounts:?}");
    }
    for proxy in [&first, &second, &default] {
        assert!(!proxy.destinations().is_empty());
    }
}

/// A proxy that cannot be used, and what the log must say of it.
struct Useless {
    url: String,
    told: &'static str,
    _proxy: FakeEgress,
}

async fn useless_proxies() -> Vec<Useless> {
    let mut useless = Vec::new();
    for kind in KINDS {
        let dead = FakeEgress::start(kind, LOGIN).await.unwrap();
        dead.kill();
        useless.push(Useless { url: dead.url(), told: "egress proxy", _proxy: dead });
    }
    for (kind, told) in [(Kind::Http, "authorization required"), (Kind::Socks5, "credentials not accepted")] {
        let guarded = FakeEgress::start(kind, Some(("ann", "right"))).await.unwrap();
        useless.push(Useless { url: guarded.url().replace("right", "s3cret"), told, _proxy: guarded });
    }
    let silent = FakeEgress::start(Kind::Http, LOGIN).await.unwrap();
    silent.behave(Manner::Silent);
    useless.push(Useless { url: silent.url(), told: "within 500 ms", _proxy: silent });
    useless
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_proxy_is_of_no_use_never_goes_around_it() {
    for useless in useless_proxies().await {
        let upstream = Upstream::start(1).await;
        let mut setup = Setup::new(&upstream);
        setup.set("CODEX_LB_UPSTREAM__CONNECT_TIMEOUT", "500ms");
        let sealer = sealer(&setup);
        bind(&setup, &upstream.accounts[0], &useless.url, &sealer).await;
        let gateway = setup.serve().await;
        assert_eq!(ask(&gateway, 0).await, 503, "{}", useless.told);
        // Upstream listens where the configuration says, so whatever went there directly would be seen.
        assert_eq!(upstream.fake.requests().len(), 0, "{}", useless.told);
        eventually(useless.told, async || gateway.log().contains(useless.told).then_some(())).await;
        assert!(!gateway.log().contains("s3cret"), "{}", gateway.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_dies_takes_only_its_own_account_with_it() {
    let upstream = Upstream::start(2).await;
    let proxy = FakeEgress::start(Kind::Socks5, LOGIN).await.unwrap();
    let setup = Setup::new(&upstream);
    let sealer = sealer(&setup);
    bind(&setup, &upstream.accounts[0], &proxy.url(), &sealer).await;
    let gateway = setup.serve().await;
    let bound = upstream.accounts[0].name();
    let served =
        |name: &str| upstream.responses().iter().filter(|request| request.account.as_deref() == Some(name)).count();
    let mut prompt = 0;
    eventually("the bound account has served", async || {
        prompt += 1;
        assert_eq!(ask(&gateway, prompt).await, 200);
        (served(bound) > 0).then_some(())
    })
    .await;

    proxy.kill();
    let before = served(bound);
    for prompt in 1_000..1_020 {
        assert_eq!(ask(&gateway, prompt).await, 200);
    }
    assert_eq!(served(bound), before);
    assert!(!gateway.log().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_password_does_not_open_does_not_serve_and_says_so() {
    let upstream = Upstream::start(2).await;
    let proxy = FakeEgress::start(Kind::Http, LOGIN).await.unwrap();
    let setup = Setup::new(&upstream);
    let foreign = Sealer::new(&EncryptionKey::from_bytes([9; 32]));
    bind(&setup, &upstream.accounts[0], &proxy.url(), &foreign).await;
    let gateway = setup.serve().await;
    for prompt in 0..10 {
        assert_eq!(ask(&gateway, prompt).await, 200);
    }
    let of_bound =
        |request: &fake_chatgpt::RequestRecord| request.account.as_deref() == Some(upstream.accounts[0].name());
    assert!(!upstream.fake.requests().iter().any(of_bound));
    assert_eq!(proxy.connections(), 0);
    let accounts = control(&gateway, Method::GET, "/api/v1/accounts", json!({})).await;
    let troubles: Vec<_> =
        accounts["items"].as_array().unwrap().iter().map(|account| &account["egressTrouble"]).collect();
    assert!(troubles[0].as_str().unwrap().contains("does not open"), "{troubles:?}");
    assert!(troubles[1].is_null(), "{troubles:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_and_model_lists_of_an_account_go_through_its_proxy() {
    for kind in KINDS {
        let upstream = Upstream::start_http2(1).await;
        let proxy = FakeEgress::start(kind, LOGIN).await.unwrap();
        let dead = FakeEgress::start(Kind::Http, None).await.unwrap();
        dead.kill();
        // The account's own proxy wins over the default.
        let mut setup = behind(&upstream, &dead);
        hide_upstream(&mut setup, &upstream, &[&proxy]);
        trust(&mut setup, &upstream, &[&proxy]);
        let sealer = sealer(&setup);
        bind(&setup, &upstream.accounts[0], &proxy.url(), &sealer).await;
        let gateway = setup.serve().await;
        upstream.fake.wait_for(|request| request.head.path.ends_with("/codex/models")).await.unwrap();
        upstream.fake.expire_access_token(&upstream.accounts[0]);
        assert_eq!(ask(&gateway, 0).await, 200, "{kind:?}");
        let paths: HashSet<_> = upstream.fake.requests().iter().map(|request| request.head.path.clone()).collect();
        assert!(paths.contains("/oauth/token"), "{kind:?} {paths:?}");
        assert!(proxy.destinations().len() >= 2, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_takes_effect_with_the_answer_that_confirms_it() {
    let upstream = Upstream::start(1).await;
    let proxy = FakeEgress::start(Kind::Http, LOGIN).await.unwrap();
    let gateway = Gateway::before(&upstream).await;
    assert_eq!(ask(&gateway, 0).await, 200);
    assert_eq!(proxy.connections(), 0);

    let account = gateway.store.list_accounts().await.unwrap().remove(0).account.id;
    let form = json!({"name": "one", "kind": "http", "host": "127.0.0.1", "port": proxy.address().port(),
        "user": "ann", "password": "s3cret"});
    let made = control(&gateway, Method::POST, "/api/v1/egress-proxies", form).await;
    let tested = control(
        &gateway,
        Method::POST,
        &format!("/api/v1/egress-proxies/{}/test", made["id"].as_str().unwrap()),
        json!({}),
    )
    .await;
    assert_eq!(tested["ok"], true, "{tested}");
    let bind = async |id: &Value| {
        control(&gateway, Method::PATCH, &account_path(account), json!({ "egressProxyId": id })).await
    };
    bind(&made["id"]).await;
    let before = proxy.destinations().len();
    assert_eq!(ask(&gateway, 1).await, 200);
    assert_eq!(proxy.destinations().len(), before + 1);
    bind(&Value::Null).await;
    assert_eq!(ask(&gateway, 2).await, 200);
    assert_eq!(proxy.destinations().len(), before + 1);
    assert!(!gateway.log().contains("s3cret"));
}

fn account_path(id: AccountId) -> String {
    format!("/api/v1/accounts/{id}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_moves_the_passwords_of_proxies_too() {
    let upstream = Upstream::start(1).await;
    let proxy = FakeEgress::start(Kind::Http, LOGIN).await.unwrap();
    let setup = Setup::new(&upstream);
    let old = sealer(&setup);
    let id = bind(&setup, &upstream.accounts[0], &proxy.url(), &old).await;
    let mut gateway = setup.serve().await;
    assert_eq!(ask(&gateway, 0).await, 200);
    let told = gateway.setup.command(&["keys", "rotate-encryption"]).expect_success();
    assert!(told.contains("the passwords of 1 egress proxies"), "{told}");
    gateway.setup.command(&["keys", "rotate-encryption", "--discard-old"]).expect_success();
    let stored = gateway.store.find_egress_proxy(id).await.unwrap().unwrap().password.unwrap();
    assert!(stored.is_sealed_with(&sealer(&gateway.setup).key_id()));
    assert_eq!(ask(&gateway, 1).await, 200);
    assert!(gateway.stop().success());
    let again = gateway.setup.clone().serve().await;
    let before = proxy.destinations().len();
    assert_eq!(ask(&again, 2).await, 200);
    assert!(proxy.destinations().len() > before);
}
