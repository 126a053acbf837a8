//! Many updates of every type under load of HTTP/1, HTTP/2, gRPC, TLS and TCP: no request fails, no connection of a cluster
//! that stays is closed, what is ejected stays so, and memory stays flat. Some seconds here; `OUTRIGGER_SOAK_SECONDS` makes
//! it longer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::{AdsServer, Variant};
use outrigger_integration::client::{Connection, Protocol, Request, Tls, first};
use outrigger_integration::peers::peers;
use outrigger_integration::pki::{Authority, Leaf};
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::scene::{
    bootstrap, cluster, endpoints, listener, routes, socket_address, until,
};
use outrigger_integration::upstream::{Reply, Upstream};
use serde_json::{Value, json};

/// Between two updates.
const PACE: Duration = Duration::from_millis(10);

/// Every type, in the order in which they take turns.
const KINDS: [&str; 7] = ["eds", "cds", "rds", "ecds", "rtds", "sds", "lds"];

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
    let length = Duration::from_secs(seconds.unwrap_or(6));
    let mut server = AdsServer::start(peers().context("peers")?)?;
    let (stays, moves) = (Upstream::start("stays").await?, Upstream::start("moves").await?);
    let (rpc, sick) = (Upstream::start("rpc").await?, Upstream::start("sick").await?);
    let grpc = Reply::status(200).header("content-type", "application/grpc").chunks(&["answer"]);
    rpc.default_reply(Some(grpc.trailer("grpc-status", "0")));
    sick.default_reply(Some(Reply::status(500)));
    let authority = Authority::new("soak")?;
    let leaf = || authority.leaf(&["server.example"]);
    let world = World {
        stays: stays.address(),
        moves: [moves.address(), stays.address()],
        rpc: rpc.address(),
        sick: sick.address(),
        leaves: [leaf()?, leaf()?],
        secure: address::free()?,
        web: address::free()?,
        tcp: address::free()?,
        other: address::free()?,
    };
    for kind in KINDS {
        server.set(kind, "0", &world.resources(kind, 0))?;
    }
    let layers = "
