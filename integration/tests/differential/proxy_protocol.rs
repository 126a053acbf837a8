//! The listener filter proxy_protocol: both versions, what is malformed, what is allowed, and who sees the addresses.

use anyhow::Result;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_chain, indent, routes};
use crate::wire::{all, listener_filter, record_growth, stats};

/// What the answer says of the connection.
const ADDRESSES: &str = "
response_headers_to_add:
- {header: {key: x-peer, value: '%DOWNSTREAM_REMOTE_ADDRESS%'}}
- {header: {key: x-direct, value: '%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%'}}
- {header: {key: x-local, value: '%DOWNSTREAM_LOCAL_ADDRESS%'}}
";

const ROUTES: &str = "
- {match: {prefix: /up}, route: {cluster: a}}
- {match: {prefix: /}, direct_response: {status: 200, body: {inline_string: direct}}}
";

const RBAC: &str = "http_filters:
- name: envoy.filters.http.rbac
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules: {action: DENY, policies: {POLICY}}
- ROUTER
";

fn listener(place: &str, filter: &str, chains: &str) -> String {
    format!(
        "- name: {place}\n  address: ${{{place}}}\n  listener_filters: [{filter}]\n  listener_filters_timeout: 0.3s\n  filter_chains:\n{}",
        indent(chains, 2)
    )
}

/// A chain whose answers show the addresses, unless an RBAC filter shows what it makes of them.
fn chain(more: &str) -> String {
    let shown = if more.contains("http_filters") { String::new() } else { indent(ADDRESSES, 2) };
    http_chain(&format!("{more}\nserver_name: x\n{}{shown}", routes(ROUTES)))
}

/// A chain that answers with its name.
fn named(name: &str, criteria: &str) -> String {
    let answer = format!(
        "- {{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {name}}}}}}}"
    );
    format!("{}  filter_chain_match: {{{criteria}}}\n", http_chain(&routes(&answer)))
}

