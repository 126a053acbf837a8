//! Names of resources.

use std::net::IpAddr;

/// All instances of a service port, or those of a subset.
pub(crate) fn outbound_cluster(port: u16, subset: Option<&str>, service: &str) -> String {
    format!("outbound|{port}|{}|{service}", subset.unwrap_or_default())
}

/// The application behind a sidecar.
pub(crate) fn inbound(port: u16, service: &str) -> String {
    format!("inbound|{port}||{service}")
}

/// A local listener for one service port, and its route configuration.
pub(crate) fn outbound(port: u16, service: &str) -> String {
    format!("outbound|{port}||{service}")
}

/// A gateway's listener, and its route configuration.
pub(crate) fn gateway(port: u16, gateway: &str) -> String {
    format!("gateway|{port}||{gateway}")
}

/// A foreign client's listener for every HTTP service on a port. Its route configuration is named by the port.
pub(crate) fn shared_outbound(port: u16) -> String {
    format!("outbound|{port}")
}

/// What a gRPC client calls a service port: its listener, its route configuration, and a domain.
pub(crate) fn authority(service: &str, port: u16) -> String {
    format!("{service}:{port}")
}

/// The server name by which a sidecar tells the ports of its application apart.
pub(crate) fn server_name(port: u16, service: &str) -> String {
    format!("p{port}.{service}")
}

/// The listener, and route configuration, for all services.
pub(crate) const OUTBOUND: &str = "outbound";

/// The secret that every sidecar has of itself.
pub(crate) const IDENTITY: &str = "identity";

/// The secret that holds the trusted roots.
pub(crate) const TRUST_BUNDLE: &str = "trust-bundle";

/// An address as text for a proto: without the brackets that IPv6 has in a socket address.
pub(crate) fn ip(address: IpAddr) -> String {
    address.to_string()
}
