//! The data plane of codex-lb: a Pingora service.
