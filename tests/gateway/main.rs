//! The real binary in front of the fake ChatGPT: what a client sees, what reaches upstream, and what is recorded.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a failed test shows what the gateway said")]
#![expect(clippy::disallowed_methods, reason = "tests read their own environment and wait in threads of their own")]

mod bad_input;
mod chat;
mod commands;
mod cors;
mod egress;
mod exchanges;
mod failover;
mod faults;
mod files;
mod images;
mod isolation;
mod leases;
mod leaving;
mod load;
mod model_limits;
mod owners;
mod pool_limits;
mod refusals;
mod replay;
mod replicas;
mod routes;
mod support;
mod tokens;
mod waiting;
mod wire;
