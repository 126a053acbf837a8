//! The listener of a sidecar for requests to its application. One port for all ports of the application: the server name
//! of the TLS connection says which.

use crate::model::mesh::{Action, MtlsMode};
use crate::model::service::Protocol;
use crate::model::{Config, Policy};
use crate::registry::{AppPort, Needs};
use crate::translate::policy::{self, Callers};
use crate::translate::proto::{address, boolean, duration, transport_socket};
use crate::translate::{http, listener, names, tls};
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, TrafficDirection, data_source,
};
use outrigger_proto::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, listener_filter,
};
use outrigger_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use outrigger_proto::envoy::config::route::v3::route_match::PathSpecifier;
use outrigger_proto::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
};
use outrigger_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Ids that nobody has: on a port that nobody may call.
const NOBODY: &str = "spiffe://nobody.invalid/";

/// The protocol of an application's port: as the sidecar says, else as the Service says, else bytes.
pub(crate) fn protocol(config: &Config, service: &str, port: &AppPort) -> Protocol {
    let of_service = || config.service(service).and_then(|it| it.port(port.port));
    port.protocol.or_else(|| of_service().map(|it| it.protocol)).unwrap_or(Protocol::Tcp)
}

/// The listener; a workload without ports has none.
pub(crate) fn inbound(config: &Config, needs: &Needs) -> Option<Listener> {
    let service = &*needs.service;
    let first = needs.app_ports.first()?;
    let policies = policy::of(config, service);
    let mut chains = Vec::new();
    for (index, port) in needs.app_ports.iter().enumerate() {
        chains.push(encrypted(config, service, port, &policies, index == 0));
    }
    chains.extend(plaintext(config, service, first, &policies));
    Some(Listener {
        name: names::inbound(first.port, service),
        address: address(SocketAddr::new(needs.advertise, needs.inbound_port)),
        listener_filters: vec![ListenerFilter {
            name: "envoy.filters.listener.tls_inspector".to_owned(),
            config_type: Some(listener_filter::ConfigType::TypedConfig(any::pack(
                &TlsInspector::default(),
            ))),
            ..Default::default()
        }],
        filter_chains: chains,
        traffic_direction: TrafficDirection::Inbound.into(),
        ..Default::default()
    })
}

/// Callers with a certificate of the mesh. The chain of the first port takes every server name that no other has.
fn encrypted(
    config: &Config,
    service: &str,
    port: &AppPort,
    policies: &[&Arc<Policy>],
    first: bool,
) -> FilterChain {
    let http = protocol(config, service, port).is_http();
    let callers = if http { Callers::Any } else { policy::callers(config, policies) };
    let callers = match callers {
        Callers::Any => Vec::new(),
        Callers::Only(callers) if callers.is_empty() => vec![NOBODY.to_owned()],
        Callers::Only(callers) => callers,
    };
    let alpn: &[&str] = if http { &["h2", "http/1.1"] } else { &[] };
    let context = tls::downstream(&callers, alpn);
    let server_names =
        if first { Vec::new() } else { vec![names::server_name(port.port, service)] };
    FilterChain {
        name: names::inbound(port.port, service),
        filter_chain_match: Some(FilterChainMatch {
            server_names,
            transport_protocol: "tls".to_owned(),
            ..Default::default()
        }),
        filters: vec![to_application(config, service, port, policies)],
        transport_socket: Some(transport_socket("envoy.transport_sockets.tls", &context)),
        ..Default::default()
    }
}

/// Callers in plaintext: refused with a reason that says so, or (while the mesh is permissive) served as callers that
/// nobody knows. A port without HTTP has no way to give a reason, and no way to judge such a caller if there is a rule.
fn plaintext(
    config: &Config,
    service: &str,
    first: &AppPort,
    policies: &[&Arc<Policy>],
) -> Option<FilterChain> {
    let http = protocol(config, service, first).is_http();
    let filter = match config.mesh().mtls {
        MtlsMode::Strict => refusal(service),
        MtlsMode::Permissive if http || policy::callers(config, policies) == Callers::Any => {
            to_application(config, service, first, policies)
        }
        MtlsMode::Permissive => return None,
    };
    Some(FilterChain {
        name: format!("{}|plaintext", names::inbound(first.port, service)),
        filter_chain_match: Some(FilterChainMatch {
            transport_protocol: "raw_buffer".to_owned(),
            ..Default::default()
        }),
        filters: vec![filter],
        ..Default::default()
    })
}

fn to_application(
    config: &Config,
    service: &str,
    port: &AppPort,
    policies: &[&Arc<Policy>],
) -> Filter {
    let cluster = names::inbound(port.port, service);
    let stat_prefix = format!("inbound_{}", port.port);
    if !protocol(config, service, port).is_http() {
        return http::tcp_filter_chain(stat_prefix, cluster, &[]);
    }
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.clone())),
        // The caller's sidecar knows how long it wants to wait.
        timeout: duration(Duration::ZERO),
        ..Default::default()
    };
    let routes = every_request(
        cluster,
        Route {
            name: "default".to_owned(),
            action: Some(route::Action::Route(action)),
            ..Default::default()
        },
    );
    let filters = policy::http_filters(config, policies);
    let strict_paths = policy::judge_paths(policies)
        && (!filters.is_empty() || config.mesh().default_action == Action::Deny);
    http::http_filter_chain(&http::inbound(stat_prefix, routes, filters, strict_paths))
}

/// Answers every request with the reason why a plaintext caller is not served.
fn refusal(service: &str) -> Filter {
    let body = format!(
        "plaintext is not served: {service} takes callers with a certificate of the mesh only (mtls: strict)\n"
    );
    let answer = DirectResponseAction {
        status: 403,
        body: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(body)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let reason = HeaderValueOption {
        header: Some(HeaderValue {
            key: "x-outrigger-reason".to_owned(),
            value: "peer_not_tls".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let routes = every_request(
        "plaintext".to_owned(),
        Route {
            name: "refused".to_owned(),
            response_headers_to_add: vec![reason],
            action: Some(route::Action::DirectResponse(answer)),
            ..Default::default()
        },
    );
    let prefix = listener::stat_prefix("inbound|plaintext");
    http::http_filter_chain(&http::inbound(prefix, routes, Vec::new(), false))
}

fn every_request(name: String, route: Route) -> RouteConfiguration {
    let every = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    };
    RouteConfiguration {
        name: name.clone(),
        virtual_hosts: vec![VirtualHost {
            name,
            domains: vec!["*".to_owned()],
            routes: vec![Route { r#match: Some(every), ..route }],
            ..Default::default()
        }],
        // Clusters and listeners may arrive in any order.
        validate_clusters: boolean(false),
        ..Default::default()
    }
}
