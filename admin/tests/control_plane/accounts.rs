//! `/api/v1/accounts`: logins come in by file, are changed, and go; each change is effective before it is answered.

use codex_lb_shared::account_import::import_login;
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::domain::account::{AccountState, AccountStatus};
use codex_lb_shared::domain::upstream_window::{AccountUsage, UpstreamWindow};
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::secret::{EncryptionKey, Sealer};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Plane, add_fake_account};

fn state_in_pool(plane: &Plane, id: AccountId) -> Option<AccountState> {
    plane.state.pool.snapshot().find(id).map(|pooled| pooled.live.view(clock::now()).state)
}

#[tokio::test]
async fn one_bad_file_does_not_stop_the_others() {
    let plane = Plane::new().await;
    let account = add_fake_account(&plane.fake, "pro");
    let good = account.auth_json().to_string();
    let files = json!({"files": [
        {"name": "good.json", "content": good},
        {"name": "bad.json", "content": "s3cret nonsense"},
        {"name": "again.json", "content": good},
        {"name": "key.json", "content": json!({"OPENAI_API_KEY": "s3cret"}).to_string()},
    ]});
    let answer = plane.post("/api/v1/accounts/import", files).await;
    assert!(!answer.text.contains("s3cret") && !answer.text.contains(&account.refresh_token()), "{}", answer.text);
    let results = answer.ok()["results"].take();
    assert_eq!(results[0]["account"]["wasNew"], true);
    assert_eq!(results[0]["account"]["email"], account.email());
    assert_eq!(results[0]["account"]["plan"], "pro");
    assert!(results[0]["error"].is_null());
    assert_eq!(results[1]["name"], "bad.json");
    assert!(results[1]["account"].is_null());
    assert!(results[1]["error"].as_str().unwrap().contains("codex login"));
    assert_eq!(results[2]["account"]["wasNew"], false);
    assert_eq!(results[2]["account"]["id"], results[0]["account"]["id"]);
    assert!(results[3]["error"].as_str().unwrap().contains("API key"));

    let id = results[0]["account"]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(state_in_pool(&plane, id), Some(AccountState::Active));
}

