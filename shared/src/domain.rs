//! The language of the product: types, arithmetic and decisions without I/O, clocks or `async`.
//!
//! Nothing in here may read the time, a file, the network or a database; time is always an argument.

pub mod account;
pub mod api_key;
pub mod auth_file;
pub mod egress_proxy;
pub mod exchange_record;
pub mod health;
pub mod models;
pub mod pricing;
pub mod settings;
pub mod strategy_kind;
pub mod upstream_window;
pub mod usage;
