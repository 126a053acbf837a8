//! Unix domain sockets: listeners and endpoints at paths and abstract names, one behind the other: `LISTEN...` has the
//! socket of an inner listener as its upstream, which has a real one.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::access_log::line;
use crate::parts::{bootstrap, cluster, http_chain, http_listener, indent, routes, statistics};
use crate::wire::{first_line, tcp_proxy};

const FORMAT: &str = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_PORT% %UPSTREAM_HOST% %UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_PORT% %UPSTREAM_CLUSTER% %RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%";

fn log(place: &str) -> String {
    format!(
        "access_log:\n- name: envoy.access_loggers.file\n  typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/{place}.log', log_format: {{text_format_source: {{inline_string: \"{FORMAT}\\n\"}}}}}}\n"
    )
}

/// A listener at a path.
fn at_path(name: &str, address: &str, chains: &str) -> String {
    format!(
        "- name: {name}\n  stat_prefix: {name}\n  address: {{pipe: {address}}}\n  filter_chains:\n{}",
        indent(chains, 2)
    )
}

/// A cluster with one endpoint at a path.
fn pipe(name: &str, path: &str, more: &str) -> String {
    format!(
        "- name: {name}\n  type: STATIC\n  connect_timeout: 2s\n  load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: '{path}'}}}}}}}}]}}]}}\n{}",
        indent(more, 2)
    )
}

fn answers(text: &str) -> String {
    routes(&format!(
        "- {{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {text}}}}}}}"
    ))
}

fn to(name: &str) -> String {
    routes(&format!("- {{match: {{prefix: /}}, route: {{cluster: {name}}}}}"))
}

/// A chain that answers with a text, and takes what matches.
fn chain(text: &str, matches: &str) -> String {
    format!("{}  filter_chain_match: {{{matches}}}\n", http_chain(&answers(text)))
}

/// An RBAC filter before a router: who is not in the network is not let in.
const RBAC: &str = "http_filters:
- name: envoy.filters.http.rbac
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: ALLOW, policies: {all: {permissions: [{any: true}], principals: [{direct_remote_ip: {address_prefix: 0.0.0.0, prefix_len: 0}}]}}}}
- ROUTER";
/// The same the other way round.
const RBAC_NOT: &str = "http_filters:
- name: envoy.filters.http.rbac
  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: ALLOW, policies: {all: {permissions: [{not_rule: {destination_port: 80}}], principals: [{not_id: {remote_ip: {address_prefix: 0.0.0.0, prefix_len: 0}}}]}}}}
- ROUTER";
const NETWORK_RBAC: &str = "{name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: pipe., rules: {action: DENY, policies: {all: {permissions: [{destination_port_range: {start: 0, end: 65535}}, {destination_ip: {address_prefix: 0.0.0.0, prefix_len: 0}}], principals: [{any: true}]}}}}}";

const TLS: &str = "  transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificates: [{certificate_chain: {filename: '${DIR}/server.crt'}, private_key: {filename: '${DIR}/server.key'}}]}}}\n";
const TO_TLS: &str = "transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: server.example, common_tls_context: {validation_context: {trusted_ca: {filename: '${DIR}/ca.crt'}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: server.example}}]}}}}\n";
const CHECKED: &str = "health_checks: [{timeout: 2s, interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /health}}]\n";
const HASHED: &str = "lb_policy: RING_HASH\n";

/// The paths: name of the listener and its cluster, and where they are.
const PATHS: [(&str, &str); 11] = [
    ("plain", "${DIR}/plain.sock"),
    ("abstract", "@${DIR}/abstract"),
    ("edge", "${DIR}/edge.sock"),
    ("internal", "${DIR}/internal.sock"),
    ("hops", "${DIR}/hops.sock"),
    ("rbac", "${DIR}/rbac.sock"),
    ("rbac_not", "${DIR}/rbac_not.sock"),
    ("tls", "${DIR}/tls.sock"),
    ("chains", "${DIR}/chains.sock"),
    ("ports", "${DIR}/ports.sock"),
    ("hash", "${DIR}/hash.sock"),
];

