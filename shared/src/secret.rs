//! Secrets at rest: account tokens are sealed before they reach the database, and only a key of the installation opens
//! them.
//!
//! A sealed text is `v1.<key id>.<base64url of nonce and ciphertext>`, made with XChaCha20-Poly1305. It is bound to its
//! purpose and its owner, so it opens only in the row and column it was made for. Keys are never shown, in no form.
//!
//! An installation may know several keys while it moves from one to another. All of them open; which one seals is what
//! the database says (`docs/encryption-key.md`).

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, Generate as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

mod encryption_key;
mod key_files;
mod sealed_egress_password;
mod sealed_tokens;

pub use encryption_key::{EncryptionKey, EncryptionKeyError};
pub use key_files::KeyFiles;
pub use sealed_egress_password::SealedEgressPassword;
pub use sealed_tokens::SealedTokens;

const VERSION: &str = "v1";
const NONCE_BYTES: usize = 24;

/// What a sealed text is for; part of what it is bound to. A name that was ever written must keep its spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealPurpose {
    /// An account's id token.
    AccountIdToken,
    /// An account's access token.
    AccountAccessToken,
    /// An account's refresh token.
    AccountRefreshToken,
    /// An egress proxy's password.
    EgressPassword,
}

impl SealPurpose {
    /// Its name inside the seal and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccountIdToken => "account id token",
            Self::AccountAccessToken => "account access token",
            Self::AccountRefreshToken => "account refresh token",
            Self::EgressPassword => "egress proxy password",
        }
    }
}

/// Why a secret could not be sealed or opened. Never holds a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The configured key is another one.
    #[error(
        "the {} was sealed with key {sealed_with}, but the configured key is {configured}; configure the encryption key \
         this installation was started with", purpose.as_str()
    )]
    OtherKey {
        /// What it is.
        purpose: SealPurpose,
        /// Id of the key it needs.
        sealed_with: String,
        /// Id of the key we seal with.
        configured: String,
    },
    /// It is not a sealed text.
    #[error("the {} is not a sealed text", .0.as_str())]
    NotSealed(SealPurpose),
    /// The seal is broken: the text was altered, or moved from where it was made for.
    #[error("the seal of the {} is broken: it was altered, or belongs elsewhere", .0.as_str())]
    Broken(SealPurpose),
    /// The operating system gave no random bytes.
    #[error("seal the {}: the operating system gave no random bytes", .0.as_str())]
    NoRandomness(SealPurpose),
}

/// Seals secrets with the installation's key, and opens them with that key or another known one.
///
/// The keys may change while it is in use: it reads its files again when it meets a text whose key it does not know.
pub struct Sealer {
    keys: ArcSwap<Keys>,
    /// Where the keys come from, if they can be read again.
    files: Option<KeyFiles>,
    /// Held by whoever changes the keys.
    changing: Mutex<()>,
}

/// The keys at one moment.
struct Keys {
    primary: SealingKey,
    others: Vec<SealingKey>,
}

#[derive(Clone)]
struct SealingKey {
    id: String,
    fingerprint: String,
    cipher: XChaCha20Poly1305,
}

impl Sealer {
    /// A sealer with one key.
    pub fn new(key: &EncryptionKey) -> Self {
        Self::with_older_keys(key, &[])
    }

    /// A sealer that seals with `primary` and opens what `older` keys sealed, too.
    pub fn with_older_keys(primary: &EncryptionKey, older: &[EncryptionKey]) -> Self {
        Self { keys: ArcSwap::from_pointee(Keys::new(primary, older)), files: None, changing: Mutex::default() }
    }

    /// A sealer with the keys in `files`. It seals with the first until [`Self::seal_with`] says otherwise, and reads
    /// the files again when it needs a key that it does not know.
    ///
    /// # Errors
    /// When the files cannot be read or made, or hold no key.
    pub fn from_files(files: KeyFiles) -> Result<Self, EncryptionKeyError> {
        let (primary, others) = files.load_or_create()?;
        Ok(Self { files: Some(files), ..Self::with_older_keys(&primary, &others) })
    }

    /// Names the key that seals without telling it: 32 hex characters, the same wherever the same key is configured.
    pub fn fingerprint(&self) -> String {
        self.keys.load().primary.fingerprint.clone()
    }

    /// The id that texts sealed from now on begin with.
    pub fn key_id(&self) -> String {
        self.keys.load().primary.id.clone()
    }

    /// Seals with the key of this fingerprint from now on. Whether there is such a key; if not, nothing changes.
    pub fn seal_with(&self, fingerprint: &str) -> bool {
        let _changing = self.changing.lock();
        self.prefer(fingerprint) || (self.read_files_again() && self.prefer(fingerprint))
    }

