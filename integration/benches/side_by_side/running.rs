//! The processes of one peer in one case.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use outrigger_integration::address;
use outrigger_integration::bootstrap::Values;
use outrigger_integration::client::{Outcome, Request};
use outrigger_integration::process::Process;
use tempfile::TempDir;

use crate::config::{Case, configs};
use crate::machine;
use crate::peer::{Peer, launch};
use crate::tools::Tools;
use crate::upstream::{GRPC, GRPC_PATH, LARGE, LARGE_PATH, SMALL, Upstream};

/// A peer that serves.
pub(crate) struct Running {
    /// Who.
    pub(crate) peer: Peer,
    /// Where load comes in.
    pub(crate) entry: SocketAddr,
    processes: Vec<Process>,
    _folder: TempDir,
}

impl Running {
    /// Starts it and waits until `probe` is answered as it should be. `None`: this peer cannot do that.
    pub(crate) async fn start(
        case: Case,
        peer: Peer,
        tools: &Tools,
        upstream: &Upstream,
        probe: &Probe,
    ) -> Result<Option<Running>> {
        let Some(configs) = configs(case, peer) else { return Ok(None) };
        let running = Running::launch(peer, case, &configs, tools, upstream)?;
        running.ready(probe).await?;
        Ok(Some(running))
    }

    /// As [`Running::start`], without waiting.
    pub(crate) fn launch(
        peer: Peer,
        case: Case,
        configs: &[String],
        tools: &Tools,
        upstream: &Upstream,
    ) -> Result<Running> {
        let folder = tempfile::tempdir()?;
        let authority = upstream.authority();
        authority.write(folder.path(), "ca")?;
        let leaf = authority.leaf(&["spiffe://bench/proxy", "proxy"])?;
        leaf.write(folder.path(), "leaf")?;
        std::fs::write(
            folder.path().join("leaf.pem"),
            format!("{}{}", leaf.certificate, leaf.key),
        )?;
        let entry = match case {
            // Reached by a name.
            Case::TlsPassthrough => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?,
            _ => address::free()?,
        };
        let middle = address::free()?;
        let mut values = Values::new();
        values.text("DIR", &folder.path().display().to_string());
        values.address("ENTRY", entry);
        values.address("MIDDLE", middle);
        upstream.fill(&mut values);
        let mut processes = Vec::new();
        // The far end first, and listening: what is in front of it may look at once whether it is there.
        for (index, text) in configs.iter().enumerate().rev() {
            let name = format!("{index}");
            processes.push(launch(peer, tools, folder.path(), &name, &values.fill(text))?);
            if index > 0 {
                listens(middle)?;
            }
        }
        Ok(Running { peer, entry, processes, _folder: folder })
    }

    async fn ready(&self, probe: &Probe) -> Result<()> {
        let mut last = None;
        for _ in 0..500 {
            let outcome = probe.send(self.entry).await;
            if probe.is_right(&outcome) {
                return Ok(());
            }
            last = Some(outcome);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let logs: Vec<String> = self.processes.iter().map(Process::tail).collect();
        bail!("{}: {last:?}\n{}", self.peer, logs.join("\n"));
    }

    /// Says whether it still answers rightly.
    pub(crate) async fn check(&self, probe: &Probe) -> Result<()> {
        let outcome = probe.send(self.entry).await;
        ensure!(probe.is_right(&outcome), "{} answered {outcome:?}", self.peer);
        Ok(())
    }

    /// The ids of its processes.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// Resident memory of all its processes, in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        machine::resident(&self.ids())
    }
}

fn listens(address: SocketAddr) -> Result<()> {
    for _ in 0..1000 {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nobody listens on {address}");
}

/// A request whose answer is known to the byte.
#[derive(Clone)]
pub(crate) struct Probe {
    request: Request,
    body: Vec<u8>,
    is_grpc: bool,
}

impl Probe {
    /// The small answer by HTTP/1.
    pub(crate) fn small() -> Probe {
        Probe { request: Request::get("/"), body: SMALL.into(), is_grpc: false }
    }

    /// The large answer by HTTP/1.
    pub(crate) fn large() -> Probe {
        let body = b"0123456789abcdef".repeat(LARGE / 16);
        Probe { request: Request::get(LARGE_PATH), body, is_grpc: false }
    }

    /// A gRPC call.
    pub(crate) fn grpc() -> Probe {
        let request = Request::post(GRPC_PATH, GRPC.as_slice())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .http2();
        Probe { request, body: GRPC.to_vec(), is_grpc: true }
    }

    /// By HTTP/2.
    pub(crate) fn http2(mut self) -> Probe {
        self.request = self.request.http2();
        self
    }

    /// Over TLS.
    pub(crate) fn tls(mut self, config: &Arc<rustls::ClientConfig>, name: &str) -> Probe {
        self.request = self.request.tls(config, name);
        self
    }

    async fn send(&self, to: SocketAddr) -> Outcome {
        self.request.send(to).await
    }

    fn is_right(&self, outcome: &Outcome) -> bool {
        let Outcome::Response(response) = outcome else { return false };
        let trailer =
            response.trailers.iter().any(|(name, value)| name == "grpc-status" && value == "0");
        response.status == 200
            && !response.truncated
            && response.body == self.body
            && (trailer || !self.is_grpc)
    }
}
