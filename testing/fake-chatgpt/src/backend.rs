//! The backend's smaller calls: models, usage, files, transcription, the account check and what else Codex asks.

use http::header::HeaderValue;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::reply::{Exchange, Refusal, Reply};
use crate::{ids, models};

/// `GET codex/models`.
pub(crate) fn models(exchange: Exchange) -> Reply {
    let account = match exchange.authenticate() {
        Ok(account) => account,
        Err(refusal) => return exchange.refuse(refusal),
    };
    if exchange.query("client_version").is_none() {
        return exchange.refuse(Refusal::detail("Missing client_version"));
    }
    let slugs = exchange.fake.models_of(&account.profile.plan);
    let mut headers = HeaderMap::new();
    if let Ok(etag) = HeaderValue::try_from(models::etag(&slugs)) {
        headers.insert("etag", etag);
    }
    exchange.json_with(StatusCode::OK, headers, &models::catalog(&slugs))
}

/// `GET wham/usage`.
pub(crate) fn usage(exchange: Exchange) -> Reply {
    match exchange.authenticate() {
        Ok(account) => {
            let usage = account.desk.lock().usage.clone();
            exchange.json(&usage.payload(&account.profile))
        }
        Err(refusal) => exchange.refuse(refusal),
    }
}

/// `GET wham/accounts/check`. Names the fake itself as the origin for model traffic, as the real one may name another
/// host; a gateway that passes it on is bypassed.
pub(crate) fn accounts_check(exchange: Exchange) -> Reply {
    let account = match exchange.authenticate() {
        Ok(account) => account,
        Err(refusal) => return exchange.refuse(refusal),
    };
    let profile = &account.profile;
    let answer = json!({
        "accounts": [{
            "id": profile.chatgpt_account_id, "plan_type": profile.plan, "name": profile.workspace_name,
            "structure": "personal",
            "account_user_id": format!("{}__{}", profile.chatgpt_user_id, profile.chatgpt_account_id),
            "workspace_backend_origin": exchange.fake.origin(), "account_routing_override": "NO_CONSTRAINT",
        }],
        "account_ordering": [profile.chatgpt_account_id],
        "default_account_id": profile.chatgpt_account_id,
    });
    exchange.json(&answer)
}

/// `POST files`: where to upload to.
pub(crate) fn create_file(exchange: Exchange) -> Reply {
    let account = match exchange.authenticate() {
        Ok(account) => account,
        Err(refusal) => return exchange.refuse(refusal),
    };
    let fields: Value = serde_json::from_slice(&exchange.body).unwrap_or_default();
    if !fields["file_name"].is_string() {
        return exchange.refuse(Refusal::detail("file_name is required"));
    }
    let file_id = format!("file_{}", ids::alphanumeric(24));
    account.desk.lock().files.insert(file_id.clone());
    let upload_url = format!("{}/upload/{file_id}", exchange.fake.origin());
    exchange.json(&json!({"status": "success", "file_id": file_id, "upload_url": upload_url}))
}

/// `POST files/{id}/uploaded`.
pub(crate) fn file_uploaded(exchange: Exchange) -> Reply {
    let account = match exchange.authenticate() {
        Ok(account) => account,
        Err(refusal) => return exchange.refuse(refusal),
    };
    let file_id = exchange.head.path.trim_end_matches("/uploaded").rsplit('/').next().unwrap_or_default().to_owned();
    if !account.desk.lock().files.contains(&file_id) {
        return exchange.refuse(Refusal::not_found());
    }
    let download_url = format!("{}/download/{file_id}", exchange.fake.origin());
    exchange.json(&json!({
        "status": "success", "file_id": file_id, "download_url": download_url, "file_name": "upload.bin",
        "mime_type": "application/octet-stream",
    }))
}

/// `POST transcribe`: says how much it was given.
pub(crate) fn transcribe(exchange: Exchange) -> Reply {
    if let Err(refusal) = exchange.authenticate() {
        return exchange.refuse(refusal);
    }
    let text = format!("a recording of {} bytes", exchange.body.len());
    exchange.json(&json!({"text": text}))
}

/// Whatever else Codex asks below `codex`: repeats what it was asked.
pub(crate) fn control(exchange: Exchange) -> Reply {
    if let Err(refusal) = exchange.authenticate() {
        return exchange.refuse(refusal);
    }
    let heard = String::from_utf8_lossy(&exchange.body).into_owned();
    let answer = json!({"path": exchange.head.path, "query": exchange.head.query, "heard": heard});
    exchange.json(&answer)
}
