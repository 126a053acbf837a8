//! What is supported arrives with its meaning, and what is not set with Envoy's default.

use std::path::Path;
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup};
use serde_json::{Value, json};

use super::harness::{IDENTITY, accepted, base, changed, convert, refused_at, set};
use crate::config::access_log::{LineFormat, Output, Sink};
use crate::config::bootstrap::{Bootstrap, Variant};
use crate::config::cluster::{Discovery, DnsFamily, DnsPace, UpstreamProtocol};
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::endpoint::{EndpointAddress, HealthStatus};
use crate::config::header::{AppendAction, HeaderTemplate};
use crate::config::http_connection_manager::{HttpConnectionManager, RouteSource, StripPort};
use crate::config::http_filters::{FilterOverride, RouteFilter};
use crate::config::listener::{ServerNamePattern, TerminalFilter, TransportProtocol};
use crate::config::load_balancer::LoadBalancer;
use crate::config::route::{
    ClusterSpecifier, ConnectConfig, Domain, Forward, HostRewrite, PathRewrite, PathSpecifier,
    RetryOn, RouteAction, RouteConfiguration,
};
use crate::config::runtime::RuntimeNumber;
use crate::config::tls::Validation;

fn manager(bootstrap: &Bootstrap) -> &HttpConnectionManager {
    match &bootstrap.listeners[0].filter_chains[0].terminal {
        TerminalFilter::Http(manager) => manager,
        TerminalFilter::Tcp(_) => panic!("a connection manager"),
    }
}

fn routes(bootstrap: &Bootstrap) -> &RouteConfiguration {
    match &manager(bootstrap).routes {
        RouteSource::Inline(routes) => routes,
        RouteSource::Rds { .. } => panic!("inline routes"),
    }
}

fn forward(bootstrap: &Bootstrap, host: usize, route: usize) -> &Forward {
    match &routes(bootstrap).virtual_hosts[host].routes[route].action {
        RouteAction::Forward(forward) => forward,
        other => panic!("forward, not {other:?}"),
    }
}

