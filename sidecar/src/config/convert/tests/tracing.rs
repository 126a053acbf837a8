//! Tracing: what is accepted arrives with its meaning, and what is not supported or wrong is refused where it stands.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused, refused_at};
use crate::config::bootstrap::Bootstrap;
use crate::config::http_connection_manager::RouteSource;
use crate::config::listener::TerminalFilter;
use crate::config::route::Route;
use crate::config::tracing::{Exporter, Sampler, Sampling, TagMetadata, TagValue, Tracing};

const PROVIDER: &str = "HCM.tracing.provider.typed_config";

/// A provider, which sends its spans over gRPC if it does not say.
fn provider(fields: &Value) -> Value {
    let mut config = fields.clone();
    if config.get("grpc_service").is_none() && config.get("http_service").is_none() {
        config["grpc_service"] = grpc();
    }
    config["@type"] = json!("type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig");
    json!({"name": "envoy.tracers.opentelemetry", "typed_config": config})
}

fn with_provider(fields: Value) -> (&'static str, Value) {
    ("HCM.tracing", json!({"provider": provider(&fields)}))
}

fn grpc() -> Value {
    json!({"envoy_grpc": {"cluster_name": "static"}, "timeout": "0.25s",
        "initial_metadata": [{"key": "X-A", "value": "b"}]})
}

fn sampler(name: &str, more: &Value) -> Value {
    let mut config = more.clone();
    config["@type"] = json!(format!(
        "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3.{name}"
    ));
    json!({"name": "s", "typed_config": config})
}

fn detector(name: &str, more: &Value) -> Value {
    let mut config = more.clone();
    config["@type"] = json!(format!(
        "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3.{name}"
    ));
    json!({"name": "d", "typed_config": config})
}

fn tracing(bootstrap: &Bootstrap) -> Arc<Tracing> {
    match &bootstrap.listeners[0].filter_chains[0].terminal {
        TerminalFilter::Http(manager) => Arc::clone(manager.tracing.as_ref().expect("tracing")),
        TerminalFilter::Tcp(_) => panic!("a connection manager"),
    }
}

fn route(bootstrap: &Bootstrap) -> Arc<Route> {
    match &bootstrap.listeners[0].filter_chains[0].terminal {
        TerminalFilter::Http(manager) => match &manager.routes {
            RouteSource::Inline(routes) => Arc::clone(&routes.virtual_hosts[0].routes[0]),
            RouteSource::Rds { .. } => panic!("inline routes"),
        },
        TerminalFilter::Tcp(_) => panic!("a connection manager"),
    }
}

#[test]
fn nothing_but_tracing_means_that_everything_is_traced_and_nothing_sent() {
    let tracing = tracing(&accepted(&[("HCM.tracing", json!({}))]));
    assert_eq!(tracing.sampling, Sampling::default());
    assert_eq!((tracing.max_path_tag_length, tracing.verbose), (256, false));
    assert!(tracing.provider.is_none() && tracing.context_propagation);
    assert!(tracing.pack_trace_reason && tracing.use_request_id && !tracing.spawn_upstream_span);
}

#[test]
fn shares_are_hundredths_of_a_percent() {
    let shares = json!({"client_sampling": {"value": 50}, "random_sampling": {"value": 0.126},
        "overall_sampling": {}});
    let tracing = tracing(&accepted(&[("HCM.tracing", shares)]));
    let expected = Sampling { client: (5000, 10_000), random: (13, 10_000), overall: (0, 10_000) };
    assert_eq!(tracing.sampling, expected);
    let own = json!({"random_sampling": {"numerator": 3, "denominator": "MILLION"}});
    let route = route(&accepted(&[("ROUTE.tracing", own)]));
    let sampling = &route.tracing.as_ref().expect("tracing").sampling;
    assert_eq!((sampling.random, sampling.client), ((3, 1_000_000), (100, 100)));
    refused("HCM.tracing.random_sampling", json!({"value": 100.5}), "out of range");
    refused("HCM.tracing.random_sampling", json!({"value": -1}), "out of range");
}

#[test]
fn the_reason_in_the_request_id_can_be_turned_off() {
    let id = json!({"typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
        "pack_trace_reason": false, "use_request_id_for_trace_sampling": false}});
    let changes = [("HCM.request_id_extension", id), ("HCM.tracing", json!({}))];
    let tracing = tracing(&accepted(&changes));
    assert!(!tracing.pack_trace_reason && !tracing.use_request_id);
}

