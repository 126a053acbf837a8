//! The PROXY protocol towards endpoints: what stands in the header, byte for byte as an endpoint that echoes got it, what is
//! passed on of a client's own, TLS behind it, and which requests share a connection.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::access_log::line;
use crate::parts::{bootstrap, cluster, http_chain, http_listener, indent, routes, statistics};
use crate::wire::{listener_filter, stats, tcp_proxy};

const RAW: &str = "{name: envoy.transport_sockets.raw_buffer, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}";
const TLS: &str = "{name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: server.example, common_tls_context: {validation_context: {trusted_ca: {filename: '${DIR}/ca.crt'}}}}}";
const SERVER_TLS: &str = "  transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificates: [{certificate_chain: {filename: '${DIR}/server.crt'}, private_key: {filename: '${DIR}/server.key'}}]}}}\n";
/// It passes if the endpoint was told that the connection is our own.
const CHECKED: &str = "health_checks: [{timeout: 2s, interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {receive: [{text: 6563686f0a}, {text: 0d0a0d0a000d0a515549540a20000000}]}}]\n";
const FORMAT: &str = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS%";

/// The field `transport_socket` with the protocol around another transport.
fn told(config: &str, inner: &str) -> String {
    format!("transport_socket: {}\n", socket(config, inner))
}

fn socket(config: &str, inner: &str) -> String {
    format!(
        "{{name: envoy.transport_sockets.upstream_proxy_protocol, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, config: {{{config}}}, transport_socket: {inner}}}}}"
    )
}

/// Connections of bytes, each kind with a cluster of its own: place, configuration of the protocol.
const BYTES: [(&str, &str); 7] = [
    ("LISTEN_V1", "version: V1"),
    ("LISTEN_V2", "version: V2"),
    ("LISTEN_UNSET", ""),
    (
        "LISTEN_ADDED",
        "version: V2, added_tlvs: [{type: 224, value: aGVsbG8=}, {type: 225, value: eA==}, {type: 224, value: Yg==}]",
    ),
    (
        "LISTEN_ADDED_V1",
        "version: V1, added_tlvs: [{type: 224, value: aGVsbG8=}], pass_through_tlvs: {}",
    ),
    (
        "LISTEN_ALL",
        "version: V2, pass_through_tlvs: {}, added_tlvs: [{type: 226, value: bWluZQ==}]",
    ),
    ("LISTEN_SOME", "version: V2, pass_through_tlvs: {match_type: INCLUDE, tlv_type: [225, 5]}"),
];

/// The same to whom clients' proxies speak the protocol.
const PROXIED: [(&str, &str, &str); 4] = [
    ("LISTEN_PASS_ALL", "LISTEN_ALL", ", pass_through_tlvs: {}"),
    (
        "LISTEN_PASS_SOME",
        "LISTEN_SOME",
        ", pass_through_tlvs: {match_type: INCLUDE, tlv_type: [224, 225]}",
    ),
    ("LISTEN_PASS_NONE", "LISTEN_ALL", ""),
    ("LISTEN_PASS_V1", "LISTEN_V1", ", pass_through_tlvs: {}"),
];

fn bytes_listener(place: &str, target: &str, filters: &str) -> String {
    format!(
        "- name: {place}\n  address: ${{{place}}}\n  listener_filters: [{filters}]\n  filter_chains: [{{filters: [{}]}}]\n",
        tcp_proxy(&format!("cluster: {target}"))
    )
}

/// A listener that speaks the protocol, and logs whom it was told of.
fn inner(place: &str, more: &str) -> String {
    let log = format!(
        "access_log:\n- name: envoy.access_loggers.file\n  typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/{place}.log', log_format: {{text_format_source: {{inline_string: \"{FORMAT}\\n\"}}}}}}\n"
    );
    let answer =
        "- {match: {prefix: /}, direct_response: {status: 200, body: {inline_string: inside}}}";
    let chain = http_chain(&format!("{log}{}", routes(answer)));
    let filter = listener_filter("proxy_protocol", "ProxyProtocol", ", stat_prefix: inner", "");
    format!(
        "- name: {place}\n  address: ${{{place}}}\n  listener_filters: [{filter}]\n  filter_chains:\n{}",
        indent(&format!("{chain}{more}"), 2)
    )
}

