//! The names of statistics: of a proxy that has done what there is to count, each name that Envoy has is ours too, and none
//! else but those that are accepted with a reason.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::parts::{bootstrap, cluster, http_listener, routes};

pub(crate) fn group() -> Group {
    let routes = routes(
        "- match: {prefix: /retried}
  route: {cluster: a, retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}}
- {match: {prefix: /timeout}, route: {cluster: a, timeout: 0.1s}}
- {match: {prefix: /direct}, direct_response: {status: 204}}
- {match: {prefix: /redirect}, redirect: {path_redirect: /}}
- {match: {prefix: /a}, route: {cluster: a}}",
    );
    let listener = http_listener("LISTEN", &routes)
        .replace("- name: LISTEN\n", "- name: LISTEN\n  stat_prefix: main\n");
    let tcp = "- name: LISTEN_TCP\n  stat_prefix: bytes\n  address: ${LISTEN_TCP}\n  filter_chains:\n  - filters:\n    - name: tcp\n      typed_config:\n        '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n        stat_prefix: tcp\n        cluster: t\n";
    let watched = "outlier_detection: {}
health_checks: [{timeout: 1s, interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /health}}]";
    Group {
        name: "stat_names",
        bootstrap: bootstrap(
            &[listener, tcp.to_owned()],
            &[cluster("a", &["a"], watched), cluster("t", &["t"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("t", UpstreamKind::Tcp)],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let of = |name, prefix: &'static str| {
        Case::custom(name, move |world| Box::pin(names(world, prefix)))
    };
    vec![
        Case::custom("something_to_count", |world| Box::pin(busy(world))),
        of("cluster", "cluster.a."),
        of("cluster_of_tcp", "cluster.t."),
        of("http_connection_manager", "http.test."),
        of("listener", "listener.main."),
        of("listener_of_tcp", "listener.bytes."),
        of("tcp_proxy", "tcp.tcp."),
        of("cluster_manager", "cluster_manager."),
        of("listener_manager", "listener_manager."),
        of("http1", "http1."),
        of("http2", "http2."),
        of("runtime", "runtime."),
        of("server", "server."),
        of("filesystem", "filesystem."),
        of("dns", "dns."),
    ]
}

/// Requests and connections that end in every way that is simple to bring about.
async fn busy(world: &World) -> Result<Observation> {
    let (address, a) = (world.address("LISTEN")?, world.upstream("a")?);
    let mut seen = Observation::default();
    for (path, reply) in [
        ("/a", None),
        ("/a", Some(Reply::status(404))),
        ("/a", Some(Reply::status(500))),
        ("/a", Some(Reply::reset())),
        ("/retried", Some(Reply::status(503))),
        ("/timeout", Some(Reply::status(200).after(Duration::from_millis(400)))),
        ("/direct", None),
        ("/redirect", None),
        ("/nowhere", None),
    ] {
        a.script(reply);
        let outcome = Request::get(path).send(address).await;
        seen.fact(path, "status", outcome.status());
    }
    Request::get("/a").http2().send(address).await;
    let mut stream = tokio::net::TcpStream::connect(world.address("LISTEN_TCP")?).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(seen)
}

async fn names(world: &World, prefix: &str) -> Result<Observation> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut before = BTreeSet::new();
    loop {
        let text = world.proxy.admin("/stats").await?;
        let names = text.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name);
        let names: BTreeSet<String> =
            names.filter(|name| name.starts_with(prefix)).map(|name| world.normal(name)).collect();
        // What was counted last may not be there yet.
        if names == before {
            let mut seen = Observation::default();
            for name in names {
                seen.fact("name", &name, "there");
            }
            return Ok(seen);
        }
        ensure!(Instant::now() < deadline, "{prefix}: the names do not settle");
        before = names;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
