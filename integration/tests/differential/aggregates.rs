//! Aggregate clusters: which member a request goes to, and what is counted where.

use anyhow::{Result, ensure};
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, http_listener, routes};

const UPSTREAMS: [&str; 3] = ["a", "b", "c"];

/// The aggregates, and their members.
const AGGREGATES: [(&str, &str); 12] = [
    ("first", "a, b"),
    ("second", "down, b"),
    ("half", "m_half, b"),
    ("levels", "m_levels, c"),
    ("degraded", "m_degraded, b"),
    ("panic", "down, gone"),
    ("missing", "absent, b"),
    ("nobody", "absent, empty"),
    ("closed", "m_closed"),
    ("busy", "m_busy"),
    ("divided", "m_divided, b"),
    ("hashing", "ring"),
];

const ROUTES: &str = r#"
- match: {prefix: /retry}
  route: {cluster: first, retry_policy: {retry_on: 5xx, num_retries: 2}}
- match: {prefix: /previous}
  route:
    cluster: pair
    retry_policy:
      retry_on: 5xx
      num_retries: 1
      host_selection_retry_max_attempts: 10
      retry_host_predicate: [{name: previous, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]
- {match: {prefix: /timeout}, route: {cluster: first, timeout: 0.2s}}
- {match: {prefix: /divided}, route: {cluster: divided, metadata_match: {filter_metadata: {envoy.lb: {v: '1'}}}}}
- {match: {prefix: /hashing}, route: {cluster: hashing, hash_policy: [{header: {header_name: x-key}}]}}
- {match: {prefix: /first}, route: {cluster: first}}
- {match: {prefix: /second}, route: {cluster: second}}
- {match: {prefix: /half}, route: {cluster: half}}
- {match: {prefix: /levels}, route: {cluster: levels}}
- {match: {prefix: /degraded}, route: {cluster: degraded}}
- {match: {prefix: /panic}, route: {cluster: panic}}
- {match: {prefix: /missing}, route: {cluster: missing}}
- {match: {prefix: /nobody}, route: {cluster: nobody}}
- {match: {prefix: /closed}, route: {cluster: closed}}
- {match: {prefix: /busy}, route: {cluster: busy}}
"#;

fn aggregate(name: &str, members: &str) -> String {
    format!(
        "- name: {name}
  lb_policy: CLUSTER_PROVIDED
  connect_timeout: 1s
  circuit_breakers: {{thresholds: [{{max_requests: 0, max_pending_requests: 0}}]}}
  cluster_type:
    name: envoy.clusters.aggregate
    typed_config: {{'@type': type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [{members}]}}
"
    )
}

fn member(name: &str, groups: &[&str], more: &str) -> String {
    let groups = groups.join("}, {");
    format!(
        "- {{name: {name}, type: STATIC, connect_timeout: 1s, {more} load_assignment: {{cluster_name: {name}, endpoints: [{{{groups}}}]}}}}\n"
    )
}

pub(crate) fn group() -> Group {
    let of = |host: &str, more: &str| {
        format!("lb_endpoints: [{{endpoint: {{address: ${{{host}}}}}{more}}}]")
    };
    let ill = ", health_status: UNHEALTHY";
    let mut clusters: Vec<String> =
        AGGREGATES.iter().map(|(name, members)| aggregate(name, members)).collect();
    clusters.extend([
        aggregate("pair", "both"),
        aggregate("shut", "a").replace("max_requests: 0", "max_connections: 0"),
        member("both", &["lb_endpoints: [{endpoint: {address: ${a}}}, {endpoint: {address: ${b}}}]"], ""),
        member("a", &[&of("a", "")], ""),
        member("b", &[&of("b", "")], ""),
        member("c", &[&of("c", "")], ""),
        member("down", &[&of("a", ill)], ""),
        member("gone", &[&of("b", ill)], ""),
        member("m_half", &["lb_endpoints: [{endpoint: {address: ${a}}}, {endpoint: {address: ${c}}, health_status: UNHEALTHY}]"], ""),
        member("m_levels", &[&of("a", ill), &format!("priority: 1, {}", of("b", ""))], ""),
        member("m_degraded", &[&of("a", ", health_status: DEGRADED")], ""),
        "- {name: empty, type: STATIC}\n".to_owned(),
        member("m_closed", &[&of("closed", "")], ""),
        member("m_busy", &[&of("a", "")], "circuit_breakers: {thresholds: [{max_requests: 0}]},"),
        member(
            "m_divided",
            &["lb_endpoints: [{endpoint: {address: ${a}}, metadata: {filter_metadata: {envoy.lb: {v: '1'}}}}, {endpoint: {address: ${c}}}]"],
            "lb_subset_config: {subset_selectors: [{keys: [v]}]},",
        ),
        member(
            "ring",
            &["lb_endpoints: [{endpoint: {address: ${a}}, metadata: {filter_metadata: {envoy.lb: {hash_key: a}}}}, {endpoint: {address: ${b}}, metadata: {filter_metadata: {envoy.lb: {hash_key: b}}}}, {endpoint: {address: ${c}}, metadata: {filter_metadata: {envoy.lb: {hash_key: c}}}}]"],
            "lb_policy: RING_HASH,",
        ),
    ]);
    let tcp = |place: &str, cluster: &str| {
        format!(
            "- name: {place}
  address: ${{{place}}}
  filter_chains:
  - filters:
    - name: envoy.filters.network.tcp_proxy
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
        stat_prefix: tcp
        cluster: {cluster}
"
        )
    };
    let log = "access_log:
- name: file
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: ${DIR}/LISTEN.log
    log_format: {text_format_source: {inline_string: \"%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %RESPONSE_CODE_DETAILS%\\n\"}}";
    Group {
        name: "aggregates",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", &format!("{}{log}", routes(ROUTES))),
                tcp("LISTEN_TCP", "second"),
                tcp("LISTEN_SHUT", "shut"),
            ],
            &clusters,
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("b", UpstreamKind::Plain),
            ("c", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
        ],
        unsupported: None,
        cases: vec![
            Case::new("the_first_member_gets_all_while_it_is_well")
                .get("/first", "200 a")
                .get("/first", "200 a"),
            Case::new("the_next_member_takes_over").get("/second", "200 b").get("/second", "200 b"),
            Case::new("a_member_that_does_not_exist_has_nobody").get("/missing", "200 b"),
            Case::new("lower_priorities_of_a_member_come_before_the_next_member")
                .get("/levels", "200 b"),
            // 70 of 100, six standard deviations wide.
            Case::custom("a_member_that_lacks_health_spills_over", |world| {
                Box::pin(share(world, "/half", 300, 162..=258))
            }),
            Case::new("healthy_endpoints_of_the_next_member_come_before_degraded_ones")
                .get("/degraded", "200 b"),
            Case::custom("in_a_panic_members_share_by_their_numbers", |world| {
                Box::pin(share(world, "/panic", 300, 98..=202))
            }),
            Case::custom("without_an_endpoint_there_is_nobody", |world| {
                Box::pin(status(world, "/nobody"))
            }),
            Case::custom("the_members_circuit_breakers_count", |world| {
                Box::pin(status(world, "/busy"))
            }),
            Case::custom("a_connection_that_fails_is_the_members", |world| {
                Box::pin(status(world, "/closed"))
            }),
            Case::new("a_retry_is_the_aggregates")
                .script("a", [Reply::status(503), Reply::status(500), Reply::status(200)])
                .get("/retry", "200 a,a,a"),
            Case::custom("a_retry_avoids_previous_hosts", |world| Box::pin(avoiding(world))),
            Case::custom("a_timeout_is_the_aggregates", |world| {
                Box::pin(async move {
                    let late = Reply::status(200).after(std::time::Duration::from_secs(2));
                    world.upstream("a")?.script([late]);
                    status(world, "/timeout").await
                })
            }),
            Case::new("a_member_may_be_divided").get("/divided", "200 a").get("/divided", "200 a"),
            Case::custom("a_member_may_choose_by_the_hash_of_the_route", |world| {
                Box::pin(by_hash(world))
            }),
            Case::new("a_tcp_proxy_may_have_an_aggregate").send_to(
                "LISTEN_TCP",
                Request::get("/"),
                "200 b",
            ),
            Case::new("an_aggregate_may_be_shut_to_a_tcp_proxy").send_to(
                "LISTEN_SHUT",
                Request::get("/"),
                "failed",
            ),
            Case::custom("each_side_counts_what_is_its_own", |world| Box::pin(counted(world))),
            Case::custom("logs_name_the_aggregate", |world| Box::pin(logged(world))),
        ],
    }
}

fn forget(world: &World) -> Result<()> {
    for name in UPSTREAMS {
        world.upstream(name)?.take();
    }
    Ok(())
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

async fn status(world: &World, path: &str) -> Result<Observation> {
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    let response = connection.send(&Request::get(path)).await?;
    let mut seen = Observation::default();
    seen.fact(path, "status", response.status);
    let overloaded = response.headers.iter().any(|(name, _)| name == "x-envoy-overloaded");
    seen.fact(path, "overloaded", overloaded);
    Ok(seen)
}

async fn avoiding(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    for n in 0..10 {
        for name in ["a", "b"] {
            world.upstream(name)?.default_reply(Some(Reply::status(503)));
        }
        let response = connection.send(&Request::get("/previous")).await?;
        let tried = [world.upstream("a")?.take().len(), world.upstream("b")?.take().len()];
        seen.fact(&format!("request {n}"), "tried", format!("{} {tried:?}", response.status));
    }
    Ok(seen)
}

async fn by_hash(world: &World) -> Result<Observation> {
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    let mut names = String::new();
    for n in 0..100 {
        let request = Request::get("/hashing").header("x-key", &format!("key-{n}"));
        names.push_str(&String::from_utf8_lossy(&connection.send(&request).await?.body));
    }
    forget(world)?;
    let mut seen = Observation::default();
    seen.fact("keys", "endpoints", names);
    Ok(seen)
}

/// What the cases before have counted, at the aggregates and at their members.
async fn counted(world: &World) -> Result<Observation> {
    const STATS: [&str; 9] = [
        "upstream_rq_total",
        "upstream_rq_retry",
        "upstream_rq_retry_success",
        "upstream_rq_timeout",
        "upstream_cx_connect_fail",
        "upstream_cx_none_healthy",
        "upstream_rq_pending_failure_eject",
        "membership_total",
        "lb_subsets_selected",
    ];
    let mut seen = Observation::default();
    for cluster in ["first", "second", "levels", "nobody", "closed", "busy", "divided", "pair"] {
        for name in STATS {
            let value = world.proxy.stat(&format!("cluster.{cluster}.{name}")).await?;
            seen.fact(cluster, name, value);
        }
    }
    for cluster in ["m_closed", "m_busy", "m_divided", "m_levels", "empty"] {
        for name in STATS {
            let value = world.proxy.stat(&format!("cluster.{cluster}.{name}")).await?;
            seen.fact(cluster, name, value);
        }
    }
    for (cluster, code) in [("first", "200"), ("m_levels", "200"), ("a", "200"), ("levels", "200")]
    {
        let name = format!("external.upstream_rq_{code}");
        let value = world.proxy.stat(&format!("cluster.{cluster}.{name}")).await?;
        seen.fact(cluster, &name, value);
    }
    Ok(seen)
}

async fn logged(world: &World) -> Result<Observation> {
    let log = world.folder.path().join("LISTEN.log");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
    // The logs of both are flushed after a while.
    let text = loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains(" busy ") && text.contains("504 UT first") {
            break text;
        }
        ensure!(std::time::Instant::now() < deadline, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    let mut seen = Observation::default();
    for line in lines {
        seen.fact("log", &world.normal(line), "there");
    }
    Ok(seen)
}