#[test]
fn the_base_is_accepted_with_its_values() {
    let bootstrap = accepted(&[]);
    assert_eq!(bootstrap.node.user_agent_name, "outrigger");
    assert_eq!(bootstrap.node.id, "test");
    let listener = &bootstrap.listeners[0];
    assert_eq!(listener.address.to_string(), "127.0.0.1:10000");
    assert_eq!(listener.listener_filters_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(listener.per_connection_buffer_limit, 32_768);
    let http = manager(&bootstrap);
    assert_eq!(http.stream_idle_timeout, None, "zero turns it off");
    assert_eq!(http.delayed_close_timeout, Duration::from_nanos(1));
    assert_eq!(http.max_request_headers_bytes, 96 * 1024);
    assert_eq!(http.strip_port, StripPort::Any);
    assert!(http.http1.accept_http_10 && http.normalize_path);
    assert_eq!(http.filters.len(), 1);
    assert!(http.suppress_envoy_headers);
    assert!(matches!(http.access_logs[0].output, Output::Lines { sink: Sink::Stdout, .. }));
    assert!(matches!(
        http.access_logs[1].output,
        Output::Lines { format: LineFormat::Json(_), .. }
    ));
}

#[test]
fn routes_arrive_with_their_matches_and_actions() {
    let bootstrap = accepted(&[]);
    let routes = routes(&bootstrap);
    assert!(routes.validate_clusters, "the default of routes that stand in a listener");
    let domains: Vec<String> =
        routes.virtual_hosts[0].domains.iter().map(ToString::to_string).collect();
    assert_eq!(domains, ["api.test", "*.api.test", "api.*"]);
    assert_eq!(routes.virtual_hosts[0].domains[1], Domain::Suffix(".api.test".into()));
    let addition = &routes.request_headers.add[0];
    assert_eq!(addition.action, AppendAction::OverwriteIfExistsOrAdd);
    assert!(matches!(addition.value, HeaderTemplate::Format(_)));

    let canary = forward(&bootstrap, 0, 0);
    assert_eq!(canary.timeout, Some(Duration::from_millis(2500)));
    let ClusterSpecifier::Weighted(clusters) = &canary.cluster else { panic!("weighted") };
    assert_eq!(clusters.iter().map(|cluster| cluster.weight).collect::<Vec<_>>(), [90, 10]);
    assert!(
        matches!(&canary.path_rewrite, Some(PathRewrite::Prefix(prefix)) if **prefix == *"/v2/")
    );
    let retry = canary.retry_policy.as_ref().expect("a retry policy");
    let expected =
        RetryOn::FIVE_XX.union(RetryOn::RETRIABLE_STATUS_CODES).union(RetryOn::GRPC_UNAVAILABLE);
    assert_eq!(retry.on, expected, "a condition of a later version does not count");
    assert!(retry.avoid_previous_hosts);
    assert_eq!((retry.num_retries, retry.host_selection_retry_max_attempts), (3, 5));

    let canary = &routes.virtual_hosts[0].routes[0];
    let rbac = canary.filters.of("rbac").expect("something is said about it");
    let nothing = FilterOverride::Configured(RouteFilter::Rbac(None));
    assert_eq!(format!("{rbac:?}"), format!("{nothing:?}"), "it enforces nothing here");
    assert!(matches!(&canary.matches.path, PathSpecifier::Prefix(prefix) if **prefix == *"/"));
    assert_eq!(canary.matches.runtime_fraction, Some((50, 100).into()));

    let users = &routes.virtual_hosts[0].routes[3];
    let PathSpecifier::Regex(regex) = &users.matches.path else { panic!("a regex") };
    assert!(regex.is_match(b"/users/12"));
    assert!(!regex.is_match(b"/users/12/x") && !regex.is_match(b"/a/users/12"), "all of the path");
    let users = forward(&bootstrap, 0, 3);
    assert!(matches!(users.host_rewrite, Some(HostRewrite::Auto)));
    assert_eq!(users.cluster_not_found_status, 404);
    let Some(PathRewrite::Regex { pattern, .. }) = &users.path_rewrite else { panic!("a regex") };
    assert!(pattern.is_match(b"/users/12/x"), "a rewrite looks for a part of the path");
}

#[test]
fn a_connect_has_a_route_of_its_own_and_an_end() {
    let connect = json!([
        {"upgrade_type": "CONNECT", "connect_config": {"allow_post": true}},
        {"upgrade_type": "websocket", "enabled": false},
    ]);
    let bootstrap = accepted(&[
        ("ACTION.upgrade_configs", connect),
        ("HOST.routes[1].match", json!({"connect_matcher": {}})),
    ]);
    let expected = [("connect".into(), true), ("websocket".into(), false)];
    assert_eq!(forward(&bootstrap, 0, 0).upgrades, expected);
    assert_eq!(forward(&bootstrap, 0, 0).connect, Some(ConnectConfig { allow_post: true }));
    assert_eq!(forward(&bootstrap, 0, 3).connect, None);
    let second = &routes(&bootstrap).virtual_hosts[0].routes[1];
    assert!(matches!(second.matches.path, PathSpecifier::Connect));
}

#[test]
fn a_regex_is_byte_wise_so_that_no_value_escapes_it() {
    let bootstrap = accepted(&[("HOST.routes[3].match.safe_regex.regex", json!("/a.*"))]);
    let PathSpecifier::Regex(regex) = &routes(&bootstrap).virtual_hosts[0].routes[3].matches.path
    else {
        panic!("a regex")
    };
    assert!(regex.is_match(b"/a\xff\xfe"));
    // Only ASCII digits are digits, as in RE2.
    let bootstrap = accepted(&[("HOST.routes[3].match.safe_regex.regex", json!("\\d"))]);
    let PathSpecifier::Regex(regex) = &routes(&bootstrap).virtual_hosts[0].routes[3].matches.path
    else {
        panic!("a regex")
    };
    assert!(!regex.is_match("٣".as_bytes()));
    accepted(&[("HOST.routes[3].match.safe_regex.regex", json!("\\p{Greek}+[é]"))]);
}

#[test]
fn what_is_not_set_has_envoys_default() {
    let bootstrap = convert(json!({"static_resources": {
        "clusters": [{"name": "c", "load_assignment": {"cluster_name": "c"}}],
        "listeners": [{
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "a",
                "http_filters": [{"name": "r", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": "c", "retry_policy": {}}}]}]},
            }}]}],
        }],
    }}))
    .expect("accepted");
    assert!(bootstrap.admin.is_none() && bootstrap.ads.is_none());
    let listener = &bootstrap.listeners[0];
    assert_eq!(&*listener.name, "0.0.0.0:0", "a name that is the same each time");
    assert_eq!(listener.listener_filters_timeout, Some(Duration::from_secs(15)));
    assert_eq!(listener.per_connection_buffer_limit, 1 << 20);
    assert!(listener.filters.is_empty() && listener.bind_to_port && !listener.use_original_dst);
    let http = manager(&bootstrap);
    assert_eq!(http.server_name, "envoy");
    assert_eq!(http.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!(http.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(http.delayed_close_timeout, Duration::from_secs(1));
    assert_eq!(http.drain_timeout, Duration::from_secs(5));
    assert_eq!((http.max_headers_count, http.max_request_headers_bytes), (100, 60 * 1024));
    assert!(http.generate_request_id && !http.normalize_path);
    assert_eq!((http.request_timeout, http.max_stream_duration), (None, None));
    let route = forward(&bootstrap, 0, 0);
    assert_eq!(route.timeout, Some(Duration::from_secs(15)));
    assert_eq!(route.cluster_not_found_status, 503);
    let retry = route.retry_policy.as_ref().expect("a policy");
    assert_eq!(retry.on, RetryOn::default());
    assert_eq!((retry.num_retries, retry.base_interval.as_millis()), (1, 25));
    assert_eq!(retry.max_interval.as_millis(), 250);
    let cluster = &bootstrap.clusters[0];
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert!(matches!(cluster.load_balancer, LoadBalancer::RoundRobin));
    assert_eq!(cluster.protocol, UpstreamProtocol::Http1);
    assert_eq!(cluster.healthy_panic_threshold, 50);
    assert_eq!(cluster.circuit_breakers[0].max_requests, 1024);
    assert_eq!(cluster.circuit_breakers[1].max_retries, 3);
}

#[test]
fn clusters_arrive_with_their_settings() {
    let bootstrap = accepted(&[]);
    let cluster = &bootstrap.clusters[0];
    let LoadBalancer::LeastRequest { choice_count, active_request_bias, .. } =
        &cluster.load_balancer
    else {
        panic!("least request")
    };
    assert_eq!((*choice_count, active_request_bias), (3, &RuntimeNumber::new(0.5, "a")));
    assert_eq!(cluster.healthy_panic_threshold, 13, "rounded");
    assert_eq!(cluster.circuit_breakers[0].max_retries, 4);
    assert_eq!(cluster.circuit_breakers[1].retry_budget, Some((25.0, 5)));
    assert_eq!(
        (cluster.protocol, cluster.http2.max_concurrent_streams),
        (UpstreamProtocol::Http2, 50)
    );
    assert_eq!(cluster.max_requests_per_connection, Some(100));
    let outlier = cluster.outlier_detection.as_ref().expect("outlier detection");
    assert_eq!((outlier.consecutive_5xx, outlier.max_ejection_percent), (7, 50));
    assert_eq!(outlier.enforcing_consecutive_gateway_failure, 0);
    let rate = &outlier.success_rate;
    assert_eq!((rate.enforcing, rate.enforcing_local_origin), (0, 100));
    assert_eq!((rate.minimum_hosts, rate.request_volume, rate.stdev_factor), (5, 100, 1900));
    let share = &outlier.failure_percentage;
    assert_eq!((share.threshold, share.minimum_hosts, share.request_volume), (85, 5, 50));
    assert_eq!((share.enforcing, share.enforcing_local_origin), (0, 0));
    let Discovery::Static(assignment) = &cluster.discovery else { panic!("static") };
    let locality = &assignment.localities[0];
    assert_eq!((&*locality.locality.region, assignment.policy.overprovisioning_factor), ("r", 200));
    let endpoint = &locality.endpoints[0];
    assert_eq!((endpoint.weight, endpoint.health), (2, HealthStatus::Degraded));
    let [meshed, plain] = &*cluster.transport_socket_matches else { panic!("two") };
    assert!(meshed.matches.matches(&endpoint.metadata, "envoy.transport_socket_match"));
    assert!(
        !meshed.matches.matches(&locality.endpoints[1].metadata, "envoy.transport_socket_match")
    );
    assert!(plain.matches.matches(&locality.endpoints[1].metadata, "envoy.transport_socket_match"));
    assert!(meshed.transport.is_some() && plain.transport.is_none());

    let dns = &bootstrap.clusters[1];
    assert!(matches!(dns.load_balancer, LoadBalancer::Random), "the first that is known");
    assert_eq!((dns.protocol, dns.max_requests_per_connection), (UpstreamProtocol::Http2, Some(7)));
    let Discovery::Dns(names) = &dns.discovery else { panic!("names") };
    let assignment = &names.assignment;
    assert_eq!((names.pace.refresh_rate, names.logical), (Duration::from_secs(1), false));
    assert!(matches!(
        assignment.localities[0].endpoints[0].address,
        EndpointAddress::Name { port: 8003, .. }
    ));
}

#[test]
fn a_list_of_policies_skips_what_is_unknown() {
    let unknown = json!({"typed_extension_config": {"name": "a", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}});
    let bootstrap = accepted(&[("DNS.load_balancing_policy.policies[0]", unknown.clone())]);
    assert!(matches!(bootstrap.clusters[1].load_balancer, LoadBalancer::RoundRobin));
    let value = changed(&[("DNS.load_balancing_policy.policies", json!([unknown]))]);
    let found = convert(value).expect_err("nothing that is known");
    assert!(found[0].path.ends_with("policies[0]"), "{found:?}");
}

#[test]
fn tls_arrives_with_its_secrets() {
    let bootstrap = accepted(&[]);
    let chain = &bootstrap.listeners[1].filter_chains[0];
    assert!(bootstrap.listeners[1].filters.is_empty(), "none is added");
    assert_eq!(chain.matches.server_names[0], ServerNamePattern::Exact("a.test".into()));
    assert_eq!(chain.matches.server_names[1], ServerNamePattern::Suffix(".b.test".into()));
    assert_eq!(chain.matches.transport_protocol, Some(TransportProtocol::Tls));
    let tls = chain.tls.as_ref().expect("TLS");
    assert!(tls.require_client_certificate);
    assert_eq!(tls.common.alpn.len(), 2);
    let Validation::Combined { default, secret } = &tls.common.validation else {
        panic!("combined")
    };
    assert_eq!(
        (default.san_matchers.len(), &*secret.name, secret.source.is_some()),
        (1, "roots", false)
    );
}

#[test]
fn of_allowed_ciphers_and_curves_those_are_taken_that_are_spoken() {
    let parameters = |suites: Value, curves: Value| {
        let path = "DOWNSTREAM.common_tls_context.tls_params";
        changed(&[(path, json!({"cipher_suites": suites, "ecdh_curves": curves}))])
    };
    let bootstrap = convert(parameters(
        json!(["[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", "AES128-SHA"]),
        json!(["P-521", "P-384", "X25519"]),
    ))
    .expect("accepted");
    let common = &bootstrap.listeners[1].filter_chains[0].tls.as_ref().expect("TLS").common;
    assert_eq!(
        common.cipher_suites,
        [
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ]
    );
    assert_eq!(common.groups, [NamedGroup::secp384r1, NamedGroup::X25519]);
    let found = convert(parameters(json!(["AES128-SHA"]), json!(["P-521"]))).expect_err("none");
    let reasons: Vec<&str> = found.iter().map(|problem| problem.reason.as_str()).collect();
    assert_eq!(reasons, ["none of AES128-SHA is spoken here", "none of P-521 is spoken here"]);
}

#[test]
fn an_optional_filter_that_is_unknown_is_left_out() {
    let filter = json!({"name": "c", "is_optional": true, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}});
    let bootstrap = accepted(&[("HCM.http_filters[0]", filter)]);
    assert!(manager(&bootstrap).filters.is_empty());
}

