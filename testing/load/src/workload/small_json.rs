//! Many small requests for a whole answer, as fast as they are answered.
//!
//! Upstream always streams. So nginx and the fake are sent the upstream request, which makes the fake send the same
//! events, and the gateway is asked for JSON, which it makes of them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use memchr::memmem;

use super::{CODEX_PATH, Workload, public_request, upstream_request};
use crate::events::EventCounter;
use crate::http::{Connection, read};
use crate::observe::observe;
use crate::report::{Metric, Sample, add_differences};
use crate::stand::{Answers, Target, TargetKind};
use crate::statistics::percentile;

const CONNECTIONS: usize = 64;
const BODY_BYTES: usize = 450;
const LOAD_MAX: Duration = Duration::from_secs(60);
const ANSWERS: Answers = Answers { tokens: 8, tokens_per_second: None };
/// What eight tokens of the fake's say.
const ANSWER_TEXT: &[u8] = b"\"The quick brown fox jumps over the lazy\"";
const ANSWER_STATUS: &[u8] = b"\"status\":\"completed\"";

static CPU: Metric = Metric {
    name: "CPU per request",
    unit: "µs",
    meaning: "CPU time of the process under test, user and system, divided by requests",
    is_compared: true,
};
static THROUGHPUT: Metric = Metric {
    name: "throughput",
    unit: "requests/s",
    meaning: "answers per second; load generator and fake share the machine's cores with the process under test",
    is_compared: true,
};
static P50: Metric = Metric {
    name: "latency p50",
    unit: "ms",
    meaning: "request sent to answer complete, median; in a closed loop it is mostly the queue of the other connections",
    is_compared: true,
};
static P50_ADDED: Metric = Metric {
    name: "added p50",
    unit: "ms",
    meaning: "latency p50 minus that of direct in the same round",
    is_compared: false,
};
static P99: Metric =
    Metric { name: "latency p99", unit: "ms", meaning: "the same, 99th percentile", is_compared: true };
static P99_ADDED: Metric = Metric {
    name: "added p99",
    unit: "ms",
    meaning: "latency p99 minus that of direct in the same round",
    is_compared: false,
};

static METRICS: [&Metric; 6] = [&CPU, &THROUGHPUT, &P50, &P50_ADDED, &P99, &P99_ADDED];

/// The workload.
#[derive(Debug)]
pub(crate) struct SmallJson {
    pub(crate) rounds: usize,
    /// Per target and round.
    pub(crate) requests: u64,
}

impl Workload for SmallJson {
    fn title(&self) -> String {
        format!(
            "Small JSON: {} requests of {BODY_BYTES} bytes per round on {CONNECTIONS} connections, each of which asks \
             again when it has its answer",
            self.requests
        )
    }

    fn answers(&self) -> Answers {
        ANSWERS
    }

    fn metrics(&self) -> &'static [&'static Metric] {
        &METRICS
    }

    fn rounds(&self) -> usize {
        self.rounds
    }

    /// Connections, caches and allocators shall be what they are in a process that has been up for a while.
    fn warm_up_rounds(&self) -> usize {
        1
    }

    fn requests(&self) -> u64 {
        self.requests
    }

    async fn load(&self, target: &Target) -> anyhow::Result<Sample> {
        let connections = try_join_all((0..CONNECTIONS).map(|_| Connection::open(target.address))).await?;
        let left = Cell::new(self.requests);
        let asking =
            connections.into_iter().enumerate().map(|(index, connection)| ask(connection, target, index, &left));
        let all = async {
            let all = tokio::time::timeout(LOAD_MAX, try_join_all(asking)).await;
            all.context("get all answers in time")?
        };
        let (latencies, observation) = observe(target, all).await?;
        let mut latencies_us = latencies.concat();
        ensure!(latencies_us.len() as u64 == self.requests, "{} answers came", latencies_us.len());

        let mut sample = Sample::new();
        if let Some(process) = &observation.process {
            sample.push((&CPU, process.cpu.as_secs_f64() * 1e6 / self.requests as f64));
        }
        sample.push((&THROUGHPUT, self.requests as f64 / observation.elapsed.as_secs_f64()));
        for (metric, percent) in [(&P50, 50), (&P99, 99)] {
            let latency_us = percentile(&mut latencies_us, percent).context("find a percentile")?;
            sample.push((metric, f64::from(latency_us) / 1000.0));
        }
        sample.extend(observation.circumstances());
        Ok(sample)
    }

    fn compare(&self, round: &mut [(TargetKind, Sample)]) {
        add_differences(round, &P50, &P50_ADDED);
        add_differences(round, &P99, &P99_ADDED);
    }
}

/// Asks until nothing is left to ask; returns how long each answer took, in microseconds.
async fn ask(mut connection: Connection, target: &Target, index: usize, left: &Cell<u64>) -> anyhow::Result<Vec<u32>> {
    let headers = target.credentials(index);
    let (path, body) = match target.kind {
        TargetKind::Direct | TargetKind::Nginx => (CODEX_PATH, upstream_request(BODY_BYTES)),
        TargetKind::Gateway => ("/v1/responses", public_request(BODY_BYTES)),
    };
    let mut latencies_us = Vec::new();
    while let Some(rest) = left.get().checked_sub(1) {
        left.set(rest);
        let began = Instant::now();
        let response = connection.post(path, &headers, body.clone()).await?;
        let answer = read(response).await?;
        latencies_us.push(u32::try_from(began.elapsed().as_micros())?);
        check(target.kind, &answer)?;
    }
    Ok(latencies_us)
}

fn check(kind: TargetKind, answer: &Bytes) -> anyhow::Result<()> {
    match kind {
        TargetKind::Direct | TargetKind::Nginx => {
            let mut counter = EventCounter::default();
            counter.feed(answer);
            counter.finish(ANSWERS.tokens).map(drop)
        }
        TargetKind::Gateway => {
            let is_whole = answer.starts_with(b"{") && answer.trim_ascii_end().ends_with(b"}");
            let is_right = [ANSWER_TEXT, ANSWER_STATUS].iter().all(|part| memmem::find(answer, part).is_some());
            ensure!(is_whole && is_right, "a wrong answer: {}", String::from_utf8_lossy(answer));
            Ok(())
        }
    }
}
