//! `codex-lb keys rotate-encryption`: moves everything that is sealed to a new encryption key.
//!
//! Servers may run meanwhile. The order is what makes it safe: the new key is where servers find it before the first
//! row needs it; the database is switched to it before the files are; and the old key stays until a person discards it.
//! Each step can be done again, so a rotation that died is finished by running the command once more.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use codex_lb_shared::clock;
use codex_lb_shared::config::Config;
use codex_lb_shared::ids::{AccountId, EgressProxyId};
use codex_lb_shared::secret::{EncryptionKey, KeyFiles, SealedEgressPassword, SealedTokens, Sealer};
use codex_lb_shared::store::{FingerprintCheck, ResealedPassword, SealedPasswordRow, SealedRow, Store};

use crate::{open, output};

/// Rows in one transaction.
const BATCH_ROWS: u32 = 100;
/// How often all rows are looked at before we give up: each time only those are left that somebody changed between
/// reading and writing.
const PASSES_MAX: u32 = 20;
const DOCS: &str = "docs/encryption-key.md";

/// Moves to a new key.
///
/// # Errors
/// With one sentence, when it cannot be done or would not be safe. What was done so far works, and can be finished.
pub(crate) async fn rotate(config: &Config, may_generate: bool) -> anyhow::Result<()> {
    let store = open::store(config).await?;
    let outcome = match &config.encryption_key {
        Some(text) => {
            let (first, others) = open::given_keys(text)?;
            rotate_given(&store, "CODEX_LB_ENCRYPTION_KEY", first, others).await
        }
        None => rotate_files(config, &store, may_generate).await,
    };
    store.close().await;
    outcome
}

/// Keys that somebody else keeps: we only move the database, to the last of them.
async fn rotate_given(
    store: &Store,
    place: &str,
    first: EncryptionKey,
    mut others: Vec<EncryptionKey>,
) -> anyhow::Result<()> {
    let Some(target) = others.pop() else {
        bail!("{place} holds one key; write the new key behind it, restart every server, and run this again ({DOCS})")
    };
    others.insert(0, first);
    reseal_all(store, &target, &others).await?;
    output::print_line(&format!(
        "Now make the new key the only one in {place}, restart every server, and forget the old key."
    ))
}

/// Keys in files of ours.
async fn rotate_files(config: &Config, store: &Store, may_generate: bool) -> anyhow::Result<()> {
    let files = KeyFiles::new(&config.encryption_key_file);
    let mut given = EncryptionKey::load(files.main_path())?;
    if given.len() > 1 {
        let first = given.remove(0);
        return rotate_given(store, &files.main_path().display().to_string(), first, given).await;
    }
    let (_lock, keys) = open_files(&files)?;
    let main = keys.main;
    let recorded = recorded_fingerprint(store, &main).await?;
    let target = match (keys.new, &keys.old) {
        (Some(_), Some(old)) if old.fingerprint() != main.fingerprint() => bail!(
            "the old key of the rotation before is still in {}; take {} away, run this with --discard-old, put it back, \
             and run this again",
            files.old_path().display(),
            files.new_path().display()
        ),
        (Some(new), _) => new,
        (None, Some(_)) if recorded == main.fingerprint() => bail!(
            "the last rotation is done but its old key is still in {}; once every server works, run this with \
             --discard-old, and then again",
            files.old_path().display()
        ),
        // The key file was replaced by hand and the old one kept: the database is what is left to move.
        (None, Some(_)) => main.clone(),
        (None, None) => {
            ensure!(recorded == main.fingerprint(), wrong_key(files.main_path()));
            ensure!(
                may_generate || open::database_url(config)?.sqlite_path().is_some(),
                "other machines may use this PostgreSQL database; put a new key into {} on each of them first, or say \
                 --generate if there are none ({DOCS})",
                files.new_path().display()
            );
            files.create_new().with_context(|| format!("if something else keeps the key file, see {DOCS}"))?
        }
    };
    let others: Vec<EncryptionKey> = [main.clone()].into_iter().chain(keys.old).collect();
    reseal_all(store, &target, &others).await?;
    if target.fingerprint() != main.fingerprint() {
        files.promote_new(&main)?;
    }
    output::print_line(&format!(
        "{} holds the new key. The old one is in {}: backups from before need it. Once every server works, run this \
         with --discard-old.",
        files.main_path().display(),
        files.old_path().display()
    ))
}

