//! Load balancers, and what they go by.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused, refused_at};
use crate::config::cluster::Discovery;
use crate::config::hash_policy::HashSource;
use crate::config::http_connection_manager::RouteSource;
use crate::config::listener::TerminalFilter;
use crate::config::load_balancer::{
    ClientSideWeighted, HashFunction, LoadBalancer, LoadMetric, OverrideSource, PeakEwma, SlowStart,
};
use crate::config::matcher::MatchedHeader;
use crate::config::route::{ClusterSpecifier, RouteAction};
use crate::config::subset::{Fallback, SelectorFallback};

const UNSUPPORTED: &str = "not supported by this version";

const CLIENT_SIDE: &str = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin";

fn extension(message: &str, mut config: Value) -> Value {
    config["@type"] =
        format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{message}").into();
    json!({"policies": [{"typed_extension_config": {"name": "a", "typed_config": config}}]})
}

/// The load balancer of the first cluster with some fields changed.
fn load_balancer(changes: &[(&str, Value)]) -> LoadBalancer {
    accepted(changes).clusters[0].load_balancer.clone()
}

#[test]
fn a_ring_has_its_sizes_and_its_function() {
    let LoadBalancer::RingHash(ring) = load_balancer(&[("CLUSTER.lb_policy", json!("RING_HASH"))])
    else {
        panic!("a ring")
    };
    assert_eq!((ring.minimum_size, ring.maximum_size), (1024, 8_388_608));
    assert_eq!((ring.function, ring.common.use_hostname), (HashFunction::XxHash, false));

    let old = load_balancer(&[
        ("CLUSTER.lb_policy", json!("RING_HASH")),
        ("CLUSTER.least_request_lb_config", Value::Null),
        (
            "CLUSTER.ring_hash_lb_config",
            json!({"minimum_ring_size": 7, "maximum_ring_size": 9, "hash_function": "MURMUR_HASH_2"}),
        ),
    ]);
    let new = json!({
        "minimum_ring_size": 7, "maximum_ring_size": 9, "hash_function": "MURMUR_HASH_2",
        "consistent_hashing_lb_config": {"use_hostname_for_hashing": true},
    });
    let deprecated = json!({
        "minimum_ring_size": 7, "maximum_ring_size": 9, "hash_function": "MURMUR_HASH_2",
        "use_hostname_for_hashing": true,
    });
    let of_extension = |config| {
        let policy = extension("ring_hash.v3.RingHash", config);
        load_balancer(&[("CLUSTER.load_balancing_policy", policy)])
    };
    for (balancer, use_hostname) in
        [(old, false), (of_extension(new), true), (of_extension(deprecated), true)]
    {
        let LoadBalancer::RingHash(ring) = balancer else { panic!("a ring") };
        assert_eq!((ring.minimum_size, ring.maximum_size), (7, 9));
        assert_eq!(ring.function, HashFunction::MurmurHash2);
        assert_eq!(ring.common.use_hostname, use_hostname);
    }
}

#[test]
fn host_names_are_hashed_only_where_they_are_what_is_resolved() {
    let hashing = json!({"use_hostname_for_hashing": true});
    let field = "common_lb_config.consistent_hashing_lb_config";
    let bootstrap = accepted(&[
        ("DNS.load_balancing_policy", Value::Null),
        ("DNS.lb_policy", json!("MAGLEV")),
        (&format!("DNS.{field}"), hashing.clone()),
    ]);
    assert!(bootstrap.clusters[1].load_balancer.hashing().expect("a table").use_hostname);
    refused_at(
        &[(&format!("CLUSTER.{field}"), hashing)],
        &format!("CLUSTER.{field}.use_hostname_for_hashing"),
        "STRICT_DNS",
    );
}

#[test]
fn a_maglev_table_has_its_size() {
    let size = |balancer| match balancer {
        LoadBalancer::Maglev(maglev) => maglev.table_size,
        _ => panic!("a table"),
    };
    let old = [
        ("CLUSTER.lb_policy", json!("MAGLEV")),
        ("CLUSTER.least_request_lb_config", Value::Null),
        ("CLUSTER.maglev_lb_config", json!({"table_size": 5_000_011})),
    ];
    assert_eq!(size(load_balancer(&old[..1])), 65537);
    assert_eq!(size(load_balancer(&old)), 5_000_011);
    let policy = extension("maglev.v3.Maglev", json!({"table_size": 251}));
    assert_eq!(size(load_balancer(&[("CLUSTER.load_balancing_policy", policy)])), 251);
}

