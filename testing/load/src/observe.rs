//! What a load does to the processes involved, measured around it.

use std::time::{Duration, Instant};

use crate::process::{MachineTime, cpu_time, forget_peak, memory};
use crate::report::{Metric, Sample};
use crate::stand::Target;

/// How long the process under test may go on working (its log, its records) before its CPU time is read.
const SETTLE: Duration = Duration::from_millis(250);

/// How idle the machine was.
static MACHINE_IDLE: Metric = Metric {
    name: "machine idle",
    unit: "%",
    meaning: "CPU time of all cores that nobody used during the load; near 0, latencies are mostly waiting for a core",
    is_compared: false,
};

/// Whether the load generator was the bottleneck.
static GENERATOR_BUSY: Metric = Metric {
    name: "load generator busy",
    unit: "% of a core",
    meaning: "CPU time of the load generator, which has one thread; near 100, it is what limits the load",
    is_compared: false,
};

/// Whether the fake was the bottleneck.
static FAKE_BUSY: Metric = Metric {
    name: "fake busy",
    unit: "% of a core",
    meaning: "CPU time of the fake ChatGPT, which has one thread; near 100, it is what limits the load",
    is_compared: false,
};

/// Whether somebody else was at work.
static OTHERS_BUSY: Metric = Metric {
    name: "others busy",
    unit: "% of a core",
    meaning: "CPU time of everything else on the machine and of the kernel where it works for no process; \
              when it differs between the columns, something disturbed the run",
    is_compared: false,
};

/// What tells whether the other figures can be trusted.
pub(crate) static CIRCUMSTANCES: [&Metric; 4] = [&MACHINE_IDLE, &OTHERS_BUSY, &GENERATOR_BUSY, &FAKE_BUSY];

/// What was seen.
#[derive(Debug)]
pub(crate) struct Observation {
    /// How long the load took.
    pub(crate) elapsed: Duration,
    /// Of the process under test, if there is one.
    pub(crate) process: Option<ProcessObservation>,
    idle_percent: f64,
    generator_cpu: Duration,
    fake_cpu: Duration,
    others_cpu: Duration,
}

/// What the process under test used.
#[derive(Debug)]
pub(crate) struct ProcessObservation {
    /// CPU time, user and system.
    pub(crate) cpu: Duration,
    /// The most memory it held.
    pub(crate) peak_bytes: u64,
    /// How much more that was than when it had just started.
    pub(crate) growth_bytes: u64,
}

impl Observation {
    /// A figure for each of [`CIRCUMSTANCES`].
    pub(crate) fn circumstances(&self) -> Sample {
        let busy = |cpu: Duration| 100.0 * cpu.as_secs_f64() / self.elapsed.as_secs_f64();
        vec![
            (&MACHINE_IDLE, self.idle_percent),
            (&OTHERS_BUSY, busy(self.others_cpu)),
            (&GENERATOR_BUSY, busy(self.generator_cpu)),
            (&FAKE_BUSY, busy(self.fake_cpu)),
        ]
    }
}

/// Runs a load and watches.
pub(crate) async fn observe<T>(
    target: &Target,
    load: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Observation)> {
    if let Some(process) = &target.process {
        forget_peak(process.pid)?;
    }
    let before = CpuTimes::now(target)?;
    let began = Instant::now();
    let outcome = load.await?;
    let elapsed = began.elapsed();
    let after = CpuTimes::now(target)?;

    let generator_cpu = after.generator.saturating_sub(before.generator);
    let fake_cpu = after.fake.saturating_sub(before.fake);
    let process_cpu = after.process.saturating_sub(before.process);
    let machine_cpu = after.machine.busy_since(before.machine);
    let others_cpu = machine_cpu.saturating_sub(generator_cpu + fake_cpu + process_cpu);
    let idle_percent = after.machine.idle_percent_since(before.machine);

    let process = match &target.process {
        Some(process) => {
            tokio::time::sleep(SETTLE).await;
            let peak_bytes = memory(process.pid)?.peak_bytes;
            Some(ProcessObservation {
                cpu: cpu_time(process.pid)?.saturating_sub(before.process),
                peak_bytes,
                growth_bytes: peak_bytes.saturating_sub(process.idle_bytes),
            })
        }
        None => None,
    };
    Ok((outcome, Observation { elapsed, process, idle_percent, generator_cpu, fake_cpu, others_cpu }))
}

/// CPU time so far, of everybody involved.
#[derive(Debug)]
struct CpuTimes {
    machine: MachineTime,
    generator: Duration,
    fake: Duration,
    process: Duration,
}

impl CpuTimes {
    fn now(target: &Target) -> anyhow::Result<Self> {
        Ok(Self {
            machine: MachineTime::now()?,
            generator: cpu_time(std::process::id())?,
            fake: cpu_time(target.fake_pid)?,
            process: target.process.as_ref().map(|process| cpu_time(process.pid)).transpose()?.unwrap_or_default(),
        })
    }
}
