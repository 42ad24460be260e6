//! Every metric of the gateway: one field each. Labels come from closed sets and never from a request.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::domain::account::AccountState;
use crate::domain::exchange_record::ExchangeRecord;

/// Spans of whole exchanges: from a refusal to a long answer.
const EXCHANGE_SECONDS: [f64; 14] =
    [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0];
/// Spans until the first token.
const FIRST_TOKEN_SECONDS: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0];

/// The metrics and the registry that renders them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Ended exchanges by route and by how they ended.
    pub exchanges: IntCounterVec,
    /// From the arrival of a request to the end of its answer, by route.
    pub exchange_duration: HistogramVec,
    /// From the arrival of a request to the first token of its answer.
    pub first_token: Histogram,
    /// Ended legs by outcome.
    pub legs: IntCounterVec,
    /// Tokens used by kind; cached input is a part of input, reasoning a part of output.
    pub tokens: IntCounterVec,
    /// Exchanges that are running now.
    pub in_flight: IntGauge,
    /// Answers we made ourselves, by reason.
    pub rejections: IntCounterVec,
    /// Records of ended exchanges that could not be written.
    pub records_dropped: IntCounter,
    /// Accounts of the pool by state.
    pub accounts: IntGaugeVec,
}

impl Metrics {
    /// Makes all metrics, at zero.
    ///
    /// # Errors
    /// When two metrics share a name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            exchanges: counters("exchanges_total", "Ended exchanges by route and status.", &["route", "status"])?,
            exchange_duration: HistogramVec::new(
                histogram("exchange_duration_seconds", "Arrival of a request to the end of its answer.")
                    .buckets(EXCHANGE_SECONDS.to_vec()),
                &["route"],
            )?,
            first_token: Histogram::with_opts(
                histogram("first_token_seconds", "Arrival of a request to the first token of its answer.")
                    .buckets(FIRST_TOKEN_SECONDS.to_vec()),
            )?,
            legs: counters("legs_total", "Ended legs by outcome.", &["outcome"])?,
            tokens: counters("tokens_total", "Tokens used; cached_input is in input, reasoning in output.", &["kind"])?,
            in_flight: IntGauge::with_opts(opts("in_flight_exchanges", "Exchanges that are running now."))?,
            rejections: counters("rejections_total", "Answers the gateway made itself, by reason.", &["reason"])?,
            records_dropped: IntCounter::with_opts(opts(
                "records_dropped_total",
                "Records of ended exchanges that could not be written.",
            ))?,
            accounts: IntGaugeVec::new(opts("accounts", "Accounts of the pool by state."), &["state"])?,
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.exchanges.clone()))?;
        self.registry.register(Box::new(self.exchange_duration.clone()))?;
        self.registry.register(Box::new(self.first_token.clone()))?;
        self.registry.register(Box::new(self.legs.clone()))?;
        self.registry.register(Box::new(self.tokens.clone()))?;
        self.registry.register(Box::new(self.in_flight.clone()))?;
        self.registry.register(Box::new(self.rejections.clone()))?;
        self.registry.register(Box::new(self.records_dropped.clone()))?;
        self.registry.register(Box::new(self.accounts.clone()))?;
        self.registry.register(Box::new(build_info()?))?;
        #[cfg(target_os = "linux")]
        self.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(())
    }

    /// Counts an ended exchange: its end, its spans and its tokens.
    pub fn observe_exchange(&self, record: &ExchangeRecord) {
        let seconds = |ms: u32| f64::from(ms) / 1000.0;
        self.exchanges.with_label_values(&[record.route, record.status.as_str()]).inc();
        self.exchange_duration.with_label_values(&[record.route]).observe(seconds(record.total_ms));
        if let Some(ms) = record.first_token_ms {
            self.first_token.observe(seconds(ms));
        }
        let tokens = record.usage.tokens().unwrap_or_default();
        for (kind, count) in [
            ("input", tokens.input),
            ("cached_input", tokens.cached_input),
            ("output", tokens.output),
            ("reasoning", tokens.reasoning),
        ] {
            self.tokens.with_label_values(&[kind]).inc_by(count);
        }
    }

    /// Counts an ended leg.
    pub fn leg_ended(&self, outcome: &'static str) {
        self.legs.with_label_values(&[outcome]).inc();
    }

    /// Counts an answer that we made ourselves.
    pub fn rejected(&self, reason: &'static str) {
        self.rejections.with_label_values(&[reason]).inc();
    }

    /// Shows how many accounts are in each state; a state that `counts` does not name has none.
    pub fn set_accounts(&self, counts: impl IntoIterator<Item = (AccountState, usize)>) {
        self.accounts.reset();
        for (state, count) in counts {
            self.accounts.with_label_values(&[state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics could not be rendered");
            String::new()
        })
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("codex_lb")
}

fn histogram(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace("codex_lb")
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(opts(name, help), labels)
}

/// Always 1; the version is in its label.
fn build_info() -> Result<Gauge, prometheus::Error> {
    let opts = opts("build_info", "Always 1; the version is in its label.");
    let gauge = Gauge::with_opts(opts.const_label("version", env!("CARGO_PKG_VERSION")))?;
    gauge.set(1.0);
    Ok(gauge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::domain::exchange_record::ExchangeStatus;
    use crate::domain::usage::{MeteredUsage, TokenUsage};
    use crate::ids::ExchangeId;

    fn record() -> ExchangeRecord {
        ExchangeRecord {
            id: ExchangeId::from_u128(1),
            requested_at: Timestamp::from_unix_ms(0),
            account_id: None,
            api_key_id: None,
            route: "responses",
            transport: "sse",
            status: ExchangeStatus::Ok,
            error_code: None,
            upstream_status: Some(200),
            legs: 1,
            model_requested: None,
            model: None,
            effort: None,
            tier: None,
            usage: MeteredUsage::Exact(TokenUsage { input: 10, cached_input: 4, output: 7, reasoning: 2 }),
            cost_micros: None,
            first_byte_ms: Some(100),
            first_token_ms: Some(300),
            total_ms: 2000,
            user_agent_group: "other",
            conversation_id: None,
        }
    }

    #[test]
    fn what_happened_is_rendered() {
        let metrics = Metrics::new().unwrap();
        metrics.observe_exchange(&record());
        metrics.in_flight.inc();
        metrics.leg_ended("relayed");
        metrics.rejected("no_accounts");
        metrics.set_accounts([(AccountState::Active, 3)]);
        let text = metrics.render();
        for line in [
            "codex_lb_in_flight_exchanges 1",
            "codex_lb_exchanges_total{route=\"responses\",status=\"ok\"} 1",
            "codex_lb_exchange_duration_seconds_sum{route=\"responses\"} 2",
            "codex_lb_first_token_seconds_bucket{le=\"0.5\"} 1",
            "codex_lb_legs_total{outcome=\"relayed\"} 1",
            "codex_lb_tokens_total{kind=\"input\"} 10",
            "codex_lb_tokens_total{kind=\"cached_input\"} 4",
            "codex_lb_tokens_total{kind=\"output\"} 7",
            "codex_lb_tokens_total{kind=\"reasoning\"} 2",
            "codex_lb_rejections_total{reason=\"no_accounts\"} 1",
            "codex_lb_records_dropped_total 0",
            "codex_lb_accounts{state=\"active\"} 3",
            concat!("codex_lb_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|rendered| rendered == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn an_exchange_without_a_model_answer_adds_no_tokens_and_no_first_token() {
        let metrics = Metrics::new().unwrap();
        metrics.observe_exchange(&ExchangeRecord { usage: MeteredUsage::None, first_token_ms: None, ..record() });
        let text = metrics.render();
        assert!(text.contains("codex_lb_tokens_total{kind=\"input\"} 0\n"), "{text}");
        assert!(text.contains("codex_lb_first_token_seconds_count 0\n"), "{text}");
    }

    #[test]
    fn a_state_without_accounts_disappears() {
        let metrics = Metrics::new().unwrap();
        metrics.set_accounts([(AccountState::Paused, 1)]);
        metrics.set_accounts([(AccountState::Active, 1)]);
        assert!(!metrics.render().contains("paused"));
    }
}
