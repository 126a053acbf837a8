//! Many updates of every type under load: no request fails, no connection of a cluster that stays is closed, and memory
//! stays flat. Ten seconds here; `OUTRIGGER_SOAK_SECONDS` makes it longer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::{AdsServer, Variant};
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::scene::{
    bootstrap, cluster, endpoints, listener, routes, socket_address, until,
};
use outrigger_integration::upstream::Upstream;
use serde_json::{Value, json};

/// Between two updates.
const PACE: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_every_type_disturb_no_request_by_state_of_the_world() -> Result<()> {
    soak(Variant::Sotw).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_every_type_disturb_no_request_by_delta() -> Result<()> {
    soak(Variant::Delta).await
}

async fn soak(variant: Variant) -> Result<()> {
    if peers().is_none() || !Kind::Outrigger.is_runnable() {
        return Ok(());
    }
    let seconds = std::env::var("OUTRIGGER_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(10));
    let mut server = AdsServer::start(peers().context("peers")?)?;
    let (stays, moves) = (Upstream::start("stays").await?, Upstream::start("moves").await?);
    let addresses = Addresses {
        stays: stays.address(),
        moves: [moves.address(), stays.address()],
        web: address::free()?,
        tcp: address::free()?,
        other: address::free()?,
    };
    for kind in ["cds", "eds", "rds", "ecds", "rtds", "lds"] {
        server.set(kind, "0", &addresses.resources(kind, 0))?;
    }
    let layers = "
layered_runtime: {layers: [{name: d, rtds_layer: {name: d, rtds_config: {ads: {}, resource_api_version: V3}}}]}
";
    let mut proxy =
        Proxy::start(Kind::Outrigger, &format!("{}{layers}", bootstrap(&server, variant))).await?;
    until(addresses.web, "/", |outcome| outcome.status() == 200).await?;
    until(addresses.tcp, "/", |outcome| outcome.status() == 200).await?;

    let over = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = [
        (addresses.web, Protocol::Http1),
        (addresses.web, Protocol::Http1),
        (addresses.web, Protocol::Http2),
        (addresses.tcp, Protocol::Http1),
    ]
    .into_iter()
    .map(|(address, protocol)| {
        let (over, sent) = (Arc::clone(&over), Arc::clone(&sent));
        tokio::spawn(load(address, protocol, over, sent))
    })
    .collect();

    // Everything that is made once is made after some rounds.
    let warm = length / 4;
    let begin = Instant::now();
    let (mut version, mut settled, mut connections) = (0, None, 0);
    while begin.elapsed() < length {
        version += 1;
        let kinds = ["eds", "cds", "rds", "ecds", "rtds", "lds"];
        let kind = kinds[version % kinds.len()];
        server.set(kind, &version.to_string(), &addresses.resources(kind, version))?;
        if settled.is_none() && begin.elapsed() > warm {
            settled = Some(resident(proxy.process().id())?);
            connections = proxy.stat("cluster.stays.upstream_cx_total").await?;
        }
        tokio::time::sleep(PACE).await;
    }
    over.store(true, Relaxed);
    let mut failures = Vec::new();
    for client in clients {
        failures.extend(client.await?);
    }
    ensure!(
        failures.is_empty(),
        "{} of {} requests failed: {:?}",
        failures.len(),
        sent.load(Relaxed),
        failures.first()
    );
    ensure!(sent.load(Relaxed) > 500, "only {} requests", sent.load(Relaxed));
    let after = proxy.stat("cluster.stays.upstream_cx_total").await?;
    ensure!(
        after == connections,
        "connections to a cluster that stays: {connections}, then {after}"
    );
    for name in ["cluster_manager.cds.update_rejected", "listener_manager.lds.update_rejected"] {
        let rejected = proxy.stat(name).await?;
        ensure!(rejected == 0, "{name} is {rejected}");
    }
    let updates = proxy.stat("cluster_manager.cds.update_success").await?;
    ensure!(updates > 10, "only {updates} updates of clusters");
    let (first, last) = (settled.context("too short")?, resident(proxy.process().id())?);
    ensure!(last < first + first / 4 + (8 << 20), "memory grew from {first} to {last} bytes");
    Ok(())
}

struct Addresses {
    stays: SocketAddr,
    moves: [SocketAddr; 2],
    web: SocketAddr,
    tcp: SocketAddr,
    other: SocketAddr,
}

impl Addresses {
    /// The resources of a type in a version: some of each stay as they are.
    fn resources(&self, kind: &str, version: usize) -> Vec<Value> {
        match kind {
            "cds" => {
                let mut moves = cluster("moves");
                let connections = 1000 + version % 7;
                moves["circuit_breakers"] =
                    json!({"thresholds": [{"max_connections": connections}]});
                let mut all = vec![cluster("stays"), moves];
                if version.is_multiple_of(2) {
                    all.push(cluster("comes-and-goes"));
                }
                all
            }
            "eds" => {
                let moved = self.moves[version % 2];
                let all = [("stays", self.stays), ("moves", moved), ("comes-and-goes", moved)];
                all.map(|(name, address)| endpoints(name, &[address])).into()
            }
            "rds" => vec![routes(&json!([
                {"match": {"path": format!("/{version}")}, "route": {"cluster": "stays"}},
                {"match": {"path": "/moves"}, "route": {"cluster": "moves"}},
                {"match": {"prefix": "/"}, "route": {"cluster": "stays"}},
            ]))],
            "ecds" => vec![json!({
                "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "name": "limit",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": 1000 + version,
                },
            })],
            "rtds" => vec![json!({
                "@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime",
                "name": "d", "layer": {"key": version},
            })],
            _ => {
                let mut web = listener("web", self.web);
                let manager = &mut web["filter_chains"][0]["filters"][0]["typed_config"];
                if let Some(filters) = manager["http_filters"].as_array_mut() {
                    filters.insert(0, json!({"name": "limit", "config_discovery": {
                        "config_source": {"ads": {}, "resource_api_version": "V3"},
                        "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer"],
                    }}));
                }
                let tcp = json!({
                    "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                    "name": "tcp", "address": socket_address(self.tcp),
                    "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": "tcp", "cluster": "stays",
                    }}]}],
                });
                let mut other = listener("other", self.other);
                let manager = &mut other["filter_chains"][0]["filters"][0]["typed_config"];
                manager["server_name"] = json!(version.to_string());
                vec![web, tcp, other]
            }
        }
    }
}

/// Sends on one connection until it is over. Returns what failed.
async fn load(
    address: SocketAddr,
    protocol: Protocol,
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection = match Connection::open(address, protocol, None).await {
        Ok(connection) => connection,
        Err(error) => return vec![format!("{error:#}")],
    };
    while !over.load(Relaxed) {
        for path in ["/", "/moves"] {
            sent.fetch_add(1, Relaxed);
            match connection.send(&Request::get(path)).await {
                Ok(response) if response.status == 200 => {}
                Ok(response) => failures.push(format!("{protocol:?} {path}: {response:?}")),
                // It is the connection of a listener that stays: there is no second one.
                Err(error) => {
                    failures.push(format!("{protocol:?} {path}: {error:#}"));
                    return failures;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    failures
}

/// Resident memory of a process, in bytes.
fn resident(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: u64 = text.split(' ').nth(1).context("statm")?.parse()?;
    Ok(pages * 4096)
}
