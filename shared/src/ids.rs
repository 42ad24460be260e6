//! Identifiers that we make ourselves: opaque, sortable by creation time, and not interchangeable.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Ulid);

        impl $name {
            /// Makes a new, unique identifier.
            pub fn generate() -> Self {
                Self(Ulid::generate())
            }

            /// The identifier as 128 bits, for hashing and for tests.
            pub const fn as_u128(self) -> u128 {
                self.0.0
            }

            /// The identifier with these 128 bits.
            pub const fn from_u128(bits: u128) -> Self {
                Self(Ulid(bits))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Ulid::from_string(text).map(Self).map_err(|_| InvalidId { expected: stringify!($name) })
            }
        }
    };
}

id!(
    /// One pooled account. Ours, not ChatGPT's: a person may log in again and keep it.
    AccountId
);
id!(
    /// One api key that we issued. Not the secret.
    ApiKeyId
);
id!(
    /// One egress proxy.
    EgressProxyId
);
id!(
    /// One downstream request, from its arrival until its answer ended; also the `x-request-id` we send.
    ExchangeId
);

/// A text that is not an identifier of the expected sort.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {expected}: expected 26 characters of Crockford base32")]
pub struct InvalidId {
    expected: &'static str,
}
