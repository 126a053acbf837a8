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
- {match: {prefix: /robin}, route: {cluster: robin}}
- {match: {prefix: /weighted}, route: {cluster: weighted}}
- {match: {prefix: /random}, route: {cluster: random}}
- {match: {prefix: /least}, route: {cluster: least}}
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
            ],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("b", UpstreamKind::Plain)],
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
            Case::custom("least_request_spreads_evenly_when_idle", |world| {
                Box::pin(share(world, "/least", 400, 140..=260))
            }),
        ],
    }
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
