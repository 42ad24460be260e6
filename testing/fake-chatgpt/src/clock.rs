//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
