//! Real Envoy as a client of our control plane, on its plaintext port, by state of the world and by delta: it takes
//! everything we send, and its traffic follows what is applied.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::ads::Variant;
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::control_plane::ControlPlane;
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::upstream::Upstream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_follows_by_state_of_the_world() -> Result<()> {
    follows(Variant::Sotw).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_follows_by_delta() -> Result<()> {
    follows(Variant::Delta).await
}

async fn follows(variant: Variant) -> Result<()> {
    if peers().is_none() {
        return Ok(());
    }
    let scene = Scene::start(variant).await?;

    // A canary: nothing, a half, everything; nothing fails on the way.
    scene.expect(100, &[("v1-a", 30..=70), ("v1-b", 30..=70)]).await?;
    let load = scene.load();
    scene.control_plane.apply(&scene.route(50, 50)).await?;
    scene.settled(|counts| counts.contains_key("v2")).await?;
    // Six standard deviations of 200 draws at a half.
    scene.expect(200, &[("v2", 58..=142)]).await?;
    scene.control_plane.apply(&scene.route(0, 100)).await?;
    scene.settled(|counts| counts.len() == 1 && counts.contains_key("v2")).await?;

    // An endpoint less.
    scene.control_plane.apply(&scene.route(100, 0)).await?;
    scene.settled(|counts| counts.contains_key("v1-a") && counts.contains_key("v1-b")).await?;
    scene.control_plane.delete("/v1/endpoints/v1-b").await?;
    scene.settled(|counts| counts.len() == 1 && counts.contains_key("v1-a")).await?;

    // A route more.
    let by_header = format!(
        "{}\n  - matches: [{{path: {{type: PathPrefix, value: /}}}}]\n    backendRefs: [{{name: api, subset: v1}}]\n",
        scene.route(0, 100).replace("value: /}", "value: /new}")
    );
    scene.control_plane.apply(&by_header).await?;
    until(|| async {
        let new = scene.ask("/new/x").await?;
        let old = scene.ask("/old").await?;
        Ok((new == "v2" && old == "v1-a").then_some(()))
    })
    .await?;

    let (asked, failed) = load.stop().await?;
    ensure!(asked > 20 && failed.is_empty(), "{} of {asked} failed: {failed:?}", failed.len());

    let stats = scene.envoy.admin("/stats?usedonly").await?;
    let rejected: Vec<&str> = stats
        .lines()
        .filter(|line| line.contains("update_rejected") && !line.ends_with(": 0"))
        .collect();
    ensure!(rejected.is_empty(), "{rejected:?}\n{}", scene.envoy.admin("/config_dump").await?);
    for counted in ["cluster_manager.cds.update_success", "listener_manager.lds.update_success"] {
        ensure!(scene.envoy.stat(counted).await? > 0, "{counted} is 0");
    }
    Ok(())
}

/// A service `api` of three endpoints: two of `v1`, one of `v2`; everything goes to `v1` at first.
struct Scene {
    control_plane: ControlPlane,
    envoy: Proxy,
    /// Where Envoy listens for the service.
    listener: SocketAddr,
    _upstreams: Vec<Upstream>,
}

impl Scene {
    async fn start(variant: Variant) -> Result<Scene> {
        let control_plane = ControlPlane::start().await?;
        // Listeners of foreign clients are on this very address; the service's port decides which.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut documents = format!(
            "
kind: Service
name: api
spec:
  ports: [{{port: {}, protocol: http}}]
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
  loadBalancer: {{policy: round_robin}}
",
            listener.port()
        );
        let mut upstreams = Vec::new();
        for (name, version) in [("v1-a", "v1"), ("v1-b", "v1"), ("v2", "v2")] {
            let upstream = Upstream::start(name).await?;
            let (host, port) = (upstream.address().ip(), upstream.address().port());
            documents += &format!(
                "---\nkind: Endpoint\nname: {name}\nspec: {{service: api, address: {host}, port: {port}, labels: {{version: {version}}}}}\n"
            );
            upstreams.push(upstream);
        }
        let (host, port) = (control_plane.xds_insecure.ip(), control_plane.xds_insecure.port());
        let bootstrap = format!(
            "
node: {{id: envoy-1, cluster: foreign}}
dynamic_resources:
  ads_config:
    api_type: {}
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}]}}]
",
            variant.api_type()
        );
        let mut scene = Scene {
            envoy: Proxy::launch(Kind::Envoy, &bootstrap, &[])?,
            control_plane,
            listener,
            _upstreams: upstreams,
        };
        documents += &format!("---\n{}", scene.route(100, 0));
        scene.control_plane.apply(&documents).await?;
        scene.envoy = scene.envoy.ready().await?;
        until(|| async {
            let outcome = Request::get("/").host("api").send(scene.listener).await;
            Ok((outcome.status() == 200).then_some(()))
        })
        .await
        .context("the first answer")?;
        Ok(scene)
    }

    fn route(&self, v1: u32, v2: u32) -> String {
        format!(
            "kind: Route
name: api
spec:
  hosts: [api]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /}}}}]
    backendRefs: [{{name: api, subset: v1, weight: {v1}}}, {{name: api, subset: v2, weight: {v2}}}]
