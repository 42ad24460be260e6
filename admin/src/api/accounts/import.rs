//! `POST /api/v1/accounts/import`: puts the logins of one or many `auth.json` files into the pool.
//!
//! One file that cannot be used does not stop the others, so each has a result of its own.

use std::error::Error as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use codex_lb_shared::account_import::{ImportError, import_login};
use codex_lb_shared::clock;
use codex_lb_shared::domain::account::Plan;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::state::SharedState;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::access::Admin;
use crate::api_error::ApiError;
use crate::effect;
use crate::extract::JsonBody;

/// Most files in one request.
const FILES_MAX: usize = 100;
/// What a result repeats of a file's name.
const NAME_CHARS_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Import {
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// For the result only.
    name: String,
    content: SecretString,
}

#[derive(Serialize)]
pub(crate) struct Answer {
    results: Vec<FileResult>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileResult {
    name: String,
    account: Option<Imported>,
    /// What is wrong with the file, and what to do.
    error: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Imported {
    id: AccountId,
    was_new: bool,
    kept_newer_tokens: bool,
    email: String,
    plan: Plan,
}

pub(crate) async fn import(
    _: Admin,
    State(state): State<Arc<SharedState>>,
    JsonBody(body): JsonBody<Import>,
) -> Result<Json<Answer>, ApiError> {
    if body.files.is_empty() || body.files.len() > FILES_MAX {
        return Err(ApiError::invalid_field("files", format!("Send between 1 and {FILES_MAX} files.")));
    }
    let mut results = Vec::with_capacity(body.files.len());
    for file in body.files {
        results.push(import_file(&state, file).await);
    }
    if results.iter().any(|result| result.account.is_some()) {
        effect::accounts_changed(&state).await?;
    }
    Ok(Json(Answer { results }))
}

async fn import_file(state: &SharedState, file: File) -> FileResult {
    let name = file.name.chars().take(NAME_CHARS_MAX).collect();
    match import_login(&state.store, &state.sealer, file.content.expose_secret(), clock::now()).await {
        Ok(account) => {
            let imported = Imported {
                id: account.id,
                was_new: account.was_new,
                kept_newer_tokens: account.kept_newer_tokens,
                email: account.email,
                plan: account.plan,
            };
            FileResult { name, account: Some(imported), error: None }
        }
        Err(error) => {
            tell_log(&error);
            FileResult { name, account: None, error: Some(format!("{error}.")) }
        }
    }
}

/// What the file lacks is its owner's business; what we lack is the operator's.
fn tell_log(error: &ImportError) {
    match error {
        ImportError::TooLong | ImportError::NotALogin(_) | ImportError::Incomplete(_) => {}
        ImportError::Seal(_) | ImportError::Store(_) => {
            warn!(error = %error, cause = error.source(), "a login could not be imported");
        }
    }
}
