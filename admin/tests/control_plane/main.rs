//! The control plane as its callers see it: the real router over a real database, and real sockets where they matter.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

mod access;
mod accounts;
mod api_keys;
mod egress_proxies;
mod listening;
mod pages;
mod settings;
mod sync_models;
mod usage;