#[test]
fn discovery_arrives_with_its_server() {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let value = changed(&[
        (
            "dynamic_resources",
            json!({
                "lds_config": ads,
                "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{
                        "envoy_grpc": {"cluster_name": "dns", "authority": "cp"},
                        "initial_metadata": [{"key": "X-Token", "value": "t"}],
                        "retry_policy": {"retry_back_off": {"base_interval": "0.1s"}},
                    }],
                },
            }),
        ),
        ("HCM.route_config", Value::Null),
        ("HCM.rds", json!({"route_config_name": "r", "config_source": ads})),
    ]);
    let bootstrap = convert(value.clone()).expect("accepted");
    let service = bootstrap.ads.expect("a service");
    assert_eq!((&*service.cluster, service.variant), ("dns", Variant::Delta));
    assert_eq!(service.initial_metadata[0], ("x-token".into(), "t".into()));
    assert_eq!(service.backoff, (Duration::from_millis(100), Duration::from_secs(1)));
    assert_eq!(
        bootstrap.lds.expect("discovered").initial_fetch_timeout,
        Some(Duration::from_secs(15))
    );
    assert_eq!(bootstrap.cds.expect("discovered").initial_fetch_timeout, None, "for ever");

    let ads = "dynamic_resources.ads_config";
    for (path, new, at) in [
        ("node.id", Value::Null, "node.id"),
        (&*format!("{ads}.api_type"), json!("REST"), &*format!("{ads}.api_type")),
        (
            &format!("{ads}.transport_api_version"),
            json!("V2"),
            &format!("{ads}.transport_api_version"),
        ),
        (&format!("{ads}.grpc_services"), json!([]), &format!("{ads}.grpc_services")),
        (
            &format!("{ads}.grpc_services[0].envoy_grpc.cluster_name"),
            json!("none"),
            &format!("{ads}.grpc_services[0].envoy_grpc.cluster_name"),
        ),
        (
            &format!("{ads}.grpc_services[0]"),
            json!({"google_grpc": {"target_uri": "", "stat_prefix": "b"}}),
            &format!("{ads}.grpc_services[0].google_grpc.target_uri"),
        ),
        (ads, Value::Null, "dynamic_resources.lds_config"),
    ] {
        let mut broken = value.clone();
        set(&mut broken, path, new);
        let found = convert(broken).expect_err(path);
        assert!(found.iter().any(|problem| problem.path == at), "{path}: {found:?}");
    }
}

