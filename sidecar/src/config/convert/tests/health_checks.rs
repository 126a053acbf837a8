//! Active health checks, and what goes with them.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refusal, refused};
use crate::config::address::Address;
use crate::config::cluster::{Discovery, HealthRules};
use crate::config::endpoint::CheckTarget;
use crate::config::health_check::{Check, HealthCheck};
use crate::config::http_filters::{FilterKind, HealthCheck as HealthFilter};
use crate::config::listener::TerminalFilter;

const UNSUPPORTED: &str = "not supported by this version of Outrigger";

/// A check with some fields changed; `null` removes one.
fn check(changes: &[(&str, Value)]) -> Value {
    let mut check = json!({
        "timeout": "1s", "interval": "5s", "unhealthy_threshold": 3, "healthy_threshold": 2,
        "http_health_check": {"path": "/health"},
    });
    for (path, new) in changes {
        let mut place = &mut check;
        for key in path.split('.') {
            place = &mut place[key];
        }
        *place = new.clone();
    }
    if let Some(object) = check.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    check
}

#[track_caller]
fn converted(changes: &[(&str, Value)]) -> HealthCheck {
    let bootstrap = accepted(&[("CLUSTER.health_checks", json!([check(changes)]))]);
    let check = bootstrap.clusters[0].health_check.as_deref().cloned();
    check.expect("a check")
}

/// Of another kind.
fn kind(name: &str, config: Value) -> [(&str, Value); 2] {
    [("http_health_check", Value::Null), (name, config)]
}

#[test]
fn what_is_not_said_follows_the_interval() {
    let check = converted(&[]);
    let seconds = Duration::from_secs;
    assert_eq!(
        (check.timeout, check.unhealthy_threshold, check.healthy_threshold),
        (seconds(1), 3, 2)
    );
    assert!(check.reuse_connection && !check.always_log_failures && !check.always_log_successes);
    let pace = &check.pace;
    assert_eq!(
        (pace.interval, pace.unhealthy, pace.unhealthy_edge, pace.healthy_edge),
        (seconds(5), seconds(5), seconds(5), seconds(5))
    );
    assert_eq!((pace.no_traffic, pace.no_traffic_healthy), (seconds(60), seconds(60)));
    assert_eq!(
        (pace.initial_jitter, pace.jitter, pace.jitter_percent),
        (Duration::ZERO, Duration::ZERO, 0)
    );
    let Check::Http(http) = &check.check else { panic!("HTTP") };
    assert_eq!((http.method.as_str(), http.path.as_str(), &http.host), ("GET", "/health", &None));
    assert_eq!(
        (http.expected.as_slice(), http.response_buffer, http.http2),
        (std::slice::from_ref(&(200..201)), 1024, false)
    );
}

#[test]
fn every_interval_may_be_its_own() {
    let check = converted(&[
        ("no_traffic_interval", json!("7s")),
        ("no_traffic_healthy_interval", json!("8s")),
        ("unhealthy_interval", json!("9s")),
        ("unhealthy_edge_interval", json!("10s")),
        ("healthy_edge_interval", json!("11s")),
        ("initial_jitter", json!("0.5s")),
        ("interval_jitter", json!("0.0019s")),
        ("interval_jitter_percent", json!(20)),
        ("reuse_connection", json!(false)),
        ("always_log_health_check_failures", json!(true)),
        ("always_log_health_check_success", json!(true)),
        ("tls_options", json!({"alpn_protocols": ["hc"]})),
        ("transport_socket_match_criteria", json!({"mtls": true})),
    ]);
    let pace = &check.pace;
    let times = [
        pace.no_traffic,
        pace.no_traffic_healthy,
        pace.unhealthy,
        pace.unhealthy_edge,
        pace.healthy_edge,
    ];
    assert_eq!(times.map(|time| time.as_secs()), [7, 8, 9, 10, 11]);
    assert_eq!(
        (pace.initial_jitter.as_millis(), pace.jitter.as_micros(), pace.jitter_percent),
        (500, 1000, 20)
    );
    assert!(!check.reuse_connection && check.always_log_failures && check.always_log_successes);
    assert_eq!(check.alpn, [Box::from(&b"hc"[..])]);
    let criteria =
        check.transport_match.as_ref().map(|metadata| &metadata.0["envoy.transport_socket_match"]);
    assert_eq!(criteria, Some(&json!({"mtls": true})));
    let edge = converted(&[("unhealthy_interval", json!("9s"))]).pace.unhealthy_edge;
    assert_eq!(edge.as_secs(), 9, "as the unhealthy interval");
    let healthy = converted(&[("no_traffic_interval", json!("7s"))]).pace.no_traffic_healthy;
    assert_eq!(healthy.as_secs(), 7);
}

