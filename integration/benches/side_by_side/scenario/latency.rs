//! Latency that a proxy adds, at 30% of what Envoy can do on this machine, all of them at that same rate.
//!
//! Open loop: requests are due at their time, however late the ones before are, and their latency counts from then. What
//! the way without any proxy takes at the same rate is subtracted.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Bench;
use crate::config::Case;
use crate::load::Load;
use crate::machine;
use crate::measure::{Line, Target};
use crate::peer::Peer;
use crate::running::{Probe, Running};
use crate::tools::oha;

/// A percentile, oha's name of it, and the target.
const PERCENTILES: [(&str, &str); 3] = [("p50", "p50"), ("p99", "p99"), ("p99.9", "p99.9")];

/// Less than this cannot be told from nothing.
const LEAST: f64 = 0.001;

pub(super) async fn run(bench: &Bench<'_>, case: Case) -> Result<Vec<Line>> {
    let oha = oha()?;
    let (words, p50) = match case {
        Case::Pair => ("pair", 0.5),
        _ => ("one proxy", 0.25),
    };
    println!("latency: {words}");
    let mut lines = PERCENTILES.map(|(name, _)| {
        let limit = if name == "p50" { p50 } else { 1.0 };
        let line = Line::new(format!("latency added, {words}, {name}"), "ms");
        line.target(Target::AtMost(limit, Peer::Envoy))
    });
    let probe = Probe::small();
    for _ in 0..bench.options.restarts {
        let mut running = Vec::new();
        for peer in Peer::ALL {
            running.extend(Running::start(case, peer, bench.tools, bench.upstream, &probe).await?);
        }
        let envoy = running.iter().find(|one| one.peer == Peer::Envoy).context("Envoy")?;
        Load::Small.run(envoy.entry, 1)?;
        let seconds = bench.options.seconds.min(3);
        let rate = (Load::Small.run(envoy.entry, seconds)? / seconds as f64 * 0.3).max(1.0);
        println!("  {rate:.0} requests/s");
        for _ in 0..bench.options.rounds {
            let direct = open_loop(&oha, bench.upstream.http(), rate, bench.options.seconds)?;
            for one in &running {
                let through = open_loop(&oha, one.entry, rate, bench.options.seconds)?;
                for ((line, through), direct) in lines.iter_mut().zip(through).zip(direct) {
                    line.add(one.peer, (through - direct).max(LEAST));
                }
            }
        }
    }
    Ok(lines.into())
}

/// The percentiles, in milliseconds. Every answer is a 200.
fn open_loop(oha: &Path, to: SocketAddr, rate: f64, seconds: u64) -> Result<[f64; 3]> {
    let output = machine::pinned(&machine::load_core())
        .arg(oha)
        .args(["--no-tui", "--output-format", "json", "--latency-correction", "-c", "64"])
        .args(["-q", &format!("{rate:.0}"), "-z", &format!("{seconds}s")])
        .arg(format!("http://{to}/"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value: Value = serde_json::from_str(&text)
        .with_context(|| format!("oha: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let statuses = value["statusCodeDistribution"].as_object().context("oha's statuses")?;
    ensure!(statuses.len() == 1 && statuses.contains_key("200"), "{to}: {statuses:?}");
    let mut found = [0.0; 3];
    for (place, (_, name)) in found.iter_mut().zip(PERCENTILES) {
        let seconds = value["latencyPercentiles"][name].as_f64();
        *place = seconds.with_context(|| format!("oha's {name}"))? * 1e3;
    }
    Ok(found)
}
