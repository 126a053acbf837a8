//! Instructions, for what time cannot show on a shared machine: regressions.
//!
//! Our release binary runs under callgrind, once with N of something and once with 2N; the difference by N is what one
//! costs outside the kernel. `benches/instructions.json` has what each cost when it was last accepted.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use outrigger_integration::address;
use outrigger_integration::bootstrap::Values;
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::peers::apt_install;
use outrigger_integration::process::Process;
use outrigger_proto::json::Schema;
use rustix::process::Signal;
use tempfile::TempDir;

use super::Bench;
use crate::config::{Case, configs, control_plane_client};
use crate::measure::{Line, Target};
use crate::peer::Peer;
use crate::resources;
use crate::xds::Server;

/// More than a tenth above what was accepted is a regression.
const TOLERANCE: f64 = 1.10;

/// valgrind is fifty times slower than the machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Clusters among which one changes.
const CLUSTERS: usize = 1000;

/// What is counted.
#[derive(Debug, Clone, Copy)]
enum Subject {
    /// A request by HTTP/1: headers in and out, one route, one endpoint.
    Http1,
    /// A request by HTTP/2 on both sides.
    Http2,
    /// A request past 20 policies, a rate limit and 199 routes, with a line in the log.
    Everything,
    /// An update of endpoints: decode, apply, acknowledge.
    Endpoints,
    /// An update of a cluster: decode, convert, snapshot, acknowledge.
    Cluster,
}

const SUBJECTS: [(Subject, &str, u64); 5] = [
    (Subject::Http1, "request, HTTP/1", 1000),
    (Subject::Http2, "request, HTTP/2", 1000),
    (Subject::Everything, "request, everything on", 1000),
    (Subject::Endpoints, "endpoints of one cluster among 1,000", 100),
    (Subject::Cluster, "one cluster among 1,000", 100),
];

pub(super) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    println!("instructions: under callgrind");
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("installing valgrind ...");
        apt_install(&["valgrind"])?;
    }
    let file = baseline();
    let mut accepted: BTreeMap<String, f64> = match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).context("instructions.json")?,
        Err(_) => BTreeMap::new(),
    };
    let mut lines = Vec::new();
    for (subject, name, count) in SUBJECTS {
        let once = total(bench, subject, count).await?;
        let twice = total(bench, subject, 2 * count).await?;
        let each = (twice - once) / count as f64;
        println!("  {name}: {each:.0}");
        let mut line = Line::new(format!("instructions: {name}"), "instructions");
        line.add(Peer::Outrigger, each);
        if let Some(before) = accepted.get(name) {
            line = line.target(Target::Below((before * TOLERANCE).round()));
        }
        accepted.insert(name.to_owned(), each.round());
        lines.push(line);
    }
    if bench.options.accept {
        fs::write(&file, serde_json::to_string_pretty(&accepted)? + "\n")?;
        println!("accepted: {}", file.display());
    }
    Ok(lines)
}

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json")
}

/// All instructions of a process that did `count` of it, from start to end.
async fn total(bench: &Bench<'_>, subject: Subject, count: u64) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let entry = address::free()?;
    let mut counted = match subject {
        Subject::Http1 | Subject::Http2 | Subject::Everything => {
            let (case, protocol) = match subject {
                Subject::Http2 => (Case::Http2, Protocol::Http2),
                Subject::Everything => (Case::Everything, Protocol::Http1),
                _ => (Case::Http1, Protocol::Http1),
            };
            let mut values = Values::new();
            values.text("DIR", &folder.path().display().to_string());
            values.address("ENTRY", entry);
            bench.upstream.fill(&mut values);
            let texts = configs(case, Peer::Outrigger).context("configuration")?;
            let text = values.fill(texts.first().context("configuration")?);
            let counted = Counted::start(bench, &folder, &text)?;
            counted.serves(entry).await?;
            requests(entry, protocol, count).await?;
            counted
        }
        Subject::Endpoints | Subject::Cluster => {
            let schema = Schema::load().map_err(|error| anyhow!("{error}"))?;
            let server = Server::start().await?;
            resources::fill(&server, &schema, CLUSTERS, entry, bench.upstream.http())?;
            let text = control_plane_client(server.address(), address::free()?);
            let counted = Counted::start(bench, &folder, &text)?;
            counted.serves(entry).await?;
            let upstream = bench.upstream.http();
            for change in 1..=count {
                let (sent, _) = server.counts()?;
                let name = format!("cluster-{}", CLUSTERS / 2);
                match subject {
                    Subject::Cluster => {
                        server.push(
                            &name,
                            &resources::cluster(&schema, &name, change)?,
                            1 + change,
                        );
                    }
                    _ => {
                        let message =
                            resources::assignment(&schema, CLUSTERS / 2, upstream, change)?;
                        server.push(&name, &message, 1 + change);
                    }
                }
                server.acknowledged(sent + 1).await?;
            }
            counted
        }
    };
    counted.end()
}

async fn requests(entry: SocketAddr, protocol: Protocol, count: u64) -> Result<()> {
    let mut connection = Connection::open(entry, protocol, None).await?;
    let request = match protocol {
        Protocol::Http1 => Request::get("/"),
        Protocol::Http2 => Request::get("/").http2(),
    };
    for _ in 0..count {
        let response = connection.send(&request).await?;
        ensure!(response.status == 200, "{response:?}");
    }
    Ok(())
}

/// A sidecar under callgrind.
struct Counted {
    process: Process,
}

impl Counted {
    fn start(bench: &Bench<'_>, folder: &TempDir, text: &str) -> Result<Counted> {
        let file = folder.path().join("bootstrap.yaml");
        fs::write(&file, text)?;
        let mut command = Command::new("valgrind");
        let out = folder.path().join("callgrind.out");
        command.args(["--tool=callgrind", "--compress-strings=no"]);
        command.arg(format!("--callgrind-out-file={}", out.display()));
        command.arg(&bench.tools.outrigger).args(["sidecar", "-c"]).arg(&file);
        command.args(["--concurrency", "1", "--log-level", "error", "--drain-time-s", "1"]);
        Ok(Counted { process: Process::spawn("valgrind", command)? })
    }

    async fn serves(&self, entry: SocketAddr) -> Result<()> {
        let begin = Instant::now();
        // Seldom: what asks costs instructions too, and not always the same number of them.
        while Request::get("/").send(entry).await.status() == 0 {
            ensure!(begin.elapsed() < LIMIT, "does not serve:\n{}", self.process.tail());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    /// Ends it; the number that callgrind prints then.
    fn end(&mut self) -> Result<f64> {
        self.process.signal(Signal::TERM)?;
        let line = self.process.wait_for_line("Collected :", LIMIT)?;
        let number = line.rsplit(' ').next().context("callgrind's number")?;
        number.parse().with_context(|| line.clone())
    }
}
