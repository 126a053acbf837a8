//! Outlier detection: which answers eject, and how that shows.
//!
//! Every case has a cluster, an endpoint and a route of its own name. The endpoint answers as it is told, one request after
//! the other; then `/clusters` and another request show whether it is ejected.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::proxy::Kind;
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, http_listener, indent, routes, statistics};

const HEALTHY: &str = "healthy";
const EJECTED: &str = "/failed_outlier_check";
/// Nothing happens by time alone.
const SLOW: &str = "interval: 1000s";
/// Whoever is detected is ejected, also the only one.
const ALL: &str = "max_ejection_percent: 100";

/// Name, fields of `outlier_detection`, statuses that the endpoint answers with (0: none), what is expected of it then.
type Scenario = (&'static str, String, &'static [u16], &'static str);

fn scenarios() -> Vec<Scenario> {
    let all = |more: &str| format!("{ALL}, {SLOW}{more}");
    let gateway = ", enforcing_consecutive_gateway_failure: 100, enforcing_consecutive_5xx: 0";
    let split = ", split_external_local_origin_errors: true";
    vec![
        ("five_500", all(""), &[500; 5], EJECTED),
        ("four_500", all(""), &[500; 4], HEALTHY),
        (
            "a_success_starts_the_count_again",
            all(""),
            &[500, 500, 500, 500, 200, 500, 500, 500, 500],
            HEALTHY,
        ),
        ("status_4xx_is_a_success", all(""), &[500, 500, 500, 500, 404, 500], HEALTHY),
        ("any_5xx_counts", all(""), &[500, 501, 502, 503, 504], EJECTED),
        ("another_threshold", all(", consecutive_5xx: 2"), &[599, 500], EJECTED),
        ("no_answer_counts", all(""), &[0; 5], EJECTED),
        (
            "gateway_failures_are_not_enforced",
            all(", enforcing_consecutive_5xx: 0"),
            &[503; 5],
            HEALTHY,
        ),
        ("gateway_failures_may_be_enforced", all(gateway), &[502, 503, 504, 502, 503], EJECTED),
        (
            "status_500_is_no_gateway_failure",
            all(gateway),
            &[502, 502, 502, 502, 500, 502],
            HEALTHY,
        ),
        (
            "another_threshold_of_gateway_failures",
            all(&format!("{gateway}, consecutive_gateway_failure: 2")),
            &[503, 503],
            EJECTED,
        ),
        (
            "not_enforced_is_only_counted",
            all(", enforcing_consecutive_5xx: 0"),
            &[500; 10],
            HEALTHY,
        ),
        ("ten_percent_of_one_is_nobody", SLOW.to_owned(), &[500; 10], HEALTHY),
        (
            "but_one_may_always_be_ejected",
            format!("{SLOW}, always_eject_one_host: true"),
            &[500; 5],
            EJECTED,
        ),
        ("zero_percent", format!("{SLOW}, max_ejection_percent: 0"), &[500; 5], HEALTHY),
        ("split_answers_count", all(split), &[500; 5], EJECTED),
        ("split_no_answer_is_no_failure_to_connect", all(split), &[0; 5], HEALTHY),
        ("split_connections_start_the_count_again", all(split), &[0, 0, 0, 0, 200, 0], HEALTHY),
        (
            "split_local_failures_may_be_left_alone",
            all(&format!("{split}, enforcing_consecutive_local_origin_failure: 0")),
            &[0; 5],
            HEALTHY,
        ),
    ]
}

fn cluster(name: &str, outlier: &str, more: &str) -> String {
    format!(
        "- name: {name}
  type: STATIC
  connect_timeout: 2s
  common_lb_config: {{update_merge_window: 0s, healthy_panic_threshold: {{value: 0}}}}
  outlier_detection: {{{outlier}}}
  load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: ${{{name}}}}}}}]}}]}}
{}",
        indent(more, 2)
    )
}