#[test]
fn spans_go_out_over_grpc_or_http() {
    let fields = json!({"grpc_service": grpc(), "service_name": "a", "max_cache_size": 7});
    let provider = tracing(&accepted(&[with_provider(fields)])).provider.clone();
    let provider = provider.expect("a provider");
    let Some(Exporter::Grpc(service)) = &provider.exporter else { panic!("gRPC") };
    assert_eq!((&*service.cluster, service.timeout), ("static", Some(Duration::from_millis(250))));
    assert_eq!(service.initial_metadata, [("x-a".into(), "b".into())]);
    assert_eq!(provider.max_cache_size, 7);
    assert!(provider.resource.contains(&("service.name".into(), "a".into())));

    let fields = json!({"http_service": {
        "http_uri": {"uri": "http://otel.test:4318/v1/traces", "cluster": "static", "timeout": "1s"},
        "request_headers_to_add": [{"header": {"key": "authorization", "value": "x"}}]}});
    let provider = tracing(&accepted(&[with_provider(fields)])).provider.clone();
    let Some(Exporter::Http(service)) = &provider.expect("a provider").exporter else {
        panic!("HTTP")
    };
    assert_eq!(
        (service.authority.as_bytes(), service.path.as_str()),
        (&b"otel.test:4318"[..], "/v1/traces")
    );
    assert_eq!(service.headers.len(), 1);
}

#[test]
fn a_service_without_a_name_is_an_unknown_one() {
    let provider = tracing(&accepted(&[with_provider(json!({}))])).provider.clone();
    let provider = provider.expect("a provider");
    let name = ("service.name".into(), "unknown_service:envoy".into());
    assert!(provider.resource.contains(&name));
}

