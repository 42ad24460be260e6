//! What callers learn of limits: the pool's, never an account's; and how fast the pool learns of them.

use codex_lb_shared::domain::settings::AccessSettings;
use codex_lb_shared::store::SettingsGroup;
use fake_chatgpt::{AccountSpec, Answer, FakeChatGpt, Script, UsageState};
use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Upstream, eventually, native_body};

const NATIVE: &str = "/backend-api/codex/responses";

async fn usage(gateway: &Gateway, path: &str) -> Value {
    let response = gateway.http.get(format!("{}{path}", gateway.proxy_url)).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

fn used(usage: &Value, window: &str) -> Option<u64> {
    usage["rate_limit"][window]["used_percent"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_s_limits_are_told_as_codex_reads_them_and_no_account_s() {
    let fake = FakeChatGpt::start().await.unwrap();
    let accounts =
        ["plus", "pro"].map(|plan| fake.add_account(AccountSpec { plan: plan.into(), ..Default::default() }));
    let upstream = Upstream { fake, accounts: accounts.to_vec() };
    upstream.fake.set_usage(&accounts[0], UsageState::used(100.0, 50.0));
    upstream.fake.set_usage(&accounts[1], UsageState::used(8.0, 4.0));
    let gateway = Gateway::before(&upstream).await;
    let fresh = usage(&gateway, "/api/codex/usage").await;
    assert_eq!((used(&fresh, "primary_window"), fresh["plan_type"].as_str()), (Some(0), Some("pro")));

    // Each account's headers are met once; then (225 × 100 + 1,500 × 8) / 1,725 and (7,560 × 50 + 50,400 × 4) / 57,960.
    let headers = eventually("both accounts have answered", async || {
        let response = gateway.post(NATIVE, &native_body("hi")).send().await.unwrap();
        let headers = response.headers().clone();
        response.text().await.unwrap();
        (headers["x-codex-primary-used-percent"] == "20").then_some(headers)
    })
    .await;
    assert_eq!(headers["x-codex-primary-window-minutes"], "300");
    assert_eq!(
        (&headers["x-codex-secondary-used-percent"], &headers["x-codex-secondary-window-minutes"]),
        (&"10".parse().unwrap(), &"10080".parse().unwrap())
    );
    assert!(headers["x-codex-primary-reset-at"].to_str().unwrap().parse::<u64>().unwrap() > 1_600_000_000);
    assert!(headers.get("x-codex-plan-type").is_none() && headers.get("x-codex-credits-balance").is_none());

    for path in ["/api/codex/usage", "/backend-api/wham/usage"] {
        let told = usage(&gateway, path).await;
        assert_eq!((used(&told, "primary_window"), used(&told, "secondary_window")), (Some(20), Some(10)), "{path}");
        assert_eq!((&told["email"], &told["rate_limit"]["allowed"]), (&json!(""), &json!(true)));
        for account in &accounts {
            for secret in [account.email(), account.chatgpt_account_id(), account.chatgpt_user_id()] {
                assert!(!told.to_string().contains(secret), "{told}");
            }
        }
    }
    assert!(upstream.fake.requests().iter().all(|record| !record.head.path.contains("wham")), "upstream was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_about_limits_counts_at_once() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let event = json!({"type": "codex.rate_limits", "rate_limits": {
        "primary": {"used_percent": 37.0, "window_minutes": 300, "reset_after_seconds": 600},
        "secondary": {"used_percent": 12.0, "window_minutes": 10_080, "reset_after_seconds": 6_000}}});
    let end = json!({"type": "response.completed", "response": {"id": "r", "output": []}});
    let body = format!("event: codex.rate_limits\ndata: {event}\n\nevent: response.completed\ndata: {end}\n\n");
    upstream.fake.script(&upstream.accounts[0], [Script::Raw { status: 200, headers: Vec::new(), body }]);
    let response = gateway.post(NATIVE, &native_body("hi")).send().await.unwrap();
    assert_eq!(response.headers()["x-codex-primary-used-percent"], "37");
    let told = usage(&gateway, "/backend-api/wham/usage").await;
    assert_eq!((used(&told, "primary_window"), used(&told, "secondary_window")), (Some(37), Some(12)));
    let reset_after = told["rate_limit"]["primary_window"]["reset_after_seconds"].as_u64().unwrap();
    assert!((590..=600).contains(&reset_after), "{reset_after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_pool_says_so_and_an_early_head_knows_the_pool_too() {
    let upstream = Upstream::start(1).await;
    let mut setup = Setup::new(&upstream);
    setup.set("CODEX_LB_UPSTREAM__STATUS_HOLD", "50ms");
    let gateway = setup.serve().await;
    let late = Answer { text_tokens: 2, first_token_delay_ms: 400, ..Default::default() };
    let scripts = [Script::Auto, Script::Answer(late), Script::usage_limit(600)];
    upstream.fake.script(&upstream.accounts[0], scripts);
    upstream.fake.set_usage(&upstream.accounts[0], UsageState::used(25.0, 0.0));
    gateway.post(NATIVE, &native_body("hi")).send().await.unwrap().text().await.unwrap();
    let early = gateway.post(NATIVE, &native_body("hi")).send().await.unwrap();
    assert_eq!(early.headers()["x-codex-primary-used-percent"], "25");
    assert!(early.text().await.unwrap().starts_with("data: {\"type\":\"keepalive\"}"));

    upstream.fake.set_usage(&upstream.accounts[0], UsageState::used(100.0, 0.0));
    let limited = gateway.post(NATIVE, &native_body("hi")).send().await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["x-codex-primary-used-percent"]),
        (429, &"100".parse().unwrap())
    );
    let told = usage(&gateway, "/api/codex/usage").await;
    assert_eq!((&told["rate_limit"]["allowed"], &told["rate_limit"]["limit_reached"]), (&json!(false), &json!(true)));
    assert_eq!(told["rate_limit_reached_type"]["type"], "rate_limit_reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pool_has_left_can_be_kept_from_callers_with_a_key() {
    let upstream = Upstream::start(1).await;
    upstream.fake.set_usage(&upstream.accounts[0], UsageState::used(25.0, 5.0));
    let setup = Setup::new(&upstream);
    let key = setup.key("outsider");
    let access = AccessSettings { hide_pool_quota: true, ..AccessSettings::default() };
    setup.save(SettingsGroup::Access, &access).await;
    let gateway = setup.serve().await;
    let ask = || gateway.post(NATIVE, &native_body("hi"));
    let own = ask().send().await.unwrap();
    assert_eq!(own.headers()["x-codex-primary-used-percent"], "25");
    let outsider = ask().bearer_auth(&key).send().await.unwrap();
    assert_eq!(outsider.status(), 200);
    assert!(outsider.headers().keys().all(|name| !name.as_str().starts_with("x-codex-primary")));
    let told = gateway.http.get(format!("{}/backend-api/wham/usage", gateway.proxy_url)).bearer_auth(&key);
    let told: Value = told.send().await.unwrap().json().await.unwrap();
    assert_eq!((&told["rate_limit"]["primary_window"], &told["rate_limit"]["allowed"]), (&Value::Null, &json!(true)));
    assert_eq!(used(&usage(&gateway, "/backend-api/wham/usage").await, "primary_window"), Some(25));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_name_the_etag_of_our_own_model_list() {
    let upstream = Upstream::start(1).await;
    let gateway = Gateway::before(&upstream).await;
    let own = eventually("the models are fetched", async || {
        let list = gateway.http.get(format!("{}/backend-api/codex/models", gateway.proxy_url)).send().await.unwrap();
        let etag = list.headers()["etag"].clone();
        let list: Value = list.json().await.unwrap();
        (!list["models"].as_array().unwrap().is_empty()).then_some(etag)
    })
    .await;
    for (path, body) in [(NATIVE, native_body("hi")), ("/v1/responses", json!({"model": "gpt-5.5", "input": "hi"}))] {
        let response = gateway.post(path, &body).send().await.unwrap();
        assert_eq!(response.headers()["x-models-etag"], own, "{path}");
    }
}