#[test]
fn sizes_that_no_table_can_have_are_refused() {
    let ring = |config: Value, field: &str, reason: &str| {
        let path = format!("CLUSTER.ring_hash_lb_config.{field}");
        let policy = extension("ring_hash.v3.RingHash", config.clone());
        refused_at(
            &[
                ("CLUSTER.lb_policy", json!("RING_HASH")),
                ("CLUSTER.least_request_lb_config", Value::Null),
                ("CLUSTER.ring_hash_lb_config", config),
            ],
            &path,
            reason,
        );
        let place = format!(
            "CLUSTER.load_balancing_policy.policies[0].typed_extension_config.typed_config.{field}"
        );
        refused_at(&[("CLUSTER.load_balancing_policy", policy)], &place, reason);
    };
    ring(json!({"minimum_ring_size": 8_388_609}), "minimum_ring_size", "out of range");
    ring(json!({"maximum_ring_size": 8_388_609}), "maximum_ring_size", "out of range");
    ring(json!({"maximum_ring_size": 1023}), "minimum_ring_size", "more than maximum_ring_size");
    for size in [json!(0), json!(1), json!(65536), json!(5_000_027)] {
        refused_at(
            &[
                ("CLUSTER.lb_policy", json!("MAGLEV")),
                ("CLUSTER.least_request_lb_config", Value::Null),
                ("CLUSTER.maglev_lb_config", json!({"table_size": size})),
            ],
            "CLUSTER.maglev_lb_config.table_size",
            "not a prime number",
        );
    }
}

/// What is hashed by the first route, as its list of hash policies says.
fn sources(policies: Value) -> Vec<(HashSource, bool)> {
    let bootstrap = accepted(&[("ACTION.hash_policy", policies)]);
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("a connection manager")
    };
    let RouteSource::Inline(routes) = &manager.routes else { panic!("inline routes") };
    let RouteAction::Forward(forward) = &routes.virtual_hosts[0].routes[0].action else {
        panic!("a route that forwards")
    };
    let policies = forward.hash_policy.iter();
    policies.map(|policy| (policy.source.clone(), policy.terminal)).collect()
}

#[test]
fn a_hash_policy_names_what_is_hashed() {
    let policies = sources(json!([
        {"header": {"header_name": ":authority"}, "terminal": true},
        {"header": {"header_name": "X-A", "regex_rewrite": {"pattern": {"regex": "a"}, "substitution": "b"}}},
        {"connection_properties": {"source_ip": true}},
        {"connection_properties": {}, "terminal": true},
        {"query_parameter": {"name": "q"}},
    ]));
    let [(authority, true), (header, false), (source, false), (query, false)] = &*policies else {
        panic!("{policies:?}")
    };
    assert!(matches!(
        authority,
        HashSource::Header { name: MatchedHeader::Authority, rewrite: None }
    ));
    let HashSource::Header { name: MatchedHeader::Header(name), rewrite: Some(_) } = header else {
        panic!("{header:?}")
    };
    assert_eq!(name, "x-a");
    assert!(matches!(source, HashSource::SourceIp));
    assert!(matches!(query, HashSource::QueryParameter(name) if &**name == "q"));
}

