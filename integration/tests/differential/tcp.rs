//! The TCP proxy: bytes both ways, half-close, failures, choice by server name, weights.

use anyhow::{Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::parts::{bootstrap, cluster};

pub(crate) fn group() -> Group {
    let filter = |target: &str| {
        format!(
            "{{name: envoy.filters.network.tcp_proxy, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, {target}}}}}"
        )
    };
    let listener = |place: &str, target: &str| {
        format!(
            "- name: {place}\n  address: ${{{place}}}\n  filter_chains: [{{filters: [{}]}}]\n",
            filter(target)
        )
    };
    let by_name = format!(
        "- name: LISTEN_NAME
  address: ${{LISTEN_NAME}}
  listener_filters: [{{name: envoy.filters.listener.tls_inspector, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]
  filter_chains:
  - {{filter_chain_match: {{server_names: [server.example]}}, filters: [{}]}}
  - {{filter_chain_match: {{server_names: [other.example]}}, filters: [{}]}}
",
        filter("cluster: server"),
        filter("cluster: other"),
    );
    let by_place = format!(
        "- name: LISTEN_PLACE
  address: ${{LISTEN_PLACE}}
  filter_chains:
  - {{filter_chain_match: {{prefix_ranges: [{{address_prefix: 127.0.0.0, prefix_len: 8}}], source_type: EXTERNAL}}, filters: [{closed}]}}
  - {{filter_chain_match: {{prefix_ranges: [{{address_prefix: ${{LISTEN_PLACE.host}}, prefix_len: 32}}], source_type: SAME_IP_OR_LOOPBACK, source_prefix_ranges: [{{address_prefix: 127.0.0.0, prefix_len: 8}}]}}, filters: [{echo}]}}
  - {{filter_chain_match: {{source_type: SAME_IP_OR_LOOPBACK}}, filters: [{closed}]}}
- name: LISTEN_NO_WAY_BACK
  address: ${{LISTEN_NO_WAY_BACK}}
  default_filter_chain: {{filters: [{echo}]}}
  filter_chains:
  - {{filter_chain_match: {{source_prefix_ranges: [{{address_prefix: 127.0.0.0, prefix_len: 8}}], source_ports: [1]}}, filters: [{closed}]}}
  - {{filter_chain_match: {{source_type: EXTERNAL}}, filters: [{closed}]}}
  - {{filters: [{closed}]}}
",
        closed = filter("cluster: closed"),
        echo = filter("cluster: echo"),
    );
    Group {
        name: "tcp",
        bootstrap: bootstrap(
            &[
                listener("LISTEN", "cluster: echo"),
                listener("LISTEN_CLOSED", "cluster: closed"),
                listener("LISTEN_HALF", "cluster: half, max_connect_attempts: 2"),
                listener(
                    "LISTEN_WEIGHTED",
                    "weighted_clusters: {clusters: [{name: echo, weight: 1}, {name: echo2, weight: 1}]}",
                ),
                listener("LISTEN_IDLE", "cluster: echo, idle_timeout: 0.2s"),
                by_name,
                by_place,
            ],
            &[
                cluster("echo", &["echo"], ""),
                cluster("echo2", &["echo2"], ""),
                cluster("closed", &["closed"], ""),
                cluster("half", &["closed", "echo"], "lb_policy: ROUND_ROBIN"),
                cluster("server", &["s"], ""),
                cluster("other", &["o"], ""),
            ],
        ),
        upstreams: vec![
            ("echo", UpstreamKind::Tcp),
            ("echo2", UpstreamKind::Tcp),
            ("closed", UpstreamKind::Closed),
            ("s", UpstreamKind::Tls("server")),
            ("o", UpstreamKind::Tls("other")),
        ],
        unsupported: None,
        cases: vec![
            Case::custom("bytes_go_both_ways", |world| Box::pin(talk(world, "LISTEN", b"hello"))),
            Case::custom("a_megabyte_goes_both_ways", |world| {
                Box::pin(async move { talk(world, "LISTEN", &vec![b'x'; 1 << 20]).await })
            }),
            Case::custom("half_close_is_passed_on", |world| Box::pin(half_close(world))),
            Case::custom("no_upstream_closes_the_connection", |world| Box::pin(closed(world))),
            Case::custom("a_failed_connect_is_tried_elsewhere", |world| {
                Box::pin(async move {
                    talk(world, "LISTEN_HALF", b"one").await?;
                    talk(world, "LISTEN_HALF", b"two").await
                })
            }),
            Case::custom("weighted_clusters_split", |world| Box::pin(weighted(world))),
            Case::custom("an_idle_connection_is_closed", |world| Box::pin(idle(world))),
            Case::custom("addresses_choose_the_chain", |world| {
                Box::pin(talk(world, "LISTEN_PLACE", b"here"))
            }),
            Case::custom("a_source_that_no_port_fits_is_left_to_the_default_chain", |world| {
                Box::pin(talk(world, "LISTEN_NO_WAY_BACK", b"here"))
            }),
            Case::custom("tls_passes_by_server_name", |world| Box::pin(by_server_name(world))),
        ],
    }
}

/// Reads the greeting, sends `bytes` and reads them back.
async fn talk(world: &World, listener: &str, bytes: &[u8]) -> Result<Observation> {
    let stream = TcpStream::connect(world.address(listener)?).await?;
    let (mut reader, mut writer) = stream.into_split();
    let mut got = vec![0; "echo\n".len() + bytes.len()];
    let (wrote, read) = tokio::join!(writer.write_all(bytes), reader.read_exact(&mut got));
    wrote?;
    read?;
    ensure!(got == [b"echo\n", bytes].concat(), "other bytes came back");
    let mut seen = Observation::default();
    seen.fact("talk", "bytes", got.len());
    Ok(seen)
}

async fn half_close(world: &World) -> Result<Observation> {
    let mut stream = TcpStream::connect(world.address("LISTEN")?).await?;
    stream.write_all(b"last words").await?;
    stream.shutdown().await?;
    let mut got = String::new();
    stream.read_to_string(&mut got).await?;
    ensure!(got == "echo\nlast words", "{got}");
    let mut seen = Observation::default();
    seen.fact("half-close", "answer", got);
    Ok(seen)
}

async fn closed(world: &World) -> Result<Observation> {
    let mut stream = TcpStream::connect(world.address("LISTEN_CLOSED")?).await?;
    let mut got = Vec::new();
    let ended = stream.read_to_end(&mut got).await;
    let mut seen = Observation::default();
    seen.fact("closed", "bytes", got.len());
    seen.fact("closed", "in order", ended.is_ok());
    Ok(seen)
}

async fn weighted(world: &World) -> Result<Observation> {
    let before = world.tcp_upstream("echo")?.connections();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(world.address("LISTEN_WEIGHTED")?).await?;
        stream.read_u8().await?;
    }
    let first = world.tcp_upstream("echo")?.connections() - before;
    // Six standard deviations.
    ensure!((7..=53).contains(&first), "{first} of 60");
    let mut seen = Observation::default();
    seen.fact("weights", "within bounds", true);
    Ok(seen)
}

async fn idle(world: &World) -> Result<Observation> {
    let mut stream = TcpStream::connect(world.address("LISTEN_IDLE")?).await?;
    let mut got = String::new();
    // Ends only because the proxy closes.
    stream.read_to_string(&mut got).await?;
    let mut seen = Observation::default();
    seen.fact("idle", "got", got);
    Ok(seen)
}

async fn by_server_name(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let tls = world.client_tls(None, &[])?;
    for (name, expected) in [("server.example", "200 s"), ("other.example", "200 o")] {
        let request = Request::get("/").tls(&tls, name);
        let reached = world.send(&mut seen, name, "LISTEN_NAME", &request).await?;
        ensure!(reached == expected, "{name}: {reached}");
    }
    Ok(seen)
}
