//! Turns the samples of all rounds into the table and the JSON document. Invents nothing: what a target cannot have is
//! left out.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde_json::{Map, Value, json};

use crate::output::table;
use crate::stand::TargetKind;
use crate::statistics::Spread;

/// Something that is measured.
#[derive(Debug)]
pub(crate) struct Metric {
    /// The row's name.
    pub(crate) name: &'static str,
    /// Of the value.
    pub(crate) unit: &'static str,
    /// What it means, in one sentence.
    pub(crate) meaning: &'static str,
    /// Whether gateway and nginx are compared by it. What only tells the circumstances is not.
    pub(crate) is_compared: bool,
}

/// What one load on one target gave.
pub(crate) type Sample = Vec<(&'static Metric, f64)>;

/// A workload's samples, by metric and target in the order of the rounds.
#[derive(Debug)]
pub(crate) struct WorkloadReport {
    title: String,
    rounds: usize,
    /// What the load does.
    metrics: &'static [&'static Metric],
    /// What tells whether to believe it.
    circumstances: &'static [&'static Metric],
    values: BTreeMap<(&'static str, TargetKind), Vec<f64>>,
}

impl WorkloadReport {
    /// An empty one, whose rows will stand in this order.
    pub(crate) fn new(
        title: String,
        metrics: &'static [&'static Metric],
        circumstances: &'static [&'static Metric],
    ) -> Self {
        Self { title, rounds: 0, metrics, circumstances, values: BTreeMap::new() }
    }

    /// Adds what one round gave, a sample per target.
    ///
    /// # Errors
    /// When a sample lacks what an earlier round had, or has what no row is for: then rounds could not be compared.
    pub(crate) fn add_round(&mut self, samples: Vec<(TargetKind, Sample)>) -> anyhow::Result<()> {
        for (target, sample) in samples {
            for (metric, value) in sample {
                ensure!(self.known().any(|known| known.name == metric.name), "no row is for {}", metric.name);
                self.values.entry((metric.name, target)).or_default().push(value);
            }
        }
        self.rounds += 1;
        ensure!(self.values.values().all(|values| values.len() == self.rounds), "a round lacks a figure");
        Ok(())
    }

    /// Title, table and what the rows mean.
    pub(crate) fn text(&self) -> String {
        let mut header = vec![String::new()];
        header.extend(TargetKind::ALL.map(|target| target.name().to_owned()));
        header.push("gateway ÷ nginx".to_owned());
        let mut rows = vec![header];
        rows.extend(self.rows().map(|metric| self.row(metric)));
        format!("{}; {} rounds\n\n{}\n{}", self.title, self.rounds, table(&rows), meanings(self.metrics))
    }

    /// The metrics that have a figure.
    fn rows(&self) -> impl Iterator<Item = &'static Metric> {
        let has_figure = |metric: &&Metric| self.values.keys().any(|(name, _)| *name == metric.name);
        self.known().filter(has_figure)
    }

    fn known(&self) -> impl Iterator<Item = &'static Metric> {
        self.metrics.iter().chain(self.circumstances).copied()
    }

    fn row(&self, metric: &Metric) -> Vec<String> {
        let mut row = vec![format!("{}, {}", metric.name, metric.unit)];
        row.extend(TargetKind::ALL.map(|target| cell(Spread::of(self.of(metric, target).iter().copied()))));
        row.push(cell(self.ratio(metric)));
        row
    }

    fn of(&self, metric: &Metric, target: TargetKind) -> &[f64] {
        self.values.get(&(metric.name, target)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Gateway divided by nginx, each round by itself, so that what drifts between rounds cancels.
    fn ratio(&self, metric: &Metric) -> Option<Spread> {
        let pairs = self.of(metric, TargetKind::Gateway).iter().zip(self.of(metric, TargetKind::Nginx));
        let ratios: Vec<f64> = pairs.map(|(gateway, nginx)| gateway / nginx).collect();
        let is_meaningful = metric.is_compared && ratios.iter().all(|ratio| ratio.is_finite());
        is_meaningful.then(|| Spread::of(ratios)).flatten()
    }

    /// Every value of every round, and the ratios.
    pub(crate) fn json(&self) -> Value {
        let metrics = self.rows().map(|metric| {
            let mut described = Map::new();
            described.insert("name".to_owned(), metric.name.into());
            described.insert("unit".to_owned(), metric.unit.into());
            described.insert("meaning".to_owned(), metric.meaning.into());
            for target in TargetKind::ALL {
                let values = self.of(metric, target);
                if let Some(spread) = Spread::of(values.iter().copied()) {
                    described
                        .insert(target.name().to_owned(), json!({"rounds": values, "spread": spread_json(spread)}));
                }
            }
            if let Some(ratio) = self.ratio(metric) {
                described.insert("gateway_to_nginx".to_owned(), spread_json(ratio));
            }
            Value::Object(described)
        });
        json!({"title": self.title, "rounds": self.rounds, "metrics": metrics.collect::<Vec<_>>()})
    }
}

/// What each of these means, a line each.
pub(crate) fn meanings(metrics: &[&Metric]) -> String {
    metrics.iter().map(|metric| format!("  {}: {}.\n", metric.name, metric.meaning)).collect()
}

/// What a process or a path adds: the target's value minus that of nothing in between, round by round.
pub(crate) fn add_differences(round: &mut [(TargetKind, Sample)], metric: &Metric, added: &'static Metric) {
    let value = |sample: &Sample| sample.iter().find(|(found, _)| found.name == metric.name).map(|(_, value)| *value);
    let direct = round.iter().find(|(target, _)| *target == TargetKind::Direct).and_then(|(_, sample)| value(sample));
    for (_, sample) in round.iter_mut().filter(|(target, _)| *target != TargetKind::Direct) {
        if let (Some(direct), Some(value)) = (direct, value(sample)) {
            sample.push((added, value - direct));
        }
    }
}

fn spread_json(spread: Spread) -> Value {
    json!({"min": spread.min, "median": spread.median, "max": spread.max})
}

/// `median (min–max)`.
fn cell(spread: Option<Spread>) -> String {
    let Some(Spread { min, median, max }) = spread else { return "–".to_owned() };
    format!("{} ({} to {})", figure(median), figure(min), figure(max))
}

/// Three digits that count, or all in front of the point.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    static COST: Metric = Metric { name: "cost", unit: "µs", meaning: "what it costs", is_compared: true };
    static LATENCY: Metric = Metric { name: "latency", unit: "ms", meaning: "how long", is_compared: true };
    static ADDED: Metric = Metric { name: "added latency", unit: "ms", meaning: "how much longer", is_compared: false };

    static METRICS: [&Metric; 3] = [&COST, &LATENCY, &ADDED];

    fn round(direct: f64, nginx: f64, gateway: f64) -> Vec<(TargetKind, Sample)> {
        let mut round = vec![
            (TargetKind::Direct, vec![(&LATENCY, direct)]),
            (TargetKind::Nginx, vec![(&LATENCY, nginx), (&COST, nginx * 10.0)]),
            (TargetKind::Gateway, vec![(&LATENCY, gateway), (&COST, gateway * 10.0)]),
        ];
        add_differences(&mut round, &LATENCY, &ADDED);
        round
    }

    #[test]
    fn ratios_and_differences_are_made_within_a_round() {
        let mut report = WorkloadReport::new("title".to_owned(), &METRICS, &[]);
        report.add_round(round(1.0, 2.0, 4.0)).unwrap();
        report.add_round(round(10.0, 20.0, 60.0)).unwrap();
        report.add_round(round(1.0, 2.0, 8.0)).unwrap();
        assert_eq!(report.of(&ADDED, TargetKind::Gateway), [3.0, 50.0, 7.0]);
        assert_eq!(report.of(&ADDED, TargetKind::Direct), [0.0; 0]);
        assert_eq!(report.ratio(&COST), Some(Spread { min: 2.0, median: 3.0, max: 4.0 }));
        assert_eq!(report.ratio(&ADDED), None);
        assert_eq!(
            report.row(&COST),
            ["cost, µs", "–", "20.0 (20.0 to 200)", "80.0 (40.0 to 600)", "3.00 (2.00 to 4.00)"]
        );
        assert_eq!(report.json()["metrics"][0]["name"], "cost");
    }

    #[test]
    fn a_round_that_lacks_a_figure_is_refused() {
        let mut report = WorkloadReport::new(String::new(), &METRICS, &[]);
        report.add_round(round(1.0, 2.0, 3.0)).unwrap();
        let mut lacking = round(1.0, 2.0, 3.0);
        lacking[2].1.pop();
        assert!(report.add_round(lacking).is_err());
        static UNKNOWN: Metric = Metric { name: "unknown", unit: "", meaning: "", is_compared: true };
        assert!(report.add_round(vec![(TargetKind::Direct, vec![(&UNKNOWN, 1.0)])]).is_err());
    }
}