#[test]
fn a_type_may_come_from_a_file_that_exists() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lds.yaml");
    std::fs::write(&path, "").unwrap();
    let source = |path: &Path| {
        json!({"dynamic_resources": {"lds_config": {"path_config_source": {
            "path": path, "watched_directory": {"path": folder.path()},
        }}}})
    };
    let bootstrap = convert(source(&path)).expect("accepted");
    let Some(ConfigSource { origin: Origin::File(file), .. }) = bootstrap.lds else {
        panic!("not a file");
    };
    assert_eq!(file.path, path);
    assert_eq!(file.watched_directory.as_ref().expect("watched").path, folder.path());
    let old = json!({"dynamic_resources": {"cds_config": {"path": path}}});
    assert!(convert(old).expect("accepted").cds.is_some(), "the deprecated field");
    let found = convert(source(Path::new("/nowhere"))).expect_err("no such file");
    assert_eq!(found[0].path, "dynamic_resources.lds_config.path_config_source.path");
}

#[test]
fn a_type_may_come_from_a_service_of_its_own() {
    let source = |cluster: &str| {
        json!({
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": cluster}}],
            },
        })
    };
    let value = changed(&[
        ("dynamic_resources", json!({"cds_config": source("dns")})),
        ("HCM.route_config", Value::Null),
        ("HCM.rds", json!({"route_config_name": "r", "config_source": source("dns")})),
    ]);
    let bootstrap = convert(value.clone()).expect("accepted, without ADS");
    let Some(ConfigSource { origin: Origin::Service(service), .. }) = bootstrap.cds else {
        panic!("not a service");
    };
    assert_eq!((&*service.cluster, service.variant), ("dns", Variant::StateOfTheWorld));
    let service = "api_config_source.grpc_services[0].envoy_grpc.cluster_name";
    let cds = format!("dynamic_resources.cds_config.{service}");
    let mut broken = value.clone();
    set(&mut broken, &cds, json!("none"));
    let found = convert(broken).expect_err("no such cluster");
    assert!(found.iter().any(|problem| problem.path == cds), "{found:?}");
}

