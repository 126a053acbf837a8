//! Load reports: what a server is told that asks for the load of clusters. A report may come in the middle of a case, so
//! that what is compared is the sum of the reports.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::lrs::Report;
use outrigger_integration::upstream::Reply;
use outrigger_proto::envoy::config::core::v3::address::Address;
use outrigger_proto::envoy::service::load_stats::v3::LoadStatsResponse;
use outrigger_proto::google::protobuf::Duration as DurationProto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const LIMIT: Duration = Duration::from_secs(20);

const LOCATED: &str = "- name: located
  type: STATIC
  load_assignment:
    cluster_name: located
    endpoints:
    - locality: {region: r, zone: z1, sub_zone: s}
      lb_endpoints: [{endpoint: {address: ${a}}}]
    - locality: {region: r, zone: z2}
      lb_endpoints: [{endpoint: {address: ${b}}}]
    - locality: {region: far}
      priority: 1
      lb_endpoints: [{endpoint: {address: ${c}}}]
";

const DROPPING: &str = "- name: NAME
  type: STATIC
  load_assignment:
    cluster_name: NAME
    policy: {drop_overloads: [{category: shed, drop_percentage: {numerator: 100}}]}
    endpoints: [{lb_endpoints: [{endpoint: {address: ${a}}}]}]
";

pub(crate) fn group() -> Group {
    let routes = routes(
        "- {match: {prefix: /located}, route: {cluster: located}}
- {match: {prefix: /dropping}, route: {cluster: dropping}}
- {match: {prefix: /full}, route: {cluster: full}}
- {match: {prefix: /closed}, route: {cluster: closed}}
- match: {prefix: /retried}
  route: {cluster: one, retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}}
- {match: {prefix: /timeout}, route: {cluster: one, timeout: 0.1s}}
- {match: {prefix: /}, route: {cluster: one}}",
    );
    let tcp = "- name: LISTEN_TCP\n  address: ${LISTEN_TCP}\n  filter_chains:\n  - filters:\n    - name: tcp\n      typed_config:\n        '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n        stat_prefix: tcp\n        cluster: t\n";
    let http2 = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}";
    let bootstrap = bootstrap(
        &[http_listener("LISTEN", &routes), tcp.to_owned()],
        &[
            LOCATED.to_owned(),
            DROPPING.replace("NAME", "dropping"),
            cluster("one", &["a"], ""),
            cluster("full", &["a"], "circuit_breakers: {thresholds: [{max_requests: 0}]}"),
            cluster("closed", &["closed"], ""),
            cluster("t", &["t"], ""),
            cluster("lrs", &["lrs"], http2),
        ],
    );
    let config = "cluster_manager: {load_stats_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: lrs}}]}}";
    Group {
        name: "load_reports",
        bootstrap: format!("{config}\n{bootstrap}"),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("b", UpstreamKind::Plain),
            ("c", UpstreamKind::Plain),
            ("t", UpstreamKind::Tcp),
            ("closed", UpstreamKind::Closed),
            ("lrs", UpstreamKind::LoadReports),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case::custom("a_stream_begins_with_who_we_are", |world| Box::pin(first(world))),
        case("requests_count_by_locality", &["located"], false, 4, |_| vec![("/located", 200); 4]),
        case("requests_count_by_endpoint", &["located"], true, 4, |_| vec![("/located", 200); 4]),
        case("what_is_not_asked_for_is_not_told", &["one"], true, 1, |_| {
            vec![("/located", 200), ("/", 200)]
        }),
        case("what_does_not_exist_is_left_out", &["nothing", "one"], true, 1, |_| vec![("/", 200)]),
        case("an_error_of_an_endpoint", &["one"], true, 2, |_| vec![("/", 500), ("/", 404)]),
        case("each_attempt_counts", &["one"], true, 2, |_| vec![("/retried", 503)]),
        case("a_timeout", &["one"], true, 1, |_| vec![("/timeout", 0)]),
        case("a_reset", &["one"], true, 1, |_| vec![("/", 1)]),
        case("a_refused_connection", &["closed"], true, 0, |_| vec![("/closed", 200)]),
        case("what_a_circuit_breaker_holds_back", &["full"], true, 1, |_| vec![("/full", 200)]),
        case("what_is_dropped_by_category", &["dropping"], true, 2, |_| {
            vec![("/dropping", 200); 2]
        }),
        Case::custom("a_request_under_way", |world| Box::pin(under_way(world))),
        Case::custom("a_tcp_connection", |world| Box::pin(connection(world))),
        Case::custom("all_clusters", |world| Box::pin(all(world))),
        Case::custom("the_server_sends_us_away", |world| Box::pin(again(world))),
    ]
}

