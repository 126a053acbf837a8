//! Each policy over the same five endpoints with the same weights: both proxies have to come to the distribution that the
//! policy promises, by Pearson's chi-square test. Who gets which key of a hash is compared key by key in `hashing`.

use anyhow::{Result, ensure};
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, http_listener, routes};

const UPSTREAMS: [&str; 5] = ["a", "b", "c", "d", "e"];
const WEIGHTS: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 10.0];
const EQUAL: [f64; 5] = [1.0; 5];
const REQUESTS: usize = 3000;
/// What chi-square with 4 degrees of freedom exceeds once in a million times.
const LIMIT: f64 = 33.38;

/// A policy: its rule, its cluster, how that chooses, the weights of its endpoints, and the shares that come of them.
type Policy = (&'static str, &'static str, &'static str, [f64; 5], [f64; 5]);

const ONE_BY_ONE: &str = "lb_policy: ROUND_ROBIN";
const LEAST: &str = "lb_policy: LEAST_REQUEST";

const POLICIES: [Policy; 9] = [
    ("round_robin_is_even", "turns", ONE_BY_ONE, EQUAL, EQUAL),
    ("round_robin_goes_by_weight", "turns_by_weight", ONE_BY_ONE, WEIGHTS, WEIGHTS),
    ("least_request_is_even_when_idle", "least", LEAST, EQUAL, EQUAL),
    ("least_request_goes_by_weight", "least_by_weight", LEAST, WEIGHTS, WEIGHTS),
    (
        "least_request_goes_by_weight_without_a_bias",
        "least_without_bias",
        "lb_policy: LEAST_REQUEST\n  least_request_lb_config: {active_request_bias: {default_value: 0, runtime_key: bias}}",
        WEIGHTS,
        WEIGHTS,
    ),
    (
        "least_request_of_five_is_even_when_idle",
        "least_of_five",
        "lb_policy: LEAST_REQUEST\n  least_request_lb_config: {choice_count: 5}",
        EQUAL,
        EQUAL,
    ),
    ("least_request_of_all_is_even_when_idle", "least_of_all", "FULL_SCAN", EQUAL, EQUAL),
    ("random_is_even", "random", "lb_policy: RANDOM", EQUAL, EQUAL),
    ("random_ignores_weights", "random_in_spite_of_weight", "lb_policy: RANDOM", WEIGHTS, EQUAL),
];

fn cluster((_, name, policy, weights, _): &Policy) -> String {
    let full_scan = "load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: {'@type': \
                     type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest, \
                     selection_method: FULL_SCAN}}}]}";
    let policy = policy.replace("FULL_SCAN", full_scan);
    let endpoints: Vec<String> = UPSTREAMS
        .iter()
        .zip(weights)
        .map(|(name, weight)| {
            format!("{{endpoint: {{address: ${{{name}}}}}, load_balancing_weight: {weight}}}")
        })
        .collect();
    format!(
        "- name: {name}
  type: STATIC
  connect_timeout: 2s
  {policy}
  load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}
",
        endpoints.join(", ")
    )
}

pub(crate) fn group() -> Group {
    let clusters: Vec<String> = POLICIES.iter().map(cluster).collect();
    let paths: String = POLICIES
        .iter()
        .map(|(_, name, ..)| {
            format!("- {{match: {{path: /{name}}}, route: {{cluster: {name}}}}}\n")
        })
        .collect();
    let cases = POLICIES
        .iter()
        .map(|policy| Case::custom(policy.0, move |world| Box::pin(distributed(world, policy))));
    Group {
        name: "distributions",
        bootstrap: bootstrap(&[http_listener("LISTEN", &routes(&paths))], &clusters),
        upstreams: UPSTREAMS.map(|name| (name, UpstreamKind::Plain)).to_vec(),
        unsupported: None,
        cases: cases.collect(),
    }
}

async fn distributed(world: &World, policy: &Policy) -> Result<Observation> {
    let (_, name, _, _, shares) = policy;
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    for _ in 0..REQUESTS {
        let response = connection.send(&Request::get(&format!("/{name}"))).await?;
        ensure!(response.status == 200, "{response:?}");
    }
    let mut counts = [0; 5];
    for (count, upstream) in counts.iter_mut().zip(UPSTREAMS) {
        *count = world.upstream(upstream)?.take().len();
    }
    let whole: f64 = shares.iter().sum();
    #[allow(clippy::cast_precision_loss)] // a few thousand
    let distance: f64 = counts
        .iter()
        .zip(shares)
        .map(|(&count, share)| {
            let expected = REQUESTS as f64 * share / whole;
            (count as f64 - expected).powi(2) / expected
        })
        .sum();
    ensure!(distance < LIMIT, "{counts:?}: chi-square is {distance:.1}");
    let mut seen = Observation::default();
    seen.fact("chi-square", "is small", true);
    Ok(seen)
}
