//! Listeners for requests that leave a workload, and those of gateways.

use crate::model::Config;
use crate::model::gateway::{GatewayListener, GatewayProtocol};
use crate::model::service::Service;
use crate::registry::Needs;
use crate::translate::proto::address;
use crate::translate::{http, names};
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::TrafficDirection;
use outrigger_proto::envoy::config::listener::v3::{ApiListener, Filter, FilterChain, Listener};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The listeners of a sidecar for its own application: one for all HTTP services, and one for each service port that it
/// asked for. What it asks for is left out as long as no Service has it.
pub(crate) fn outbound(config: &Config, needs: &Needs) -> Vec<Listener> {
    let mut listeners = Vec::new();
    if let Some(port) = needs.outbound_port {
        let name = names::OUTBOUND.to_owned();
        let manager = http::discovered(config, name.clone(), name.clone());
        let at = SocketAddr::new(LOOPBACK, port);
        listeners.push(leaving(name, at, http::http_filter_chain(&manager)));
    }
    let mut names = BTreeSet::new();
    for wanted in &needs.outbounds {
        let name = names::outbound(wanted.port, &wanted.service);
        let service = config.service(&wanted.service);
        let Some((service, port)) = service.and_then(|it| Some((it, it.port(wanted.port)?))) else {
            continue;
        };
        if !names.insert(name.clone()) {
            continue;
        }
        let filter = if port.protocol.is_http() {
            http::http_filter_chain(&http::discovered(config, stat_prefix(&name), name.clone()))
        } else {
            let cluster = names::outbound_cluster(port.port, None, &wanted.service);
            http::tcp_filter_chain(stat_prefix(&name), cluster, &service.load_balancer.hash_on)
        };
        listeners.push(leaving(name, wanted.listen, filter));
    }
    listeners
}

/// The listeners of a client without a sidecar: one for each port with HTTP services, and one for each other service port
/// that no HTTP service or earlier service has.
pub(crate) fn foreign(config: &Config) -> Vec<(Listener, Vec<&str>)> {
    let mut http_ports: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    let mut other_ports: BTreeMap<u16, &Service> = BTreeMap::new();
    for service in config.services() {
        for port in &service.ports {
            if port.protocol.is_http() {
                http_ports.entry(port.port).or_default().push(&service.name);
            } else {
                other_ports.entry(port.port).or_insert(service);
            }
        }
    }
    other_ports.retain(|port, _| !http_ports.contains_key(port));
    let http = http_ports.into_iter().map(|(port, services)| {
        let name = names::shared_outbound(port);
        let manager = http::discovered(config, stat_prefix(&name), port.to_string());
        let at = SocketAddr::new(LOOPBACK, port);
        (leaving(name, at, http::http_filter_chain(&manager)), services)
    });
    let other = other_ports.into_iter().map(|(port, service)| {
        let name = names::outbound(port, &service.name);
        let cluster = names::outbound_cluster(port, None, &service.name);
        let hash_on = &service.load_balancer.hash_on;
        let filter = http::tcp_filter_chain(stat_prefix(&name), cluster, hash_on);
        (leaving(name, SocketAddr::new(LOOPBACK, port), filter), vec![service.name.as_str()])
    });
    http.chain(other).collect()
}

/// What a gRPC client finds under a name.
pub(crate) fn grpc(config: &Config, name: String, route_config: String) -> Listener {
    let manager = http::of_grpc_client(config, route_config);
    Listener {
        name,
        api_listener: Some(ApiListener { api_listener: Some(any::pack(&manager)) }),
        ..Default::default()
    }
}

/// A gateway's listener, open to the outside.
pub(crate) fn gateway(config: &Config, gateway: &str, listener: &GatewayListener) -> Listener {
    let GatewayListener { name: _, port, protocol: GatewayProtocol::Http, hostname: _ } = listener;
    let name = names::gateway(*port, gateway);
    let manager = http::at_the_edge(config, stat_prefix(&name), name.clone());
    Listener {
        name,
        address: address(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port)),
        filter_chains: vec![FilterChain {
            filters: vec![http::http_filter_chain(&manager)],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn leaving(name: String, at: SocketAddr, filter: Filter) -> Listener {
    Listener {
        name,
        address: address(at),
        filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Default::default()
    }
}

/// Names of resources hold `|`, which some tools that read statistics do not expect.
pub(crate) fn stat_prefix(name: &str) -> String {
    name.replace("||", "_").replace('|', "_")
}
