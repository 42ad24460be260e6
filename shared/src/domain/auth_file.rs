//! The Codex CLI's `auth.json`, and what its tokens say about the login.
//!
//! Tokens are decoded, not verified: they come from the issuer over TLS or from the operator's own file, and upstream
//! verifies them on every call.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::domain::account::{Plan, UpstreamIdentity};

/// The credentials of one login.
#[derive(Debug, Clone)]
pub struct TokenSet {
    /// Identifies the person and the workspace; sent nowhere but kept for export.
    pub id_token: SecretString,
    /// Sent upstream.
    pub access_token: SecretString,
    /// Single use: exchanged for the next pair.
    pub refresh_token: SecretString,
}

/// What a login's tokens say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginClaims {
    /// Who it is to upstream.
    pub identity: UpstreamIdentity,
    /// The login's e-mail address, empty when the token has none.
    pub email: String,
    /// The subscription.
    pub plan: Plan,
    /// When the access token expires, if it is a JWT that says so.
    pub access_token_expires_at: Option<Timestamp>,
}

/// Why a text is not a login we can use. Never holds a part of the text: it is full of secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthFileError {
    /// Not JSON, or not an object.
    #[error("not a JSON object; expected the auth.json that the Codex CLI writes after `codex login`")]
    NotJson,
    /// It holds an API key instead of a ChatGPT login.
    #[error("it holds an API key, not a ChatGPT login; run `codex login` with a ChatGPT account first")]
    ApiKeyOnly,
    /// A token is missing.
    #[error("`tokens.{0}` is missing")]
    Missing(&'static str),
    /// A token does not decode.
    #[error("`tokens.{0}` is not a JSON Web Token")]
    NotAJwt(&'static str),
    /// The id token names no workspace or person.
    #[error("the id token has no `{0}`")]
    NoClaim(&'static str),
}

#[derive(Deserialize)]
struct TokensFile {
    #[serde(alias = "idToken")]
    id_token: Option<SecretString>,
    #[serde(alias = "accessToken")]
    access_token: Option<SecretString>,
    #[serde(alias = "refreshToken")]
    refresh_token: Option<SecretString>,
    #[serde(alias = "accountId")]
    account_id: Option<String>,
}

#[derive(Deserialize)]
struct AuthFile {
    tokens: Option<TokensFile>,
    #[serde(rename = "OPENAI_API_KEY", alias = "openaiApiKey")]
    openai_api_key: Option<SecretString>,
}

/// Reads an `auth.json`, in snake_case or camelCase.
///
/// # Errors
/// When it is not a usable ChatGPT login; the text says what is missing.
pub fn parse_auth_file(text: &str) -> Result<(TokenSet, LoginClaims), AuthFileError> {
    let file: AuthFile = serde_json::from_str(text).map_err(|_| AuthFileError::NotJson)?;
    let Some(tokens) = file.tokens else {
        return Err(if file.openai_api_key.is_some() {
            AuthFileError::ApiKeyOnly
        } else {
            AuthFileError::Missing("access_token")
        });
    };
    let present = |token: Option<SecretString>, name| {
        token.filter(|token| !token.expose_secret().is_empty()).ok_or(AuthFileError::Missing(name))
    };
    let set = TokenSet {
        id_token: present(tokens.id_token, "id_token")?,
        access_token: present(tokens.access_token, "access_token")?,
        refresh_token: present(tokens.refresh_token, "refresh_token")?,
    };
    let claims = read_claims(&set, tokens.account_id)?;
    Ok((set, claims))
}

/// Reads what a token set says about its login. `account_id_hint` serves when the id token names no workspace.
///
/// # Errors
/// When the id token does not decode, or names no workspace or no person.
pub fn read_claims(tokens: &TokenSet, account_id_hint: Option<String>) -> Result<LoginClaims, AuthFileError> {
    let claims = jwt_claims(tokens.id_token.expose_secret()).ok_or(AuthFileError::NotAJwt("id_token"))?;
    let auth = claims.get("https://api.openai.com/auth").unwrap_or(&Value::Null);
    let text = |object: &Value, name: &str| {
        object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let chatgpt_account_id =
        text(auth, "chatgpt_account_id").or(account_id_hint).ok_or(AuthFileError::NoClaim("chatgpt_account_id"))?;
    let chatgpt_user_id = text(auth, "chatgpt_user_id")
        .or_else(|| text(auth, "user_id"))
        .or_else(|| text(&claims, "sub"))
        .ok_or(AuthFileError::NoClaim("sub"))?;
    let profile = claims.get("https://api.openai.com/profile").unwrap_or(&Value::Null);
    Ok(LoginClaims {
        identity: UpstreamIdentity { chatgpt_account_id, chatgpt_user_id },
        email: text(&claims, "email").or_else(|| text(profile, "email")).unwrap_or_default(),
        plan: Plan::from_upstream(&text(auth, "chatgpt_plan_type").unwrap_or_default()),
        access_token_expires_at: access_token_expiry(tokens.access_token.expose_secret()),
    })
}

/// When an access token expires, if it is a JWT that says so.
pub fn access_token_expiry(access_token: &str) -> Option<Timestamp> {
    let seconds = jwt_claims(access_token)?.get("exp")?.as_i64()?;
    Some(Timestamp::from_unix_seconds(seconds))
}

fn jwt_claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn id_token() -> String {
        jwt(&json!({"email": "a@example.test", "sub": "auth0|1", "https://api.openai.com/auth": {
            "chatgpt_account_id": "ws-1", "chatgpt_user_id": "user-1", "chatgpt_plan_type": "team"}}))
    }

    #[test]
    fn an_auth_file_reads_in_both_spellings() {
        let access = jwt(&json!({"exp": 1_900_000_000}));
        let snake = json!({"OPENAI_API_KEY": null, "last_refresh": "2026-01-01T00:00:00Z", "tokens":
            {"id_token": id_token(), "access_token": access, "refresh_token": "r", "account_id": "ws-1"}});
        let camel = json!({"tokens":
            {"idToken": id_token(), "accessToken": access, "refreshToken": "r", "accountId": "ws-1"}});
        for file in [snake, camel] {
            let (tokens, claims) = parse_auth_file(&file.to_string()).unwrap();
            assert_eq!(tokens.refresh_token.expose_secret(), "r");
            assert_eq!(claims.identity.chatgpt_account_id, "ws-1");
            assert_eq!(claims.identity.chatgpt_user_id, "user-1");
            assert_eq!(claims.plan, Plan::Team);
            assert_eq!(claims.access_token_expires_at, Some(Timestamp::from_unix_seconds(1_900_000_000)));
        }
    }

    #[test]
    fn what_is_wrong_with_an_auth_file_is_said_without_its_secrets() {
        let jwt_without_person = jwt(&json!({"https://api.openai.com/auth": {"chatgpt_account_id": "ws"}}));
        let with_id = |id: &str| json!({"tokens": {"id_token": id, "access_token": "a", "refresh_token": "r"}});
        let cases = [
            ("nonsense".to_owned(), AuthFileError::NotJson),
            ("[]".to_owned(), AuthFileError::NotJson),
            ("{}".to_owned(), AuthFileError::Missing("access_token")),
            (json!({"OPENAI_API_KEY": "sk-secret"}).to_string(), AuthFileError::ApiKeyOnly),
            (
                json!({"tokens": {"id_token": id_token(), "access_token": "a"}}).to_string(),
                AuthFileError::Missing("refresh_token"),
            ),
            (
                json!({"tokens": {"id_token": "", "access_token": "a", "refresh_token": "r"}}).to_string(),
                AuthFileError::Missing("id_token"),
            ),
            (with_id("not-a-jwt").to_string(), AuthFileError::NotAJwt("id_token")),
            (with_id(&jwt(&json!({"sub": "x"}))).to_string(), AuthFileError::NoClaim("chatgpt_account_id")),
            (with_id(&jwt_without_person).to_string(), AuthFileError::NoClaim("sub")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_auth_file(&text).unwrap_err(), expected);
        }
    }
}
