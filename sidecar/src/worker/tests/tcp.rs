//! The TCP proxy.

use tokio::io::AsyncWriteExt;

use super::super::testing::{Sidecar, Upstream};

fn proxy(endpoints: &[std::net::SocketAddr], more: &str) -> Sidecar {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    let yaml = super::super::testing::proxy_yaml(endpoints, "", "", "");
    let start = yaml.find("      - name: envoy.filters.network").unwrap();
    let end = yaml.find("  clusters:").unwrap();
    let filter = format!(
        "      - name: tcp\n        typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c{more}}}\n"
    );
    Sidecar::start(&format!("{}{filter}{}", &yaml[..start], &yaml[end..]))
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_side_may_end_first() {
    let upstream = Upstream::bind().await;
    let sidecar = proxy(&[upstream.address], "");
    let mut client = sidecar.connect().await;
    client.write("hello").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.read_exactly(5).await, "hello");
    client.stream.shutdown().await.unwrap();
    assert_eq!(server.read_to_end().await, "");
    server.write("late answer").await;
    assert_eq!(client.read_exactly(11).await, "late answer");
    drop(server);
    assert_eq!(client.read_to_end().await, "");
    sidecar.wait_for_stat("cluster.c.upstream_cx_active", 0).await;
}

#[tokio::test]
async fn a_large_stream_arrives_whole() {
    let upstream = Upstream::bind().await;
    let sidecar = proxy(&[upstream.address], "");
    let mut client = sidecar.connect().await;
    let sent = "0123456789abcdef".repeat(64 * 1024);
    let expected = sent.clone();
    let receiving = tokio::spawn(async move { upstream.accept().await.read_to_end().await });
    client.write(sent).await;
    client.stream.shutdown().await.unwrap();
    assert!(receiving.await.unwrap() == expected);
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed() {
    let upstream = Upstream::bind().await;
    let sidecar = proxy(&[upstream.address], "idle_timeout: 0.1s");
    let mut client = sidecar.connect().await;
    let mut server = upstream.accept().await;
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(server.read_to_end().await, "");
    assert_eq!(sidecar.stat("tcp.t.idle_timeout"), 1);
}

#[tokio::test]
async fn without_an_endpoint_that_answers_the_connection_is_reset() {
    let gone = Upstream::bind().await.address;
    let sidecar = proxy(&[gone], "max_connect_attempts: 2");
    assert_eq!(sidecar.connect().await.read_to_end().await, "");
    assert_eq!(sidecar.stat("cluster.c.upstream_cx_connect_fail"), 2);
    assert_eq!(sidecar.stat("cluster.c.upstream_cx_connect_attempts_exceeded"), 1);
}
