//! Network filters before the one that takes a connection: access control, rate and number of connections, the cluster by
//! server name; and how long a TCP connection may live.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::access_log::line;
use crate::parts::{bootstrap, cluster};
use crate::wire::{all, first_line, listener_filter, record_growth, stats, tcp_proxy};

const PATIENCE: Duration = Duration::from_secs(5);

/// A network filter of this kind, in flow YAML.
fn filter(name: &str, message: &str, config: &str) -> String {
    format!(
        "{{name: envoy.filters.network.{name}, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.{name}.v3.{message}, {config}}}}}"
    )
}

fn rbac(config: &str) -> String {
    filter("rbac", "RBAC", &format!("stat_prefix: tcp., {config}"))
}

/// Rules with one policy.
fn rules(action: &str, permission: &str, principal: &str) -> String {
    format!(
        "{{action: {action}, policies: {{the policy: {{permissions: [{{{permission}}}], principals: [{{{principal}}}]}}}}}}"
    )
}

fn listener(place: &str, before: &[String], filters: &[String], more: &str) -> String {
    format!(
        "- {{name: {place}, address: ${{{place}}}, listener_filters: [{}], filter_chains: [{{filters: [{}]{more}}}]}}\n",
        before.join(", "),
        filters.join(", ")
    )
}

/// Rules for the plaintext listener, and whether a client that comes from 127.0.0.1 gets through.
const RULES: &[(&str, &str, &str, &str, &str)] = &[
    ("ANY", "anyone_is_allowed", "ALLOW", "any: true", "any: true"),
    ("NOBODY", "anyone_is_denied", "DENY", "any: true", "any: true"),
    ("LOG", "a_log_denies_nobody", "LOG", "any: true", "any: true"),
    (
        "NEAR",
        "a_source_is_allowed",
        "ALLOW",
        "any: true",
        "source_ip: {address_prefix: 127.0.0.0, prefix_len: 8}",
    ),
    (
        "FAR",
        "another_source_is_not",
        "ALLOW",
        "any: true",
        "source_ip: {address_prefix: 10.0.0.0, prefix_len: 8}",
    ),
    (
        "DIRECT",
        "a_peer_is_denied",
        "DENY",
        "any: true",
        "direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}",
    ),
    (
        "REMOTE",
        "a_client_is_denied",
        "DENY",
        "any: true",
        "remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}",
    ),
    ("PORT", "a_port_is_allowed", "ALLOW", "destination_port: ${LISTEN_PORT.port}", "any: true"),
    ("OTHER", "another_port_is_not", "ALLOW", "destination_port: 1", "any: true"),
    (
        "RANGE",
        "a_range_of_ports_is_denied",
        "DENY",
        "destination_port_range: {start: 1024, end: 65536}",
        "any: true",
    ),
    (
        "HERE",
        "an_address_is_allowed",
        "ALLOW",
        "destination_ip: {address_prefix: 127.0.0.0, prefix_len: 8}",
        "any: true",
    ),
    ("NOT", "what_is_not_is_denied", "DENY", "not_rule: {destination_port: 1}", "any: true"),
    (
        "AND",
        "both_have_to_hold",
        "ALLOW",
        "and_rules: {rules: [{any: true}, {destination_port: 1}]}",
        "any: true",
    ),
    (
        "OR",
        "one_has_to_hold",
        "ALLOW",
        "or_rules: {rules: [{any: true}, {destination_port: 1}]}",
        "any: true",
    ),
    ("WHO", "nobody_is_authenticated_without_tls", "ALLOW", "any: true", "authenticated: {}"),
    (
        "NAME",
        "no_server_name_is_an_empty_one",
        "ALLOW",
        "requested_server_name: {exact: ''}",
        "any: true",
    ),
    (
        "NOT_ID",
        "all_but_one_are_allowed",
        "ALLOW",
        "any: true",
        "not_id: {source_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}",
    ),
];