#[test]
fn a_static_cluster_may_be_empty() {
    let bootstrap = accepted(&[("CLUSTER.load_assignment", Value::Null)]);
    let Discovery::Static(assignment) = &bootstrap.clusters[0].discovery else { panic!("static") };
    assert!(assignment.localities.is_empty());
}

#[test]
fn a_fingerprint_tells_what_changed() {
    let before = accepted(&[]);
    let same = accepted(&[("CLUSTER.track_timeout_budgets", json!(true))]);
    let other = accepted(&[("CLUSTER.connect_timeout", json!("1s"))]);
    assert_eq!(before.clusters[0].fingerprint, same.clusters[0].fingerprint, "nothing reads it");
    assert_ne!(before.clusters[0].fingerprint, other.clusters[0].fingerprint);
    assert_eq!(before.clusters[1].fingerprint, other.clusters[1].fingerprint);
    let route = accepted(&[("ACTION.timeout", json!("9s"))]);
    let chain = |bootstrap: &Bootstrap, index: usize| {
        bootstrap.listeners[index].filter_chains[0].fingerprint
    };
    assert_ne!(chain(&before, 0), chain(&route, 0));
    assert_eq!(chain(&before, 1), chain(&route, 1));
}

#[test]
fn a_fingerprint_covers_certificates_in_place() {
    let in_place = |(certificate, key): &(String, String)| {
        let certificate = json!([{
            "certificate_chain": {"inline_string": certificate},
            "private_key": {"inline_string": key},
        }]);
        let context = "DOWNSTREAM.common_tls_context";
        let bootstrap = accepted(&[
            (&format!("{context}.tls_certificate_sds_secret_configs"), Value::Null),
            (&format!("{context}.tls_certificates"), certificate),
        ]);
        bootstrap.listeners[1].filter_chains[0].fingerprint
    };
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["b.test".to_owned()]).expect("parameters");
    let other = (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem());
    assert_eq!(in_place(&IDENTITY), in_place(&IDENTITY));
    assert_ne!(in_place(&IDENTITY), in_place(&other));
}

