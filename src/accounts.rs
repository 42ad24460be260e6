//! `codex-lb accounts …`

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use codex_lb_shared::account_import::{AUTH_FILE_BYTES_MAX, import_login};
use codex_lb_shared::clock;
use codex_lb_shared::config::Config;

use crate::{open, output};

/// Imports logins. Each file is told; one that fails does not stop the others.
///
/// # Errors
/// When a file could not be imported.
pub(crate) async fn import(config: &Config, files: &[PathBuf]) -> anyhow::Result<()> {
    let store = open::store(config).await?;
    let sealer = open::sealer(config, &store).await?;
    let mut failed = 0;
    for file in files {
        let imported = match read(file) {
            Ok(text) => import_login(&store, &sealer, &text, clock::now()).await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        match imported {
            Ok(account) => {
                let what = match (account.was_new, account.kept_newer_tokens) {
                    (true, _) => "added",
                    (false, false) => "updated",
                    (false, true) => "kept the newer tokens of",
                };
                let plan = account.plan.as_str();
                output::print_line(&format!(
                    "{}: {what} account {} ({}, {plan})",
                    file.display(),
                    account.id,
                    account.email
                ))?;
            }
            Err(error) => {
                failed += 1;
                output::complain(&format!("{}: {error:#}", file.display()));
            }
        }
    }
    store.close().await;
    if failed > 0 {
        bail!("{failed} of {} files could not be imported", files.len());
    }
    output::print_line("Only one program may refresh a login: log the other one out, or give it a login of its own.")
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    let length = fs::metadata(file).context("read the file")?.len();
    if length > AUTH_FILE_BYTES_MAX as u64 {
        bail!("the file has {length} bytes, which is no auth.json");
    }
    fs::read_to_string(file).context("read the file")
}

/// Lists the accounts.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn list(config: &Config) -> anyhow::Result<()> {
    let store = open::store(config).await?;
    let now = clock::now();
    let rows: Vec<Vec<String>> = store
        .list_accounts()
        .await?
        .into_iter()
        .map(|stored| {
            let account = stored.account;
            vec![
                account.id.to_string(),
                account.alias.unwrap_or(account.email),
                account.plan.as_str().to_owned(),
                account.status.state_at(now).as_str().to_owned(),
                account.status.reason.unwrap_or_default(),
            ]
        })
        .collect();
    store.close().await;
    output::print_table(&["ID", "ACCOUNT", "PLAN", "STATE", "REASON"], &rows)
}
