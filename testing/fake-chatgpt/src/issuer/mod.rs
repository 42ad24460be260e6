//! The OAuth issuer: codes, device logins and the token endpoint, with the public clients' deviations from the standards.

pub(crate) mod login;
pub(crate) mod logins;
pub(crate) mod tokens;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::account::Account;
use crate::ids;
use crate::jwt::CLIENT_ID;
use crate::reply::{Exchange, Refusal, Reply};
use crate::script::RefreshScript;
use tokens::{ACCESS_TOKEN_SECONDS, DeadRefresh, TokenSet};

/// `POST /oauth/token`, as a form or as JSON.
pub(crate) async fn token_endpoint(exchange: Exchange) -> Reply {
    let fields = exchange.fields();
    if fields["client_id"] != CLIENT_ID {
        return exchange.refuse(oauth_error("invalid_client", "Unknown client"));
    }
    match fields["grant_type"].as_str() {
        Some("authorization_code") => exchange_code(exchange, &fields),
        Some("refresh_token") => refresh(exchange, &fields).await,
        Some("urn:ietf:params:oauth:grant-type:token-exchange") => exchange.json(&json!({
            "access_token": format!("sk-proj-fake-{}", ids::alphanumeric(40)), "token_type": "bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        })),
        _ => exchange.refuse(oauth_error("unsupported_grant_type", "Unsupported grant type")),
    }
}

/// `POST /oauth/revoke`.
pub(crate) fn revoke(exchange: Exchange) -> Reply {
    let fields = exchange.fields();
    exchange.fake.tokens.revoke_one(fields["token"].as_str().unwrap_or_default());
    exchange.json(&json!({}))
}

fn exchange_code(exchange: Exchange, fields: &Value) -> Reply {
    let field = |name: &str| fields[name].as_str().unwrap_or_default();
    let Some(grant) = exchange.fake.logins.redeem_code(field("code")) else {
        return exchange.refuse(oauth_error("invalid_grant", "The code is unknown, expired or used"));
    };
    // The code is gone whatever comes out of the checks, as the standard wants it.
    if grant.redirect_uri != field("redirect_uri") {
        return exchange
            .refuse(oauth_error("invalid_grant", "The redirect URI differs from that of the authorization"));
    }
    if grant.code_challenge != challenge_of(field("code_verifier")) {
        return exchange.refuse(oauth_error("invalid_grant", "The code verifier does not fit the challenge"));
    }
    let token_set = exchange.fake.tokens.issue(&grant.account);
    exchange.json(&token_answer(&token_set, true))
}

async fn refresh(exchange: Exchange, fields: &Value) -> Reply {
    let refresh_token = fields["refresh_token"].as_str().unwrap_or_default();
    let Some(account) = exchange.fake.tokens.owner(refresh_token) else {
        return exchange.refuse(refresh_error(DeadRefresh::Invalidated));
    };
    let script = account.next_refresh_script();
    let end = |death| {
        exchange.fake.tokens.end_refresh(&account, death);
        death
    };
    match script {
        RefreshScript::Rotate => rotate(exchange, &account, refresh_token),
        RefreshScript::AccessTokenOnly => match exchange.fake.tokens.check_refresh(refresh_token) {
            Ok(()) => {
                let token_set = exchange.fake.tokens.issue_access(&account);
                exchange.json(&token_answer(&token_set, false))
            }
            Err(death) => exchange.refuse(refresh_error(death)),
        },
        RefreshScript::LostAnswer => {
            if exchange.fake.tokens.consume_refresh(refresh_token).is_ok() {
                exchange.fake.tokens.issue(&account);
            }
            exchange.tear()
        }
        RefreshScript::ServerError => {
            let body = json!({"error": {"message": "Internal server error", "type": "server_error", "code": null, "param": null}});
            exchange.refuse(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, body))
        }
        RefreshScript::Expired => {
            let death = end(DeadRefresh::Expired);
            exchange.refuse(refresh_error(death))
        }
        RefreshScript::Reused => {
            let death = end(DeadRefresh::Used);
            exchange.refuse(refresh_error(death))
        }
        RefreshScript::Invalidated => {
            let death = end(DeadRefresh::Invalidated);
            exchange.refuse(refresh_error(death))
        }
        RefreshScript::InvalidGrant => {
            end(DeadRefresh::Invalidated);
            exchange.refuse(oauth_error("invalid_grant", "The refresh token is not valid"))
        }
        RefreshScript::Silence => std::future::pending().await,
    }
}

fn rotate(exchange: Exchange, account: &Arc<Account>, refresh_token: &str) -> Reply {
    match exchange.fake.tokens.consume_refresh(refresh_token) {
        Ok(()) => {
            let token_set = exchange.fake.tokens.issue(account);
            exchange.json(&token_answer(&token_set, true))
        }
        Err(death) => exchange.refuse(refresh_error(death)),
    }
}

fn token_answer(token_set: &TokenSet, with_refresh: bool) -> Value {
    let mut answer = json!({
        "id_token": token_set.id, "access_token": token_set.access, "token_type": "bearer", "expires_in": ACCESS_TOKEN_SECONDS,
        "scope": "openid profile email offline_access",
    });
    if with_refresh {
        answer["refresh_token"] = json!(token_set.refresh);
    }
    answer
}

fn refresh_error(death: DeadRefresh) -> Refusal {
    let (code, message) = match death {
        DeadRefresh::Used => (
            "refresh_token_reused",
            "Your refresh token has already been used to generate a new access token. Please try signing in again.",
        ),
        DeadRefresh::Expired => {
            ("refresh_token_expired", "Your refresh token has expired. Please try signing in again.")
        }
        DeadRefresh::Invalidated => {
            ("refresh_token_invalidated", "Your refresh token has been invalidated. Please try signing in again.")
        }
    };
    let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": code});
    Refusal::new(StatusCode::UNAUTHORIZED, json!({"error": error}))
}

/// 400 in the form of RFC 6749.
pub(crate) fn oauth_error(code: &str, description: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, json!({"error": code, "error_description": description}))
}

/// The S256 challenge of a verifier.
pub(crate) fn challenge_of(code_verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(code_verifier))
}
