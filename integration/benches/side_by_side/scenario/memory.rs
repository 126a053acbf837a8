//! Resident memory: idle, and with 1,000 connections each of which has had one request and is idle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use outrigger_integration::client::{Connection, Protocol, Request, Tls};

use super::Bench;
use crate::config::Case;
use crate::measure::{Line, Target};
use crate::peer::Peer;
use crate::running::{Probe, Running};
use crate::upstream::Upstream;

const CONNECTIONS: usize = 1000;

/// How many of them are opened at the same time: few, so that what a proxy needs for a moment stays small.
const AT_ONCE: usize = 8;

/// After the last request: what is returned to the system with a delay has been returned.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    println!("memory");
    let at_most = |limit| Target::AtMost(limit, Peer::Envoy);
    let mut idle = Line::new("memory idle", "MiB").target(at_most(0.25));
    let mut http1 = Line::new("memory, 1,000 idle HTTP/1", "MiB").target(at_most(0.25));
    let mut http2 = Line::new("memory, 1,000 idle HTTP/2", "MiB").target(at_most(0.25));
    let mut mtls = Line::new("memory, 1,000 idle mTLS", "MiB").target(at_most(0.40));
    let tls = client(bench.upstream)?;
    for _ in 0..bench.options.restarts {
        for peer in Peer::ALL {
            let cases: [(Case, Protocol, Option<&Tls>, Probe, &mut Line); 3] = [
                (Case::Http1, Protocol::Http1, None, Probe::small(), &mut http1),
                (Case::Http2, Protocol::Http2, None, Probe::small().http2(), &mut http2),
                (
                    Case::MutualTls,
                    Protocol::Http1,
                    Some(&tls),
                    Probe::small().tls(&tls.config, &tls.server_name),
                    &mut mtls,
                ),
            ];
            for (case, protocol, tls, probe, line) in cases {
                let running =
                    Running::start(case, peer, bench.tools, bench.upstream, &probe).await?;
                let Some(running) = running else { continue };
                if case == Case::Http1 {
                    tokio::time::sleep(SETTLE).await;
                    idle.add(peer, running.resident()?);
                }
                let opening = stream::iter(0..CONNECTIONS)
                    .map(|_| connect(running.entry, protocol, tls))
                    .buffer_unordered(AT_ONCE);
                let open: Vec<Connection> = opening.try_collect().await?;
                tokio::time::sleep(SETTLE).await;
                line.add(peer, running.resident()?);
                let closed = open.iter().filter(|it| it.is_closed()).count();
                ensure!(closed == 0, "{peer} has closed {closed} idle connections");
            }
        }
    }
    Ok(vec![idle, http1, http2, mtls])
}

/// A connection that has had its request.
async fn connect(to: SocketAddr, protocol: Protocol, tls: Option<&Tls>) -> Result<Connection> {
    let mut connection = Connection::open(to, protocol, tls).await?;
    let request = match protocol {
        Protocol::Http1 => Request::get("/"),
        Protocol::Http2 => Request::get("/").http2(),
    };
    let response = connection.send(&request).await?;
    ensure!(response.status == 200, "{to}: {response:?}");
    Ok(connection)
}

/// A client with a certificate. Sessions are not resumed: each connection costs what a first one costs.
pub(super) fn client(upstream: &Upstream) -> Result<Tls> {
    let authority = upstream.authority();
    let (chain, key) = authority.leaf(&["spiffe://bench/client"])?.to_rustls()?;
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(authority.roots()?)
        .with_client_auth_cert(chain, key)
        .context("client certificate")?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Tls { config: Arc::new(config), server_name: "proxy".to_owned() })
}
