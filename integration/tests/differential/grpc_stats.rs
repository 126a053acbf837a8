//! The filter that counts gRPC calls: which, under which name, and what of them.

use anyhow::Result;
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::access_log;
use crate::parts::{bootstrap, cluster, http_listener, indent};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http";

fn listener(place: &str, cluster: &str, more: &str) -> String {
    let log = format!(
        "access_log:
- name: envoy.access_loggers.file
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: '${{DIR}}/{place}.log'
    log_format: {{json_format: {{path: '%REQ(:PATH)%', typed: '%FILTER_STATE({NOTED})%', plain: '%FILTER_STATE({NOTED}:PLAIN)%', in_text: 'is %FILTER_STATE({NOTED})%'}}}}"
    );
    let manager = format!(
        "{log}
route_config:
  name: test
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
    - {{match: {{prefix: /direct}}, direct_response: {{status: 200}}}}
    - {{match: {{prefix: /gone}}, route: {{cluster: {cluster}_gone}}}}
{}
http_filters:
- {{name: stats, typed_config: {{{TYPE}.grpc_stats.v3.FilterConfig, {more}}}}}
- ROUTER",
        indent(
            &format!(
                "- {{match: {{prefix: /}}, route: {{cluster: {cluster}, retry_policy: {{retry_on: unavailable}}}}}}"
            ),
            4
        ),
    );
    http_listener(place, &manager)
}

/// Where the filter notes how many messages there were.
const NOTED: &str = "envoy.filters.http.grpc_stats";

/// Several lists, so that two listeners do not count in the same cluster.
const MODES: [(&str, &str, &str); 6] = [
    ("LISTEN", "every", "stats_for_all_methods: true, enable_upstream_stats: true"),
    ("LISTEN_NONE", "none", "stats_for_all_methods: false"),
    ("LISTEN_DEFAULT", "unsaid", "enable_upstream_stats: false"),
    (
        "LISTEN_LISTED",
        "listed",
        "individual_method_stats_allowlist: {services: [{name: a.B, method_names: [Get, Put]}, {name: a.C, method_names: [Put]}]}, enable_upstream_stats: true",
    ),
    ("LISTEN_DOTS", "dots", "stats_for_all_methods: true, replace_dots_in_grpc_service_name: true"),
    ("LISTEN_NOTED", "noted", "stats_for_all_methods: false, emit_filter_state: true"),
];

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

pub(crate) fn group() -> Group {
    let listeners: Vec<_> =
        MODES.iter().map(|(place, cluster, more)| listener(place, cluster, more)).collect();
    let mut clusters: Vec<_> =
        MODES.iter().map(|(_, name, _)| cluster(name, &["a"], HTTP2)).collect();
    clusters.extend(
        MODES.iter().map(|(_, name, _)| cluster(&format!("{name}_gone"), &["closed"], HTTP2)),
    );
    let mut cases: Vec<_> = MODES.iter().map(|(place, ..)| calls(place)).collect();
    cases.push(bodies());
    cases.push(Case::custom("messages_are_noted_for_logs", |world| Box::pin(noted(world))));
    cases.push(Case::custom("statistics", |world| Box::pin(counted(world))));
    cases.push(Case::custom("tags", |world| Box::pin(tags(world))));
    Group {
        name: "grpc_stats",
        bootstrap: bootstrap(&listeners, &clusters),
        upstreams: vec![("a", UpstreamKind::Plain), ("closed", UpstreamKind::Closed)],
        unsupported: None,
        cases,
    }
}

/// Two messages, the second of them empty.
const MESSAGES: [&str; 3] = ["\0\0\0\0\x03ab", "c\0\0", "\0\0\0"];

