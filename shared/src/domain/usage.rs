//! Tokens an exchange used, as upstream's terminal event tells them.

use serde::{Deserialize, Serialize};

/// Token counts of one answer. `cached` is a part of `input`, `reasoning` a part of `output`.
///
/// Source of the meaning: the `usage` object of a Responses terminal event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenUsage {
    /// All input tokens, cached ones included.
    pub input: u64,
    /// Input tokens that upstream read from its prompt cache.
    pub cached_input: u64,
    /// All output tokens, reasoning included.
    pub output: u64,
    /// Output tokens spent on reasoning.
    pub reasoning: u64,
}

impl TokenUsage {
    /// Input plus output.
    pub const fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The sum, kind by kind.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached_input: self.cached_input.saturating_add(other.cached_input),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }
}

/// How sure we are of what an exchange used. Unknown is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeteredUsage {
    /// The terminal event told.
    Exact(TokenUsage),
    /// The answer was cut; at least this much was used.
    AtLeast(TokenUsage),
    /// No model was reached.
    None,
}

impl MeteredUsage {
    /// The counts to record, or `None` when no model was reached.
    pub const fn tokens(self) -> Option<TokenUsage> {
        match self {
            Self::Exact(tokens) | Self::AtLeast(tokens) => Some(tokens),
            Self::None => None,
        }
    }

    /// The same with what is known to have been used besides.
    #[must_use]
    pub fn plus(self, told: TokenUsage) -> Self {
        match self {
            Self::Exact(tokens) => Self::Exact(tokens.plus(told)),
            Self::AtLeast(tokens) => Self::AtLeast(tokens.plus(told)),
            Self::None if told == TokenUsage::default() => Self::None,
            Self::None => Self::Exact(told),
        }
    }

    /// Whether the counts are a lower bound instead of upstream's own word.
    pub const fn is_estimated(self) -> bool {
        matches!(self, Self::AtLeast(_))
    }
}
