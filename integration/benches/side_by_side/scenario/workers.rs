//! Two workers instead of one: what sharing costs. A request should cost what it cost before.
//!
//! With two cores the second worker shares the load generator's: throughput says nothing then, CPU per request does.

use anyhow::Result;
use outrigger_integration::address;
use outrigger_integration::bootstrap::Values;
use outrigger_integration::client::Request;

use super::Bench;
use crate::config::envoy_plain;
use crate::load::Load;
use crate::machine::Cpu;
use crate::measure::{Line, Target};
use crate::peer::{Peer, launch_workers};

pub(super) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    println!("workers: CPU per request of two, by that of one");
    let mut line = Line::new("CPU per request, 2 workers by 1", "x").target(Target::Below(1.1));
    for _ in 0..bench.options.restarts {
        for peer in [Peer::Outrigger, Peer::Envoy] {
            let mut both = Vec::new();
            for workers in [1, 2] {
                let folder = tempfile::tempdir()?;
                let entry = address::free()?;
                let mut values = Values::new();
                values.address("ENTRY", entry);
                bench.upstream.fill(&mut values);
                let text = values.fill(&envoy_plain());
                let process =
                    launch_workers(peer, bench.tools, folder.path(), "workers", &text, workers)?;
                while Request::get("/").send(entry).await.status() != 200 {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                Load::Small.run(entry, 1)?;
                both.push((entry, process, folder));
            }
            for _ in 0..bench.options.rounds {
                let mut cost = [0.0; 2];
                for ((entry, process, _), cost) in both.iter().zip(&mut cost) {
                    let before = Cpu::of(&[process.id()])?;
                    let requests = Load::Small.run(*entry, bench.options.seconds)?;
                    *cost = Cpu::of(&[process.id()])?.since(before).microseconds() / requests;
                }
                line.add(peer, cost[1] / cost[0]);
            }
        }
    }
    Ok(vec![line])
}
