//! The names of the selection strategies. What each does stands with the data plane's selection.

use serde::{Deserialize, Serialize};

/// How an account is chosen among the candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyKind {
    /// A weighted draw by the credits left in the long window.
    #[default]
    CapacityWeighted,
    /// A weighted draw among the best five by the credits that must be spent per second until the long window resets.
    RelativeAvailability,
    /// The account whose long window, then whose short window, is used least.
    UsageWeighted,
    /// The account that was chosen longest ago.
    RoundRobin,
    /// The account whose short window is used most.
    FillFirst,
    /// The smallest plan first, in a fixed order.
    SequentialDrain,
    /// The account whose long window resets soonest.
    ResetDrain,
    /// One configured account, or an error.
    SingleAccount,
}

impl StrategyKind {
    /// Every strategy, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::CapacityWeighted,
        Self::RelativeAvailability,
        Self::UsageWeighted,
        Self::RoundRobin,
        Self::FillFirst,
        Self::SequentialDrain,
        Self::ResetDrain,
        Self::SingleAccount,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_the_documentation_spells_it() {
        let names = [
            "capacity_weighted",
            "relative_availability",
            "usage_weighted",
            "round_robin",
            "fill_first",
            "sequential_drain",
            "reset_drain",
            "single_account",
        ];
        for (kind, name) in StrategyKind::ALL.into_iter().zip(names) {
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
            assert_eq!(serde_json::from_value::<StrategyKind>(name.into()).unwrap(), kind);
        }
    }
}
