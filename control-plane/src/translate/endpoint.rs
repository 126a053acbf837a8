//! Load assignments.

use crate::model::Endpoint as EndpointObject;
use crate::model::endpoint::Locality;
use crate::model::service::{Service, ServicePort, Subset};
use crate::registry::Instance;
use crate::translate::names;
use crate::translate::proto::{address, uint32};
use outrigger_proto::envoy::config::core::v3::{Locality as ProtoLocality, Metadata};
use outrigger_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use outrigger_proto::google::protobuf::{Struct, Value, value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

/// The instances of a service port, or of a subset, that get requests: those with a sidecar and the Endpoint objects, by
/// locality.
pub(crate) fn assignment(
    service: &Service,
    port: &ServicePort,
    subset: Option<&Subset>,
    live: &[Arc<Instance>],
    objects: &[Arc<EndpointObject>],
) -> ClusterLoadAssignment {
    let mut localities: BTreeMap<&Locality, Vec<LbEndpoint>> = BTreeMap::new();
    // gRPC refuses an assignment in which an address occurs twice.
    let mut seen = BTreeSet::new();
    for instance in live {
        if !instance.draining
            && instance.serves(port.port)
            && instance.is_in(subset)
            && seen.insert(instance.address())
        {
            // Always, so that nothing about it changes when an endpoint without a sidecar joins it.
            let metadata = Metadata {
                filter_metadata: HashMap::from([(SOCKET_MATCH.to_owned(), sidecar_metadata())]),
                ..Default::default()
            };
            let endpoints = localities.entry(&instance.locality).or_default();
            endpoints.push(endpoint(instance.address(), 1, Some(metadata)));
        }
    }
    for object in objects {
        if object.service_port(service) == Some(port)
            && subset.is_none_or(|subset| subset.selects(&object.workload_labels))
            && seen.insert(object.socket_address())
        {
            let endpoints = localities.entry(&object.locality).or_default();
            endpoints.push(endpoint(object.socket_address(), object.weight, None));
        }
    }
    let endpoints = localities.into_iter().map(|(locality, lb_endpoints)| {
        let weight =
            lb_endpoints.iter().filter_map(|it| it.load_balancing_weight).map(|it| it.value);
        LocalityLbEndpoints {
            locality: Some(ProtoLocality {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                ..Default::default()
            }),
            load_balancing_weight: uint32(weight.fold(0, u32::saturating_add)),
            lb_endpoints,
            ..Default::default()
        }
    });
    ClusterLoadAssignment {
        cluster_name: names::outbound_cluster(
            port.port,
            subset.map(|subset| subset.name.as_str()),
            &service.name,
        ),
        endpoints: endpoints.collect(),
        ..Default::default()
    }
}

/// One endpoint, for a static cluster.
pub(crate) fn single(cluster: &str, address: SocketAddr) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint(address, 1, None)],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Metadata key that transport sockets are matched by.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// What tells a sidecar from an endpoint without one.
pub(crate) fn sidecar_metadata() -> Struct {
    let value = Value { kind: Some(value::Kind::StringValue("mtls".to_owned())) };
    Struct { fields: HashMap::from([("outrigger".to_owned(), value)]) }
}

fn endpoint(at: SocketAddr, weight: u32, metadata: Option<Metadata>) -> LbEndpoint {
    let endpoint = Endpoint { address: address(at), ..Default::default() };
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        load_balancing_weight: uint32(weight),
        metadata,
        ..Default::default()
    }
}
