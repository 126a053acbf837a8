//! Statistics that are sent to statsd: what the server adds up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn group() -> Group {
    let routes = routes("- {match: {prefix: /}, route: {cluster: a}}");
    let bootstrap = bootstrap(&[http_listener("LISTEN", &routes)], &[cluster("a", &["a"], "")]);
    let sinks = "stats_flush_interval: 0.2s
stats_sinks:
- {name: s, typed_config: {'@type': type.googleapis.com/envoy.config.metrics.v3.StatsdSink, address: ${one}}}
- {name: t, typed_config: {'@type': type.googleapis.com/envoy.config.metrics.v3.StatsdSink, address: ${two}, prefix: mine}}
";
    Group {
        name: "stats_sinks",
        bootstrap: format!("{sinks}{bootstrap}"),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("one", UpstreamKind::Udp),
            ("two", UpstreamKind::Udp),
        ],
        unsupported: None,
        cases: vec![
            Case::custom("counters_gauges_and_times", |world| {
                Box::pin(sums(world, "one", "envoy"))
            }),
            Case::custom("another_prefix", |world| Box::pin(sums(world, "two", "mine"))),
        ],
    }
}

/// What three requests add to the statistics of the cluster.
async fn sums(world: &World, server: &str, prefix: &str) -> Result<Observation> {
    let (address, sink) = (world.address("LISTEN")?, world.udp_server(server)?);
    let total = format!("{prefix}.cluster.a.upstream_rq_total");
    // Until what was before is told.
    let told = format!("{prefix}.cluster.a.membership_total:1|g");
    let deadline = Instant::now() + LIMIT;
    let mut flushes = 0;
    while flushes < 2 {
        flushes += sink.take().iter().filter(|line| **line == told).count();
        ensure!(Instant::now() < deadline, "{told} does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        Request::get("/").send(address).await;
    }
    world.upstream("a")?.take();
    let mut counters: BTreeMap<String, f64> = BTreeMap::new();
    let mut gauges: BTreeMap<String, String> = BTreeMap::new();
    let mut times: BTreeMap<String, f64> = BTreeMap::new();
    let time = format!("{prefix}.cluster.a.upstream_rq_time");
    let mut settled = 0;
    while settled < 2 {
        for line in sink.take() {
            let (name, rest) = line.rsplit_once(':').context(line.clone())?;
            let parts: Vec<&str> = rest.split('|').collect();
            let value: f64 = parts[0].parse().context(line.clone())?;
            let rate = parts.iter().find_map(|part| part.strip_prefix('@'));
            let rate: f64 = rate.map_or(Ok(1.0), str::parse)?;
            match parts.get(1) {
                Some(&"c") => *counters.entry(name.to_owned()).or_default() += value / rate,
                Some(&"g") => drop(gauges.insert(name.to_owned(), parts[0].to_owned())),
                Some(&"ms") => *times.entry(name.to_owned()).or_default() += 1.0 / rate,
                other => anyhow::bail!("{other:?} in {line}"),
            }
            let all = counters.get(&total).is_some_and(|sum| *sum >= 3.0)
                && times.get(&time).is_some_and(|sum| sum.round() >= 3.0);
            // And for some flushes more: nothing may come on top.
            settled += usize::from(all && line == told);
        }
        ensure!(Instant::now() < deadline, "{counters:?} {times:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut seen = Observation::default();
    for name in ["upstream_rq_total", "upstream_rq_2xx", "upstream_rq_completed", "upstream_rq_200"]
    {
        let sum = counters.get(&format!("{prefix}.cluster.a.{name}"));
        seen.fact("counter", name, format!("{sum:?}"));
    }
    for name in ["membership_total", "upstream_rq_active"] {
        let value = gauges.get(&format!("{prefix}.cluster.a.{name}"));
        seen.fact("gauge", name, format!("{value:?}"));
    }
    let count = times.get(&time).map(|sum| sum.round());
    seen.fact("time", "upstream_rq_time", format!("{count:?}"));
    let foreign = counters.keys().chain(gauges.keys()).filter(|it| !it.starts_with(prefix)).count();
    seen.fact("names", "without the prefix", foreign);
    let unused = format!("{prefix}.cluster.a.upstream_rq_retry");
    seen.fact("names", "never used", counters.contains_key(&unused));
    Ok(seen)
}