#[test]
fn http_grpc_and_tcp_arrive_with_their_settings() {
    let Check::Http(http) = converted(&[
        ("http_health_check.host", json!("a.test")),
        ("http_health_check.method", json!("POST")),
        ("http_health_check.send", json!({"text": "50494E47"})),
        ("http_health_check.receive", json!([{"text": "4f4b"}, {"binary": "YQ=="}])),
        ("http_health_check.response_buffer_size", json!(9)),
        (
            "http_health_check.expected_statuses",
            json!([{"start": 200, "end": 300}, {"start": 404, "end": 405}]),
        ),
        ("http_health_check.retriable_statuses", json!([{"start": 500, "end": 600}])),
        ("http_health_check.codec_client_type", json!("HTTP2")),
        ("http_health_check.service_name_matcher", json!({"prefix": "a"})),
        (
            "http_health_check.request_headers_to_add",
            json!([{"header": {"key": "x", "value": "y"}}]),
        ),
        ("http_health_check.request_headers_to_remove", json!(["user-agent"])),
    ])
    .check
    else {
        panic!("HTTP")
    };
    assert_eq!((http.method.as_str(), &*http.send, http.http2), ("POST", &b"PING"[..], true));
    assert_eq!(http.receive, ["OK", "a"]);
    assert_eq!(
        (http.response_buffer, http.host.as_ref().map(|host| host.as_bytes())),
        (9, Some(&b"a.test"[..]))
    );
    assert_eq!(
        (http.expected.len(), http.retriable.as_slice()),
        (2, std::slice::from_ref(&(500..600)))
    );
    assert!(http.service_name.is_some_and(|matcher| matcher.matches(b"abc")));
    assert_eq!((http.headers.add.len(), http.headers.remove.len()), (1, 1));

    let Check::Grpc(grpc) = converted(&kind(
        "grpc_health_check",
        json!({"service_name": "s", "authority": "a", "initial_metadata": [{"header": {"key": "x", "value": "y"}}]}),
    ))
    .check
    else {
        panic!("gRPC")
    };
    assert_eq!((&*grpc.service, grpc.headers.add.len()), ("s", 1));
    assert_eq!(grpc.authority.as_ref().map(|authority| authority.as_bytes()), Some(&b"a"[..]));

    let tcp = json!({"send": {"text": "00ff"}, "receive": [{"text": "01"}]});
    let Check::Tcp(tcp) = converted(&kind("tcp_health_check", tcp)).check else { panic!("TCP") };
    assert_eq!((&*tcp.send, &*tcp.receive[0]), (&[0, 255][..], &[1][..]));
}

