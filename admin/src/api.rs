//! The management API: one file per endpoint, one folder per resource. Times are UTC milliseconds, names camelCase.
//!
//! Every endpoint that changes something makes it effective in this process before it answers (see [`crate::effect`]).

pub(crate) mod accounts;
pub(crate) mod api_keys;
pub(crate) mod egress_proxies;
pub(crate) mod overview;
pub(crate) mod requests;
pub(crate) mod settings;
