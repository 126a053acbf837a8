//! The machine: which core does what, and what a process has used.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Load generator and upstream: not where the proxies are.
const LOAD_CORE: usize = 1;

/// A command that stays on these cores.
pub(crate) fn pinned(cores: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]);
    command
}

/// The core, or the cores, of proxies with so many workers. With two cores in all, the second worker shares the load's:
/// such a figure says how two workers share work, not how fast they are.
pub(crate) fn proxy_cores(workers: usize) -> String {
    if workers == 1 {
        return "0".to_owned();
    }
    let all = cores();
    let mut own: Vec<usize> = (0..all).filter(|core| *core != LOAD_CORE).take(workers).collect();
    if own.len() < workers {
        own.push(LOAD_CORE);
    }
    own.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// Where load and upstream run.
pub(crate) fn load_core() -> String {
    LOAD_CORE.min(cores() - 1).to_string()
}

/// Keeps this process on the load's core, and lets it hold thousands of connections.
pub(crate) fn prepare() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let id = std::process::id().to_string();
    let output = Command::new("taskset").args(["-a", "-p", "-c", &load_core(), &id]).output()?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// How many cores there are; this process may have left itself one of them.
pub(crate) fn cores() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// What results were made on, in words.
pub(crate) fn description() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([':', ' ', '\t']);
    format!("Linux {}, {} x {model}", kernel.trim(), cores())
}

/// The load that others put on the machine, over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Processor time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// All of it, by the scheduler's clock.
    nanoseconds: f64,
    /// By the clock's ticks: coarse, good for the proportion only.
    user_ticks: f64,
    system_ticks: f64,
}

impl Cpu {
    /// What these processes have used since they began.
    pub(crate) fn of(processes: &[u32]) -> Result<Cpu> {
        let mut sum = Cpu::default();
        for id in processes {
            for task in fs::read_dir(format!("/proc/{id}/task"))? {
                // A thread may end while it is looked at.
                let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
                let first = text.split_whitespace().next().context("schedstat")?;
                sum.nanoseconds += first.parse::<f64>()?;
            }
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            // The name, in parentheses, may hold spaces; fields are counted behind it.
            let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let number = |index: usize| -> Result<f64> {
                Ok(fields.get(index).context("/proc/PID/stat")?.parse()?)
            };
            sum.user_ticks += number(11)?;
            sum.system_ticks += number(12)?;
        }
        Ok(sum)
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Cpu) -> Cpu {
        Cpu {
            nanoseconds: self.nanoseconds - before.nanoseconds,
            user_ticks: self.user_ticks - before.user_ticks,
            system_ticks: self.system_ticks - before.system_ticks,
        }
    }

    /// In milliseconds, by the ticks, which count threads that have ended as well: for what includes a start.
    pub(crate) fn whole_milliseconds(self) -> f64 {
        let second = rustix::param::clock_ticks_per_second() as f64;
        (self.user_ticks + self.system_ticks) / second * 1e3
    }

    /// In microseconds, of the threads that run.
    pub(crate) fn microseconds(self) -> f64 {
        self.nanoseconds / 1e3
    }

    /// The part outside the kernel, in microseconds.
    pub(crate) fn user_microseconds(self) -> f64 {
        let ticks = self.user_ticks + self.system_ticks;
        if ticks == 0.0 { 0.0 } else { self.microseconds() * self.user_ticks / ticks }
    }
}

/// Resident memory of processes, in MiB.
pub(crate) fn resident(processes: &[u32]) -> Result<f64> {
    let mut sum = 0.0;
    for id in processes {
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        sum += line.split_whitespace().nth(1).context("VmRSS")?.parse::<f64>()?;
    }
    Ok(sum / 1024.0)
}