/// Requests, each a path and what the upstream `a` answers it with: a status, 0 for nothing in time, 1 for a reset. The
/// case is over when `expected` requests were told as issued or dropped.
fn case(
    name: &'static str,
    clusters: &'static [&'static str],
    by_endpoint: bool,
    expected: u64,
    requests: fn(&World) -> Vec<(&'static str, u16)>,
) -> Case {
    Case::custom(name, move |world| {
        Box::pin(async move {
            begin(world, clusters, by_endpoint).await?;
            for (path, answer) in requests(world) {
                let reply = match answer {
                    0 => Reply::status(200).after(Duration::from_millis(500)),
                    1 => Reply::reset(),
                    status => Reply::status(status),
                };
                if answer != 200 {
                    world.upstream("a")?.script([reply]);
                }
                Request::get(path).send(world.address("LISTEN")?).await;
            }
            let sums = told(world, |sums| sums.issued + sums.dropped >= expected).await?;
            Ok(sums.observation(world))
        })
    })
}

fn asked(clusters: &[&str], by_endpoint: bool) -> LoadStatsResponse {
    LoadStatsResponse {
        clusters: clusters.iter().map(ToString::to_string).collect(),
        send_all_clusters: clusters.is_empty(),
        load_reporting_interval: Some(DurationProto { seconds: 0, nanos: 100_000_000 }),
        report_endpoint_granularity: by_endpoint,
    }
}

/// Asks, and waits until what happens counts.
async fn begin(world: &World, clusters: &[&str], by_endpoint: bool) -> Result<()> {
    let server = world.load_server("lrs")?;
    // What was asked for before is forgotten, so that everything counts from now.
    for asked in [asked(&["nothing"], false), asked(clusters, by_endpoint)] {
        let wants_any =
            asked.clusters.is_empty() || asked.clusters.iter().any(|it| it != "nothing");
        server.ask(asked);
        // The second report from now is one of what is asked for now.
        wait(world, |reports| {
            let of_it = reports.iter().filter(|(_, it)| it.cluster_stats.is_empty() != wants_any);
            of_it.count() >= 2
        })
        .await?;
    }
    for upstream in ["a", "b", "c"] {
        world.upstream(upstream)?.take();
    }
    server.take();
    Ok(())
}

