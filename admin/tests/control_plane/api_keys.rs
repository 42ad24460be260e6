//! `/api/v1/api-keys`: a secret is shown once, and what is done to a key is effective before it is answered.

use codex_lb_shared::clock;
use codex_lb_shared::domain::api_key::ApiKeyHash;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Plane;

async fn create(plane: &Plane, name: &str) -> (String, String) {
    let made = plane.post("/api/v1/api-keys", json!({ "name": name })).await.ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["apiKey"]["id"]), text(&made["secret"]))
}

async fn opens_the_door(plane: &Plane, secret: &str) -> bool {
    let found = plane.state.api_keys.find(ApiKeyHash::of(secret)).await.unwrap();
    found.is_some_and(|key| key.is_usable_at(clock::now()))
}

async fn post(plane: &Plane, id: &str, verb: &str) -> crate::support::Answer {
    plane.call(Method::POST, &format!("/api/v1/api-keys/{id}/{verb}"), None).await
}

#[tokio::test]
async fn a_secret_is_shown_once_and_opens_the_door_at_once() {
    let plane = Plane::new().await;
    let answer = plane.post("/api/v1/api-keys", json!({"name": " laptop "})).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let made = answer.ok();
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("sk-clb-") && opens_the_door(&plane, secret).await);
    assert_eq!(made["apiKey"]["name"], "laptop");
    assert_eq!(made["apiKey"]["state"], "active");
    assert!(secret.starts_with(made["apiKey"]["visiblePrefix"].as_str().unwrap()));

    let listed = plane.get("/api/v1/api-keys").await;
    assert!(!listed.text.contains(secret) && !listed.text.contains(&ApiKeyHash::of(secret).to_hex()));
    assert_eq!(listed.ok()["items"], json!([made["apiKey"]]));
}

#[tokio::test]
async fn a_key_needs_a_name_and_an_end_that_is_still_to_come() {
    let plane = Plane::new().await;
    let wrong = [
        (json!({"name": "  "}), "name"),
        (json!({"name": "x".repeat(101)}), "name"),
        (json!({"name": "ci", "expiresAt": 1}), "expiresAt"),
    ];
    for (body, field) in wrong {
        let answer = plane.post("/api/v1/api-keys", body).await;
        assert_eq!(answer.refused(StatusCode::BAD_REQUEST, "invalid_request")["error"]["details"]["field"], field);
    }
    for body in [json!({}), json!({"name": 5}), json!({"name": "ci", "scope": "all"}), json!([])] {
        plane.post("/api/v1/api-keys", body).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    }
    let end = clock::now().as_unix_ms() + 60_000;
    let made = plane.post("/api/v1/api-keys", json!({"name": "ci", "expiresAt": end})).await.ok();
    assert_eq!(made["apiKey"]["expiresAt"], end);
}

#[tokio::test]
async fn a_disabled_key_opens_again_and_a_revoked_one_never() {
    let plane = Plane::new().await;
    let (id, secret) = create(&plane, "ci").await;
    assert_eq!(post(&plane, &id, "disable").await.ok()["state"], "disabled");
    assert!(!opens_the_door(&plane, &secret).await);
    assert_eq!(post(&plane, &id, "enable").await.ok()["state"], "active");
    assert!(opens_the_door(&plane, &secret).await);

    let revoked = post(&plane, &id, "revoke").await.ok();
    assert_eq!(revoked["state"], "revoked");
    assert!(!opens_the_door(&plane, &secret).await);
    assert_eq!(post(&plane, &id, "revoke").await.ok(), revoked);
    post(&plane, &id, "enable").await.refused(StatusCode::CONFLICT, "api_key_revoked");
    assert!(!opens_the_door(&plane, &secret).await);
}

#[tokio::test]
async fn a_key_that_nobody_has_is_not_found() {
    let plane = Plane::new().await;
    for id in ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense"] {
        for verb in ["revoke", "enable", "disable"] {
            post(&plane, id, verb).await.refused(StatusCode::NOT_FOUND, "not_found");
        }
    }
}
