//! Tunnels: what a client may ask for with CONNECT, and how long a tunnel lasts.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;

use super::super::testing::{Sidecar, Upstream, header, proxy_yaml, status};

const CONNECT: &str = "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n";
const ENDS_HERE: &str = "upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]";

/// Every CONNECT goes by this route.
fn connecting(endpoint: SocketAddr, manager: &str, route: &str) -> Sidecar {
    let yaml = proxy_yaml(&[endpoint], manager, route, "");
    Sidecar::start(&yaml.replace("prefix: \"/\"", "connect_matcher: {}"))
}

#[tokio::test]
async fn a_connect_that_ends_here_is_bytes_both_ways_and_each_side_may_end_first() {
    for client_ends_first in [true, false] {
        let upstream = Upstream::bind().await;
        let sidecar = connecting(upstream.address, "", ENDS_HERE);
        let mut client = sidecar.connect().await;
        client.write(format!("{CONNECT}early")).await;
        let mut server = upstream.accept().await;
        let head = client.read_head().await.unwrap();
        assert_eq!(status(&head), 200);
        assert_eq!(header(&head, "content-length"), None);
        assert_eq!(header(&head, "transfer-encoding"), None);
        assert_eq!(server.read_exactly(5).await, "early");
        server.write("answer").await;
        assert_eq!(client.read_exactly(6).await, "answer");
        sidecar.wait_for_stat("http.in.downstream_cx_upgrades_active", 1).await;
        // It is still a connection of the listener: what ends those ends it.
        assert_eq!(sidecar.stat("http.in.downstream_cx_http1_active"), 1);
        let both = if client_ends_first { (client, server) } else { (server, client) };
        let (mut first, mut second) = both;
        first.stream.shutdown().await.unwrap();
        assert_eq!(second.read_to_end().await, "");
        second.write("last").await;
        second.stream.shutdown().await.unwrap();
        assert_eq!(first.read_to_end().await, "last");
        sidecar.wait_for_stat("http.in.downstream_cx_upgrades_active", 0).await;
        sidecar.wait_for_stat("http.in.downstream_cx_http1_active", 0).await;
        sidecar.wait_for_stat("cluster.c.upstream_cx_active", 0).await;
        sidecar.wait_for_stat("cluster.c.upstream_rq_active", 0).await;
    }
}

#[tokio::test]
async fn what_comes_behind_a_refused_connect_is_no_request() {
    let upstream = Upstream::bind().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for route in ["", "upgrade_configs: [{upgrade_type: CONNECT, enabled: false}]"] {
        let sidecar = connecting(upstream.address, "", route);
        let mut client = sidecar.connect().await;
        client.write(format!("{CONNECT}{smuggled}")).await;
        let response = client.read_to_end().await;
        assert_eq!(status(&response), 403);
        assert_eq!(response.matches("HTTP/1.1").count(), 1, "{response}");
    }
    upstream.expect_nobody().await;
}

#[tokio::test]
async fn a_connect_has_a_port_and_no_body() {
    let upstream = Upstream::bind().await;
    let sidecar = connecting(upstream.address, "", ENDS_HERE);
    for request in [
        "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT u@a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = sidecar.connect().await;
        client.write(request).await;
        let response = client.read_to_end().await;
        assert_eq!(status(&response), 400, "{request:?} got {response:?}");
    }
    upstream.expect_nobody().await;
}

#[tokio::test]
async fn a_connect_is_forwarded_with_its_target_and_taken_back_when_it_is_refused() {
    let upstream = Upstream::bind().await;
    let route = "upgrade_configs: [{upgrade_type: CONNECT}]";
    let sidecar = connecting(upstream.address, "", route);
    let mut client = sidecar.connect().await;
    client.write(format!("{CONNECT}early")).await;
    let mut server = upstream.accept().await;
    let head = server.read_head().await.unwrap();
    assert!(head.starts_with("CONNECT a:80 HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "host"), Some("a:80"));
    assert!(server.buffer.is_empty(), "bytes came before the endpoint agreed");
    server.write("HTTP/1.1 407 no\r\ncontent-length: 2\r\n\r\nno").await;
    let response = client.read_to_end().await;
    assert_eq!(status(&response), 407);
    assert_eq!(server.read_to_end().await, "", "the connection saw a CONNECT");
}

#[tokio::test]
async fn a_tunnel_through_which_nothing_moves_is_ended() {
    let upstream = Upstream::bind().await;
    let sidecar = connecting(upstream.address, "stream_idle_timeout: 0.1s", ENDS_HERE);
    let mut client = sidecar.connect().await;
    client.write(CONNECT).await;
    let mut server = upstream.accept().await;
    assert_eq!(status(&client.read_head().await.unwrap()), 200);
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(server.read_to_end().await, "");
    sidecar.wait_for_stat("http.in.downstream_rq_idle_timeout", 1).await;
}

#[tokio::test]
async fn the_body_of_a_post_is_bytes_where_the_route_says_so() {
    let upstream = Upstream::bind().await;
    let route = "upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}]";
    let sidecar = Sidecar::proxy(&[upstream.address], "", route, "");
    let mut client = sidecar.connect().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.read_to_end().await, "hello");
    server.write("answer").await;
    drop(server);
    let head = client.read_head().await.unwrap();
    assert_eq!(status(&head), 200);
    assert_eq!(client.read_exactly(16).await, "6\r\nanswer\r\n0\r\n\r\n");
    sidecar.wait_for_stat("cluster.c.upstream_cx_active", 0).await;
}
