//! Many clusters by incremental ADS: how long, how much, and what one change among them costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use outrigger_integration::address;
use outrigger_integration::client::Request;
use outrigger_integration::process::Process;
use outrigger_proto::json::Schema;
use tempfile::TempDir;

use super::Bench;
use crate::config::control_plane_client;
use crate::load::Load;
use crate::machine::{Cpu, resident};
use crate::measure::{Line, Target};
use crate::peer::{Peer, launch};
use crate::resources;
use crate::xds::Server;

const CLUSTERS: usize = 10_000;
const FEW: usize = 100;
/// Changes of one endpoint that are measured together.
const CHANGES: u64 = 50;
const PEERS: [Peer; 2] = [Peer::Outrigger, Peer::Envoy];
const LIMIT: Duration = Duration::from_secs(120);

/// A proxy that has everything from a server of ours.
struct Fed {
    server: Server,
    schema: Schema,
    entry: std::net::SocketAddr,
    process: Process,
    took: Duration,
    _folder: TempDir,
}

impl Fed {
    async fn start(bench: &Bench<'_>, peer: Peer, clusters: usize) -> Result<Fed> {
        let schema = Schema::load().map_err(|error| anyhow!("{error}"))?;
        let server = Server::start().await?;
        let (entry, admin) = (address::free()?, address::free()?);
        resources::fill(&server, &schema, clusters, entry, bench.upstream.http())?;
        let folder = tempfile::tempdir()?;
        let text = control_plane_client(server.address(), admin);
        let begin = Instant::now();
        let process = launch(peer, bench.tools, folder.path(), "fed", &text)?;
        loop {
            if Request::get("/").send(entry).await.status() == 200 {
                break;
            }
            server.counts()?;
            ensure!(begin.elapsed() < LIMIT, "{peer} does not serve:\n{}", process.tail());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = begin.elapsed();
        Ok(Fed { server, schema, entry, process, took, _folder: folder })
    }

    fn cpu(&self) -> Result<Cpu> {
        Cpu::of(&[self.process.id()])
    }

    /// Microseconds of CPU a second while nothing changes, from some seconds after the last change on: what is acknowledged
    /// late, and given back late, is over by then.
    async fn idle(&self) -> Result<f64> {
        let (sent, _) = self.server.counts()?;
        self.server.acknowledged(sent).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (before, begin) = (self.cpu()?, Instant::now());
        tokio::time::sleep(Duration::from_secs(4)).await;
        let elapsed = begin.elapsed().as_secs_f64();
        Ok(self.cpu()?.since(before).microseconds() / elapsed)
    }

    /// Changes one endpoint of a cluster and waits for the acknowledgement, again and again; microseconds of CPU a change,
    /// without what passes while nothing changes.
    async fn changes(&self, bench: &Bench<'_>, cluster: usize, idle: f64) -> Result<f64> {
        let (before, begin) = (self.cpu()?, Instant::now());
        for change in 1..=CHANGES {
            let (sent, _) = self.server.counts()?;
            let message =
                resources::assignment(&self.schema, cluster, bench.upstream.http(), change)?;
            self.server.push(&format!("cluster-{cluster}"), &message, 1 + change);
            self.server.acknowledged(sent + 1).await?;
        }
        let used = self.cpu()?.since(before).microseconds();
        Ok((used - idle * begin.elapsed().as_secs_f64()).max(1.0) / CHANGES as f64)
    }
}

pub(super) async fn clusters(bench: &Bench<'_>) -> Result<Vec<Line>> {
    println!("clusters: {CLUSTERS} x 10 endpoints by delta ADS");
    let at_most = |limit| Target::AtMost(limit, Peer::Envoy);
    let mut time = Line::new("10,000 clusters: to serving", "ms").target(at_most(0.4));
    let mut cpu = Line::new("10,000 clusters: CPU until then", "ms").target(at_most(0.4));
    let mut memory = Line::new("10,000 clusters: memory", "MiB").target(at_most(0.4));
    let mut idle = Line::new("10,000 clusters: CPU while idle", "ms per s").target(at_most(1.0));
    let mut change = Line::new("one endpoint changed among them", "us of CPU").target(at_most(0.1));
    let mut grows =
        Line::new("the same, by that among 100 clusters", "x").target(Target::Below(1.5));
    for _ in 0..bench.options.restarts {
        for peer in PEERS {
            let fed = Fed::start(bench, peer, CLUSTERS).await?;
            time.add(peer, fed.took.as_secs_f64() * 1e3);
            cpu.add(peer, fed.cpu()?.whole_milliseconds());
            let rests = fed.idle().await?;
            idle.add(peer, rests / 1e3);
            memory.add(peer, resident(&[fed.process.id()])?);
            let among_many = fed.changes(bench, CLUSTERS / 2, rests).await?;
            change.add(peer, among_many);
            drop(fed);
            let few = Fed::start(bench, peer, FEW).await?;
            let rests = few.idle().await?;
            grows.add(peer, among_many / few.changes(bench, FEW / 2, rests).await?);
        }
    }
    Ok(vec![time, cpu, memory, idle, change, grows])
}

/// Throughput while endpoints, weights and clusters change a hundred times a second, by that while nothing changes.
pub(super) async fn updates(bench: &Bench<'_>) -> Result<Vec<Line>> {
    println!("updates: 100 a second, under load");
    let mut line =
        Line::new("throughput kept at 100 updates/s", "part").target(Target::Above(0.97));
    for _ in 0..bench.options.restarts {
        for peer in PEERS {
            // Fresh processes: some never recover from their updates.
            let fed = Fed::start(bench, peer, FEW).await?;
            let entry = fed.entry;
            let seconds = bench.options.seconds;
            let load = move || tokio::task::spawn_blocking(move || Load::Small.run(entry, seconds));
            tokio::task::spawn_blocking(move || Load::Small.run(entry, 1)).await??;
            for round in 0..bench.options.rounds as u64 {
                let quiet = load().await??;
                let busy = load();
                let mut pace = tokio::time::interval(Duration::from_millis(10));
                let mut change = round * 1_000_000;
                while !busy.is_finished() {
                    pace.tick().await;
                    change += 1;
                    // Every other one is of the cluster that serves.
                    let cluster = if change % 2 == 0 { 0 } else { change as usize % FEW };
                    let message =
                        resources::assignment(&fed.schema, cluster, bench.upstream.http(), change)?;
                    fed.server.push(&format!("cluster-{cluster}"), &message, change);
                }
                let busy = busy.await?.context("requests failed while configuration changed")?;
                fed.server.counts()?;
                line.add(peer, busy / quiet);
                println!("  {peer:<9} {quiet:.0} requests, {busy:.0} with updates");
            }
        }
    }
    Ok(vec![line])
}