/// Removes the old key's file, once nothing needs it any more.
///
/// # Errors
/// With one sentence, when there is none or something still needs it.
pub(crate) async fn discard_old(config: &Config) -> anyhow::Result<()> {
    ensure!(config.encryption_key.is_none(), "the keys stand in CODEX_LB_ENCRYPTION_KEY; remove the old one there");
    let store = open::store(config).await?;
    let files = KeyFiles::new(&config.encryption_key_file);
    let (_lock, keys) = open_files(&files)?;
    let Some(old) = keys.old else { bail!("there is no old key in {}", files.old_path().display()) };
    let main = keys.main;
    ensure!(
        keys.new.is_none() && recorded_fingerprint(&store, &main).await? == main.fingerprint(),
        "a rotation is not finished; run this without --discard-old first"
    );
    reseal_all(&store, &main, &[old]).await?;
    store.close().await;
    files.discard_old()?;
    output::print_line("The old key is gone.")
}

/// What lies in the files.
struct Keys {
    main: EncryptionKey,
    new: Option<EncryptionKey>,
    old: Option<EncryptionKey>,
}

/// Reads the files while nobody else changes them.
fn open_files(files: &KeyFiles) -> anyhow::Result<(File, Keys)> {
    let main = files.main_path();
    let is_link = fs::symlink_metadata(main).is_ok_and(|metadata| metadata.is_symlink());
    ensure!(
        !is_link,
        "{} is a link to a file that something else keeps; write the new key behind the old one there, and run this \
         again ({DOCS})",
        main.display()
    );
    let lock = files.lock().with_context(|| format!("lock {}", main.display()))?;
    let Some(lock) = lock else { bail!("another rotation is running") };
    let single = |path: &Path, keys: Option<Vec<EncryptionKey>>| -> anyhow::Result<Option<EncryptionKey>> {
        let mut keys = keys.unwrap_or_default();
        ensure!(keys.len() <= 1, "{} holds more than one key", path.display());
        Ok(keys.pop())
    };
    let beside = |path: &Path| single(path, EncryptionKey::load_if_there(path)?);
    let keys = Keys {
        main: single(main, Some(EncryptionKey::load(main)?))?.context("read the encryption key")?,
        new: beside(files.new_path())?,
        old: beside(files.old_path())?,
    };
    Ok((lock, keys))
}

/// The fingerprint that the database names; `main`'s if it names none yet.
async fn recorded_fingerprint(store: &Store, main: &EncryptionKey) -> anyhow::Result<String> {
    match store.check_encryption_fingerprint(&main.fingerprint(), clock::now()).await? {
        FingerprintCheck::Recorded | FingerprintCheck::Matches => Ok(main.fingerprint()),
        FingerprintCheck::Differs => store.encryption_fingerprint().await?.context("read the key's fingerprint"),
    }
}

fn wrong_key(place: &Path) -> String {
    format!("{} is not the encryption key that this database was last used with", place.display())
}

/// Seals every row with `target` and makes the database refuse every other key.
async fn reseal_all(store: &Store, target: &EncryptionKey, others: &[EncryptionKey]) -> anyhow::Result<()> {
    let sealer = Sealer::with_older_keys(target, others);
    let recorded = recorded_fingerprint(store, target).await?;
    let is_known = [target].into_iter().chain(others).any(|key| key.fingerprint() == recorded);
    ensure!(is_known, "none of the keys here is the one that this database was last used with");
    // Before the switch, so that a row which does not open stops us while nothing is decided yet; after it, for what
    // servers sealed in between. The database takes nothing under the old key from the switch on.
    let mut resealed = reseal_until_done(store, &sealer).await?;
    if recorded != sealer.fingerprint() {
        store
            .switch_encryption_key(&recorded, &sealer.fingerprint(), &sealer.key_id(), clock::now())
            .await
            .context("another rotation has come between; run this again")?;
        resealed += reseal_until_done(store, &sealer).await?;
    }
    let Resealed { accounts, passwords } = resealed;
    output::print_line(&format!("{accounts} accounts were sealed anew with the key {}.", sealer.key_id()))?;
    if passwords > 0 {
        output::print_line(&format!("So were the passwords of {passwords} egress proxies."))?;
    }
    Ok(())
}

