//! The examples of Envoy's documentation on subsets, and what its code does at their edges.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::cluster::load_balancer::Context;
use crate::cluster::load_balancer::tests::cluster;
use crate::cluster::testing::{config, located, members};
use crate::cluster::{Cluster, EndpointId};
use crate::config;
use crate::config::endpoint::{HealthStatus, Metadata};
use crate::config::load_balancer::{ConsistentHashing, LoadBalancer, Maglev};
use crate::config::subset::{Fallback, MetadataCriteria, Selector, SelectorFallback, Subsets};

const UP: HealthStatus = HealthStatus::Healthy;
const DOWN: HealthStatus = HealthStatus::Unhealthy;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn selector(keys: &[&str]) -> Selector {
    Selector {
        keys: keys.iter().map(|key| (*key).into()).collect(),
        fallback: SelectorFallback::NotDefined,
        single_host: false,
    }
}

fn subsets(selectors: Vec<Selector>) -> Subsets {
    Subsets {
        selectors,
        fallback: Fallback::None,
        default_subset: Map::new(),
        locality_weight_aware: false,
        scale_locality_weight: false,
        panic_mode_any: false,
        list_as_any: false,
        allow_redundant_keys: false,
        fallback_list: false,
    }
}

/// Endpoints with these metadata and states, on ports from 0.
fn of(subsets: Subsets, endpoints: &[(Value, HealthStatus)]) -> Cluster {
    with_policy(LoadBalancer::RoundRobin, subsets, &[endpoints])
}

/// The same by priorities; the ports of each begin at the next ten.
fn with_policy(
    load_balancer: LoadBalancer,
    subsets: Subsets,
    priorities: &[&[(Value, HealthStatus)]],
) -> Cluster {
    let made = (0u16..).zip(priorities).map(|(number, endpoints)| {
        let states: Vec<_> = endpoints.iter().map(|(_, state)| (1, *state)).collect();
        let members = members(10 * number, &states);
        for (endpoint, (metadata, state)) in members.all.iter().zip(*endpoints) {
            let metadata = Metadata(object(json!({"envoy.lb": metadata})));
            endpoint.update(1, *state, &Arc::new(metadata));
        }
        members
    });
    let config =
        config::cluster::Cluster { load_balancer, subsets: Some(Box::new(subsets)), ..config("c") };
    cluster(config, made.collect())
}

const NOBODY: [u16; 0] = [];

