//! From `exec` to the first 200, and the memory then.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outrigger_integration::client::Request;

use super::Bench;
use crate::config::{Case, configs};
use crate::measure::{Line, Target};
use crate::peer::Peer;
use crate::running::Running;

/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    println!("start");
    let mut time = Line::new("start to first 200", "ms").target(Target::AtMost(0.5, Peer::Envoy));
    let mut memory =
        Line::new("memory at the first 200", "MiB").target(Target::AtMost(0.25, Peer::Envoy));
    for _ in 0..bench.options.rounds * bench.options.restarts * 2 {
        for peer in Peer::ALL {
            let Some(configs) = configs(Case::Http1, peer) else { continue };
            let begin = Instant::now();
            let running =
                Running::launch(peer, Case::Http1, &configs, bench.tools, bench.upstream)?;
            while Request::get("/").send(running.entry).await.status() != 200 {
                ensure!(begin.elapsed() < LIMIT, "{peer} does not start");
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            time.add(peer, begin.elapsed().as_secs_f64() * 1e3);
            memory.add(peer, running.resident()?);
        }
    }
    Ok(vec![time, memory])
}
