//! Running programs, and what the kernel says about what they have used. Linux only.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::{Child, ChildStdout, Command};

/// The unit of times in `/proc`, which Linux fixed for programs on all the machines we run on.
const TICKS_PER_SECOND: u32 = 100;
const START_MAX: Duration = Duration::from_secs(30);
const LOG_TAIL_CHARS: usize = 2000;

/// A running program whose output goes to a file. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts it in `directory`, which is also its home.
    pub(crate) fn start(name: &'static str, mut command: Command, directory: &Path) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command.current_dir(directory).env("HOME", directory).stdin(Stdio::null()).stderr(output).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let pid = child.id().with_context(|| format!("find the process of {name}"))?;
        Ok(Self { name, child, pid, log })
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// By which the kernel knows it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its standard output, if it was piped and nobody took it yet.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until somebody can connect.
    pub(crate) async fn wait_for(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            self.check_alive()?;
            if Instant::now() > deadline {
                bail!("{} does not listen on {address}:\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// # Errors
    /// With the end of its log, when it has ended.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().with_context(|| format!("look after {}", self.name))? {
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
            None => Ok(()),
        }
    }

    /// The end of what it said.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let skipped = text.chars().count().saturating_sub(LOG_TAIL_CHARS);
        text.chars().skip(skipped).collect()
    }

    /// Ends it and waits for the end. What it holds is thrown away, so nothing is lost by force.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("stop {}", self.name))
    }
}

/// An address on this machine that was free a moment ago.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    listener.local_addr().context("find a free port")
}

/// The CPU time of a process in user and kernel mode, with that of its ended children.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = read_proc(&format!("{pid}/stat"))?;
    // The program's name comes second, in parentheses, and may hold anything.
    let (_, after_name) = stat.rsplit_once(')').context("read the CPU time of a process")?;
    // utime, stime, cutime and cstime are fields 14 to 17; the first one here is field 3.
    let times = after_name.split_whitespace().skip(11).take(4).map(str::parse::<u32>);
    let ticks = times.sum::<Result<u32, _>>().context("read the CPU time of a process")?;
    Ok(Duration::from_secs(u64::from(ticks)) / TICKS_PER_SECOND)
}

/// Memory of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What it holds now.
    pub(crate) resident_bytes: u64,
    /// The most it held since [`forget_peak`].
    pub(crate) peak_bytes: u64,
}

/// The memory of a process.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = read_proc(&format!("{pid}/status"))?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024).with_context(|| format!("find {name} of process {pid}"))
    };
    Ok(Memory { resident_bytes: bytes("VmRSS:")?, peak_bytes: bytes("VmHWM:")? })
}

/// Lets the peak begin anew at what the process holds now.
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("write {path}"))
}

/// CPU time of the whole machine since it started, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineTime {
    idle: u64,
    total: u64,
}

impl MachineTime {
    /// As it is now.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let stat = read_proc("stat")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in these.
        let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let ticks: Vec<u64> =
            fields.map(str::parse).collect::<Result<_, _>>().context("read the machine's CPU times")?;
        let idle = ticks.iter().skip(3).take(2).sum();
        Ok(Self { idle, total: ticks.iter().sum() })
    }

    /// CPU time that was used since `earlier`.
    pub(crate) fn busy_since(self, earlier: Self) -> Duration {
        let busy_ticks = |time: Self| time.total - time.idle;
        Duration::from_secs(busy_ticks(self).saturating_sub(busy_ticks(earlier))) / TICKS_PER_SECOND
    }

    /// How much of the time since `earlier` no processor had work, in percent.
    pub(crate) fn idle_percent_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        100.0 * self.idle.saturating_sub(earlier.idle) as f64 / total as f64
    }
}

fn read_proc(name: &str) -> anyhow::Result<String> {
    fs::read_to_string(format!("/proc/{name}")).with_context(|| format!("read /proc/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_this_process_has_used() {
        let pid = std::process::id();
        let began = (cpu_time(pid).unwrap(), MachineTime::now().unwrap(), Instant::now());
        let mut noise = 1_u64;
        while began.2.elapsed() < Duration::from_millis(60) {
            noise = std::hint::black_box(noise.wrapping_mul(31));
        }
        let used = cpu_time(pid).unwrap() - began.0;
        assert!((Duration::from_millis(10)..Duration::from_secs(2)).contains(&used), "{used:?}");
        let idle_percent = MachineTime::now().unwrap().idle_percent_since(began.1);
        assert!((0.0..100.0).contains(&idle_percent), "{idle_percent}");
        let memory = memory(pid).unwrap();
        assert!(memory.resident_bytes > 1 << 20 && memory.peak_bytes >= memory.resident_bytes, "{memory:?}");
    }
}
