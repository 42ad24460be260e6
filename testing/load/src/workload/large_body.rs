//! One large request at a time: how long until its answer begins, and what it costs in memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http_body_util::BodyExt as _;

use super::{CODEX_PATH, Workload, upstream_request};
use crate::events::EventCounter;
use crate::http::Connection;
use crate::observe::observe;
use crate::report::{Metric, Sample, add_differences};
use crate::stand::{Answers, Target, TargetKind};

const BODY_BYTES: usize = 10_000_000;
const MEGABYTE: f64 = 1e6;
const LOAD_MAX: Duration = Duration::from_secs(30);
const ANSWERS: Answers = Answers { tokens: 8, tokens_per_second: None };

static FIRST_EVENT: Metric = Metric {
    name: "first event",
    unit: "ms",
    meaning: "first byte of the request sent to first event received; direct, it is what the fake needs for the body",
    is_compared: true,
};
static FIRST_EVENT_ADDED: Metric = Metric {
    name: "added first event",
    unit: "ms",
    meaning: "first event minus that of direct in the same round",
    is_compared: false,
};
static GROWTH: Metric = Metric {
    name: "memory growth",
    unit: "MB",
    meaning: "peak memory minus what the process held when it had just started",
    is_compared: false,
};
static PEAK: Metric = Metric {
    name: "peak memory",
    unit: "MB",
    meaning: "the most memory the process under test held (resident) during the request",
    is_compared: true,
};

static METRICS: [&Metric; 4] = [&FIRST_EVENT, &FIRST_EVENT_ADDED, &PEAK, &GROWTH];

/// The workload.
#[derive(Debug)]
pub(crate) struct LargeBody {
    pub(crate) rounds: usize,
}

impl Workload for LargeBody {
    fn title(&self) -> String {
        format!("Large body: one request of {} MB per round", BODY_BYTES as f64 / MEGABYTE)
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

    /// The first one is what most people see.
    fn warm_up_rounds(&self) -> usize {
        0
    }

    fn requests(&self) -> u64 {
        1
    }

    async fn load(&self, target: &Target) -> anyhow::Result<Sample> {
        let connection = Connection::open(target.address).await?;
        let asking = async {
            let answer = tokio::time::timeout(LOAD_MAX, ask(connection, target)).await;
            answer.context("get the answer in time")?
        };
        let (first_event, observation) = observe(target, asking).await?;
        let mut sample: Sample = vec![(&FIRST_EVENT, first_event.as_secs_f64() * 1000.0)];
        if let Some(process) = &observation.process {
            sample.push((&GROWTH, process.growth_bytes as f64 / MEGABYTE));
            sample.push((&PEAK, process.peak_bytes as f64 / MEGABYTE));
        }
        // Shares of the CPU mean nothing here: the kernel counts in steps about as long as the whole request.
        Ok(sample)
    }

    fn compare(&self, round: &mut [(TargetKind, Sample)]) {
        add_differences(round, &FIRST_EVENT, &FIRST_EVENT_ADDED);
    }
}

/// Sends the request and reads the whole answer; returns the time to its first event.
async fn ask(mut connection: Connection, target: &Target) -> anyhow::Result<Duration> {
    let body = upstream_request(BODY_BYTES);
    ensure!(body.len() == BODY_BYTES, "the request is {} bytes long", body.len());
    let began = Instant::now();
    let mut response = connection.post(CODEX_PATH, &target.credentials(0), body).await?;
    let mut counter = EventCounter::default();
    let mut first_event = None;
    while let Some(frame) = response.frame().await {
        let frame = frame.context("read the answer")?;
        counter.feed(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        if counter.events() > 0 {
            first_event.get_or_insert(began.elapsed());
        }
    }
    counter.finish(ANSWERS.tokens)?;
    first_event.context("find the first event")
}
