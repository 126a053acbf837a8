//! Zone aware routing: how much of the traffic stays in our own locality, and where the rest goes.

use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, http_listener, routes};

const UPSTREAMS: [&str; 4] = ["a", "b", "c", "d"];

/// Of the cluster's endpoints, by zone: `ZONE: NAME STATE WEIGHT, ...; ...`.
type Zones = &'static str;

/// A cluster, its endpoints, and its policy.
const CLUSTERS: [(&str, Zones, &str); 16] = [
    ("covered", "east: a, b; west: c", SMALL),
    ("lacking", "east: a; west: b; north: c, d", SMALL),
    ("elsewhere", "west: b; north: c", SMALL),
    ("down_here", "east: a UNHEALTHY; west: b; north: c", SMALL),
    ("draining_here", "east: a DRAINING; west: b", SMALL),
    ("too_small", "east: a; west: b", "alt_stat_name: too_small"),
    ("one_zone", "east: a, b", SMALL),
    (
        "by_weights",
        "west: b - 1, c - 3; east: a",
        "common_lb_config: {locality_weighted_lb_config: {}}",
    ),
    (
        "seldom",
        "east: a, b; west: c",
        "common_lb_config: {zone_aware_lb_config: {min_cluster_size: 1, routing_enabled: {value: 50}}}",
    ),
    (
        "least",
        "east: a, b; west: c",
        "lb_policy: LEAST_REQUEST\n  common_lb_config: {zone_aware_lb_config: {min_cluster_size: 1}}",
    ),
    ("weighted", "east: a - 1, b - 3; west: c", SMALL),
    ("typed", "east: a; west: b; north: c, d", "random.v3.Random min_cluster_size: 1"),
    (
        "direct",
        "east: a; west: b; north: c, d",
        "round_robin.v3.RoundRobin min_cluster_size: 1, force_locality_direct_routing: true",
    ),
    (
        "forced",
        "east: a; west: b; north: c, d",
        "least_request.v3.LeastRequest min_cluster_size: 1, force_local_zone: {}",
    ),
    (
        "forced_from_two",
        "east: a; west: b; north: c, d",
        "round_robin.v3.RoundRobin min_cluster_size: 1, force_local_zone: {min_size: 2}",
    ),
    (
        "of_weight",
        "east: a - 1; west: b - 3",
        "round_robin.v3.RoundRobin min_cluster_size: 1, locality_basis: HEALTHY_HOSTS_WEIGHT",
    ),
];

const SMALL: &str = "common_lb_config: {zone_aware_lb_config: {min_cluster_size: 1}}";

/// The sidecars of our kind: half of them in our zone.
const HALF_HERE: &str = "east: 1, 2; west: 3; north: 4";

fn cluster((name, zones, policy): &(&str, Zones, &str)) -> String {
    let policy = match policy.split_once(".v3.") {
        None => (*policy).to_owned(),
        Some(_) => {
            let (message, config) = policy.split_once(' ').unwrap_or((policy, ""));
            format!(
                "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: x, typed_config: {{'@type': \
                 type.googleapis.com/envoy.extensions.load_balancing_policies.{message}, \
                 locality_lb_config: {{zone_aware_lb_config: {{{config}}}}}}}}}}}]}}"
            )
        }
    };
    assigned(name, zones, &policy, |name| format!("${{{name}}}"))
}

fn assigned(name: &str, zones: &str, more: &str, address: impl Fn(&str) -> String) -> String {
    let group = |zone: &str| {
        let (zone, endpoints) = zone.split_once(':').unwrap_or((zone, ""));
        let endpoint = |text: &str| {
            let mut words = text.split_whitespace();
            let address = address(words.next().unwrap_or_default());
            let state = words.next().filter(|state| *state != "-").unwrap_or("UNKNOWN");
            let weight = words.next().unwrap_or("1");
            format!(
                "{{endpoint: {{address: {address}}}, health_status: {state}, load_balancing_weight: {weight}}}"
            )
        };
        let endpoints: Vec<String> = endpoints.split(',').map(endpoint).collect();
        format!(
            "{{locality: {{zone: {}}}, load_balancing_weight: 1, lb_endpoints: [{}]}}",
            zone.trim(),
            endpoints.join(", ")
        )
    };
    let groups: Vec<String> = zones.split(';').map(group).collect();
    format!(
        "- name: {name}
  type: STATIC
  connect_timeout: 2s
  load_assignment: {{cluster_name: {name}, endpoints: [{}]}}
  {more}
",
        groups.join(", ")
    )
}

