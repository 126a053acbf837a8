//! `envoy.filters.http.ext_authz`: what arrives, and what is refused under its own path.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::ext_authz::{AuthService, ExtAuthz};
use crate::config::http_filters::FilterKind;
use crate::config::listener::TerminalFilter;

const PLACE: &str = "HCM.http_filters[0].typed_config";

fn filter(more: Value) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
    });
    config.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!({"name": "authz", "typed_config": config})
}

fn grpc(more: Value) -> Value {
    let mut config = json!({"grpc_service": {"envoy_grpc": {"cluster_name": "static"}}});
    config.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    filter(config)
}

fn http(more: Value) -> Value {
    let uri = json!({"uri": "http://auth.example", "cluster": "static", "timeout": "1s"});
    let mut service = json!({"server_uri": uri});
    service.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    filter(json!({"http_service": service}))
}

fn converted(filter: Value) -> ExtAuthz {
    let bootstrap = accepted(&[("HCM.http_filters[0]", filter)]);
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("a connection manager");
    };
    let FilterKind::ExtAuthz(authz) = &manager.filters[0].kind else { panic!("another filter") };
    authz.as_ref().clone()
}

#[test]
fn a_service_arrives_with_its_defaults() {
    let authz = converted(grpc(json!({})));
    let AuthService::Grpc(service) = &authz.service else { panic!("another service") };
    assert_eq!(service.timeout, Some(Duration::from_millis(200)));
    assert_eq!((&*service.cluster, service.authority.as_bytes()), ("static", &b"static"[..]));
    assert_eq!(authz.status_on_error, 403);
    assert!(authz.charge_cluster && authz.takes_metadata && !authz.failure_mode_allow);
    assert!(authz.body.is_none() && authz.enabled.is_none() && authz.mutation_rules.is_none());
}

#[test]
fn rules_of_mutations_are_envoys() {
    let rules = |rules: Value| {
        converted(grpc(json!({"decoder_header_mutation_rules": rules}))).mutation_rules.unwrap()
    };
    let usual = rules(json!({}));
    assert!(usual.allow("x-a") && usual.allow(":path"));
    assert!(!usual.allow("host") && !usual.allow(":method") && !usual.allow("x-envoy-a"));
    let more = rules(json!({"allow_all_routing": true, "allow_envoy": true}));
    assert!(more.allow("host") && more.allow("x-envoy-a"));
    let none = rules(json!({"disallow_all": true, "allow_expression": {"regex": "x-.*"},
        "disallow_expression": {"regex": "x-a"}}));
    assert!(none.allow("x-b") && !none.allow("x-a") && !none.allow("y"));
    assert!(!rules(json!({"disallow_system": true})).allow(":path"));
}

#[test]
fn what_is_wrong_is_refused_under_its_path() {
    for (filter, path, reason) in [
        (filter(json!({})), "", "one of grpc_service, http_service is required"),
        (grpc(json!({"transport_api_version": "V2"})), "transport_api_version", ""),
        (grpc(json!({"shadow_mode": true})), "shadow_mode", "not supported"),
        (
            grpc(json!({"emit_filter_state_stats": true})),
            "emit_filter_state_stats",
            "not supported",
        ),
        (
            grpc(json!({"typed_metadata_context_namespaces": ["a"]})),
            "typed_metadata_context_namespaces",
            "not supported",
        ),
        (
            grpc(json!({"with_request_body": {"max_request_bytes": 0}})),
            "with_request_body.max_request_bytes",
            "more than zero",
        ),
        (
            filter(
                json!({"grpc_service": {"google_grpc": {"target_uri": "a", "stat_prefix": "b"}}}),
            ),
            "grpc_service.google_grpc",
            "not supported",
        ),
        (
            filter(json!({"grpc_service": {"envoy_grpc": {"cluster_name": "static"},
                "retry_policy": {}}})),
            "grpc_service.retry_policy",
            "not supported",
        ),
        (http(json!({"retry_policy": {}})), "http_service.retry_policy", "not supported"),
        (http(json!({"path_prefix": "auth"})), "http_service.path_prefix", "must begin with '/'"),
    ] {
        let place = if path.is_empty() { PLACE.to_owned() } else { format!("{PLACE}.{path}") };
        refused_at(&[("HCM.http_filters[0]", filter)], &place, reason);
    }
}
