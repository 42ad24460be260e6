//! An egress proxy's password as it stands in its row: sealed, and for this egress proxy only.

use std::fmt;

use secrecy::SecretString;

use crate::ids::EgressProxyId;

use super::{SealError, SealPurpose, Sealer};

/// A password as the database holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedEgressPassword(String);

impl SealedEgressPassword {
    /// Seals `password` for the row of `id`; it opens for no other egress proxy.
    ///
    /// # Errors
    /// Only when the operating system gives no random bytes.
    pub fn seal(sealer: &Sealer, id: EgressProxyId, password: &SecretString) -> Result<Self, SealError> {
        sealer.seal(SealPurpose::EgressPassword, &id.to_string(), password).map(Self)
    }

    /// Opens what [`Self::seal`] made for the same egress proxy.
    ///
    /// # Errors
    /// When another key is needed, or when the text was altered or belongs to another egress proxy.
    pub fn open(&self, sealer: &Sealer, id: EgressProxyId) -> Result<SecretString, SealError> {
        sealer.open(SealPurpose::EgressPassword, &id.to_string(), &self.0)
    }

    /// Whether it was sealed with the key of this id.
    pub fn is_sealed_with(&self, key_id: &str) -> bool {
        super::is_sealed_with(&self.0, key_id)
    }

    /// What a row held.
    pub(crate) const fn from_stored(sealed: String) -> Self {
        Self(sealed)
    }

    /// What a row is to hold.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SealedEgressPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedEgressPassword(..)")
    }
}
