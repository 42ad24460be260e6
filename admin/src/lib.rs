//! The control plane of codex-lb: the management API, the first dashboard page, health, metrics and the jobs.
//!
//! It never touches an exchange: what it writes reaches the data plane through `codex_lb_shared::state`. No answer of it
//! but one holds a secret: the one to the creation of an api key.

mod serve;

pub mod access;
pub mod router;

mod api;
mod api_error;
mod dashboard;
mod effect;
mod extract;
mod health;
mod metrics;
mod middleware;

mod connections;
mod hop_socket;
mod jobs;

pub use serve::{Listening, ServeError, serve};
