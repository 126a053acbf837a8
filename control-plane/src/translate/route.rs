//! Route configurations: which virtual hosts there are, with which domains.

use crate::model::{Config, Kind, Route, Service};
use crate::translate::names;
use crate::translate::rule::{self, Dialect};
use crate::translate::world::Origins;
use outrigger_proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use std::collections::{BTreeMap, BTreeSet};

/// Route configurations with the objects that they are made of.
pub(crate) type Made = (RouteConfiguration, Origins);

/// The Routes and services of a configuration, by what they are looked up by.
pub(crate) struct Routing<'a> {
    config: &'a Config,
    /// HTTP services by port.
    by_port: BTreeMap<u16, Vec<&'a Service>>,
    /// Routes inside the mesh by host.
    by_host: BTreeMap<&'a str, Vec<&'a Route>>,
    /// The hosts among them that are not services, with the HTTP ports of the services that they lead to.
    hosts: Vec<(&'a str, BTreeSet<u16>)>,
}

impl<'a> Routing<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        let mut by_port: BTreeMap<u16, Vec<&Service>> = BTreeMap::new();
        for service in config.services() {
            for port in service.http_ports() {
                by_port.entry(port.port).or_default().push(service);
            }
        }
        let mut by_host: BTreeMap<&str, Vec<&Route>> = BTreeMap::new();
        for route in config.routes().filter(|it| it.gateway.is_none()) {
            for host in &route.hosts {
                by_host.entry(host).or_default().push(route);
            }
        }
        let hosts = by_host.iter().filter(|(host, _)| config.service(host).is_none());
        let hosts = hosts.map(|(host, routes)| (*host, backend_ports(config, routes))).collect();
        Self { config, by_port, by_host, hosts }
    }

    /// Every port of an HTTP service.
    pub(crate) fn http_ports(&self) -> impl Iterator<Item = u16> {
        self.by_port.keys().copied()
    }

    /// For the listener on which a sidecar takes requests to any service: each HTTP port of each service, and the hosts of
    /// Routes.
    pub(crate) fn outbound(&self) -> Made {
        let mut table = Table::new(self, names::OUTBOUND.to_owned());
        for service in self.config.services() {
            for (index, port) in service.http_ports().enumerate() {
                let mut domains = vec![names::authority(&service.name, port.port)];
                if index == 0 {
                    domains.push(service.name.clone());
                }
                table.service(service, port.port, domains, Dialect::Envoy);
            }
        }
        for (host, ports) in &self.hosts {
            let routes = self.routes(host);
            table.host(host, routes, None, vec![(*host).to_owned()]);
            for port in ports {
                table.host(host, routes, Some(*port), vec![names::authority(host, *port)]);
            }
        }
        table.made()
    }

    /// For a listener that takes requests to one service port, whatever their host.
    pub(crate) fn one_service(&self, service: &Service, port: u16) -> Made {
        let mut table = Table::new(self, names::outbound(port, &service.name));
        table.service(service, port, vec!["*".to_owned()], Dialect::Envoy);
        table.made()
    }

    /// For a gRPC client that resolves a service.
    pub(crate) fn grpc(&self, service: &Service, port: u16) -> Made {
        let mut table = Table::new(self, names::authority(&service.name, port));
        table.service(service, port, vec!["*".to_owned()], Dialect::Grpc);
        table.made()
    }

    /// For a foreign client's listener on one port: every HTTP service that has it, and the hosts of Routes to them.
    pub(crate) fn shared(&self, port: u16) -> Made {
        let mut table = Table::new(self, port.to_string());
        for service in self.by_port.get(&port).into_iter().flatten() {
            let domains = vec![service.name.clone(), names::authority(&service.name, port)];
            table.service(service, port, domains, Dialect::Envoy);
        }
        for (host, ports) in &self.hosts {
            if ports.is_empty() || ports.contains(&port) {
                let domains = vec![(*host).to_owned(), names::authority(host, port)];
                table.host(host, self.routes(host), Some(port), domains);
            }
        }
        table.made()
    }

    /// For a gateway's listener: the hosts of its Routes, as far as the listener takes them.
    pub(crate) fn gateway(&self, gateway: &str, port: u16, hostname: &str) -> Made {
        let mut table = Table::new(self, names::gateway(port, gateway));
        table.origins.push((Kind::Gateway, gateway.into()));
        let mut hosts: BTreeMap<&str, Vec<&Route>> = BTreeMap::new();
        for route in self.config.routes().filter(|it| it.gateway.as_deref() == Some(gateway)) {
            for host in &route.hosts {
                if let Some(host) = intersection(hostname, host) {
                    hosts.entry(host).or_default().push(route);
                }
            }
        }
        for (host, routes) in hosts {
            let domains = match host {
                "*" => vec!["*".to_owned()],
                host => vec![host.to_owned(), names::authority(host, port)],
            };
            table.host(host, &routes, None, domains);
        }
        table.made()
    }

    /// The Routes for a host inside the mesh, in order of name.
    fn routes(&self, host: &str) -> &[&'a Route] {
        self.by_host.get(host).map_or(&[], Vec::as_slice)
    }
}

