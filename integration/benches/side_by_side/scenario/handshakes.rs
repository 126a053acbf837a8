//! New mutual-TLS connections, without resumption: how many of them a second of CPU makes.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;
use outrigger_integration::client::{Connection, Protocol, Request};

use super::Bench;
use super::memory::client;
use crate::config::Case;
use crate::machine::Cpu;
use crate::measure::{Line, Target};
use crate::peer::Peer;
use crate::running::{Probe, Running};

/// Clients at the same time.
const CLIENTS: usize = 8;

pub(super) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    println!("handshakes: new mTLS connections, one request on each");
    let mut line = Line::new("new mTLS connections", "per CPU second")
        .target(Target::AtLeast(1.5, Peer::Envoy));
    let tls = client(bench.upstream)?;
    let probe = Probe::small().tls(&tls.config, &tls.server_name);
    for _ in 0..bench.options.restarts {
        let mut running = Vec::new();
        for peer in Peer::ALL {
            running.extend(
                Running::start(Case::MutualTls, peer, bench.tools, bench.upstream, &probe).await?,
            );
        }
        for _ in 0..bench.options.rounds {
            for one in &running {
                let before = Cpu::of(&one.ids())?;
                let end = Instant::now() + Duration::from_secs(bench.options.seconds);
                let clients = (0..CLIENTS).map(|_| async {
                    let mut made = 0.0;
                    while Instant::now() < end {
                        let mut connection =
                            Connection::open(one.entry, Protocol::Http1, Some(&tls)).await?;
                        let response = connection.send(&Request::get("/")).await?;
                        anyhow::ensure!(response.status == 200, "{}: {response:?}", one.peer);
                        made += 1.0;
                    }
                    Ok::<f64, anyhow::Error>(made)
                });
                let made: f64 = try_join_all(clients).await?.into_iter().sum();
                let used = Cpu::of(&one.ids())?.since(before).microseconds() / 1e6;
                line.add(one.peer, made / used);
            }
        }
    }
    Ok(vec![line])
}
