//! Opens what every command needs: the data directory, the database and the encryption key.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use codex_lb_shared::clock;
use codex_lb_shared::config::Config;
use codex_lb_shared::secret::{EncryptionKey, KeyFiles, Sealer};
use codex_lb_shared::store::{DatabaseUrl, FingerprintCheck, Store};
use secrecy::{ExposeSecret as _, SecretString};

/// The migrated database.
///
/// # Errors
/// With one sentence, when the directory or the database cannot be used.
pub(crate) async fn store(config: &Config) -> anyhow::Result<Store> {
    data_dir(config)?;
    let url = database_url(config)?;
    let store = Store::connect(&url).await.with_context(|| format!("open the database {url}"))?;
    store.migrate().await.with_context(|| format!("bring the database {url} up to date"))?;
    Ok(store)
}

/// The sealer of account tokens. One of its keys must be the one that the database names, and that one seals: another
/// would make the pool look empty.
///
/// # Errors
/// With one sentence, when there is no usable key or it is another one.
pub(crate) async fn sealer(config: &Config, store: &Store) -> anyhow::Result<Arc<Sealer>> {
    let sealer = match &config.encryption_key {
        Some(text) => {
            let (first, others) = given_keys(text)?;
            Sealer::with_older_keys(&first, &others)
        }
        None => Sealer::from_files(KeyFiles::new(&config.encryption_key_file))?,
    };
    match store.check_encryption_fingerprint(&sealer.fingerprint(), clock::now()).await? {
        FingerprintCheck::Recorded | FingerprintCheck::Matches => return Ok(Arc::new(sealer)),
        FingerprintCheck::Differs => {}
    }
    let recorded = store.encryption_fingerprint().await?.unwrap_or_default();
    if sealer.seal_with(&recorded) {
        return Ok(Arc::new(sealer));
    }
    bail!(
        "the encryption key is not the one that this database was last used with; restore the original key \
         (CODEX_LB_ENCRYPTION_KEY, or the file {})",
        config.encryption_key_file.display()
    )
}

/// The keys in CODEX_LB_ENCRYPTION_KEY: usually one, two while an installation moves to another.
///
/// # Errors
/// When it holds no key, or something else besides.
pub(crate) fn given_keys(text: &SecretString) -> anyhow::Result<(EncryptionKey, Vec<EncryptionKey>)> {
    let mut keys = EncryptionKey::parse_all(text.expose_secret()).context("read CODEX_LB_ENCRYPTION_KEY")?;
    let first = keys.remove(0);
    Ok((first, keys))
}

/// Where the database is.
///
/// # Errors
/// When the configured url is none.
pub(crate) fn database_url(config: &Config) -> anyhow::Result<DatabaseUrl> {
    match &config.database_url {
        Some(url) => url.expose_secret().parse().context("read database_url"),
        None => Ok(DatabaseUrl::sqlite_file(config.default_database_file())),
    }
}

fn data_dir(config: &Config) -> anyhow::Result<()> {
    let dir = &config.data_dir;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("make the data directory {}", dir.display()))?;
    fs::read_dir(dir).with_context(|| format!("read the data directory {}", dir.display()))?;
    Ok(())
}
