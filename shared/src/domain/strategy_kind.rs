//! The names of the selection strategies. What each does stands with the data plane's selection.

use serde::{Deserialize, Serialize};

/// How an account is chosen among the candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyKind {
    /// A weighted draw by the credits left in the long window.
    #[default]
    CapacityWeighted,
    /// The account that was chosen longest ago.
    RoundRobin,
}

impl StrategyKind {
    /// Every strategy, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::CapacityWeighted, Self::RoundRobin];
}
