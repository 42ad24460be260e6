//! `codex-lb-load`: what the gateway costs beside nginx and beside nothing, measured in one run on one machine.
//!
//! It starts everything it needs itself. It must never report a figure of a run in which an answer was wrong, so the
//! first wrong answer ends it with a non-zero status.

mod events;
mod http;
mod observe;
mod output;
mod process;
mod report;
mod sibling;
mod stand;
mod statistics;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::observe::CIRCUMSTANCES;
use crate::report::{WorkloadReport, meanings};
use crate::workload::large_body::LargeBody;
use crate::workload::small_json::SmallJson;
use crate::workload::streams::Streams;

const FULL_MAX: Duration = Duration::from_secs(240);
const QUICK_MAX: Duration = Duration::from_secs(60);
/// Slow enough that two cores carry all streams and have time to spare, so that delays are not mostly queues.
const CALM_EVENTS_PER_SECOND: u32 = 10;
/// The gateway and nginx hold two sockets per stream; twice that, for those that are just being closed.
const DESCRIPTORS_PER_STREAM: u64 = 4;
const DESCRIPTORS_SPARE: u64 = 256;

/// Compares the gateway with nginx and with nothing in between, and fails if any answer is wrong.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Less of everything, in less than a minute; for trying, not for telling.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_enum)]
    only: Vec<WorkloadName>,
    /// How many streams at once.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    streams: u32,
    /// Events per second of each stream that is not calm.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    event_rate: u32,
    /// The nginx to compare with.
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Where to write the document with all figures.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WorkloadName {
    SmallJson,
    Streams,
    CalmStreams,
    LargeBody,
}

fn main() -> ExitCode {
    // One thread, so that it takes as little as it can from the processes it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("start the runtime").and_then(|runtime| runtime.block_on(run(&Arguments::parse())));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::progress(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    check_descriptors(u64::from(arguments.streams) * DESCRIPTORS_PER_STREAM + DESCRIPTORS_SPARE)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let bound = if arguments.quick { QUICK_MAX } else { FULL_MAX };
    // Dropped on any other end, and with it everything it has started.
    let reports = tokio::select! {
        reports = run_workloads(arguments, bound) => reports?,
        () = tokio::time::sleep(bound) => bail!("it took longer than {} s", bound.as_secs()),
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("interrupted"),
    };
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    let workloads: Vec<Value> = reports.iter().map(WorkloadReport::json).collect();
    let document = json!({"date": now, "quick": arguments.quick, "machine": machine(), "workloads": workloads});
    let file = write(&arguments.output, &now, &document)?;
    for report in &reports {
        output::print(&format!("{}\n", report.text()))?;
    }
    output::print(&format!(
        "Under each table's own rows:\n{}\nCells are the median over the rounds (smallest to largest); ratios and \
         differences are made within a round. Every figure of every round: {}\n",
        meanings(&CIRCUMSTANCES),
        file.display()
    ))
}

async fn run_workloads(arguments: &Arguments, bound: Duration) -> anyhow::Result<Vec<WorkloadReport>> {
    // A slow machine gets fewer rounds of each workload rather than none of the last.
    let began = Instant::now();
    let share = |percent: u32| began + bound * percent / 100;
    let is_wanted = |name| arguments.only.is_empty() || arguments.only.contains(&name);
    let is_quick = arguments.quick;
    let small_json =
        SmallJson { rounds: if is_quick { 3 } else { 5 }, requests: if is_quick { 2_000 } else { 10_000 } };
    let streams = Streams {
        rounds: if is_quick { 2 } else { 3 },
        streams: arguments.streams,
        events_per_second: arguments.event_rate,
        seconds: if is_quick { 2 } else { 10 },
    };
    let calm_streams = Streams {
        rounds: if is_quick { 1 } else { 2 },
        events_per_second: CALM_EVENTS_PER_SECOND,
        seconds: if is_quick { 2 } else { 5 },
        ..streams
    };
    let large_body = LargeBody { rounds: if is_quick { 3 } else { 10 } };

    let mut reports = Vec::new();
    if is_wanted(WorkloadName::SmallJson) {
        reports.push(workload::run(&small_json, &arguments.nginx, share(20)).await.context("small JSON")?);
    }
    if is_wanted(WorkloadName::Streams) {
        reports.push(workload::run(&streams, &arguments.nginx, share(60)).await.context("streams")?);
    }
    if is_wanted(WorkloadName::CalmStreams) {
        reports.push(workload::run(&calm_streams, &arguments.nginx, share(80)).await.context("calm streams")?);
    }
    if is_wanted(WorkloadName::LargeBody) {
        reports.push(workload::run(&large_body, &arguments.nginx, share(92)).await.context("large body")?);
    }
    Ok(reports)
}

/// What we start inherits how many files it may open, and a connection refused for want of one would look like a fault
/// of the gateway's.
fn check_descriptors(needed: u64) -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits").context("read /proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).context("find the limit of open files")?;
    let is_enough = soft == "unlimited" || soft.parse::<u64>().is_ok_and(|soft| soft >= needed);
    ensure!(is_enough, "{needed} open files are needed and {soft} allowed: run `ulimit -n {needed}` before");
    Ok(())
}

/// What the figures depend on most.
fn machine() -> Value {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "processor": model.map(|(_, model)| model.trim()),
        "kernel": kernel.trim(),
    })
}

fn write(directory: &Path, name: &str, document: &Value) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let file = directory.join(format!("{name}.json"));
    fs::write(&file, format!("{document:#}\n")).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}
