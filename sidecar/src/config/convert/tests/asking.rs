//! Who counts as the client, as internal, and what it may ask for.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused, refused_at};
use crate::config::bootstrap::Bootstrap;
use crate::config::client_address::{ClientAddress, TrustedProxies};
use crate::config::http_connection_manager::{HttpConnectionManager, RouteSource};
use crate::config::listener::TerminalFilter;
use crate::config::route::{Forward, GrpcTimeout, RouteAction, VirtualHost};

const UNSUPPORTED: &str = "not supported by this version of Outrigger";
const DETECTION: &str = "HCM.original_ip_detection_extensions";

fn manager(bootstrap: &Bootstrap) -> &HttpConnectionManager {
    match &bootstrap.listeners[0].filter_chains[0].terminal {
        TerminalFilter::Http(manager) => manager,
        TerminalFilter::Tcp(_) => panic!("a connection manager"),
    }
}

fn host(bootstrap: &Bootstrap) -> &VirtualHost {
    match &manager(bootstrap).routes {
        RouteSource::Inline(routes) => &routes.virtual_hosts[0],
        RouteSource::Rds { .. } => panic!("inline routes"),
    }
}

fn forward(bootstrap: &Bootstrap) -> &Forward {
    match &host(bootstrap).routes[0].action {
        RouteAction::Forward(forward) => forward,
        other => panic!("forward, not {other:?}"),
    }
}

fn extension(name: &str, fields: Value) -> Value {
    let mut config = fields;
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{name}"));
    json!({"name": "x", "typed_config": config})
}

fn detection(kind: &str, fields: Value) -> Value {
    json!([extension(&format!("http.original_ip_detection.{kind}"), fields)])
}

