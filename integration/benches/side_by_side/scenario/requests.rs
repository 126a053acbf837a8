//! Processor time per request under closed-loop load: the unit that holds still on a shared machine.
//!
//! All peers run at the same time, and are loaded in turn: what is slow for a while is slow for all of them.

use std::sync::Arc;

use anyhow::Result;

use super::Bench;
use crate::config::Case;
use crate::load::Load;
use crate::machine::Cpu;
use crate::measure::{Line, Target};
use crate::peer::Peer;
use crate::running::{Probe, Running};

/// What to do.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) case: Case,
    pub(super) load: Load,
    pub(super) targets: Vec<Target>,
    /// The target for the part outside the kernel, as a ratio to Envoy's.
    pub(super) user: Option<f64>,
}

pub(super) async fn run(bench: &Bench<'_>, plan: Plan) -> Result<Vec<Line>> {
    println!("{}: {}", plan.name, plan.load.describe());
    let mut cpu = Line::new(plan.name, "us of CPU per request");
    cpu.targets = plan.targets;
    let mut user = Line::new(format!("{} (user part)", plan.name), "us of CPU per request");
    if let Some(limit) = plan.user {
        user = user.target(Target::AtMost(limit, Peer::Envoy));
    }
    let mut memory = Line::new(format!("{} (memory under load)", plan.name), "MiB");
    let probe = probe(bench, plan.load)?;
    for restart in 0..bench.options.restarts {
        let mut running = Vec::new();
        for peer in Peer::ALL {
            let one = Running::start(plan.case, peer, bench.tools, bench.upstream, &probe).await?;
            running.extend(one);
        }
        for one in &running {
            // Connections and memory are warm before anything counts.
            plan.load.run(one.entry, 1)?;
        }
        for round in 0..bench.options.rounds {
            // Nobody is always the first.
            let first = round % running.len();
            let (after, before) = (running.iter().take(first), running.iter().skip(first));
            for one in before.chain(after) {
                let before = Cpu::of(&one.ids())?;
                let requests = plan.load.run(one.entry, bench.options.seconds)?;
                let used = Cpu::of(&one.ids())?.since(before);
                one.check(&probe).await?;
                cpu.add(one.peer, used.microseconds() / requests);
                user.add(one.peer, used.user_microseconds() / requests);
                memory.add(one.peer, one.resident()?);
                println!(
                    "  start {restart} round {round} {:<9} {:>8.2} us/request, {:>8.2} user, {:>8.0} requests/s",
                    one.peer,
                    used.microseconds() / requests,
                    used.user_microseconds() / requests,
                    requests / bench.options.seconds as f64,
                );
            }
        }
    }
    Ok(vec![cpu, user, memory])
}

fn probe(bench: &Bench<'_>, load: Load) -> Result<Probe> {
    Ok(match load {
        Load::Small => Probe::small(),
        Load::Large => Probe::large(),
        Load::Http2 => Probe::small().http2(),
        Load::Grpc => Probe::grpc(),
        Load::Tls => {
            let roots = bench.upstream.authority().roots()?;
            let config =
                rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            Probe::small().tls(&Arc::new(config), "localhost")
        }
    })
}