/// With these sidecars of our kind, which get no traffic here.
fn world(name: &'static str, sidecars: &str, clusters: &[String], cases: Vec<Case>) -> Group {
    let local = assigned("local", sidecars, "", |number| {
        format!("{{socket_address: {{address: 127.9.9.{number}, port_value: 9}}}}")
    });
    let paths: String = clusters
        .iter()
        .filter_map(|cluster| cluster.lines().next()?.strip_prefix("- name: "))
        .map(|name| format!("- {{match: {{path: /{name}}}, route: {{cluster: {name}}}}}\n"))
        .collect();
    let clusters: Vec<String> = clusters.iter().cloned().chain([local]).collect();
    let whole = bootstrap(&[http_listener("LISTEN", &routes(&paths))], &clusters);
    Group {
        name,
        bootstrap: whole.replace(
            "node: {id: test, cluster: test}",
            "node: {id: test, cluster: test, locality: {zone: east}}\ncluster_manager: {local_cluster_name: local}",
        ),
        upstreams: UPSTREAMS.iter().map(|name| (*name, UpstreamKind::Plain)).collect(),
        unsupported: None,
        cases,
    }
}

/// Wants each upstream to get a number in its range, of so many requests to a cluster.
fn share(
    rule: &'static str,
    cluster: &'static str,
    total: u64,
    expected: [RangeInclusive<u64>; 4],
) -> Case {
    Case::custom(rule, move |world| {
        let expected = expected.clone();
        Box::pin(async move { counted(world, cluster, total, &expected).await })
    })
}

async fn counted(
    world: &World,
    cluster: &str,
    total: u64,
    expected: &[RangeInclusive<u64>; 4],
) -> Result<Observation> {
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    let before = statistics(world, cluster).await?;
    for _ in 0..total {
        let response = connection.send(&Request::get(&format!("/{cluster}"))).await?;
        ensure!(response.status == 200, "{response:?}");
    }
    let mut seen = Observation::default();
    for (name, expected) in UPSTREAMS.iter().zip(expected) {
        let got = world.upstream(name)?.take().len() as u64;
        ensure!(expected.contains(&got), "{name} got {got} of {total}, not {expected:?}");
    }
    seen.fact("share", "within bounds", true);
    let after = statistics(world, cluster).await?;
    for (name, value) in counts(&before, &after, total) {
        seen.fact("statistics", name, value);
    }
    Ok(seen)
}

const STATISTICS: [&str; 7] = [
    "lb_zone_routing_all_directly",
    "lb_zone_routing_sampled",
    "lb_zone_routing_cross_zone",
    "lb_zone_no_capacity_left",
    "lb_zone_cluster_too_small",
    "lb_local_cluster_not_ok",
    "lb_recalculate_zone_structures",
];