    /// Seals `secret` for `owner`, the id of the row it will stand in. Every call gives another text.
    ///
    /// # Errors
    /// Only when the operating system gives no random bytes.
    pub fn seal(&self, purpose: SealPurpose, owner: &str, secret: &SecretString) -> Result<String, SealError> {
        self.keys.load().primary.seal(purpose, owner, secret)
    }

    /// Opens what [`Self::seal`] made for the same purpose and owner.
    ///
    /// # Errors
    /// When another key is needed, or when the text was altered or belongs elsewhere.
    pub fn open(&self, purpose: SealPurpose, owner: &str, sealed: &str) -> Result<SecretString, SealError> {
        let opened = self.keys.load().open(purpose, owner, sealed);
        if !matches!(opened, Err(SealError::OtherKey { .. })) {
            return opened;
        }
        let _changing = self.changing.lock();
        if self.read_files_again() { self.keys.load().open(purpose, owner, sealed) } else { opened }
    }

    /// The keys now: texts that belong together are sealed with the same ones.
    fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    fn prefer(&self, fingerprint: &str) -> bool {
        let keys = self.keys.load();
        if keys.primary.fingerprint == fingerprint {
            return true;
        }
        let Some(preferred) = keys.others.iter().find(|key| key.fingerprint == fingerprint) else { return false };
        let others = keys.all().filter(|key| key.id != preferred.id).cloned().collect();
        self.keys.store(Arc::new(Keys { primary: preferred.clone(), others }));
        true
    }

    /// Whether there are files and they could be read. What seals stays the same if the files still hold it.
    fn read_files_again(&self) -> bool {
        let Some(Ok((first, others))) = self.files.as_ref().map(KeyFiles::load) else { return false };
        let before = self.fingerprint();
        self.keys.store(Arc::new(Keys::new(&first, &others)));
        self.prefer(&before);
        true
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

impl Keys {
    fn new(primary: &EncryptionKey, others: &[EncryptionKey]) -> Self {
        Self { primary: SealingKey::new(primary), others: others.iter().map(SealingKey::new).collect() }
    }

    fn all(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    fn open(&self, purpose: SealPurpose, owner: &str, sealed: &str) -> Result<SecretString, SealError> {
        let mut parts = sealed.splitn(3, '.');
        let (Some(VERSION), Some(key_id), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SealError::NotSealed(purpose));
        };
        let key = self.all().find(|key| key.id == key_id).ok_or_else(|| SealError::OtherKey {
            purpose,
            // Shown to people, so only if it can be a key id.
            sealed_with: key_id.chars().filter(char::is_ascii_hexdigit).take(16).collect(),
            configured: self.primary.id.clone(),
        })?;
        key.open(purpose, owner, body)
    }
}

impl SealingKey {
    fn new(key: &EncryptionKey) -> Self {
        Self {
            id: hex_of_hash::<8>("codex-lb encryption key id", key),
            fingerprint: key.fingerprint(),
            cipher: XChaCha20Poly1305::new(key.bytes().into()),
        }
    }

    fn seal(&self, purpose: SealPurpose, owner: &str, secret: &SecretString) -> Result<String, SealError> {
        let nonce = XNonce::try_generate().map_err(|_| SealError::NoRandomness(purpose))?;
        let bound_to = bound_to(purpose, owner);
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: &bound_to };
        // The cipher itself fails only beyond 256 GiB.
        let ciphertext = self.cipher.encrypt(&nonce, payload).map_err(|_| SealError::Broken(purpose))?;
        let body = URL_SAFE_NO_PAD.encode([nonce.as_slice(), &ciphertext].concat());
        Ok(format!("{VERSION}.{}.{body}", self.id))
    }

    /// `body` is what stands behind the key id.
    fn open(&self, purpose: SealPurpose, owner: &str, body: &str) -> Result<SecretString, SealError> {
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| SealError::NotSealed(purpose))?;
        let (nonce, ciphertext) = body.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::NotSealed(purpose))?;
        let bound_to = bound_to(purpose, owner);
        let payload = Payload { msg: ciphertext, aad: &bound_to };
        let plain = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Broken(purpose))?;
        let plain = Zeroizing::new(plain);
        let text = std::str::from_utf8(&plain).map_err(|_| SealError::Broken(purpose))?;
        Ok(SecretString::from(text))
    }
}

/// Whether a sealed text names this key.
fn is_sealed_with(sealed: &str, key_id: &str) -> bool {
    let mut parts = sealed.splitn(3, '.');
    parts.next() == Some(VERSION) && parts.next() == Some(key_id) && parts.next().is_some()
}

/// What the seal covers beside the secret. Purposes hold no NUL, so no two pairs read the same.
fn bound_to(purpose: SealPurpose, owner: &str) -> Vec<u8> {
    [b"codex-lb", purpose.as_str().as_bytes(), owner.as_bytes()].join(&0)
}

