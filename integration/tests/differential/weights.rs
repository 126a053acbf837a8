//! How traffic is split between weighted clusters and weighted endpoints.

use anyhow::{Result, ensure};
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- match: {prefix: /split}
  route: {weighted_clusters: {clusters: [{name: a, weight: 80}, {name: b, weight: 20}]}}
- match: {prefix: /zero}
  route: {weighted_clusters: {clusters: [{name: a, weight: 0}, {name: b, weight: 1}]}}
- {match: {prefix: /named}, route: {cluster_header: x-cluster}}
- match: {prefix: /one-named}
  route:
    weighted_clusters:
      header_name: x-draw
      clusters:
      - {name: a, weight: 60}
      - cluster_header: x-cluster
        weight: 40
        request_headers_to_add: [{header: {key: x-named, value: 'yes'}}]
        response_headers_to_add: [{header: {key: x-named, value: 'yes'}}]
- match: {prefix: /drawn}
  route: {weighted_clusters: {header_name: x-draw, runtime_key_prefix: drawn, clusters: [{name: a, weight: 1}, {name: b, weight: 1}]}}
- {match: {prefix: /robin}, route: {cluster: robin}}
- {match: {prefix: /weighted}, route: {cluster: weighted}}
- {match: {prefix: /random}, route: {cluster: random}}
- {match: {prefix: /least}, route: {cluster: least}}
- {match: {prefix: /peak}, route: {cluster: peak}}
- {match: {prefix: /scan}, route: {cluster: scan}}
- {match: {prefix: /localities}, route: {cluster: localities}}
- {match: {prefix: /half-locality}, route: {cluster: half_locality}}
- {match: {prefix: /priorities}, route: {cluster: priorities}}
- {match: {prefix: /health-by-weight}, route: {cluster: weighted_health}}
- {match: {prefix: /degraded}, route: {cluster: degraded}}
- {match: {prefix: /panic}, route: {cluster: panic}}
- {match: {prefix: /total-panic}, route: {cluster: total_panic}}
"#;