#[test]
fn priorities_have_no_gaps_and_the_first_of_equal_addresses_counts() {
    let mut locality =
        base()["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0].clone();
    locality["priority"] = json!(2);
    locality["lb_endpoints"][1]["endpoint"]["address"]["socket_address"]["port_value"] =
        json!(8009);
    let bootstrap = accepted(&[("CLUSTER.load_assignment.endpoints[1]", locality)]);
    let Discovery::Static(assignment) = &bootstrap.clusters[0].discovery else { panic!("static") };
    let mut priorities: Vec<_> = assignment
        .localities
        .iter()
        .map(|locality| (locality.priority, locality.endpoints.len()))
        .collect();
    priorities.sort_unstable();
    assert_eq!(priorities, [(0, 2), (1, 0), (2, 1)]);
}

#[test]
fn names_are_resolved_by_the_type_of_the_cluster_or_by_the_extension() {
    let dns = |changes: &[(&str, Value)]| {
        let bootstrap = accepted(changes);
        let Discovery::Dns(dns) = &bootstrap.clusters[1].discovery else { panic!("names") };
        dns.clone()
    };
    let old = dns(&[("DNS.type", json!("LOGICAL_DNS")), ("DNS.dns_jitter", json!("2s"))]);
    assert!(old.logical);
    assert_eq!((old.family, old.pace.jitter), (DnsFamily::V4Only, Duration::from_secs(2)));
    assert!(old.pace.respect_ttl && old.pace.min_ttl.is_zero());

    let config = |more: Value| {
        let mut config = more;
        config["@type"] = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster".into();
        json!({"name": "envoy.cluster.dns", "typed_config": config})
    };
    let typed = |more| dns(&[("DNS.type", json!(null)), ("DNS.cluster_type", config(more))]);
    let new = typed(json!({
        "dns_refresh_rate": "3s", "respect_dns_ttl": true, "dns_jitter": "1s",
        "dns_lookup_family": "V6_ONLY", "dns_min_refresh_rate": "7s",
        "all_addresses_in_single_endpoint": true,
        "dns_failure_refresh_rate": {"base_interval": "2s", "max_interval": "9s"},
    }));
    let expected = DnsPace {
        refresh_rate: Duration::from_secs(3),
        respect_ttl: true,
        min_ttl: Duration::from_secs(7),
        jitter: Duration::from_secs(1),
        failure_refresh: Some((Duration::from_secs(2), Duration::from_secs(9))),
    };
    assert_eq!((new.pace, new.family, new.logical), (expected, DnsFamily::V6Only, true));
    let plain = typed(json!({}));
    assert_eq!(plain.pace.refresh_rate, Duration::from_secs(5), "the cluster's own does not count");
    assert_eq!((plain.family, plain.logical), (DnsFamily::Auto, false));

    let place = "DNS.cluster_type.typed_config";
    for (field, value, reason) in [
        ("dns_min_refresh_rate", json!("0.5s"), "1 s or more"),
        ("dns_refresh_rate", json!("0.0001s"), "1 ms or more"),
        ("dns_failure_refresh_rate.base_interval", json!("0s"), "more than zero"),
    ] {
        let mut more = json!({"dns_failure_refresh_rate": {"base_interval": "1s"}});
        match field.split_once('.') {
            Some((outer, inner)) => more[outer][inner] = value,
            None => more[field] = value,
        }
        let changes = [("DNS.type", json!(null)), ("DNS.cluster_type", config(more))];
        refused_at(&changes, &format!("{place}.{field}"), reason);
    }
}

#[test]
fn a_logical_cluster_has_one_name() {
    let logical = ("DNS.type", json!("LOGICAL_DNS"));
    let second = json!({"endpoint": {"address": {"socket_address": {"address": "b.test", "port_value": 1}}}});
    let path = "DNS.load_assignment.endpoints[0].lb_endpoints[1]";
    refused_at(&[logical.clone(), (path, second)], "DNS.load_assignment", "one endpoint");
    let bootstrap = accepted(&[logical, ("DNS.load_assignment.endpoints[0].priority", json!(3))]);
    let Discovery::Dns(dns) = &bootstrap.clusters[1].discovery else { panic!("names") };
    assert_eq!(dns.assignment.localities[0].priority, 0);
}
