//! One suite for the store, run whole on SQLite and on PostgreSQL.
//!
//! PostgreSQL is not optional: without it the tests fail and say how to start one (`testing/postgres.sh start`).

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[macro_use]
mod databases;
mod samples;

mod account_usage;
mod accounts;
mod api_keys;
mod connect;
mod egress_proxies;
mod encryption;
mod generations;
mod request_log;
mod schema;
mod settings;
mod sticky_sessions;
mod token_refresh;
mod token_refresh_claims;
mod usage_hourly;
