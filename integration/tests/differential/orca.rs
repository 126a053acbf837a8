//! Load reports of endpoints (ORCA): in which form they come, and the weights that follow from them.
//!
//! Weights are seen in `/clusters`. They change in the background: a case asks until both endpoints have reported and been
//! weighed as expected.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, http_listener, indent, routes};

const UPSTREAMS: [&str; 2] = ["a", "b"];

/// A cluster and what its policy says beside the periods.
const CLUSTERS: [(&str, &str); 13] = [
    ("text", ""),
    ("json", ""),
    ("binary", ""),
    ("legacy", ""),
    ("trailers", ""),
    ("errors", "error_utilization_penalty: 2"),
    ("no_penalty", ""),
    (
        "named",
        "metric_names_for_computing_utilization: [named_metrics.a, named_metrics.b, mem_utilization]",
    ),
    ("application", "metric_names_for_computing_utilization: [utilization.x]"),
    ("unreadable", ""),
    ("unprefixed", ""),
    ("too_little", ""),
    ("median", ""),
];

const TYPE: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin";

fn cluster((name, settings): &(&str, &str)) -> String {
    let periods = "blackout_period: 0s, weight_update_period: 0.1s";
    let policy = format!(
        "{{typed_extension_config: {{name: x, typed_config: {{'@type': {TYPE}, {periods}, {settings}}}}}}}"
    );
    with_policy(name, &policy, "")
}

fn with_policy(name: &str, policy: &str, locality: &str) -> String {
    let endpoints =
        UPSTREAMS.map(|name| format!("{{endpoint: {{address: ${{{name}}}}}}}")).join(", ");
    let http2 = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";
    format!(
        "- name: {name}
  type: STATIC
  connect_timeout: 2s
  load_balancing_policy: {{policies: [{policy}]}}
{}  load_assignment: {{cluster_name: {name}, endpoints: [{{{locality}lb_endpoints: [{endpoints}]}}]}}
",
        indent(http2, 2)
    )
}

/// What each upstream answers.
type Replies = fn(&str) -> Reply;

fn reported(value: &str) -> Reply {
    Reply::status(200).header("endpoint-load-metrics", value)
}