/// Rows that were sealed anew.
#[derive(Clone, Copy, Debug, Default)]
struct Resealed {
    accounts: u64,
    /// Of egress proxies.
    passwords: u64,
}

impl std::ops::AddAssign for Resealed {
    fn add_assign(&mut self, other: Self) {
        self.accounts += other.accounts;
        self.passwords += other.passwords;
    }
}

/// How many rows were sealed anew. When this returns, a look at all rows has found none under another key.
async fn reseal_until_done(store: &Store, sealer: &Sealer) -> anyhow::Result<Resealed> {
    let mut resealed = Resealed::default();
    for _ in 0..PASSES_MAX {
        let (accounts, passwords) = (reseal_accounts(store, sealer).await?, reseal_passwords(store, sealer).await?);
        resealed += Resealed { accounts: accounts.resealed, passwords: passwords.resealed };
        if accounts.found + passwords.found == 0 {
            return Ok(resealed);
        }
    }
    bail!("account tokens change faster than they can be sealed anew; run this again")
}

/// One look at all rows of a table.
#[derive(Default)]
struct Pass {
    /// Rows under another key.
    found: u64,
    /// Those of them that were sealed anew.
    resealed: u64,
}

async fn reseal_accounts(store: &Store, sealer: &Sealer) -> anyhow::Result<Pass> {
    let key_id = sealer.key_id();
    let mut pass = Pass::default();
    let mut after: Option<AccountId> = None;
    loop {
        let rows = store.sealed_rows(after, BATCH_ROWS).await?;
        let Some(last) = rows.last() else { return Ok(pass) };
        after = Some(last.id);
        let stale = rows.into_iter().filter(|row| !row.tokens.are_sealed_with(&key_id));
        let fresh: Vec<SealedRow> = stale.map(|row| seal_anew(sealer, row)).collect::<anyhow::Result<_>>()?;
        if !fresh.is_empty() {
            pass.found += fresh.len() as u64;
            pass.resealed += store.reseal(&fresh).await?;
        }
    }
}

fn seal_anew(sealer: &Sealer, row: SealedRow) -> anyhow::Result<SealedRow> {
    let id = row.id;
    let opened = row.tokens.open(sealer, id);
    let opened = opened.with_context(|| format!("open the tokens of account {id}; import or delete it first"))?;
    Ok(SealedRow { tokens: SealedTokens::seal(sealer, id, &opened)?, ..row })
}

async fn reseal_passwords(store: &Store, sealer: &Sealer) -> anyhow::Result<Pass> {
    let key_id = sealer.key_id();
    let mut pass = Pass::default();
    let mut after: Option<EgressProxyId> = None;
    loop {
        let rows = store.sealed_passwords(after, BATCH_ROWS).await?;
        let Some(last) = rows.last() else { return Ok(pass) };
        after = Some(last.id);
        let stale = rows.into_iter().filter(|row| !row.password.is_sealed_with(&key_id));
        let fresh: Vec<_> = stale.map(|row| seal_password_anew(sealer, row)).collect::<anyhow::Result<_>>()?;
        if !fresh.is_empty() {
            pass.found += fresh.len() as u64;
            pass.resealed += store.reseal_passwords(&fresh).await?;
        }
    }
}

fn seal_password_anew(sealer: &Sealer, before: SealedPasswordRow) -> anyhow::Result<ResealedPassword> {
    let id = before.id;
    let opened = before.password.open(sealer, id);
    let opened =
        opened.with_context(|| format!("open the password of egress proxy {id}; set it anew or delete it first"))?;
    Ok(ResealedPassword { after: SealedEgressPassword::seal(sealer, id, &opened)?, before })
}
