//! Many streams at once, each at the pace of a model.
//!
//! The fake's events say nothing about when they were sent, but their schedule is known: delta `k` of a stream is due
//! `k` intervals after its first, and what is late does not shift what follows. So how late a delta is can be counted
//! from when its stream's request was sent. This contains the request's own way, once, and rounding by timers.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;

use super::{CODEX_PATH, Workload, upstream_request};
use crate::events::EventCounter;
use crate::http::Connection;
use crate::observe::observe;
use crate::report::{Metric, Sample, add_differences};
use crate::stand::{Answers, Target, TargetKind};
use crate::statistics::percentile;

const BODY_BYTES: usize = 450;
/// The requests are spread over this, so that their start is no burst.
const START_SPREAD: Duration = Duration::from_secs(1);
/// How much longer than it should a stream may take.
const OVERRUN_MAX: Duration = Duration::from_secs(30);
const KILOBYTE: f64 = 1e3;
const MEGABYTE: f64 = 1e6;

static CPU: Metric = Metric {
    name: "CPU per event",
    unit: "µs",
    meaning: "CPU time of the process under test, user and system, divided by events; it holds the streams' start and end",
    is_compared: true,
};
static FIRST_EVENT: Metric = Metric {
    name: "first event p50",
    unit: "ms",
    meaning: "request sent to first event, median over the streams",
    is_compared: true,
};
static FIRST_EVENT_ADDED: Metric = Metric {
    name: "added first event p50",
    unit: "ms",
    meaning: "first event p50 minus that of direct in the same round",
    is_compared: false,
};
static DELAY_P50: Metric = Metric {
    name: "event delay p50",
    unit: "ms",
    meaning: "how late a delta is, counted from its request by the stream's schedule, median over all deltas; \
              the fake's events carry no time, so the request's own way is in it",
    is_compared: true,
};
static DELAY_P50_ADDED: Metric = Metric {
    name: "added event delay p50",
    unit: "ms",
    meaning: "event delay p50 minus that of direct in the same round",
    is_compared: false,
};
static DELAY_P99: Metric =
    Metric { name: "event delay p99", unit: "ms", meaning: "the same, 99th percentile", is_compared: true };
static DELAY_P99_ADDED: Metric = Metric {
    name: "added event delay p99",
    unit: "ms",
    meaning: "event delay p99 minus that of direct in the same round",
    is_compared: false,
};
static OVERRUN: Metric = Metric {
    name: "longest overrun",
    unit: "ms",
    meaning: "how much longer than its schedule the slowest stream took from its request to its last byte",
    is_compared: true,
};
static PEAK: Metric = Metric {
    name: "peak memory",
    unit: "MB",
    meaning: "the most memory the process under test held (resident) during the load",
    is_compared: true,
};
static PER_STREAM: Metric = Metric {
    name: "memory per stream",
    unit: "kB",
    meaning: "peak memory minus what the process held when it had just started, divided by the streams",
    is_compared: true,
};
static COMPLETED: Metric = Metric {
    name: "streams completed",
    unit: "of those begun",
    meaning: "streams that ended with response.completed and had every event; any other number ends the benchmark",
    is_compared: false,
};

static METRICS: [&Metric; 11] = [
    &CPU,
    &FIRST_EVENT,
    &FIRST_EVENT_ADDED,
    &DELAY_P50,
    &DELAY_P50_ADDED,
    &DELAY_P99,
    &DELAY_P99_ADDED,
    &OVERRUN,
    &PEAK,
    &PER_STREAM,
    &COMPLETED,
];

/// The workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) rounds: usize,
    /// At once.
    pub(crate) streams: u32,
    /// Of each stream.
    pub(crate) events_per_second: u32,
    /// Of each stream.
    pub(crate) seconds: u32,
}

/// What one stream showed.
#[derive(Debug)]
struct Course {
    first_event_us: u32,
    delays_us: Vec<u32>,
    overrun_us: u32,
}

