//! What both planes of codex-lb agree on: the domain, the database, the configuration, the secrets and the pool.
//!
//! Nothing enters this crate until the data plane and the control plane both need it; `domain` and `store` are the
//! exceptions, because one is the language of the product and the other is its only SQL.
//!
//! Inside the crate dependencies run one way: everything may use [`domain`]; only [`store`] names a database.

pub mod domain;

pub mod clock;
pub mod ids;
pub mod kind;

pub mod config;
pub mod egress;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod upstream_api;

pub mod account_import;
pub mod account_tokens;
pub mod caches;
pub mod changes;
pub mod hop;
pub mod pool;
mod reload_order;
pub mod state;
