//! Rate limits of routes, of this process and of a service: what is refused under its own path, and what is not.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::http_filters::{FilterKind, HttpFilter};
use crate::config::listener::TerminalFilter;

const PLACE: &str = "HCM.http_filters[0].typed_config";

fn filter(message: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.extensions.filters.http.{message}").into();
    json!({"name": "f", "typed_config": fields})
}

fn local(mut fields: Value) -> Value {
    fields["stat_prefix"] = "a".into();
    fields["token_bucket"] = bucket();
    filter("local_ratelimit.v3.LocalRateLimit", fields)
}

fn global(mut fields: Value) -> Value {
    fields["domain"] = "d".into();
    let service = json!({"envoy_grpc": {"cluster_name": "static"}});
    fields["rate_limit_service"] = json!({"grpc_service": service, "transport_api_version": "V3"});
    filter("ratelimit.v3.RateLimit", fields)
}

fn bucket() -> Value {
    json!({"max_tokens": 1, "fill_interval": "1s"})
}

fn converted(filter: Value) -> HttpFilter {
    let bootstrap = accepted(&[("HCM.http_filters[0]", filter)]);
    match &bootstrap.listeners[0].filter_chains[0].terminal {
        TerminalFilter::Http(manager) => manager.filters[0].clone(),
        TerminalFilter::Tcp(_) => panic!("a connection manager"),
    }
}

fn refused(filter: Value, path: &str, reason: &str) {
    let path = format!("{PLACE}.{path}");
    refused_at(&[("HCM.http_filters[0]", filter)], &path, reason);
}

#[test]
fn what_is_not_set_of_a_service_is_as_in_envoy() {
    let FilterKind::RateLimit(config) = converted(global(json!({}))).kind else { panic!() };
    assert_eq!((config.timeout, config.stage), (Some(Duration::from_millis(20)), 0));
    assert_eq!((config.status.as_u16(), config.status_on_error.as_u16()), (429, 500));
    assert_eq!(&*config.namespace, "envoy.filters.http.ratelimit");
    assert_eq!(config.deny_on_failure.current(), (0, 100));
    assert_eq!((config.enabled.current(), config.enforced.current()), ((100, 100), (100, 100)));
    assert!(config.internal.is_none() && config.limited_header && !config.x_headers);
    let forever = converted(global(json!({"timeout": "0s", "failure_mode_deny": true})));
    let FilterKind::RateLimit(config) = forever.kind else { panic!() };
    assert_eq!((config.timeout, config.deny_on_failure.current()), (None, (100, 100)));
}

#[test]
fn descriptions_of_this_process_have_limits_of_their_own() {
    let entries = json!([{"key": "a", "value": "b"}]);
    let one = json!({"entries": entries, "token_bucket": bucket()});
    let FilterKind::LocalRateLimit(config) = converted(local(json!({"descriptors": [one]}))).kind
    else {
        panic!();
    };
    assert!(config.limiter.has_descriptors());
    for (descriptors, path, reason) in [
        (json!([one, one]), "descriptors[1]", "already"),
        (json!([{"token_bucket": bucket()}]), "descriptors[0].entries", "at least one"),
        (json!([{"entries": entries}]), "descriptors[0].token_bucket", "required"),
        (
            json!([{"entries": [{"value": "b"}], "token_bucket": bucket()}]),
            "descriptors[0].entries[0].key",
            "must not be empty",
        ),
        (
            json!([{"entries": entries, "token_bucket": {"fill_interval": "0.01s"}}]),
            "descriptors[0].token_bucket.fill_interval",
            "50ms",
        ),
    ] {
        refused(local(json!({"descriptors": descriptors})), path, reason);
    }
    refused(local(json!({"max_dynamic_descriptors": 0})), "max_dynamic_descriptors", "at least 1");
    refused(local(json!({"stage": 11})), "stage", "0 to 10");
}

