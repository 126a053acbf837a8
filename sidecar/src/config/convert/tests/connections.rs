//! Listener filters, sockets and where connections come from and go to.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused, refused_at};
use crate::config::address::Address;
use crate::config::cluster::Discovery;
use crate::config::listener_filter::{ListenerFilterKind, Predicate};
use crate::config::load_balancer::LoadBalancer;
use crate::config::proxy_protocol::{Tlv, TlvTypes, UpstreamProxyProtocol, Version};
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

#[test]
fn a_listener_has_addresses_each_with_its_sockets() {
    let address =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let keepalive = json!({"level": 1, "name": 9, "int_value": 1});
    let bootstrap = accepted(&[
        ("LISTENER.transparent", json!(false)),
        ("LISTENER.freebind", json!(true)),
        ("LISTENER.drain_type", json!("MODIFY_ONLY")),
        ("LISTENER.tcp_keepalive", json!({"keepalive_time": 7})),
        ("LISTENER.socket_options", json!([keepalive])),
        (
            "LISTENER.additional_addresses",
            json!([
                {"address": address(10_001)},
                {"address": address(10_002), "socket_options": {}, "tcp_keepalive": {"keepalive_probes": 0}},
            ]),
        ),
    ]);
    let listener = &bootstrap.listeners[0];
    assert!(!listener.drains_on_health_check_failure);
    let ports: Vec<_> = listener.addresses().filter_map(|(address, _)| address.port()).collect();
    assert_eq!(ports, [10_000, 10_001, 10_002]);
    let sockets: Vec<_> = listener.addresses().map(|(_, socket)| socket).collect();
    assert_eq!(sockets[0], sockets[1], "it is like the main one");
    assert_eq!((sockets[0].transparent, sockets[0].freebind), (Some(false), Some(true)));
    assert_eq!(sockets[0].backlog, Some(128));
    let time = sockets[0].keepalive.as_ref().and_then(|keepalive| keepalive.time);
    assert_eq!(time, Some(Duration::from_secs(7)));
    assert!(sockets[2].options.is_empty() && sockets[2].keepalive.is_none());
    let taken = json!([{"address": address(10_000)}]);
    refused_at(&[("LISTENER.additional_addresses", taken)], "LISTENER.address", "duplicate");
}

fn network(name: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.extensions.filters.network.{name}").into();
    json!({"name": name, "typed_config": fields})
}