pub(crate) fn group() -> Group {
    let mut listeners: Vec<String> =
        BYTES.iter().map(|(place, _)| bytes_listener(place, place, "")).collect();
    listeners.extend(PROXIED.iter().map(|(place, target, config)| {
        bytes_listener(
            place,
            target,
            &listener_filter("proxy_protocol", "ProxyProtocol", config, ""),
        )
    }));
    let by_path = ["http", "two", "secure", "matched", "unmatched"]
        .map(|name| format!("- {{match: {{prefix: /{name}}}, route: {{cluster: {name}}}}}\n"));
    listeners.extend([
        http_listener("LISTEN", &routes(&by_path.concat())),
        inner("LISTEN_INNER", ""),
        inner("LISTEN_SECURE", SERVER_TLS),
    ]);
    let mut clusters: Vec<String> =
        BYTES.iter().map(|(name, config)| cluster(name, &["echo"], &told(config, RAW))).collect();
    let matched = format!(
        "transport_socket_matches: [{{name: told, match: {{told: true}}, transport_socket: {}}}]\n",
        socket("version: V1", RAW)
    );
    let http2 = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}\n";
    clusters.extend([
        cluster("http", &["LISTEN_INNER"], &told("version: V2", RAW)),
        cluster("two", &["LISTEN_INNER"], &format!("{}{http2}", told("version: V2", RAW))),
        cluster("secure", &["LISTEN_SECURE"], &told("version: V1", TLS)),
        cluster("checked", &["echo"], &format!("{}{CHECKED}", told("version: V2", RAW))),
        cluster("unmatched", &["a"], &matched),
        cluster("matched", &["LISTEN_INNER"], &matched).replace(
            "{endpoint:",
            "{metadata: {filter_metadata: {envoy.transport_socket_match: {told: true}}}, endpoint:",
        ),
    ]);
    Group {
        name: "upstream_proxy_protocol",
        bootstrap: bootstrap(&listeners, &clusters),
        upstreams: vec![("a", UpstreamKind::Plain), ("echo", UpstreamKind::Tcp)],
        unsupported: None,
        cases: cases(),
    }
}

/// From 1.2.3.4:5 to 6.7.8.9:10, with three values.
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x1d\x01\x02\x03\x04\x06\x07\x08\x09\x00\x05\x00\x0a\xe0\x00\x03abc\xe1\x00\x01d\xe2\x00\x04mine";

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("version_1", "LISTEN_V1", &b""[..]),
        ("version_2", "LISTEN_V2", b""),
        ("no_version_is_the_first", "LISTEN_UNSET", b""),
        ("values_of_our_own", "LISTEN_ADDED", b""),
        ("version_1_has_no_values", "LISTEN_ADDED_V1", b""),
        ("all_values_are_passed_on_but_those_that_are_ours", "LISTEN_PASS_ALL", VERSION_2),
        ("some_values_are_passed_on", "LISTEN_PASS_SOME", VERSION_2),
        ("values_that_are_not_kept_are_not_passed_on", "LISTEN_PASS_NONE", VERSION_2),
        ("addresses_are_passed_on_in_another_version", "LISTEN_PASS_V1", VERSION_2),
        (
            "a_line_is_passed_on_as_version_2",
            "LISTEN_PASS_ALL",
            b"PROXY TCP6 fd00::1 fd00::2 3 4\r\n",
        ),
        ("what_is_said_of_nobody_is_of_the_client", "LISTEN_PASS_V1", b"PROXY UNKNOWN\r\n"),
    ]
    .into_iter()
    .map(|(name, place, header)| {
        Case::custom(name, move |world| Box::pin(echoed(world, place, header)))
    })
    .collect();
    cases.extend([
        Case::new("a_request").get("/http", "200 -"),
        Case::new("a_request_over_tls").get("/secure", "200 -"),
        Case::new("an_endpoint_that_is_told_by_its_metadata").get("/matched", "200 -"),
        Case::new("an_endpoint_that_is_not").get("/unmatched", "200 a"),
        Case::custom("a_request_is_of_its_client", |world| Box::pin(client(world))),
        Case::custom("each_client_has_connections_of_its_own", |world| {
            Box::pin(connections(world, "http"))
        }),
        Case::custom("each_client_has_http2_connections_of_its_own", |world| {
            Box::pin(connections(world, "two"))
        }),
        Case::custom("statistics", |world| {
            Box::pin(statistics(
                world,
                &[
                    "proxy_proto.inner.",
                    "cluster.secure.ssl.handshake",
                    "cluster.checked.membership_healthy",
                    "cluster.checked.health_check.success",
                    "cluster.LISTEN_V1.upstream_cx_total",
                ],
            ))
        }),
    ]);
    cases
}

