//! What a workload is, and how its rounds are run: every target in turn, so that a machine that gets slower or faster
//! does so for all of them.

pub(crate) mod large_body;
pub(crate) mod small_json;
pub(crate) mod streams;

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;

use crate::observe::CIRCUMSTANCES;
use crate::output;
use crate::report::{Metric, Sample, WorkloadReport};
use crate::stand::{Answers, Stand, Target, TargetKind};

/// Where the Codex CLI posts, on the gateway as on ChatGPT.
const CODEX_PATH: &str = "/backend-api/codex/responses";
const MODEL: &str = "gpt-5.5";

/// A load that can be put on each target.
pub(crate) trait Workload {
    /// One line that says what the load is.
    fn title(&self) -> String;

    /// What the fake answers.
    fn answers(&self) -> Answers;

    /// The rows of its table.
    fn metrics(&self) -> &'static [&'static Metric];

    /// How many rounds count, if there is time.
    fn rounds(&self) -> usize;

    /// How many rounds come before those that count.
    fn warm_up_rounds(&self) -> usize;

    /// How many requests one load sends.
    fn requests(&self) -> u64;

    /// Puts the load on a target once.
    ///
    /// # Errors
    /// When any answer is not exactly what it should be.
    async fn load(&self, target: &Target) -> anyhow::Result<Sample>;

    /// Adds to a round what only all targets together tell.
    fn compare(&self, round: &mut [(TargetKind, Sample)]);
}

/// Runs a workload on a stand of its own. It begins no round after `last_begin` as long as one counts.
pub(crate) async fn run(
    workload: &impl Workload,
    nginx_program: &Path,
    last_begin: Instant,
) -> anyhow::Result<WorkloadReport> {
    let title = workload.title();
    output::progress(&title);
    let mut stand = Stand::start(workload.answers(), nginx_program).await?;
    let mut report = WorkloadReport::new(title, workload.metrics(), &CIRCUMSTANCES);
    let (warm_up_rounds, all_rounds) = (workload.warm_up_rounds(), workload.warm_up_rounds() + workload.rounds());
    let mut rounds_done = 0;
    while rounds_done < all_rounds && (rounds_done <= warm_up_rounds || Instant::now() < last_begin) {
        let number = rounds_done + 1;
        let mut round = Vec::new();
        for target in stand.targets() {
            let loaded = workload.load(target).await;
            let sample = loaded.inspect_err(|_| output::progress(&stand.last_words(target.kind)));
            let sample = sample.with_context(|| format!("round {number} on {}", target.kind.name()))?;
            round.push((target.kind, sample));
        }
        if number > warm_up_rounds {
            workload.compare(&mut round);
            report.add_round(round)?;
        }
        rounds_done = number;
        output::progress(&format!("round {number} of {all_rounds} done"));
    }
    stand.audit(workload.requests() * rounds_done as u64).await.context("compare the books")?;
    stand.stop().await?;
    Ok(report)
}

/// A request in upstream's own dialect that is exactly `bytes` long.
fn upstream_request(bytes: usize) -> Bytes {
    padded(bytes, |text| {
        json!({
            "model": MODEL, "instructions": "Be brief.", "stream": true, "store": false,
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}],
        })
    })
}

/// A request in OpenAI's public dialect, for a whole answer, that is exactly `bytes` long.
fn public_request(bytes: usize) -> Bytes {
    padded(bytes, |text| json!({"model": MODEL, "instructions": "Be brief.", "input": text}))
}

/// The text is prose-like, so that nothing on the way treats it as a special case.
fn padded(bytes: usize, request: impl Fn(&str) -> serde_json::Value) -> Bytes {
    let room = bytes.saturating_sub(request("").to_string().len());
    let text: String = "Why does the quick brown fox jump over the lazy dog? ".chars().cycle().take(room).collect();
    Bytes::from(request(&text).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_long_as_they_should_be() {
        for bytes in [450, 10_000] {
            assert_eq!((upstream_request(bytes).len(), public_request(bytes).len()), (bytes, bytes));
        }
    }
}
