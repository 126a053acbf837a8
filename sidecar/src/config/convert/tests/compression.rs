//! `envoy.filters.http.compressor`: what arrives, and what is refused under its own path.

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::compressor::{
    Brotli, BrotliMode, Codec, Compressor, ContentTypes, Gzip, GzipStrategy,
};
use crate::config::http_filters::{FilterKind, FilterOverride, RouteFilter};
use crate::config::listener::TerminalFilter;

const PLACE: &str = "HCM.http_filters[0].typed_config";
const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.compressor.v3";

fn library(message: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.extensions.compression.{message}").into();
    json!({"name": "lib", "typed_config": fields})
}

fn gzip(fields: Value) -> Value {
    library("gzip.compressor.v3.Gzip", fields)
}

fn filter(library: Value, mut more: Value) -> Value {
    more["@type"] = format!("{FILTER}.Compressor").into();
    more["compressor_library"] = library;
    json!({"name": "compressor", "typed_config": more})
}

fn converted(filter: Value) -> Compressor {
    let bootstrap = accepted(&[("HCM.http_filters[0]", filter)]);
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("a connection manager");
    };
    let FilterKind::Compressor(config) = &manager.filters[0].kind else { panic!("another filter") };
    config.as_ref().clone()
}

#[test]
fn what_is_not_set_is_as_in_envoy() {
    let config = converted(filter(gzip(json!({})), json!({})));
    assert_eq!(&*config.library, "lib.gzip");
    let Codec::Gzip(settings) = config.codec else { panic!("gzip") };
    let strategy = GzipStrategy::Default;
    assert_eq!(settings, Gzip { level: 6, memory: 5, strategy, window_bits: 12 });
    assert!(config.request.is_none() && config.response.legacy_statistics);
    assert_eq!(config.response.common.min_length, 30);
    assert!(config.response.common.enabled.current());
    let ContentTypes::Named(types) = &config.response.common.types else { panic!("names") };
    assert_eq!(types.len(), 20);
    let config = converted(filter(
        library("brotli.compressor.v3.Brotli", json!({})),
        json!({"response_direction_config": {}, "content_length": 100}),
    ));
    assert_eq!(&*config.library, "lib.brotli");
    let Codec::Brotli(settings) = config.codec else { panic!("brotli") };
    let mode = BrotliMode::Generic;
    let expected =
        Brotli { quality: 3, mode, window_bits: 18, block_bits: 24, no_literal_context: false };
    assert_eq!(settings, expected);
    assert!(!config.response.legacy_statistics);
    assert_eq!(config.response.common.min_length, 30, "the old field does not count beside it");
}

#[test]
fn zstandard_takes_no_level_above_its_highest() {
    let level = |level: u32| {
        let fields = json!({"compression_level": level});
        let config = converted(filter(library("zstd.compressor.v3.Zstd", fields), json!({})));
        let Codec::Zstd(settings) = config.codec else { panic!("zstd") };
        settings.level
    };
    assert_eq!([level(0), level(7), level(22), level(1000)], [3, 7, 22, 22]);
}

#[test]
fn what_envoy_refuses_is_refused_under_its_path() {
    let refused = |library: Value, more: Value, path: &str, reason: &str| {
        let path = format!("{PLACE}.{path}");
        refused_at(&[("HCM.http_filters[0]", filter(library, more))], &path, reason);
    };
    let of_library = "compressor_library.typed_config";
    for (fields, field, reason) in [
        (json!({"window_bits": 8}), "window_bits", "9 to 15"),
        (json!({"memory_level": 10}), "memory_level", "1 to 9"),
        (json!({"chunk_size": 100}), "chunk_size", "4096 to 65536"),
    ] {
        refused(gzip(fields), json!({}), &format!("{of_library}.{field}"), reason);
    }
    for (fields, field, reason) in [
        (json!({"quality": 12}), "quality", "0 to 11"),
        (json!({"window_bits": 9}), "window_bits", "10 to 24"),
        (json!({"input_block_bits": 15}), "input_block_bits", "16 to 24"),
    ] {
        let library = library("brotli.compressor.v3.Brotli", fields);
        refused(library, json!({}), &format!("{of_library}.{field}"), reason);
    }
    refused(Value::Null, json!({}), "compressor_library", "required");
    let raw = json!({"name": "lib", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    }});
    refused(raw, json!({}), of_library, "is not supported");
    let codes = |codes: Value| json!({"response_direction_config": {"uncompressible_response_codes": codes}});
    let field = "response_direction_config.uncompressible_response_codes";
    refused(gzip(json!({})), codes(json!([206, 199])), &format!("{field}[1]"), "200 to 599");
    refused(gzip(json!({})), codes(json!([206, 206])), &format!("{field}[1]"), "already");
}

#[test]
fn a_route_may_turn_it_on_and_off_and_choose_another_library() {
    let place = "ROUTE.typed_per_filter_config";
    let per_route = |mut fields: Value| {
        fields["@type"] = format!("{FILTER}.CompressorPerRoute").into();
        json!({ "f": fields })
    };
    let said = |fields: Value| {
        let bootstrap = accepted(&[(place, per_route(fields))]);
        let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal
        else {
            panic!("a connection manager");
        };
        let crate::config::http_connection_manager::RouteSource::Inline(routes) = &manager.routes
        else {
            panic!("inline routes");
        };
        match routes.virtual_hosts[0].routes[0].filters.of("f") {
            Some(FilterOverride::Configured(RouteFilter::Compressor(said))) => said.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(said(json!({"disabled": true})).enabled, Some(false));
    let on = said(json!({"overrides": {"response_direction_config": {}}}));
    assert!(on.enabled == Some(true) && on.remove_accept_encoding.is_none() && on.codec.is_none());
    let zstd = library("zstd.compressor.v3.Zstd", json!({}));
    let other = said(json!({"overrides": {"compressor_library": zstd}}));
    assert_eq!(other.enabled, None);
    assert_eq!(other.codec.map(|codec| codec.encoding()), Some("zstd"));
    let refused = |fields: Value, path: &str, reason: &str| {
        refused_at(&[(place, per_route(fields))], &format!("{place}[f]{path}"), reason);
    };
    refused(json!({"disabled": false}), ".disabled", "must be true");
    refused(json!({}), "", "one of disabled, overrides");
}
