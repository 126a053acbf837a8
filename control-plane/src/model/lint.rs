//! What works, but perhaps not as meant: checks across objects, as warnings with codes that stay the same.
//!
//! [`warnings`] needs a configuration only; [`observed`] also what is known of the live mesh.

use super::mesh::Action;
use super::object::Labels;
use super::policy::PathPattern;
use super::problem::{Code, Problem};
use super::read::{Content, Document};
use super::route::{BackendRef, Match, PathMatch, Rule};
use super::service::Protocol;
use super::{Config, Object, Policy, Route, Service};
use std::collections::{BTreeMap, BTreeSet};

/// A rule is compared with so many matches before it: whoever writes more of them makes them with a program.
const MATCHES_COMPARED: usize = 500;

/// What may not be as meant in `documents`, within the configuration that they are a part of.
pub fn warnings(config: &Config, documents: &[Document]) -> Vec<Problem> {
    let mut found = Vec::new();
    let owners = tcp_owners(config);
    for document in documents {
        let mut warn = |code, field: String, reason: String| {
            found.push(warning(document, code, field, reason));
        };
        match &document.content {
            Content::Object(Object::Service(it)) => listener_conflicts(&owners, it, &mut warn),
            Content::Object(Object::Route(it)) => {
                unreached_hosts(config, it, &mut warn);
                shadowed_rules(config, it, &mut warn);
            }
            Content::Object(Object::Policy(it)) => {
                impossible_paths(it, &mut warn);
                overruled(config, it, &mut warn);
            }
            _ => {}
        }
    }
    found.sort_by_key(|warning| (warning.line, warning.column));
    found
}

/// What is known of the live mesh.
#[derive(Debug, Default)]
pub struct Observed {
    /// Labels of the instances of each service that has any.
    pub instances: BTreeMap<String, Vec<Labels>>,
    /// Services that sidecars belong to.
    pub callers: BTreeSet<String>,
}