const TLS: &str = ", transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificates: [{certificate_chain: {filename: '${DIR}/server.crt'}, private_key: {filename: '${DIR}/server.key'}}], validation_context: {trusted_ca: {filename: '${DIR}/ca.crt'}}}}}";

pub(crate) fn group() -> Group {
    let to_a = || {
        let log = "access_log: [{name: envoy.access_loggers.file, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${DIR}/tcp.log', log_format: {text_format_source: {inline_string: \"%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_CLUSTER% %BYTES_SENT%\\n\"}}}}]";
        (tcp_proxy("cluster: a"), tcp_proxy(&format!("cluster: a, {log}")))
    };
    let (plain, logged) = to_a();
    let echo = tcp_proxy("cluster: echo");
    let mut listeners: Vec<String> = RULES
        .iter()
        .map(|(place, _, action, permission, principal)| {
            let rules = rules(action, permission, principal);
            let filters = [rbac(&format!("rules: {rules}")), plain.clone()];
            listener(&format!("LISTEN_{place}"), &[], &filters, "")
        })
        .collect();
    let deny = rules("DENY", "any: true", "any: true");
    let allow = rules("ALLOW", "any: true", "any: true");
    let by_san = rules(
        "ALLOW",
        "any: true",
        "authenticated: {principal_name: {exact: 'spiffe://test/client'}}",
    );
    let any_tls = rules("ALLOW", "any: true", "authenticated: {}");
    let by_name = rules("ALLOW", "requested_server_name: {exact: server.example}", "any: true");
    let inspector = || listener_filter("tls_inspector", "TlsInspector", "", "");
    let bucket = "token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 1000s}";
    let limit = |config: &str| filter("connection_limit", "ConnectionLimit", config);
    let rate = |config: &str| filter("local_ratelimit", "LocalRateLimit", config);
    let off = "runtime_enabled: {default_value: false, runtime_key: x}";
    let one = |place: &str, filters: &[String], more: &str| listener(place, &[], filters, more);
    listeners.extend([
        one("LISTEN_LOGGED", &[rbac(&format!("rules: {deny}")), logged.clone()], ""),
        one(
            "LISTEN_DELAY",
            &[rbac(&format!("delay_deny: 0.2s, rules: {deny}")), plain.clone()],
            "",
        ),
        one(
            "LISTEN_SHADOW",
            &[
                rbac(&format!(
                    "shadow_rules_stat_prefix: s_, shadow_rules: {deny}, rules: {allow}"
                )),
                plain.clone(),
            ],
            "",
        ),
        one("LISTEN_ONLY_SHADOW", &[rbac(&format!("shadow_rules: {deny}")), plain.clone()], ""),
        one(
            "LISTEN_TWO",
            &[rbac(&format!("rules: {allow}")), rbac(&format!("rules: {deny}")), plain.clone()],
            "",
        ),
        one("LISTEN_SAN", &[rbac(&format!("rules: {by_san}")), plain.clone()], TLS),
        one("LISTEN_TLS", &[rbac(&format!("rules: {any_tls}")), plain.clone()], TLS),
        listener(
            "LISTEN_SNI",
            &[inspector()],
            &[rbac(&format!("rules: {by_name}")), plain.clone()],
            TLS,
        ),
        one("LISTEN_RATE", &[rate(&format!("stat_prefix: rate, {bucket}")), plain.clone()], ""),
        one(
            "LISTEN_RATE_OFF",
            &[
                rate(&format!(
                    "stat_prefix: idle, token_bucket: {{max_tokens: 0, fill_interval: 1000s}}, {off}"
                )),
                plain.clone(),
            ],
            "",
        ),
        one(
            "LISTEN_NO_TOKENS",
            &[
                rate("stat_prefix: none, token_bucket: {max_tokens: 0, fill_interval: 1000s}"),
                logged.clone(),
            ],
            "",
        ),
        one("LISTEN_MOST", &[limit("stat_prefix: most, max_connections: 1"), echo.clone()], ""),
        one(
            "LISTEN_MOST_LATE",
            &[limit("stat_prefix: late, max_connections: 1, delay: 0.2s"), echo.clone()],
            "",
        ),
        one(
            "LISTEN_MOST_OFF",
            &[limit(&format!("stat_prefix: idle, max_connections: 1, {off}")), echo.clone()],
            "",
        ),
        listener(
            "LISTEN_CLUSTER",
            &[inspector()],
            &[filter("sni_cluster", "SniCluster", "").replace(", }", "}"), echo.clone()],
            "",
        ),
        one("LISTEN_LIFE", &[tcp_proxy("cluster: echo, max_downstream_connection_duration: 0.2s")], ""),
        one(
            "LISTEN_LIFE_JITTER",
            &[tcp_proxy(
                "cluster: echo, max_downstream_connection_duration: 0.1s, max_downstream_connection_duration_jitter_percentage: {value: 100}",
            )],
            "",
        ),
    ]);
    Group {
        name: "network_filters",
        bootstrap: bootstrap(
            &listeners,
            &[
                cluster("a", &["a"], ""),
                cluster("echo", &["echo"], ""),
                cluster("server.example", &["s"], ""),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("echo", UpstreamKind::Tcp),
            ("s", UpstreamKind::Tls("server")),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = RULES
        .iter()
        .map(|(place, name, ..)| {
            let place = format!("LISTEN_{place}");
            Case::custom(name, move |world| {
                let place = place.clone();
                Box::pin(async move { get(world, &place, 1).await })
            })
        })
        .collect();
    for (name, place, times) in [
        ("a_denied_connection_may_stay_a_while", "LISTEN_DELAY", 1),
        ("rules_that_are_only_counted", "LISTEN_SHADOW", 1),
        ("rules_that_are_only_counted_alone", "LISTEN_ONLY_SHADOW", 1),
        ("two_filters_of_one_kind", "LISTEN_TWO", 1),
        ("a_bucket_of_two_lets_two_pass", "LISTEN_RATE", 3),
        ("a_rate_limit_that_is_off", "LISTEN_RATE_OFF", 2),
        ("a_bucket_without_tokens", "LISTEN_NO_TOKENS", 2),
    ] {
        cases.push(Case::custom(name, move |world| Box::pin(get(world, place, times))));
    }
    for (name, place, certificate) in [
        ("a_name_of_the_certificate_is_allowed", "LISTEN_SAN", Some("client")),
        ("another_name_is_not", "LISTEN_SAN", Some("server")),
        ("no_certificate_has_no_name", "LISTEN_SAN", None),
        ("tls_alone_is_authenticated", "LISTEN_TLS", None),
    ] {
        cases.push(Case::custom(name, move |world| {
            Box::pin(tls(world, place, certificate, "server.example"))
        }));
    }
    for (name, server_name) in [
        ("a_server_name_is_allowed", "server.example"),
        ("another_server_name_is_not", "a.wild.example"),
    ] {
        cases.push(Case::custom(name, move |world| {
            Box::pin(tls(world, "LISTEN_SNI", None, server_name))
        }));
    }
    for (name, place) in [
        ("one_connection_at_a_time", "LISTEN_MOST"),
        ("one_too_many_may_stay_a_while", "LISTEN_MOST_LATE"),
        ("a_limit_that_is_off", "LISTEN_MOST_OFF"),
    ] {
        cases.push(Case::custom(name, move |world| Box::pin(at_a_time(world, place))));
    }
    for (name, server_name) in [
        ("the_server_name_is_the_cluster", "server.example"),
        ("there_is_no_cluster_of_that_name", "a.wild.example"),
    ] {
        cases.push(Case::custom(name, move |world| {
            Box::pin(tls(world, "LISTEN_CLUSTER", None, server_name))
        }));
    }
    cases.push(Case::custom("without_a_server_name_the_filter_says", |world| {
        Box::pin(async move {
            let mut seen = Observation::default();
            // Not TLS: known from the first byte.
            let got = first_line(world.address("LISTEN_CLUSTER")?, b"x").await?;
            seen.fact("taken", "by", got);
            Ok(seen)
        })
    }));
    for (name, place) in [
        ("a_connection_ends_when_it_is_too_old", "LISTEN_LIFE"),
        ("a_connection_ends_some_time_after", "LISTEN_LIFE_JITTER"),
    ] {
        cases.push(Case::custom(name, move |world| Box::pin(life(world, place))));
    }
    cases.push(Case::custom("a_denial_is_logged", |world| {
        Box::pin(async move {
            get(world, "LISTEN_LOGGED", 1).await?;
            let text = line(world, "tcp", 2).await?;
            let mut seen = Observation::default();
            let details = text.split(' ').nth(1).unwrap_or_default();
            ensure!(details.starts_with("rbac_access_denied"), "{text}");
            seen.fact("log", "details", details);
            Ok(seen)
        })
    }));
    cases
}

const COUNTED: &[&str] =
    &["tcp.rbac.", "tcp.tcp.downstream_cx_total", "local_rate_limit.", "connection_limit."];

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// Requests over connections of their own.
async fn get(world: &World, place: &str, times: usize) -> Result<Observation> {
    let before = stats(world, COUNTED).await?;
    let mut seen = Observation::default();
    for index in 0..times {
        let answer = all(world.address(place)?, GET).await?;
        seen.fact("answer", &index.to_string(), answer.lines().next().unwrap_or_default());
    }
    record_growth(world, &mut seen, COUNTED, &before).await?;
    Ok(seen)
}

async fn tls(
    world: &World,
    place: &str,
    certificate: Option<&str>,
    server_name: &str,
) -> Result<Observation> {
    let before = stats(world, COUNTED).await?;
    let config = world.client_tls(certificate, &["http/1.1"])?;
    let outcome = Request::get("/").tls(&config, server_name).send(world.address(place)?).await;
    let mut seen = Observation::default();
    seen.fact("answer", "status", outcome.status());
    record_growth(world, &mut seen, COUNTED, &before).await?;
    Ok(seen)
}

/// Two connections at once, and one after them.
async fn at_a_time(world: &World, place: &str) -> Result<Observation> {
    let mut seen = Observation::default();
    let address = world.address(place)?;
    let prefix = if place == "LISTEN_MOST" { "most" } else { "late" };
    let active = format!("connection_limit.{prefix}.active_connections");
    let first = greeted(address).await?;
    seen.fact("first", "greeted", first.is_some());
    let second = greeted(address).await?;
    seen.fact("second", "greeted", second.is_some());
    drop((first, second));
    world.proxy.wait_for_stat(&active, PATIENCE, |value| value == 0).await?;
    let third = greeted(address).await?;
    seen.fact("third", "greeted", third.is_some());
    if place != "LISTEN_MOST_OFF" {
        world.proxy.wait_for_stat(&active, PATIENCE, |value| value == 1).await?;
    }
    drop(third);
    world.proxy.wait_for_stat(&active, PATIENCE, |value| value == 0).await?;
    let limited = format!("connection_limit.{prefix}.limited_connections");
    seen.fact("limited", "connections", world.proxy.stat(&limited).await?);
    Ok(seen)
}

/// A connection that the upstream has greeted; `None`: it was closed.
async fn greeted(address: std::net::SocketAddr) -> Result<Option<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    let mut greeting = [0; 5];
    Ok(stream.read_exact(&mut greeting).await.ok().map(|_| stream))
}

async fn life(world: &World, place: &str) -> Result<Observation> {
    let counted = &["tcp.tcp.max_downstream_connection_duration"];
    let before = stats(world, counted).await?;
    let got = all(world.address(place)?, b"").await?;
    let mut seen = Observation::default();
    seen.fact("life", "got", got);
    record_growth(world, &mut seen, counted, &before).await?;
    Ok(seen)
}