#[test]
fn what_is_wrong_with_a_check_is_refused_where_it_stands() {
    let cases: &[(&str, Value, &str, &str)] = &[
        ("timeout", Value::Null, "", "required"),
        ("timeout", json!("0s"), "", "more than zero"),
        ("interval", Value::Null, "", "required"),
        ("interval", json!("-1s"), "", "negative"),
        ("unhealthy_threshold", Value::Null, "", "required"),
        ("healthy_threshold", Value::Null, "", "required"),
        ("no_traffic_interval", json!("0s"), "", "more than zero"),
        ("no_traffic_healthy_interval", json!("0s"), "", "more than zero"),
        ("unhealthy_interval", json!("0s"), "", "more than zero"),
        ("unhealthy_edge_interval", json!("0s"), "", "more than zero"),
        ("healthy_edge_interval", json!("0s"), "", "more than zero"),
        ("initial_jitter", json!("-1s"), "", "negative"),
        ("alt_port", json!(80), "", "health_check_config.port_value"),
        ("tls_options", json!({"alpn_protocols": [""]}), ".alpn_protocols[0]", "1 to 255"),
        ("http_health_check.path", json!(""), "", "must not be empty"),
        ("http_health_check.path", json!("health"), "", "begins with a slash"),
        ("http_health_check.host", json!("a\nb"), "", "character"),
        ("http_health_check.method", json!("CONNECT"), "", "CONNECT"),
        ("http_health_check.send", json!({"text": "00"}), "", "without a body"),
        ("http_health_check.receive", json!([{"text": "0"}]), "[0].text", "hexadecimal"),
        ("http_health_check.receive", json!([{"text": "zz"}]), "[0].text", "hexadecimal"),
        ("http_health_check.receive", json!([{"text": "00".repeat(1025)}]), "", "do not fit"),
        ("http_health_check.receive", json!([{}]), "[0]", "required"),
        (
            "http_health_check.expected_statuses",
            json!([{"start": 99, "end": 200}]),
            "[0]",
            "no range",
        ),
        (
            "http_health_check.expected_statuses",
            json!([{"start": 200, "end": 200}]),
            "[0]",
            "no range",
        ),
        (
            "http_health_check.retriable_statuses",
            json!([{"start": 200, "end": 601}]),
            "[0]",
            "no range",
        ),
        ("http_health_check.codec_client_type", json!("HTTP3"), "", UNSUPPORTED),
        ("http_health_check.service_name_matcher", json!({}), "", "required"),
        (
            "http_health_check.request_headers_to_add",
            json!([{"header": {"key": "x", "value": "%PROTOCOL%"}}]),
            "[0].header.value",
            UNSUPPORTED,
        ),
        ("event_logger", json!([{"name": "a"}]), "[0].typed_config", "required"),
        ("event_service", json!({}), "", UNSUPPORTED),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(field, value, rest, reason)| {
            let checks = json!([check(&[(field, value.clone())])]);
            let path = format!("CLUSTER.health_checks[0].{field}{rest}");
            refusal(&[("CLUSTER.health_checks", checks)], &path, reason).err()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn event_logs_are_files() {
    let sink = json!({"name": "f", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
        "event_log_path": "/new"}});
    let check = converted(&[("event_log_path", json!("/old")), ("event_logger", json!([sink]))]);
    let paths: Vec<_> = check.event_logs.iter().filter_map(|path| path.to_str()).collect();
    assert_eq!(paths, ["/old", "/new"]);
}

#[test]
fn there_is_one_check_of_a_kind_that_is_known() {
    refused("CLUSTER.health_checks", json!([check(&[]), check(&[])]), "more than one");
    for (changes, path, reason) in [
        (vec![("http_health_check", Value::Null)], "CLUSTER.health_checks[0]", "required"),
        (
            kind("custom_health_check", json!({"name": "envoy.health_checkers.redis"})).to_vec(),
            "CLUSTER.health_checks[0].custom_health_check",
            UNSUPPORTED,
        ),
        (
            kind("tcp_health_check", json!({"proxy_protocol_config": {}})).to_vec(),
            "CLUSTER.health_checks[0].tcp_health_check.proxy_protocol_config",
            UNSUPPORTED,
        ),
    ] {
        let checks = json!([check(&changes)]);
        refusal(&[("CLUSTER.health_checks", checks)], path, reason).unwrap();
    }
}

#[test]
fn grpc_checks_need_a_cluster_that_speaks_http2() {
    let checks = json!([check(&kind("grpc_health_check", json!({})))]);
    let path = "CLUSTER.health_checks[0].grpc_health_check";
    let changes = [
        ("HTTP.explicit_http_config", json!({"http_protocol_options": {}})),
        ("CLUSTER.health_checks", checks),
    ];
    refusal(&changes, path, "HTTP/2").unwrap();
}

#[test]
fn a_cluster_says_what_health_means() {
    assert_eq!(accepted(&[]).clusters[0].health, HealthRules::default());
    let bootstrap = accepted(&[
        ("CLUSTER.ignore_health_on_host_removal", json!(true)),
        ("CLUSTER.close_connections_on_host_health_failure", json!(true)),
        ("CLUSTER.common_lb_config.ignore_new_hosts_until_first_hc", json!(true)),
        ("CLUSTER.common_lb_config.close_connections_on_host_set_change", json!(true)),
        ("CLUSTER.outlier_detection.successful_active_health_check_uneject_host", json!(false)),
    ]);
    let cluster = &bootstrap.clusters[0];
    let all = HealthRules {
        ignore_on_removal: true,
        ignore_new_until_checked: true,
        close_on_failure: true,
        close_on_change: true,
    };
    assert_eq!(cluster.health, all);
    assert!(cluster.outlier_detection.as_ref().is_some_and(|it| !it.uneject_on_passed_check));
}

#[test]
fn an_endpoint_says_where_it_is_checked() {
    let target = |config: Value| {
        let bootstrap = accepted(&[("ENDPOINT.endpoint.health_check_config", config)]);
        let Discovery::Static(assignment) = &bootstrap.clusters[0].discovery else {
            panic!("static")
        };
        assignment.localities[0].endpoints[0].check.as_deref().cloned()
    };
    assert_eq!(target(json!({})), None);
    let address = json!({"socket_address": {"address": "10.0.0.9", "port_value": 81}});
    let said = target(json!({"port_value": 82, "hostname": "h", "address": address})).unwrap();
    let endpoint = Address::Ip("10.0.0.1:80".parse().unwrap());
    assert_eq!(said.address_of(&endpoint).to_string(), "10.0.0.9:82");
    assert_eq!(said.hostname.as_ref().map(|name| name.as_bytes()), Some(&b"h"[..]));
    let elsewhere = target(json!({"address": address})).unwrap();
    assert_eq!(elsewhere.address_of(&endpoint).to_string(), "10.0.0.9:81");
    let disabled = target(json!({"disable_active_health_check": true}));
    assert_eq!(disabled, Some(CheckTarget { is_disabled: true, ..CheckTarget::default() }));
    assert_eq!(CheckTarget::default().address_of(&endpoint), endpoint);
    let place = "ENDPOINT.endpoint.health_check_config";
    refused(&format!("{place}.port_value"), json!(65_536), "is not a port");
}

/// The filter in the place of the first, with some fields.
fn filter(mut fields: Value) -> [(&'static str, Value); 1] {
    fields["@type"] =
        "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck".into();
    [("HCM.http_filters[0]", json!({"name": "hc", "typed_config": fields}))]
}

#[test]
fn the_filter_answers_or_passes_on() {
    let of = |fields: Value| {
        let bootstrap = accepted(&filter(fields));
        let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal
        else {
            panic!("HTTP")
        };
        let FilterKind::HealthCheck(filter) = &manager.filters[0].kind else {
            panic!("the filter")
        };
        HealthFilter::clone(filter)
    };
    let passing = of(json!({"pass_through_mode": true, "cache_time": "5s"}));
    assert!(passing.pass_through && passing.headers.is_empty());
    assert_eq!(passing.cache_time.map(|time| time.as_secs()), Some(5));
    let answering = of(json!({
        "pass_through_mode": false,
        "cluster_min_healthy_percentages": {"b": {"value": 12.9}, "a": {"value": 100}},
        "headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}],
    }));
    let least: Vec<_> =
        answering.least_healthy.iter().map(|(name, least)| (&**name, *least)).collect();
    assert_eq!((least, answering.headers.len()), (vec![("a", 100), ("b", 12)], 1));

    let place = "HCM.http_filters[0].typed_config";
    for (fields, field, reason) in [
        (json!({}), "pass_through_mode", "required"),
        (json!({"pass_through_mode": false, "cache_time": "1s"}), "cache_time", "pass_through"),
        (json!({"pass_through_mode": true, "cache_time": "0s"}), "cache_time", "more than zero"),
        (
            json!({"pass_through_mode": true, "cluster_min_healthy_percentages": {"a": {"value": 1}}}),
            "cluster_min_healthy_percentages",
            "no effect",
        ),
        (
            json!({"pass_through_mode": false, "cluster_min_healthy_percentages": {"a": {"value": 101}}}),
            "cluster_min_healthy_percentages[a]",
            "0 to 100",
        ),
    ] {
        refusal(&filter(fields), &format!("{place}.{field}"), reason).unwrap();
    }
}
