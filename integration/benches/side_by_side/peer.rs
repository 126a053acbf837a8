//! Who is measured, and how each is started.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use outrigger_integration::process::Process;

use crate::machine;
use crate::tools::Tools;

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// Our sidecar.
    Outrigger,
    /// Real Envoy 1.40: everything is a ratio to it.
    Envoy,
    /// Debian's HAProxy.
    Haproxy,
    /// Debian's nginx.
    Nginx,
}

impl Peer {
    /// In the order in which they run and are printed.
    pub(crate) const ALL: [Peer; 4] = [Peer::Outrigger, Peer::Envoy, Peer::Haproxy, Peer::Nginx];

    /// As in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Outrigger => "outrigger",
            Peer::Envoy => "envoy",
            Peer::Haproxy => "haproxy",
            Peer::Nginx => "nginx",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// Starts a proxy on the proxies' core. `folder` gets its configuration, under a name that tells several apart.
pub(crate) fn launch(
    peer: Peer,
    tools: &Tools,
    folder: &Path,
    name: &str,
    config: &str,
) -> Result<Process> {
    launch_workers(peer, tools, folder, name, config, 1)
}

/// As [`launch`], with several workers, each of which gets a core if there are enough.
pub(crate) fn launch_workers(
    peer: Peer,
    tools: &Tools,
    folder: &Path,
    name: &str,
    config: &str,
    workers: usize,
) -> Result<Process> {
    let extension = match peer {
        Peer::Outrigger | Peer::Envoy => "yaml",
        Peer::Haproxy | Peer::Nginx => "conf",
    };
    let file: PathBuf = folder.join(format!("{name}.{extension}"));
    fs::write(&file, config)?;
    let mut command = machine::pinned(&machine::proxy_cores(workers));
    match peer {
        Peer::Outrigger => {
            command.arg(&tools.outrigger).arg("sidecar");
            envoy_arguments(&mut command, &file, workers);
        }
        Peer::Envoy => {
            command.arg(&tools.envoy).arg("--disable-hot-restart");
            envoy_arguments(&mut command, &file, workers);
        }
        Peer::Haproxy => {
            command.args(["haproxy", "-db", "-f"]).arg(&file);
        }
        Peer::Nginx => {
            command.args(["nginx", "-c"]).arg(&file);
        }
    }
    Process::spawn(peer.name(), command)
}

fn envoy_arguments(command: &mut Command, file: &Path, workers: usize) {
    command.arg("-c").arg(file);
    command.args(["--concurrency", &workers.to_string(), "--log-level", "error"]);
}
