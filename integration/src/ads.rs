//! The independent xDS server `fixtures/ads_server.py`: what a test puts into it goes to whoever subscribes, and
//! everything that clients send is there to be looked at.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::address;
use crate::peers::{Peers, fixture};
use crate::process::Process;

/// How long anything may take that involves the server.
const LIMIT: Duration = Duration::from_secs(20);

/// The two ways of aggregated discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

impl Variant {
    /// `api_type` in a bootstrap.
    pub fn api_type(self) -> &'static str {
        match self {
            Variant::Sotw => "GRPC",
            Variant::Delta => "DELTA_GRPC",
        }
    }
}

/// The running server.
pub struct AdsServer {
    process: Process,
    address: SocketAddr,
    folder: TempDir,
}

impl AdsServer {
    /// Starts it on a loopback address of its own, and on a Unix socket.
    ///
    /// # Errors
    /// It does not listen in time.
    pub fn start(peers: &Peers) -> Result<AdsServer> {
        let address = address::free()?;
        let mut command = Command::new(&peers.python);
        command.arg("-u").arg(fixture("ads_server.py")).arg(address.to_string());
        let folder = tempfile::tempdir()?;
        command.arg(format!("unix:{}", folder.path().join("socket").display()));
        let mut process = Process::spawn("ads_server.py", command)?;
        process.wait_for_line("\"listening\"", LIMIT)?;
        Ok(AdsServer { process, address, folder })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Unix socket on which it listens as well.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Replaces all resources of a type (`cds`, `eds`, `lds`, `rds`, `sds`) and pushes.
    ///
    /// # Errors
    /// The server has ended.
    pub fn set(&mut self, kind: &str, version: &str, resources: &[Value]) -> Result<()> {
        let command = json!({"set": kind, "version": version, "resources": resources});
        self.process.say(&command.to_string())
    }

    /// Ends every stream; clients may come back at once.
    ///
    /// # Errors
    /// The server has ended.
    pub fn disconnect(&mut self) -> Result<()> {
        self.process.say(&json!({"disconnect": true}).to_string())
    }

    /// Stops listening.
    ///
    /// # Errors
    /// The server has ended.
    pub fn stop(&mut self) -> Result<()> {
        self.process.say(&json!({"stop": true}).to_string())
    }

    /// Listens again, with the resources it had.
    ///
    /// # Errors
    /// The server has ended.
    pub fn restart(&mut self) -> Result<()> {
        self.process.say(&json!({"start": true}).to_string())
    }

    /// Every event so far, in order.
    pub fn events(&self) -> Vec<Value> {
        self.process.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How many events there are; with [`AdsServer::wait_since`] only later ones count.
    pub fn mark(&self) -> usize {
        self.events().len()
    }

    /// Waits for an event that comes after `mark` and satisfies `condition`.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn wait_since(
        &self,
        mark: usize,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let events = self.events();
            let since = events.get(mark..).unwrap_or_default();
            if let Some(event) = since.iter().find(|event| condition(event)) {
                return Ok(event.clone());
            }
            if Instant::now() > deadline {
                let all: Vec<String> = events.iter().map(Value::to_string).collect();
                bail!("no {what} among:\n{}", all.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for the acknowledgement of what is pushed after `mark`: a request with a nonce and without an error.
    ///
    /// # Errors
    /// There is none in time, or the push is rejected.
    pub async fn acknowledged(&self, mark: usize, kind: &str) -> Result<Value> {
        let answer = self.answer(mark, kind).await?;
        let error = answer["error"].as_str().unwrap_or_default();
        if !error.is_empty() {
            bail!("{kind} was rejected: {error}");
        }
        Ok(answer)
    }

    /// Waits for the rejection of what is pushed after `mark`; returns its text. An answer to what was pushed before may
    /// still come in between.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn rejected(&self, mark: usize, kind: &str) -> Result<String> {
        let error = |event: &Value| event["error"].as_str().unwrap_or_default().to_owned();
        let rejects = |event: &Value| {
            event["event"] == "request" && event["type"] == kind && !error(event).is_empty()
        };
        let event = self.wait_since(mark, &format!("rejection of {kind}"), rejects).await?;
        Ok(error(&event))
    }

    async fn answer(&self, mark: usize, kind: &str) -> Result<Value> {
        let answers = |event: &Value| {
            event["event"] == "request"
                && event["type"] == kind
                && event["nonce"].as_str().is_some_and(|nonce| !nonce.is_empty())
        };
        self.wait_since(mark, &format!("answer to {kind}"), answers).await.context("xDS server")
    }
}