#[test]
fn a_cookie_with_a_time_to_live_is_generated() {
    let attributes = |cookie: Value| {
        let mut policies = sources(json!([{"cookie": cookie}]));
        match policies.remove(0).0 {
            HashSource::Cookie(cookie) => cookie.attributes.map(String::from),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(attributes(json!({"name": "c", "path": "/"})), None);
    assert_eq!(attributes(json!({"name": "c", "ttl": "0s"})).as_deref(), Some("; HttpOnly"));
    let all = json!({"name": "c", "ttl": "61.5s", "path": "/p",
        "attributes": [{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}]});
    assert_eq!(
        attributes(all).as_deref(),
        Some("; Max-Age=61; Path=/p; SameSite=Lax; Secure; HttpOnly")
    );
}

#[test]
fn a_hash_policy_that_cannot_work_is_refused() {
    for (policy, field, reason) in [
        (json!({"terminal": true}), "", "required"),
        (json!({"header": {"header_name": ""}}), ".header.header_name", "header name"),
        (json!({"header": {"header_name": ":x"}}), ".header.header_name", ":authority"),
        (
            json!({"header": {"header_name": "a", "regex_rewrite": {"substitution": "b"}}}),
            ".header.regex_rewrite.pattern",
            "required",
        ),
        (json!({"cookie": {"name": ""}}), ".cookie.name", "empty"),
        (json!({"cookie": {"name": "c", "path": "/\n"}}), ".cookie", "no cookie may have"),
        (json!({"cookie": {"name": "c", "ttl": "-1s"}}), ".cookie.ttl", "negative"),
        (json!({"query_parameter": {}}), ".query_parameter.name", "empty"),
        (json!({"filter_state": {}}), ".filter_state.key", "empty"),
    ] {
        let path = format!("ACTION.hash_policy[0]{field}");
        refused_at(&[("ACTION.hash_policy", json!([policy]))], &path, reason);
    }
}

#[test]
fn policies_of_the_load_balancer_count_before_those_of_the_cluster() {
    let of = |name: &str| json!([{"query_parameter": {"name": name}}]);
    let name = |changes: &[(&str, Value)]| {
        let balancer = load_balancer(changes);
        let [policy] = &*balancer.hashing().expect("a table").hash_policy else { panic!("one") };
        match &policy.source {
            HashSource::QueryParameter(name) => name.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let cluster = ("HTTP.hash_policy", of("cluster"));
    assert_eq!(name(&[cluster.clone(), ("CLUSTER.lb_policy", json!("MAGLEV"))]), "cluster");
    let config = json!({"consistent_hashing_lb_config": {"hash_policy": of("balancer")}});
    let policy = extension("maglev.v3.Maglev", config);
    assert_eq!(name(&[cluster, ("CLUSTER.load_balancing_policy", policy)]), "balancer");
}

#[test]
fn a_tcp_proxy_may_hash_the_address_of_its_client() {
    let hashes = |policies: Value| {
        let bootstrap = accepted(&[("TCP.hash_policy", policies)]);
        match &bootstrap.listeners[0].default_filter_chain.as_ref().unwrap().terminal {
            TerminalFilter::Tcp(proxy) => proxy.hash_source_ip,
            TerminalFilter::Http(_) => panic!("a TCP proxy"),
        }
    };
    assert!(!hashes(json!([])) && hashes(json!([{"source_ip": {}}])));
    refused_at(
        &[("TCP.hash_policy", json!([{"filter_state": {"key": "a"}}]))],
        "TCP.hash_policy[0].filter_state",
        UNSUPPORTED,
    );
    refused("TCP.hash_policy", json!([{"source_ip": {}}, {"source_ip": {}}]), "at most one");
}

#[test]
fn localities_may_be_weighted_in_each_form_of_the_configuration() {
    let weighted = |changes: &[(&str, Value)]| accepted(changes).clusters[0].locality_weighted;
    assert!(!weighted(&[]));
    let old = ("CLUSTER.common_lb_config.locality_weighted_lb_config", json!({}));
    assert!(weighted(std::slice::from_ref(&old)));
    let own = json!({"locality_lb_config": {"locality_weighted_lb_config": {}}});
    let direct = json!({"locality_weighted_lb_config": {}});
    for (message, config) in [
        ("round_robin.v3.RoundRobin", own.clone()),
        ("least_request.v3.LeastRequest", own.clone()),
        ("random.v3.Random", own),
        ("ring_hash.v3.RingHash", direct.clone()),
        ("maglev.v3.Maglev", direct),
        (
            "wrr_locality.v3.WrrLocality",
            json!({"endpoint_picking_policy": extension(CLIENT_SIDE, json!({}))}),
        ),
    ] {
        let policy = ("CLUSTER.load_balancing_policy", extension(message, config));
        assert!(weighted(&[policy]), "{message}");
    }
    let policy = ("CLUSTER.load_balancing_policy", extension("random.v3.Random", json!({})));
    assert!(!weighted(&[old, policy]), "the list has settings of its own");
}

#[test]
fn traffic_may_fail_in_a_panic_in_each_form_of_the_configuration() {
    let fails = |changes: &[(&str, Value)]| accepted(changes).clusters[0].fail_traffic_on_panic;
    let zone_aware = json!({"zone_aware_lb_config": {"fail_traffic_on_panic": true}});
    assert!(fails(&[(
        "CLUSTER.common_lb_config.zone_aware_lb_config",
        zone_aware["zone_aware_lb_config"].clone()
    )]));
    let policy = extension("random.v3.Random", json!({"locality_lb_config": zone_aware}));
    assert!(fails(&[("CLUSTER.load_balancing_policy", policy)]));
}

#[test]
fn weights_from_load_reports_have_their_settings() {
    let settings = |config: Value| {
        let balancer =
            load_balancer(&[("CLUSTER.load_balancing_policy", extension(CLIENT_SIDE, config))]);
        let LoadBalancer::ClientSideWeighted(settings) = balancer else { panic!("{balancer:?}") };
        (*settings).clone()
    };
    assert_eq!(settings(json!({"enable_oob_load_report": false})), ClientSideWeighted::default());
    let all = settings(json!({
        "blackout_period": "1s", "weight_expiration_period": "2s", "weight_update_period": "0.01s",
        "error_utilization_penalty": 0.5,
        "metric_names_for_computing_utilization":
            ["named_metrics.a.b", "utilization.*", "cpu_utilization", "unknown", "unknown.a"],
    }));
    let expected = ClientSideWeighted {
        blackout_period: Duration::from_secs(1),
        weight_expiration_period: Duration::from_secs(2),
        weight_update_period: Duration::from_millis(100),
        error_utilization_penalty: 0.5,
        metrics: vec![
            LoadMetric::Named("a.b".into()),
            LoadMetric::Utilization("*".into()),
            LoadMetric::Cpu,
        ],
    };
    assert_eq!(all, expected);
    for (field, value, reason) in [
        ("error_utilization_penalty", json!(-1), "0 or more"),
        ("enable_oob_load_report", json!(true), UNSUPPORTED),
        ("blackout_period", json!("-1s"), "negative"),
    ] {
        let policy = extension(CLIENT_SIDE, json!({field: value}));
        let path = format!(
            "CLUSTER.load_balancing_policy.policies[0].typed_extension_config.typed_config.{field}"
        );
        refused_at(&[("CLUSTER.load_balancing_policy", policy)], &path, reason);
    }
}

#[test]
fn endpoints_may_be_named_by_headers_and_metadata() {
    let inside = extension("least_request.v3.LeastRequest", json!({}));
    let key = json!({"key": "k", "path": [{"key": "a"}, {"key": "b"}]});
    let config = json!({
        "override_host_sources": [{"header": "X-Host"}, {"metadata": key}],
        "selected_host_key": key, "fallback_policy": inside,
    });
    let policy = |config: &Value| {
        let policy = extension("override_host.v3.OverrideHost", config.clone());
        ("CLUSTER.load_balancing_policy", policy)
    };
    let cluster = accepted(&[policy(&config)]).clusters[0].clone();
    assert!(matches!(cluster.load_balancer, LoadBalancer::LeastRequest { .. }));
    let settings = cluster.override_host.as_deref().expect("settings");
    let path: Box<[Box<str>]> = ["a".into(), "b".into()].into();
    assert_eq!(
        settings.sources,
        [
            OverrideSource::Header(http::HeaderName::from_static("x-host")),
            OverrideSource::Metadata("k".into(), path.clone()),
        ]
    );
    assert_eq!(settings.selected, Some(("k".into(), path)));
    for (field, value, at, reason) in [
        ("override_host_sources", json!([]), "override_host_sources", "at least one"),
        ("override_host_sources", json!([{}]), "override_host_sources[0]", "one of"),
        (
            "override_host_sources",
            json!([{"header": "a", "metadata": key}]),
            "override_host_sources[0]",
            "one of",
        ),
        (
            "selected_host_key",
            json!({"key": "k", "path": [{"index": 1}]}),
            "selected_host_key.path[0].index",
            UNSUPPORTED,
        ),
        ("fallback_policy", Value::Null, "fallback_policy", "required"),
    ] {
        let mut changed = config.clone();
        changed[field] = value;
        let path = format!(
            "CLUSTER.load_balancing_policy.policies[0].typed_extension_config.typed_config.{at}"
        );
        refused_at(&[policy(&changed)], &path, reason);
    }
}

#[test]
fn peak_ewma_is_taken_as_it_is_and_as_a_typed_struct() {
    let name = "type.googleapis.com/outrigger.load_balancing.v1.PeakEwma";
    let policy = |config: Value| {
        json!({"policies": [
            {"typed_extension_config": {"name": "a", "typed_config": config}},
            extension("least_request.v3.LeastRequest", json!({}))["policies"][0],
        ]})
    };
    let all = json!({
        "decay": "2s", "default_rtt": "0.001s", "failure_penalty": "0s",
        "slow_start_window": "3s", "locality_weighted": true,
    });
    let mut plain = all.clone();
    plain["@type"] = name.into();
    let typed_struct = json!({
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": name, "value": all,
    });
    for config in [plain, typed_struct] {
        let cluster =
            accepted(&[("CLUSTER.load_balancing_policy", policy(config))]).clusters[0].clone();
        let LoadBalancer::PeakEwma(settings) = &cluster.load_balancer else { panic!() };
        let expected = PeakEwma {
            decay: Duration::from_secs(2),
            default_rtt: Duration::from_millis(1),
            failure_penalty: Duration::ZERO,
        };
        assert_eq!(**settings, expected);
        assert!(cluster.locality_weighted);
        assert_eq!(cluster.slow_start.as_ref().map(|it| it.window), Some(Duration::from_secs(3)));
    }
    let defaults = policy(json!({"@type": name}));
    let cluster = accepted(&[("CLUSTER.load_balancing_policy", defaults)]).clusters[0].clone();
    let LoadBalancer::PeakEwma(settings) = &cluster.load_balancer else { panic!() };
    assert_eq!(**settings, PeakEwma::default());
    assert!(!cluster.locality_weighted && cluster.slow_start.is_none());
    for (field, value) in [("decay", "0s"), ("default_rtt", "3601s"), ("failure_penalty", "-1s")] {
        let config = json!({"@type": name, field: value});
        let path = format!(
            "CLUSTER.load_balancing_policy.policies[0].typed_extension_config.typed_config.{field}"
        );
        refused_at(&[("CLUSTER.load_balancing_policy", policy(config))], &path, "");
    }
}

#[test]
fn within_localities_only_load_reports_choose() {
    let inside = extension("round_robin.v3.RoundRobin", json!({}));
    let policy =
        extension("wrr_locality.v3.WrrLocality", json!({"endpoint_picking_policy": inside}));
    refused_at(
        &[("CLUSTER.load_balancing_policy", policy)],
        "CLUSTER.load_balancing_policy.policies[0].typed_extension_config.typed_config.endpoint_picking_policy.policies",
        "ClientSideWeightedRoundRobin",
    );
}

#[test]
fn zone_aware_routing_has_its_settings_in_each_form_of_the_configuration() {
    let of = |changes: &[(&str, Value)]| accepted(changes).clusters[0].zone_aware.clone();
    let defaults = of(&[]);
    assert_eq!((defaults.routing_enabled.whole(), defaults.min_cluster_size.whole()), (100, 6));
    assert_eq!(defaults.forces_from(), None);
    let path = "CLUSTER.common_lb_config.zone_aware_lb_config";
    let old = of(&[(path, json!({"routing_enabled": {"value": 12.6}, "min_cluster_size": 3}))]);
    assert_eq!((old.routing_enabled.whole(), old.min_cluster_size.whole()), (13, 3));
    let typed = |more: Value| {
        let config = json!({"locality_lb_config": {"zone_aware_lb_config": more}});
        of(&[("CLUSTER.load_balancing_policy", extension("least_request.v3.LeastRequest", config))])
    };
    let new = typed(json!({
        "routing_enabled": {"value": 5}, "min_cluster_size": 2,
        "locality_basis": "HEALTHY_HOSTS_WEIGHT", "force_local_zone": {"min_size": 4},
        "force_locality_direct_routing": true,
    }));
    assert_eq!((new.routing_enabled.whole(), new.min_cluster_size.whole()), (5, 2));
    assert_eq!((new.forces_from(), new.by_weight), (Some(4), true));
    assert_eq!(typed(json!({"force_local_zone": {}})).forces_from(), Some(1));
    assert_eq!(typed(json!({"force_locality_direct_routing": true})).forces_from(), Some(1));
    refused_at(
        &[(path, json!({"routing_enabled": {"value": 101}}))],
        "CLUSTER.common_lb_config.zone_aware_lb_config.routing_enabled",
        "not a percentage",
    );
}

#[test]
fn the_local_cluster_stands_in_the_bootstrap_and_has_one_priority() {
    let name = "cluster_manager.local_cluster_name";
    let cluster = accepted(&[]).clusters[0].name.to_string();
    let bootstrap = accepted(&[
        (name, json!(cluster)),
        ("node.locality", json!({"region": "r", "zone": "z", "sub_zone": "s"})),
    ]);
    assert_eq!(bootstrap.local_cluster.as_deref(), Some(&*cluster));
    let locality = bootstrap.locality().expect("a locality");
    assert_eq!((&*locality.region, &*locality.zone, &*locality.sub_zone), ("r", "z", "s"));
    refused_at(&[(name, json!("elsewhere"))], name, "no static cluster");
    refused_at(
        &[(name, json!(cluster)), ("CLUSTER.load_assignment.endpoints[0].priority", json!(1))],
        "CLUSTER.load_assignment",
        "no priority but 0",
    );
}

#[test]
fn slow_start_has_a_window_and_a_way_to_the_full_weight() {
    let slow_start = |changes: &[(&str, Value)]| accepted(changes).clusters[0].slow_start.clone();
    let config = json!({
        "slow_start_window": "2s", "aggression": {"default_value": 1.5},
        "min_weight_percent": {"value": 5},
    });
    let expected =
        SlowStart { window: Duration::from_secs(2), aggression: 1.5.into(), min_weight: 0.05 };
    let path = "CLUSTER.least_request_lb_config.slow_start_config";
    assert_eq!(slow_start(&[(path, config.clone())]), Some(expected.clone()));
    for message in ["round_robin.v3.RoundRobin", "least_request.v3.LeastRequest"] {
        let policy = extension(message, json!({"slow_start_config": config}));
        assert_eq!(
            slow_start(&[("CLUSTER.load_balancing_policy", policy)]),
            Some(expected.clone())
        );
    }
    let default = slow_start(&[(path, json!({"slow_start_window": "1s"}))]);
    let expected =
        SlowStart { window: Duration::from_secs(1), aggression: 1.0.into(), min_weight: 0.1 };
    assert_eq!(default, Some(expected.clone()));
    assert_eq!(slow_start(&[(path, json!({}))]), None, "without a window there is none");
    for (field, value, reason) in [
        ("aggression", json!({"default_value": 0, "runtime_key": "a"}), "more than 0"),
        ("min_weight_percent", json!({"value": 101}), "percentage"),
    ] {
        let mut config = json!({"slow_start_window": "1s"});
        config[field] = value;
        refused_at(&[(path, config)], &format!("{path}.{field}"), reason);
    }
}

#[test]
fn the_load_of_an_endpoint_may_be_bounded_in_each_form_of_the_configuration() {
    let factor = |changes: &[(&str, Value)]| {
        load_balancer(changes).hashing().expect("a table").balance_factor
    };
    let maglev = ("CLUSTER.lb_policy", json!("MAGLEV"));
    assert_eq!(factor(std::slice::from_ref(&maglev)), None);
    let path = "CLUSTER.common_lb_config.consistent_hashing_lb_config.hash_balance_factor";
    assert_eq!(factor(&[maglev.clone(), (path, json!(120))]), Some(120));
    refused_at(&[maglev, (path, json!(99))], path, "at least 100");
    for (message, config) in [
        ("ring_hash.v3.RingHash", json!({"hash_balance_factor": 120})),
        ("maglev.v3.Maglev", json!({"consistent_hashing_lb_config": {"hash_balance_factor": 120}})),
    ] {
        let policy = ("CLUSTER.load_balancing_policy", extension(message, config));
        assert_eq!(factor(&[policy]), Some(120), "{message}");
    }
}

#[test]
fn least_request_may_compare_all() {
    for config in [json!({"selection_method": "FULL_SCAN"}), json!({"enable_full_scan": true})] {
        let policy = extension("least_request.v3.LeastRequest", config);
        let policy = ("CLUSTER.load_balancing_policy", policy);
        let LoadBalancer::LeastRequest { full_scan, .. } = load_balancer(&[policy]) else {
            panic!("least request")
        };
        assert!(full_scan);
    }
}

fn subset_policy(mut config: Value) -> Value {
    config["subset_lb_policy"] = extension("random.v3.Random", json!({}));
    extension("subset.v3.Subset", config)
}

#[test]
fn both_forms_of_subsets_come_to_the_same() {
    let selectors = json!([
        {"keys": ["stage", "version"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["stage"]},
        {"keys": ["stage"], "fallback_policy": "DEFAULT_SUBSET", "single_host_per_subset": true},
        {"keys": ["a", "b"], "fallback_policy": "ANY_ENDPOINT"},
        {"keys": ["a"], "fallback_policy": "NO_FALLBACK"},
        {"keys": ["b"]},
    ]);
    let config = json!({
        "fallback_policy": "DEFAULT_SUBSET", "default_subset": {"version": 1}, "subset_selectors": selectors,
        "locality_weight_aware": true, "scale_locality_weight": true, "panic_mode_any": true,
        "list_as_any": true, "metadata_fallback_policy": "FALLBACK_LIST",
    });
    let old = accepted(&[("CLUSTER.lb_subset_config", config.clone())]).clusters[0].clone();
    let policy = subset_policy(config.clone());
    let new = accepted(&[("CLUSTER.load_balancing_policy", policy)]).clusters[0].clone();
    assert!(matches!(new.load_balancer, LoadBalancer::Random), "that of the policy inside");
    assert_eq!(old.subsets, new.subsets);
    let subsets = old.subsets.as_ref().expect("subsets");
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).into()).collect();
    assert_eq!(
        subsets.selectors.iter().map(|selector| selector.fallback.clone()).collect::<Vec<_>>(),
        [
            SelectorFallback::Keys(keys(&["stage"])),
            SelectorFallback::DefaultSubset,
            SelectorFallback::AnyEndpoint,
            SelectorFallback::None,
            SelectorFallback::NotDefined,
        ]
    );
    assert_eq!(subsets.selectors[0].keys, keys(&["version", "stage"]));
    assert!(subsets.selectors[1].single_host && !subsets.selectors[0].single_host);
    assert_eq!(subsets.fallback, Fallback::DefaultSubset);
    assert_eq!(subsets.default_subset["version"], 1);
    let flags = [
        subsets.locality_weight_aware,
        subsets.scale_locality_weight,
        subsets.panic_mode_any,
        subsets.list_as_any,
        subsets.fallback_list,
    ];
    assert_eq!((flags, subsets.allow_redundant_keys), ([true; 5], false));

    let mut config = config;
    config["allow_redundant_keys"] = true.into();
    let policy = subset_policy(config);
    let new = accepted(&[("CLUSTER.load_balancing_policy", policy)]).clusters[0].clone();
    assert!(new.subsets.as_ref().expect("subsets").allow_redundant_keys);
}

#[test]
fn without_a_selector_the_old_form_of_subsets_means_nothing() {
    let config = json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"a": "b"}});
    assert!(accepted(&[("CLUSTER.lb_subset_config", config)]).clusters[0].subsets.is_none());
}

