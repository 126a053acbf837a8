//! Load assignments.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::endpoint::v3 as proto;
use outrigger_proto::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use outrigger_proto::envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload;
use outrigger_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;

use crate::config::Problems;
use crate::config::address::Address;
use crate::config::endpoint::{
    AssignmentPolicy, CheckTarget, Endpoint, EndpointAddress, HealthStatus, LoadAssignment,
    Locality, LocalityEndpoints,
};

use super::common::{
    enumeration, host_and_port, ip_and_port, number_in, required, text, unsupported,
};
use super::{common, health_check, metadata, percent};

/// The lowest priority that Envoy accepts.
const MAX_PRIORITY: u32 = 128;

/// Where an endpoint has values of its own for the PROXY protocol, in its typed metadata.
const PROXY_PROTOCOL_METADATA: &str = "envoy.transport_sockets.proxy_protocol";

/// Whether host names may stand where addresses do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosts {
    /// No: IP addresses and Unix domain sockets only.
    Addresses,
    /// Yes: they are resolved. There are no Unix domain sockets then.
    Names,
}

/// A load assignment.
pub(super) fn convert(
    problems: &mut Problems,
    proto: proto::ClusterLoadAssignment,
    hosts: Hosts,
) -> LoadAssignment {
    let proto::ClusterLoadAssignment { cluster_name, endpoints, named_endpoints, policy } = proto;
    unsupported!(problems; named_endpoints);
    let cluster_name = text(problems, "cluster_name", cluster_name);
    let Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = policy.unwrap_or_default();
    let drop_category = drop_overloads.first().map(|first| Arc::from(first.category.as_str()));
    let (overprovisioning_factor, drop_overload) = problems.field("policy", |problems| {
        unsupported!(problems; endpoint_stale_after);
        let factor =
            number_in(problems, "overprovisioning_factor", overprovisioning_factor, 1..=u32::MAX);
        (factor, drop_overload(problems, drop_overloads))
    });
    let mut seen = HashSet::new();
    let mut localities: Vec<LocalityEndpoints> = endpoints
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems
                .element("endpoints", index, |problems| locality(problems, proto, hosts, &mut seen))
        })
        .collect();
    bounded_weights(problems, &localities);
    fill_priorities(&mut localities);
    LoadAssignment {
        cluster_name: cluster_name.into(),
        localities,
        policy: AssignmentPolicy {
            overprovisioning_factor: overprovisioning_factor
                .unwrap_or(AssignmentPolicy::default().overprovisioning_factor),
            weighted_priority_health,
            drop_overload,
        },
        drop_category,
    }
}

/// The share of requests that some category drops, in a million.
fn drop_overload(problems: &mut Problems, protos: Vec<DropOverload>) -> u32 {
    const MILLION: u64 = 1_000_000;
    let mut passed = MILLION;
    for (index, DropOverload { category, drop_percentage }) in protos.into_iter().enumerate() {
        problems.element("drop_overloads", index, |problems| {
            text(problems, "category", category);
            let fraction = drop_percentage
                .and_then(|proto| percent::plain(problems, "drop_percentage", proto));
            let (numerator, denominator) = fraction.unwrap_or((0, 100));
            let dropped = (u64::from(numerator) * MILLION / u64::from(denominator)).min(MILLION);
            passed = passed * (MILLION - dropped) / MILLION;
        });
    }
    (MILLION - passed) as u32
}

/// Load balancers add weights up in 32 bits, in Envoy and so here.
fn bounded_weights(problems: &mut Problems, localities: &[LocalityEndpoints]) {
    let mut by_priority: BTreeMap<u32, u64> = BTreeMap::new();
    for locality in localities {
        let endpoints: u64 =
            locality.endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
        if endpoints > u64::from(u32::MAX) {
            problems.reject_field(
                "endpoints",
                format!(
                    "the weights of the endpoints of one locality sum up to {endpoints}: too much"
                ),
            );
        }
        *by_priority.entry(locality.priority).or_default() +=
            u64::from(locality.weight.unwrap_or(0));
    }
    for (priority, sum) in by_priority {
        if sum > u64::from(u32::MAX) {
            problems.reject_field(
                "endpoints",
                format!(
                    "the weights of the localities of priority {priority} sum up to {sum}: too much"
                ),
            );
        }
    }
}

/// Priorities that no one uses have no endpoints, as in Envoy; then there are no gaps.
fn fill_priorities(localities: &mut Vec<LocalityEndpoints>) {
    let used: HashSet<u32> = localities.iter().map(|locality| locality.priority).collect();
    let highest = used.iter().copied().max().unwrap_or(0);
    for priority in (0..highest).filter(|priority| !used.contains(priority)) {
        localities.push(LocalityEndpoints {
            locality: Arc::default(),
            priority,
            weight: None,
            endpoints: Vec::new(),
        });
    }
}

