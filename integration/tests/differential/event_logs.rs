//! Event logs: what health checks and outlier detection write down.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;
use serde_json::Value;

use crate::parts::{bootstrap, cluster, http_listener, routes};

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn group() -> Group {
    let routes = routes("- {match: {prefix: /}, route: {cluster: ejecting}}");
    let checked = |name: &str, upstream: &str, check: &str, more: &str| {
        let check = format!(
            "health_checks: [{{timeout: 1s, interval: 0.1s, no_traffic_interval: 0.1s, unhealthy_threshold: 1, healthy_threshold: 1, {check}, \
             event_logger: [{{name: x, typed_config: {{'@type': type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink, event_log_path: '${{DIR}}/health.log'}}}}]{more}}}]"
        );
        cluster(name, &[upstream], &check)
    };
    let http = "http_health_check: {path: /health}";
    let ejecting = "outlier_detection: {consecutive_5xx: 2, enforcing_consecutive_gateway_failure: 0, interval: 0.1s, base_ejection_time: 0.1s, max_ejection_time: 0.2s, max_ejection_percent: 100}";
    let bootstrap = bootstrap(
        &[http_listener("LISTEN", &routes)],
        &[
            checked("passing", "a", http, ""),
            checked("always", "a", http, ", always_log_health_check_success: true"),
            checked("failing", "b", http, ", always_log_health_check_failures: true"),
            checked("closed", "closed", http, ""),
            checked("tcp", "a", "tcp_health_check: {}", ""),
            checked("changing", "c", http, ""),
            "- name: located
  type: STATIC
  health_checks: [{timeout: 1s, interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}, event_log_path: '${DIR}/health.log'}]
  load_assignment:
    cluster_name: located
    endpoints: [{locality: {region: r, zone: z, sub_zone: s}, lb_endpoints: [{endpoint: {address: ${a}}}]}]
"
            .to_owned(),
            cluster("ejecting", &["e"], ejecting),
        ],
    );
    let config = "cluster_manager: {outlier_detection: {event_log_path: '${DIR}/outlier.log'}}";
    Group {
        name: "event_logs",
        bootstrap: format!("{config}\n{bootstrap}"),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("b", UpstreamKind::Plain),
            ("c", UpstreamKind::Plain),
            ("e", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let of = |name, cluster: &'static str, count: usize| {
        Case::custom(name, move |world| {
            Box::pin(async move { wait(world, "health.log", cluster, count).await })
        })
    };
    vec![
        of("a_first_check_passes", "passing", 1),
        of("a_check_passes_that_is_always_told", "always", 2),
        of("a_first_check_of_a_port_that_is_closed", "closed", 1),
        of("a_check_of_tcp", "tcp", 1),
        of("an_endpoint_with_a_locality", "located", 1),
        Case::custom("what_changes_is_told", |world| Box::pin(changing(world))),
        Case::custom("failures_that_are_always_told", |world| Box::pin(failing(world))),
        Case::custom("an_ejection_and_a_return", |world| Box::pin(ejecting(world))),
    ]
}

/// Different events of a cluster, in the order in which each came first.
async fn wait(world: &World, file: &str, cluster: &str, count: usize) -> Result<Observation> {
    let path = world.folder.path().join(file);
    let deadline = Instant::now() + LIMIT;
    let mut events: Vec<BTreeMap<String, String>> = Vec::new();
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        events.clear();
        // What is behind the last line break is not all there yet.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let event: Value = serde_json::from_str(line).context(line.to_owned())?;
            if event["cluster_name"] != cluster {
                continue;
            }
            let mut flat = BTreeMap::new();
            flatten("", &event, &mut flat);
            let at = flat.remove("timestamp").context("no timestamp")?;
            flat.insert("timestamp".to_owned(), at.ends_with('Z').to_string());
            // An ephemeral port.
            if let Some(port) = flat.get_mut("host.socket_address.port_value") {
                *port = "a port".to_owned();
            }
            for value in flat.values_mut() {
                *value = world.normal(value);
            }
            if !events.contains(&flat) {
                events.push(flat);
            }
        }
        if events.len() >= count {
            break;
        }
        ensure!(Instant::now() < deadline, "{cluster}: {count} events are not in\n{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut seen = Observation::default();
    for (index, event) in events.iter().take(count).enumerate() {
        for (field, value) in event {
            seen.fact(&format!("event {index}"), field, value);
        }
    }
    Ok(seen)
}

fn flatten(path: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, field) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, field, out);
            }
        }
        Value::String(text) => drop(out.insert(path.to_owned(), text.clone())),
        other => drop(out.insert(path.to_owned(), other.to_string())),
    }
}

async fn changing(world: &World) -> Result<Observation> {
    let c = world.upstream("c")?;
    wait(world, "health.log", "changing", 1).await?;
    c.default_reply(Some(Reply::status(200).header("x-envoy-degraded", "1")));
    wait(world, "health.log", "changing", 2).await?;
    c.default_reply(None);
    wait(world, "health.log", "changing", 3).await?;
    c.default_reply(Some(Reply::status(503)));
    wait(world, "health.log", "changing", 4).await?;
    c.default_reply(None);
    wait(world, "health.log", "changing", 5).await
}

async fn failing(world: &World) -> Result<Observation> {
    wait(world, "health.log", "failing", 1).await?;
    world.upstream("b")?.default_reply(Some(Reply::status(500)));
    wait(world, "health.log", "failing", 3).await
}

async fn ejecting(world: &World) -> Result<Observation> {
    world.upstream("e")?.script([Reply::status(500), Reply::status(500)]);
    for _ in 0..2 {
        Request::get("/").send(world.address("LISTEN")?).await;
    }
    wait(world, "outlier.log", "ejecting", 2).await
}
