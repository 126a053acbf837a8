//! Runs a proxy from the text of an Envoy bootstrap: real Envoy, or our sidecar. Both are asked by the same admin paths.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::address;
use crate::client::{Outcome, Request};
use crate::peers::peers;
use crate::process::Process;

/// How long a proxy may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Real Envoy 1.40.
    Envoy,
    /// Our sidecar.
    Outrigger,
}

impl Kind {
    /// Whether it can be started here. With `CI` set it has to be; elsewhere whoever is left out for it is told so.
    ///
    /// # Panics
    /// With `CI` set, if it cannot.
    pub fn is_runnable(self) -> bool {
        let Err(error) = program(self) else { return true };
        #[allow(clippy::panic, reason = "the verdict of a test: none may be skipped there")]
        if std::env::var_os("CI").is_some() {
            panic!("{self} cannot be started: {error:#}");
        }
        eprintln!("SKIPPED, because {self} cannot be started: {error:#}");
        false
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Kind::Envoy => "envoy",
            Kind::Outrigger => "outrigger",
        })
    }
}

/// A running proxy. It is killed when dropped.
pub struct Proxy {
    /// Which one it is.
    pub kind: Kind,
    /// Its admin interface.
    pub admin: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Proxy {
    /// Writes the bootstrap (without `admin`, which is added here) to a file, starts the proxy from it with one worker,
    /// and waits until `/ready` says `LIVE`.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not ready in time.
    pub async fn start(kind: Kind, bootstrap: &str) -> Result<Proxy> {
        let proxy = Proxy::launch(kind, bootstrap, &[])?;
        proxy.ready().await
    }

    /// As [`Proxy::start`], without waiting.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(kind: Kind, bootstrap: &str, more: &[&str]) -> Result<Proxy> {
        let folder = tempfile::tempdir()?;
        let admin = address::free()?;
        let file = folder.path().join("bootstrap.yaml");
        let (host, port) = (admin.ip(), admin.port());
        let text = format!(
            "admin: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}\n{bootstrap}"
        );
        fs::write(&file, text)?;
        let mut command = program(kind)?;
        command.arg("-c").arg(&file).args(["--concurrency", "1", "--log-level", "warning"]);
        command.args(more);
        if kind == Kind::Envoy {
            // Several on one machine, and an access log that can be read at once.
            command.args(["--disable-hot-restart", "--file-flush-interval-msec", "50"]);
        }
        let process = Process::spawn(&kind.to_string(), command)?;
        Ok(Proxy { kind, admin, process, _folder: folder })
    }

    /// Waits until `/ready` says `LIVE`.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub async fn ready(mut self) -> Result<Proxy> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.process.exit_status()? {
                bail!("{} ended with {status}:\n{}", self.kind, self.process.tail());
            }
            let outcome =
                Request::get("/ready").host(&self.admin.to_string()).send(self.admin).await;
            if outcome.status() == 200 {
                return Ok(self);
            }
            if Instant::now() > deadline {
                bail!("{} is not ready: {outcome:?}\n{}", self.kind, self.process.tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks the admin interface.
    ///
    /// # Errors
    /// There is no answer, or it is not 200.
    pub async fn admin(&self, path: &str) -> Result<String> {
        let outcome = Request::get(path).host(&self.admin.to_string()).send(self.admin).await;
        if outcome.status() != 200 {
            bail!("GET {path} of {}: {outcome:?}", self.kind);
        }
        Ok(outcome.body())
    }

    /// Tells the admin interface to do something.
    ///
    /// # Errors
    /// There is no answer, or it is not 200.
    pub async fn command(&self, path: &str) -> Result<String> {
        let outcome: Outcome =
            Request::new("POST", path).host(&self.admin.to_string()).send(self.admin).await;
        if outcome.status() != 200 {
            bail!("POST {path} of {}: {outcome:?}", self.kind);
        }
        Ok(outcome.body())
    }

    /// One counter or gauge; 0 if it does not exist.
    ///
    /// # Errors
    /// The admin interface does not answer.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let text = self.admin("/stats").await?;
        let value = text.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            (key == name).then(|| value.trim().parse().ok()).flatten()
        });
        Ok(value.unwrap_or(0))
    }

    /// Waits until a counter or gauge satisfies `condition`; returns its value.
    ///
    /// # Errors
    /// It does not in `limit`.
    pub async fn wait_for_stat(
        &self,
        name: &str,
        limit: Duration,
        condition: impl Fn(u64) -> bool,
    ) -> Result<u64> {
        let deadline = Instant::now() + limit;
        loop {
            let value = self.stat(name).await?;
            if condition(value) {
                return Ok(value);
            }
            if Instant::now() > deadline {
                bail!("{name} of {} is {value} after {limit:?}", self.kind);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks it to stop by SIGTERM.
    ///
    /// # Errors
    /// It has ended already.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }
}

/// The command that starts a proxy, without arguments.
///
/// # Errors
/// It is not installed, or not built.
pub fn program(kind: Kind) -> Result<Command> {
    match kind {
        Kind::Envoy => {
            let peers = peers().context("Envoy is not installed")?;
            Ok(Command::new(&peers.envoy))
        }
        Kind::Outrigger => {
            let mut command = Command::new(outrigger()?);
            command.arg("sidecar");
            Ok(command)
        }
    }
}

/// The program under test, built by cargo together with the tests: `OUTRIGGER_BIN`, or the binary of this package that
/// does what `outrigger sidecar` and `outrigger control-plane` do. It lies beside the folder of the running test.
///
/// # Errors
/// It is not there, which means that the test was not started by cargo.
pub fn outrigger() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("OUTRIGGER_BIN") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("the folder of the test")?;
    let path = folder.join("outrigger-under-test");
    if !path.exists() {
        bail!("{} is missing; start the tests with cargo, or set OUTRIGGER_BIN", path.display());
    }
    Ok(path)
}