/// The first `N` bytes of a hash that reveals nothing of the key and is used for nothing else than `label` says.
fn hex_of_hash<const N: usize>(label: &str, key: &EncryptionKey) -> String {
    let digest = Sha256::new().chain_update(label).chain_update([0]).chain_update(key.bytes()).finalize();
    digest.iter().take(N).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: SealPurpose = SealPurpose::AccountAccessToken;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&EncryptionKey::from_bytes([byte; 32]))
    }

    fn secret() -> SecretString {
        SecretString::from("eyJ.token")
    }

    #[test]
    fn what_was_sealed_opens_again_and_never_looks_the_same_twice() {
        let sealer = sealer(1);
        let (first, second) =
            (sealer.seal(ACCESS, "a", &secret()).unwrap(), sealer.seal(ACCESS, "a", &secret()).unwrap());
        assert_ne!(first, second);
        assert!(first.starts_with("v1.") && !first.contains("token"));
        for sealed in [first, second] {
            assert_eq!(sealer.open(ACCESS, "a", &sealed).unwrap().expose_secret(), "eyJ.token");
        }
    }

    #[test]
    fn a_sealed_text_opens_only_where_it_was_made_for() {
        let sealer = sealer(1);
        let sealed = sealer.seal(ACCESS, "a", &secret()).unwrap();
        for (purpose, owner) in [(ACCESS, "b"), (ACCESS, ""), (SealPurpose::AccountIdToken, "a")] {
            assert_eq!(sealer.open(purpose, owner, &sealed).unwrap_err(), SealError::Broken(purpose));
        }
    }

    #[test]
    fn a_text_that_was_altered_does_not_open() {
        let sealer = sealer(1);
        let sealed = sealer.seal(ACCESS, "a", &secret()).unwrap();
        let body = sealed.rfind('.').unwrap() + 1;
        for at in [body, body + 20, body + 40] {
            let mut altered = sealed.clone();
            let other = if &sealed[at..=at] == "A" { "B" } else { "A" };
            altered.replace_range(at..=at, other);
            assert_eq!(sealer.open(ACCESS, "a", &altered).unwrap_err(), SealError::Broken(ACCESS));
        }
        for nonsense in ["", "eyJ.a.b", "v1.x", "v2.0011.AA", &sealed[..body], &format!("{sealed}=")] {
            assert_eq!(sealer.open(ACCESS, "a", nonsense).unwrap_err(), SealError::NotSealed(ACCESS), "{nonsense}");
        }
    }

    #[test]
    fn another_key_is_named_in_the_error_and_an_older_key_still_opens() {
        let (old, new) = (EncryptionKey::from_bytes([1; 32]), EncryptionKey::from_bytes([2; 32]));
        let sealed = Sealer::new(&old).seal(ACCESS, "a", &secret()).unwrap();
        let error = Sealer::new(&new).open(ACCESS, "a", &sealed).unwrap_err().to_string();
        let (old_id, new_id) = (Sealer::new(&old).key_id(), Sealer::new(&new).key_id());
        assert!(error.contains(&format!("sealed with key {old_id}, but the configured key is {new_id}")), "{error}");

        let both = Sealer::with_older_keys(&new, &[old]);
        assert_eq!(both.open(ACCESS, "a", &sealed).unwrap().expose_secret(), "eyJ.token");
        assert!(both.seal(ACCESS, "a", &secret()).unwrap().contains(&new_id));
    }

    #[test]
    fn the_fingerprint_tells_keys_apart_and_nothing_shows_a_key() {
        assert_eq!(sealer(1).fingerprint(), sealer(1).fingerprint());
        assert_ne!(sealer(1).fingerprint(), sealer(2).fingerprint());
        assert_eq!(sealer(1).fingerprint().len(), 32);
        assert!(!sealer(1).fingerprint().starts_with(&sealer(1).key_id()));
        let shown = format!("{:?} {:?}", sealer(0x41), EncryptionKey::from_bytes([0x41; 32]));
        assert!(!shown.contains("65") && !shown.contains("AAAA") && !shown.contains("4141"), "{shown}");
    }

    /// The format is what databases hold: this text must open for ever.
    #[test]
    fn a_text_sealed_by_the_first_version_opens() {
        let opened = sealer(7).open(ACCESS, "01ARZ3NDEKTSV4RRFFQ69G5FAV", FIRST_VERSION_TEXT).unwrap();
        assert_eq!(opened.expose_secret(), "eyJ.token");
    }

    const FIRST_VERSION_TEXT: &str =
        "v1.c0db54c15d0c0a89.U3WRVxhrdWbrMh1Xtofo3OOy_8os2l5YKgKBzlYHH2f6FT9lAiBke0m9Ar1WnBLWKg";
}
