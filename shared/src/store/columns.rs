//! Reading single columns into the types of the domain. A value that does not fit names its table and column.

use std::fmt::Display;
use std::str::FromStr;

use crate::clock::Timestamp;

use super::StoreError;
use super::error::Cause;

/// Where a value stands, for the error about it.
#[derive(Clone, Copy)]
pub(super) struct Column(pub(super) &'static str, pub(super) &'static str);

impl Column {
    /// The value could not be read as `T` would write it.
    pub(super) fn corrupt(self) -> StoreError {
        StoreError::Corrupt { table: self.0, column: self.1, source: None }
    }

    /// Reads an identifier, or whatever else parses.
    pub(super) fn parse<T: FromStr<Err: Display>>(self, text: &str) -> Result<T, StoreError> {
        text.parse().map_err(|error: T::Err| StoreError::Corrupt {
            table: self.0,
            column: self.1,
            source: Some(Cause::new(error.to_string())),
        })
    }

    /// Reads an identifier that may be missing.
    pub(super) fn parse_some<T: FromStr<Err: Display>>(self, text: Option<&str>) -> Result<Option<T>, StoreError> {
        text.map(|text| self.parse(text)).transpose()
    }

    /// Reads a number that the domain keeps in fewer bits, or without a sign.
    pub(super) fn number<T: TryFrom<i64>>(self, value: i64) -> Result<T, StoreError> {
        T::try_from(value).map_err(|_| self.corrupt())
    }

    /// Reads such a number that may be missing.
    pub(super) fn number_some<T: TryFrom<i64>>(self, value: Option<i64>) -> Result<Option<T>, StoreError> {
        value.map(|value| self.number(value)).transpose()
    }
}

/// A moment, as every table keeps it.
pub(super) const fn moment(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

/// A moment that may be missing.
pub(super) fn moment_some(ms: Option<i64>) -> Option<Timestamp> {
    ms.map(Timestamp::from_unix_ms)
}
