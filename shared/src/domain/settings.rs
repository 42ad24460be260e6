//! Live settings: what an operator changes while the gateway runs. What needs a restart is configuration instead.
//!
//! Each group is one JSON document in the database with a version; a missing group or field means its default. A field
//! that is not known is passed over: a newer replica may have written it, and an older one must still start.

use serde::{Deserialize, Serialize};

use crate::domain::strategy_kind::StrategyKind;
use crate::ids::AccountId;

/// All groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How accounts are chosen.
    pub routing: RoutingSettings,
    /// Who may call.
    pub access: AccessSettings,
}

/// Group `routing`: how accounts are chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoutingSettings {
    /// The selection strategy.
    pub strategy: StrategyKind,
    /// The account that `single_account` uses. Without one that strategy serves nobody.
    pub single_account: Option<AccountId>,
    /// Whether `capacity_weighted`, `usage_weighted` and `fill_first` use only the accounts whose long window resets on
    /// the earliest day (UTC) that any candidate's does.
    pub prefer_earlier_reset: bool,
    /// Whether a conversation stays with its account. Off, every request is chosen anew and upstream's prompt caches
    /// stay cold; owners of ids that only one account knows are kept all the same.
    pub sticky_sessions: bool,
    /// A conversation leaves an account whose short window is used by more than this, if a better account is there.
    /// 1 to 100; 100 means never.
    pub sticky_leave_above_percent: u8,
    /// How long a conversation waits for a free slot on its own account before it uses another one once. 0 to 120,000.
    pub sticky_wait_ms: u32,
    /// Exchanges at once on an account that has no cap of its own. 1 to 1,000.
    pub account_concurrency_cap: u32,
    /// How long an exchange waits while all accounts are at their caps before it is rejected. 0 to 600,000.
    pub queue_timeout_ms: u32,
}

impl Default for RoutingSettings {
    fn default() -> Self {
        Self {
            strategy: StrategyKind::default(),
            single_account: None,
            prefer_earlier_reset: false,
            sticky_sessions: true,
            sticky_leave_above_percent: 95,
            sticky_wait_ms: 10_000,
            account_concurrency_cap: 8,
            queue_timeout_ms: 30_000,
        }
    }
}

impl RoutingSettings {
    /// The first field that is out of its range, as JSON spells it. Whoever saves a change refuses such a one.
    pub fn out_of_range(&self) -> Option<&'static str> {
        let checks = [
            ("stickyLeaveAbovePercent", (1..=100).contains(&self.sticky_leave_above_percent)),
            ("stickyWaitMs", self.sticky_wait_ms <= 120_000),
            ("accountConcurrencyCap", (1..=1_000).contains(&self.account_concurrency_cap)),
            ("queueTimeoutMs", self.queue_timeout_ms <= 600_000),
        ];
        checks.into_iter().find(|(_, is_in_range)| !is_in_range).map(|(field, _)| field)
    }
}

/// Group `access`: who may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AccessSettings {
    /// Whether every caller must present an api key.
    pub api_key_auth: bool,
    /// Who may call without one while `api_key_auth` is off.
    pub keyless_access: KeylessAccess,
    /// Whether callers with an api key are told nothing of how much the pool has left.
    pub hide_pool_quota: bool,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_routing_field_means_its_default() {
        let stored: RoutingSettings = serde_json::from_value(json!({"strategy": "round_robin"})).unwrap();
        assert_eq!(stored, RoutingSettings { strategy: StrategyKind::RoundRobin, ..RoutingSettings::default() });
        let written = json!({
            "strategy": "capacity_weighted", "singleAccount": null, "preferEarlierReset": false, "stickySessions": true,
            "stickyLeaveAbovePercent": 95, "stickyWaitMs": 10_000, "accountConcurrencyCap": 8, "queueTimeoutMs": 30_000,
        });
        assert_eq!(serde_json::to_value(RoutingSettings::default()).unwrap(), written);
    }

    #[test]
    fn a_routing_field_out_of_its_range_is_named() {
        let with = |field: &str, value: u32| {
            serde_json::from_value::<RoutingSettings>(json!({ field: value })).unwrap().out_of_range()
        };
        let ranges = [
            ("stickyLeaveAbovePercent", 1, 100),
            ("stickyWaitMs", 0, 120_000),
            ("accountConcurrencyCap", 1, 1_000),
            ("queueTimeoutMs", 0, 600_000),
        ];
        for (field, least, most) in ranges {
            assert_eq!((with(field, least), with(field, most)), (None, None), "{field}");
            assert_eq!(with(field, most + 1), Some(field));
            if least > 0 {
                assert_eq!(with(field, least - 1), Some(field));
            }
        }
        assert_eq!(RoutingSettings::default().out_of_range(), None);
    }
}
