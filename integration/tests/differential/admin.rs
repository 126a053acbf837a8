//! The admin interface: what bad queries are answered with, and statistics as the bootstrap wants them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outrigger_integration::client::{Outcome, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const STATS: &str = r#"stats_config:
  stats_tags:
  - {tag_name: mine, fixed_value: fixed}
  - {tag_name: of_the_name, regex: '^cluster\\.((\\w)\\.)'}
  stats_matcher: {exclusion_list: {patterns: [{suffix: upstream_rq_timeout}, {exact: cluster.a.upstream_cx_total}, {safe_regex: {regex: '.*_overflow'}}]}}
  histogram_bucket_settings:
  - {match: {prefix: cluster.a.upstream_rq_time}, buckets: [60000, 3, 700]}
"#;

pub(crate) fn group() -> Group {
    let routes = routes("- {match: {prefix: /}, route: {cluster: a}}");
    let bootstrap = bootstrap(&[http_listener("LISTEN", &routes)], &[cluster("a", &["a"], "")]);
    Group {
        name: "admin",
        bootstrap: format!("{STATS}{bootstrap}"),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let get = |name, path: &'static str| refused(name, "GET", path);
    let post = |name, path: &'static str| refused(name, "POST", path);
    vec![
        get("stats_format", "/stats?format=x"),
        get("stats_type", "/stats?type=x"),
        get("stats_histogram_buckets", "/stats?histogram_buckets=x"),
        get("stats_hidden", "/stats?hidden=x"),
        get("stats_filter", "/stats?filter=("),
        get("prometheus_buckets_disjoint", "/stats/prometheus?histogram_buckets=disjoint"),
        get("prometheus_buckets_detailed", "/stats?format=prometheus&histogram_buckets=detailed"),
        get("config_dump_of_nothing", "/config_dump?resource=nope"),
        get("config_dump_of_the_bootstrap", "/config_dump?resource=bootstrap"),
        get("config_dump_with_a_mask_of_nothing", "/config_dump?mask=nope"),
        get(
            "config_dump_of_clusters_with_a_mask_of_nothing",
            "/config_dump?resource=static_clusters&mask=nope",
        ),
        get("config_dump_name_regex", "/config_dump?name_regex=("),
        get("get_where_post_is_required", "/reset_counters"),
        get("get_of_a_profiler", "/cpuprofiler"),
        get("get_of_the_heap_profiler", "/heapprofiler"),
        get("get_of_the_allocation_profiler", "/allocprofiler"),
        get("contention", "/contention"),
        post("unknown_level", "/logging?level=x"),
        post("level_and_paths", "/logging?level=info&paths=a:b"),
        post("unknown_parameter_of_logging", "/logging?nope=x"),
        Case::custom("excluded_statistics", |world| Box::pin(excluded(world))),
        Case::custom("tags_of_statistics", |world| Box::pin(tags(world))),
        Case::custom("bounds_of_buckets", |world| Box::pin(buckets(world))),
    ]
}

/// The status that a query is answered with, and the first words.
fn refused(name: &'static str, method: &'static str, path: &'static str) -> Case {
    Case::custom(name, move |world| {
        Box::pin(async move {
            let mut seen = Observation::default();
            let (status, _) = ask(world, method, path).await?;
            seen.fact("answer", "status", status);
            Ok(seen)
        })
    })
}

async fn ask(world: &World, method: &str, path: &str) -> Result<(u16, String)> {
    let admin = world.proxy.admin;
    match Request::new(method, path).host(&admin.to_string()).send(admin).await {
        Outcome::Response(response) => {
            Ok((response.status, String::from_utf8_lossy(&response.body).into_owned()))
        }
        Outcome::Failed(cause) => anyhow::bail!("the admin interface does not answer: {cause}"),
    }
}

async fn excluded(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for name in [
        "upstream_rq_timeout",
        "upstream_rq_per_try_timeout",
        "upstream_cx_total",
        "upstream_rq_total",
        "upstream_rq_pending_overflow",
    ] {
        let (_, text) = ask(world, "GET", &format!("/stats?filter=^cluster.a.{name}$")).await?;
        seen.fact(name, "is there", !text.trim().is_empty());
    }
    Ok(seen)
}

async fn tags(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let (_, text) =
        ask(world, "GET", "/stats/prometheus?filter=^cluster.a.upstream_rq_retry$").await?;
    for (index, line) in text.lines().filter(|line| !line.starts_with('#')).enumerate() {
        let (name, rest) = line.split_once('{').unwrap_or((line, ""));
        let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
        let mut labels: Vec<&str> = labels.split(',').collect();
        labels.sort_unstable();
        seen.fact(&format!("series {index}"), name, labels.join(","));
    }
    Ok(seen)
}

async fn buckets(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    Request::get("/").send(world.address("LISTEN")?).await;
    world.upstream("a")?.take();
    let deadline = Instant::now() + Duration::from_secs(15);
    // A histogram is read from all threads now and then.
    let text = loop {
        let path = "/stats/prometheus?filter=^cluster.a.upstream_rq_time$";
        let (_, text) = ask(world, "GET", path).await?;
        if text.contains("_count{") && !text.contains("} 0\n") || Instant::now() > deadline {
            break text;
        }
        if text.lines().any(|line| line.contains("+Inf") && !line.ends_with(" 0")) {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(text.contains("_bucket"), "no buckets: {text}");
    let bounds: Vec<&str> =
        text.split("le=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    seen.fact("upstream_rq_time", "bounds", bounds.join(" "));
    Ok(seen)
}
