//! Runs our control plane, and speaks its REST interface.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::address;
use crate::client::{Outcome, Request};
use crate::process::Process;
use crate::proxy::outrigger;

/// How long it may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running control plane with a data folder of its own. It is killed when dropped.
pub struct ControlPlane {
    /// The REST interface.
    pub api: SocketAddr,
    /// Discovery and identity, mTLS.
    pub xds: SocketAddr,
    /// Discovery for foreign clients, plaintext.
    pub xds_insecure: SocketAddr,
    process: Process,
    folder: TempDir,
}

impl ControlPlane {
    /// Starts it and waits until `/readyz` says so.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not ready in time.
    pub async fn start() -> Result<ControlPlane> {
        let folder = tempfile::tempdir()?;
        let (api, xds, xds_insecure) = (address::free()?, address::free()?, address::free()?);
        let process = launch(&folder, [api, xds, xds_insecure])?;
        let mut control_plane = ControlPlane { api, xds, xds_insecure, process, folder };
        control_plane.ready().await?;
        Ok(control_plane)
    }

    /// Kills it and starts it again over the same data and addresses.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.process.signal(rustix::process::Signal::KILL)?;
        self.process.wait(Duration::from_secs(10))?;
        self.process = launch(&self.folder, [self.api, self.xds, self.xds_insecure])?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.process.exit_status()? {
                bail!("the control plane ended with {status}:\n{}", self.process.tail());
            }
            let outcome = Request::get("/readyz").host("api").send(self.api).await;
            if outcome.status() == 200 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the control plane is not ready: {outcome:?}\n{}", self.process.tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Applies documents as one transaction.
    ///
    /// # Errors
    /// It is refused.
    pub async fn apply(&self, documents: &str) -> Result<Value> {
        let request = Request::post("/v1/apply", documents.to_owned());
        answer(&request.header("content-type", "application/yaml").host("api").send(self.api).await)
    }

    /// Reads an address of the interface.
    ///
    /// # Errors
    /// The answer is not 200.
    pub async fn get(&self, path: &str) -> Result<Value> {
        answer(&Request::get(path).host("api").send(self.api).await)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The answer is not 204.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let outcome = Request::new("DELETE", path).host("api").send(self.api).await;
        if outcome.status() != 204 {
            bail!("DELETE {path}: {} {}", outcome.status(), outcome.body());
        }
        Ok(())
    }
}

fn launch(folder: &TempDir, [api, xds, xds_insecure]: [SocketAddr; 3]) -> Result<Process> {
    let mut command = Command::new(outrigger()?);
    command.arg("control-plane").arg("--data-dir").arg(folder.path());
    command.args(["--api", &api.to_string(), "--xds", &xds.to_string()]);
    command.args(["--xds-insecure", &xds_insecure.to_string()]);
    Process::spawn("control-plane", command)
}

fn answer(outcome: &Outcome) -> Result<Value> {
    if outcome.status() != 200 {
        bail!("{} {}", outcome.status(), outcome.body());
    }
    serde_json::from_str(&outcome.body()).context("the answer is not JSON")
}
