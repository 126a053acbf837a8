//! What is discovered by name: the layers of the runtime, the configuration of filters.

use serde_json::{Value, json};

use std::time::Duration;

use super::harness::{IDENTITY, accepted, changed, convert, refused_at};
use crate::config::bootstrap::{Bootstrap, DiscoveryService, RequestRate};
use crate::config::cluster::Discovery;
use crate::config::config_source::Origin;
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

/// A bootstrap whose clusters come from this source.
fn from_service(service: Value) -> Result<Bootstrap, Vec<crate::config::Rejected>> {
    let mut source = json!({"api_type": "DELTA_GRPC", "transport_api_version": "V3"});
    for (field, value) in service.as_object().unwrap() {
        source[field] = value.clone();
    }
    convert(changed(&[("dynamic_resources", json!({"cds_config": {"api_config_source": source}}))]))
}

fn service_of(bootstrap: &Bootstrap) -> &DiscoveryService {
    match &bootstrap.cds.as_ref().expect("discovered").origin {
        Origin::Service(service) => service,
        other => panic!("{other:?}"),
    }
}

const SOURCE: &str = "dynamic_resources.cds_config.api_config_source";

#[test]
fn requests_are_limited_as_soon_as_the_settings_are_there() {
    let limited = |settings: Value| {
        let mut service = json!({"grpc_services": [{"envoy_grpc": {"cluster_name": "dns"}}]});
        if !settings.is_null() {
            service["rate_limit_settings"] = settings;
        }
        from_service(service).map(|bootstrap| service_of(&bootstrap).rate_limit)
    };
    let rate = |burst, interval| Some(RequestRate { burst, interval });
    assert_eq!(limited(json!(null)).unwrap(), None);
    assert_eq!(limited(json!({})).unwrap(), rate(100, Duration::from_millis(100)));
    let own = limited(json!({"max_tokens": 3, "fill_rate": 0.5})).unwrap();
    assert_eq!(own, rate(3, Duration::from_secs(2)));
    let slow = limited(json!({"fill_rate": 1e-30})).unwrap();
    assert_eq!(slow, rate(100, Duration::from_secs(365 * 24 * 60 * 60)), "once a year at least");
    for (field, value) in
        [("max_tokens", json!(0)), ("fill_rate", json!(0)), ("fill_rate", json!("NaN"))]
    {
        let found = limited(json!({field: value})).expect_err(field);
        assert_eq!(found[0].path, format!("{SOURCE}.rate_limit_settings.{field}"));
    }
}

#[test]
fn a_transport_is_of_version_3_unless_it_says_otherwise_and_resources_always_are() {
    let of = |transport: &str, resource: &str| {
        let servers = json!([{"envoy_grpc": {"cluster_name": "dns"}}]);
        let source = json!({"resource_api_version": resource, "api_config_source": {
            "api_type": "GRPC", "transport_api_version": transport, "grpc_services": servers,
        }});
        convert(changed(&[("dynamic_resources", json!({"cds_config": source}))]))
    };
    for (transport, resource) in [("V3", "V3"), ("AUTO", "AUTO"), ("V3", "V2")] {
        of(transport, resource).expect(transport);
    }
    let found = of("V2", "V3").expect_err("V2");
    assert_eq!(found[0].path, format!("{SOURCE}.transport_api_version"));
}