layered_runtime: {layers: [{name: d, rtds_layer: {name: d, rtds_config: {ads: {}, resource_api_version: V3}}}]}
";
    let mut proxy =
        Proxy::start(Kind::Outrigger, &format!("{}{layers}", bootstrap(&server, variant))).await?;
    until(world.web, "/", |outcome| outcome.status() == 200).await?;
    until(world.tcp, "/", |outcome| outcome.status() == 200).await?;
    let ejected = "cluster.ejects.outlier_detection.ejections_active";
    let deadline = Instant::now() + Duration::from_secs(20);
    while proxy.stat(ejected).await? == 0 {
        Request::get("/ejects").send(world.web).await;
        ensure!(Instant::now() < deadline, "nothing is ejected");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authority.roots()?)
        .with_no_client_auth();
    let tls = Tls { config: config.into(), server_name: "server.example".to_owned() };

    let over = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let plain = ["/", "/moves", "/ejects"].map(Request::get);
    let rpc = Request::post("/rpc", "question")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let tcp = [Request::get("/")];
    let clients: Vec<_> = [
        (world.web, Protocol::Http1, None, plain.to_vec()),
        (world.web, Protocol::Http1, None, plain.to_vec()),
        (world.web, Protocol::Http2, None, plain.to_vec()),
        (world.web, Protocol::Http2, None, vec![rpc.clone()]),
        (world.secure, Protocol::Http1, Some(tls.clone()), plain.to_vec()),
        (world.secure, Protocol::Http2, Some(tls), vec![rpc]),
        (world.tcp, Protocol::Http1, None, tcp.to_vec()),
    ]
    .into_iter()
    .map(|(address, protocol, tls, requests)| {
        let (over, sent) = (Arc::clone(&over), Arc::clone(&sent));
        let requests = requests
            .into_iter()
            .map(|request| if protocol == Protocol::Http2 { request.http2() } else { request })
            .collect();
        tokio::spawn(load(Client { address, protocol, tls, requests }, over, sent))
    })
    .collect();

    // Everything that is made once is made after some rounds.
    let warm = length / 4;
    let begin = Instant::now();
    let (mut version, mut settled, mut connections) = (0, None, 0);
    while begin.elapsed() < length {
        version += 1;
        let kind = KINDS[version % KINDS.len()];
        server.set(kind, &version.to_string(), &world.resources(kind, version / KINDS.len()))?;
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
    let still = proxy.stat(ejected).await?;
    ensure!(still == 1, "{still} endpoints are ejected");
    let times = proxy.stat("cluster.ejects.outlier_detection.ejections_enforced_total").await?;
    ensure!(times == 1, "an endpoint was ejected {times} times");
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

struct World {
    stays: SocketAddr,
    moves: [SocketAddr; 2],
    rpc: SocketAddr,
    sick: SocketAddr,
    leaves: [Leaf; 2],
    secure: SocketAddr,
    web: SocketAddr,
    tcp: SocketAddr,
    other: SocketAddr,
}

impl World {
    /// The resources of a type in a version: some of each stay as they are.
    fn resources(&self, kind: &str, version: usize) -> Vec<Value> {
        match kind {
            "cds" => {
                let mut moves = cluster("moves");
                let connections = 1000 + version % 7;
                moves["circuit_breakers"] =
                    json!({"thresholds": [{"max_connections": connections}]});
                let mut ejects = cluster("ejects");
                ejects["outlier_detection"] = json!({
                    "consecutive_5xx": 1, "interval": "0.1s", "base_ejection_time": "3600s",
                    "max_ejection_time": "3600s", "max_ejection_percent": 50,
                    "enforcing_success_rate": 0,
                });
                ejects["circuit_breakers"] =
                    json!({"thresholds": [{"max_connections": connections}]});
                let mut rpc = cluster("rpc");
                rpc["typed_extension_protocol_options"] = json!({
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                });
                let mut all = vec![cluster("stays"), rpc, ejects, moves];
                if version.is_multiple_of(2) {
                    all.push(cluster("comes-and-goes"));
                }
                all
            }
            "eds" => {
                let moved = self.moves[version % 2];
                vec![
                    endpoints("stays", &[self.stays]),
                    endpoints("rpc", &[self.rpc]),
                    endpoints("ejects", &[self.stays, self.sick]),
                    endpoints("moves", &[moved]),
                    endpoints("comes-and-goes", &[moved]),
                ]
            }
            "rds" => vec![routes(&json!([
                {"match": {"path": format!("/{version}")}, "route": {"cluster": "stays"}},
                {"match": {"path": "/moves"}, "route": {"cluster": "moves"}},
                {"match": {"path": "/ejects"}, "route": {"cluster": "ejects"}},
                {"match": {"path": "/rpc", "grpc": {}}, "route": {"cluster": "rpc"}},
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
            "sds" => {
                let leaf = &self.leaves[version % 2];
                vec![json!({
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                    "name": "server",
                    "tls_certificate": {
                        "certificate_chain": {"inline_string": leaf.certificate},
                        "private_key": {"inline_string": leaf.key},
                    },
                })]
            }
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
                let mut secure = listener("secure", self.secure);
                secure["filter_chains"][0]["transport_socket"] = json!({
                    "name": "tls",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                        "common_tls_context": {
                            "alpn_protocols": ["h2", "http/1.1"],
                            "tls_certificate_sds_secret_configs": [{
                                "name": "server",
                                "sds_config": {"ads": {}, "resource_api_version": "V3"},
                            }],
                        },
                    },
                });
                vec![web, tcp, secure, other]
            }
        }
    }
}

/// One connection, and what is sent on it in turns.
struct Client {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<Tls>,
    requests: Vec<Request>,
}

/// Sends on one connection until it is over. Returns what failed.
async fn load(client: Client, over: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Vec<String> {
    let Client { address, protocol, tls, requests } = client;
    let mut failures = Vec::new();
    let mut connection = match Connection::open(address, protocol, tls.as_ref()).await {
        Ok(connection) => connection,
        Err(error) => return vec![format!("{error:#}")],
    };
    while !over.load(Relaxed) {
        for request in &requests {
            sent.fetch_add(1, Relaxed);
            match connection.send(request).await {
                Ok(response)
                    if response.status == 200
                        && !response.truncated
                        && first(&response.trailers, "grpc-status").is_none_or(|it| it == "0") => {}
                Ok(response) => failures.push(format!("{protocol:?} {request:?}: {response:?}")),
                // It is the connection of a listener that stays: there is no second one.
                Err(error) => {
                    failures.push(format!("{protocol:?} {request:?}: {error:#}"));
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
