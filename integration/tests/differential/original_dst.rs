//! Where a connection was going to: clusters of type ORIGINAL_DST, and where connections to endpoints come from. Here the
//! PROXY protocol or a header says where; `tests/transparent.rs` has the kernel say it.

use anyhow::{Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_listener, indent, routes};
use crate::wire::{first_line, listener_filter, record_growth, stats, tcp_proxy};

const TO_CLUSTERS: &str = "
- {match: {prefix: /header}, route: {cluster: by_header}}
- {match: {prefix: /other}, route: {cluster: by_other_header}}
- {match: {prefix: /set}, route: {cluster: by_header}, request_headers_to_add: [{header: {key: x-envoy-original-dst-host, value: '${b.host}:${b.port}'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]}
- {match: {prefix: /port}, route: {cluster: by_port}}
- {match: {prefix: /plain}, route: {cluster: passthrough}}
- {match: {prefix: /black}, route: {cluster: BlackHoleCluster}}
- {match: {prefix: /source6}, route: {cluster: source6}, response_headers_to_add: [&from {header: {key: x-from, value: '%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%'}}]}
- {match: {prefix: /source}, route: {cluster: source}, response_headers_to_add: [*from]}
- {match: {prefix: /extra}, route: {cluster: extra}, response_headers_to_add: [*from]}
- {match: {prefix: /other-family}, route: {cluster: other_family}}
";

fn original(name: &str, more: &str) -> String {
    format!(
        "- {{name: {name}, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 2s{more}}}\n"
    )
}

pub(crate) fn group() -> Group {
    let proxy = listener_filter("proxy_protocol", "ProxyProtocol", "", "");
    let listener = |place: &str, address: &str, more: &str, chains: &str| {
        format!(
            "- name: {place}\n  address: {address}\n  {more}\n  filter_chains:\n{}",
            indent(chains, 2)
        )
    };
    let passthrough = format!("- filters: [{}]\n", tcp_proxy("cluster: passthrough"));
    let with_port = |field: &str, cluster: &str| {
        format!("  filter_chain_match: {{destination_port: {field}}}\n{cluster}")
    };
    let blackhole = format!(
        "{}{passthrough}",
        with_port("7", &format!("- filters: [{}]\n", tcp_proxy("cluster: BlackHoleCluster")))
            .replacen("  filter_chain_match", "- filter_chain_match", 1)
            .replacen("- filters", "  filters", 1)
    );
    let unbound = "bind_to_port: false";
    let bound = |name: &str, config: &str| {
        cluster(name, &["a"], &format!("upstream_bind_config: {{{config}}}"))
    };
    Group {
        name: "original_dst",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", &routes(TO_CLUSTERS)),
                listener(
                    "LISTEN_OUT",
                    "${LISTEN_OUT}",
                    &format!("listener_filters: [{proxy}]"),
                    &blackhole,
                ),
                listener("LISTEN_UNBOUND", "${LISTEN_UNBOUND}", unbound, &passthrough),
            ],
            &[
                original("passthrough", ""),
                original("by_header", ", original_dst_lb_config: {use_http_header: true}"),
                original(
                    "by_other_header",
                    ", original_dst_lb_config: {use_http_header: true, http_header_name: x-to}",
                ),
                original(
                    "by_port",
                    ", original_dst_lb_config: {use_http_header: true, upstream_port_override: ${a.port}}",
                ),
                "- {name: BlackHoleCluster, type: STATIC}\n".to_owned(),
                bound("source", "source_address: {address: 127.0.0.6, port_value: 0}"),
                bound(
                    "extra",
                    "source_address: {address: '::1', port_value: 0}, extra_source_addresses: [{address: {address: 127.0.0.7, port_value: 0}}]",
                ),
                bound("other_family", "source_address: {address: '::1', port_value: 0}"),
                bound(
                    "source6",
                    "source_address: {address: 127.0.0.8, port_value: 0}, additional_source_addresses: [{address: '::1', port_value: 0}], freebind: false, socket_options: [{level: 1, name: 9, int_value: 1}]",
                ),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("b", UpstreamKind::Plain),
            ("echo", UpstreamKind::Tcp),
            ("closed", UpstreamKind::Closed),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("passthrough_goes_where_it_was_going", "echo"),
        ("nobody_there_closes_the_connection", "closed"),
    ]
    .into_iter()
    .map(|(name, to)| Case::custom(name, move |world| Box::pin(tcp(world, to))))
    .collect();
    cases.push(Case::custom("no_socket_is_no_socket", |world| Box::pin(no_socket(world))));
    cases.push(Case::custom("the_black_hole_takes_a_port", |world| {
        Box::pin(async move {
            let mut seen = Observation::default();
            let line = "PROXY TCP4 1.2.3.4 127.0.0.1 1 7\r\n";
            let got = first_line(world.address("LISTEN_OUT")?, line.as_bytes()).await?;
            seen.fact("black hole", "got", got);
            Ok(seen)
        })
    }));
    for (name, path, header, to) in [
        ("a_header_names_the_destination", "/header", "x-envoy-original-dst-host", Some("a")),
        ("another_header_names_the_destination", "/other", "x-to", Some("b")),
        (
            "the_default_header_does_not_count_then",
            "/other",
            "x-envoy-original-dst-host",
            Some("b"),
        ),
        ("a_header_does_not_count_unless_it_may", "/plain", "x-envoy-original-dst-host", Some("a")),
        ("a_header_that_the_route_sets_counts", "/set", "x-envoy-original-dst-host", Some("a")),
        ("the_port_is_replaced", "/port", "x-envoy-original-dst-host", Some("b")),
        ("nothing_names_it", "/header", "x-nothing", None),
        ("a_destination_that_refuses", "/header", "x-envoy-original-dst-host", Some("closed")),
    ] {
        cases.push(Case::custom(name, move |world| {
            Box::pin(async move {
                let value = match to {
                    Some(to) => world.address(to)?.to_string(),
                    None => "x".to_owned(),
                };
                by_header(world, path, header, &value).await
            })
        }));
    }
    for (name, value) in [
        ("a_name_is_no_destination", "localhost:80"),
        ("an_address_without_a_port_is_no_destination", "127.0.0.1"),
        ("a_port_that_is_too_high_is_no_destination", "127.0.0.1:70000"),
        ("an_empty_header_is_no_destination", ""),
        ("words_are_no_destination", "127.0.0.1:80 x"),
    ] {
        cases.push(Case::custom(name, move |world| {
            Box::pin(by_header(world, "/header", "x-envoy-original-dst-host", value))
        }));
    }
    for (name, path, expected) in [
        ("a_black_hole_answers_503", "/black", "503 -"),
        ("connections_come_from_a_source_address", "/source", "200 a"),
        ("connections_come_from_the_source_of_their_family", "/extra", "200 a"),
        ("deprecated_additional_sources", "/source6", "200 a"),
        ("a_source_of_another_family_makes_no_connection", "/other-family", "503 -"),
    ] {
        cases.push(Case::new(name).get(path, expected));
    }
    cases.push(Case::custom("endpoints_are_counted_and_shown", |world| Box::pin(shown(world))));
    cases
}

/// A connection that was going to an upstream.
fn going_to(world: &World, place: &str) -> Result<Vec<u8>> {
    let to = world.address(place)?;
    Ok(format!("PROXY TCP4 1.2.3.4 {} 4096 {}\r\n", to.ip(), to.port()).into_bytes())
}

async fn tcp(world: &World, to: &str) -> Result<Observation> {
    let counted =
        &["cluster.passthrough.upstream_cx_total", "cluster.passthrough.upstream_cx_connect_fail"];
    let before = stats(world, counted).await?;
    let mut seen = Observation::default();
    let got = first_line(world.address("LISTEN_OUT")?, &going_to(world, to)?).await?;
    ensure!((to == "echo") == (got == "echo"), "{to}: {got}");
    seen.fact("tcp", "got", got);
    record_growth(world, &mut seen, counted, &before).await?;
    Ok(seen)
}

async fn no_socket(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let refused = tokio::net::TcpStream::connect(world.address("LISTEN_UNBOUND")?).await;
    seen.fact(
        "connect",
        "error",
        refused.err().map(|error| error.kind()).map_or_else(String::new, |it| it.to_string()),
    );
    Ok(seen)
}

const INVALID: &[&str] =
    &["cluster.by_header.original_dst_host_invalid", "cluster.by_header.upstream_cx_none_healthy"];

async fn by_header(world: &World, path: &str, header: &str, value: &str) -> Result<Observation> {
    let before = stats(world, INVALID).await?;
    let mut seen = Observation::default();
    let request = Request::get(path).header(header, value);
    world.send(&mut seen, "request", "LISTEN", &request).await?;
    record_growth(world, &mut seen, INVALID, &before).await?;
    Ok(seen)
}

/// Endpoints come into `/clusters` and `membership_total` a moment after they are made.
async fn shown(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let to = world.address("b")?.to_string();
    world.send(&mut seen, "request", "LISTEN", &Request::get("/other").header("x-to", &to)).await?;
    let patience = std::time::Duration::from_secs(5);
    let name = "cluster.by_other_header.membership_total";
    world.proxy.wait_for_stat(name, patience, |value| value == 1).await?;
    let clusters = world.proxy.admin("/clusters").await?;
    let line = format!("by_other_header::{to}::");
    for field in ["cx_active", "rq_total", "health_flags", "weight", "priority"] {
        let prefix = format!("{line}{field}::");
        let value = clusters.lines().find_map(|line| line.strip_prefix(&prefix));
        if field != "rq_total" && field != "cx_active" {
            seen.fact("/clusters", field, value.unwrap_or("<absent>"));
        }
    }
    Ok(seen)
}
