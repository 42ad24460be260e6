//! The real binary in front of the fake ChatGPT: what a client sees, what reaches upstream, and what is recorded.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod commands;
mod exchanges;
mod failover;
mod load;
mod refusals;
mod support;