fn call(path: &str) -> Request {
    Request::new("POST", path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .http2()
}

fn answered(status: &str) -> Reply {
    Reply::status(200)
        .header("content-type", "application/grpc+proto")
        .chunks(&MESSAGES)
        .trailer("grpc-status", status)
}

fn calls(place: &'static str) -> Case {
    let name = match place {
        "LISTEN" => "calls_are_counted_by_method",
        "LISTEN_NONE" => "calls_are_counted_together",
        "LISTEN_DEFAULT" => "calls_are_counted_together_where_nothing_is_said",
        "LISTEN_LISTED" => "listed_calls_are_counted_by_method",
        "LISTEN_NOTED" => "noted_calls_are_counted_together",
        _ => "services_are_named_without_dots",
    };
    let mut case = Case::new(name);
    for (path, status) in [
        ("/a.B/Get", "0"),
        ("/a.B/Get?x=y", "5"),
        ("/a.B/Put", "16"),
        ("/a.B/Del", "0"),
        ("/a.C/Get", "0"),
        ("/S/Get", "0"),
        ("/S/m.n", "0"),
        ("//S//Get", "0"),
        ("/one", "0"),
        ("/one/two/three", "0"),
        ("/S/with%20escape", "0"),
    ] {
        case = case.script("a", [answered(status)]).send_to(
            place,
            call(path).chunks(&MESSAGES),
            "200 a",
        );
    }
    case.script("a", [Reply::status(200).header("grpc-status", "3")])
        .send_to(place, call("/S/Get"), "200 a")
        .script("a", [Reply::status(503)])
        .send_to(place, call("/S/Get"), "503 a")
        .script("a", [Reply::status(200).header("content-type", "text/plain").chunks(&MESSAGES)])
        .send_to(place, call("/S/Get").chunks(&MESSAGES), "200 a")
        .script("a", [answered("14"), answered("0")])
        .send_to(place, call("/S/Retried").chunks(&MESSAGES), "200 a")
        .script("a", [Reply::status(200).header("grpc-status", "14"), answered("0")])
        .send_to(place, call("/S/Retried").chunks(&MESSAGES), "200 a,a")
        .send_to(place, call("/gone/Get"), "200 -")
        .send_to(place, call("/direct/Get"), "200 -")
        .send_to(
            place,
            Request::new("POST", "/S/Web").header("content-type", "application/grpc-web").http2(),
            "200 a",
        )
        .send_to(
            place,
            Request::new("POST", "/S/Http1")
                .header("content-type", "application/grpc")
                .chunks(&MESSAGES),
            "200 a",
        )
        .send_to(
            place,
            Request::post("/S/Length", MESSAGES.concat())
                .header("content-type", "application/grpc"),
            "200 a",
        )
}

/// What the log says of every call before.
async fn noted(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for listener in ["LISTEN_NOTED", "LISTEN"] {
        // Whatever came before has its line when the one of this request is there.
        world.upstream("a")?.script([answered("0")]);
        call("/S/Last").chunks(&MESSAGES).send(world.address(listener)?).await;
        world.upstream("a")?.take();
        for number in 0.. {
            let line = access_log::line(world, listener, number).await?;
            seen.fact(listener, &number.to_string(), world.normal(&line));
            if line.contains("/S/Last") {
                break;
            }
        }
    }
    Ok(seen)
}

fn bodies() -> Case {
    let plain = || Request::post("/a.B/Plain", "text");
    Case::new("bodies_are_left_as_they_are")
        .script("a", [Reply::status(200).body("text")])
        .send(plain().header("content-type", "application/grpc"), "200 a")
        .script("a", [Reply::status(200).body("text")])
        .send(plain().header("content-type", "application/grpc").http2(), "200 a")
        .script("a", [answered("0").trailer("x-more", "1")])
        .send(call("/a.B/Plain").chunks(&MESSAGES).trailer("x-end", "1"), "200 a")
        .send(plain(), "200 a")
}

async fn counted(world: &World) -> Result<Observation> {
    let prefixes: Vec<String> = MODES
        .iter()
        .flat_map(|(_, name, _)| {
            [format!("cluster.{name}.grpc."), format!("cluster.{name}_gone.grpc.")]
        })
        .collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let text = world.proxy.admin("/stats").await?;
    let mut seen = Observation::default();
    // Times are only known to be there.
    for line in text.lines().filter(|line| line.contains(".upstream_rq_time:")) {
        let name = line.split_once(": ").map_or(line, |(name, _)| name);
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            seen.fact("times", name, "recorded");
        }
    }
    let counters = without_times(&text, &prefixes);
    for (name, value) in counters {
        seen.fact("statistics", name, value);
    }
    Ok(seen)
}

fn without_times<'t>(text: &'t str, prefixes: &[&str]) -> Vec<(&'t str, &'t str)> {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(name, value)| {
            prefixes.iter().any(|prefix| name.starts_with(prefix))
                && !name.ends_with(".upstream_rq_time")
                && *value != "0"
        })
        .collect()
}

/// What Prometheus makes of the names.
async fn tags(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let text = world.proxy.admin("/stats/prometheus").await?;
    for line in text.lines().filter(|line| line.starts_with("envoy_cluster_grpc_")) {
        if line.contains("_bucket") || line.contains("_sum") {
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let mut parts: Vec<&str> = series.split(['{', '}', ',']).collect();
        parts.sort_unstable();
        // Envoy counts times only when it flushes them.
        let value = if series.contains("_time_count") { "recorded" } else { value };
        seen.fact("tags", &parts.join(" "), value);
    }
    Ok(seen)
}
