//! Reads, changes and converts the base.

use std::sync::LazyLock;

use outrigger_proto::envoy::config::bootstrap::v3::Bootstrap as Proto;
use outrigger_proto::json::{self, Schema};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::config::Rejected;
use crate::config::bootstrap::Bootstrap;
use crate::config::typed_struct;

pub(super) static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::load().expect("loads"));

/// A self-signed certificate, which is an authority as well, and its key, in PEM.
pub(super) static IDENTITY: LazyLock<(String, String)> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
});

static BASE: LazyLock<Value> = LazyLock::new(|| {
    let mut base = json::parse(include_str!("base.yaml")).expect("the base is YAML");
    let (certificate, key) = &*IDENTITY;
    base["static_resources"]["secrets"] = json!([
        {"name": "identity", "tls_certificate": {
            "certificate_chain": {"inline_string": certificate},
            "private_key": {"inline_string": key},
        }},
        {"name": "roots", "validation_context": {"trusted_ca": {"inline_string": certificate}}},
    ]);
    base
});

/// The base, with its secrets put in.
pub(super) fn base() -> Value {
    BASE.clone()
}

/// Short names of places in the base.
const PLACES: &[(&str, &str)] = &[
    ("LISTENER", "static_resources.listeners[0]"),
    ("CHAIN", "static_resources.listeners[0].filter_chains[0]"),
    ("HCM", "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"),
    ("RBAC", "HCM.http_filters[0].typed_config"),
    ("ROUTER", "HCM.http_filters[1].typed_config"),
    ("ROUTES", "HCM.route_config"),
    ("HOST", "ROUTES.virtual_hosts[0]"),
    ("ROUTE", "HOST.routes[0]"),
    ("ACTION", "ROUTE.route"),
    ("REDIRECT", "HOST.routes[1].redirect"),
    ("DIRECT", "HOST.routes[2].direct_response"),
    ("REWRITE", "HOST.routes[3].route"),
    ("TCP", "static_resources.listeners[0].default_filter_chain.filters[0].typed_config"),
    ("MUTUAL", "static_resources.listeners[1].filter_chains[0]"),
    ("DOWNSTREAM", "MUTUAL.transport_socket.typed_config"),
    ("CLUSTER", "static_resources.clusters[0]"),
    ("UPSTREAM", "CLUSTER.transport_socket_matches[0].transport_socket.typed_config"),
    (
        "HTTP",
        "CLUSTER.typed_extension_protocol_options[envoy.extensions.upstreams.http.v3.HttpProtocolOptions]",
    ),
    ("ENDPOINT", "CLUSTER.load_assignment.endpoints[0].lb_endpoints[0]"),
    ("DNS", "static_resources.clusters[1]"),
];

/// A path with its short names spelled out.
pub(super) fn full(path: &str) -> String {
    let mut path = path.to_owned();
    loop {
        let first = path.split(['.', '[']).next().unwrap_or_default();
        let Some((name, place)) = PLACES.iter().find(|(name, _)| *name == first) else {
            return path;
        };
        path = format!("{place}{}", &path[name.len()..]);
    }
}

/// Sets what `path` names, making messages on the way where there are none; `null` removes it.
pub(super) fn set(value: &mut Value, path: &str, new: Value) {
    let mut place = value;
    let path = full(path);
    let mut rest = path.as_str();
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (key, after) = inner.split_once(']').expect("a closed bracket");
            steps.push(key);
            rest = after;
        } else {
            let rest_of_name = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest_of_name.find(['.', '[']).unwrap_or(rest_of_name.len());
            steps.push(&rest_of_name[..end]);
            rest = &rest_of_name[end..];
        }
    }
    let last = steps.pop().expect("a path");
    for step in steps {
        place = match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        };
    }
    match (last.parse::<usize>(), place) {
        (Ok(index), Value::Array(list)) if new.is_null() => drop(list.remove(index)),
        (Ok(index), Value::Array(list)) if index == list.len() => list.push(new),
        (Ok(index), place) => place[index] = new,
        (Err(_), Value::Object(object)) if new.is_null() => drop(object.remove(last)),
        (Err(_), place) => place[last] = new,
    }
}

pub(super) fn convert(value: Value) -> Result<Bootstrap, Vec<Rejected>> {
    let proto: Proto = SCHEMA.read_value(value, true).unwrap_or_else(|error| panic!("{error}"));
    super::super::bootstrap_of_file(typed_struct::resolve_message(proto, true)?)
}

/// The base with some fields changed.
pub(super) fn changed(changes: &[(&str, Value)]) -> Value {
    let mut value = base();
    for (path, new) in changes {
        set(&mut value, path, new.clone());
    }
    value
}

/// What is not as it should be where the base with some fields changed has to be refused, at `path` and nowhere else,
/// for `reason`.
pub(super) fn refusal(changes: &[(&str, Value)], path: &str, reason: &str) -> Result<(), String> {
    let Err(found) = convert(changed(changes)) else {
        return Err(format!("{path}: accepted with {changes:?}"));
    };
    let is_there = found.iter().all(|problem| problem.path == full(path));
    let is_so = found.iter().any(|problem| problem.reason.contains(reason));
    if is_there && is_so {
        return Ok(());
    }
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    Err(format!("{path}: expected only this place, with {reason:?}, got {shown:#?}"))
}

/// The base with some fields changed is refused, at `path` and nowhere else, for `reason`.
#[track_caller]
pub(super) fn refused_at(changes: &[(&str, Value)], path: &str, reason: &str) {
    refusal(changes, path, reason).unwrap_or_else(|error| panic!("{error}"));
}

/// The base with `path` set to `new` is refused at that path.
#[track_caller]
pub(super) fn refused(path: &str, new: Value, reason: &str) {
    refused_at(&[(path, new)], path, reason);
}

/// The base with some fields changed is accepted.
#[track_caller]
pub(super) fn accepted(changes: &[(&str, Value)]) -> Bootstrap {
    match convert(changed(changes)) {
        Ok(bootstrap) => bootstrap,
        Err(found) => {
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            panic!("{changes:?} is refused: {shown:#?}")
        }
    }
}
