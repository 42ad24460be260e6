//! `codex-lb keys …`

use anyhow::{Context as _, bail};
use codex_lb_shared::clock::{self, Timestamp};
use codex_lb_shared::config::Config;
use codex_lb_shared::domain::api_key::{ApiKey, NewApiKeySecret};
use codex_lb_shared::ids::ApiKeyId;
use secrecy::ExposeSecret as _;

use crate::{open, output};

/// Makes a key. Its secret goes to standard output alone, so that a script can take it.
///
/// # Errors
/// When the time is no time, or the database does not answer.
pub(crate) async fn create(config: &Config, name: &str, expires_at: Option<&str>) -> anyhow::Result<()> {
    if name.trim().is_empty() {
        bail!("a key needs a name");
    }
    let expires_at = expires_at.map(parse_time).transpose()?;
    let made = NewApiKeySecret::from_random(rand::random());
    let key = ApiKey {
        id: ApiKeyId::generate(),
        name: name.to_owned(),
        hash: made.hash,
        visible_prefix: made.visible_prefix,
        is_enabled: true,
        revoked_at: None,
        expires_at,
        created_at: clock::now(),
        last_used_at: None,
    };
    let store = open::store(config).await?;
    store.insert_api_key(&key).await?;
    store.close().await;
    output::complain(&format!("key {} made; this is the only time its secret is shown:", key.id));
    output::print_line(made.secret.expose_secret())
}

fn parse_time(text: &str) -> anyhow::Result<Timestamp> {
    let time: jiff::Timestamp =
        text.parse().with_context(|| format!("'{text}' is no time; write it like 2027-01-31T00:00:00Z"))?;
    Ok(Timestamp::from_unix_ms(time.as_millisecond()))
}

/// Lists the keys.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn list(config: &Config) -> anyhow::Result<()> {
    let store = open::store(config).await?;
    let now = clock::now();
    let shown = |at: Option<Timestamp>| {
        let time = at.and_then(|at| jiff::Timestamp::from_millisecond(at.as_unix_ms()).ok());
        time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"))
    };
    let rows: Vec<Vec<String>> = store
        .list_api_keys()
        .await?
        .into_iter()
        .map(|key| {
            let state = match (key.revoked_at, key.is_usable_at(now), key.is_enabled) {
                (Some(_), _, _) => "revoked",
                (None, true, _) => "active",
                (None, false, false) => "disabled",
                (None, false, true) => "expired",
            };
            vec![
                key.id.to_string(),
                key.name.clone(),
                format!("{}…", key.visible_prefix),
                state.to_owned(),
                shown(key.expires_at),
                shown(key.last_used_at),
            ]
        })
        .collect();
    store.close().await;
    output::print_table(&["ID", "NAME", "SECRET", "STATE", "EXPIRES", "LAST USED"], &rows)
}

/// Revokes a key for good.
///
/// # Errors
/// When there is no such key, or the database does not answer.
pub(crate) async fn revoke(config: &Config, id: &str) -> anyhow::Result<()> {
    let key_id: ApiKeyId = id.parse().with_context(|| format!("'{id}' is no key's id"))?;
    let store = open::store(config).await?;
    let is_revoked = store.revoke_api_key(key_id, clock::now()).await?;
    let is_known = is_revoked || store.find_api_key(key_id).await?.is_some();
    store.close().await;
    match (is_revoked, is_known) {
        (true, _) => output::print_line(&format!("key {key_id} is revoked; running servers refuse it within 2 s")),
        (false, true) => output::print_line(&format!("key {key_id} was revoked before")),
        (false, false) => bail!("there is no key {key_id}; `codex-lb keys list` shows them"),
    }
}
