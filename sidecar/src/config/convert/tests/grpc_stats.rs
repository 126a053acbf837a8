//! `envoy.filters.http.grpc_stats` and `envoy.filters.http.csrf`: what arrives, and what is refused under its own path.

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::grpc_stats::{GrpcMethods, GrpcStats};
use crate::config::http_filters::FilterKind;
use crate::config::listener::TerminalFilter;

const PLACE: &str = "HCM.http_filters[0].typed_config";
const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

fn filter(message: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("{FILTERS}.{message}").into();
    json!({"name": "filter", "typed_config": fields})
}

fn converted(filter: Value) -> FilterKind {
    let bootstrap = accepted(&[("HCM.http_filters[0]", filter)]);
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("a connection manager");
    };
    manager.filters[0].kind.clone()
}

fn stats(fields: Value) -> GrpcStats {
    let FilterKind::GrpcStats(config) = converted(filter("grpc_stats.v3.FilterConfig", fields))
    else {
        panic!("another filter")
    };
    config.as_ref().clone()
}

#[test]
fn calls_are_counted_together_unless_something_else_is_said() {
    let together = GrpcMethods::Listed([].into());
    assert_eq!(stats(json!({})).methods, together);
    assert_eq!(stats(json!({"stats_for_all_methods": false})).methods, together);
    assert_eq!(stats(json!({"stats_for_all_methods": true})).methods, GrpcMethods::All);
    let listed = json!({"services": [
        {"name": "a.B", "method_names": ["C"]},
        {"name": "a.B", "method_names": ["D", "C"]},
    ]});
    let expected = GrpcMethods::Listed([("a.B".into(), ["C".into(), "D".into()].into())].into());
    assert_eq!(stats(json!({"individual_method_stats_allowlist": listed})).methods, expected);
}

#[test]
fn what_grpc_stats_cannot_do_is_refused() {
    for (fields, path, reason) in [
        (
            json!({"individual_method_stats_allowlist": {"services": [{"method_names": ["a"]}]}}),
            "individual_method_stats_allowlist.services[0].name",
            "must not be empty",
        ),
        (
            json!({"individual_method_stats_allowlist": {"services": [{"name": "a"}]}}),
            "individual_method_stats_allowlist.services[0].method_names",
            "at least one",
        ),
    ] {
        let filter = filter("grpc_stats.v3.FilterConfig", fields);
        refused_at(&[("HCM.http_filters[0]", filter)], &format!("{PLACE}.{path}"), reason);
    }
}

#[test]
fn a_policy_says_which_requests_it_is_for() {
    let policy = |fields| filter("csrf.v3.CsrfPolicy", fields);
    let all = json!({"default_value": {"numerator": 100}});
    let FilterKind::Csrf(config) = converted(policy(json!({"filter_enabled": all}))) else {
        panic!("another filter")
    };
    assert_eq!(config.enabled.current(), (100, 100));
    assert!(config.shadow_enabled.is_none() && config.origins.is_empty());
    let refused = |fields, path: &str, reason: &str| {
        let path = format!("{PLACE}.{path}");
        refused_at(&[("HCM.http_filters[0]", policy(fields))], &path, reason);
    };
    refused(json!({}), "filter_enabled", "required");
    refused(json!({"filter_enabled": {}}), "filter_enabled.default_value", "required");
    let origins = json!({"filter_enabled": all, "additional_origins": [{}]});
    refused(origins, "additional_origins[0]", "required");
}
