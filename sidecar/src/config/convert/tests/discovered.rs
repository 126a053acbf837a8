//! What is discovered by name: the layers of the runtime, the configuration of filters.

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::http_filters::FilterKind;
use crate::config::listener::TerminalFilter;
use crate::config::runtime::LayerSource;

const BUFFER: &str = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";

fn filter(more: &[(&str, Value)]) -> Value {
    let file = std::env::temp_dir();
    let mut discovery = json!({
        "config_source": {"path_config_source": {"path": file}, "resource_api_version": "V3"},
        "type_urls": [BUFFER],
    });
    for (field, value) in more {
        discovery[*field] = value.clone();
    }
    json!({"name": "limit", "config_discovery": discovery})
}

#[test]
fn a_filter_may_be_discovered_with_a_default() {
    let default = json!({"@type": BUFFER, "max_request_bytes": 5});
    let bootstrap = accepted(&[("HCM.http_filters[0]", filter(&[("default_config", default)]))]);
    let chain = &bootstrap.listeners[0].filter_chains[0];
    let TerminalFilter::Http(http) = &chain.terminal else { panic!("{chain:?}") };
    let FilterKind::Discovered(discovered) = &http.filters[0].kind else { panic!("{http:?}") };
    let default = discovered.default.as_ref().unwrap();
    assert!(matches!(default.kind, Some(FilterKind::Buffer(5))));
    assert!(discovered.takes("envoy.extensions.filters.http.buffer.v3.Buffer"));
    assert!(!discovered.takes("envoy.extensions.filters.http.cors.v3.Cors"));
}

#[test]
fn a_discovered_filter_says_which_types_it_may_be_and_they_exist() {
    let place = "HCM.http_filters[0]";
    let at = |field: &str| format!("{place}.config_discovery.{field}");
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let cors = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"});
    for (more, path, reason) in [
        (vec![("type_urls", json!([]))], "type_urls", "at least one"),
        (vec![("type_urls", json!(["a/no.such.Type"]))], "type_urls[0]", "no.such.Type"),
        (vec![("type_urls", json!([router]))], "type_urls[0]", "can be discovered"),
        (vec![("default_config", cors)], "default_config", "not one of type_urls"),
        (
            vec![("apply_default_config_without_warming", json!(true))],
            "apply_default_config_without_warming",
            "no default_config",
        ),
    ] {
        refused_at(&[(place, filter(&more))], &at(path), reason);
    }
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    refused_at(
        &[(place, filter(&[("config_source", ads)])), ("dynamic_resources", Value::Null)],
        "HCM.http_filters[limit].config_discovery.config_source",
        "needs dynamic_resources.ads_config",
    );
}

#[test]
fn every_kind_of_layer_is_accepted_and_keeps_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        json!({"path_config_source": {"path": folder.path()}, "resource_api_version": "V3"});
    let layers = json!([
        {"name": "a", "static_layer": {"x": {"y": 1}}},
        {"name": "b", "disk_layer": {"symlink_root": folder.path().join("current"),
            "subdirectory": "envoy", "append_service_cluster": true}},
        {"name": "c", "rtds_layer": {"name": "dynamic", "rtds_config": source}},
        {"name": "d", "admin_layer": {}},
    ]);
    let changes = [("layered_runtime", json!({"layers": layers})), ("node.cluster", json!("mine"))];
    let runtime = accepted(&changes).runtime;
    let LayerSource::Static(values) = &runtime[0].source else { panic!("{runtime:?}") };
    assert_eq!(values["x.y"].number, Some(1.0));
    let LayerSource::Disk { folder: read, .. } = &runtime[1].source else { panic!("{runtime:?}") };
    assert!(read.ends_with("current/envoy/mine"), "{read:?}");
    assert!(matches!(&runtime[2].source, LayerSource::Rtds { name, .. } if &**name == "dynamic"));
    assert!(matches!(&runtime[3].source, LayerSource::Admin));
    // Without any, there is one for the admin interface.
    let runtime = accepted(&[("layered_runtime", Value::Null)]).runtime;
    assert!(matches!(
        runtime[..],
        [crate::config::runtime::RuntimeLayer { source: LayerSource::Admin, .. }]
    ));
}

#[test]
fn a_layer_that_says_nothing_or_what_another_says_is_refused() {
    let layers = "layered_runtime.layers";
    let two = |second: Value| json!([{"name": "a", "admin_layer": {}}, second]);
    let at = |path: &str| format!("layered_runtime.layers[1].{path}");
    refused_at(
        &[(layers, json!([{"name": "a"}]))],
        "layered_runtime.layers[0]",
        "one of static_layer",
    );
    for (second, path, reason) in [
        (json!({"name": "a", "static_layer": {}}), "name", "already"),
        (json!({"name": "b", "admin_layer": {}}), "admin_layer", "already"),
        (json!({"static_layer": {}}), "name", "must not be empty"),
        (json!({"name": "b", "static_layer": {"k": [1]}}), "static_layer[k]", "list"),
        (json!({"name": "b", "rtds_layer": {"name": "r"}}), "rtds_layer.rtds_config", "required"),
        (
            json!({"name": "b", "disk_layer": {"symlink_root": "/no/such/folder"}}),
            "disk_layer.symlink_root",
            "no folder",
        ),
    ] {
        refused_at(&[(layers, two(second))], &at(path), reason);
    }
}
