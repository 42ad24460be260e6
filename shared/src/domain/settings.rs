//! Live settings: what an operator changes while the gateway runs. What needs a restart is configuration instead.
//!
//! Each group is one JSON document in the database with a version; a missing group or field means its default. A field
//! that is not known is passed over: a newer replica may have written it, and an older one must still start.

use serde::{Deserialize, Serialize};

use crate::domain::strategy_kind::StrategyKind;

/// All groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How accounts are chosen.
    pub routing: RoutingSettings,
    /// Who may call.
    pub access: AccessSettings,
}

/// Group `routing`: how accounts are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoutingSettings {
    /// The selection strategy.
    pub strategy: StrategyKind,
}

/// Group `access`: who may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AccessSettings {
    /// Whether every caller must present an api key.
    pub api_key_auth: bool,
    /// Who may call without one while `api_key_auth` is off.
    pub keyless_access: KeylessAccess,
}

/// Which peers may call without an api key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeylessAccess {
    /// This machine only.
    Loopback,
    /// This machine and private networks (RFC 1918, unique local, link-local).
    #[default]
    Private,
    /// Anybody who can connect.
    Any,
    /// Nobody.
    None,
}
