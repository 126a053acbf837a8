//! Our control plane with a thousand sidecars' streams: when does a change of one endpoint reach the last of them, what
//! does it cost, and what does an idle stream hold.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use outrigger_integration::address;
use outrigger_integration::client::Request;
use outrigger_integration::process::Process;
use outrigger_proto::any::type_url;
use outrigger_proto::envoy::config::cluster::v3::Cluster;
use outrigger_proto::envoy::config::core::v3::Node;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::Listener;
use outrigger_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use outrigger_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::Bench;
use crate::machine::{self, Cpu, resident};
use crate::measure::{Line, Target};
use crate::peer::Peer;

const STREAMS: usize = 1000;
const LIMIT: Duration = Duration::from_secs(60);
/// What the streams subscribe to.
const ENDPOINTS: &str = "outbound|9000||api";

pub(super) async fn run(bench: &Bench<'_>) -> Result<Vec<Line>> {
    println!("control-plane: {STREAMS} streams");
    let mut p99 = Line::new("change at every stream, p99", "ms").target(Target::Below(200.0));
    let mut cpu = Line::new("CPU of a change, by streams", "us per stream");
    let mut memory = Line::new("memory per idle stream", "KiB").target(Target::Below(40.0));
    for _ in 0..bench.options.restarts {
        let server = Server::start(bench).await?;
        server.apply(&format!("{SERVICE}---\n{}", endpoint(5000))).await?;
        let before = resident(&[server.process.id()])?;
        let (changes, mut changed) = mpsc::unbounded_channel();
        let mut streams = Vec::with_capacity(STREAMS);
        for index in 0..STREAMS {
            streams.push(tokio::spawn(stream(server.xds, index, changes.clone())));
        }
        wait(&mut changed, STREAMS).await.context("the first endpoints")?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = resident(&[server.process.id()])?;
        memory.add(Peer::Outrigger, (after - before) * 1024.0 / STREAMS as f64);
        for round in 0..bench.options.rounds as u16 * 3 {
            let used = Cpu::of(&[server.process.id()])?;
            let begin = Instant::now();
            server.apply(&endpoint(5001 + round)).await?;
            let mut arrivals: Vec<f64> = wait(&mut changed, STREAMS)
                .await?
                .into_iter()
                .map(|at| at.duration_since(begin).as_secs_f64() * 1e3)
                .collect();
            arrivals.sort_by(f64::total_cmp);
            p99.add(Peer::Outrigger, arrivals[STREAMS * 99 / 100 - 1]);
            // Acknowledgements are a part of it.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let used = Cpu::of(&[server.process.id()])?.since(used);
            cpu.add(Peer::Outrigger, used.microseconds() / STREAMS as f64);
        }
        for stream in streams {
            ensure!(!stream.is_finished(), "a stream has ended: {:?}", stream.await?);
            stream.abort();
        }
    }
    Ok(vec![p99, cpu, memory])
}

/// One arrival from each of `count` streams.
async fn wait(
    arrivals: &mut mpsc::UnboundedReceiver<Instant>,
    count: usize,
) -> Result<Vec<Instant>> {
    let mut seen = Vec::with_capacity(count);
    while seen.len() < count {
        match timeout(LIMIT, arrivals.recv()).await {
            Ok(Some(at)) => seen.push(at),
            _ => bail!("only {} of {count} streams were told", seen.len()),
        }
    }
    Ok(seen)
}

/// A client as a sidecar is one: clusters and listeners, all of them, and the endpoints of one cluster. It acknowledges
/// everything, and says when endpoints come.
async fn stream(
    server: SocketAddr,
    index: usize,
    changes: mpsc::UnboundedSender<Instant>,
) -> Result<()> {
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{server}")).await?;
    let (requests, received) = mpsc::channel(8);
    let node = Node { id: format!("bench-{index}"), cluster: "web".to_owned(), ..Node::default() };
    let mut node = Some(node);
    for kind in [type_url::<Cluster>(), type_url::<Listener>()] {
        let node = node.take();
        requests
            .send(DeltaDiscoveryRequest {
                node,
                type_url: kind,
                ..DeltaDiscoveryRequest::default()
            })
            .await?;
    }
    let subscribe = DeltaDiscoveryRequest {
        type_url: type_url::<ClusterLoadAssignment>(),
        resource_names_subscribe: vec![ENDPOINTS.to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(subscribe).await?;
    let responses = client.delta_aggregated_resources(ReceiverStream::new(received)).await?;
    let mut responses = responses.into_inner();
    while let Some(response) = responses.message().await? {
        let at = Instant::now();
        if response.type_url == type_url::<ClusterLoadAssignment>() {
            ensure!(response.resources.len() == 1, "{} resources", response.resources.len());
            let _ = changes.send(at);
        }
        let acknowledgement = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(acknowledgement).await?;
    }
    bail!("the server has ended the stream")
}

const SERVICE: &str = "kind: Service
name: api
spec: {ports: [{port: 9000, protocol: http}]}
";

fn endpoint(port: u16) -> String {
    format!("kind: Endpoint\nname: one\nspec: {{service: api, address: 127.0.0.1, port: {port}}}\n")
}

struct Server {
    process: Process,
    api: SocketAddr,
    xds: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start(bench: &Bench<'_>) -> Result<Server> {
        let folder = tempfile::tempdir()?;
        let (api, mutual, xds) = (address::free()?, address::free()?, address::free()?);
        let mut command = machine::pinned(&machine::proxy_cores(1));
        command.arg(&bench.tools.outrigger).arg("control-plane").arg("--data-dir");
        command.arg(folder.path()).args(["--api", &api.to_string(), "--xds", &mutual.to_string()]);
        command.args(["--xds-insecure", &xds.to_string()]);
        let process = Process::spawn("control-plane", command)?;
        let server = Server { process, api, xds, _folder: folder };
        let begin = Instant::now();
        while Request::get("/readyz").host("api").send(api).await.status() != 200 {
            ensure!(begin.elapsed() < LIMIT, "not ready:\n{}", server.process.tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(server)
    }

    async fn apply(&self, documents: &str) -> Result<()> {
        let request = Request::post("/v1/apply", documents.to_owned());
        let request = request.header("content-type", "application/yaml").host("api");
        let outcome = request.send(self.api).await;
        ensure!(outcome.status() == 200, "{outcome:?}");
        Ok(())
    }
}
