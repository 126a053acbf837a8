//! What other control planes send that means something else here, or nothing.

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};

fn extension(name: &str, fields: Value) -> Value {
    let mut config = fields;
    config["@type"] = json!(format!("type.googleapis.com/envoy.{name}"));
    json!({"name": "x", "typed_config": config})
}

#[test]
fn extensions_that_are_left_out_are_those_of_the_list() {
    let internal =
        extension("extensions.bootstrap.internal_listener.v3.InternalListener", json!({}));
    let engine = extension("extensions.regex_engines.v3.GoogleRE2", json!({}));
    let exchange = json!({"name": "istio.metadata_exchange", "typed_config": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
        "value": {"protocol": "istio-peer-exchange"},
    }});
    accepted(&[
        ("bootstrap_extensions", json!([internal])),
        ("default_regex_engine", engine),
        ("application_log_config", json!({"log_format": {"text_format": "%v"}})),
        ("CLUSTER.filters", json!([exchange])),
    ]);
    let other = extension("extensions.transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
    for (field, value, path) in [
        ("bootstrap_extensions", json!([other]), "bootstrap_extensions[0].typed_config"),
        ("default_regex_engine", other.clone(), "default_regex_engine.typed_config"),
        ("CLUSTER.filters", json!([other]), "CLUSTER.filters[0].typed_config"),
    ] {
        refused_at(&[(field, value)], path, "RawBuffer");
    }
}

#[test]
fn nobody_is_offered_the_protocol_by_which_labels_are_exchanged() {
    let field = "UPSTREAM.common_tls_context.alpn_protocols";
    let bootstrap = accepted(&[(field, json!(["istio-peer-exchange,istio", "h2"]))]);
    let tls = bootstrap.clusters[0].transport_socket_matches[0].transport.clone().unwrap();
    assert_eq!(
        tls.common.alpn,
        [b"istio".as_slice().into(), b"h2".as_slice().into()] as [Box<[u8]>; 2]
    );
}

#[test]
fn the_limit_of_requests_counts_at_its_old_place_too() {
    let options = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }});
    let bootstrap = accepted(&[
        ("CLUSTER.typed_extension_protocol_options", options),
        ("CLUSTER.max_requests_per_connection", json!(3)),
    ]);
    assert_eq!(bootstrap.clusters[0].max_requests_per_connection, Some(3));
}