fn inner(name: &str) -> String {
    let logged = format!("{}{}", log(name), to("a"));
    match name {
        "edge" => http_chain(&format!("use_remote_address: true\n{logged}")),
        "internal" => http_chain(&format!(
            "use_remote_address: true\ninternal_address_config: {{unix_sockets: true}}\n{logged}"
        )),
        "hops" => http_chain(&format!("xff_num_trusted_hops: 1\n{logged}")),
        "rbac" => http_chain(&format!("{logged}{RBAC}")),
        "rbac_not" => http_chain(&format!("{logged}{RBAC_NOT}")),
        "tls" => format!("{}{TLS}", http_chain(&logged)),
        "hash" => http_chain(&routes(
            "- {match: {prefix: /}, route: {cluster: hashed, hash_policy: [{connection_properties: {source_ip: true}, terminal: true}, {header: {header_name: x-key}}]}}",
        )),
        "chains" => [
            chain("other", "source_type: EXTERNAL"),
            chain("range", "prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]"),
            chain("local", "source_type: SAME_IP_OR_LOOPBACK"),
        ]
        .concat(),
        "ports" => [
            chain("port", "destination_port: 80"),
            chain(
                "no address",
                "prefix_ranges: [{address_prefix: 255.255.255.255, prefix_len: 32}]",
            ),
            chain("all", ""),
        ]
        .concat(),
        _ => http_chain(&logged),
    }
}

pub(crate) fn group() -> Group {
    let mut listeners: Vec<String> = PATHS
        .iter()
        .map(|(name, path)| at_path(name, &format!("{{path: '{path}'}}"), &inner(name)))
        .collect();
    listeners.push(at_path(
        "mode",
        "{path: '${DIR}/mode.sock', mode: 384}",
        &format!("- {{filters: [{NETWORK_RBAC}, {}]}}\n", tcp_proxy("cluster: echo")),
    ));
    let by_path = PATHS.map(|(name, _)| {
        format!("- {{match: {{prefix: /{name}/}}, route: {{cluster: {name}}}}}\n")
    });
    let by_path = by_path.concat()
        + "- {match: {prefix: /checked/}, route: {cluster: checked}}\n- {match: {prefix: /closed/}, route: {cluster: closed}}\n";
    listeners.push(http_listener("LISTEN", &format!("{}{}", log("LISTEN"), routes(&by_path))));
    let bytes = |place: &str, target: &str| {
        format!(
            "- name: {place}\n  address: ${{{place}}}\n  filter_chains: [{{filters: [{}]}}]\n",
            tcp_proxy(target)
        )
    };
    listeners.push(bytes("LISTEN_TCP", "cluster: mode"));
    let more = |name: &str| match name {
        "tls" => TO_TLS,
        _ => "",
    };
    let mut clusters: Vec<String> =
        PATHS.iter().map(|(name, path)| pipe(name, path, more(name))).collect();
    clusters.extend([
        pipe("mode", "${DIR}/mode.sock", ""),
        pipe("checked", "${DIR}/chains.sock", CHECKED),
        pipe("closed", "${DIR}/nobody.sock", ""),
        cluster("a", &["a"], ""),
        cluster("hashed", &["a", "b"], HASHED),
        cluster("echo", &["echo"], ""),
    ]);
    Group {
        name: "pipes",
        bootstrap: bootstrap(&listeners, &clusters),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("b", UpstreamKind::Plain),
            ("echo", UpstreamKind::Tcp),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("a_request_through_a_path").get("/plain/", "200 a"),
        Case::new("a_request_through_an_abstract_name").get("/abstract/", "200 a"),
        Case::new("a_client_at_a_path_has_no_address_to_forward").get("/edge/", "200 a").send(
            Request::get("/edge/")
                .header("x-forwarded-for", "1.2.3.4")
                .header("x-envoy-retry-on", "5xx"),
            "200 a",
        ),
        Case::new("a_client_at_a_path_may_count_as_internal")
            .send(Request::get("/internal/").header("x-envoy-max-retries", "2"), "200 a"),
        Case::new("an_address_that_was_forwarded_counts")
            .send(Request::get("/hops/").header("x-forwarded-for", "1.2.3.4, 10.0.0.1"), "200 a"),
        Case::new("a_path_is_in_no_network").get("/rbac/", "403 -"),
        Case::new("a_path_is_outside_of_every_network").get("/rbac_not/", "200 a"),
        Case::new("tls_over_a_path").get("/tls/", "200 a"),
        Case::new("a_path_is_local_and_in_no_range").get("/chains/", "200 -"),
        Case::new("a_path_is_matched_as_an_address_that_nobody_has").get("/ports/", "200 -"),
        Case::custom("a_path_has_no_address_to_hash", |world| Box::pin(hashed(world))),
        Case::new("health_is_checked_at_a_path").get("/checked/", "200 -"),
        Case::new("a_path_where_nobody_is").get("/closed/", "503 -"),
        Case::custom("bytes_through_a_path", |world| Box::pin(bytes(world))),
        Case::custom("the_file_has_its_mode", |world| Box::pin(async move { mode(world) })),
        Case::custom("a_client_of_its_own", |world| Box::pin(client(world))),
        Case::custom("listeners_are_shown_with_their_paths", |world| {
            Box::pin(shown(world, "/listeners", "::"))
        }),
        Case::custom("endpoints_are_shown_with_their_paths", |world| {
            Box::pin(shown(world, "/clusters", "::rq_total::"))
        }),
        Case::custom("the_json_of_listeners", |world| {
            Box::pin(json(world, "/listeners?format=json", "listener_statuses", "local_address"))
        }),
        Case::custom("the_json_of_clusters", |world| {
            Box::pin(json(world, "/clusters?format=json", "cluster_statuses", "host_statuses"))
        }),
    ];
    for (name, place) in [
        ("what_a_log_says_of_a_client_at_a_path", "plain"),
        ("what_a_log_says_of_an_abstract_name", "abstract"),
        ("what_a_log_says_of_a_forwarded_address", "hops"),
    ] {
        cases.push(Case::custom(name, move |world| Box::pin(logged(world, place, 0))));
    }
    for number in [0, 1, 13] {
        let name: &'static str = match number {
            0 => "what_a_log_says_of_an_endpoint_at_a_path",
            1 => "what_a_log_says_of_an_endpoint_with_an_abstract_name",
            _ => "what_a_log_says_of_a_path_where_nobody_is",
        };
        cases.push(Case::custom(name, move |world| Box::pin(logged(world, "LISTEN", number))));
    }
    cases.push(Case::custom("statistics", |world| {
        Box::pin(statistics(
            world,
            &[
                "cluster.plain.upstream_cx_total",
                "cluster.plain.upstream_cx_http1_total",
                "cluster.mode.upstream_cx_total",
                "cluster.closed.upstream_cx_total",
                "cluster.closed.upstream_cx_connect_fail",
                "listener.plain.downstream_cx_total",
                "listener.mode.downstream_cx_total",
                "pipe.rbac.",
            ],
        ))
    }));
    cases
}

