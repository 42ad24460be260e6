//! What tokens would cost at list prices. Integers throughout: nano-dollars per token in, micro-dollars out.
//!
//! Subscriptions are not billed by this; it is an estimate that makes teams and keys comparable. A model without a
//! known price has no cost, rather than a wrong one. The table is `pricing.json` beside this file.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::domain::usage::TokenUsage;

/// List prices of all known models.
#[derive(Debug)]
pub struct PriceTable {
    aliases: HashMap<String, String>,
    long_context_input_tokens: u64,
    models: HashMap<String, ModelPrices>,
}

#[derive(Debug, Clone, Copy)]
struct ModelPrices {
    base: TokenPrices,
    priority: Option<TokenPrices>,
    flex: Option<TokenPrices>,
    long_context: Option<TokenPrices>,
}

/// Nano-dollars per token, which is a thousandth of dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TokenPrices {
    input: u64,
    cached_input: u64,
    output: u64,
}

static LIST_PRICES: LazyLock<PriceTable> = LazyLock::new(|| {
    // The file is part of the program and a test reads it; without it nothing would be priced, which is visible.
    PriceTable::from_json(include_str!("pricing.json")).unwrap_or_else(|_| PriceTable {
        aliases: HashMap::new(),
        long_context_input_tokens: u64::MAX,
        models: HashMap::new(),
    })
});

impl PriceTable {
    /// The list prices built into the program.
    pub fn list_prices() -> &'static Self {
        &LIST_PRICES
    }

    /// Reads a table in the form of `pricing.json`: dollars per million tokens.
    ///
    /// # Errors
    /// When the text is not such a table.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let file: PriceFile = serde_json::from_str(text)?;
        let models = file.models.into_iter().map(|(slug, prices)| (slug, prices.into())).collect();
        Ok(Self { aliases: file.aliases, long_context_input_tokens: file.long_context_input_tokens, models })
    }

    /// What `usage` of `model` cost, in micro-dollars, rounded half up; `None` for a model without a price.
    ///
    /// The model is looked up by exact slug, then alias, then the longest slug that is a prefix followed by `-`
    /// (dated snapshots). A missing tier falls back to the base prices; with long context, priority and flex scale
    /// the long-context prices by their own ratio to base.
    pub fn cost_micros(&self, model: &str, tier: Option<&str>, usage: TokenUsage) -> Option<i64> {
        let prices = self.find(model)?.at(tier, usage.input > self.long_context_input_tokens);
        let cached = usage.cached_input.min(usage.input);
        let nanos =
            [(usage.input - cached, prices.input), (cached, prices.cached_input), (usage.output, prices.output)]
                .into_iter()
                .map(|(tokens, price)| u128::from(tokens) * u128::from(price))
                .sum::<u128>();
        Some(i64::try_from((nanos + 500) / 1000).unwrap_or(i64::MAX))
    }

    /// Whether `model` has a price.
    pub fn knows(&self, model: &str) -> bool {
        self.find(model).is_some()
    }

    fn find(&self, model: &str) -> Option<&ModelPrices> {
        let known = |slug: &str| self.models.get(slug).or_else(|| self.models.get(self.aliases.get(slug)?));
        known(model).or_else(|| {
            // Cutting at each '-' from the right meets the longest known prefix first.
            model.rmatch_indices('-').find_map(|(at, _)| known(&model[..at]))
        })
    }
}

impl ModelPrices {
    fn at(&self, tier: Option<&str>, is_long_context: bool) -> TokenPrices {
        let tiered = match tier {
            Some("priority" | "fast") => self.priority.unwrap_or(self.base),
            Some("flex") => self.flex.unwrap_or(self.base),
            _ => self.base,
        };
        match self.long_context {
            Some(long) if is_long_context => TokenPrices {
                input: scale(long.input, tiered.input, self.base.input),
                cached_input: scale(long.cached_input, tiered.cached_input, self.base.cached_input),
                output: scale(long.output, tiered.output, self.base.output),
            },
            _ => tiered,
        }
    }
}

