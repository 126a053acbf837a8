//! From Envoy's protos to our types, one file a resource.
//!
//! Each message is taken apart without `..`, so that a field which a new version of the API brings is a compile error
//! here and not a silent omission. A field is converted, or refused by name, or named as harmless with the reason.

use super::{Problems, Rejected};

use outrigger_proto::envoy::config::cluster::v3::Cluster as ClusterProto;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::Listener as ListenerProto;
use outrigger_proto::envoy::config::route::v3::RouteConfiguration as RouteConfigurationProto;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::Secret as SecretProto;

/// Converts a listener.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn listener(_proto: ListenerProto) -> Result<super::listener::Listener, Vec<Rejected>> {
    Problems::new().finish(None)
}

/// Converts a route configuration.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn route_configuration(
    _proto: RouteConfigurationProto,
) -> Result<super::route::RouteConfiguration, Vec<Rejected>> {
    Problems::new().finish(None)
}

/// Converts a cluster.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn cluster(_proto: ClusterProto) -> Result<super::cluster::Cluster, Vec<Rejected>> {
    Problems::new().finish(None)
}

/// Converts a load assignment.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn load_assignment(
    _proto: ClusterLoadAssignment,
) -> Result<super::endpoint::LoadAssignment, Vec<Rejected>> {
    Problems::new().finish(None)
}

/// Converts a secret.
///
/// # Errors
/// With every field that is wrong or not supported.
pub fn secret(_proto: SecretProto) -> Result<super::secret::Secret, Vec<Rejected>> {
    Problems::new().finish(None)
}