/// The chain with this filter in front of its connection manager.
fn before(filter: Value) -> Vec<(&'static str, Value)> {
    let manager =
        super::harness::base()["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
            [0]
        .clone();
    vec![("CHAIN.filters", json!([filter, manager]))]
}

const PLACE: &str = "CHAIN.filters[0].typed_config";

#[test]
fn network_filters_stand_before_the_last_one() {
    let bucket = json!({"max_tokens": 3, "fill_interval": "1s"});
    for (filter, expected) in [
        (network("rbac.v3.RBAC", json!({"stat_prefix": "a."})), "Rbac"),
        (
            network(
                "local_ratelimit.v3.LocalRateLimit",
                json!({"stat_prefix": "a", "token_bucket": bucket}),
            ),
            "LocalRateLimit",
        ),
        (
            network(
                "connection_limit.v3.ConnectionLimit",
                json!({"stat_prefix": "a", "max_connections": "5", "delay": "1s"}),
            ),
            "ConnectionLimit",
        ),
        (network("sni_cluster.v3.SniCluster", json!({})), "SniCluster"),
    ] {
        let bootstrap = accepted(&before(filter));
        let filters = &bootstrap.listeners[0].filter_chains[0].filters;
        assert!(format!("{filters:?}").starts_with(&format!("[{expected}")), "{filters:?}");
    }
}

#[test]
fn network_filters_do_not_end_a_chain() {
    let only = network("sni_cluster.v3.SniCluster", json!({}));
    let reason = "at least one entry that ends the chain";
    refused_at(&[("CHAIN.filters", json!([only]))], "CHAIN.filters", reason);
}

#[test]
fn rules_for_connections_do_not_ask_for_requests() {
    let rules = |permission: Value, principal: Value| {
        let policy = json!({"permissions": [permission], "principals": [principal]});
        json!({"stat_prefix": "a.", "rules": {"policies": {"p": policy}}})
    };
    let any = || json!({"any": true});
    let header = || json!({"header": {"name": "a", "present_match": true}});
    let path = || json!({"url_path": {"path": {"exact": "/"}}});
    for (config, part, what) in [
        (rules(header(), any()), "permissions", "header is of requests"),
        (rules(json!({"not_rule": header()}), any()), "permissions", "header is of requests"),
        (rules(path(), any()), "permissions", "url_path is of requests"),
        (rules(any(), header()), "principals", "header is of requests"),
        (
            rules(any(), json!({"or_ids": {"ids": [path()]}})),
            "principals",
            "url_path is of requests",
        ),
    ] {
        let changes = before(network("rbac.v3.RBAC", config));
        refused_at(&changes, &format!("{PLACE}.rules.policies[p].{part}"), what);
    }
}

#[test]
fn what_is_wrong_with_network_filters_is_refused_by_name() {
    let bucket = || json!({"max_tokens": 3, "fill_interval": "1s"});
    let matcher = json!({"on_no_match": {}});
    for (name, config, path, reason) in [
        ("rbac.v3.RBAC", json!({}), "stat_prefix", "must not be empty"),
        (
            "rbac.v3.RBAC",
            json!({"stat_prefix": "a", "matcher": matcher}),
            "matcher.on_no_match",
            "one of action",
        ),
        (
            "rbac.v3.RBAC",
            json!({"stat_prefix": "a", "enforcement_type": "CONTINUOUS"}),
            "enforcement_type",
            "not supported",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            json!({"stat_prefix": "a"}),
            "token_bucket",
            "required",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            json!({"stat_prefix": "a", "share_key": "k", "token_bucket": bucket()}),
            "share_key",
            "not supported",
        ),
        (
            "local_ratelimit.v3.LocalRateLimit",
            json!({"stat_prefix": "a", "token_bucket": {"max_tokens": 1}}),
            "token_bucket.fill_interval",
            "required",
        ),
        (
            "connection_limit.v3.ConnectionLimit",
            json!({"stat_prefix": "a"}),
            "max_connections",
            "required",
        ),
        (
            "connection_limit.v3.ConnectionLimit",
            json!({"stat_prefix": "a", "max_connections": "0"}),
            "max_connections",
            "at least 1",
        ),
        (
            "connection_limit.v3.ConnectionLimit",
            json!({"stat_prefix": "a", "max_connections": "1", "runtime_enabled": {"runtime_key": "a"}}),
            "runtime_enabled.default_value",
            "required",
        ),
    ] {
        refused_at(&before(network(name, config)), &format!("{PLACE}.{path}"), reason);
    }
}

#[test]
fn the_life_of_a_tcp_connection_is_bounded_where_that_is_set() {
    let bootstrap = accepted(&[
        ("TCP.max_downstream_connection_duration", json!("9s")),
        ("TCP.max_downstream_connection_duration_jitter_percentage", json!({"value": 50})),
    ]);
    let chain = bootstrap.listeners[0].default_filter_chain.as_ref().expect("a chain");
    let crate::config::listener::TerminalFilter::Tcp(tcp) = &chain.terminal else { panic!("TCP") };
    assert_eq!(tcp.max_downstream_connection_duration, Some(Duration::from_secs(9)));
    assert!((tcp.duration_jitter - 0.5).abs() < f64::EPSILON);
    refused("TCP.max_downstream_connection_duration", json!("0s"), "more than zero");
    refused(
        "TCP.max_downstream_connection_duration_jitter_percentage",
        json!({"value": 101}),
        "out of range",
    );
}

#[test]
fn an_endpoint_may_have_several_addresses() {
    let address =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let more = json!([{"address": address(1)}, {"address": address(2)}]);
    let order = json!({"first_address_family_version": "V6", "first_address_family_count": 2});
    let bootstrap = accepted(&[
        ("ENDPOINT.endpoint.additional_addresses", more),
        ("CLUSTER.upstream_connection_options", json!({"happy_eyeballs_config": order})),
    ]);
    let cluster = &bootstrap.clusters[0];
    let Discovery::Static(assignment) = &cluster.discovery else { panic!("static") };
    let ports: Vec<u16> = assignment.localities[0].endpoints[0]
        .additional_addresses
        .iter()
        .map(std::net::SocketAddr::port)
        .collect();
    assert_eq!(ports, [1, 2]);
    let order = cluster.happy_eyeballs.expect("an order");
    assert_eq!((order.first_is_ipv6, order.first_count), (Some(true), 2));
    for (path, value, field, reason) in [
        ("ENDPOINT.endpoint.additional_addresses", json!([{}]), "[0].address", "required"),
        (
            "ENDPOINT.endpoint.additional_addresses",
            json!([{"address": {"pipe": {"path": "/a"}}}]),
            "[0].address.pipe",
            "not supported",
        ),
        (
            "CLUSTER.upstream_connection_options.happy_eyeballs_config",
            json!({"first_address_family_version": "PIPE"}),
            ".first_address_family_version",
            "not supported",
        ),
        (
            "CLUSTER.upstream_connection_options.happy_eyeballs_config",
            json!({"first_address_family_count": 0}),
            ".first_address_family_count",
            "too small",
        ),
    ] {
        refused_at(&[(path, value)], &format!("{path}{field}"), reason);
    }
}

fn pipe(path: &str, mode: u32) -> Value {
    json!({"pipe": {"path": path, "mode": mode}})
}

#[test]
fn a_unix_domain_socket_may_stand_where_an_address_does() {
    let more = json!([{"address": pipe("@name", 0)}, {"address": pipe("/b", 0)}]);
    let bootstrap = accepted(&[
        ("LISTENER.address", pipe("/run/a.sock", 0o660)),
        ("LISTENER.additional_addresses", more),
        ("ENDPOINT.endpoint.address", pipe("/run/b.sock", 0o600)),
        (
            "ENDPOINT.endpoint.health_check_config",
            json!({"address": pipe("/run/check.sock", 0), "port_value": 1}),
        ),
    ]);
    let listener = &bootstrap.listeners[0];
    let addresses: Vec<_> =
        listener.addresses().map(|(address, socket)| (address.to_string(), socket.mode)).collect();
    let expected = [("/run/a.sock", Some(0o660)), ("@name", None), ("/b", None)];
    assert_eq!(addresses, expected.map(|(path, mode)| (path.to_owned(), mode)));
    let Discovery::Static(assignment) = &bootstrap.clusters[0].discovery else { panic!("static") };
    let endpoint = &assignment.localities[0].endpoints[0];
    let address = endpoint.address.known().unwrap();
    assert_eq!(address, Address::Pipe("/run/b.sock".into()), "its mode is for who listens");
    let check = endpoint.check.as_ref().unwrap().address_of(&address);
    assert_eq!(check, Address::Pipe("/run/check.sock".into()));
}

#[test]
fn paths_of_unix_domain_sockets_that_cannot_be() {
    let long = "a".repeat(108);
    for (value, field, reason) in [
        (pipe("", 0), "path", "must not be empty"),
        (pipe(&long, 0), "path", "107 bytes"),
        (pipe("@", 0), "path", "names no socket"),
        (pipe("a\0b", 0), "path", "names no socket"),
        (pipe("/a", 0o1000), "mode", "out of range: 0 to 511"),
        (pipe("@a", 0o600), "mode", "has no file"),
    ] {
        for place in ["LISTENER.address", "ENDPOINT.endpoint.address"] {
            refused_at(&[(place, value.clone())], &format!("{place}.pipe.{field}"), reason);
        }
    }
    accepted(&[("LISTENER.address", pipe(&"a".repeat(107), 0))]);
    let taken = json!([{"address": pipe("/a", 0)}]);
    refused_at(
        &[("LISTENER.address", pipe("/a", 0)), ("LISTENER.additional_addresses", taken)],
        "LISTENER.address",
        "duplicate",
    );
    let more = json!([{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}]);
    for (field, value, path) in [
        ("additional_addresses", more, "additional_addresses"),
        ("health_check_config", json!({"port_value": 1}), "health_check_config.port_value"),
    ] {
        let field = format!("ENDPOINT.endpoint.{field}");
        let changes = [("ENDPOINT.endpoint.address", pipe("/a", 0)), (&*field, value)];
        refused_at(&changes, &format!("ENDPOINT.endpoint.{path}"), "");
    }
}

fn raw() -> Value {
    json!({"name": "raw", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    }})
}

