//! The data plane of codex-lb: a Pingora service that relays each request through an account of the pool.
//!
//! One downstream request is an *exchange* ([`exchange`], read it first); each try of it on one account is a *leg*, a
//! subrequest through the same [`gateway`]. The modules stand in the order of that story. This crate knows nothing of
//! the control plane.

mod gateway;

mod exchange;

mod route;

mod cors;

mod caller;

mod intake;

mod translate;

mod affinity;

mod file_pins;

mod thread_claims;

mod response_owners;

mod replay_store;

mod model_notes;

mod selection;

mod queue;

mod attempt;

mod leg;

mod usage_report;

mod account_effects;

mod relay;

mod settlement;

mod rejection;

mod trail;

mod health;

mod models;

mod pool_limits;

mod own_answers;

mod origin;

mod egress;

mod serve;

#[cfg(feature = "bench")]
pub mod bench;

pub use serve::{Listening, ServeError, serve};
