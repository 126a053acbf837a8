//! What is supported, but wrong, is refused where it stands.

use serde_json::{Value, json};

use super::harness::{SCHEMA, changed, convert, refusal, refused, refused_at};

/// Each of the values is refused at its path for the reason.
#[track_caller]
fn all(cases: &[(&str, Value, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(path, value, reason)| refusal(&[(path, value.clone())], path, reason).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_rule_for_local_replies_names_flags_that_exist() {
    let config =
        json!({"mappers": [{"filter": {"response_flag_filter": {"flags": ["UF", "XX"]}}}]});
    refused_at(
        &[("HCM.local_reply_config", config)],
        "HCM.local_reply_config.mappers[0].filter.response_flag_filter.flags[1]",
        "is not a response flag",
    );
}

#[test]
fn what_is_required_has_to_be_there() {
    for (removed, path) in [
        ("LISTENER.address", "LISTENER.address"),
        ("LISTENER.listener_filters[0].typed_config", "LISTENER.listener_filters[0].typed_config"),
        ("CHAIN.filters[0].typed_config", "CHAIN.filters[0].typed_config"),
        ("CHAIN.filters", "CHAIN.filters"),
        ("HCM.stat_prefix", "HCM.stat_prefix"),
        ("HCM.access_log[0].typed_config", "HCM.access_log[0].typed_config"),
        ("HCM.http_filters[0].typed_config", "HCM.http_filters[0].typed_config"),
        ("HCM.route_config", "HCM"),
        ("HOST.name", "HOST.name"),
        ("HOST.domains", "HOST.domains"),
        ("ROUTE.match", "ROUTE.match"),
        ("ROUTE.match.prefix", "ROUTE.match"),
        (
            "ROUTE.match.runtime_fraction.default_value",
            "ROUTE.match.runtime_fraction.default_value",
        ),
        ("ROUTE.route", "ROUTE"),
        ("ACTION.weighted_clusters", "ACTION"),
        ("ACTION.weighted_clusters.clusters[0].name", "ACTION.weighted_clusters.clusters[0].name"),
        (
            "ACTION.retry_policy.retry_back_off.base_interval",
            "ACTION.retry_policy.retry_back_off.base_interval",
        ),
        ("REWRITE.regex_rewrite.pattern", "REWRITE.regex_rewrite.pattern"),
        ("TCP.stat_prefix", "TCP.stat_prefix"),
        ("TCP.cluster", "TCP"),
        ("DNS.load_assignment", "DNS.load_assignment"),
        ("CLUSTER.load_assignment.cluster_name", "CLUSTER.load_assignment.cluster_name"),
        ("ENDPOINT.endpoint", "ENDPOINT.endpoint"),
        ("ENDPOINT.endpoint.address", "ENDPOINT.endpoint.address"),
        (
            "ENDPOINT.endpoint.address.socket_address.port_value",
            "ENDPOINT.endpoint.address.socket_address.port_value",
        ),
        ("HTTP.explicit_http_config", "HTTP"),
        (
            "DNS.dns_failure_refresh_rate.base_interval",
            "DNS.dns_failure_refresh_rate.base_interval",
        ),
        (
            "HCM.http2_protocol_options.connection_keepalive.timeout",
            "HCM.http2_protocol_options.connection_keepalive.timeout",
        ),
        (
            "DOWNSTREAM.common_tls_context.combined_validation_context.default_validation_context",
            "DOWNSTREAM.common_tls_context.combined_validation_context.default_validation_context",
        ),
        (
            "UPSTREAM.common_tls_context.validation_context_sds_secret_config.name",
            "UPSTREAM.common_tls_context.validation_context_sds_secret_config.name",
        ),
    ] {
        refused_at(&[(removed, Value::Null)], path, "");
    }
}

#[test]
fn numbers_have_their_ranges() {
    all(&[
        ("HCM.max_request_headers_kb", json!(0), "1 to 8192"),
        ("HCM.max_request_headers_kb", json!(8193), "1 to 8192"),
        ("HCM.common_http_protocol_options.max_headers_count", json!(0), "at least 1"),
        ("HCM.http2_protocol_options.max_concurrent_streams", json!(0), "1 to 2147483647"),
        ("HCM.http2_protocol_options.initial_stream_window_size", json!(65_534), "65535 to"),
        (
            "HCM.http2_protocol_options.initial_connection_window_size",
            json!(4_294_967_295_u32),
            "65535 to",
        ),
        ("CHAIN.filter_chain_match.destination_port", json!(0), "1 to 65535"),
        ("CHAIN.filter_chain_match.destination_port", json!(65_536), "1 to 65535"),
        ("LISTENER.address.socket_address.port_value", json!(65_536), "is not a port"),
        ("REDIRECT.port_redirect", json!(65_536), "is not a port"),
        ("DIRECT.status", json!(199), "200 to 599"),
        ("DIRECT.status", json!(600), "200 to 599"),
        ("ACTION.retry_policy.retriable_status_codes[0]", json!(99), "is not a status"),
        ("ACTION.retry_policy.host_selection_retry_max_attempts", json!(-1), "out of range"),
        ("TCP.max_connect_attempts", json!(0), "at least 1"),
        ("CLUSTER.least_request_lb_config.choice_count", json!(1), "at least 2"),
        (
            "CLUSTER.least_request_lb_config.active_request_bias",
            json!({"default_value": -1.0}),
            "0 or more",
        ),
        ("CLUSTER.common_lb_config.healthy_panic_threshold", json!({"value": 101}), "0 to 100"),
        (
            "CLUSTER.circuit_breakers.thresholds[1].retry_budget.budget_percent",
            json!({"value": -1}),
            "0 to 100",
        ),
        ("CLUSTER.outlier_detection.max_ejection_percent", json!(101), "0 to 100"),
        ("CLUSTER.outlier_detection.enforcing_consecutive_5xx", json!(101), "0 to 100"),
        ("CLUSTER.outlier_detection.enforcing_success_rate", json!(101), "0 to 100"),
        ("CLUSTER.outlier_detection.failure_percentage_threshold", json!(101), "0 to 100"),
        ("CLUSTER.load_assignment.policy.overprovisioning_factor", json!(0), "at least 1"),
        ("CLUSTER.load_assignment.endpoints[0].priority", json!(129), "0 to 128"),
        ("CLUSTER.load_assignment.endpoints[0].load_balancing_weight", json!(0), "at least 1"),
        ("ENDPOINT.load_balancing_weight", json!(0), "at least 1"),
        (
            "RBAC.rules.policies[web].permissions[1].or_rules.rules[0].destination_port",
            json!(65_536),
            "is not a port",
        ),
        (
            "RBAC.rules.policies[web].permissions[0].and_rules.rules[2].not_rule.destination_port_range",
            json!({"start": 5, "end": 5}),
            "start < end",
        ),
        (
            "RBAC.rules.policies[web].permissions[1].or_rules.rules[1].destination_ip.prefix_len",
            json!(33),
            "too long",
        ),
    ]);
}

#[test]
fn numbers_without_a_name_are_no_value_of_an_enumeration() {
    all(&[
        ("LISTENER.traffic_direction", json!(9), "9 is not one of the values"),
        ("HCM.codec_type", json!(9), "9 is not one of the values"),
        ("HOST.require_tls", json!(9), "9 is not one of the values"),
        ("REDIRECT.response_code", json!(9), "9 is not one of the values"),
        ("DNS.dns_lookup_family", json!(9), "9 is not one of the values"),
        ("RBAC.rules.action", json!(9), "9 is not one of the values"),
    ]);
}

#[test]
fn durations_are_not_negative_and_some_not_zero() {
    for path in [
        "LISTENER.listener_filters_timeout",
        "HCM.stream_idle_timeout",
        "HCM.request_timeout",
        "HCM.drain_timeout",
        "HCM.common_http_protocol_options.idle_timeout",
        "ACTION.timeout",
        "ACTION.idle_timeout",
        "ACTION.retry_policy.per_try_timeout",
        "TCP.idle_timeout",
        "DNS.dns_refresh_rate",
        "CLUSTER.outlier_detection.max_ejection_time_jitter",
    ] {
        refused(path, json!("-1s"), "must not be negative");
        refused(path, json!("-0.000000001s"), "must not be negative");
    }
    for path in [
        "CLUSTER.connect_timeout",
        "CLUSTER.outlier_detection.interval",
        "CLUSTER.outlier_detection.base_ejection_time",
        "CLUSTER.outlier_detection.max_ejection_time",
        "ACTION.retry_policy.retry_back_off.base_interval",
        "ACTION.retry_policy.retry_back_off.max_interval",
        "HCM.http2_protocol_options.connection_keepalive.timeout",
        "HCM.http2_protocol_options.connection_keepalive.interval",
        "DNS.dns_failure_refresh_rate.base_interval",
    ] {
        refused(path, json!("0s"), "more than zero");
    }
}

#[test]
fn fields_have_to_agree_with_each_other() {
    all(&[
        (
            "CLUSTER.outlier_detection.max_ejection_time",
            json!("1s"),
            "less than base_ejection_time",
        ),
        (
            "ACTION.retry_policy.retry_back_off.max_interval",
            json!("0.001s"),
            "less than base_interval",
        ),
        ("DNS.dns_failure_refresh_rate.max_interval", json!("0.5s"), "less than base_interval"),
        (
            "ACTION.regex_rewrite",
            json!({"pattern": {"regex": "a"}, "substitution": "b"}),
            "together with prefix_rewrite",
        ),
        ("CLUSTER.eds_cluster_config", json!({"eds_config": {"ads": {}}}), "not of type EDS"),
        ("CLUSTER.http2_protocol_options", json!({}), "set it there"),
        (
            "HOST.routes[2].direct_response.body",
            json!({"inline_string": "x".repeat(4097)}),
            "max_direct_response_body_size_bytes",
        ),
    ]);
    refused_at(
        &[("HCM.strip_matching_host_port", json!(true))],
        "HCM.strip_any_host_port",
        "together with strip_matching_host_port",
    );
    refused_at(
        &[("ROUTES.request_headers_to_add[0].append", json!(true))],
        "ROUTES.request_headers_to_add[0].append",
        "together with append_action",
    );
    refused_at(
        &[(
            "DOWNSTREAM.common_tls_context.tls_params",
            json!({"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_2"}),
        )],
        "DOWNSTREAM.common_tls_context.tls_params.tls_maximum_protocol_version",
        "below",
    );
    refused_at(
        &[("HTTP.explicit_http_config", Value::Null), ("HTTP.auto_config", json!({}))],
        "CLUSTER.transport_socket",
        "by ALPN",
    );
    refused_at(
        &[("CLUSTER.outlier_detection.base_ejection_time", json!("5s"))],
        "CLUSTER.outlier_detection.max_ejection_time",
        "less than base_ejection_time",
    );
}

#[test]
fn weights_sum_up_to_more_than_nothing_and_less_than_32_bits() {
    let clusters =
        |a: u32, b: u32| json!([{"name": "static", "weight": a}, {"name": "dns", "weight": b}]);
    all(&[
        ("ACTION.weighted_clusters.clusters", clusters(0, 0), "sum up to 0"),
        ("ACTION.weighted_clusters.clusters", clusters(u32::MAX, 1), "sum up to 4294967296"),
        ("ACTION.weighted_clusters.clusters", json!([]), "at least one"),
    ]);
    let endpoint = |port: u16| {
        json!({
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
            "load_balancing_weight": u32::MAX,
        })
    };
    refused_at(
        &[("CLUSTER.load_assignment.endpoints[0].lb_endpoints", json!([endpoint(1), endpoint(2)]))],
        "CLUSTER.load_assignment.endpoints",
        "sum up to",
    );
}

#[test]
fn nothing_is_there_twice_that_has_to_be_one() {
    let rest = json!({"name": "b", "domains": ["*"], "routes": []});
    let mixed = json!({"name": "b", "domains": ["API.test"], "routes": []});
    refused_at(
        &[("ROUTES.virtual_hosts[2]", rest)],
        "ROUTES.virtual_hosts[2].domains[0]",
        "\"rest\" has the domain *",
    );
    refused_at(
        &[("ROUTES.virtual_hosts[2]", mixed)],
        "ROUTES.virtual_hosts[2].domains[0]",
        "\"api\" has the domain api.test",
    );
    refused_at(
        &[("HCM.upgrade_configs[1]", json!({"upgrade_type": "WebSocket"}))],
        "HCM.upgrade_configs[1].upgrade_type",
        "twice",
    );
    refused_at(
        &[("ACTION.upgrade_configs[0].connect_config", json!({}))],
        "ACTION.upgrade_configs[0].connect_config",
        "goes only with upgrade_type CONNECT",
    );
    let cluster = json!({"name": "dns", "load_assignment": {"cluster_name": "a"}});
    refused_at(
        &[("static_resources.clusters[2]", cluster)],
        "static_resources.clusters[2].name",
        "duplicate: clusters[1]",
    );
}

#[test]
fn no_two_chains_match_the_same_connections() {
    let chain = |matches: Value| {
        json!({
            "filter_chain_match": matches,
            "filters": [{"name": "t", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "a", "cluster": "static"}}],
        })
    };
    let listener = "static_resources.listeners[1]";
    for taken in [
        json!({"server_names": ["c.test", "a.TEST"], "transport_protocol": "tls", "application_protocols": ["h2"]}),
        json!({"server_names": ["*.b.test"], "transport_protocol": "tls", "application_protocols": ["http/1.1", "h2"]}),
    ] {
        refused_at(
            &[(&format!("{listener}.filter_chains[1]"), chain(taken))],
            &format!("{listener}.filter_chains[1].filter_chain_match"),
            "same connections as filter_chains[0]",
        );
    }
    refused_at(
        &[(&format!("{listener}.filter_chains[1]"), chain(json!({"server_names": ["a", "A"]})))],
        &format!("{listener}.filter_chains[1].filter_chain_match"),
        "names one criterion twice",
    );
    refused_at(
        &[("CHAIN.filter_chain_match.source_ports", json!([0]))],
        "CHAIN.filter_chain_match.source_ports[0]",
        "is not a port",
    );
    let ranges = json!({"prefix_ranges": [
        {"address_prefix": "10.0.0.1", "prefix_len": 8}, {"address_prefix": "10.9.0.0", "prefix_len": 8}]});
    refused_at(
        &[(&format!("{listener}.filter_chains[1]"), chain(ranges))],
        &format!("{listener}.filter_chains[1].filter_chain_match"),
        "names one criterion twice",
    );
}

#[test]
fn references_have_to_lead_somewhere() {
    all(&[
        ("REWRITE.cluster", json!("none"), "there is no cluster \"none\""),
        (
            "ACTION.weighted_clusters.clusters[1].name",
            json!("none"),
            "there is no cluster \"none\"",
        ),
    ]);
    refused_at(
        &[(
            "DOWNSTREAM.common_tls_context.tls_certificate_sds_secret_configs[0].name",
            json!("none"),
        )],
        "DOWNSTREAM.common_tls_context.tls_certificate_sds_secret_configs[0]",
        "there is no tls_certificate \"none\"",
    );
    refused_at(
        &[(
            "UPSTREAM.common_tls_context.validation_context_sds_secret_config.name",
            json!("identity"),
        )],
        "UPSTREAM.common_tls_context.validation_context_sds_secret_config",
        "there is no validation_context \"identity\"",
    );
    refused_at(
        &[(
            "static_resources.listeners[1].address",
            json!({"socket_address": {"address": "127.0.0.1", "port_value": 10_000}}),
        )],
        "static_resources.listeners[1].address",
        "listeners[0] has 127.0.0.1:10000",
    );
    for (path, value, at) in [
        ("HCM.route_config", json!({"rds": true}), "HCM.rds.config_source"),
        ("CLUSTER.eds_cluster_config", json!({}), "CLUSTER.eds_cluster_config.eds_config"),
    ] {
        let ads = json!({"ads": {}});
        let changes = if value.get("rds").is_some() {
            vec![
                (path, Value::Null),
                ("HCM.rds", json!({"route_config_name": "r", "config_source": ads})),
            ]
        } else {
            vec![
                ("CLUSTER.type", json!("EDS")),
                ("CLUSTER.load_assignment", Value::Null),
                (path, json!({"eds_config": ads})),
            ]
        };
        refused_at(&changes, at, "needs dynamic_resources.ads_config");
    }
}

#[test]
fn a_bootstrap_made_in_memory_may_name_secrets_that_its_maker_brings() {
    let value = changed(&[("static_resources.secrets", json!([]))]);
    let proto = SCHEMA.read_value(value.clone(), true).expect("a bootstrap");
    assert!(crate::config::bootstrap::from_proto(proto).is_ok());
    assert!(convert(value).is_err());
}

#[test]
fn texts_have_to_be_what_they_stand_for() {
    all(&[
        (
            "LISTENER.address.socket_address.address",
            json!("localhost"),
            "\"localhost\" is not an IP address",
        ),
        ("ENDPOINT.endpoint.address.socket_address.address", json!("api.test"), "STRICT_DNS"),
        (
            "static_resources.listeners[1].filter_chains[0].filter_chain_match.server_names[0]",
            json!("*"),
            "star",
        ),
        (
            "static_resources.listeners[1].filter_chains[0].filter_chain_match.server_names[0]",
            json!("a.*.test"),
            "star",
        ),
        ("ROUTES.request_headers_to_add[0].header.key", json!(":path"), "cannot be added"),
        ("ROUTES.request_headers_to_add[0].header.key", json!("Host"), "cannot be added"),
        ("ROUTES.request_headers_to_add[0].header.key", json!("a b"), "not a valid header name"),
        ("ROUTES.request_headers_to_add[0].header.value", json!("%NOTHING%"), "%NOTHING%"),
        ("ROUTES.request_headers_to_add[0].header.value", json!("a\nb"), "no header value"),
        ("ROUTES.response_headers_to_remove[0]", json!(":status"), "cannot be removed"),
        ("ROUTE.match.headers[0].name", json!(":protocol"), "is not one of"),
        ("ROUTE.match.headers[0].string_match.safe_regex.regex", json!("a("), "unclosed group"),
        (
            "ROUTE.match.headers[0].string_match.safe_regex.regex",
            json!("a)|(?:b"),
            "unopened group",
        ),
        (
            "ROUTE.match.headers[0].string_match.safe_regex.regex",
            json!("(?:a{1000}){1000}"),
            "too large",
        ),
        ("ROUTE.match.headers[0].string_match.safe_regex.regex", json!(""), "must not be empty"),
        ("ROUTE.match.headers[1].string_match.contains", json!(""), "must not be empty"),
        ("HOST.routes[2].match.path_separated_prefix", json!("/a/"), "not end with '/'"),
        ("HOST.routes[2].match.path_separated_prefix", json!("/a?b"), "no '?'"),
        ("REWRITE.regex_rewrite.substitution", json!("\\2"), "has 1 groups"),
        ("REWRITE.regex_rewrite.substitution", json!("\\x"), "backslash"),
        ("REDIRECT.path_redirect", json!("/a\r\nb"), "line break"),
        ("HCM.via", json!("a\u{7f}"), "no header value"),
        ("UPSTREAM.sni", json!("x".repeat(256)), "more than 255 bytes"),
        ("DOWNSTREAM.common_tls_context.alpn_protocols[0]", json!(""), "1 to 255 bytes"),
        (
            "DOWNSTREAM.common_tls_context.tls_params.tls_minimum_protocol_version",
            json!("TLSv1_1"),
            "TLSv1_2",
        ),
        (
            "DOWNSTREAM.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names[0].san_type",
            json!("SAN_TYPE_UNSPECIFIED"),
            "required",
        ),
        ("RBAC.rules.policies[web].permissions", json!([]), "at least one"),
        ("RBAC.rules.policies[web].permissions[0]", json!({}), "says nothing"),
        ("RBAC.rules.policies[web].principals[1].or_ids.ids", json!([]), "at least one"),
    ]);
    refused_at(
        &[("RBAC.rules.policies[web].principals[0]", json!({"any": false}))],
        "RBAC.rules.policies[web].principals[0].any",
        "must be true",
    );
    refused_at(
        &[(
            "HCM.access_log[1].typed_config.log_format.json_format.nested.list[0]",
            json!("%NOTHING%"),
        )],
        "HCM.access_log[1].typed_config.log_format.json_format.nested.list[0]",
        "%NOTHING%",
    );
}

#[test]
fn the_router_is_the_last_filter_and_filters_that_are_unknown_are_refused_unless_optional() {
    let router = json!({"name": "r", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    refused_at(&[("HCM.http_filters[2]", router)], "HCM.http_filters[1]", "must be the last");
    refused_at(&[("HCM.http_filters", json!([]))], "HCM.http_filters", "the last filter must be");
    refused_at(
        &[("HCM.http_filters[1]", Value::Null)],
        "HCM.http_filters",
        "the last filter must be",
    );
    let unknown = json!({"name": "c", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}});
    refused_at(
        &[("HCM.http_filters[0]", unknown)],
        "HCM.http_filters[0].typed_config",
        "envoy.extensions.filters.http.lua.v3.Lua is not supported",
    );
}

#[test]
fn filters_of_access_logs_have_what_they_compare_with() {
    let nested = (0..17).fold(
        json!({"traceable_filter": {}}),
        |inner, _| json!({"or_filter": {"filters": [{"traceable_filter": {}}, inner]}}),
    );
    let deepest =
        "HCM.access_log[0].filter".to_owned() + &".or_filter.filters[1]".repeat(16) + ".or_filter";
    let base = "HCM.access_log[0].filter";
    for (filter, path, reason) in [
        (json!({}), "", "a filter is required"),
        (json!({"status_code_filter": {}}), ".status_code_filter.comparison", "required"),
        (
            json!({"duration_filter": {"comparison": {"op": "GE"}}}),
            ".duration_filter.comparison.value",
            "required",
        ),
        (
            json!({"status_code_filter": {"comparison": {"op": 9, "value": {"runtime_key": "a"}}}}),
            ".status_code_filter.comparison.op",
            "9 is not one of the values",
        ),
        (json!({"runtime_filter": {}}), ".runtime_filter.runtime_key", "must not be empty"),
        (
            json!({"and_filter": {"filters": [{"traceable_filter": {}}]}}),
            ".and_filter.filters",
            "at least two",
        ),
        (json!({"header_filter": {}}), ".header_filter.header", "required"),
        (
            json!({"response_flag_filter": {"flags": ["UF", "XX"]}}),
            ".response_flag_filter.flags[1]",
            "\"XX\" is not a response flag",
        ),
        (
            json!({"grpc_status_filter": {"statuses": [17]}}),
            ".grpc_status_filter.statuses[0]",
            "17 is not one of the values",
        ),
    ] {
        refused_at(&[(base, filter)], &format!("{base}{path}"), reason);
    }
    refused_at(&[(base, nested)], &deepest, "more than 16 deep");
}

#[test]
fn what_is_wrong_is_all_told_at_once() {
    let found = convert(changed(&[
        ("HCM.stat_prefix", json!("")),
        ("ACTION.timeout", json!("-1s")),
        ("CLUSTER.connect_timeout", json!("0s")),
        ("static_resources.secrets[0].tls_certificate.private_key", json!({"inline_string": ""})),
    ]))
    .expect_err("refused");
    let mut paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
    paths.sort_unstable();
    let mut expected = [
        super::harness::full("ACTION.timeout"),
        super::harness::full("CLUSTER.connect_timeout"),
        super::harness::full("HCM.stat_prefix"),
        super::harness::full("static_resources.secrets[0].tls_certificate.private_key"),
    ];
    expected.sort_unstable();
    assert_eq!(paths, expected);
}
