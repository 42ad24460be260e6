//! `/api/v1/egress-proxies`: made, changed, tested and removed; what accounts are bound to; and passwords that only go in.

use codex_lb_shared::egress::AccountEgress;
use codex_lb_shared::ids::{AccountId, EgressProxyId};
use codex_lb_shared::secret::{EncryptionKey, SealedEgressPassword, Sealer};
use codex_lb_shared::store::EgressProxyForm;
use fake_egress::{FakeEgress, Kind};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Plane};

const PATH: &str = "/api/v1/egress-proxies";

fn form(name: &str) -> Value {
    json!({"name": name, "kind": "socks5", "host": "proxy.example", "port": 1080, "user": "ann", "password": "s3cret"})
}

/// Makes one and returns its id.
async fn make(plane: &Plane, form: Value) -> String {
    let answer = plane.post(PATH, form).await;
    assert!(!answer.text.contains("s3cret"), "{}", answer.text);
    answer.ok()["id"].as_str().unwrap().to_owned()
}

async fn patch(plane: &Plane, id: &str, body: Value) -> Answer {
    plane.call(Method::PATCH, &format!("{PATH}/{id}"), Some(body)).await
}

async fn bind(plane: &Plane, account: AccountId, id: Value) -> Answer {
    plane.call(Method::PATCH, &format!("/api/v1/accounts/{account}"), Some(json!({ "egressProxyId": id }))).await
}

fn egress_in_pool(plane: &Plane, account: AccountId) -> AccountEgress {
    plane.state.pool.snapshot().find(account).unwrap().egress.clone()
}