"
        )
    }

    /// Which upstream answers.
    async fn ask(&self, path: &str) -> Result<String> {
        let outcome = Request::get(path).host("api").send(self.listener).await;
        ensure!(outcome.status() == 200, "{path}: {outcome:?}");
        Ok(outcome.body())
    }

    /// Who answers how many of `total` requests on one connection.
    async fn counts(&self, total: usize) -> Result<BTreeMap<String, usize>> {
        let mut connection = Connection::open(self.listener, Protocol::Http1, None).await?;
        let mut counts = BTreeMap::new();
        for _ in 0..total {
            let response = connection.send(&Request::get("/").host("api")).await?;
            ensure!(response.status == 200, "{response:?}");
            *counts.entry(String::from_utf8_lossy(&response.body).into_owned()).or_default() += 1;
            if connection.is_closed() {
                connection = Connection::open(self.listener, Protocol::Http1, None).await?;
            }
        }
        Ok(counts)
    }

    async fn expect(
        &self,
        total: usize,
        expected: &[(&str, std::ops::RangeInclusive<usize>)],
    ) -> Result<()> {
        let counts = self.counts(total).await?;
        for (name, range) in expected {
            let count = counts.get(*name).copied().unwrap_or(0);
            ensure!(range.contains(&count), "{name} answered {count} of {total}: {counts:?}");
        }
        Ok(())
    }

    /// Waits until twenty requests in a row are spread as wanted.
    async fn settled(&self, condition: impl Fn(&BTreeMap<String, usize>) -> bool) -> Result<()> {
        until(|| async { Ok(condition(&self.counts(20).await?).then_some(())) }).await
    }

    /// A request every few milliseconds until told to stop.
    fn load(&self) -> Load {
        let listener = self.listener;
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let (mut asked, mut failed) = (0, Vec::new());
            while stopped.try_recv().is_err() {
                let outcome = Request::get("/").host("api").send(listener).await;
                asked += 1;
                if outcome.status() != 200 {
                    failed.push(format!("{outcome:?}"));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (asked, failed)
        });
        Load { stop, running }
    }
}

struct Load {
    stop: tokio::sync::oneshot::Sender<()>,
    running: tokio::task::JoinHandle<(usize, Vec<String>)>,
}

impl Load {
    /// How many requests were sent, and what the failed ones got.
    async fn stop(self) -> Result<(usize, Vec<String>)> {
        let _ = self.stop.send(());
        Ok(self.running.await?)
    }
}

async fn until<F>(mut attempt: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<Option<()>>>,
{
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if attempt().await?.is_some() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