pub(crate) fn group() -> Group {
    let weighted = "- name: weighted
  type: STATIC
  load_assignment:
    cluster_name: weighted
    endpoints:
    - lb_endpoints:
      - {endpoint: {address: ${a}}, load_balancing_weight: 3}
      - {endpoint: {address: ${b}}, load_balancing_weight: 1}
";
    let located = |name: &str, groups: &[&str], more: &str| {
        let policy = "lb_policy: ROUND_ROBIN";
        let groups = groups.join("}, {");
        format!(
            "- {{name: {name}, type: STATIC, {policy}, {more}, load_assignment: {{cluster_name: {name}, endpoints: [{{{groups}}}]}}}}\n"
        )
    };
    let by_locality = "common_lb_config: {locality_weighted_lb_config: {}}";
    let all = "lb_endpoints: [{endpoint: {address: ${a}}}, {endpoint: {address: ${b}}, health_status: UNHEALTHY}]";
    let b_only = "lb_endpoints: [{endpoint: {address: ${b}}}]";
    let a_and_down = "lb_endpoints: [{endpoint: {address: ${a}}}, {endpoint: {address: ${closed}}, health_status: UNHEALTHY}]";
    let scan = "load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: {'@type': \
                type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest, \
                selection_method: FULL_SCAN}}}]}";
    let peak = "load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: {'@type': \
                type.googleapis.com/xds.type.v3.TypedStruct, type_url: \
                type.googleapis.com/outrigger.load_balancing.v1.PeakEwma, value: {decay: 5s}}}}, \
                {typed_extension_config: {name: z, typed_config: {'@type': \
                type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest}}}]}";
    Group {
        name: "weights",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &routes(ROUTES))],
            &[
                cluster("a", &["a"], ""),
                cluster("b", &["b"], ""),
                cluster("robin", &["a", "b"], "lb_policy: ROUND_ROBIN"),
                cluster("random", &["a", "b"], "lb_policy: RANDOM"),
                cluster("least", &["a", "b"], "lb_policy: LEAST_REQUEST"),
                weighted.to_owned(),
                cluster("scan", &["a", "b"], scan),
                cluster("peak", &["a"], peak),
                located(
                    "localities",
                    &[
                        "locality: {zone: east}, load_balancing_weight: 3, lb_endpoints: [{endpoint: {address: ${a}}}]",
                        "locality: {zone: west}, load_balancing_weight: 1, lb_endpoints: [{endpoint: {address: ${b}}}]",
                    ],
                    by_locality,
                ),
                located(
                    "half_locality",
                    &[
                        &format!("locality: {{zone: east}}, load_balancing_weight: 1, {a_and_down}"),
                        &format!("locality: {{zone: west}}, load_balancing_weight: 1, {b_only}"),
                    ],
                    by_locality,
                ),
                located("priorities", &[a_and_down, &format!("priority: 1, {b_only}")], "alt_stat_name: p"),
                located(
                    "weighted_health",
                    &[
                        "lb_endpoints: [{endpoint: {address: ${a}}}, {endpoint: {address: ${closed}}, health_status: UNHEALTHY, load_balancing_weight: 9}]",
                        &format!("priority: 1, {b_only}"),
                    ],
                    "alt_stat_name: w",
                )
                .replace("load_assignment: {", "load_assignment: {policy: {weighted_priority_health: true}, "),
                located(
                    "degraded",
                    &["lb_endpoints: [{endpoint: {address: ${a}}, health_status: DEGRADED}, {endpoint: {address: ${b}}}]"],
                    "alt_stat_name: d",
                ),
                located("panic", &[all], "common_lb_config: {healthy_panic_threshold: {value: 60}}"),
                located(
                    "total_panic",
                    &[
                        "lb_endpoints: [{endpoint: {address: ${a}}, health_status: UNHEALTHY}]",
                        "priority: 1, lb_endpoints: [{endpoint: {address: ${b}}, health_status: TIMEOUT}]",
                    ],
                    "alt_stat_name: t",
                ),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("b", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
        ],
        unsupported: None,
        cases: vec![
            // Bounds are six standard deviations wide: 500 draws at 0.8 have one of 9.
            Case::custom("weighted_clusters_split_by_weight", |world| {
                Box::pin(share(world, "/split", 500, 346..=454))
            }),
            Case::new("a_header_names_the_cluster")
                .send(Request::get("/named").header("x-cluster", "a"), "200 a")
                .send(Request::get("/named").header("x-cluster", "b"), "200 b")
                .send(Request::get("/named").header("x-cluster", "a"), "200 a")
                .send(Request::get("/named").header("x-cluster", "missing"), "503 -")
                .send(Request::get("/named"), "503 -"),
            one_named(),
            Case::new("a_policy_that_envoy_does_not_have_is_passed_over").get("/peak", "200 a"),
            Case::custom("a_weight_of_zero_gets_nothing", |world| {
                Box::pin(share(world, "/zero", 50, 0..=0))
            }),
            Case::custom("round_robin_takes_turns", |world| {
                Box::pin(share(world, "/robin", 40, 20..=20))
            }),
            Case::custom("round_robin_follows_endpoint_weights", |world| {
                Box::pin(share(world, "/weighted", 40, 29..=31))
            }),
            Case::custom("random_spreads_evenly", |world| {
                Box::pin(share(world, "/random", 400, 140..=260))
            }),
            Case::custom("least_request_of_all_spreads_evenly_when_idle", |world| {
                Box::pin(share(world, "/scan", 400, 140..=260))
            }),
            Case::custom("localities_get_traffic_by_their_weights", |world| {
                Box::pin(share(world, "/localities", 40, 29..=31))
            }),
            // 70 to 100 after overprovisioning.
            Case::custom("a_locality_that_lacks_health_gets_less", |world| {
                Box::pin(share(world, "/half-locality", 170, 69..=71))
            }),
            Case::custom("a_priority_that_lacks_health_spills_over", |world| {
                Box::pin(share(world, "/priorities", 400, 225..=335))
            }),
            Case::custom("health_may_be_counted_by_weight", |world| {
                Box::pin(share(world, "/health-by-weight", 400, 14..=98))
            }),
            Case::custom("degraded_endpoints_get_what_is_left", |world| {
                Box::pin(share(world, "/degraded", 400, 65..=175))
            }),
            Case::custom("in_a_panic_everyone_gets_traffic", |world| {
                Box::pin(share(world, "/panic", 40, 20..=20))
            }),
            Case::custom("in_a_total_panic_priorities_share_by_their_numbers", |world| {
                Box::pin(share(world, "/total-panic", 400, 140..=260))
            }),
            Case::custom("least_request_spreads_evenly_when_idle", |world| {
                Box::pin(share(world, "/least", 400, 140..=260))
            }),
        ],
    }
}

/// One of several clusters is named by a header, and a header draws among them.
fn one_named() -> Case {
    let drawn = |path: &str, draw: &str| Request::get(path).header("x-draw", draw);
    Case::new("a_header_draws_among_clusters_and_another_names_one")
        .send(drawn("/one-named", "0"), "200 a")
        .send(drawn("/one-named", "59"), "200 a")
        .send(drawn("/one-named", "60").header("x-cluster", "b"), "200 b")
        .send(drawn("/one-named", "199").header("x-cluster", "a"), "200 a")
        .send(drawn("/one-named", "159").header("x-cluster", "b").http2(), "200 a")
        .send(drawn("/one-named", "60").header("x-cluster", "missing"), "503 -")
        .send(drawn("/one-named", "60"), "503 -")
        .send(drawn("/drawn", "0"), "200 a")
        .send(drawn("/drawn", "1"), "200 b")
        .send(drawn("/drawn", "18446744073709551615"), "200 b")
}

/// Sends `total` requests one after the other and wants `a` to get a number in `expected`.
async fn share(
    world: &World,
    path: &str,
    total: usize,
    expected: std::ops::RangeInclusive<usize>,
) -> Result<Observation> {
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    for _ in 0..total {
        let response = connection.send(&Request::get(path)).await?;
        ensure!(response.status == 200, "{response:?}");
    }
    let (a, b) = (world.upstream("a")?.take().len(), world.upstream("b")?.take().len());
    ensure!(a + b == total, "{a} and {b} of {total}");
    ensure!(expected.contains(&a), "a got {a} of {total}, not {expected:?}");
    let mut observation = Observation::default();
    observation.fact("share", "within bounds", true);
    Ok(observation)
}