fn told(config: Value, inner: Value) -> Value {
    json!({"name": "told", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "config": config,
        "transport_socket": inner,
    }})
}

#[test]
fn an_endpoint_may_be_told_whom_a_connection_is_for() {
    let config = json!({
        "version": "V2",
        "pass_through_tlvs": {"match_type": "INCLUDE", "tlv_type": [5]},
        "added_tlvs": [{"type": 224, "value": "aGk="}],
    });
    let bootstrap = accepted(&[("CLUSTER.transport_socket", told(config, raw()))]);
    let header = bootstrap.clusters[0].proxy_protocol.as_deref();
    let expected = UpstreamProxyProtocol {
        version: Version::Two,
        pass_through: TlvTypes::These([5].into()),
        added: [Tlv { kind: 224, value: (*b"hi").into() }].into(),
    };
    assert_eq!(header, Some(&expected));
    assert!(bootstrap.clusters[0].transport.is_none());
    let bootstrap = accepted(&[("CLUSTER.transport_socket", told(json!({}), raw()))]);
    let header = bootstrap.clusters[0].proxy_protocol.as_deref().unwrap();
    assert_eq!((header.version, &header.pass_through), (Version::One, &TlvTypes::None));
}

#[test]
fn what_an_endpoint_cannot_be_told() {
    let place = "CLUSTER.transport_socket.typed_config";
    for (socket, path, reason) in [
        (told(json!({}), json!(null)), "transport_socket", "required"),
        (told(json!({}), told(json!({}), raw())), "transport_socket.typed_config", "not supported"),
        (told(json!({"version": 7}), raw()), "config.version", "not one of"),
        (
            told(json!({"added_tlvs": [{"type": 256}]}), raw()),
            "config.added_tlvs[0].type",
            "0 to 255",
        ),
        (
            told(json!({"added_tlvs": [{"type": 1, "format_string": {}}]}), raw()),
            "config.added_tlvs[0].format_string",
            "not supported",
        ),
        (
            told(json!({"pass_through_tlvs": {"tlv_type": [300]}}), raw()),
            "config.pass_through_tlvs.tlv_type[0]",
            "0 to 255",
        ),
    ] {
        refused_at(&[("CLUSTER.transport_socket", socket)], &format!("{place}.{path}"), reason);
    }
    let metadata = json!({"typed_filter_metadata": {"envoy.transport_sockets.proxy_protocol": {
        "@type": "type.googleapis.com/envoy.config.core.v3.PerHostConfig",
    }}});
    let path = "ENDPOINT.metadata.typed_filter_metadata[envoy.transport_sockets.proxy_protocol]";
    refused_at(&[("ENDPOINT.metadata", metadata)], path, "not supported");
}

