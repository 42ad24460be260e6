//! Identifiers in the shapes that the backend uses, unique within a process and different between processes.
//!
//! They are no secrets: whoever knows the counter can guess them.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock;

static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(clock::unix_now()));
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A number that no earlier call of this process returned.
pub(crate) fn unique() -> u64 {
    // SplitMix64 is a bijection, so distinct counters give distinct numbers.
    let mut x = SEED.wrapping_add(COUNTER.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// `resp_`, `msg_`, `rs_` … followed by 48 hexadecimal digits.
pub(crate) fn item_id(prefix: &str) -> String {
    format!("{prefix}_{:016x}{:016x}{:016x}", unique(), unique(), unique())
}

/// `call_` and 24 letters and digits.
pub(crate) fn call_id() -> String {
    format!("call_{}", alphanumeric(24))
}

/// A version 4 UUID.
pub(crate) fn uuid() -> String {
    let (high, low) = (unique(), unique());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff
    )
}

/// Letters and digits.
pub(crate) fn alphanumeric(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut out = String::with_capacity(length);
    let mut bits = 0;
    for index in 0..length {
        if index % 10 == 0 {
            bits = unique();
        }
        out.push(char::from(ALPHABET[(bits % 62) as usize]));
        bits /= 62;
    }
    out
}
