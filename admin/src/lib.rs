//! The control plane of codex-lb: an axum service.