fn normal(world: &World, text: &str) -> String {
    world.normal(&text.replace(&world.folder.path().display().to_string(), "<dir>"))
}

/// A line without the ports of this run.
fn without_ports(line: &str) -> String {
    let word = |word: &str| match word.rsplit_once(':') {
        Some(("127.0.0.1", _)) => "127.0.0.1:<port>".to_owned(),
        _ if word.parse::<u16>().is_ok_and(|port| port > 0) => "<port>".to_owned(),
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

async fn logged(world: &World, place: &str, number: usize) -> Result<Observation> {
    let mut seen = Observation::default();
    let line = normal(world, &line(world, place, number).await?);
    seen.fact("log", "line", without_ports(&line));
    Ok(seen)
}

async fn bytes(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    seen.fact("bytes", "first", first_line(world.address("LISTEN_TCP")?, b"hello").await?);
    Ok(seen)
}

/// The address would be the same each time, and so the endpoint; the header after it is another each time.
async fn hashed(world: &World) -> Result<Observation> {
    let mut reached = std::collections::BTreeSet::new();
    for key in 0..30 {
        let request = Request::get("/hash/").header("x-key", &key.to_string());
        reached.insert(request.send(world.address("LISTEN")?).await.body());
    }
    let mut seen = Observation::default();
    seen.fact("hash", "endpoints", format!("{reached:?}"));
    Ok(seen)
}

fn mode(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let file = std::fs::metadata(world.folder.path().join("mode.sock"))?;
    seen.fact("file", "mode", format!("{:o}", file.permissions().mode() & 0o777));
    Ok(seen)
}

async fn client(world: &World) -> Result<Observation> {
    let mut stream = UnixStream::connect(world.folder.path().join("chains.sock")).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let mut seen = Observation::default();
    seen.fact("answer", "status", answer.lines().next().unwrap_or_default());
    seen.fact("answer", "body", answer.lines().last().unwrap_or_default());
    Ok(seen)
}

async fn shown(world: &World, path: &str, part: &str) -> Result<Observation> {
    let text = world.proxy.admin(path).await?;
    let mut lines: Vec<String> =
        text.lines().filter(|line| line.contains(part)).map(|line| normal(world, line)).collect();
    lines.retain(|line| line.contains("<dir>"));
    lines.sort_unstable();
    let mut seen = Observation::default();
    seen.fact(path, "lines", lines.join(" "));
    Ok(seen)
}

async fn json(world: &World, path: &str, list: &str, field: &str) -> Result<Observation> {
    let text = world.proxy.admin(path).await?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let statuses = all[list].as_array().context("no statuses")?;
    let mut seen = Observation::default();
    for status in statuses {
        let name = status["name"].as_str().unwrap_or_default();
        if !["plain", "abstract"].contains(&name) {
            continue;
        }
        let address = match &status[field] {
            serde_json::Value::Array(hosts) => hosts[0]["address"].to_string(),
            address => address.to_string(),
        };
        seen.fact(path, name, normal(world, &address));
    }
    Ok(seen)
}