/// Waits until reports are enough, and returns them.
async fn wait(world: &World, enough: impl Fn(&[Report]) -> bool) -> Result<Vec<Report>> {
    let server = world.load_server("lrs")?;
    let deadline = Instant::now() + LIMIT;
    let mut reports = Vec::new();
    while !enough(&reports) {
        if Instant::now() > deadline {
            let last = reports.last().map(|(_, report)| &report.cluster_stats);
            bail!("what was waited for is not in {} reports: {last:#?}", reports.len());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        reports.extend(server.take());
    }
    Ok(reports)
}

/// What reports said together.
#[derive(Default)]
struct Sums {
    issued: u64,
    dropped: u64,
    most_under_way: u64,
    /// By cluster, locality and endpoint, and what is counted.
    counts: BTreeMap<(String, &'static str), u64>,
}

impl Sums {
    fn of(reports: &[Report]) -> Self {
        let mut sums = Self::default();
        for cluster in reports.iter().flat_map(|(_, report)| &report.cluster_stats) {
            let name = format!("{}[{}]", cluster.cluster_name, cluster.cluster_service_name);
            sums.dropped += cluster.total_dropped_requests;
            sums.add(&name, "dropped", cluster.total_dropped_requests);
            for dropped in &cluster.dropped_requests {
                sums.add(&format!("{name} {}", dropped.category), "dropped", dropped.dropped_count);
            }
            for stats in &cluster.upstream_locality_stats {
                let locality = stats.locality.clone().unwrap_or_default();
                let place = format!(
                    "{name} {} {}/{}/{}",
                    stats.priority, locality.region, locality.zone, locality.sub_zone
                );
                sums.issued += stats.total_issued_requests;
                sums.most_under_way = sums.most_under_way.max(stats.total_requests_in_progress);
                sums.add(&place, "issued", stats.total_issued_requests);
                sums.add(&place, "successful", stats.total_successful_requests);
                sums.add(&place, "failed", stats.total_error_requests);
                for endpoint in &stats.upstream_endpoint_stats {
                    let address = match endpoint.address.as_ref().and_then(|it| it.address.as_ref())
                    {
                        Some(Address::SocketAddress(address)) => {
                            format!("{}:{:?}", address.address, address.port_specifier)
                        }
                        other => format!("{other:?}"),
                    };
                    let place = format!("{place} {address}");
                    sums.add(&place, "issued", endpoint.total_issued_requests);
                    sums.add(&place, "successful", endpoint.total_successful_requests);
                    sums.add(&place, "failed", endpoint.total_error_requests);
                }
            }
        }
        sums
    }

    fn add(&mut self, place: &str, what: &'static str, count: u64) {
        if count > 0 {
            *self.counts.entry((place.to_owned(), what)).or_default() += count;
        }
    }

    fn observation(&self, world: &World) -> Observation {
        let mut seen = Observation::default();
        for ((place, what), count) in &self.counts {
            // Ports differ from run to run, and are not written as in text.
            let place = ["a", "b", "c", "t", "closed"].iter().fold(place.clone(), |text, name| {
                let Ok(address) = world.address(name) else { return text };
                let written = format!("{}:Some(PortValue({}))", address.ip(), address.port());
                text.replace(&written, name)
            });
            seen.fact(&place, what, count);
        }
        seen
    }
}

/// Waits until the sum of what is told satisfies `enough`, and for one report more: what it says is settled.
async fn told(world: &World, enough: impl Fn(&Sums) -> bool) -> Result<Sums> {
    let mut reports = wait(world, |reports| enough(&Sums::of(reports))).await?;
    reports.extend(wait(world, |more| more.len() >= 2).await?);
    Ok(Sums::of(&reports))
}

async fn first(world: &World) -> Result<Observation> {
    let reports = wait(world, |reports| !reports.is_empty()).await?;
    let (stream, report) = &reports[0];
    let node = report.node.clone().unwrap_or_default();
    let mut seen = Observation::default();
    seen.fact("first", "stream", stream);
    seen.fact("first", "node", format!("{}/{}", node.id, node.cluster));
    let feature = "envoy.lrs.supports_send_all_clusters";
    seen.fact("first", "feature", node.client_features.iter().any(|it| it == feature));
    seen.fact("first", "clusters", report.cluster_stats.len());
    Ok(seen)
}

async fn under_way(world: &World) -> Result<Observation> {
    begin(world, &["one"], false).await?;
    world.upstream("a")?.script([Reply::status(200).after(Duration::from_secs(1))]);
    let request = Request::get("/");
    let address = world.address("LISTEN")?;
    let (_, told) = tokio::join!(request.send(address), async {
        let during = wait(world, |reports| Sums::of(reports).most_under_way > 0).await?;
        anyhow::Ok(during)
    });
    let mut reports = told?;
    let settled =
        |reports: &[Report]| Sums::of(reports).counts.keys().any(|key| key.1 == "successful");
    reports.extend(wait(world, settled).await?);
    let sums = Sums::of(&reports);
    let mut seen = sums.observation(world);
    seen.fact("request", "most under way", sums.most_under_way);
    Ok(seen)
}

async fn connection(world: &World) -> Result<Observation> {
    begin(world, &["t"], true).await?;
    let mut stream = tokio::net::TcpStream::connect(world.address("LISTEN_TCP")?).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    drop(stream);
    Ok(told(world, |sums| sums.issued >= 1).await?.observation(world))
}

async fn all(world: &World) -> Result<Observation> {
    begin(world, &[], false).await?;
    let reports = wait(world, |reports| !reports.is_empty()).await?;
    let mut seen = Observation::default();
    for cluster in &reports[0].1.cluster_stats {
        seen.fact("cluster", &cluster.cluster_name, cluster.load_report_interval.is_some());
    }
    Ok(seen)
}

/// On the next stream everything goes on as it was.
async fn again(world: &World) -> Result<Observation> {
    begin(world, &["one"], false).await?;
    let server = world.load_server("lrs")?;
    server.disconnect();
    Request::get("/").send(world.address("LISTEN")?).await;
    let reports = wait(world, |reports| {
        let stream = reports.last().map(|(stream, _)| *stream);
        Sums::of(reports).issued > 0 && stream.is_some_and(|stream| stream > 0)
    })
    .await?;
    let mut seen = Sums::of(&reports).observation(world);
    seen.fact("node", "is told again", reports.last().is_some_and(|(_, it)| it.node.is_some()));
    Ok(seen)
}