#[test]
fn a_server_may_be_named_by_its_address() {
    let google = |fields: Value| {
        let mut google = json!({"target_uri": "xds.example:18000", "stat_prefix": "x"});
        for (field, value) in fields.as_object().unwrap() {
            google[field] = value.clone();
        }
        from_service(json!({"grpc_services": [{"google_grpc": google}]}))
    };
    let address = |uri: &str| {
        let bootstrap = google(json!({"target_uri": uri})).expect(uri);
        let service = service_of(&bootstrap);
        let channel = service.channel.as_ref().expect("a channel");
        let cluster = channel.cluster().unwrap();
        assert!(cluster.transport.is_none(), "in the clear");
        let assignment = match &cluster.discovery {
            Discovery::Static(assignment) => assignment,
            Discovery::Dns(dns) => &dns.assignment,
            other => panic!("{other:?}"),
        };
        let endpoint = format!("{:?}", assignment.localities[0].endpoints[0].address);
        (service.authority.clone().unwrap_or_default().to_string(), endpoint)
    };
    for (uri, authority, endpoint) in [
        ("xds.example:18000", "xds.example:18000", "Name { host: \"xds.example\", port: 18000 }"),
        ("dns:///xds.example", "xds.example:443", "Name { host: \"xds.example\", port: 443 }"),
        ("127.0.0.1:1", "127.0.0.1:1", "Ip(127.0.0.1:1)"),
        ("ipv4:127.0.0.1:2", "127.0.0.1:2", "Ip(127.0.0.1:2)"),
        ("ipv6:[::1]:3", "[::1]:3", "Ip([::1]:3)"),
        ("unix:///run/xds", "localhost", "Pipe(\"/run/xds\")"),
    ] {
        assert_eq!(address(uri), (authority.to_owned(), endpoint.to_owned()), "{uri}");
    }

    let roots = json!({"inline_string": IDENTITY.0});
    let secured = json!({"ssl_credentials": {"root_certs": roots}});
    let bootstrap = google(json!({
        "channel_credentials": secured, "call_credentials": [{"access_token": "secret"}],
    }))
    .expect("with TLS");
    let service = service_of(&bootstrap);
    let cluster = service.channel.as_ref().expect("a channel").cluster().unwrap();
    assert!(cluster.transport.is_some());
    assert_eq!(service.initial_metadata, [("authorization".into(), "Bearer secret".into())]);

    let base = format!("{SOURCE}.grpc_services[0].google_grpc");
    for (fields, at) in [
        (json!({"target_uri": ""}), "target_uri"),
        (json!({"target_uri": "xds:///a"}), "target_uri"),
        (json!({"target_uri": "a:b"}), "target_uri"),
        (json!({"target_uri": "ipv4:127.0.0.1:1,127.0.0.1:2"}), "target_uri"),
        (json!({"stat_prefix": ""}), "stat_prefix"),
        (json!({"credentials_factory_name": "f"}), "credentials_factory_name"),
        (
            json!({"channel_credentials_plugin": [{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}]}),
            "channel_credentials_plugin",
        ),
        (
            json!({"call_credentials_plugin": [{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}]}),
            "call_credentials_plugin",
        ),
        (json!({"channel_args": {}}), "channel_args"),
        (json!({"config": {}}), "config"),
        (
            json!({"channel_credentials": {"google_default": {}}}),
            "channel_credentials.google_default",
        ),
        (
            json!({"channel_credentials": {"ssl_credentials": {}}}),
            "channel_credentials.ssl_credentials.root_certs",
        ),
        (
            json!({"channel_credentials": {"ssl_credentials": {"root_certs": roots, "private_key": roots}}}),
            "channel_credentials.ssl_credentials.cert_chain",
        ),
        (
            json!({"channel_credentials": {"ssl_credentials": {"root_certs": {"inline_string": "no PEM"}}}}),
            "channel_credentials",
        ),
        (json!({"call_credentials": [{"access_token": "a"}]}), "call_credentials[0].access_token"),
        (
            json!({"call_credentials": [{"google_refresh_token": "a"}]}),
            "call_credentials[0].google_refresh_token",
        ),
    ] {
        let found = google(fields).expect_err(at);
        assert!(found.iter().any(|it| it.path == format!("{base}.{at}")), "{at}: {found:?}");
    }
}

/// The filter `on_demand`, and a source of clusters.
fn on_demand(odcds: Value) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand",
    });
    if !odcds.is_null() {
        config["odcds"] = odcds;
    }
    json!({"name": "on-demand", "typed_config": config})
}

fn incremental(api_type: &str) -> Value {
    json!({"api_config_source": {
        "api_type": api_type,
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "dns"}}],
    }})
}

#[test]
fn clusters_on_demand_come_incrementally_and_are_waited_for_five_seconds() {
    let configured = |odcds: Value| {
        let bootstrap = accepted(&[("HCM.http_filters[0]", on_demand(odcds))]);
        let chain = &bootstrap.listeners[0].filter_chains[0];
        let TerminalFilter::Http(http) = &chain.terminal else { panic!("{chain:?}") };
        let FilterKind::OnDemand(clusters) = &http.filters[0].kind else { panic!("{http:?}") };
        clusters.clone()
    };
    assert_eq!(configured(Value::Null), None, "virtual hosts only");
    let clusters = configured(json!({"source": incremental("DELTA_GRPC")})).unwrap();
    assert_eq!(clusters.timeout, Duration::from_secs(5));
    let clusters =
        configured(json!({"source": incremental("DELTA_GRPC"), "timeout": "0.25s"})).unwrap();
    assert_eq!(clusters.timeout, Duration::from_millis(250));

    let place = "HCM.http_filters[0]";
    let file = json!({"path_config_source": {"path": std::env::temp_dir()}});
    for (odcds, at, reason) in [
        (json!({}), "source", "required"),
        (
            json!({"source": incremental("GRPC")}),
            "source.api_config_source",
            "api_type must be DELTA_GRPC",
        ),
        (json!({"source": file}), "source", "DELTA_GRPC"),
        (
            json!({"source": incremental("DELTA_GRPC"), "timeout": "-1s"}),
            "timeout",
            "must not be negative",
        ),
        (
            json!({"source": incremental("DELTA_GRPC"), "resources_locator": "xdstp://a"}),
            "resources_locator",
            "not supported",
        ),
    ] {
        let path = format!("{place}.typed_config.odcds.{at}");
        refused_at(&[(place, on_demand(odcds))], &path, reason);
    }
}

#[test]
fn virtual_hosts_are_discovered_where_their_routes_are_and_incrementally() {
    use crate::config::route::from_proto;
    use outrigger_proto::json::Schema;

    let schema = Schema::load().unwrap();
    let routes = |source: Value| {
        let text = json!({"name": "r", "vhds": {"config_source": source}}).to_string();
        from_proto(schema.read(&text, true).unwrap())
    };
    for source in [json!({"ads": {}}), incremental("DELTA_GRPC")] {
        assert!(routes(source).expect("accepted").vhds.is_some());
    }
    let rejected = routes(incremental("GRPC")).expect_err("a state of the world");
    assert_eq!(rejected[0].path, "vhds.config_source.api_config_source");
}