impl Streams {
    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.events_per_second
    }

    fn tokens(&self) -> u64 {
        u64::from(self.events_per_second) * u64::from(self.seconds)
    }

    /// Runs one stream, from its place in the spread start to its last byte.
    async fn follow(&self, mut connection: Connection, target: &Target, index: u32) -> anyhow::Result<Course> {
        let mut headers = target.credentials(index as usize);
        let conversation = HeaderValue::try_from(format!("bench-{index}")).context("name a conversation")?;
        headers.insert(HeaderName::from_static("session_id"), conversation);
        let body = upstream_request(BODY_BYTES);
        tokio::time::sleep(START_SPREAD * index / self.streams).await;

        let began = Instant::now();
        let mut response = connection.post(CODEX_PATH, &headers, body).await?;
        let mut counter = EventCounter::default();
        let mut first_event_us = None;
        let mut delays_us = Vec::with_capacity(usize::try_from(self.tokens())?);
        while let Some(frame) = response.frame().await {
            let frame = frame.with_context(|| format!("read on after {} events", counter.events()))?;
            let Some(piece) = frame.data_ref() else { continue };
            let elapsed_us = u32::try_from(began.elapsed().as_micros())?;
            let deltas_before = counter.deltas();
            let deltas = counter.feed(piece);
            if counter.events() > 0 {
                first_event_us.get_or_insert(elapsed_us);
            }
            delays_us.extend((deltas_before..deltas_before + deltas).map(|delta| self.delay_us(delta, elapsed_us)));
        }
        let overrun_us = self.delay_us(self.tokens().saturating_sub(1), u32::try_from(began.elapsed().as_micros())?);
        counter.finish(self.tokens()).with_context(|| format!("follow stream {index}"))?;
        let first_event_us = first_event_us.context("find the first event")?;
        Ok(Course { first_event_us, delays_us, overrun_us })
    }

    /// How late this delta is if it comes now.
    fn delay_us(&self, delta: u64, elapsed_us: u32) -> u32 {
        let due_us = delta * self.interval().as_micros() as u64;
        u32::try_from(u64::from(elapsed_us).saturating_sub(due_us)).unwrap_or(u32::MAX)
    }
}

impl Workload for Streams {
    fn title(&self) -> String {
        format!(
            "Streams: {} at once, each with {} events/s for {} s",
            self.streams, self.events_per_second, self.seconds
        )
    }

    fn answers(&self) -> Answers {
        Answers { tokens: self.tokens(), tokens_per_second: Some(self.events_per_second) }
    }

    fn metrics(&self) -> &'static [&'static Metric] {
        &METRICS
    }

    fn rounds(&self) -> usize {
        self.rounds
    }

    /// A stream is long, so its start hardly counts.
    fn warm_up_rounds(&self) -> usize {
        0
    }

    fn requests(&self) -> u64 {
        u64::from(self.streams)
    }

    async fn load(&self, target: &Target) -> anyhow::Result<Sample> {
        let connections = try_join_all((0..self.streams).map(|_| Connection::open(target.address))).await?;
        let following = (0_u32..).zip(connections).map(|(index, connection)| self.follow(connection, target, index));
        let bound = START_SPREAD + Duration::from_secs(u64::from(self.seconds)) + OVERRUN_MAX;
        let all = async {
            let all = tokio::time::timeout(bound, try_join_all(following)).await;
            all.context("get all streams in time")?
        };
        let (courses, observation) = observe(target, all).await?;

        let mut sample = Sample::new();
        if let Some(process) = &observation.process {
            let events = self.answers().events() * u64::from(self.streams);
            sample.push((&CPU, process.cpu.as_secs_f64() * 1e6 / events as f64));
            sample.push((&PEAK, process.peak_bytes as f64 / MEGABYTE));
            sample.push((&PER_STREAM, process.growth_bytes as f64 / KILOBYTE / f64::from(self.streams)));
        }
        let mut first_events_us: Vec<u32> = courses.iter().map(|course| course.first_event_us).collect();
        let mut overruns_us: Vec<u32> = courses.iter().map(|course| course.overrun_us).collect();
        let mut delays_us: Vec<u32> = courses.iter().flat_map(|course| course.delays_us.iter().copied()).collect();
        for (metric, values_us, percent) in [
            (&FIRST_EVENT, &mut first_events_us, 50),
            (&DELAY_P50, &mut delays_us.clone(), 50),
            (&DELAY_P99, &mut delays_us, 99),
            (&OVERRUN, &mut overruns_us, 100),
        ] {
            let value_us = percentile(values_us, percent).context("find a percentile")?;
            sample.push((metric, f64::from(value_us) / 1000.0));
        }
        sample.push((&COMPLETED, courses.len() as f64));
        sample.extend(observation.circumstances());
        Ok(sample)
    }

    fn compare(&self, round: &mut [(TargetKind, Sample)]) {
        add_differences(round, &FIRST_EVENT, &FIRST_EVENT_ADDED);
        add_differences(round, &DELAY_P50, &DELAY_P50_ADDED);
        add_differences(round, &DELAY_P99, &DELAY_P99_ADDED);
    }
}