pub(crate) fn group() -> Group {
    let short = format!("{ALL}, interval: 0.05s, base_ejection_time: 0.3s");
    let checks = "health_checks: [{timeout: 1s, interval: 0.05s, no_traffic_interval: 0.05s, unhealthy_threshold: 2, healthy_threshold: 2, http_health_check: {path: /check, expected_statuses: [{start: 200, end: 201}, {start: 500, end: 501}]}}]";
    let check_no_end =
        format!("{}, successful_active_health_check_uneject_host: false", all_slow());
    let split = format!(
        "{}, split_external_local_origin_errors: true, consecutive_local_origin_failure: 2",
        all_slow()
    );
    let rates = format!(
        "{ALL}, interval: 0.5s, base_ejection_time: 1000s, max_ejection_time: 1000s, consecutive_5xx: 1000, consecutive_gateway_failure: 1000, \
         success_rate_minimum_hosts: 3, success_rate_request_volume: 5, success_rate_stdev_factor: 1000"
    );
    let share = format!(
        "{ALL}, interval: 0.5s, base_ejection_time: 1000s, max_ejection_time: 1000s, consecutive_5xx: 1000, consecutive_gateway_failure: 1000, enforcing_success_rate: 0, \
         failure_percentage_minimum_hosts: 3, failure_percentage_request_volume: 5, enforcing_failure_percentage: 100, success_rate_minimum_hosts: 100"
    );
    let three = |name: &str, outlier: &str| {
        let endpoint = |of: &str| format!("{{endpoint: {{address: ${{{of}}}}}}}");
        cluster(name, outlier, "").replace(
            &endpoint(name),
            &["x", "y", "z"].map(|of| endpoint(&format!("{name}_{of}"))).join(", "),
        )
    };
    let mut names: Vec<&'static str> = scenarios().iter().map(|it| it.0).collect();
    let mut clusters: Vec<String> =
        scenarios().iter().map(|(name, outlier, ..)| cluster(name, outlier, "")).collect();
    for (name, text) in [
        ("returns", cluster("returns", &short, "")),
        ("checked", cluster("checked", &all_slow(), checks)),
        ("checked_no_end", cluster("checked_no_end", &check_no_end, checks)),
        ("nobody", cluster("nobody", &all_slow(), "")),
        ("nobody_split", cluster("nobody_split", &split, "")),
        ("rates", three("rates", &rates)),
        ("shares", three("shares", &share)),
    ] {
        names.push(name);
        clusters.push(text);
    }
    let route =
        |name: &&str| format!("- {{match: {{prefix: /{name}/}}, route: {{cluster: {name}}}}}\n");
    let kind = |name: &str| {
        if name.starts_with("nobody") { UpstreamKind::Closed } else { UpstreamKind::Plain }
    };
    let single = names.iter().filter(|name| !["rates", "shares"].contains(*name));
    let mut upstreams: Vec<(&'static str, UpstreamKind)> =
        single.map(|name| (*name, kind(name))).collect();
    upstreams.extend(
        ["rates_x", "rates_y", "rates_z", "shares_x", "shares_y", "shares_z"]
            .map(|name| (name, UpstreamKind::Plain)),
    );
    names.push("empty");
    clusters
        .push("- {name: empty, type: STATIC, load_assignment: {cluster_name: empty}}\n".to_owned());
    names.push("heavy");
    clusters.push(
        "- {name: heavy, type: STATIC, load_assignment: {cluster_name: heavy, endpoints: [{lb_endpoints: [\
         {endpoint: {address: ${returns}}, load_balancing_weight: 3}, {endpoint: {address: ${checked}}, load_balancing_weight: 7}]}]}}\n"
            .to_owned(),
    );
    let all_routes: String = names.iter().map(route).collect();
    Group {
        name: "outlier_detection",
        bootstrap: bootstrap(&[http_listener("LISTEN", &routes(&all_routes))], &clusters),
        upstreams,
        unsupported: None,
        cases: cases(),
    }
}

fn all_slow() -> String {
    format!("{ALL}, {SLOW}")
}

fn cases() -> Vec<Case> {
    let single = scenarios().into_iter().map(|(name, _, statuses, flags)| {
        Case::custom(name, move |world| Box::pin(answer(world, name, statuses, flags)))
    });
    single
        .chain([
            Case::custom("it_returns_when_its_time_is_over", |world| Box::pin(returns(world))),
            Case::custom("a_passed_check_ends_an_ejection", |world| {
                Box::pin(checked(world, "checked", HEALTHY))
            }),
            Case::custom("unless_it_is_not_to", |world| {
                Box::pin(checked(world, "checked_no_end", EJECTED))
            }),
            Case::custom("who_cannot_be_reached_is_ejected", |world| {
                Box::pin(answer(world, "nobody", &[0; 5], EJECTED))
            }),
            Case::custom("which_may_be_counted_apart", |world| {
                Box::pin(answer(world, "nobody_split", &[0; 2], EJECTED))
            }),
            Case::custom("who_succeeds_less_often_than_the_others_is_ejected", |world| {
                Box::pin(compared(world, "rates"))
            }),
            Case::custom("an_empty_cluster_panics_and_weights_are_shown", |world| {
                Box::pin(empty(world))
            }),
            Case::custom("who_fails_too_often_is_ejected", |world| {
                Box::pin(compared(world, "shares"))
            }),
        ])
        .collect()
}

async fn send(world: &World, name: &str, status: u16) -> Result<u16> {
    if let Ok(upstream) = world.upstream(name) {
        let reply = if status == 0 { Reply::reset() } else { Reply::status(status) };
        upstream.default_reply(Some(reply));
    }
    let path = format!("/{name}/");
    Ok(Request::get(&path).send(world.address("LISTEN")?).await.status())
}

async fn answer(
    world: &World,
    name: &'static str,
    statuses: &'static [u16],
    flags: &'static str,
) -> Result<Observation> {
    let mut seen = Observation::default();
    for (index, status) in statuses.iter().enumerate() {
        let got = send(world, name, *status).await?;
        seen.fact(&format!("request {index:02}"), "status", got);
    }
    until_flags(world, name, flags).await?;
    let last = send(world, name, 200).await?;
    let expected = if flags == EJECTED { 503 } else { 200 };
    if world.proxy.kind == Kind::Envoy && last != expected && !name.starts_with("nobody") {
        bail!("Envoy answered {last} instead of {expected}");
    }
    seen.fact("after", "status", last);
    // Those that are not ejected must not be a moment later, either.
    until_flags(world, name, flags).await?;
    seen.extend(statistics(world, &[&format!("cluster.{name}.outlier_detection.")]).await?);
    Ok(seen)
}

async fn returns(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for _ in 0..5 {
        send(world, "returns", 500).await?;
    }
    until_flags(world, "returns", EJECTED).await?;
    until_flags(world, "returns", HEALTHY).await?;
    seen.fact("returned", "status", send(world, "returns", 200).await?);
    // Its counts begin again.
    for _ in 0..4 {
        send(world, "returns", 500).await?;
    }
    seen.fact("four more", "status", send(world, "returns", 200).await?);
    seen.extend(statistics(world, &["cluster.returns.outlier_detection."]).await?);
    Ok(seen)
}

async fn checked(world: &World, name: &'static str, flags: &'static str) -> Result<Observation> {
    let mut seen = Observation::default();
    // The checker takes a 500 for a good answer, outlier detection does not.
    for _ in 0..5 {
        send(world, name, 500).await?;
    }
    until_flags(world, name, flags).await?;
    seen.fact("after", "status", send(world, name, 200).await?);
    until_flags(world, name, flags).await?;
    seen.extend(statistics(world, &[&format!("cluster.{name}.outlier_detection.")]).await?);
    Ok(seen)
}

/// Sends until the third endpoint is ejected, which always fails.
async fn compared(world: &World, name: &'static str) -> Result<Observation> {
    let mut seen = Observation::default();
    let third = format!("{name}_z");
    world.upstream(&third)?.default_reply(Some(Reply::status(500)));
    let path = format!("/{name}/");
    let bad = world.address(&third)?;
    let mut is_ejected = false;
    let mut text = String::new();
    for _ in 0..300 {
        for _ in 0..30 {
            Request::get(&path).send(world.address("LISTEN")?).await;
        }
        text = world.proxy.admin("/clusters").await?;
        is_ejected = text.contains(&format!("{name}::{bad}::health_flags::{EJECTED}"));
        if is_ejected {
            break;
        }
    }
    if !is_ejected {
        bail!("nobody was ejected:\n{text}");
    }
    for line in text.lines().filter(|line| line.starts_with(&format!("{name}::"))) {
        if line.contains("success_rate") && !line.contains("ejected_because") {
            let (field, value) = line.rsplit_once("::").context("no value")?;
            seen.fact("/clusters", &world.normal(field), value);
        }
    }
    seen.extend(statistics(world, &[&format!("cluster.{name}.outlier_detection.")]).await?);
    Ok(seen)
}

async fn empty(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for step in ["first", "second"] {
        seen.fact(step, "status", send(world, "empty", 200).await?);
    }
    let names = [
        "cluster.empty.lb_healthy_panic",
        "cluster.empty.membership",
        "cluster.empty.max_host_weight",
        "cluster.empty.upstream_cx_none_healthy",
        "cluster.heavy.max_host_weight",
        "cluster.heavy.membership",
    ];
    seen.extend(statistics(world, &names).await?);
    Ok(seen)
}

/// Waits until `/clusters` says this of the first endpoint of a cluster.
async fn until_flags(world: &World, cluster: &str, flags: &str) -> Result<()> {
    let mut last = String::new();
    for _ in 0..500 {
        let text = world.proxy.admin("/clusters").await?;
        let begins = format!("{cluster}::");
        let line = text
            .lines()
            .find(|line| line.starts_with(&begins) && line.contains("::health_flags::"));
        last = line.and_then(|line| line.rsplit("::").next()).unwrap_or_default().to_owned();
        if last == flags {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("{cluster} is {last:?} and not {flags:?}")
}
