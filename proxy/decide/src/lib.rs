//! The pure decisions of the data plane: which account serves ([`selection`]) and what an upstream reply means
//! ([`verdict`]).
//!
//! No Pingora, no I/O, no clock and no lock in here: time and dice are arguments, so that tables and properties can
//! test every rule, and mutants can be killed, within minutes.

pub mod retry_hint;
pub mod selection;
pub mod verdict;