/// The login that an account's proxy is entered with, as the pool has it.
fn login_in_pool(plane: &Plane, account: AccountId) -> Option<(String, String)> {
    match egress_in_pool(plane, account) {
        AccountEgress::Through(egress) => {
            egress.access().login().map(|(user, password)| (user.to_owned(), password.to_owned()))
        }
        other @ (AccountEgress::Direct | AccountEgress::Closed(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_made_is_shown_without_its_password() {
    let plane = Plane::new().await;
    let id = make(&plane, form(" one ")).await;
    let shown = plane.get(&format!("{PATH}/{id}")).await;
    assert!(!shown.text.contains("s3cret"), "{}", shown.text);
    let shown = shown.ok();
    let expected = json!({
        "id": id, "name": "one", "kind": "socks5", "host": "proxy.example", "port": 1080, "user": "ann",
        "hasPassword": true, "accounts": 0, "trouble": null, "createdAt": shown["createdAt"],
    });
    assert_eq!(shown, expected);
    assert_eq!(plane.get(PATH).await.ok(), json!({ "items": [shown] }));
    plane.post(PATH, form("one")).await.refused(StatusCode::CONFLICT, "already_exists");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_field_and_without_the_password() {
    let plane = Plane::new().await;
    let id = make(&plane, form("one")).await;
    let wrong = [
        ("name", json!("")),
        ("host", json!("http://proxy.example")),
        ("host", json!("")),
        ("port", json!(0)),
        ("user", json!("a\nb")),
        ("user", json!("x".repeat(300))),
    ];
    for (field, value) in wrong {
        let mut body = form("two");
        body[field] = value.clone();
        let answer = plane.post(PATH, body).await;
        let refused = answer.refused(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(refused["error"]["details"]["field"], field, "{value}");
        assert!(!answer.text.contains("s3cret"), "{}", answer.text);
        let refused = patch(&plane, &id, json!({ field: value })).await;
        refused.refused(StatusCode::BAD_REQUEST, "invalid_request");
    }
    for body in [json!({"kind": "socks4"}), json!({"port": 70_000}), json!({"url": "http://h"}), json!({"password": 5})]
    {
        patch(&plane, &id, body).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    }
    let without_user = json!({"name": "two", "kind": "http", "host": "h", "port": 1, "password": "s3cret"});
    plane.post(PATH, without_user).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    let colon = json!({"kind": "http", "user": "a:b"});
    patch(&plane, &id, colon).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    assert_eq!(plane.get(PATH).await.ok()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_a_password_stays_until_it_is_named() {
    let plane = Plane::new().await;
    let (account, _) = plane.import_account("plus").await;
    let id = make(&plane, form("one")).await;
    bind(&plane, account, json!(id)).await.ok();
    let login = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
    assert_eq!(login_in_pool(&plane, account), login("ann", "s3cret"));

    let shown = patch(&plane, &id, json!({"name": "two", "port": 1080})).await.ok();
    assert_eq!((shown["name"].as_str(), shown["port"].as_u64()), (Some("two"), Some(1080)));
    // Whoever may change where it goes could otherwise have it sent to a place of their own.
    for moved in [json!({"host": "elsewhere.example"}), json!({"port": 1081}), json!({"kind": "http"})] {
        let refused = patch(&plane, &id, moved).await;
        let refused = refused.refused(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(refused["error"]["details"]["field"], "password");
    }
    assert_eq!(login_in_pool(&plane, account), login("ann", "s3cret"));
    let moved = patch(&plane, &id, json!({"host": "elsewhere.example", "password": "s3cret"})).await.ok();
    assert_eq!(moved["host"], "elsewhere.example");
    assert_eq!(login_in_pool(&plane, account), login("ann", "s3cret"));
    patch(&plane, &id, json!({"user": "bob", "password": "other"})).await.ok();
    assert_eq!(login_in_pool(&plane, account), login("bob", "other"));
    patch(&plane, &id, json!({"password": null})).await.ok();
    assert_eq!(login_in_pool(&plane, account), login("bob", ""));
    patch(&plane, &id, json!({"password": "again"})).await.ok();
    let shown = patch(&plane, &id, json!({"user": null})).await.ok();
    assert_eq!((shown["user"].is_null(), shown["hasPassword"].as_bool()), (true, Some(false)));
    assert_eq!(login_in_pool(&plane, account), None);
}

#[tokio::test]
async fn an_account_is_bound_and_unbound_and_what_it_is_bound_to_stays() {
    let plane = Plane::new().await;
    let (account, _) = plane.import_account("plus").await;
    let id = make(&plane, form("one")).await;
    let path = format!("{PATH}/{id}");
    assert_eq!(bind(&plane, account, json!(id)).await.ok()["egressProxyId"], json!(id));
    assert_eq!(plane.get(&path).await.ok()["accounts"], 1);
    let delete = async || plane.call(Method::DELETE, &path, None).await;
    delete().await.refused(StatusCode::CONFLICT, "egress_proxy_in_use");

    // Another change of the account leaves it.
    let alias = json!({"alias": "main"});
    let shown = plane.call(Method::PATCH, &format!("/api/v1/accounts/{account}"), Some(alias)).await.ok();
    assert_eq!(shown["egressProxyId"], json!(id));
    let unknown = json!(EgressProxyId::generate().to_string());
    let refused = bind(&plane, account, unknown).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    assert_eq!(refused["error"]["details"]["field"], "egressProxyId");

    assert!(bind(&plane, account, Value::Null).await.ok()["egressProxyId"].is_null());
    assert!(matches!(egress_in_pool(&plane, account), AccountEgress::Direct));
    delete().await.ok();
    delete().await.refused(StatusCode::NOT_FOUND, "not_found");
    plane.get(&path).await.refused(StatusCode::NOT_FOUND, "not_found");
    patch(&plane, &id, json!({})).await.refused(StatusCode::NOT_FOUND, "not_found");
    plane.post(&format!("{path}/test"), json!({})).await.refused(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn a_password_that_does_not_open_is_told_until_it_is_set_anew() {
    let plane = Plane::new().await;
    let (account, _) = plane.import_account("plus").await;
    let id = make(&plane, form("one")).await;
    bind(&plane, account, json!(id)).await.ok();
    let stored = plane.state.store.find_egress_proxy(id.parse().unwrap()).await.unwrap().unwrap();
    let foreign = Sealer::new(&EncryptionKey::from_bytes([9; 32]));
    let password = Some(SealedEgressPassword::seal(&foreign, stored.egress.id, &"s3cret".into()).unwrap());
    let broken = EgressProxyForm { name: "one".to_owned(), endpoint: stored.egress.endpoint, password };
    let now = codex_lb_shared::clock::now();
    plane.state.store.update_egress_proxy(stored.egress.id, stored.egress.version, &broken, now).await.unwrap();

    // A change that has nothing to do with the password neither needs it nor heals it.
    let shown = patch(&plane, &id, json!({"name": "two"})).await.ok();
    assert!(shown["trouble"].as_str().unwrap().contains("does not open"), "{shown}");
    let shown = plane.get(&format!("/api/v1/accounts/{account}")).await.ok();
    assert!(shown["egressTrouble"].as_str().unwrap().contains("does not open"), "{shown}");
    let tested = plane.post(&format!("{PATH}/{id}/test"), json!({})).await.ok();
    assert_eq!(tested["ok"], false);

    let shown = patch(&plane, &id, json!({"password": "new"})).await.ok();
    assert!(shown["trouble"].is_null(), "{shown}");
    assert_eq!(login_in_pool(&plane, account), Some(("ann".to_owned(), "new".to_owned())));
}

#[tokio::test]
async fn a_test_tells_whether_upstream_can_be_reached_and_what_failed() {
    let mut plane = Plane::new().await;
    let upstream = plane.fake.address();
    for kind in [Kind::Http, Kind::Socks5] {
        let proxy = FakeEgress::start(kind, Some(("ann", "s3cret"))).await.unwrap();
        let state = plane.state_with(|config| {
            let base_url = format!("http://{upstream}/backend-api");
            config.upstream.base_url = codex_lb_shared::config::BaseUrl::parse(&base_url).unwrap();
        });
        plane.state = state.await;
        let body = json!({
            "name": format!("{kind:?}"), "kind": if kind == Kind::Http { "http" } else { "socks5" },
            "host": "127.0.0.1", "port": proxy.address().port(), "user": "ann", "password": "s3cret",
        });
        let id = make(&plane, body).await;
        let test = async || plane.post(&format!("{PATH}/{id}/test"), json!({})).await;
        let tested = test().await.ok();
        assert_eq!((tested["ok"].as_bool(), tested["error"].is_null()), (Some(true), true), "{tested}");
        assert!(tested["durationMs"].is_u64());
        assert_eq!(proxy.destinations(), [upstream.to_string()]);

        patch(&plane, &id, json!({"password": "wr0ng"})).await.ok();
        let tested = test().await;
        assert!(!tested.text.contains("wr0ng"), "{}", tested.text);
        let tested = tested.ok();
        assert_eq!(tested["ok"], false);
        assert!(tested["error"].as_str().unwrap().contains("be let through"), "{tested}");

        for _ in 0..20 {
            test().await;
        }
        test().await.refused(StatusCode::TOO_MANY_REQUESTS, "tested_too_often");
    }
}

#[tokio::test]
async fn a_password_that_was_sealed_while_the_key_changed_is_sealed_anew() {
    let mut plane = Plane::new().await;
    let (old, new) = (crate::support::sealer(), EncryptionKey::from_bytes([2; 32]));
    let new = Sealer::with_older_keys(&new, &[EncryptionKey::from_bytes([1; 32])]);
    let store = &plane.state.store;
    let now = codex_lb_shared::clock::now();
    store.check_encryption_fingerprint(&old.fingerprint(), now).await.unwrap();
    store.switch_encryption_key(&old.fingerprint(), &new.fingerprint(), &new.key_id(), now).await.unwrap();
    // This process has not heard of the new key and cannot get at it: refused, and nothing is stored.
    plane.post(PATH, form("one")).await.refused(StatusCode::CONFLICT, "conflict");
    assert_eq!(plane.get(PATH).await.ok(), json!({ "items": [] }));

    let both = [EncryptionKey::from_bytes([1; 32]), EncryptionKey::from_bytes([2; 32])];
    plane.state = plane.state_sealed_by(Sealer::with_older_keys(&both[0], &both[1..])).await;
    let id = make(&plane, form("one")).await;
    let stored = plane.state.store.find_egress_proxy(id.parse().unwrap()).await.unwrap().unwrap();
    assert!(stored.password.unwrap().is_sealed_with(&new.key_id()));
}