#[test]
fn logs_of_a_connection_may_be_written_before_its_end() {
    let options = |changes: &[(&str, Value)]| match accepted(changes).listeners[0]
        .default_filter_chain
        .as_ref()
        .map(|chain| &chain.terminal)
    {
        Some(crate::config::listener::TerminalFilter::Tcp(proxy)) => proxy.log_options,
        other => panic!("{other:?}"),
    };
    assert_eq!(options(&[]), crate::config::tcp_proxy::LogOptions::default());
    let old = options(&[
        ("TCP.access_log_flush_interval", json!("1s")),
        ("TCP.flush_access_log_on_connected", json!(true)),
    ]);
    assert_eq!((old.interval, old.on_connected), (Some(Duration::from_secs(1)), true));
    let today = json!({"access_log_flush_interval": "0.001s", "flush_access_log_on_start": true});
    let new = options(&[("TCP.access_log_options", today)]);
    assert_eq!((new.interval, new.on_start), (Some(Duration::from_millis(1)), true));

    let interval = "TCP.access_log_options.access_log_flush_interval";
    refused(interval, json!("0.0009s"), "at least 1ms");
    let both =
        [("TCP.access_log_options", json!({})), ("TCP.flush_access_log_on_connected", json!(true))];
    refused_at(&both, "TCP.flush_access_log_on_connected", "access_log_options");
    let both = [
        ("HCM.access_log_options", json!({})),
        ("HCM.flush_access_log_on_new_request", json!(true)),
    ];
    refused_at(&both, "HCM.flush_access_log_on_new_request", "access_log_options");
}
