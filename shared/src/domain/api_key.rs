//! Api keys: secrets that we issue, of which we keep only a hash.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::ids::ApiKeyId;

/// What every secret of ours starts with, so that scanners and people recognise one.
pub const SECRET_PREFIX: &str = "sk-clb-";

/// Characters of the secret that stay visible in lists, prefix included.
const VISIBLE_CHARS: usize = 12;

/// SHA-256 of an api key's secret: what the database stores and what look-ups use.
///
/// The secrets are 32 random bytes, so a plain hash cannot be guessed; a slow one would only cost every request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyHash([u8; 32]);

impl ApiKeyHash {
    /// Hashes a presented secret.
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    /// The hash as lower-case hex, as stored.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`Self::to_hex`] writes.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0_u8; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(..)")
    }
}

/// A secret that was just made. It is shown once; afterwards only its hash exists.
pub struct NewApiKeySecret {
    /// The secret itself.
    pub secret: SecretString,
    /// Its hash.
    pub hash: ApiKeyHash,
    /// Its first characters, for lists.
    pub visible_prefix: String,
}

impl NewApiKeySecret {
    /// Makes a secret from 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        let text = format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        Self {
            hash: ApiKeyHash::of(&text),
            visible_prefix: text[..VISIBLE_CHARS].to_owned(),
            secret: SecretString::from(text),
        }
    }
}

/// An api key as the store and the planes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Ours.
    pub id: ApiKeyId,
    /// An operator's name for it.
    pub name: String,
    /// Hash of its secret.
    pub hash: ApiKeyHash,
    /// First characters of its secret.
    pub visible_prefix: String,
    /// Switched off by an operator, for now.
    pub is_enabled: bool,
    /// Revoked for good.
    pub revoked_at: Option<Timestamp>,
    /// End of its life, if it has one.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When an exchange of it was last recorded.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key opens the door at `now`.
    pub fn is_usable_at(&self, now: Timestamp) -> bool {
        self.is_enabled && self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn a_new_secret_is_found_again_by_its_hash_and_shows_only_its_start() {
        let made = NewApiKeySecret::from_random([7; 32]);
        let secret = made.secret.expose_secret();
        assert!(secret.starts_with(SECRET_PREFIX));
        assert_eq!(secret.len(), SECRET_PREFIX.len() + 43);
        assert_eq!(ApiKeyHash::of(secret), made.hash);
        assert_eq!(ApiKeyHash::from_hex(&made.hash.to_hex()), Some(made.hash));
        assert_eq!(made.visible_prefix.len(), VISIBLE_CHARS);
    }

    #[test]
    fn a_key_is_usable_until_its_last_millisecond_unless_off_or_revoked() {
        let at = Timestamp::from_unix_ms;
        let key = ApiKey {
            id: ApiKeyId::from_u128(1),
            name: "ci".into(),
            hash: ApiKeyHash::of("x"),
            visible_prefix: String::new(),
            is_enabled: true,
            revoked_at: None,
            expires_at: Some(at(10)),
            created_at: at(0),
            last_used_at: None,
        };
        assert!(key.is_usable_at(at(9)));
        assert!(!key.is_usable_at(at(10)));
        assert!(!ApiKey { is_enabled: false, ..key.clone() }.is_usable_at(at(0)));
        assert!(!ApiKey { revoked_at: Some(at(1)), ..key.clone() }.is_usable_at(at(0)));
        assert!(ApiKey { expires_at: None, ..key }.is_usable_at(at(i64::MAX)));
    }
}