pub(crate) fn group() -> Group {
    let filter = |config: &str| listener_filter("proxy_protocol", "ProxyProtocol", config, "");
    let deny = |rule: &str| chain(&RBAC.replace("POLICY", rule));
    let principal = |identifier: &str| {
        format!(
            "p: {{permissions: [{{any: true}}], principals: [{{{identifier}: {{address_prefix: 1.2.3.0, prefix_len: 24}}}}]}}"
        )
    };
    let port = "p: {permissions: [{destination_port: 80}], principals: [{any: true}]}";
    let by_address = [
        named("port", "destination_port: 80"),
        named("range", "prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]"),
        named("direct", "direct_source_prefix_ranges: [{address_prefix: 1.2.3.4, prefix_len: 32}]"),
        named(
            "source",
            "direct_source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}], source_prefix_ranges: [{address_prefix: 1.2.3.4, prefix_len: 32}]",
        ),
        named(
            "local",
            "direct_source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}], source_type: SAME_IP_OR_LOOPBACK",
        ),
        named("other", ""),
    ]
    .concat();
    Group {
        name: "proxy_protocol",
        bootstrap: bootstrap(
            &[
                listener("LISTEN", &filter(""), &chain("")),
                listener("LISTEN_EDGE", &filter(""), &chain("use_remote_address: true")),
                listener(
                    "LISTEN_LENIENT",
                    &filter(", allow_requests_without_proxy_protocol: true, stat_prefix: lenient"),
                    &chain(""),
                ),
                listener("LISTEN_NO1", &filter(", disallowed_versions: [V1]"), &chain("")),
                listener("LISTEN_NO2", &filter(", disallowed_versions: [V2]"), &chain("")),
                listener(
                    "LISTEN_LENIENT_NO2",
                    &filter(
                        ", allow_requests_without_proxy_protocol: true, disallowed_versions: [V2]",
                    ),
                    &chain(""),
                ),
                listener("LISTEN_SOURCE", &filter(""), &deny(&principal("source_ip"))),
                listener("LISTEN_DIRECT", &filter(""), &deny(&principal("direct_remote_ip"))),
                listener("LISTEN_REMOTE", &filter(""), &deny(&principal("remote_ip"))),
                listener("LISTEN_PORT", &filter(""), &deny(port)),
                listener("LISTEN_CHAINS", &filter(""), &by_address),
            ],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const V1: &str = "PROXY TCP4 1.2.3.4 10.0.0.1 4096 8080\r\n";

fn v2(version_command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([version_command, family]);
    bytes.extend(u16::try_from(payload.len()).unwrap_or_default().to_be_bytes());
    bytes.extend(payload);
    bytes
}

const V4: &[u8] = &[1, 2, 3, 4, 10, 0, 0, 1, 0x10, 0, 0x1f, 0x90];

fn cases() -> Vec<Case> {
    let v6: Vec<u8> = [&[0xfd; 16][..], &[0xfe; 16], &[0x10, 0, 0x1f, 0x90]].concat();
    let with = |more: &[u8]| v2(0x21, 0x11, &[V4, more].concat());
    let line = |text: &str| text.as_bytes().to_vec();
    let table: Vec<(&'static str, &'static str, Vec<u8>)> = vec![
        ("version_1_tcp4", "LISTEN", line(V1)),
        ("version_1_tcp6", "LISTEN", line("PROXY TCP6 fd00::1 fd00::2 4096 80\r\n")),
        ("version_1_unknown", "LISTEN", line("PROXY UNKNOWN\r\n")),
        ("version_1_unknown_with_words", "LISTEN", line("PROXY UNKNOWN ffff:: ffff:: 1 2\r\n")),
        ("version_1_two_spaces", "LISTEN", line("PROXY TCP4  1.2.3.4 10.0.0.1 4096 80\r\n")),
        ("version_1_a_word_is_missing", "LISTEN", line("PROXY TCP4 1.2.3.4 10.0.0.1 4096\r\n")),
        ("version_1_a_word_too_much", "LISTEN", line("PROXY TCP4 1.2.3.4 10.0.0.1 1 2 3\r\n")),
        ("version_1_a_port_too_high", "LISTEN", line("PROXY TCP4 1.2.3.4 10.0.0.1 1 65536\r\n")),
        ("version_1_another_family", "LISTEN", line("PROXY TCP4 fd00::1 fd00::2 1 2\r\n")),
        ("version_1_no_address", "LISTEN", line("PROXY TCP4 1.2.3 10.0.0.1 1 2\r\n")),
        ("version_1_multicast", "LISTEN", line("PROXY TCP4 224.0.0.1 10.0.0.1 1 2\r\n")),
        ("version_1_any_address", "LISTEN", line("PROXY TCP4 0.0.0.0 10.0.0.1 1 2\r\n")),
        ("version_1_broadcast", "LISTEN", line("PROXY TCP4 255.255.255.255 10.0.0.1 1 2\r\n")),
        ("version_1_another_protocol", "LISTEN", line("PROXY UDP4 1.2.3.4 10.0.0.1 1 2\r\n")),
        ("version_1_only_a_word", "LISTEN", line("PROXY\r\nxxxxxxxxxxxxxxx")),
        ("version_1_endless", "LISTEN", format!("PROXY {}", "x".repeat(200)).into_bytes()),
        (
            "version_1_too_long",
            "LISTEN",
            format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes(),
        ),
        ("version_1_long", "LISTEN", format!("PROXY UNKNOWN {}\r\n", "x".repeat(90)).into_bytes()),
        ("version_2_inet", "LISTEN", v2(0x21, 0x11, V4)),
        ("version_2_inet6", "LISTEN", v2(0x21, 0x21, &v6)),
        ("version_2_datagram", "LISTEN", v2(0x21, 0x12, V4)),
        ("version_2_local", "LISTEN", v2(0x20, 0x00, &[])),
        ("version_2_local_with_addresses", "LISTEN", v2(0x20, 0x11, V4)),
        ("version_2_values", "LISTEN", with(&[0x04, 0, 2, 7, 7, 0xea, 0, 1, 1])),
        ("version_2_an_empty_value", "LISTEN", with(&[0x04, 0, 0])),
        ("version_2_an_empty_value_then_another", "LISTEN", with(&[0x04, 0, 0, 5, 0, 1, 1])),
        ("version_2_a_value_cut_short", "LISTEN", with(&[0x04, 0, 3, 7])),
        ("version_2_a_length_cut_short", "LISTEN", with(&[0x04, 0])),
        ("version_2_a_type_alone", "LISTEN", with(&[0x04])),
        ("version_2_large_values", "LISTEN", with(&[&[0x04, 0x20, 0][..], &[7; 0x2000]].concat())),
        ("version_2_another_version", "LISTEN", v2(0x31, 0x11, V4)),
        ("version_2_another_command", "LISTEN", v2(0x22, 0x11, V4)),
        ("version_2_unspecified_family", "LISTEN", v2(0x21, 0x00, &[])),
        ("version_2_unix", "LISTEN", v2(0x21, 0x31, &[1; 216])),
        ("version_2_no_transport", "LISTEN", v2(0x21, 0x10, V4)),
        ("version_2_addresses_cut_short", "LISTEN", v2(0x21, 0x11, &[1; 11])),
        ("version_2_any_address", "LISTEN", v2(0x21, 0x11, &[0; 12])),
        ("nothing_of_it", "LISTEN", line("")),
        ("nothing_of_it_is_allowed", "LISTEN_LENIENT", line("")),
        ("it_is_read_where_it_is_not_required", "LISTEN_LENIENT", line(V1)),
        ("version_2_is_read_where_it_is_not_required", "LISTEN_LENIENT", v2(0x21, 0x11, V4)),
        ("malformed_where_it_is_not_required", "LISTEN_LENIENT", line("PROXY TCP4 x\r\n")),
        ("version_1_is_disallowed", "LISTEN_NO1", line(V1)),
        ("version_2_is_allowed_alone", "LISTEN_NO1", v2(0x21, 0x11, V4)),
        ("nothing_where_version_1_is_disallowed", "LISTEN_NO1", line("")),
        ("version_2_is_disallowed", "LISTEN_NO2", v2(0x21, 0x11, V4)),
        ("version_1_is_allowed_alone", "LISTEN_NO2", line(V1)),
        ("a_disallowed_version_is_passed_on", "LISTEN_LENIENT_NO2", v2(0x21, 0x11, V4)),
        ("source_ip_is_whom_it_names", "LISTEN_SOURCE", line(V1)),
        ("source_ip_is_the_peer_without_a_name", "LISTEN_SOURCE", line("PROXY UNKNOWN\r\n")),
        ("direct_remote_ip_is_the_peer", "LISTEN_DIRECT", line(V1)),
        ("remote_ip_is_whom_it_names", "LISTEN_REMOTE", line(V1)),
        (
            "destination_port_is_what_it_names",
            "LISTEN_PORT",
            line("PROXY TCP4 1.2.3.4 10.0.0.1 1 80\r\n"),
        ),
        ("destination_port_is_not_ours", "LISTEN_PORT", line(V1)),
        (
            "the_port_chooses_the_chain",
            "LISTEN_CHAINS",
            line("PROXY TCP4 1.2.3.4 10.0.0.1 1 80\r\n"),
        ),
        (
            "the_address_chooses_the_chain",
            "LISTEN_CHAINS",
            line("PROXY TCP4 1.2.3.4 10.0.0.1 1 81\r\n"),
        ),
        (
            "the_source_chooses_the_chain",
            "LISTEN_CHAINS",
            line("PROXY TCP4 1.2.3.4 11.0.0.1 1 81\r\n"),
        ),
        (
            "another_source_takes_another_chain",
            "LISTEN_CHAINS",
            line("PROXY TCP4 1.2.3.5 11.0.0.1 1 81\r\n"),
        ),
        (
            "a_named_loopback_source_is_local",
            "LISTEN_CHAINS",
            line("PROXY TCP4 127.9.9.9 11.0.0.1 1 81\r\n"),
        ),
        (
            "the_same_address_twice_is_local",
            "LISTEN_CHAINS",
            line("PROXY TCP4 9.9.9.9 9.9.9.9 1 81\r\n"),
        ),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, place, header)| {
            Case::custom(name, move |world| {
                let bytes = [&header[..], GET.as_bytes()].concat();
                Box::pin(async move { talk(world, place, &bytes).await })
            })
        })
        .collect();
    cases.push(Case::custom("x_forwarded_for_names_the_client_of_the_header", |world| {
        Box::pin(forwarded(world, "LISTEN_EDGE"))
    }));
    cases.push(Case::custom("x_forwarded_for_is_left_alone_by_default", |world| {
        Box::pin(forwarded(world, "LISTEN"))
    }));
    cases.push(Case::custom("a_header_in_pieces_is_put_together", |world| {
        Box::pin(in_pieces(world))
    }));
    cases
}

const COUNTED: &[&str] = &["proxy_proto.", "downstream_cx_proxy_proto_error"];

async fn talk(world: &World, place: &str, bytes: &[u8]) -> Result<Observation> {
    let before = stats(world, COUNTED).await?;
    let mut seen = Observation::default();
    let answer = all(world.address(place)?, bytes).await?;
    let facts = answer
        .lines()
        .filter(|line| !["date:", "x-outrigger-reason:"].iter().any(|name| line.starts_with(name)));
    // The order of headers is the codec's own.
    let mut facts: Vec<String> = facts.map(|line| without_own_port(world, line)).collect();
    facts.sort();
    seen.fact("answer", "text", facts.join(" / "));
    record_growth(world, &mut seen, COUNTED, &before).await?;
    Ok(seen)
}

/// The port that our client came from is a new one each time.
fn without_own_port(world: &World, line: &str) -> String {
    let line = world.normal(line);
    match line.strip_prefix("x-peer: 127.0.0.1:") {
        Some(_) => "x-peer: 127.0.0.1:<port>".to_owned(),
        None => line,
    }
}

async fn forwarded(world: &World, place: &str) -> Result<Observation> {
    let request = format!("{V1}{}", GET.replace("GET /", "GET /up"));
    let mut seen = Observation::default();
    all(world.address(place)?, request.as_bytes()).await?;
    for (index, got) in world.upstream("a")?.take().iter().enumerate() {
        seen.recorded("forwarded", &format!("upstream[{index}]"), "a", got, &world.values);
    }
    Ok(seen)
}

async fn in_pieces(world: &World) -> Result<Observation> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut seen = Observation::default();
    for (name, bytes) in [("1", V1.as_bytes().to_vec()), ("2", v2(0x21, 0x11, V4))] {
        let mut stream = tokio::net::TcpStream::connect(world.address("LISTEN")?).await?;
        stream.set_nodelay(true)?;
        for piece in bytes.chunks(5) {
            stream.write_all(piece).await?;
            tokio::task::yield_now().await;
        }
        stream.write_all(GET.as_bytes()).await?;
        let mut got = String::new();
        stream.read_to_string(&mut got).await?;
        let peer = got.lines().find(|line| line.starts_with("x-peer")).unwrap_or_default();
        seen.fact(name, "peer", peer);
    }
    Ok(seen)
}
