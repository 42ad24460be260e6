//! The tokens of an account, in the shape in which the issuer makes them. The signatures are noise: nobody verifies them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::account::Profile;
use crate::{clock, ids};

/// The public client id of the Codex CLI, the only client that the issuer knows.
pub(crate) const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";
const ISSUER: &str = "https://auth.openai.com";
const ID_TOKEN_SECONDS: i64 = 3_600;

/// An id token: who the person is and in which workspace.
pub(crate) fn id_token(profile: &Profile) -> String {
    let now = clock::unix_now() as i64;
    sign(&json!({
        "aud": [CLIENT_ID], "iss": ISSUER, "sub": profile.subject, "jti": ids::uuid(), "sid": ids::uuid(),
        "iat": now, "auth_time": now, "exp": now + ID_TOKEN_SECONDS, "rat": now, "auth_provider": "password",
        "email": profile.email, "email_verified": true, "name": profile.name,
        "https://api.openai.com/auth": auth_claims(profile),
    }))
}

/// An access token that expires `lifetime_seconds` from now (or did, when negative).
pub(crate) fn access_token(profile: &Profile, lifetime_seconds: i64) -> String {
    let now = clock::unix_now() as i64;
    sign(&json!({
        "aud": ["https://api.openai.com/v1"], "client_id": CLIENT_ID, "iss": ISSUER, "sub": profile.subject,
        "jti": ids::uuid(), "session_id": ids::uuid(), "iat": now, "nbf": now, "exp": now + lifetime_seconds,
        "scp": ["openid", "profile", "email", "offline_access"], "pwd_auth_time": now * 1_000,
        "https://api.openai.com/auth": auth_claims(profile),
        "https://api.openai.com/profile": {"email": profile.email, "email_verified": true},
    }))
}

fn auth_claims(profile: &Profile) -> Value {
    let account_user_id = format!("{}__{}", profile.chatgpt_user_id, profile.chatgpt_account_id);
    json!({
        "chatgpt_account_id": profile.chatgpt_account_id, "chatgpt_user_id": profile.chatgpt_user_id,
        "chatgpt_account_user_id": account_user_id, "user_id": profile.chatgpt_user_id,
        "chatgpt_plan_type": profile.plan, "chatgpt_compute_residency": "no_constraint", "localhost": true,
        "groups": [], "organization_id": profile.organization_id, "project_id": "proj_fake",
        "completed_platform_onboarding": false, "is_org_owner": true,
        "organizations": [{
            "id": profile.organization_id, "is_default": true, "role": "owner", "title": profile.workspace_name,
        }],
    })
}

fn sign(claims: &Value) -> String {
    let header = json!({"alg": "RS256", "kid": "fake-chatgpt", "typ": "JWT"});
    let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
    token.push('.');
    token += &URL_SAFE_NO_PAD.encode(claims.to_string());
    // As long as an RS256 signature, so that headers have a realistic size.
    let noise: Vec<u8> =
        (0..8u8).flat_map(|part| Sha256::new().chain_update(&token).chain_update([part]).finalize()).collect();
    token.push('.');
    token + &URL_SAFE_NO_PAD.encode(noise)
}