#[test]
fn what_a_resource_says_can_be_added_to_and_left_out() {
    let fields = json!({
        "resource_detectors": [detector("StaticConfigResourceDetectorConfig",
            &json!({"attributes": {"service.name": "b", "k": "v"}}))],
        "service_name": "a", "set_telemetry_sdk_resource_attributes": false,
        "set_instrumentation_scope": false});
    let provider = tracing(&accepted(&[with_provider(fields)])).provider.clone();
    let provider = provider.expect("a provider");
    let expected = [("service.name", "b"), ("k", "v")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(provider.resource, expected);
    assert!(!provider.instrumentation_scope);
    let fields = json!({"set_telemetry_sdk_resource_attributes": false,
        "set_service_name_resource_attribute": false});
    let provider = tracing(&accepted(&[with_provider(fields)])).provider.clone();
    assert!(provider.expect("a provider").resource.is_empty());
}

#[test]
fn samplers_stand_in_each_other() {
    let share = json!({"sampling_percentage": {"numerator": 3, "denominator": "TEN_THOUSAND"}});
    let ratio = sampler("TraceIdRatioBasedSamplerConfig", &share);
    let bootstrap = accepted(&[with_provider(json!({"sampler": ratio}))]);
    let provider = tracing(&bootstrap).provider.clone().expect("a provider");
    assert_eq!(provider.sampler, Some(Sampler::TraceIdRatio(3, 10_000)));
    let inner = sampler("AlwaysOnSamplerConfig", &json!({}));
    let outer = sampler("ParentBasedSamplerConfig", &json!({"wrapped_sampler": inner}));
    let provider = tracing(&accepted(&[with_provider(json!({"sampler": outer}))])).provider.clone();
    let expected = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    assert_eq!(provider.expect("a provider").sampler, Some(expected));
}

#[test]
fn tags_decorators_and_operations_arrive() {
    let tags = json!([{"tag": "a", "literal": {"value": "x"}},
        {"tag": "b", "environment": {"name": "OUTRIGGER_NO_SUCH_VARIABLE", "default_value": "y"}},
        {"tag": "c", "environment": {"name": "OUTRIGGER_NO_SUCH_VARIABLE"}},
        {"tag": "d", "request_header": {"name": "X-D"}},
        {"tag": "e", "value": "%PROTOCOL%"},
        {"tag": "f", "metadata": {"kind": {"route": {}},
            "metadata_key": {"key": "k", "path": [{"key": "p"}]}, "default_value": "z"}}]);
    let changes = [
        ("HCM.tracing", json!({"custom_tags": tags.clone(), "operation": "%REQ(:METHOD)%"})),
        ("ROUTE.tracing", json!({"custom_tags": tags, "upstream_operation": "x"})),
        ("ROUTE.decorator", json!({"operation": "op", "propagate": false})),
    ];
    let bootstrap = accepted(&changes);
    let (tracing, route) = (tracing(&bootstrap), route(&bootstrap));
    let values: Vec<&TagValue> = tracing.custom_tags.iter().map(|tag| &tag.value).collect();
    let fixed = |value: &TagValue, wanted: Option<&str>| matches!(value, TagValue::Fixed(value) if value.as_deref() == wanted);
    assert!(fixed(values[0], Some("x")) && fixed(values[1], Some("y")) && fixed(values[2], None));
    assert!(matches!(values[3], TagValue::RequestHeader(name, None) if name == "x-d"));
    assert!(matches!(values[4], TagValue::Format(_)));
    let TagValue::Metadata(TagMetadata::Route(namespace, path), Some(default)) = values[5] else {
        panic!("metadata of the route")
    };
    assert_eq!((&**namespace, &*path[0], &**default), ("k", "p", "z"));
    assert!(tracing.operation.is_some() && tracing.upstream_operation.is_none());
    let own = route.tracing.as_ref().expect("tracing");
    assert!(own.custom_tags.len() == 6 && own.upstream_operation.is_some());
    let decorator = route.decorator.as_ref().expect("a decorator");
    assert_eq!((decorator.operation.as_bytes(), decorator.propagate), (&b"op"[..], false));
}

#[test]
fn other_providers_samplers_and_detectors_are_refused_by_name() {
    let zipkin = json!({"name": "z", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster": "static", "collector_endpoint": "/"}});
    refused_at(&[("HCM.tracing", json!({"provider": zipkin}))], PROVIDER, "ZipkinConfig is not");
    refused_at(&[("HCM.tracing", json!({"provider": {"name": "z"}}))], PROVIDER, "required");
    let other = detector("EnvironmentResourceDetectorConfig", &json!({}));
    refused_at(
        &[with_provider(json!({"sampler": other}))],
        &format!("{PROVIDER}.sampler.typed_config"),
        "EnvironmentResourceDetectorConfig is not",
    );
    let dynatrace = detector("DynatraceResourceDetectorConfig", &json!({}));
    refused_at(
        &[with_provider(json!({"resource_detectors": [dynatrace]}))],
        &format!("{PROVIDER}.resource_detectors[0].typed_config"),
        "DynatraceResourceDetectorConfig is not",
    );
}

#[test]
fn what_is_wrong_is_refused_where_it_stands() {
    let both = json!({"grpc_service": grpc(), "http_service": {
        "http_uri": {"uri": "http://a/", "cluster": "static", "timeout": "1s"}}});
    for (fields, path, reason) in [
        (both, "http_service", "together"),
        (
            json!({"grpc_service": {"google_grpc": {"target_uri": "a"}}}),
            "grpc_service.google_grpc",
            "not supported",
        ),
        (json!({"grpc_service": {}}), "grpc_service.envoy_grpc", "required"),
        (
            json!({"grpc_service": {"envoy_grpc": {"cluster_name": "static"}, "retry_policy": {}}}),
            "grpc_service.retry_policy",
            "not supported",
        ),
        (
            json!({"http_service": {"http_uri": {"uri": "/v1", "cluster": "a", "timeout": "1s"}}}),
            "http_service.http_uri.uri",
            "not a URI with a host",
        ),
        (
            json!({"http_service": {"http_uri": {"uri": "http://a", "cluster": "a"}}}),
            "http_service.http_uri.timeout",
            "required",
        ),
        (
            json!({"sampler": sampler("ParentBasedSamplerConfig", &json!({}))}),
            "sampler.typed_config.wrapped_sampler",
            "required",
        ),
    ] {
        refused_at(&[with_provider(fields)], &format!("{PROVIDER}.{path}"), reason);
    }
    for (tag, path, reason) in [
        (json!({"tag": "a"}), "", "required"),
        (json!({"literal": {"value": "x"}}), ".tag", "must not be empty"),
        (json!({"tag": "a", "literal": {}}), ".literal.value", "must not be empty"),
        (
            json!({"tag": "a", "request_header": {"name": "a b"}}),
            ".request_header.name",
            "header name",
        ),
        (json!({"tag": "a", "value": "%NOPE%"}), ".value", "NOPE"),
        (json!({"tag": "a", "metadata": {}}), ".metadata.metadata_key", "required"),
        (
            json!({"tag": "a", "metadata": {"metadata_key": {"key": "k"}}}),
            ".metadata.metadata_key.path",
            "at least one",
        ),
    ] {
        refused_at(
            &[("HCM.tracing", json!({"custom_tags": [tag]}))],
            &format!("HCM.tracing.custom_tags[0]{path}"),
            reason,
        );
    }
    refused("HCM.tracing.operation", json!("%NOPE%"), "NOPE");
    refused("ROUTE.decorator.operation", json!(""), "must not be empty");
}
