//! A proxy that gets everything from the independent xDS server, and the resources that such tests begin with.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::address;
use crate::ads::{AdsServer, Variant};
use crate::client::{Outcome, Request};
use crate::peers::peers;
use crate::proxy::{Kind, Proxy};
use crate::upstream::Upstream;

/// A proxy that gets everything from the independent server, and two upstreams. At first: one cluster with `a` in it.
pub struct Scene {
    /// The proxy.
    pub proxy: Proxy,
    /// Its server.
    pub server: AdsServer,
    /// Answers `a`.
    pub a: Upstream,
    /// Answers `b`.
    pub b: Upstream,
    /// Address of the listener `main`.
    pub listener: SocketAddr,
}

impl Scene {
    /// Starts all of it.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(kind: Kind, variant: Variant) -> Result<Scene> {
        let peers = peers().context("peers")?;
        let mut server = AdsServer::start(peers)?;
        let (a, b) = (Upstream::start("a").await?, Upstream::start("b").await?);
        let address = address::free()?;
        server.set("cds", "1", &[cluster("one")])?;
        server.set("eds", "1", &[endpoints("one", &[a.address()])])?;
        server.set("lds", "1", &[listener("main", address)])?;
        server.set(
            "rds",
            "1",
            &[routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one"}}]))],
        )?;
        let proxy = Proxy::start(kind, &bootstrap(&server, variant)).await?;
        Ok(Scene { proxy, server, a, b, listener: address })
    }

    /// Asks until the answer has this body. What must not fail in between is tested elsewhere.
    ///
    /// # Errors
    /// It does not get it in time.
    pub async fn until_body(&self, path: &str, body: &str) -> Result<()> {
        until(self.listener, path, |outcome| outcome.status() == 200 && outcome.body() == body)
            .await
    }

    /// For half a second every request succeeds with this body.
    ///
    /// # Errors
    /// One does not.
    pub async fn stays(&self, body: &str) -> Result<()> {
        for _ in 0..25 {
            let outcome = Request::get("/").send(self.listener).await;
            ensure!(outcome.status() == 200 && outcome.body() == body, "{outcome:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Asks until the outcome satisfies `condition`.
///
/// # Errors
/// It does not in time.
pub async fn until(
    address: SocketAddr,
    path: &str,
    condition: impl Fn(&Outcome) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let outcome = Request::get(path).send(address).await;
        if condition(&outcome) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{path} still gives {outcome:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The JSON of an address.
pub fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// An EDS cluster by ADS.
pub fn cluster(name: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
    })
}

/// A load assignment.
pub fn endpoints(cluster: &str, addresses: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"endpoint": {"address": socket_address(*address)}}))
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": endpoints}],
    })
}

/// The route configuration `routes`.
pub fn routes(routes: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "routes",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
    })
}

/// A listener with the routes `routes` by ADS.
pub fn listener(name: &str, address: SocketAddr) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": socket_address(address),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "test",
                "rds": {
                    "route_config_name": "routes",
                    "config_source": {"ads": {}, "resource_api_version": "V3"},
                },
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                }}],
            },
        }]}],
    })
}

/// A bootstrap that gets everything from the server by ADS.
pub fn bootstrap(server: &AdsServer, variant: Variant) -> String {
    let (host, port) = (server.address().ip(), server.address().port());
    format!(
        "
node: {{id: node-1, cluster: test}}
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
    )
}
