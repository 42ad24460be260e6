//! An account's tokens as they stand in its row: sealed, each for its own column and for this account only.

use std::fmt;

use secrecy::SecretString;

use crate::domain::auth_file::TokenSet;
use crate::ids::AccountId;

use super::{SealError, SealPurpose, Sealer, is_sealed_with};

/// A token set as the database holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedTokens {
    /// The sealed id token.
    pub id_token: String,
    /// The sealed access token.
    pub access_token: String,
    /// The sealed refresh token.
    pub refresh_token: String,
}

impl SealedTokens {
    /// Seals `tokens` for the row of `account_id`; they open for no other account.
    ///
    /// # Errors
    /// Only when the operating system gives no random bytes.
    pub fn seal(sealer: &Sealer, account_id: AccountId, tokens: &TokenSet) -> Result<Self, SealError> {
        let (owner, keys) = (account_id.to_string(), sealer.keys());
        let key = &keys.primary;
        Ok(Self {
            id_token: key.seal(SealPurpose::AccountIdToken, &owner, &tokens.id_token)?,
            access_token: key.seal(SealPurpose::AccountAccessToken, &owner, &tokens.access_token)?,
            refresh_token: key.seal(SealPurpose::AccountRefreshToken, &owner, &tokens.refresh_token)?,
        })
    }

    /// Whether all of them were sealed with the key of this id.
    pub fn are_sealed_with(&self, key_id: &str) -> bool {
        [&self.id_token, &self.access_token, &self.refresh_token].iter().all(|sealed| is_sealed_with(sealed, key_id))
    }

    /// Opens the access token alone: the only one that serving needs.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_access_token(&self, sealer: &Sealer, account_id: AccountId) -> Result<SecretString, SealError> {
        sealer.open(SealPurpose::AccountAccessToken, &account_id.to_string(), &self.access_token)
    }

    /// Opens what [`Self::seal`] made for the same account.
    ///
    /// # Errors
    /// When another key is needed, or when a text was altered or belongs to another account.
    pub fn open(&self, sealer: &Sealer, account_id: AccountId) -> Result<TokenSet, SealError> {
        let owner = account_id.to_string();
        Ok(TokenSet {
            id_token: sealer.open(SealPurpose::AccountIdToken, &owner, &self.id_token)?,
            access_token: sealer.open(SealPurpose::AccountAccessToken, &owner, &self.access_token)?,
            refresh_token: sealer.open(SealPurpose::AccountRefreshToken, &owner, &self.refresh_token)?,
        })
    }
}

impl fmt::Debug for SealedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedTokens(..)")
    }
}
