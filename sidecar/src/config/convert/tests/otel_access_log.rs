//! Access logs that are sent to an OpenTelemetry collector.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::access_log::{OtelAccessLog, OtelValue, Output};
use crate::config::listener::TerminalFilter;
use crate::config::tracing::Exporter;

const CONFIG: &str = "HCM.access_log[0].typed_config";

fn log(fields: &Value) -> [(&'static str, Value); 1] {
    let mut config = fields.clone();
    config["@type"] = json!(
        "type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig"
    );
    [("HCM.access_log", json!([{"name": "l", "typed_config": config}]))]
}

fn grpc() -> Value {
    json!({"envoy_grpc": {"cluster_name": "static"}})
}

fn converted(fields: &Value) -> OtelAccessLog {
    match &accepted(&log(fields)).listeners[0].filter_chains[0].terminal {
        TerminalFilter::Http(manager) => match &manager.access_logs[0].output {
            Output::Otel(log) => OtelAccessLog::clone(log),
            Output::Lines { .. } | Output::Grpc(_) => panic!("a log over OTLP"),
        },
        TerminalFilter::Tcp(_) => panic!("a connection manager"),
    }
}

#[test]
fn what_is_not_said_is_as_in_envoy() {
    let log = converted(&json!({"grpc_service": grpc()}));
    let Exporter::Grpc(service) = &log.stream.exporter else { panic!("{:?}", log.stream) };
    assert_eq!(&*service.cluster, "static");
    assert!(log.body.is_none() && log.attributes.is_empty() && log.stream.builtin_labels);
    assert_eq!(log.stream.flush_interval, Duration::from_secs(1));
    assert_eq!(log.stream.buffer_size, 16_384);
}

#[test]
fn the_older_fields_count_where_the_newer_ones_say_nothing() {
    let common = json!({"log_name": "old", "transport_api_version": "V3", "grpc_service": grpc(),
        "buffer_size_bytes": 5, "buffer_flush_interval": "3s"});
    let log = converted(&json!({"common_config": common, "buffer_flush_interval": "2s"}));
    assert_eq!(&*log.stream.log_name, "old");
    assert_eq!((log.stream.buffer_size, log.stream.flush_interval.as_secs()), (5, 2));
}

#[test]
fn bodies_and_attributes_are_texts_lists_and_maps() {
    let body = json!({"kvlist_value": {"values": [
        {"key": "a", "value": {"string_value": "%PROTOCOL%"}},
        {"key": "b", "value": {"array_value": {"values": [{"string_value": "x"}]}}},
    ]}});
    let attributes = json!({"values": [{"key": "c", "value": {"string_value": "y"}}]});
    let log = converted(
        &json!({"grpc_service": grpc(), "body": body, "attributes": attributes, "stat_prefix": "p"}),
    );
    let Some(OtelValue::Map(map)) = &log.body else { panic!("{:?}", log.body) };
    assert!(matches!(&map[0], (key, OtelValue::Text(_)) if &**key == "a"));
    assert!(matches!(&map[1], (key, OtelValue::List(list)) if &**key == "b" && list.len() == 1));
    assert!(matches!(&log.attributes[0], (key, OtelValue::Text(_)) if &**key == "c"));
    assert_eq!(&*log.stream.stat_prefix, "p");
}

#[test]
fn what_is_wrong_is_refused_where_it_stands() {
    let text = |text: &str| json!({"string_value": text});
    let http = json!({"http_uri": {"uri": "http://a/", "cluster": "static", "timeout": "1s"}});
    for (fields, path, reason) in [
        (json!({}), "", "is required"),
        (json!({"grpc_service": grpc(), "http_service": http}), "", "only one of"),
        (json!({"grpc_service": grpc(), "body": text("%NOPE%")}), ".body.string_value", "%NOPE%"),
        (json!({"grpc_service": grpc(), "body": {"int_value": 1}}), ".body", "can be formatted"),
        (
            json!({"grpc_service": grpc(), "attributes": {"values": [{"key": "a", "value": text("%")}]}}),
            ".attributes.values[0].value.string_value",
            "not a command operator",
        ),
        (
            json!({"grpc_service": grpc(), "formatters": [{"name": "a"}]}),
            ".formatters",
            "not supported",
        ),
        (
            json!({"grpc_service": grpc(), "common_config": {"log_name": "a", "transport_api_version": "V3"}}),
            ".common_config.grpc_service",
            "required",
        ),
    ] {
        refused_at(&log(&fields), &format!("{CONFIG}{path}"), reason);
    }
}