#[test]
fn rules_are_refused_where_they_would_not_count() {
    let action = json!([{"generic_key": {"descriptor_value": "a"}}]);
    let rule =
        |field: &str, value: Value| json!({"rate_limits": [{"actions": action, field: value}]});
    let limit = json!({"rate_limit": {"requests_per_unit": 1, "unit": "HOUR"}});
    let back = json!({"number": 1, "is_negative_hits": true});
    for (field, value, reason) in [
        ("stage", json!(1), "counts only in a route"),
        ("disable_key", json!("a"), "counts only in a route"),
        ("apply_on_stream_done", json!(true), "not supported"),
        ("actions", json!([]), "at least one"),
    ] {
        let path = format!("rate_limits[0].{field}");
        refused(local(rule(field, value.clone())), &path, reason);
        refused(global(rule(field, value)), &path, reason);
    }
    refused(local(rule("limit", limit.clone())), "rate_limits[0].limit", "a service is asked");
    refused(
        local(rule("hits_addend", back.clone())),
        "rate_limits[0].hits_addend.is_negative_hits",
        "a service is asked",
    );
    converted(global(rule("limit", limit.clone())));
    converted(global(rule("hits_addend", back)));
    accepted(&[("ACTION.rate_limits", json!([{"actions": action, "stage": 3, "limit": limit}]))]);
    for place in ["ACTION", "HOST"] {
        let path = format!("{place}.rate_limits[0]");
        let rules = |field: &str, value: Value| {
            let path = format!("{place}.rate_limits");
            (path, json!([{"actions": action, field: value}]))
        };
        let (at, value) = rules("hits_addend", json!({"number": 2}));
        refused_at(&[(&at, value)], &format!("{path}.hits_addend"), "own configuration");
        let (at, value) = rules("stage", json!(11));
        refused_at(&[(&at, value)], &format!("{path}.stage"), "0 to 10");
    }
}

#[test]
fn actions_are_refused_by_their_field() {
    for (action, path, reason) in [
        (json!({}), "", "an action is required"),
        (json!({"extension": {"name": "x"}}), ".extension", "not supported"),
        (
            json!({"dynamic_metadata": {"descriptor_key": "k", "metadata_key": {"key": "a"}}}),
            ".dynamic_metadata",
            "use metadata",
        ),
        (
            json!({"request_headers": {"header_name": "a b", "descriptor_key": "k"}}),
            ".request_headers.header_name",
            "not a valid header name",
        ),
        (
            json!({"request_headers": {"header_name": "a"}}),
            ".request_headers.descriptor_key",
            "must not be empty",
        ),
        (
            json!({"masked_remote_address": {"v4_prefix_mask_len": 33}}),
            ".masked_remote_address.v4_prefix_mask_len",
            "0 to 32",
        ),
        (
            json!({"header_value_match": {"descriptor_value": "a"}}),
            ".header_value_match.headers",
            "at least one",
        ),
        (
            json!({"metadata": {"descriptor_key": "k", "metadata_key": {"key": "a"}}}),
            ".metadata.metadata_key.path",
            "at least one",
        ),
        (
            json!({"metadata": {"descriptor_key": "k", "source": "CLUSTER_LOCALITY_ENTRY",
                "metadata_key": {"key": "a", "path": [{"key": "b"}]}}}),
            ".metadata.source",
            "known only of an endpoint",
        ),
        (
            json!({"remote_address_match": {"descriptor_value": "%REQ(a)%",
                "address_matcher": {"ranges": []}}}),
            ".remote_address_match.descriptor_value",
            "command operators",
        ),
    ] {
        let path = format!("ACTION.rate_limits[0].actions[0]{path}");
        refused_at(&[("ACTION.rate_limits", json!([{"actions": [action]}]))], &path, reason);
    }
}

#[test]
fn a_service_is_refused_by_its_field() {
    refused(global(json!({"request_type": "some"})), "request_type", "internal, external, both");
    refused(global(json!({"status_on_error": {"code": 99}})), "status_on_error.code", "not one of");
    refused(global(json!({"stage": 11})), "stage", "0 to 10");
    let mut without = global(json!({}));
    without["typed_config"]["rate_limit_service"] = Value::Null;
    refused(without, "rate_limit_service", "required");
    let mut old = global(json!({}));
    old["typed_config"]["rate_limit_service"]["transport_api_version"] = "V2".into();
    refused(old, "rate_limit_service.transport_api_version", "must be V3");
}