/// A report of so many requests a second, and of half of the processors, on the wire.
fn encoded(requests: f64) -> Vec<u8> {
    let mut bytes = vec![0x09];
    bytes.extend(0.5f64.to_le_bytes());
    bytes.push(0x31);
    bytes.extend(requests.to_le_bytes());
    bytes
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// `until`: the weights that are waited for, since they have to come.
fn weighs(rule: &'static str, cluster: &'static str, replies: Replies, until: [u64; 2]) -> Case {
    Case::custom(rule, move |world| Box::pin(weighed(world, cluster, replies, until)))
}

async fn weighed(
    world: &World,
    cluster: &str,
    replies: Replies,
    until: [u64; 2],
) -> Result<Observation> {
    for name in UPSTREAMS {
        world.upstream(name)?.default_reply(Some(replies(name)));
    }
    // A client that takes trailers.
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http2, None).await?;
    let limit = Instant::now() + Duration::from_secs(20);
    // Twice, a few updates apart: the first time only one of the two may have been weighed.
    let mut found = 0;
    while found < 2 {
        for _ in 0..8 {
            let response = connection.send(&Request::get(&format!("/{cluster}"))).await?;
            ensure!(response.status == 200, "{response:?}");
        }
        let now = weights(world, cluster).await?;
        found = if now == until { found + 1 } else { 0 };
        ensure!(Instant::now() < limit, "{cluster}: {now:?}, not {until:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut seen = Observation::default();
    seen.fact("weights", cluster, format!("{until:?}"));
    for name in UPSTREAMS {
        world.upstream(name)?.take();
    }
    Ok(seen)
}

/// The weights of the two endpoints.
async fn weights(world: &World, cluster: &str) -> Result<[u64; 2]> {
    let text = world.proxy.admin("/clusters").await?;
    let mut weights = [0; 2];
    for (weight, name) in weights.iter_mut().zip(UPSTREAMS) {
        let start = format!("{cluster}::{}::weight::", world.address(name)?);
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        *weight = line.map_or(Ok(0), str::parse)?;
    }
    Ok(weights)
}

/// Traffic follows the weights that the case before has brought about.
async fn follows(world: &World, cluster: &str, expected: usize) -> Result<Observation> {
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    for name in UPSTREAMS {
        world.upstream(name)?.default_reply(None);
    }
    for _ in 0..40 {
        connection.send(&Request::get(&format!("/{cluster}"))).await?;
    }
    let (a, b) = (world.upstream("a")?.take().len(), world.upstream("b")?.take().len());
    ensure!(a + b == 40 && a.abs_diff(expected) <= 1, "{a} and {b}");
    let mut seen = Observation::default();
    seen.fact("share", "within one of", expected);
    Ok(seen)
}

pub(crate) fn group() -> Group {
    let paths: String = CLUSTERS
        .iter()
        .map(|(name, _)| *name)
        .chain(["localities"])
        .map(|name| format!("- {{match: {{prefix: /{name}}}, route: {{cluster: {name}}}}}\n"))
        .collect();
    let inside = format!(
        "{{typed_extension_config: {{name: x, typed_config: {{'@type': {TYPE}, blackout_period: 0s, weight_update_period: 0.1s}}}}}}"
    );
    let localities = with_policy(
        "localities",
        &format!(
            "{{typed_extension_config: {{name: x, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality, \
             endpoint_picking_policy: {{policies: [{inside}]}}}}}}}}"
        ),
        "locality: {zone: z}, load_balancing_weight: 1, ",
    );
    let clusters: Vec<String> = CLUSTERS.iter().map(cluster).chain([localities]).collect();
    Group {
        name: "orca",
        bootstrap: bootstrap(&[http_listener("LISTEN", &routes(&paths))], &clusters),
        upstreams: UPSTREAMS.iter().map(|name| (*name, UpstreamKind::Plain)).collect(),
        unsupported: None,
        cases: cases(),
    }
}

fn by_name(name: &str, a: &str, b: &str) -> String {
    if name == "a" { a } else { b }.to_owned()
}

fn cases() -> Vec<Case> {
    vec![
        weighs(
            "a_report_may_be_text",
            "text",
            |name| {
                let requests = by_name(name, "300", "100");
                reported(&format!("TEXT cpu_utilization:0.5, rps_fractional:{requests}"))
            },
            [600, 200],
        ),
        Case::custom("traffic_follows_the_weights", |world| Box::pin(follows(world, "text", 30))),
        weighs(
            "a_report_may_be_json",
            "json",
            |name| {
                let requests = by_name(name, "30", "10.5");
                let more = r#""namedMetrics":{"a":1}"#;
                reported(&format!(
                    r#"JSON {{"cpu_utilization":0.5,"rpsFractional":{requests},{more}}}"#
                ))
            },
            [60, 21],
        ),
        weighs(
            "a_report_may_be_binary",
            "binary",
            |name| {
                let requests = if name == "a" { 5.0 } else { 6.0 };
                reported(&format!("BIN {}", base64(&encoded(requests))))
            },
            [10, 12],
        ),
        weighs(
            "a_binary_report_may_have_a_header_of_its_own",
            "legacy",
            |name| {
                let text = base64(&encoded(if name == "a" { 7.0 } else { 8.0 }));
                // With padding, and as grpc-go has it.
                let text = if name == "a" { &*text } else { text.trim_end_matches('=') };
                Reply::status(200).header("endpoint-load-metrics-bin", text)
            },
            [14, 16],
        ),
        weighs(
            "a_report_may_come_in_trailers",
            "trailers",
            |name| {
                let requests = by_name(name, "9", "8");
                let report = format!("TEXT rps_fractional:{requests},cpu_utilization:0.25");
                Reply::status(200).body("body").trailer("endpoint-load-metrics", &report)
            },
            [36, 32],
        ),
        weighs(
            "errors_count_as_utilization",
            "errors",
            |name| {
                let errors = by_name(name, "10", "25");
                reported(&format!("TEXT rps_fractional:100,cpu_utilization:0.3,eps:{errors}"))
            },
            [200, 125],
        ),
        weighs(
            "but_not_where_nothing_is_set",
            "no_penalty",
            |name| {
                let errors = by_name(name, "10", "25");
                reported(&format!("TEXT rps_fractional:100,cpu_utilization:0.5,eps:{errors}"))
            },
            [200, 200],
        ),
        weighs(
            "the_largest_of_the_named_metrics_counts",
            "named",
            |name| {
                let named =
                    by_name(name, "named_metrics.a:0.2,named_metrics.b:0.4", "mem_utilization:0.1");
                reported(&format!(
                    "TEXT rps_fractional:8,cpu_utilization:0.9,application_utilization:0.8,{named}"
                ))
            },
            [20, 80],
        ),
        weighs(
            "then_what_the_application_says_before_its_processors",
            "application",
            |name| {
                let own =
                    by_name(name, "application_utilization:0.25", "application_utilization:0");
                reported(&format!("TEXT rps_fractional:8,cpu_utilization:0.5,{own}"))
            },
            [32, 16],
        ),
        weighs(
            "a_report_that_cannot_be_read_is_none",
            "unreadable",
            |name| {
                reported(&by_name(
                    name,
                    "TEXT rps_fractional:100,cpu_utilization:0.5,unknown:1",
                    "TEXT rps_fractional:50,cpu_utilization:0.5",
                ))
            },
            [100, 100],
        ),
        weighs(
            "nor_is_one_that_does_not_say_how_to_read_it",
            "unprefixed",
            |name| {
                reported(&by_name(
                    name,
                    "rps_fractional:100,cpu_utilization:0.5",
                    "TEXT rps_fractional:50,cpu_utilization:0.5",
                ))
            },
            [100, 100],
        ),
        weighs(
            "nor_is_one_that_says_too_little",
            "too_little",
            |name| {
                reported(&by_name(
                    name,
                    "TEXT rps_fractional:100,mem_utilization:0.5",
                    "TEXT rps_fractional:50,cpu_utilization:0.5",
                ))
            },
            [100, 100],
        ),
        weighs(
            "who_does_not_report_has_the_median_of_the_others",
            "median",
            |name| match name {
                "a" => reported("TEXT rps_fractional:50,cpu_utilization:0.5"),
                _ => Reply::status(200),
            },
            [100, 100],
        ),
        weighs(
            "within_localities_it_is_the_same",
            "localities",
            |name| {
                let requests = by_name(name, "3", "4");
                reported(&format!("TEXT rps_fractional:{requests},cpu_utilization:1"))
            },
            [3, 4],
        ),
    ]
}
