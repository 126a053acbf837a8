//! Resources for tests, from YAML.

use std::sync::LazyLock;

use outrigger_proto::any;
use outrigger_proto::envoy::config::cluster::v3 as cluster;
use outrigger_proto::envoy::config::endpoint::v3 as endpoint;
use outrigger_proto::envoy::config::listener::v3 as listener;
use outrigger_proto::envoy::config::route::v3 as route;
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::json::Schema;
use prost::Name;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::load().unwrap());

/// Reads any message.
pub(crate) fn read<M: prost::Message + Name + Default>(yaml: &str) -> M {
    SCHEMA.read(yaml, true).unwrap()
}

/// An EDS cluster; its load assignment has the name of the cluster.
pub(crate) fn eds_cluster(name: &str) -> cluster::Cluster {
    read(&format!(
        "{{name: {name}, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}, resource_api_version: V3}}}}}}"
    ))
}

/// A STATIC cluster of one endpoint.
pub(crate) fn static_cluster(name: &str, address: &str, port: u16) -> cluster::Cluster {
    read(&format!(
        "{{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: {port}}}}}}}}}]}}]}}}}"
    ))
}

/// A load assignment of one endpoint.
pub(crate) fn assignment(name: &str, address: &str, port: u16) -> endpoint::ClusterLoadAssignment {
    read(&format!(
        "{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: {port}}}}}}}}}]}}]}}"
    ))
}

/// A listener that takes its routes from RDS.
pub(crate) fn rds_listener(name: &str, port: u16, routes: &str) -> listener::Listener {
    read(&format!(
        r#"
name: {name}
address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: {name}
      rds: {{route_config_name: {routes}, config_source: {{ads: {{}}, resource_api_version: V3}}}}
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    ))
}

/// A route configuration that sends everything to one cluster.
pub(crate) fn routes(name: &str, cluster: &str) -> route::RouteConfiguration {
    read(&format!(
        "{{name: {name}, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}"
    ))
}

/// Packs a message.
pub(crate) fn pack<M: Name>(message: &M) -> Any {
    any::pack(message)
}
