//! Load assignments: endpoints by locality and priority.

pub use super::convert::load_assignment as from_proto;

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::address::Address;

/// A validated `envoy.config.endpoint.v3.ClusterLoadAssignment`.
#[derive(Debug, Clone)]
pub struct LoadAssignment {
    /// Name of the cluster or EDS service.
    pub cluster_name: Arc<str>,
    /// Groups of endpoints. Priorities are without a gap.
    pub localities: Vec<LocalityEndpoints>,
    /// How the health of its endpoints becomes load.
    pub policy: AssignmentPolicy,
    /// What `drop_overloads` call what they drop, in load reports; the first of several categories.
    pub drop_category: Option<Arc<str>>,
}

impl LoadAssignment {
    /// Without an endpoint.
    pub fn empty(cluster_name: &Arc<str>) -> Self {
        Self {
            cluster_name: Arc::clone(cluster_name),
            localities: Vec::new(),
            policy: AssignmentPolicy::default(),
            drop_category: None,
        }
    }
}

/// A validated `ClusterLoadAssignment.Policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignmentPolicy {
    /// Percent. Default 140.
    pub overprovisioning_factor: u32,
    /// A priority is as healthy as the share of its weights, and not of its endpoints.
    pub weighted_priority_health: bool,
    /// Of so many requests in a million none is sent to any endpoint (`drop_overloads`). Of several categories each takes
    /// its share of what the ones before have left.
    pub drop_overload: u32,
}

impl Default for AssignmentPolicy {
    fn default() -> Self {
        Self { overprovisioning_factor: 140, weighted_priority_health: false, drop_overload: 0 }
    }
}

/// The endpoints of one locality at one priority.
#[derive(Debug, Clone)]
pub struct LocalityEndpoints {
    /// Which.
    pub locality: Arc<Locality>,
    /// 0 is the highest.
    pub priority: u32,
    /// Weight of the locality; `None` if not set.
    pub weight: Option<u32>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    /// Region, or empty.
    pub region: Box<str>,
    /// Zone, or empty.
    pub zone: Box<str>,
    /// Sub-zone, or empty.
    pub sub_zone: Box<str>,
}

/// A validated `LbEndpoint`.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where to connect.
    pub address: EndpointAddress,
    /// Where it can be connected to as well.
    pub additional_addresses: Arc<[SocketAddr]>,
    /// Its host name, or empty. `auto_host_rewrite` and health checks use it.
    pub hostname: Arc<str>,
    /// From 1. Default 1.
    pub weight: u32,
    /// What discovery says of its health.
    pub health: HealthStatus,
    /// Its metadata.
    pub metadata: Arc<Metadata>,
    /// How its health is checked, where that differs from what the cluster says.
    pub check: Option<Arc<CheckTarget>>,
}

/// A validated `HealthCheckConfig` of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckTarget {
    /// Instead of the port of the address.
    pub port: Option<u16>,
    /// Instead of the endpoint's own.
    pub address: Option<Address>,
    /// `Host` or `:authority` of the check.
    pub hostname: Option<HeaderValue>,
    /// It is not checked: it counts as healthy.
    pub is_disabled: bool,
}

impl CheckTarget {
    /// Where an endpoint with this address is checked.
    pub fn address_of(&self, endpoint: &Address) -> Address {
        let mut address = self.address.as_ref().unwrap_or(endpoint).clone();
        if let (Address::Ip(address), Some(port)) = (&mut address, self.port) {
            address.set_port(port);
        }
        address
    }
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointAddress {
    /// An IP address.
    Ip(SocketAddr),
    /// A host name to resolve (STRICT_DNS only).
    Name {
        /// The name.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// A Unix domain socket, as [`Address::Pipe`].
    Pipe(Arc<str>),
}

impl EndpointAddress {
    /// The address; `None` for a name, which has to be resolved first.
    pub fn known(&self) -> Option<Address> {
        match self {
            Self::Ip(address) => Some(Address::Ip(*address)),
            Self::Pipe(path) => Some(Address::Pipe(Arc::clone(path))),
            Self::Name { .. } => None,
        }
    }
}

/// Envoy's `HealthStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HealthStatus {
    Unknown,
    Healthy,
    Unhealthy,
    Draining,
    Timeout,
    Degraded,
}

impl HealthStatus {
    /// Whether an endpoint of which this is said gets no traffic.
    pub fn is_unhealthy(self) -> bool {
        matches!(self, Self::Unhealthy | Self::Draining | Self::Timeout)
    }
}

/// Filter metadata, `filter name -> object`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata(pub serde_json::Map<String, serde_json::Value>);

/// Key and value pairs that metadata must hold; empty matches everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetadataMatch(pub serde_json::Map<String, serde_json::Value>);

impl MetadataMatch {
    /// Whether the object under `filter` holds every pair.
    pub fn matches(&self, metadata: &Metadata, filter: &str) -> bool {
        self.0.is_empty()
            || metadata.0.get(filter).and_then(serde_json::Value::as_object).is_some_and(|object| {
                self.0.iter().all(|(key, value)| object.get(key) == Some(value))
            })
    }
}
