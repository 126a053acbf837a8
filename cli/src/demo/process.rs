//! One child process: started with its output in a file, ended with its parent.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use crate::watchdog;

/// Variables that would change what a child does.
const FOREIGN_VARIABLES: [&str; 3] = ["OUTRIGGER_API", "OUTRIGGER_JOIN", "RUST_LOG"];

/// A running child of this binary. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Held open: the child ends when it closes.
    _lifeline: Option<ChildStdin>,
}

impl Process {
    /// Starts `outrigger ARGUMENTS...`; what it prints is appended to `NAME.log` in the folder.
    pub(crate) fn start(
        name: &str,
        logs: &Path,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let log = logs.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(watchdog::VARIABLE, "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // ^C on the terminal is for us; we end the children in order.
            .process_group(0)
            .kill_on_drop(true);
        for variable in FOREIGN_VARIABLES {
            command.env_remove(variable);
        }
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let lifeline = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, log, _lifeline: lifeline })
    }

    /// Its process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it did.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// [`Ended`] if not.
    pub(crate) fn check(&mut self) -> Result<(), Ended> {
        match self.ended() {
            None => Ok(()),
            Some(status) => {
                Err(Ended { name: self.name.clone(), status, last_words: self.last_words() })
            }
        }
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(8);
        lines[first..].iter().map(|line| format!("  {line}\n")).collect()
    }

    /// All it has printed.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, and its end awaited.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// SIGTERM, and its end awaited.
    ///
    /// # Errors
    /// When it did not end in time (it is killed then), or ended with an exit code other than 0.
    pub(crate) async fn terminate(mut self, patience: Duration) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    bail!("{} ended with {status}:\n{}", self.name, self.last_words());
                }
                Ok(())
            }
            Err(_) => {
                self.child.kill().await?;
                bail!("{} did not end within {patience:?} of SIGTERM and was killed", self.name)
            }
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid =
            self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).ok_or_else(
                || anyhow!("{} has ended already:\n{}", self.name, self.last_words()),
            )?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }
}

/// A process is not running any more, though nobody told it to end.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended ({status}); its last words:\n{last_words}")]
pub(crate) struct Ended {
    name: String,
    status: ExitStatus,
    last_words: String,
}

/// Memory of a process in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident, pages shared with other processes counted in each of them.
    pub(crate) resident: u64,
    /// Resident, a page shared by n processes counted as 1/n: these add up to what the machine really gives.
    pub(crate) proportional: u64,
}

impl Memory {
    /// Of the process with this id, from the kernel's `smaps_rollup`.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).context(path)?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
                .map(|kilobytes| kilobytes * 1024)
        };
        match (field("Rss:"), field("Pss:")) {
            (Some(resident), Some(proportional)) => Ok(Self { resident, proportional }),
            _ => bail!("no Rss and Pss in /proc/{pid}/smaps_rollup"),
        }
    }
}

impl std::iter::Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |sum, one| Self {
            resident: sum.resident + one.resident,
            proportional: sum.proportional + one.proportional,
        })
    }
}
