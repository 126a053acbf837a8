//! Kind `Endpoint`: an instance that has no sidecar. Instances with one are observed, never written.

use super::object::Labels;
use super::service::{Service, ServicePort};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// An instance of a service that has no sidecar.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// A DNS label.
    #[serde(skip)]
    pub name: String,
    /// Labels of the object; subsets do not see them.
    #[serde(skip)]
    pub labels: Labels,
    /// The Service it belongs to.
    pub service: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port, 1 to 65535. If the service has several ports it is one of their numbers.
    pub port: u16,
    /// Its share of the requests among its peers, 1 to 1,000,000; 1 when absent.
    pub weight: u32,
    /// Labels of the instance, which subsets select by (`spec.labels`).
    #[serde(rename = "labels", skip_serializing_if = "Labels::is_empty")]
    pub workload_labels: Labels,
    /// Where it runs.
    #[serde(skip_serializing_if = "Locality::is_empty")]
    pub locality: Locality,
}

impl Endpoint {
    /// Where it listens.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// The port of its service that it serves: the only one, or the one with its number.
    pub fn service_port<'a>(&self, service: &'a Service) -> Option<&'a ServicePort> {
        match service.ports.as_slice() {
            [only] => Some(only),
            _ => service.port(self.port),
        }
    }
}

/// Where an instance runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    /// Region; empty: unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Zone within the region; empty: unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

impl Locality {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty()
    }
}