async fn statistics(world: &World, cluster: &str) -> Result<[u64; 7]> {
    let mut values = [0; 7];
    let text = world.proxy.admin("/stats").await?;
    for (value, name) in values.iter_mut().zip(STATISTICS) {
        let name = format!("cluster.{cluster}.{name}: ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).context(name)?;
        *value = line.parse()?;
    }
    Ok(values)
}

/// What does not depend on chance and not on the number of threads.
fn counts(before: &[u64; 7], after: &[u64; 7], total: u64) -> Vec<(&'static str, String)> {
    let some = |count| match count {
        0 => "none",
        count if count == total => "all",
        _ => "some",
    };
    let [direct, sampled, cross, nothing_left, ..] =
        std::array::from_fn::<u64, 7, _>(|at| after[at] - before[at]);
    let [.., too_small, not_ok, recalculated] = *after;
    vec![
        ("all directly", some(direct).to_owned()),
        ("sampled or cross zone", some(sampled + cross).to_owned()),
        ("no capacity left", nothing_left.to_string()),
        ("too small", (too_small > 0).to_string()),
        ("local cluster not ok", (not_ok > 0).to_string()),
        ("recalculated", (recalculated > 0).to_string()),
    ]
}

pub(crate) fn group() -> Group {
    let clusters: Vec<String> = CLUSTERS.iter().map(cluster).collect();
    // Bounds are more than five standard deviations wide.
    let cases = vec![
        share("what_our_zone_covers_stays", "covered", 40, [20..=20, 20..=20, 0..=0, 0..=0]),
        share(
            "what_it_does_not_cover_goes_where_something_is_left",
            "lacking",
            400,
            [145..=255, 0..=0, 60..=140, 60..=140],
        ),
        share(
            "without_endpoints_in_our_zone_the_others_share",
            "elsewhere",
            400,
            [0..=0, 145..=255, 145..=255, 0..=0],
        ),
        share(
            "a_zone_whose_endpoints_are_down_gets_nothing",
            "down_here",
            400,
            [0..=0, 145..=255, 145..=255, 0..=0],
        ),
        share(
            "so_does_one_whose_endpoints_drain",
            "draining_here",
            40,
            [0..=0, 40..=40, 0..=0, 0..=0],
        ),
        share("a_small_cluster_is_not_divided", "too_small", 40, [20..=20, 20..=20, 0..=0, 0..=0]),
        share("nor_is_one_of_a_single_zone", "one_zone", 40, [20..=20, 20..=20, 0..=0, 0..=0]),
        share(
            "weights_of_localities_come_first",
            "by_weights",
            400,
            [199..=201, 45..=55, 145..=155, 0..=0],
        ),
        share(
            "a_share_of_the_requests_is_divided",
            "seldom",
            400,
            [120..=220, 120..=220, 33..=100, 0..=0],
        ),
        share("least_request_is_zone_aware", "least", 400, [145..=255, 145..=255, 0..=0, 0..=0]),
        share("within_a_zone_weights_count", "weighted", 40, [9..=11, 29..=31, 0..=0, 0..=0]),
        share(
            "random_in_the_list_is_zone_aware",
            "typed",
            400,
            [145..=255, 0..=0, 60..=140, 60..=140],
        ),
        share(
            "everything_may_stay_by_the_deprecated_field",
            "direct",
            40,
            [40..=40, 0..=0, 0..=0, 0..=0],
        ),
        share("everything_may_stay", "forced", 40, [40..=40, 0..=0, 0..=0, 0..=0]),
        share(
            "but_only_with_enough_endpoints",
            "forced_from_two",
            400,
            [145..=255, 0..=0, 60..=140, 60..=140],
        ),
        share("shares_may_be_of_weights", "of_weight", 400, [145..=255, 145..=255, 0..=0, 0..=0]),
    ];
    world("zones", HALF_HERE, &clusters, cases)
}

/// Where the local cluster itself is in a panic, or knows only our zone.
pub(crate) mod local_panic {
    use super::*;

    pub(crate) fn group() -> Group {
        let fails = "common_lb_config: {zone_aware_lb_config: {min_cluster_size: 1, fail_traffic_on_panic: true}}";
        let clusters = [
            cluster(&("covered", "east: a, b; west: c", SMALL)),
            cluster(&("fails", "east: a, b; west: c", fails)),
        ];
        let cases = vec![
            share(
                "its_panic_ends_zone_awareness",
                "covered",
                30,
                [10..=10, 10..=10, 10..=10, 0..=0],
            ),
            Case::new("or_makes_traffic_fail").get("/fails", "503 -"),
        ];
        let sidecars = "east: 1, 2 UNHEALTHY; west: 3 UNHEALTHY; north: 4 TIMEOUT";
        world("zones_local_panic", sidecars, &clusters, cases)
    }
}

/// Where the local cluster has nobody in our zone.
pub(crate) mod local_elsewhere {
    use super::*;

    pub(crate) fn group() -> Group {
        let clusters = [cluster(&("covered", "east: a, b; west: c", SMALL))];
        let cases = vec![share(
            "a_local_cluster_without_us_does_not_count",
            "covered",
            30,
            [10..=10, 10..=10, 10..=10, 0..=0],
        )];
        world("zones_local_elsewhere", "west: 3; north: 4", &clusters, cases)
    }
}

/// Where the local cluster has one zone only.
pub(crate) mod local_zone {
    use super::*;

    pub(crate) fn group() -> Group {
        let forced = "round_robin.v3.RoundRobin min_cluster_size: 1, force_local_zone: {}";
        let clusters = [
            cluster(&("covered", "east: a, b; west: c", SMALL)),
            cluster(&("forced", "east: a, b; west: c", forced)),
        ];
        let cases = vec![
            share(
                "a_local_cluster_of_one_zone_does_not_count",
                "covered",
                30,
                [10..=10, 10..=10, 10..=10, 0..=0],
            ),
            share("unless_everything_is_to_stay", "forced", 30, [15..=15, 15..=15, 0..=0, 0..=0]),
        ];
        world("zones_local_zone", "east: 1, 2", &clusters, cases)
    }
}