#[tokio::test]
async fn an_import_without_files_or_with_too_many_or_too_large_ones_is_refused() {
    let plane = Plane::new().await;
    let path = "/api/v1/accounts/import";
    let file = json!({"name": "a", "content": "{}"});
    for files in [vec![], vec![file; 101]] {
        let body = plane.post(path, json!({ "files": files })).await;
        let body = body.refused(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(body["error"]["details"]["field"], "files");
    }
    let huge = json!({"files": [{"name": "a", "content": "x".repeat(3 << 20)}]});
    plane.post(path, huge).await.refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    let wrong = plane.post(path, json!({"files": "eyJ.s3cret"})).await;
    wrong.refused(StatusCode::BAD_REQUEST, "invalid_request");
    assert!(!wrong.text.contains("s3cret"), "{}", wrong.text);
}

#[tokio::test]
async fn an_account_is_shown_as_the_pool_knows_it_now() {
    let plane = Plane::new().await;
    let (id, account) = plane.import_account("plus").await;
    let now = clock::now();
    let resets_at = Timestamp::from_unix_ms(now.as_unix_ms() + 3_600_000);
    let pool = plane.state.pool.snapshot();
    let pooled = pool.find(id).unwrap();
    let window =
        |used_percent, window_minutes| UpstreamWindow { used_percent, window_minutes, resets_at: Some(resets_at) };
    let usage =
        AccountUsage { primary: Some(window(12.5, 300)), secondary: Some(window(40.0, 10_080)), observed_at: now };
    plane.state.pool.observe_usage(pooled, usage);
    let status = AccountStatus {
        state: AccountState::RateLimited,
        reason: Some("upstream limits its rate".to_owned()),
        until: Some(resets_at),
    };
    plane.state.pool.apply_status(pooled, status);
    let lease = plane.state.pool.try_lease(pooled).unwrap();

    let shown = plane.get(&format!("/api/v1/accounts/{id}")).await.ok();
    let expected = json!({
        "id": id.to_string(), "email": account.email(), "alias": null, "plan": "plus",
        "state": "rate_limited", "stateReason": "upstream limits its rate", "stateUntil": resets_at.as_unix_ms(),
        "coolingUntil": null, "routingPolicy": "normal", "concurrencyCap": null,
        "egressProxyId": null, "egressTrouble": null,
        "usage": {
            "primary": {"usedPercent": 12.5, "windowMinutes": 300, "resetsAt": resets_at.as_unix_ms()},
            "secondary": {"usedPercent": 40.0, "windowMinutes": 10_080, "resetsAt": resets_at.as_unix_ms()},
            "observedAt": now.as_unix_ms(),
        },
        "inFlight": 1,
        "accessTokenExpiresAt": shown["accessTokenExpiresAt"], "tokensRefreshedAt": shown["tokensRefreshedAt"],
        "createdAt": shown["createdAt"],
    });
    assert_eq!(shown, expected);
    assert!(shown["accessTokenExpiresAt"].as_i64().unwrap() > now.as_unix_ms());
    assert_eq!(plane.get("/api/v1/accounts").await.ok(), json!({ "items": [shown] }));
    drop(lease);
}

#[tokio::test]
async fn a_pause_is_effective_at_once_and_also_over_what_upstream_said_before() {
    let plane = Plane::new().await;
    let (id, _) = plane.import_account("plus").await;
    let pool = plane.state.pool.snapshot();
    let until = Some(Timestamp::from_unix_ms(clock::now().as_unix_ms() + 60_000));
    let limited = AccountStatus { state: AccountState::RateLimited, reason: None, until };
    plane.state.pool.apply_status(pool.find(id).unwrap(), limited);

    let paused = plane.call(Method::POST, &format!("/api/v1/accounts/{id}/pause"), None).await.ok();
    assert_eq!((paused["state"].as_str(), paused["stateUntil"].is_null()), (Some("paused"), true));
    assert_eq!(state_in_pool(&plane, id), Some(AccountState::Paused));
    assert_eq!(plane.state.store.list_accounts().await.unwrap()[0].account.status.state, AccountState::Paused);

    let resumed = plane.call(Method::POST, &format!("/api/v1/accounts/{id}/resume"), None).await.ok();
    assert_eq!((resumed["state"].as_str(), resumed["stateReason"].is_null()), (Some("active"), true));
    assert_eq!(state_in_pool(&plane, id), Some(AccountState::Active));
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_null_takes_away() {
    let plane = Plane::new().await;
    let (id, _) = plane.import_account("plus").await;
    let path = format!("/api/v1/accounts/{id}");
    let patch = async |body: Value| plane.call(Method::PATCH, &path, Some(body)).await;
    let facts = |shown: &Value| json!([shown["alias"], shown["routingPolicy"], shown["concurrencyCap"]]);

    let all = json!({"alias": " main ", "routingPolicy": "preserve", "concurrencyCap": 3});
    assert_eq!(facts(&patch(all).await.ok()), json!(["main", "preserve", 3]));
    assert_eq!(facts(&patch(json!({})).await.ok()), json!(["main", "preserve", 3]));
    assert_eq!(facts(&patch(json!({"alias": null})).await.ok()), json!([null, "preserve", 3]));
    assert_eq!(facts(&patch(json!({"concurrencyCap": null})).await.ok()), json!([null, "preserve", null]));
    let pool = plane.state.pool.snapshot();
    assert_eq!(pool.find(id).unwrap().account.routing_policy.as_str(), "preserve");

    let wrong = [
        json!({"alias": ""}),
        json!({"alias": 5}),
        json!({"concurrencyCap": 0}),
        json!({"concurrencyCap": -1}),
        json!({"routingPolicy": "fastest"}),
        json!({"email": "x@example.test"}),
    ];
    for body in wrong {
        patch(body).await.refused(StatusCode::BAD_REQUEST, "invalid_request");
    }
}

#[tokio::test]
async fn a_deleted_account_is_gone_from_the_pool_and_from_every_path() {
    let plane = Plane::new().await;
    let (id, _) = plane.import_account("plus").await;
    let path = format!("/api/v1/accounts/{id}");
    plane.call(Method::DELETE, &path, None).await.ok();
    assert_eq!(state_in_pool(&plane, id), None);
    for missing in [path.as_str(), "/api/v1/accounts/nonsense"] {
        plane.get(missing).await.refused(StatusCode::NOT_FOUND, "not_found");
        plane.call(Method::DELETE, missing, None).await.refused(StatusCode::NOT_FOUND, "not_found");
        let paused = plane.call(Method::POST, &format!("{missing}/pause"), None).await;
        paused.refused(StatusCode::NOT_FOUND, "not_found");
        let patched = plane.call(Method::PATCH, missing, Some(json!({}))).await;
        patched.refused(StatusCode::NOT_FOUND, "not_found");
    }
}

#[tokio::test]
async fn what_is_stored_but_cannot_be_read_back_is_told() {
    let plane = Plane::new().await;
    let (id, _) = plane.import_account("plus").await;
    let other_key = Sealer::new(&EncryptionKey::from_bytes([9; 32]));
    let foreign = add_fake_account(&plane.fake, "plus").auth_json().to_string();
    let foreign = import_login(&plane.state.store, &other_key, &foreign, clock::now()).await.unwrap();

    let path = format!("/api/v1/accounts/{id}");
    let answer = plane.call(Method::PATCH, &path, Some(json!({"alias": "main"}))).await;
    answer.refused(StatusCode::SERVICE_UNAVAILABLE, "not_effective_yet");
    assert_eq!(plane.get(&path).await.ok()["alias"], "main");
    plane.call(Method::DELETE, &format!("/api/v1/accounts/{}", foreign.id), None).await.ok();
    plane.call(Method::PATCH, &path, Some(json!({}))).await.ok();
}

#[tokio::test]
async fn a_lost_database_is_told_without_the_drivers_words() {
    let plane = Plane::new().await;
    plane.state.store.close().await;
    let answer = plane.get("/api/v1/accounts").await;
    answer.refused(StatusCode::SERVICE_UNAVAILABLE, "database_unreachable");
    assert!(!answer.text.contains(plane.data_dir().to_str().unwrap()), "{}", answer.text);
}
