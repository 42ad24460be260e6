//! Logins and refreshes.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fake_chatgpt::{AccountSpec, FakeAccount, FakeChatGpt, RefreshScript, Script};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::client;

const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";
const REDIRECT: &str = "http://localhost:1455/auth/callback";

async fn post_json(fake: &FakeChatGpt, path: &str, body: Value) -> (u16, Value) {
    let response = client(fake).post(format!("{}{path}", fake.issuer_url())).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn refresh(fake: &FakeChatGpt, refresh_token: &str) -> (u16, Value) {
    let body = json!({"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": refresh_token});
    post_json(fake, "/oauth/token", body).await
}

async fn exchange_code(fake: &FakeChatGpt, code: &str, code_verifier: &str, redirect_uri: &str) -> (u16, Value) {
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", CLIENT_ID),
        ("code", code),
        ("code_verifier", code_verifier),
        ("redirect_uri", redirect_uri),
    ];
    let response = client(fake).post(format!("{}/oauth/token", fake.issuer_url())).form(&form).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

async fn fake_with_account() -> (FakeChatGpt, FakeAccount) {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec { plan: "team".into(), ..AccountSpec::default() });
    (fake, account)
}

#[tokio::test]
async fn auth_json_names_the_account() {
    let (_fake, account) = fake_with_account().await;
    let auth = account.auth_json();
    let id = claims(auth["tokens"]["id_token"].as_str().unwrap());
    assert_eq!(id["email"], "account-1@example.test");
    assert_eq!(id["https://api.openai.com/auth"]["chatgpt_plan_type"], "team");
    assert_eq!(id["https://api.openai.com/auth"]["chatgpt_account_id"], auth["tokens"]["account_id"]);
    assert!(claims(auth["tokens"]["access_token"].as_str().unwrap())["exp"].is_i64());
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let (fake, account) = fake_with_account().await;
    let first = account.refresh_token();
    let attempts = (0..8).map(|_| refresh(&fake, &first));
    let answers = futures_util::future::join_all(attempts).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == 200);
    assert_eq!((good.len(), bad.len()), (1, 7));
    assert!(bad.iter().all(|(status, body)| *status == 401 && body["error"]["code"] == "refresh_token_reused"));
    assert_eq!(good[0].1["refresh_token"], account.refresh_token());
    assert_eq!(refresh(&fake, &account.refresh_token()).await.0, 200);
}

#[tokio::test]
async fn an_account_that_began_expired_recovers_by_a_refresh() {
    let fake = FakeChatGpt::start().await.unwrap();
    let account = fake.add_account(AccountSpec { access_token_seconds: -60, ..AccountSpec::default() });
    assert!(claims(&account.access_token())["exp"].as_i64() < claims(&account.access_token())["iat"].as_i64());
    let body = support::body("hello");
    assert_eq!(support::post(&fake, &account, &body).await.unwrap().status(), 401);
    assert_eq!(refresh(&fake, &account.refresh_token()).await.0, 200);
    assert_eq!(support::post(&fake, &account, &body).await.unwrap().status(), 200);
}

#[tokio::test]
async fn refreshes_fail_as_scripted() {
    let (fake, account) = fake_with_account().await;
    let scripts = [RefreshScript::ServerError, RefreshScript::AccessTokenOnly, RefreshScript::LostAnswer];
    fake.script_refresh(&account, scripts);
    let refresh_token = account.refresh_token();
    assert_eq!(refresh(&fake, &refresh_token).await.0, 500);
    let (_, only_access) = refresh(&fake, &refresh_token).await;
    assert!(only_access.get("refresh_token").is_none() && only_access["access_token"].is_string());
    let body = json!({"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": refresh_token});
    assert!(client(&fake).post(format!("{}/oauth/token", fake.issuer_url())).json(&body).send().await.is_err());
    assert_eq!(refresh(&fake, &refresh_token).await.1["error"]["code"], "refresh_token_reused");

    fake.script_path("/oauth/token", [Script::server_error(503)]);
    assert_eq!(refresh(&fake, &account.refresh_token()).await.0, 503);
    fake.revoke_refresh_token(&account);
    assert_eq!(refresh(&fake, &account.refresh_token()).await.1["error"]["code"], "refresh_token_invalidated");
}

#[tokio::test]
async fn a_code_needs_its_verifier_and_is_good_once() {
    let (fake, first) = fake_with_account().await;
    let second = fake.add_account(AccountSpec::default());
    let verifier = "a-verifier-of-at-least-forty-three-characters-0123";
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
    let authorize = async |hint: &str| {
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", REDIRECT),
            ("scope", "openid profile email offline_access"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("state", "the state/+"),
        ];
        query.extend((!hint.is_empty()).then_some(("login_hint", hint)));
        let request = client(&fake).get(format!("{}/oauth/authorize", fake.issuer_url())).query(&query);
        let location = request.send().await.unwrap().headers()["location"].to_str().unwrap().to_owned();
        assert!(location.starts_with(REDIRECT) && location.ends_with("&state=the%20state%2F%2B"), "{location}");
        location.split("code=").nth(1).map(|rest| rest.split('&').next().unwrap().to_owned())
    };

    let code = authorize("").await.unwrap();
    assert_eq!(exchange_code(&fake, &code, "wrong", REDIRECT).await.1["error"], "invalid_grant");
    assert_eq!(exchange_code(&fake, &code, verifier, REDIRECT).await.0, 400, "a failed exchange uses the code up");
    let code = authorize("").await.unwrap();
    let (status, tokens) = exchange_code(&fake, &code, verifier, REDIRECT).await;
    assert_eq!((status, &tokens["refresh_token"]), (200, &json!(first.refresh_token())));
    assert_eq!(exchange_code(&fake, &code, verifier, REDIRECT).await.0, 400, "a code is good once");
    let code = authorize(second.email()).await.unwrap();
    let (_, tokens) = exchange_code(&fake, &code, verifier, REDIRECT).await;
    assert_eq!(claims(tokens["id_token"].as_str().unwrap())["email"], second.email());
    assert_eq!(authorize("nobody@example.test").await, None);
}

#[tokio::test]
async fn a_device_login_waits_for_its_person() {
    let (fake, account) = fake_with_account().await;
    let (_, started) = post_json(&fake, "/api/accounts/deviceauth/usercode", json!({"client_id": CLIENT_ID})).await;
    let user_code = started["user_code"].as_str().unwrap();
    let poll = json!({"device_auth_id": started["device_auth_id"], "user_code": user_code});
    assert_eq!(post_json(&fake, "/api/accounts/deviceauth/token", poll.clone()).await.0, 403);
    assert!(fake.approve_device(&account, "NOT-A-CODE").is_err());
    fake.approve_device(&account, user_code).unwrap();
    let (status, approved) = post_json(&fake, "/api/accounts/deviceauth/token", poll.clone()).await;
    assert_eq!(status, 200);
    let field = |name: &str| approved[name].as_str().unwrap();
    let redirect = format!("{}/deviceauth/callback", fake.issuer_url());
    let (status, tokens) = exchange_code(&fake, field("authorization_code"), field("code_verifier"), &redirect).await;
    assert_eq!((status, &tokens["access_token"]), (200, &json!(account.access_token())));
    assert_eq!(post_json(&fake, "/api/accounts/deviceauth/token", poll).await.0, 404, "a login ends with its success");
}
