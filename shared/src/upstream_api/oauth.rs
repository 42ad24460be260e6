//! The issuer's token endpoint.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{NoWayOut, UpstreamApi};
use crate::egress::AccountEgress;

/// What a refresh answers. Upstream may leave out each part; what is missing stays as it was.
#[derive(Debug, Deserialize)]
pub struct RefreshedTokens {
    /// A new id token.
    pub id_token: Option<SecretString>,
    /// A new access token.
    pub access_token: Option<SecretString>,
    /// The next refresh token; the one that was sent is used up.
    pub refresh_token: Option<SecretString>,
}

/// Why a refresh failed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The login is over: a person must log in again. The code is one of a closed set.
    #[error("the issuer ended this login: {0}")]
    LoginEnded(&'static str),
    /// The issuer answered with a failure that may pass.
    #[error("the issuer answered a refresh with status {0}")]
    Refused(u16),
    /// The account has no way out; nothing was sent.
    #[error("leave for the issuer")]
    NoWayOut(#[from] NoWayOut),
    /// No answer, or not in time.
    #[error("reach the issuer")]
    Unreachable(#[source] reqwest::Error),
    /// A 200 that holds no tokens.
    #[error("the issuer's answer to a refresh holds no access token")]
    Unreadable,
}

/// Codes after which a refresh token never works again. Source: what the Codex CLI treats as permanent.
const LOGIN_ENDED: [&str; 4] =
    ["refresh_token_expired", "refresh_token_reused", "refresh_token_invalidated", "invalid_grant"];

impl UpstreamApi {
    /// Exchanges a refresh token for a new pair, by the account's own way out. The token is used up by this, whatever
    /// comes back.
    ///
    /// # Errors
    /// [`RefreshError::LoginEnded`] is permanent; everything else may pass.
    pub async fn refresh_tokens(
        &self,
        egress: &AccountEgress,
        refresh_token: &SecretString,
    ) -> Result<RefreshedTokens, RefreshError> {
        let request = self.http(egress)?.post(format!("{}/oauth/token", self.endpoints.issuer)).json(&json!({
            "client_id": self.endpoints.client_id,
            "grant_type": "refresh_token",
            "refresh_token": refresh_token.expose_secret(),
            "scope": "openid profile email",
        }));
        let response = request.send().await.map_err(|error| RefreshError::Unreachable(error.without_url()))?;
        let status = response.status();
        if status.is_success() {
            let tokens: RefreshedTokens = response.json().await.map_err(|_| RefreshError::Unreadable)?;
            return if tokens.access_token.is_some() { Ok(tokens) } else { Err(RefreshError::Unreadable) };
        }
        // A body that is no JSON has no code; the status alone then says that it failed.
        let body: Value = response.json().await.unwrap_or(Value::Null);
        match ended_code(&body) {
            Some(code) if status.is_client_error() => Err(RefreshError::LoginEnded(code)),
            _ => Err(RefreshError::Refused(status.as_u16())),
        }
    }
}

/// The permanent code in an error body: in `error.code`, `error` or `code`.
fn ended_code(body: &Value) -> Option<&'static str> {
    let error = body.get("error");
    let candidates = [error.and_then(|error| error.get("code")), error, body.get("code")];
    let told: Vec<&str> = candidates.into_iter().flatten().filter_map(Value::as_str).collect();
    LOGIN_ENDED.into_iter().find(|ended| told.contains(ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permanent_code_is_found_wherever_it_stands() {
        let cases = [
            (json!({"error": {"code": "refresh_token_reused", "message": "x"}}), Some("refresh_token_reused")),
            (json!({"error": "invalid_grant"}), Some("invalid_grant")),
            (json!({"code": "refresh_token_expired"}), Some("refresh_token_expired")),
            (json!({"error": {"code": "server_error"}}), None),
            (json!("nonsense"), None),
            (Value::Null, None),
        ];
        for (body, expected) in cases {
            assert_eq!(ended_code(&body), expected, "{body}");
        }
    }
}