/// What may not be as meant in `documents`, in the mesh as it is.
pub fn observed(config: &Config, documents: &[Document], mesh: &Observed) -> Vec<Problem> {
    let mut found = Vec::new();
    for document in documents {
        let mut warn = |code, field: String, reason: String| {
            found.push(warning(document, code, field, reason));
        };
        match &document.content {
            Content::Object(Object::Service(service)) => {
                for (index, subset) in service.subsets.iter().enumerate() {
                    if let Some(reason) = empty_subset(service, &subset.name, mesh) {
                        warn(Code::EmptySubset, format!("spec.subsets[{index}].labels"), reason);
                    }
                }
            }
            Content::Object(Object::Route(route)) => {
                for (rule, backend, it) in backends(route) {
                    let service = config.service(&it.name);
                    let (Some(service), Some(subset)) = (service, &it.subset) else { continue };
                    if let Some(reason) = empty_subset(service, subset, mesh) {
                        let field = format!("spec.rules[{rule}].backendRefs[{backend}].subset");
                        warn(Code::EmptySubset, field, reason);
                    }
                }
            }
            Content::Object(Object::Policy(policy)) => {
                for (index, from) in policy.from.iter().enumerate() {
                    let name = &from.service;
                    let known = config.service(name).is_some()
                        || config.gateway(name).is_some()
                        || mesh.callers.contains(name);
                    if !known {
                        let reason = format!(
                            "nobody is called `{name}`: there is no such Service or Gateway, and no sidecar of one"
                        );
                        warn(Code::NeverMatches, format!("spec.from[{index}].service"), reason);
                    }
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|warning| (warning.line, warning.column));
    found
}

fn warning(document: &Document, code: Code, field: String, reason: String) -> Problem {
    let position = document.position_of(&field);
    Problem::new(code, reason).of(document.kind(), document.name()).at(position).field(field)
}

/// Backends that get requests, with the places of rule and backend.
fn backends(route: &Route) -> impl Iterator<Item = (usize, usize, &BackendRef)> {
    route.rules.iter().enumerate().flat_map(|(rule, it)| {
        let backends = it.backend_refs.iter().enumerate().filter(|(_, it)| it.weight > 0);
        backends.map(move |(backend, it)| (rule, backend, it))
    })
}

/// A service without any instance is not up yet, which is nothing to warn of.
fn empty_subset(service: &Service, subset: &str, mesh: &Observed) -> Option<String> {
    let instances = mesh.instances.get(&service.name)?;
    let subset = service.subset(subset)?;
    if instances.iter().any(|labels| subset.selects(labels)) {
        return None;
    }
    let wanted: Vec<_> =
        subset.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Some(format!(
        "no instance of `{}` has the labels of subset `{}` ({}): requests to it are answered with 503",
        service.name,
        subset.name,
        wanted.join(", "),
    ))
}

/// Services by TCP port.
fn tcp_owners(config: &Config) -> BTreeMap<u16, Vec<&str>> {
    let mut owners: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for service in config.services() {
        for port in &service.ports {
            if matches!(port.protocol, Protocol::Tcp | Protocol::Tls) {
                owners.entry(port.port).or_default().push(&service.name);
            }
        }
    }
    owners
}

fn listener_conflicts(
    owners: &BTreeMap<u16, Vec<&str>>,
    service: &Service,
    warn: &mut impl FnMut(Code, String, String),
) {
    for (index, port) in service.ports.iter().enumerate() {
        let others = owners.get(&port.port).map_or(&[][..], Vec::as_slice);
        let others: Vec<_> = others.iter().copied().filter(|name| *name != service.name).collect();
        if port.protocol.is_http() || others.is_empty() {
            continue;
        }
        let reason = format!(
            "TCP port {} is also a port of {}: callers need an explicit listener for each (`--outbound NAME:PORT=LISTEN`)",
            port.port,
            others.join(", "),
        );
        warn(Code::ListenerConflict, format!("spec.ports[{index}].port"), reason);
    }
}

fn unreached_hosts(config: &Config, route: &Route, warn: &mut impl FnMut(Code, String, String)) {
    let Some(gateway) = route.gateway.as_deref().and_then(|name| config.gateway(name)) else {
        return;
    };
    for (index, host) in route.hosts.iter().enumerate() {
        if !gateway.listeners.iter().any(|one| hosts_meet(&one.hostname, host)) {
            let reason = format!("no listener of Gateway `{}` has a hostname for it", gateway.name);
            warn(Code::NeverMatches, format!("spec.hosts[{index}]"), reason);
        }
    }
}

/// Whether there is a host that both patterns match.
fn hosts_meet(a: &str, b: &str) -> bool {
    if a == "*" || b == "*" {
        return true;
    }
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => a == b,
        (Some(suffix), None) => b.ends_with(suffix),
        (None, Some(suffix)) => a.ends_with(suffix),
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
    }
}

static ANY: Match =
    Match { path: None, method: None, headers: Vec::new(), query_params: Vec::new() };

fn matches(rule: &Rule) -> &[Match] {
    if rule.matches.is_empty() { std::slice::from_ref(&ANY) } else { &rule.matches }
}

/// The Routes of a host are tried in order of their names, the rules of each in theirs.
fn shadowed_rules(config: &Config, route: &Route, warn: &mut impl FnMut(Code, String, String)) {
    let earlier = |host: &String| {
        let routes = config.routes().filter(|it| it.gateway == route.gateway);
        let routes = routes.filter(|it| it.name < route.name && it.hosts.contains(host));
        let rules = routes.flat_map(|it| {
            it.rules.iter().enumerate().map(move |(index, rule)| (it.name.as_str(), index, rule))
        });
        rules.collect::<Vec<_>>()
    };
    let before: Vec<_> = route.hosts.iter().map(earlier).collect();
    for (index, rule) in route.rules.iter().enumerate() {
        let own = route.rules.iter().enumerate().take(index);
        let own: Vec<_> = own.map(|(index, rule)| (route.name.as_str(), index, rule)).collect();
        let mut takers = BTreeSet::new();
        let shadowed = before.iter().all(|before| {
            matches(rule).iter().all(|wanted| {
                let all = before.iter().chain(&own);
                let all = all.flat_map(|(name, place, rule)| {
                    matches(rule).iter().map(move |it| (*name, *place, it))
                });
                let taker =
                    all.take(MATCHES_COMPARED).find(|(_, _, earlier)| covers(earlier, wanted));
                takers.extend(taker.map(|(name, place, _)| (name, place)));
                taker.is_some()
            })
        });
        if !shadowed {
            continue;
        }
        let takers: Vec<_> = takers
            .into_iter()
            .map(|(name, place)| match name == route.name {
                true => format!("spec.rules[{place}]"),
                false => format!("spec.rules[{place}] of Route `{name}`"),
            })
            .collect();
        let reason = format!("never reached: {} takes its requests first", takers.join(" with "));
        warn(Code::ShadowedRule, format!("spec.rules[{index}]"), reason);
    }
}

/// Whether every request that `narrow` matches, `wide` does too; where that is hard to say, no.
fn covers(wide: &Match, narrow: &Match) -> bool {
    let path = match (&wide.path, &narrow.path) {
        (None, _) => true,
        (Some(PathMatch::PathPrefix(prefix)), _) if prefix == "/" => true,
        (
            Some(PathMatch::PathPrefix(wide)),
            Some(PathMatch::PathPrefix(path) | PathMatch::Exact(path)),
        ) => path
            .strip_prefix(wide.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        (Some(wide), Some(narrow)) => wide == narrow,
        (Some(_), None) => false,
    };
    path && (wide.method.is_none() || wide.method == narrow.method)
        && wide.headers.iter().all(|it| narrow.headers.contains(it))
        && wide.query_params.iter().all(|it| narrow.query_params.contains(it))
}

/// Policies judge the path as it is after normalisation.
fn impossible_paths(policy: &Policy, warn: &mut impl FnMut(Code, String, String)) {
    for (index, pattern) in policy.paths.iter().enumerate() {
        let (PathPattern::Exact(path) | PathPattern::Prefix(path)) = pattern;
        let exact = matches!(pattern, PathPattern::Exact(_));
        let why = if path.contains("//") {
            "slashes in a row are made one before it is judged"
        } else if path.contains("/../")
            || path.contains("/./")
            || exact && (path.ends_with("/..") || path.ends_with("/."))
        {
            "dot segments are resolved before it is judged"
        } else {
            continue;
        };
        warn(
            Code::NeverMatches,
            format!("spec.paths[{index}]"),
            format!("no path matches this: {why}"),
        );
    }
}

/// What one policy says, another one or the mesh's default may say already.
fn overruled(config: &Config, policy: &Policy, warn: &mut impl FnMut(Code, String, String)) {
    let stronger = config.policies().find(|it| {
        it.action == Action::Deny && it.name != policy.name && judges_all_of(it, policy)
            // Of two that say the same, the second is the one too many.
            && (policy.action == Action::Allow || !judges_all_of(policy, it) || it.name < policy.name)
    });
    if let Some(stronger) = stronger {
        let reason =
            format!("Policy `{}` denies all of these requests, and deny wins", stronger.name);
        warn(Code::NoEffect, "spec".to_owned(), reason);
    } else if policy.action == Action::Allow && config.mesh().default_action == Action::Allow {
        let reason = "the mesh allows what no policy denies (`defaultAction: allow`): this allows nothing more, and denies nobody else";
        warn(Code::NoEffect, "spec.action".to_owned(), reason.to_owned());
    }
}

fn judges_all_of(wide: &Policy, narrow: &Policy) -> bool {
    let path = |wide: &PathPattern, narrow: &PathPattern| match (wide, narrow) {
        (PathPattern::Prefix(wide), PathPattern::Prefix(it) | PathPattern::Exact(it)) => {
            it.starts_with(wide.as_str())
        }
        (PathPattern::Exact(wide), PathPattern::Exact(it)) => wide == it,
        (PathPattern::Exact(_), PathPattern::Prefix(_)) => false,
    };
    let all = |wide_is_any: bool, narrow_is_any: bool, covered: bool| {
        wide_is_any || !narrow_is_any && covered
    };
    narrow.to.iter().all(|it| wide.to.contains(it))
        && all(
            wide.from.is_empty(),
            narrow.from.is_empty(),
            narrow.from.iter().all(|it| wide.from.contains(it)),
        )
        && all(
            wide.methods.is_empty(),
            narrow.methods.is_empty(),
            narrow.methods.iter().all(|it| wide.methods.contains(it)),
        )
        && all(
            wide.paths.is_empty(),
            narrow.paths.is_empty(),
            narrow.paths.iter().all(|it| wide.paths.iter().any(|wide| path(wide, it))),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{plan, read};

    /// Codes and fields of the warnings for everything in `text`.
    fn warned(text: &str) -> Vec<String> {
        let (documents, problems) = read::documents(text);
        assert_eq!(problems, []);
        let plan = plan::plan(&Config::default(), &documents).unwrap();
        plan.warnings.iter().map(said).collect()
    }

    fn said(warning: &Problem) -> String {
        let code = serde_json::to_value(warning.code).unwrap();
        format!("{} {}", code.as_str().unwrap(), warning.field.as_deref().unwrap())
    }

    const SERVICES: &str = "{kind: Service, name: a, spec: {ports: [{port: 1, protocol: http}], subsets: [{name: v1, labels: {version: v1}}]}}\n---\n{kind: Service, name: b, spec: {ports: [{port: 1, protocol: http}]}}\n---\n";

    fn route(name: &str, hosts: &str, matches: &[&str]) -> String {
        let rules: Vec<_> = matches
            .iter()
            .map(|it| format!("{{matches: [{it}], backendRefs: [{{name: a}}]}}"))
            .collect();
        format!(
            "{{kind: Route, name: {name}, spec: {{hosts: [{hosts}], rules: [{}]}}}}\n---\n",
            rules.join(", ")
        )
    }

    fn of_rules(matches: &[&str]) -> Vec<String> {
        warned(&format!("{SERVICES}{}", route("r", "a", matches)))
    }

    const V1: &str = "{path: {type: PathPrefix, value: /v1}}";

    #[test]
    fn a_rule_is_shadowed_by_an_earlier_one_that_takes_all_of_its_requests() {
        let shadowed = ["shadowed_rule spec.rules[1]"];
        assert_eq!(of_rules(&[V1, "{path: {type: PathPrefix, value: /v1/x}}"]), shadowed);
        assert_eq!(of_rules(&[V1, "{path: {type: Exact, value: /v1}, method: GET}"]), shadowed);
        assert_eq!(of_rules(&["", V1]), shadowed);
        assert_eq!(
            of_rules(&["{method: GET}", "{method: GET, queryParams: [{name: q, value: a}]}"]),
            shadowed
        );
        let two = format!("{V1}, {{method: PUT}}");
        assert_eq!(
            of_rules(&[&two, "{path: {type: Exact, value: /v1/a}}, {method: PUT}"]),
            shadowed
        );
    }

    #[test]
    fn a_rule_that_still_gets_requests_is_not_shadowed() {
        let none = Vec::<String>::new();
        assert_eq!(of_rules(&[V1, "{path: {type: PathPrefix, value: /v1x}}"]), none);
        assert_eq!(of_rules(&["{path: {type: Exact, value: /v1}}", V1]), none);
        assert_eq!(of_rules(&["{method: GET}", "{method: PUT}"]), none);
        assert_eq!(of_rules(&["{headers: [{name: x, value: a}]}", V1]), none);
        assert_eq!(of_rules(&[V1, "{path: {type: RegularExpression, value: /v1.*}}"]), none);
        assert_eq!(of_rules(&[V1, "{path: {type: Exact, value: /v1/a}}, {method: PUT}"]), none);
    }

    #[test]
    fn a_rule_may_be_shadowed_by_another_route_of_all_its_hosts() {
        let text = |hosts| {
            [SERVICES, &route("first", "a", &[""]), &route("second", hosts, &[V1])].concat()
        };
        assert_eq!(warned(&text("a")), ["shadowed_rule spec.rules[0]"]);
        assert_eq!(warned(&text("a, b")), Vec::<String>::new());
    }

    fn policy(name: &str, spec: &str) -> String {
        format!("{{kind: Policy, name: {name}, spec: {{to: [{{service: a}}], {spec}}}}}\n---\n")
    }

    #[test]
    fn a_policy_for_paths_that_do_not_exist_never_matches() {
        let text = policy("p", "action: deny, paths: [/a//b, /a/../b*, /fine*, /a/..]");
        let never: Vec<_> =
            [0, 1, 3].map(|index| format!("never_matches spec.paths[{index}]")).into();
        assert_eq!(warned(&format!("{SERVICES}{text}")), never);
    }

    #[test]
    fn a_policy_that_changes_no_verdict_has_no_effect() {
        let mesh = "{kind: Mesh, name: default, spec: {defaultAction: deny}}\n---\n";
        let allow =
            policy("p", "action: allow, from: [{service: b}], methods: [GET], paths: [/x/*]");
        assert_eq!(warned(&[SERVICES, &allow].concat()), ["no_effect spec.action"]);
        assert_eq!(warned(&[mesh, SERVICES, &allow].concat()), Vec::<String>::new());
        let deny = policy("d", "action: deny, from: [{service: b}], paths: [/x*]");
        assert_eq!(warned(&[mesh, SERVICES, &allow, &deny].concat()), ["no_effect spec"]);
        let other = policy("d", "action: deny, from: [{service: b}], paths: [/x/y*]");
        assert_eq!(warned(&[mesh, SERVICES, &allow, &other].concat()), Vec::<String>::new());
        let twice = [policy("d", "action: deny"), policy("e", "action: deny")].concat();
        let (documents, _) = read::documents(&format!("{SERVICES}{twice}"));
        let plan = plan::plan(&Config::default(), &documents).unwrap();
        let names: Vec<_> = plan.warnings.iter().filter_map(|it| it.name.as_deref()).collect();
        assert_eq!(names, ["e"], "of two that say the same, one stays");
    }

    #[test]
    fn what_the_live_mesh_does_not_have_is_warned_of() {
        let route = "{kind: Route, name: r, spec: {hosts: [a], rules: [{backendRefs: [{name: a, subset: v1}]}]}}\n---\n";
        let text =
            [SERVICES, route, &policy("p", "action: deny, from: [{service: b}, {service: ghost}]")]
                .concat();
        let (documents, _) = read::documents(&text);
        let config = plan::plan(&Config::default(), &documents).unwrap().config;
        let mut mesh = Observed::default();
        let warned = |mesh: &Observed| {
            observed(&config, &documents, mesh).iter().map(said).collect::<Vec<_>>()
        };
        let ghost = "never_matches spec.from[1].service";
        assert_eq!(warned(&mesh), [ghost], "no instance yet is nothing to warn of");
        mesh.callers.insert("ghost".to_owned());
        let labels = |version: &str| Labels::from([("version".to_owned(), version.to_owned())]);
        mesh.instances.insert("a".to_owned(), vec![labels("v2")]);
        let empty = [
            "empty_subset spec.subsets[0].labels",
            "empty_subset spec.rules[0].backendRefs[0].subset",
        ];
        assert_eq!(warned(&mesh), empty);
        mesh.instances.insert("a".to_owned(), vec![labels("v2"), labels("v1")]);
        assert_eq!(warned(&mesh), Vec::<String>::new());
    }
}
