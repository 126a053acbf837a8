//! Listener filters, sockets and where connections come from and go to.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused, refused_at};
use crate::config::cluster::Discovery;
use crate::config::listener_filter::{ListenerFilterKind, Predicate};
use crate::config::load_balancer::LoadBalancer;
use crate::config::socket_option::{State, What};

fn filter(name: &str, message: &str, mut fields: Value) -> Value {
    fields["@type"] =
        format!("type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{message}").into();
    json!({"name": name, "typed_config": fields})
}

#[test]
fn listener_filters_keep_their_order_and_the_implied_one_stands_behind_them() {
    let bootstrap = accepted(&[
        ("LISTENER.use_original_dst", json!(true)),
        ("LISTENER.bind_to_port", json!(false)),
        ("CHAIN.filter_chain_match.transport_protocol", json!("tls")),
        (
            "LISTENER.listener_filters",
            json!([
                filter("http_inspector", "HttpInspector", json!({})),
                filter("proxy_protocol", "ProxyProtocol", json!({"disallowed_versions": ["V1"]})),
            ]),
        ),
    ]);
    let listener = &bootstrap.listeners[0];
    assert!(listener.use_original_dst && !listener.bind_to_port);
    let kinds: Vec<_> = listener.filters.iter().map(|filter| &filter.kind).collect();
    let [
        ListenerFilterKind::HttpInspector,
        ListenerFilterKind::ProxyProtocol(proxy),
        ListenerFilterKind::OriginalDst,
    ] = kinds[..]
    else {
        panic!("{kinds:?}")
    };
    assert!(!proxy.version_1 && proxy.version_2);
    let old = accepted(&[("LISTENER.deprecated_v1", json!({"bind_to_port": false}))]);
    assert!(!old.listeners[0].bind_to_port, "the deprecated field");
}

#[test]
fn a_predicate_is_a_tree_of_port_ranges() {
    let range =
        |start: i32, end: i32| json!({"destination_port_range": {"start": start, "end": end}});
    let predicate = json!({"or_match": {"rules": [
        range(1, 10),
        {"and_match": {"rules": [range(20, 30), {"not_match": range(25, 26)}]}},
    ]}});
    let bootstrap = accepted(&[("LISTENER.listener_filters[0].filter_disabled", predicate)]);
    let disabled = bootstrap.listeners[0].filters[0].disabled.as_ref().expect("a predicate");
    let matching: Vec<u16> = (0..40).filter(|port| disabled.holds(*port)).collect();
    let expected: Vec<u16> = (1..10).chain(20..25).chain(26..30).collect();
    assert_eq!(matching, expected);
    let any = json!({"any_match": true});
    let bootstrap = accepted(&[("LISTENER.listener_filters[0].filter_disabled", any)]);
    assert_eq!(bootstrap.listeners[0].filters[0].disabled, Some(Predicate::Any));
}

#[test]
fn predicates_that_say_nothing_are_refused() {
    let place = "LISTENER.listener_filters[0].filter_disabled";
    for (rule, path, reason) in [
        (json!({}), "", "says nothing"),
        (json!({"any_match": false}), ".any_match", "must be true"),
        (json!({"or_match": {"rules": [{"any_match": true}]}}), ".or_match.rules", "at least two"),
        (json!({"and_match": {}}), ".and_match.rules", "at least two"),
        (json!({"not_match": {}}), ".not_match", "says nothing"),
    ] {
        refused_at(&[(place, rule)], &format!("{place}{path}"), reason);
    }
}

#[test]
fn what_is_not_supported_of_the_proxy_protocol_is_refused_by_name() {
    let place = "LISTENER.listener_filters[0].typed_config";
    for (field, value, reason) in [
        ("rules", json!([{"tlv_type": 1}]), "not supported"),
        ("pass_through_tlvs", json!({}), "not supported"),
        ("disallowed_versions", json!(["V1", "V2"]), "must leave one"),
    ] {
        let filter = filter("proxy_protocol", "ProxyProtocol", json!({field: value}));
        let changes = [("LISTENER.listener_filters[0]", filter)];
        refused_at(&changes, &format!("{place}.{field}"), reason);
    }
}

fn original_dst(config: Value) -> Vec<(&'static str, Value)> {
    vec![
        ("CLUSTER.type", json!("ORIGINAL_DST")),
        ("CLUSTER.load_assignment", Value::Null),
        ("CLUSTER.lb_policy", json!("CLUSTER_PROVIDED")),
        ("CLUSTER.least_request_lb_config", Value::Null),
        ("CLUSTER.original_dst_lb_config", config),
    ]
}

#[test]
fn a_cluster_of_type_original_dst_arrives_with_its_settings() {
    let config = json!({"use_http_header": true, "upstream_port_override": 15006});
    let mut changes = original_dst(config);
    changes.push(("CLUSTER.cleanup_interval", json!("2s")));
    let bootstrap = accepted(&changes);
    let cluster = &bootstrap.clusters[0];
    assert!(matches!(cluster.load_balancer, LoadBalancer::ClusterProvided));
    let Discovery::OriginalDst(config) = &cluster.discovery else { panic!("another type") };
    let header = config.header.as_ref().map(http::HeaderName::as_str);
    assert_eq!((header, config.port), (Some("x-envoy-original-dst-host"), Some(15006)));
    assert_eq!(config.cleanup_interval, Duration::from_secs(2));
}

