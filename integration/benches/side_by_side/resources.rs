//! A mesh of many clusters, as resources.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, anyhow};
use outrigger_proto::envoy::config::cluster::v3::Cluster;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::Listener;
use outrigger_proto::json::Schema;
use serde_json::{Value, json};

use crate::xds::Server;

/// The cluster that answers.
pub(crate) const SERVING: &str = "cluster-0";

/// Endpoints of a cluster.
const ENDPOINTS: usize = 10;

/// Puts `count` clusters of ten endpoints into the server, and a listener that forwards to the first of them, which is
/// the upstream.
pub(crate) fn fill(
    server: &Server,
    schema: &Schema,
    count: usize,
    entry: SocketAddr,
    upstream: SocketAddr,
) -> Result<()> {
    let template = cluster(schema, "?", 0)?;
    for index in 0..count {
        let name = format!("cluster-{index}");
        server.put(&name, &Cluster { name: name.clone(), ..template.clone() }, 1);
        server.put(&name, &assignment(schema, index, upstream, 0)?, 1);
    }
    let listener: Listener = message(
        schema,
        &json!({
            "name": "in",
            "address": socket_address(entry),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "in",
                    "route_config": {"name": "all", "virtual_hosts": [{
                        "name": "all", "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": SERVING}}],
                    }]},
                    "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    }}],
                },
            }]}],
        }),
    )?;
    server.put("in", &listener, 1);
    Ok(())
}

/// A cluster. `change` is in its outlier detection.
pub(crate) fn cluster(schema: &Schema, name: &str, change: u64) -> Result<Cluster> {
    message(
        schema,
        &json!({
            "name": name, "type": "EDS", "connect_timeout": "5s", "lb_policy": "LEAST_REQUEST",
            "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
            "outlier_detection": {"consecutive_5xx": 5 + change % 100},
        }),
    )
}

/// The endpoints of a cluster. `change` is in the weight of the last.
pub(crate) fn assignment(
    schema: &Schema,
    index: usize,
    upstream: SocketAddr,
    change: u64,
) -> Result<ClusterLoadAssignment> {
    let endpoint = |address: SocketAddr, weight: u64| json!({"endpoint": {"address": socket_address(address)}, "load_balancing_weight": weight});
    let weight = 1 + change % 100;
    let endpoints: Vec<Value> = if index == 0 {
        vec![endpoint(upstream, weight)]
    } else {
        let last = ENDPOINTS - 1;
        (0..ENDPOINTS)
            .map(|at| endpoint(nowhere(index, at), if at == last { weight } else { 1 }))
            .collect()
    };
    message(
        schema,
        &json!({
            "cluster_name": format!("cluster-{index}"),
            "endpoints": [{"lb_endpoints": endpoints}],
        }),
    )
}

/// A loopback address where nobody listens, and to which nobody connects.
fn nowhere(cluster: usize, endpoint: usize) -> SocketAddr {
    let number = (cluster * ENDPOINTS + endpoint) as u32;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x7f80_0000 + number)), 9)
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn message<M: prost::Message + prost::Name + Default>(schema: &Schema, value: &Value) -> Result<M> {
    schema.read_value(value.clone(), true).map_err(|error| anyhow!("{error}"))
}