/// What the endpoint got before the bytes of the client, in a form that does not depend on the run.
async fn echoed(world: &World, place: &str, header: &[u8]) -> Result<Observation> {
    const PAYLOAD: &[u8] = b"payload";
    let at = world.address(place)?;
    let mut stream = TcpStream::connect(at).await?;
    let client = stream.local_addr()?;
    stream.write_all(&[header, PAYLOAD].concat()).await?;
    let mut got = Vec::new();
    while !got.ends_with(PAYLOAD) {
        ensure!(stream.read_buf(&mut got).await? > 0, "{:?}", String::from_utf8_lossy(&got));
    }
    let got = got.strip_prefix(b"echo\n").unwrap_or(&got);
    let got = got.get(..got.len() - PAYLOAD.len()).unwrap_or_default();
    let mut seen = Observation::default();
    let shown =
        if got.starts_with(b"PROXY") { as_text(got, client, at) } else { as_hex(got, client, at) };
    seen.fact("endpoint", "got", shown);
    Ok(seen)
}

fn as_text(got: &[u8], client: SocketAddr, at: SocketAddr) -> String {
    let word = |word: &str| match word {
        _ if word == client.port().to_string() => "<client port>".to_owned(),
        _ if word == at.port().to_string() => "<port>".to_owned(),
        _ if word == at.ip().to_string() => "<ip>".to_owned(),
        _ if word == client.ip().to_string() => "<client ip>".to_owned(),
        _ => word.to_owned(),
    };
    let text = String::from_utf8_lossy(got).replace("\r\n", " <end>");
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn as_hex(got: &[u8], client: SocketAddr, at: SocketAddr) -> String {
    let between = match (client, at) {
        (SocketAddr::V4(client), SocketAddr::V4(at)) => [
            &client.ip().octets()[..],
            &at.ip().octets(),
            &client.port().to_be_bytes(),
            &at.port().to_be_bytes(),
        ]
        .concat(),
        _ => Vec::new(),
    };
    let (before, rest) = got.split_at(got.len().min(16));
    let mut out = hex(before);
    match rest.strip_prefix(&between[..]) {
        Some(rest) => out.push_str(&format!(" <client to here> {}", hex(rest))),
        None => out.push_str(&hex(rest)),
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Whom the inner listener was told of.
async fn client(world: &World) -> Result<Observation> {
    let at = world.address("LISTEN")?;
    let mut stream = TcpStream::connect(at).await?;
    let client = stream.local_addr()?;
    stream.write_all(b"GET /secure HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
    stream.read_to_end(&mut Vec::new()).await?;
    let logged = line(world, "LISTEN_SECURE", 1).await?;
    let mut seen = Observation::default();
    seen.fact("log", "is of the client", logged == format!("{client} {at}"));
    Ok(seen)
}

/// Two requests on one connection, and one on another.
async fn connections(world: &World, name: &str) -> Result<Observation> {
    let counter = format!("cluster.{name}.upstream_cx_total");
    let before = stats(world, &[&counter]).await?;
    let request = Request::get(&format!("/{name}"));
    let mut first = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    let mut second = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    let mut seen = Observation::default();
    for (number, connection) in [&mut first, &mut second].into_iter().enumerate() {
        for _ in 0..=number {
            ensure!(connection.send(&request).await?.status == 200, "not answered");
        }
    }
    let after = stats(world, &[&counter]).await?;
    let made = after.get(&counter).unwrap_or(&0) - before.get(&counter).unwrap_or(&0);
    seen.fact("connections", "made", made);
    Ok(seen)
}
