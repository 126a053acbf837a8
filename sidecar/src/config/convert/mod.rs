//! From Envoy's protos to our types, one file a message.
//!
//! Each message is taken apart without `..`, so that a field which a new version of the API brings is a compile error
//! here and not a silent omission. A field is converted, or refused by name, or named as harmless with the reason
//! beside it: that is the list of what may be ignored.
//!
//! Reading order: [`common`] (the vocabulary), then the resources from outside in: [`bootstrap`]; [`listener`] with
//! [`listener_filter`], [`http_connection_manager`], [`http_filter`] with [`http_filters`], [`tcp_proxy`]; [`route`] with [`route_action`] and [`retry`];
//! [`cluster`] with its parts; [`endpoint`]; [`tls`], [`certificate`], [`secret`].
//!
//! A conversion goes on after a problem, to report all of them. What it makes then is thrown away: the functions
//! below give a value only if nothing was refused.

mod access_log;
mod access_log_filter;
mod bind_config;
mod bootstrap;
mod bootstrap_references;
mod certificate;
mod circuit_breakers;
mod client_address;
mod cluster;
mod common;
mod common_lb;
mod compression;
mod config_source;
mod consistent_hashing;
mod data_source;
mod decompression;
mod discovery;
mod dns;
mod endpoint;
mod extension;
mod extensions;
mod filter_chain_match;
mod filter_overrides;
pub(in crate::config) mod format;
mod format_arguments;
mod format_coalesce;
mod format_refused;
mod google_grpc;
mod grpc_access_log;
mod grpc_service;
mod hash_policy;
mod header;
mod health_check;
mod http1;
mod http_connection_manager;
mod http_filter;
mod http_filters;
mod http_options;
mod http_uri;
mod internal_redirect;
mod listener;
mod listener_filter;
mod load_balancer;
mod local_reply;
mod matcher;
mod metadata;
mod mirror;
mod network_filter;
mod original_dst;
mod otel_access_log;
mod outlier_detection;
mod percent;
mod proxy_protocol;
mod rate_limit;
mod rbac;
mod rbac_matcher;
mod retry;
mod route;
mod route_action;
mod runtime;
mod secret;
mod slow_start;
mod socket_option;
mod stats_config;
mod subset;
mod tcp_proxy;
#[cfg(test)]
mod tests;
mod tls;
mod tracing;
mod upstream_http;
mod uri_template;

use outrigger_proto::envoy::config::bootstrap::v3::Bootstrap as BootstrapProto;
use outrigger_proto::envoy::config::cluster::v3::Cluster as ClusterProto;
use outrigger_proto::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::Listener as ListenerProto;
use outrigger_proto::envoy::config::route::v3::RouteConfiguration as RouteConfigurationProto;
use outrigger_proto::envoy::config::route::v3::VirtualHost as VirtualHostProto;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::Secret as SecretProto;
use outrigger_proto::envoy::service::runtime::v3::Runtime;
use outrigger_proto::google::protobuf::UInt32Value;
use prost::Message;

pub(crate) use metadata::to_proto as metadata_to_proto;

use super::{Problems, Rejected};

/// Converts a bootstrap that is made in memory. Secrets that it names without `sds_config` need not stand in it: whoever
/// makes it may bring them.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn bootstrap(proto: BootstrapProto) -> Result<super::bootstrap::Bootstrap, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = bootstrap::convert(&mut problems, proto, bootstrap::Secrets::Brought);
    problems.finish(value)
}

/// Converts a bootstrap that comes from a file: it has to be complete.
pub(super) fn bootstrap_of_file(
    proto: BootstrapProto,
) -> Result<super::bootstrap::Bootstrap, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = bootstrap::convert(&mut problems, proto, bootstrap::Secrets::Complete);
    problems.finish(value)
}

/// Converts a listener.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn listener(proto: ListenerProto) -> Result<super::listener::Listener, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = listener::convert(&mut problems, proto);
    problems.finish(value)
}

/// Converts a route configuration that was discovered.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn route_configuration(
    proto: RouteConfigurationProto,
) -> Result<super::route::RouteConfiguration, Vec<Rejected>> {
    let mut problems = Problems::new();
    common::text(&mut problems, "name", proto.name.clone());
    let value = route::convert(&mut problems, proto, false);
    problems.finish(Some(value))
}

/// Converts the cluster behind a channel, from its encoded message.
///
/// # Errors
/// With every field that is wrong or not supported.
pub(super) fn channel(encoded: &[u8]) -> Result<super::cluster::Cluster, Vec<Rejected>> {
    let mut problems = Problems::new();
    let proto = ClusterProto::decode(encoded)
        .map_err(|error| vec![Rejected { path: String::new(), reason: error.to_string() }])?;
    let value = cluster::convert(&mut problems, proto);
    problems.finish(value)
}

/// Converts a virtual host that was discovered by itself. `max_direct_response`: bytes of a direct response, as its route
/// configuration says.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn virtual_host(
    proto: VirtualHostProto,
    max_direct_response: u32,
) -> Result<super::route::VirtualHost, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = route::virtual_host(&mut problems, proto, max_direct_response);
    problems.finish(Some(value))
}

/// Converts a cluster that was discovered.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn cluster(proto: ClusterProto) -> Result<super::cluster::Cluster, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = cluster::convert(&mut problems, proto);
    problems.finish(value)
}

/// Converts a load assignment that was discovered: it has addresses, and no host names.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn load_assignment(
    proto: ClusterLoadAssignment,
) -> Result<super::endpoint::LoadAssignment, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = endpoint::convert(&mut problems, proto, endpoint::Hosts::Addresses);
    problems.finish(Some(value))
}

/// Converts a secret. Files that it names are read now.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn secret(proto: SecretProto) -> Result<super::secret::Secret, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = secret::convert(&mut problems, proto);
    problems.finish(value)
}

/// Converts the configuration of an HTTP filter that was discovered.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn extension(
    proto: TypedExtensionConfig,
) -> Result<super::extension::Extension, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = extension::convert(&mut problems, proto);
    problems.finish(value)
}

/// Converts a layer of the runtime that was discovered.
///
/// # Errors
/// With every key whose value can be none.
pub fn runtime_layer(proto: Runtime) -> Result<super::runtime::Values, Vec<Rejected>> {
    let mut problems = Problems::new();
    let value = runtime::resource(&mut problems, proto);
    problems.finish(Some(value))
}

/// `per_connection_buffer_limit_bytes` of listeners and clusters: 1 MiB where it is unset; zero is no limit.
fn buffer_limit(proto: Option<UInt32Value>) -> usize {
    match common::number(proto) {
        None => 1 << 20,
        Some(0) => usize::MAX,
        Some(limit) => limit as usize,
    }
}