/// `price × part ÷ whole`, rounded half up; a base price of zero scales nothing.
fn scale(price: u64, part: u64, whole: u64) -> u64 {
    (price * part + whole / 2).checked_div(whole).unwrap_or(price)
}

#[derive(Deserialize)]
struct PriceFile {
    aliases: HashMap<String, String>,
    long_context_input_tokens: u64,
    models: HashMap<String, ModelPricesFile>,
}

#[derive(Deserialize)]
struct ModelPricesFile {
    base: DollarsPerMillion,
    priority: Option<DollarsPerMillion>,
    flex: Option<DollarsPerMillion>,
    long_context: Option<DollarsPerMillion>,
}

#[derive(Deserialize)]
struct DollarsPerMillion {
    input: f64,
    cached_input: Option<f64>,
    output: f64,
}

impl From<ModelPricesFile> for ModelPrices {
    fn from(file: ModelPricesFile) -> Self {
        Self {
            base: file.base.into(),
            priority: file.priority.map(Into::into),
            flex: file.flex.map(Into::into),
            long_context: file.long_context.map(Into::into),
        }
    }
}

impl From<DollarsPerMillion> for TokenPrices {
    fn from(dollars: DollarsPerMillion) -> Self {
        let nanos = |dollars: f64| (dollars * 1000.0).round() as u64;
        Self {
            input: nanos(dollars.input),
            cached_input: nanos(dollars.cached_input.unwrap_or(dollars.input)),
            output: nanos(dollars.output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, cached_input: u64, output: u64) -> TokenUsage {
        TokenUsage { input, cached_input, output, reasoning: 0 }
    }

    #[test]
    fn the_built_in_table_reads() {
        let table = PriceTable::from_json(include_str!("pricing.json")).unwrap();
        assert!(table.models.len() > 20);
    }

    #[test]
    fn costs_follow_the_list_by_model_tier_and_context() {
        let cases: [(&str, Option<&str>, TokenUsage, Option<i64>); 11] = [
            // 600 × 5 + 400 × 0.5 + 100 × 30 micro-dollars.
            ("gpt-5.5", None, usage(1_000, 400, 100), Some(6_200)),
            ("gpt-5.5", Some("priority"), usage(1_000, 400, 100), Some(15_500)),
            ("gpt-5.5", Some("flex"), usage(1_000, 400, 100), Some(3_100)),
            ("gpt-5.5", Some("default"), usage(1_000, 400, 100), Some(6_200)),
            ("gpt-5.6", None, usage(1_000, 0, 0), Some(5_000)),
            ("gpt-5.6-sol-2026-08-01", None, usage(1_000, 0, 0), Some(5_000)),
            ("gpt-5.4", None, usage(272_001, 0, 10), Some(1_360_230)),
            ("gpt-5.4", Some("priority"), usage(272_001, 0, 0), Some(2_720_010)),
            ("gpt-5.5-pro", None, usage(10, 10, 0), Some(300)),
            // 3 × 0.02 = 0.06 rounds to 0; 30 × 0.02 = 0.6 rounds to 1.
            ("gpt-5.6-luna", None, usage(30, 30, 0), Some(1)),
            ("gpt-99", None, usage(1, 0, 1), None),
        ];
        for (model, tier, usage, expected) in cases {
            let cost = PriceTable::list_prices().cost_micros(model, tier, usage);
            assert_eq!(cost, expected, "{model} {tier:?} {usage:?}");
        }
    }

    #[test]
    fn a_longer_slug_wins_over_a_shorter_prefix() {
        let table = PriceTable::list_prices();
        let mini = table.cost_micros("gpt-5.4-mini-2026-01-01", None, usage(1_000_000, 0, 0));
        assert_eq!(mini, Some(750_000));
        assert!(!table.knows("gpt-5.4mini"));
    }
}
