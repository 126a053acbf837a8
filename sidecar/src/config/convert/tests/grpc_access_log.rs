//! Access logs over gRPC.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::access_log::{GrpcAccessLog, GrpcLogKind, Output};
use crate::config::listener::TerminalFilter;

const CONFIG: &str = "HCM.access_log[0].typed_config";

fn log(kind: &str, common: &Value, more: &[(&str, Value)]) -> [(&'static str, Value); 1] {
    let mut config = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.{kind}"),
        "common_config": common,
    });
    for (field, value) in more {
        config[*field] = value.clone();
    }
    [("HCM.access_log", json!([{"name": "l", "typed_config": config}]))]
}

fn common() -> Value {
    json!({"log_name": "l", "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "static"}}})
}

fn converted(changes: &[(&str, Value)]) -> GrpcAccessLog {
    match &accepted(changes).listeners[0].filter_chains[0].terminal {
        TerminalFilter::Http(manager) => match &manager.access_logs[0].output {
            Output::Grpc(log) => GrpcAccessLog::clone(log),
            Output::Lines { .. } | Output::Otel(_) => panic!("a log over gRPC"),
        },
        TerminalFilter::Tcp(_) => panic!("a connection manager"),
    }
}

#[test]
fn what_is_not_said_is_as_in_envoy() {
    let log = converted(&log("HttpGrpcAccessLogConfig", &common(), &[]));
    assert_eq!(log.stream.kind, GrpcLogKind::Http);
    assert_eq!((&*log.stream.log_name, &*log.stream.service.cluster), ("l", "static"));
    assert_eq!(log.stream.flush_interval, Duration::from_secs(1));
    assert_eq!(log.stream.buffer_size, 16_384);
}

#[test]
fn everything_that_is_said_arrives() {
    let mut said = common();
    said["buffer_flush_interval"] = json!("0.5s");
    said["buffer_size_bytes"] = json!(0);
    said["filter_state_objects_to_log"] = json!(["a"]);
    said["custom_tags"] = json!([{"tag": "t", "literal": {"value": "v"}}]);
    said["grpc_stream_retry_policy"] =
        json!({"retry_back_off": {"base_interval": "0.1s", "max_interval": "3s"}});
    let more = [
        ("additional_request_headers_to_log", json!(["X-A"])),
        ("additional_response_headers_to_log", json!(["x-b"])),
        ("additional_response_trailers_to_log", json!(["x-c"])),
    ];
    let log = converted(&log("HttpGrpcAccessLogConfig", &said, &more));
    assert_eq!(log.stream.flush_interval, Duration::from_millis(500));
    assert_eq!(log.stream.buffer_size, 0);
    assert_eq!(log.stream.backoff, (Duration::from_millis(100), Duration::from_secs(3)));
    assert_eq!(log.request_headers, ["x-a"]);
    assert_eq!((log.response_headers.len(), log.response_trailers.len()), (1, 1));
    assert_eq!((log.filter_state.len(), log.custom_tags.len()), (1, 1));
}

#[test]
fn a_log_of_connections_may_stand_anywhere() {
    let log = converted(&log("TcpGrpcAccessLogConfig", &common(), &[]));
    assert_eq!(log.stream.kind, GrpcLogKind::Tcp);
}

#[test]
fn what_is_wrong_is_refused_where_it_stands() {
    for (field, value, path, reason) in [
        ("log_name", json!(""), "log_name", "must not be empty"),
        ("grpc_service", Value::Null, "grpc_service", "required"),
        ("buffer_flush_interval", json!("0s"), "buffer_flush_interval", "more than zero"),
        ("transport_api_version", json!("V2"), "transport_api_version", "V3"),
        (
            "grpc_service",
            json!({"google_grpc": {"target_uri": "a"}}),
            "grpc_service.google_grpc",
            "not supported",
        ),
        (
            "grpc_stream_retry_policy",
            json!({"retry_on": "5xx"}),
            "grpc_stream_retry_policy.retry_on",
            "not supported",
        ),
    ] {
        let mut wrong = common();
        wrong[field] = value;
        refused_at(
            &log("HttpGrpcAccessLogConfig", &wrong, &[]),
            &format!("{CONFIG}.common_config.{path}"),
            reason,
        );
    }
    refused_at(
        &log(
            "HttpGrpcAccessLogConfig",
            &common(),
            &[("additional_request_headers_to_log", json!(["a b"]))],
        ),
        &format!("{CONFIG}.additional_request_headers_to_log[0]"),
        "header name",
    );
}