/// The base trusts a hop and the peer, which excludes every other way.
fn detecting(extensions: Value) -> [(&'static str, Value); 3] {
    [
        ("HCM.use_remote_address", json!(false)),
        ("HCM.xff_num_trusted_hops", json!(0)),
        (DETECTION, extensions),
    ]
}

#[test]
fn nobody_is_internal_unless_configured() {
    assert!(manager(&accepted(&[])).internal_addresses.ranges.is_empty());
    let ranges = json!([{"address_prefix": "10.0.0.1", "prefix_len": 8}]);
    let bootstrap = accepted(&[("HCM.internal_address_config.cidr_ranges", ranges)]);
    let internal = &manager(&bootstrap).internal_addresses;
    assert!(internal.contains("10.255.0.1".parse().ok()));
    assert!(!internal.contains("11.0.0.1".parse().ok()));
    assert!(!internal.contains(None), "a client of a Unix domain socket");
    let bootstrap = accepted(&[("HCM.internal_address_config.unix_sockets", json!(true))]);
    assert!(manager(&bootstrap).internal_addresses.contains(None));
    refused_at(
        &[("HCM.internal_address_config.cidr_ranges", json!([{"address_prefix": "here"}]))],
        "HCM.internal_address_config.cidr_ranges[0].address_prefix",
        "not an IP address",
    );
}

#[test]
fn ways_to_find_the_client() {
    let xff = detection("xff.v3.XffConfig", json!({"xff_num_trusted_hops": 2}));
    let bootstrap = accepted(&detecting(xff));
    let expected = ClientAddress::ForwardedFor { trust: TrustedProxies::Hops(2), append: false };
    assert_eq!(*manager(&bootstrap).client_addresses, [expected]);

    let ranges = json!({
        "xff_trusted_cidrs": {"cidrs": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
        "skip_xff_append": false,
    });
    let bootstrap = accepted(&detecting(detection("xff.v3.XffConfig", ranges)));
    let trust = TrustedProxies::Ranges(["10.0.0.0/8".parse().unwrap()].into());
    let expected = ClientAddress::ForwardedFor { trust, append: true };
    assert_eq!(*manager(&bootstrap).client_addresses, [expected]);

    for (code, expected) in [("Unauthorized", 401), ("OK", 403)] {
        let header = json!({
            "header_name": "X-Client",
            "allow_extension_to_set_address_as_trusted": true,
            "reject_with_status": {"code": code},
        });
        let extensions = detection("custom_header.v3.CustomHeaderConfig", header);
        let bootstrap = accepted(&detecting(extensions));
        let expected = ClientAddress::Header {
            name: http::HeaderName::from_static("x-client"),
            trusted: true,
            reject: http::StatusCode::from_u16(expected).ok(),
        };
        assert_eq!(*manager(&bootstrap).client_addresses, [expected]);
    }
}

#[test]
fn ways_to_find_the_client_that_exclude_each_other() {
    let xff = || detection("xff.v3.XffConfig", json!({}));
    refused_at(
        &[("HCM.xff_num_trusted_hops", json!(0)), (DETECTION, xff())],
        DETECTION,
        "together with use_remote_address",
    );
    refused_at(
        &[("HCM.use_remote_address", json!(false)), (DETECTION, xff())],
        DETECTION,
        "together with xff_num_trusted_hops",
    );
    let both = json!({
        "xff_num_trusted_hops": 1,
        "xff_trusted_cidrs": {"cidrs": [{"address_prefix": "10.0.0.0"}]},
    });
    refused_at(
        &detecting(detection("xff.v3.XffConfig", both)),
        &format!("{DETECTION}[0].typed_config.xff_trusted_cidrs"),
        "together with xff_num_trusted_hops",
    );
    let other = json!([extension("transport_sockets.raw_buffer.v3.RawBuffer", json!({}))]);
    refused_at(
        &detecting(other),
        &format!("{DETECTION}[0].typed_config"),
        "not supported by this version of Outrigger, which has XffConfig, CustomHeaderConfig",
    );
}

#[test]
fn early_mutations() {
    const EARLY: &str = "HCM.early_header_mutation_extensions";
    let mutations = |mutations: Value| {
        let kind = "http.early_header_mutation.header_mutation.v3.HeaderMutation";
        json!([extension(kind, json!({"mutations": mutations}))])
    };
    let bootstrap = accepted(&[(EARLY, mutations(json!([{"remove": "x-a"}, {"remove": "x-b"}])))]);
    assert_eq!(manager(&bootstrap).early_mutations.len(), 2);
    refused_at(
        &[(EARLY, mutations(json!([])))],
        &format!("{EARLY}[0].typed_config.mutations"),
        "at least one",
    );
    refused_at(
        &[(EARLY, mutations(json!([{"remove": "x-a"}, {}])))],
        &format!("{EARLY}[0].typed_config.mutations[1]"),
        "one of remove, append, remove_on_match is required",
    );
    let other = json!([extension("transport_sockets.raw_buffer.v3.RawBuffer", json!({}))]);
    refused_at(&[(EARLY, other)], &format!("{EARLY}[0].typed_config"), UNSUPPORTED);
}

#[test]
fn the_router_may_be_strict_about_some_headers_only() {
    let bootstrap = accepted(&[
        ("ROUTER.strict_check_headers", json!(["x-envoy-max-retries"])),
        ("ROUTER.respect_expected_rq_timeout", json!(true)),
    ]);
    assert_eq!(*manager(&bootstrap).strict_headers, ["x-envoy-max-retries"]);
    assert!(manager(&bootstrap).respect_expected_timeout);
    refused_at(
        &[("ROUTER.strict_check_headers", json!(["x-other"]))],
        "ROUTER.strict_check_headers[0]",
        "is not one of",
    );
}

#[test]
fn hedging_is_a_matter_of_timeouts() {
    let bootstrap = accepted(&[
        ("ACTION.hedge_policy", json!({"hedge_on_per_try_timeout": true, "initial_requests": 1})),
        ("HOST.hedge_policy", json!({})),
        ("HOST.include_is_timeout_retry_header", json!(true)),
    ]);
    assert_eq!(forward(&bootstrap).hedge_on_per_try_timeout, Some(true));
    assert_eq!(host(&bootstrap).hedge_on_per_try_timeout, Some(false));
    assert!(host(&bootstrap).include_is_timeout_retry_header);
    assert_eq!(forward(&accepted(&[])).hedge_on_per_try_timeout, None);
    refused("ACTION.hedge_policy.initial_requests", json!(0), "at least 1");
}

#[test]
fn the_older_timeout_of_grpc_counts_without_the_newer() {
    let older = [
        ("ACTION.max_grpc_timeout", json!("2s")),
        ("ACTION.grpc_timeout_offset", json!("0.5s")),
        ("ACTION.max_stream_duration", Value::Null),
    ];
    let expected = GrpcTimeout { max: Duration::from_secs(2), offset: Duration::from_millis(500) };
    assert_eq!(forward(&accepted(&older)).grpc_timeout, Some(expected));
    let mut both = older;
    both[2].1 = json!({"max_stream_duration": "1s"});
    assert_eq!(forward(&accepted(&both)).grpc_timeout, None);
    refused("ACTION.max_grpc_timeout", json!("-1s"), "must not be negative");
}