#[test]
fn a_cluster_of_type_original_dst_has_no_endpoints_and_no_other_policy() {
    let with = |change: (&'static str, Value), path: &str, reason: &str| {
        let mut changes = original_dst(json!({}));
        changes.retain(|(path, _)| *path != change.0);
        changes.push(change);
        refused_at(&changes, path, reason);
    };
    with(("CLUSTER.lb_policy", json!("RANDOM")), "CLUSTER.lb_policy", "must be CLUSTER_PROVIDED");
    let assignment = json!({"cluster_name": "a"});
    with(("CLUSTER.load_assignment", assignment), "CLUSTER.load_assignment", "ORIGINAL_DST");
    with(("CLUSTER.cleanup_interval", json!("0s")), "CLUSTER.cleanup_interval", "more than zero");
    let place = "CLUSTER.original_dst_lb_config";
    for (field, value, reason) in [
        ("metadata_key", json!({"key": "a", "path": [{"key": "b"}]}), "not supported"),
        ("http_header_name", json!("x-to"), "without use_http_header"),
        ("upstream_port_override", json!(70_000), "out of range"),
    ] {
        with((place, json!({field: value})), &format!("{place}.{field}"), reason);
    }
    let name = json!({"use_http_header": true, "http_header_name": "a b"});
    with((place, name), &format!("{place}.http_header_name"), "not a valid header name");
    refused("CLUSTER.lb_policy", json!("CLUSTER_PROVIDED"), "of type ORIGINAL_DST");
}

#[test]
fn a_source_address_is_the_clusters_own_or_that_of_all() {
    let source = |address: &str| json!({"source_address": {"address": address, "port_value": 0}});
    let bootstrap = accepted(&[
        ("CLUSTER.upstream_bind_config", source("127.0.0.6")),
        ("cluster_manager.upstream_bind_config", source("127.0.0.7")),
    ]);
    let sources: Vec<String> = bootstrap.clusters[..2]
        .iter()
        .map(|it| it.bind.as_ref().expect("a source").sources[0].address.to_string())
        .collect();
    assert_eq!(sources, ["127.0.0.6:0", "127.0.0.7:0"]);
}

#[test]
fn two_sources_are_of_two_ip_versions() {
    let address = |address: &str| json!({"address": address, "port_value": 0});
    let extra = |address: Value| json!({"address": address});
    let both = json!({
        "source_address": address("127.0.0.6"),
        "extra_source_addresses": [{"address": address("::6"), "socket_options": {}}],
        "socket_options": [{"level": 1, "name": 9, "int_value": 1}],
        "freebind": true,
    });
    let bootstrap = accepted(&[("CLUSTER.upstream_bind_config", both)]);
    let bind = bootstrap.clusters[0].bind.as_ref().expect("a source");
    assert_eq!(bind.sources[0].options[0].what, What::Keepalive(true));
    assert!(bind.sources[1].options.is_empty(), "overridden by none");
    assert_eq!(bind.freebind, Some(true));

    let place = "CLUSTER.upstream_bind_config";
    let first = address("127.0.0.6");
    for (config, path, reason) in [
        (
            json!({"source_address": first, "extra_source_addresses": [extra(first.clone())]}),
            ".extra_source_addresses[0]",
            "one address for each",
        ),
        (
            json!({"extra_source_addresses": [extra(first.clone())]}),
            ".extra_source_addresses[0]",
            "without a source_address",
        ),
        (
            json!({"source_address": first, "extra_source_addresses": [extra(address("::1")), extra(address("::2"))]}),
            ".extra_source_addresses[1]",
            "two source addresses",
        ),
        (
            json!({"source_address": first, "extra_source_addresses": [{}]}),
            ".extra_source_addresses[0].address",
            "required",
        ),
        (json!({"source_address": address("host")}), ".source_address.address", "not an IP"),
        (
            json!({"source_address": first, "local_address_selector": {"name": "a", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}),
            ".local_address_selector.typed_config",
            "DefaultLocalAddressSelector",
        ),
    ] {
        refused_at(&[(place, config)], &format!("{place}{path}"), reason);
    }
}

#[test]
fn socket_options_are_on_a_list() {
    let place = "CLUSTER.upstream_bind_config.socket_options";
    let option = |option: Value| json!({"socket_options": [option]});
    let mark = json!({"level": 1, "name": 36, "int_value": 5, "state": "STATE_LISTENING", "ip_version": "SOCKET_IP_VERSION_IPV6"});
    let bootstrap = accepted(&[("CLUSTER.upstream_bind_config", option(mark))]);
    let bind = bootstrap.clusters[0].bind.as_ref().expect("options");
    let mark = &bind.options[0];
    assert_eq!((&mark.what, mark.state, mark.ipv6), (&What::Mark(5), State::Listening, Some(true)));
    let datagram = json!({"level": 1, "name": 36, "int_value": 5, "type": {"datagram": {}}});
    let bootstrap = accepted(&[("CLUSTER.upstream_bind_config", option(datagram))]);
    assert!(bootstrap.clusters[0].bind.as_ref().is_some_and(|bind| bind.options.is_empty()));
    for (value, path, reason) in [
        (
            json!({"level": 6, "name": 23, "int_value": 1}),
            "[0].name",
            "not supported by this version",
        ),
        (json!({"level": 1, "name": 36, "int_value": -1}), "[0].int_value", "not a value"),
        (json!({"level": 1, "name": 36}), "[0]", "int_value, buf_value"),
    ] {
        let changes = [("CLUSTER.upstream_bind_config", option(value))];
        refused_at(&changes, &format!("{place}{path}"), reason);
    }
}