/// The ports that requests reach which ask this.
fn reached(cluster: &Cluster, asked: Option<Value>) -> Vec<u16> {
    let criteria = asked.map(|asked| {
        MetadataCriteria::new(object(asked).into_iter().map(|(key, value)| (key.into(), value)))
    });
    let hosts = cluster.hosts.load();
    let context = Context { metadata: criteria.as_ref(), ..Context::default() };
    let mut ports: Vec<u16> = (0..200)
        .filter_map(|_| Some(cluster.pick(&hosts, &context)?.address.port().unwrap()))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The table of the documentation: hosts e1 to e7.
fn documented() -> Vec<(Value, HealthStatus)> {
    let rows = [
        ("prod", "1.0", "std"),
        ("prod", "1.0", "std"),
        ("prod", "1.1", "std"),
        ("prod", "1.1", "std"),
        ("prod", "1.0", "bigmem"),
        ("prod", "1.1", "bigmem"),
        ("dev", "1.2-pre", "std"),
    ];
    let rows = rows.iter().map(|(stage, version, kind)| {
        (json!({"stage": stage, "version": version, "type": kind}), UP)
    });
    rows.collect()
}

fn documented_selectors() -> Vec<Selector> {
    vec![
        selector(&["stage", "type"]),
        selector(&["stage", "version"]),
        selector(&["version"]),
        selector(&["xlarge", "version"]),
    ]
}

#[test]
fn a_request_goes_to_endpoints_that_have_exactly_what_its_route_asks() {
    let default_subset = object(json!({"stage": "prod", "version": "1.0", "type": "std"}));
    let cluster = of(
        Subsets {
            fallback: Fallback::DefaultSubset,
            default_subset,
            ..subsets(documented_selectors())
        },
        &documented(),
    );
    let reached = |asked| reached(&cluster, asked);
    assert_eq!(reached(Some(json!({"stage": "prod", "version": "1.0"}))), [0, 1, 4]);
    assert_eq!(reached(Some(json!({"version": "1.1"}))), [2, 3, 5]);
    assert_eq!(reached(Some(json!({"type": "bigmem", "stage": "prod"}))), [4, 5]);
    // What falls back to the default subset: no selector has these keys, no endpoint this value, or nothing is asked.
    for asked in [
        Some(json!({"x": "y"})),
        Some(json!({"stage": "prod"})),
        Some(json!({"version": "2"})),
        Some(json!({"stage": "prod", "type": "std", "version": "1.0"})),
        Some(json!({})),
        None,
    ] {
        assert_eq!(reached(asked.clone()), [0, 1], "{asked:?}");
    }
    let stats = cluster.stats.local();
    assert_eq!(stats.lb_subsets_selected.value(), 3 * 200);
    assert_eq!(stats.lb_subsets_fallback.value(), 6 * 200);
}

#[test]
fn without_a_fallback_there_is_nobody_and_any_endpoint_is_any() {
    let to = |fallback| {
        let cluster = of(Subsets { fallback, ..subsets(documented_selectors()) }, &documented());
        reached(&cluster, Some(json!({"x": "y"})))
    };
    assert_eq!(to(Fallback::None), NOBODY);
    assert_eq!(to(Fallback::AnyEndpoint), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn values_are_equal_only_within_their_type() {
    let endpoints = [(json!({"v": 1}), UP), (json!({"v": "1"}), UP), (json!({"v": [1, "1"]}), UP)];
    let cluster = of(subsets(vec![selector(&["v"])]), &endpoints);
    assert_eq!(reached(&cluster, Some(json!({"v": 1}))), [0]);
    assert_eq!(reached(&cluster, Some(json!({"v": "1"}))), [1]);
    assert_eq!(reached(&cluster, Some(json!({"v": [1, "1"]}))), [2]);
    assert_eq!(reached(&cluster, Some(json!({"v": null}))), NOBODY);
}

#[test]
fn a_list_may_mean_each_of_its_values() {
    let endpoints = [
        (json!({"a": ["x", "y"], "b": ["1", "2", "1"]}), UP),
        (json!({"a": "x", "b": ["2"]}), UP),
        (json!({"a": [], "b": "2"}), UP),
    ];
    let selectors = vec![selector(&["a", "b"]), selector(&["a"])];
    let cluster = of(
        Subsets {
            list_as_any: true,
            fallback: Fallback::DefaultSubset,
            default_subset: object(json!({"b": "2"})),
            ..subsets(selectors)
        },
        &endpoints,
    );
    assert_eq!(reached(&cluster, Some(json!({"a": "x", "b": "2"}))), [0, 1]);
    assert_eq!(reached(&cluster, Some(json!({"a": "y", "b": "1"}))), [0]);
    assert_eq!(reached(&cluster, Some(json!({"a": "x"}))), [0, 1]);
    assert_eq!(reached(&cluster, Some(json!({"a": ["x", "y"]}))), [0, 1, 2], "the default subset");
}

#[test]
fn a_subset_that_is_ill_panics_by_itself_and_does_not_fall_back() {
    let endpoints = [
        (json!({"v": "1"}), DOWN),
        (json!({"v": "1"}), DOWN),
        (json!({"v": "2"}), UP),
        (json!({"v": "2"}), DOWN),
        (json!({"v": "2"}), UP),
        (json!({"v": "4"}), UP),
    ];
    let all = Subsets { fallback: Fallback::AnyEndpoint, ..subsets(vec![selector(&["v"])]) };
    let cluster = of(all, &endpoints);
    assert_eq!(reached(&cluster, Some(json!({"v": "1"}))), [0, 1]);
    assert_eq!(reached(&cluster, Some(json!({"v": "2"}))), [2, 4]);
    assert_eq!(reached(&cluster, Some(json!({"v": "3"}))), [2, 4, 5], "half of all are well");
}

#[test]
fn a_selector_may_fall_back_in_its_own_way() {
    let falling = |keys: &[&str], fallback| Selector { fallback, ..selector(keys) };
    let stage = ["stage".into()].into();
    let default_subset = object(json!({"type": "bigmem"}));
    let cluster = of(
        Subsets {
            fallback: Fallback::AnyEndpoint,
            default_subset,
            ..subsets(vec![
                falling(&["stage"], SelectorFallback::NotDefined),
                falling(&["stage", "version"], SelectorFallback::Keys(stage)),
                falling(&["type"], SelectorFallback::None),
                falling(&["version"], SelectorFallback::DefaultSubset),
                falling(&["stage", "type"], SelectorFallback::AnyEndpoint),
            ])
        },
        &documented(),
    );
    let reached = |asked| reached(&cluster, Some(asked));
    let all = [0, 1, 2, 3, 4, 5, 6];
    assert_eq!(reached(json!({"stage": "dev", "version": "9"})), [6], "by its stage alone");
    assert_eq!(reached(json!({"stage": "test", "version": "9"})), all, "as the cluster says");
    assert_eq!(reached(json!({"type": "none"})), NOBODY);
    assert_eq!(reached(json!({"version": "9"})), [4, 5]);
    assert_eq!(reached(json!({"stage": "prod", "type": "none"})), all);
    // Only the fallback of the cluster counts as one.
    assert_eq!(cluster.stats.local().lb_subsets_fallback.value(), 200);
}

#[test]
fn where_the_default_subset_has_nobody_any_endpoint_may_do() {
    let to = |panic_mode_any| {
        let default_subset = object(json!({"stage": "nowhere"}));
        let cluster = of(
            Subsets {
                fallback: Fallback::DefaultSubset,
                default_subset,
                panic_mode_any,
                ..subsets(vec![selector(&["version"])])
            },
            &documented(),
        );
        let reached = reached(&cluster, Some(json!({"version": "9"})));
        (reached, cluster.stats.local().lb_subsets_fallback_panic.value())
    };
    assert_eq!(to(false), (NOBODY.to_vec(), 0));
    assert_eq!(to(true), (vec![0, 1, 2, 3, 4, 5, 6], 200));
}

#[test]
fn keys_that_no_selector_has_may_be_redundant() {
    let to = |allow_redundant_keys| {
        let selectors = vec![selector(&["stage", "version"]), selector(&["version"])];
        let cluster = of(Subsets { allow_redundant_keys, ..subsets(selectors) }, &documented());
        [
            reached(&cluster, Some(json!({"version": "1.1", "user": "me"}))),
            reached(&cluster, Some(json!({"a": 1, "stage": "prod", "version": "1.1"}))),
            reached(&cluster, Some(json!({"stage": "prod"}))),
        ]
    };
    assert_eq!(to(false), [NOBODY; 3]);
    assert_eq!(to(true), [vec![2, 3, 5], vec![2, 3, 5], vec![]]);
}

#[test]
fn a_route_may_list_what_to_try_one_after_the_other() {
    let asked = json!({
        "stage": "prod",
        "fallback_list": [{"version": "9"}, {"version": "1.1"}, {"stage": "dev", "version": "1.2-pre"}],
    });
    let to = |fallback_list, asked: Value| {
        let selectors = vec![selector(&["stage", "version"]), selector(&["stage"])];
        let cluster = of(Subsets { fallback_list, ..subsets(selectors) }, &documented());
        reached(&cluster, Some(asked))
    };
    assert_eq!(to(true, asked.clone()), [2, 3, 5]);
    assert_eq!(to(false, asked), NOBODY, "it is a key like any other");
    assert_eq!(to(true, json!({"stage": "dev", "fallback_list": []})), [6]);
    assert_eq!(to(true, json!({"stage": "dev", "fallback_list": "x"})), [6]);
}

#[test]
fn of_endpoints_with_the_same_values_only_the_first_may_count_whatever_its_health() {
    let endpoints = [
        (json!({"id": "a"}), DOWN),
        (json!({"id": "a"}), UP),
        (json!({"id": "b"}), UP),
        (json!({"other": "b"}), UP),
    ];
    let single = Selector { single_host: true, ..selector(&["id"]) };
    let cluster = of(subsets(vec![single]), &endpoints);
    assert_eq!(reached(&cluster, Some(json!({"id": "a"}))), [0]);
    assert_eq!(reached(&cluster, Some(json!({"id": "b"}))), [2]);
    assert_eq!(cluster.hosts.load().subsets.as_ref().unwrap().duplicates, 1);
}

#[test]
fn priorities_count_within_a_subset() {
    let first = [(json!({"v": "1"}), DOWN), (json!({"v": "2"}), UP)];
    let second = [(json!({"v": "1"}), UP), (json!({"v": "3"}), UP)];
    let subsets = subsets(vec![selector(&["v"])]);
    let cluster = with_policy(LoadBalancer::Random, subsets, &[&first, &second]);
    assert_eq!(reached(&cluster, Some(json!({"v": "1"}))), [10]);
    assert_eq!(reached(&cluster, Some(json!({"v": "2"}))), [1]);
    assert_eq!(reached(&cluster, Some(json!({"v": "3"}))), [11]);
}

#[test]
fn a_hash_has_its_place_within_the_subset() {
    let endpoints: Vec<_> = (0..8).map(|n| (json!({"v": n % 2}), UP)).collect();
    let common = ConsistentHashing::default();
    let policy = LoadBalancer::Maglev(Maglev { table_size: 251, common });
    let cluster = with_policy(policy, subsets(vec![selector(&["v"])]), &[&endpoints]);
    let criteria = MetadataCriteria::new([("v".into(), json!(1))]);
    let hosts = cluster.hosts.load();
    for hash in 0..100 {
        let context = Context { hash: Some(hash), metadata: Some(&criteria), ..Context::default() };
        let pick = || cluster.pick(&hosts, &context).unwrap().address.port().unwrap();
        assert_eq!((pick() % 2, pick()), (1, pick()));
    }
}

#[test]
fn endpoints_that_were_tried_are_avoided_within_the_subset() {
    let endpoints = [(json!({"v": 1}), UP), (json!({"v": 1}), UP), (json!({"v": 2}), UP)];
    let cluster = of(subsets(vec![selector(&["v"])]), &endpoints);
    let criteria = MetadataCriteria::new([("v".into(), json!(1))]);
    let hosts = cluster.hosts.load();
    let context = Context {
        metadata: Some(&criteria),
        avoid: &[EndpointId(0)],
        attempts: 5,
        ..Context::default()
    };
    for _ in 0..20 {
        assert_eq!(cluster.pick(&hosts, &context).unwrap().address.port().unwrap(), 1);
    }
}

#[test]
fn a_locality_may_count_for_the_part_of_it_that_is_in_the_subset() {
    // In the first locality, of weight 2, one of two is in the subset; in the second, of weight 1, the only one is.
    let share_of_first = |locality_weight_aware, scale_locality_weight| {
        let members = located(0, &[(Some(2), &[UP, UP]), (Some(1), &[UP])]);
        for (endpoint, version) in members.all.iter().zip(["1", "2", "1"]) {
            let metadata = Metadata(object(json!({"envoy.lb": {"v": version}})));
            endpoint.update(1, UP, &Arc::new(metadata));
        }
        let subsets = Subsets {
            locality_weight_aware,
            scale_locality_weight,
            ..subsets(vec![selector(&["v"])])
        };
        let config = config::cluster::Cluster {
            locality_weighted: true,
            subsets: Some(Box::new(subsets)),
            ..config("c")
        };
        let cluster = cluster(config, vec![members]);
        let criteria = MetadataCriteria::new([("v".into(), json!("1"))]);
        let context = Context { metadata: Some(&criteria), ..Context::default() };
        let hosts = cluster.hosts.load();
        let ports =
            (0..300).map(|_| cluster.pick(&hosts, &context).unwrap().address.port().unwrap());
        ports.filter(|port| *port == 0).count()
    };
    assert_eq!(share_of_first(false, false), 150, "in turn");
    // All of it that is in the subset is well, so its weight counts in full, or in proportion.
    assert!((199..=201).contains(&share_of_first(true, false)));
    assert!((149..=151).contains(&share_of_first(true, true)));
}

#[test]
fn what_a_worker_remembers_is_of_the_host_set_of_the_moment() {
    let cluster =
        of(subsets(vec![selector(&["v"])]), &[(json!({"v": 1}), UP), (json!({"v": 2}), UP)]);
    let criteria = MetadataCriteria::new([("v".into(), json!(1))]);
    let context = Context { metadata: Some(&criteria), ..Context::default() };
    let hosts = cluster.hosts.load_full();
    assert_eq!(cluster.pick(&hosts, &context).unwrap().address.port().unwrap(), 0);
    for (endpoint, version) in hosts.endpoints().zip([2, 1]) {
        let metadata = Metadata(object(json!({"envoy.lb": {"v": version}})));
        endpoint.update(1, UP, &Arc::new(metadata));
    }
    let next = crate::cluster::host_set::HostSet::new(
        hosts.members(),
        &cluster.config,
        config::endpoint::AssignmentPolicy::default(),
        None,
    );
    assert_eq!(cluster.pick(&next, &context).unwrap().address.port().unwrap(), 1);
}