#[test]
fn selectors_that_fall_back_to_nothing_useful_are_refused() {
    let place = "subset_selectors[0].fallback_keys_subset";
    for (selector, reason) in [
        (json!({"keys": ["a"], "fallback_policy": "KEYS_SUBSET"}), "required"),
        (
            json!({"keys": ["a", "c"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["b"]}),
            "must be some",
        ),
        (
            json!({"keys": ["a"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"]}),
            "must not be all",
        ),
        (json!({"keys": ["a"], "fallback_keys_subset": ["a"]}), "only with"),
    ] {
        let config = json!({"subset_selectors": [selector]});
        let path = format!("CLUSTER.lb_subset_config.{place}");
        refused_at(&[("CLUSTER.lb_subset_config", config.clone())], &path, reason);
        let path = format!(
            "CLUSTER.load_balancing_policy.policies[0].typed_extension_config.typed_config.{place}"
        );
        refused_at(&[("CLUSTER.load_balancing_policy", subset_policy(config))], &path, reason);
    }
}

#[test]
fn subsets_stand_in_one_place_only() {
    let config = json!({"subset_selectors": [{"keys": ["a"]}]});
    refused_at(
        &[
            ("CLUSTER.lb_subset_config", config.clone()),
            ("CLUSTER.load_balancing_policy", subset_policy(config.clone())),
        ],
        "CLUSTER.lb_subset_config",
        "load_balancing_policy",
    );
    let mut nested = config.clone();
    nested["subset_lb_policy"] = subset_policy(config);
    refused_at(
        &[("CLUSTER.load_balancing_policy", extension("subset.v3.Subset", nested))],
        "CLUSTER.load_balancing_policy.policies[0].typed_extension_config.typed_config.subset_lb_policy",
        "into subsets again",
    );
}

#[test]
fn what_a_weighted_cluster_asks_is_merged_over_what_its_route_asks() {
    let bootstrap = accepted(&[
        (
            "ACTION.metadata_match",
            json!({"filter_metadata": {"envoy.lb": {"stage": "prod", "version": 1}, "other": {"a": "b"}}}),
        ),
        (
            "ACTION.weighted_clusters.clusters[0].metadata_match",
            json!({"filter_metadata": {"envoy.lb": {"version": 2, "a": [true]}}}),
        ),
        ("TCP.metadata_match", json!({"filter_metadata": {"envoy.lb": {"stage": "prod"}}})),
    ]);
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("HTTP")
    };
    let RouteSource::Inline(routes) = &manager.routes else { panic!("inline routes") };
    let RouteAction::Forward(forward) = &routes.virtual_hosts[0].routes[0].action else {
        panic!("a route that forwards")
    };
    let text = |criteria: &Option<std::sync::Arc<_>>| {
        format!("{:?}", criteria.as_ref().expect("criteria"))
    };
    assert_eq!(text(&forward.metadata_match), r#"{"stage": String("prod"), "version": Number(1)}"#);
    let ClusterSpecifier::Weighted(clusters) = &forward.cluster else { panic!("weighted") };
    assert_eq!(
        text(&clusters[0].metadata_match),
        r#"{"a": Array [Bool(true)], "stage": String("prod"), "version": Number(2)}"#
    );
    let chain = bootstrap.listeners[0].default_filter_chain.as_ref().expect("a chain");
    let TerminalFilter::Tcp(tcp) = &chain.terminal else { panic!("TCP") };
    assert!(tcp.clusters.iter().all(|target| target.metadata_match.is_some()));
}

fn aggregate_of(clusters: Value) -> Value {
    let kind = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig";
    json!({"name": "envoy.clusters.aggregate", "typed_config": {"@type": kind, "clusters": clusters}})
}

/// The first cluster as an aggregate.
fn aggregate(clusters: Value) -> Vec<(&'static str, Value)> {
    vec![
        ("CLUSTER.type", Value::Null),
        ("CLUSTER.load_assignment", Value::Null),
        ("CLUSTER.lb_policy", json!("CLUSTER_PROVIDED")),
        ("CLUSTER.cluster_type", aggregate_of(clusters)),
    ]
}

#[test]
fn an_aggregate_has_the_names_of_its_members_and_chooses_by_itself() {
    let bootstrap = accepted(&aggregate(json!(["dns", "a"])));
    let cluster = &bootstrap.clusters[0];
    assert!(matches!(cluster.load_balancer, LoadBalancer::ClusterProvided));
    let Discovery::Aggregate(members) = &cluster.discovery else { panic!("an aggregate") };
    assert_eq!(members.iter().map(|name| &**name).collect::<Vec<_>>(), ["dns", "a"]);

    let mut typed = aggregate(json!(["dns"]));
    let policy = extension("cluster_provided.v3.ClusterProvided", json!({}));
    typed.push(("CLUSTER.load_balancing_policy", policy));
    let bootstrap = accepted(&typed);
    assert!(matches!(bootstrap.clusters[0].load_balancer, LoadBalancer::ClusterProvided));
}

#[test]
fn who_chooses_by_himself_and_who_does_not_is_not_mixed_up() {
    let place = "CLUSTER.lb_policy";
    refused_at(&[(place, json!("CLUSTER_PROVIDED"))], place, "for aggregates");
    let mut robin = aggregate(json!(["dns"]));
    robin[2].1 = json!("ROUND_ROBIN");
    refused_at(&robin, place, "must be CLUSTER_PROVIDED");
    let path = "CLUSTER.cluster_type.typed_config.clusters";
    refused_at(&aggregate(json!([])), path, "at least one");
    let mut own = aggregate(json!(["dns"]));
    own.remove(1);
    refused_at(&own, "CLUSTER.load_assignment", "aggregate");
}
