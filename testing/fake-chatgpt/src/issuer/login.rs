//! How a person logs in: in a browser that is sent back with a code, or on another device.

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::logins::{CodeGrant, DevicePoll};
use super::{challenge_of, oauth_error};
use crate::form;
use crate::ids;
use crate::jwt::CLIENT_ID;
use crate::reply::{Exchange, Refusal, Reply};

/// `GET /oauth/authorize`: nobody asks for a password here; the person is chosen and the browser goes straight back.
pub(crate) fn authorize(exchange: Exchange) -> Reply {
    let query = |name: &str| exchange.query(name).unwrap_or_default();
    let wrong = [("response_type", "code"), ("client_id", CLIENT_ID), ("code_challenge_method", "S256")]
        .into_iter()
        .find(|(name, expected)| query(name) != *expected);
    if let Some((name, expected)) = wrong {
        return exchange.refuse(oauth_error("invalid_request", &format!("{name} must be {expected}")));
    }
    let missing = ["redirect_uri", "code_challenge", "state", "scope"].into_iter().find(|name| query(name).is_empty());
    if let Some(name) = missing {
        return exchange.refuse(oauth_error("invalid_request", &format!("{name} is missing")));
    }
    let redirect_uri = query("redirect_uri");
    if !is_registered(&redirect_uri) {
        return exchange.refuse(oauth_error("invalid_request", "The redirect URI is not registered for this client"));
    }
    let hint = query("login_hint");
    let fake = exchange.fake.clone();
    let hinted = fake.accounts.read().iter().find(|a| a.profile.email == hint || a.profile.name == hint).cloned();
    let answer = match hinted.or_else(|| fake.login_account().filter(|_| hint.is_empty())) {
        Some(account) => {
            let code_challenge = query("code_challenge");
            let code =
                fake.logins.grant_code(CodeGrant { account, redirect_uri: redirect_uri.clone(), code_challenge });
            format!("code={code}&scope={}", form::encode(&query("scope")))
        }
        None => "error=access_denied".to_owned(),
    };
    let location = format!("{redirect_uri}?{answer}&state={}", form::encode(&query("state")));
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert("location", location);
    }
    exchange.json_with(StatusCode::FOUND, headers, &json!({}))
}

/// Only the client's own loopback callbacks are known to the issuer.
fn is_registered(redirect_uri: &str) -> bool {
    ["http://localhost:1455/auth/callback", "http://127.0.0.1:1455/auth/callback"].contains(&redirect_uri)
}

/// `POST /api/accounts/deviceauth/usercode`.
pub(crate) fn device_user_code(exchange: Exchange) -> Reply {
    if exchange.fields()["client_id"] != CLIENT_ID {
        return exchange.refuse(Refusal::not_found());
    }
    let logins = &exchange.fake.logins;
    let (device_auth_id, user_code) = logins.start_device();
    // The interval is text at the real issuer too.
    let interval = logins.device_interval_seconds.to_string();
    exchange.json(&json!({"device_auth_id": device_auth_id, "user_code": user_code, "interval": interval}))
}

/// `POST /api/accounts/deviceauth/token`.
pub(crate) fn device_poll(exchange: Exchange) -> Reply {
    let fields = exchange.fields();
    let field = |name: &str| fields[name].as_str().unwrap_or_default();
    let refusal = |status, code: &str| {
        let error = json!({"message": "Device authorization is pending or unknown", "type": "invalid_request_error", "code": code});
        Refusal::new(status, json!({"error": error}))
    };
    match exchange.fake.logins.poll_device(field("device_auth_id"), field("user_code")) {
        DevicePoll::Unknown => exchange.refuse(refusal(StatusCode::NOT_FOUND, "deviceauth_not_found")),
        DevicePoll::Pending => exchange.refuse(refusal(StatusCode::FORBIDDEN, "deviceauth_authorization_pending")),
        DevicePoll::Approved(account) => {
            let redirect_uri = format!("{}/deviceauth/callback", exchange.fake.origin());
            let (code, code_verifier) = exchange.fake.logins.grant_device_code(account, redirect_uri);
            exchange.json(&json!({
                "authorization_code": code, "code_challenge": challenge_of(&code_verifier), "code_verifier": code_verifier,
                "status": "approved", "request_id": ids::uuid(),
            }))
        }
    }
}
