//! What refers to what, and whether it is there.

use super::problem::{Code, MOST, Problem};
use super::service::Protocol;
use super::{Config, Endpoint, Kind, Policy, Route, Service};

/// A reference that does not hold.
pub(super) struct Broken {
    /// Kind and name of the object that refers.
    pub(super) from: (Kind, String),
    /// Kind and name of what it refers to (or to a part of which).
    pub(super) to: (Kind, String),
    /// The part of `to` that is missing or not as needed: a field of it. Empty: all of it.
    pub(super) part: &'static str,
    /// The field that refers, and why it does not hold.
    pub(super) problem: Problem,
}

/// Every reference in `config` that does not hold, or so many that more are of no use.
pub(super) fn broken(config: &Config) -> Vec<Broken> {
    let mut found = Vec::new();
    let routes = config.routes().map(|route| Referrer::Route(route));
    let policies = config.policies().map(|policy| Referrer::Policy(policy));
    let endpoints = config.endpoints().map(|endpoint| Referrer::Endpoint(endpoint));
    for referrer in routes.chain(policies).chain(endpoints) {
        match referrer {
            Referrer::Route(route) => check_route(config, route, &mut found),
            Referrer::Policy(policy) => check_policy(config, policy, &mut found),
            Referrer::Endpoint(endpoint) => check_endpoint(config, endpoint, &mut found),
        }
        if found.len() >= MOST {
            break;
        }
    }
    found
}

enum Referrer<'a> {
    Route(&'a Route),
    Policy(&'a Policy),
    Endpoint(&'a Endpoint),
}

fn check_route(config: &Config, route: &Route, found: &mut Vec<Broken>) {
    let from = || (Kind::Route, route.name.clone());
    if let Some(gateway) = &route.gateway
        && config.gateway(gateway).is_none()
    {
        let names = config.gateways().map(|it| it.name.as_str());
        let problem = absent(Kind::Gateway, gateway, names).field("spec.gateway");
        found.push(Broken {
            from: from(),
            to: (Kind::Gateway, gateway.clone()),
            part: "",
            problem,
        });
    }
    for (rule_index, rule) in route.rules.iter().enumerate() {
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            let path = format!("spec.rules[{rule_index}].backendRefs[{index}]");
            let mut push = |part, problem| {
                let to = (Kind::Service, backend.name.clone());
                found.push(Broken { from: from(), to, part, problem });
            };
            let Some(service) = config.service(&backend.name) else {
                push("", absent_service(config, &backend.name).field(format!("{path}.name")));
                continue;
            };
            if let Some(subset) = &backend.subset
                && service.subset(subset).is_none()
            {
                let names = service.subsets.iter().map(|it| it.name.as_str());
                let reason = format!("Service `{}` has no subset `{subset}`", service.name);
                let problem = Problem::new(Code::NotFound, reason).choices(subset, names);
                push("spec.subsets", problem.field(format!("{path}.subset")));
            }
            if let Some(problem) = port_problem(service, backend.port) {
                let key = if backend.port.is_some() { "port" } else { "name" };
                push("spec.ports", problem.field(format!("{path}.{key}")));
            }
        }
    }
}

/// Why requests cannot be routed to this port of the service (or, without one, to any).
fn port_problem(service: &Service, port: Option<u16>) -> Option<Problem> {
    let name = &service.name;
    let Some(port) = port else {
        return service.http_ports().next().is_none().then(|| {
            Problem::new(
                Code::InvalidValue,
                format!("Service `{name}` has no port that carries HTTP"),
            )
        });
    };
    match service.port(port).map(|port| port.protocol) {
        Some(Protocol::Http | Protocol::Http2 | Protocol::Grpc) => None,
        Some(Protocol::Tcp | Protocol::Tls) => {
            let reason = format!("port {port} of Service `{name}` does not carry HTTP");
            Some(Problem::new(Code::InvalidValue, reason))
        }
        None => {
            let ports: Vec<_> = service.ports.iter().map(|it| it.port.to_string()).collect();
            let reason = format!("Service `{name}` has no port {port}");
            let problem = Problem::new(Code::NotFound, reason);
            Some(problem.choices(&port.to_string(), ports.iter().map(String::as_str)))
        }
    }
}

fn check_policy(config: &Config, policy: &Policy, found: &mut Vec<Broken>) {
    for (index, target) in policy.to.iter().enumerate() {
        let name = &target.service;
        let mut push = |part, problem| {
            let from = (Kind::Policy, policy.name.clone());
            found.push(Broken { from, to: (Kind::Service, name.clone()), part, problem });
        };
        let path = format!("spec.to[{index}].service");
        let Some(service) = config.service(name) else {
            push("", absent_service(config, name).field(path));
            continue;
        };
        let judges_requests = !policy.methods.is_empty() || !policy.paths.is_empty();
        if judges_requests && service.http_ports().next().is_none() {
            let reason = format!(
                "Service `{name}` has no port that carries HTTP: methods and paths cannot be judged"
            );
            push("spec.ports", Problem::new(Code::InvalidValue, reason).field(path));
        }
    }
}

fn check_endpoint(config: &Config, endpoint: &Endpoint, found: &mut Vec<Broken>) {
    let mut push = |part, problem| {
        let from = (Kind::Endpoint, endpoint.name.clone());
        found.push(Broken { from, to: (Kind::Service, endpoint.service.clone()), part, problem });
    };
    let Some(service) = config.service(&endpoint.service) else {
        push("", absent_service(config, &endpoint.service).field("spec.service"));
        return;
    };
    if endpoint.service_port(service).is_none() {
        let ports: Vec<_> = service.ports.iter().map(|it| it.port.to_string()).collect();
        let reason = format!(
            "Service `{}` has several ports, and none of them is {}: which one is this?",
            service.name, endpoint.port
        );
        let problem = Problem::new(Code::NotFound, reason)
            .choices(&endpoint.port.to_string(), ports.iter().map(String::as_str));
        push("spec.ports", problem.field("spec.port"));
    }
}

fn absent_service(config: &Config, name: &str) -> Problem {
    absent(Kind::Service, name, config.services().map(|it| it.name.as_str()))
}

/// Among so many names it is looked for the one that was meant. A mesh has more only when it is large, and then an input
/// may have as many references to look for.
const NAMES_COMPARED: usize = 2000;

/// There is no such object. Names it could be are listed while the list is short enough to be read.
fn absent<'a>(kind: Kind, name: &str, names: impl Iterator<Item = &'a str>) -> Problem {
    let mut problem = Problem::new(Code::NotFound, format!("there is no {kind} `{name}`"))
        .choices(name, names.take(NAMES_COMPARED));
    if problem.choices.len() > 20 {
        problem.choices.clear();
    }
    problem
}