fn locality(
    problems: &mut Problems,
    proto: proto::LocalityLbEndpoints,
    hosts: Hosts,
    seen: &mut HashSet<Address>,
) -> Option<LocalityEndpoints> {
    let proto::LocalityLbEndpoints {
        locality,
        metadata: _, // of the locality: nothing here reads it
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity: _, // without effect in Envoy too
        lb_config,
    } = proto;
    if lb_config.is_some() {
        problems.unsupported("leds_cluster_locality_config", true);
    }
    if priority > MAX_PRIORITY {
        problems
            .reject_field("priority", format!("{priority} is out of range: 0 to {MAX_PRIORITY}"));
        return None;
    }
    let weight = number_in(problems, "load_balancing_weight", load_balancing_weight, 1..=u32::MAX);
    let core::Locality { region, zone, sub_zone } = locality.unwrap_or_default();
    let endpoints = lb_endpoints
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("lb_endpoints", index, |problems| endpoint(problems, proto, hosts))
        })
        // Of endpoints with the same address the first counts, as in Envoy.
        .filter(|endpoint| endpoint.address.known().is_none_or(|address| seen.insert(address)))
        .collect();
    Some(LocalityEndpoints {
        locality: Arc::new(Locality {
            region: region.into(),
            zone: zone.into(),
            sub_zone: sub_zone.into(),
        }),
        priority,
        weight,
        endpoints,
    })
}

fn endpoint(problems: &mut Problems, proto: proto::LbEndpoint, hosts: Hosts) -> Option<Endpoint> {
    let proto::LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } =
        proto;
    let health = match enumeration(problems, "health_status", health_status) {
        Some(core::HealthStatus::Unknown) | None => HealthStatus::Unknown,
        Some(core::HealthStatus::Healthy) => HealthStatus::Healthy,
        Some(core::HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
        Some(core::HealthStatus::Draining) => HealthStatus::Draining,
        Some(core::HealthStatus::Timeout) => HealthStatus::Timeout,
        Some(core::HealthStatus::Degraded) => HealthStatus::Degraded,
    };
    let weight = number_in(problems, "load_balancing_weight", load_balancing_weight, 1..=u32::MAX)
        .unwrap_or(1);
    let own_tlvs = metadata.as_ref().is_some_and(|metadata| {
        metadata.typed_filter_metadata.contains_key(PROXY_PROTOCOL_METADATA)
    });
    problems.unsupported(
        "metadata.typed_filter_metadata[envoy.transport_sockets.proxy_protocol]",
        own_tlvs,
    );
    let endpoint = match host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => {
            problems.unsupported("endpoint_name", true);
            return None;
        }
        None => {
            problems.reject_field("endpoint", "required");
            return None;
        }
    };
    let (address, hostname, check, additional_addresses) =
        problems.field("endpoint", |problems| {
            let proto::Endpoint {
                address,
                health_check_config,
                hostname,
                additional_addresses,
                observability_name: _, // only names the endpoint in statistics
            } = endpoint;
            problems.unsupported(
                "additional_addresses",
                !additional_addresses.is_empty() && hosts == Hosts::Names,
            );
            let additional = additional_addresses
                .into_iter()
                .enumerate()
                .filter_map(|(index, proto)| {
                    problems.element("additional_addresses", index, |problems| {
                        let proto::endpoint::AdditionalAddress { address } = proto;
                        let address = required(problems, "address", address)?;
                        problems.field("address", |problems| ip_and_port(problems, address))
                    })
                })
                .collect();
            let check = health_check_config.and_then(|proto| {
                problems
                    .field("health_check_config", |problems| health_check::target(problems, proto))
            });
            let address = required(problems, "address", address)?;
            let address =
                problems.field("address", |problems| endpoint_address(problems, address, hosts))?;
            if let EndpointAddress::Pipe(_) = address {
                pipe_alone(problems, &additional, check.as_ref());
            }
            Some((address, hostname, check, additional))
        })?;
    Some(Endpoint {
        address,
        additional_addresses,
        hostname: hostname.into(),
        weight,
        health,
        metadata: Arc::new(metadata.map(metadata::of).unwrap_or_default()),
        check: check.map(Arc::new),
    })
}

/// A Unix domain socket has neither a port nor addresses beside it.
fn pipe_alone(
    problems: &mut Problems,
    additional: &Arc<[SocketAddr]>,
    check: Option<&CheckTarget>,
) {
    if !additional.is_empty() {
        problems.reject_field("additional_addresses", "go with an IP address only");
    }
    if check.is_some_and(|check| check.port.is_some() && check.address.is_none()) {
        problems.field("health_check_config", |problems| {
            problems.reject_field("port_value", "a pipe has no port");
        });
    }
}

fn endpoint_address(
    problems: &mut Problems,
    address: core::Address,
    hosts: Hosts,
) -> Option<EndpointAddress> {
    if hosts == Hosts::Addresses
        && let Some(core::address::Address::Pipe(_)) = &address.address
    {
        // The mode of the file is for whoever listens there.
        let (address, _mode) = common::address(problems, address)?;
        return match address {
            Address::Pipe(path) => Some(EndpointAddress::Pipe(path)),
            Address::Ip(address) => Some(EndpointAddress::Ip(address)),
        };
    }
    let (host, port) = host_and_port(problems, address)?;
    match (host.parse::<IpAddr>(), hosts) {
        (Ok(ip), _) => Some(EndpointAddress::Ip(SocketAddr::new(ip, port))),
        (Err(_), Hosts::Names) => Some(EndpointAddress::Name { host: host.into(), port }),
        (Err(_), Hosts::Addresses) => {
            problems.field("socket_address", |problems| {
                problems.reject_field(
                    "address",
                    format!("{host:?} is not an IP address: a cluster of type STRICT_DNS takes host names"),
                );
            });
            None
        }
    }
}