/// The hosts that both name, in the words of the narrower one.
fn intersection<'a>(listener: &'a str, route: &'a str) -> Option<&'a str> {
    let covers = |pattern: &str, host: &str| match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    };
    if listener == route || listener == "*" || covers(listener, route) {
        Some(route)
    } else if route == "*" || covers(route, listener) {
        Some(listener)
    } else {
        None
    }
}

/// The HTTP ports of the services that the Routes lead to.
fn backend_ports(config: &Config, routes: &[&Route]) -> BTreeSet<u16> {
    let rules = routes.iter().flat_map(|route| &route.rules);
    let services =
        rules.flat_map(|rule| &rule.backend_refs).filter_map(|it| config.service(&it.name));
    services.flat_map(|service| service.http_ports().map(|it| it.port)).collect()
}

/// A route configuration under construction.
struct Table<'a> {
    routing: &'a Routing<'a>,
    configuration: RouteConfiguration,
    origins: Origins,
}

impl<'a> Table<'a> {
    fn new(routing: &'a Routing<'a>, name: String) -> Self {
        let configuration = RouteConfiguration { name, ..Default::default() };
        Self { routing, configuration, origins: Origins::new() }
    }

    /// A virtual host for a service port: the Routes for the service, and behind them the service itself.
    fn service(&mut self, service: &Service, port: u16, domains: Vec<String>, dialect: Dialect) {
        self.origins.push((Kind::Service, service.name.as_str().into()));
        let mut routes = Vec::new();
        for route in self.routing.routes(&service.name) {
            self.origins.push((Kind::Route, route.name.as_str().into()));
            routes.extend(rule::routes(self.routing.config, route, Some(port), dialect));
        }
        routes.push(rule::default_route(service, port));
        let name = names::authority(&service.name, port);
        self.configuration.virtual_hosts.push(VirtualHost {
            name,
            domains,
            routes,
            ..Default::default()
        });
    }

    /// A virtual host that is no service: what no rule matches is not found.
    fn host(&mut self, host: &str, routes: &[&Route], port: Option<u16>, domains: Vec<String>) {
        let mut rules = Vec::new();
        for route in routes {
            self.origins.push((Kind::Route, route.name.as_str().into()));
            rules.extend(rule::routes(self.routing.config, route, port, Dialect::Envoy));
        }
        let name = match port {
            Some(port) => names::authority(host, port),
            None => host.to_owned(),
        };
        self.configuration.virtual_hosts.push(VirtualHost {
            name,
            domains,
            routes: rules,
            ..Default::default()
        });
    }

    fn made(mut self) -> Made {
        self.origins.sort();
        self.origins.dedup();
        (self.configuration, self.origins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_routes_the_hosts_that_listener_and_route_both_name() {
        assert_eq!(intersection("*", "a.x"), Some("a.x"));
        assert_eq!(intersection("*", "*"), Some("*"));
        assert_eq!(intersection("a.x", "*"), Some("a.x"));
        assert_eq!(intersection("*.x", "a.x"), Some("a.x"));
        assert_eq!(intersection("a.x", "*.x"), Some("a.x"));
        assert_eq!(intersection("*.x", "*.a.x"), Some("*.a.x"));
        assert_eq!(intersection("a.x", "b.x"), None);
        assert_eq!(intersection("*.x", "x"), None);
    }
}
