//! How connections begin and end.

use std::time::Duration;

use super::super::testing::{Sidecar, Upstream, header, status};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: AAAA\r\n\r\n";

#[tokio::test]
async fn a_connection_without_a_request_for_too_long_is_closed() {
    let options = "common_http_protocol_options: {idle_timeout: 0.1s}";
    let sidecar = Sidecar::proxy(&[], options, "", "");
    assert_eq!(sidecar.connect().await.read_to_end().await, "");
    sidecar.wait_for_stat("http.in.downstream_cx_active", 0).await;
}

#[tokio::test]
async fn a_head_that_drips_is_cut() {
    let sidecar = Sidecar::proxy(&[], "request_headers_timeout: 0.1s", "", "");
    let mut client = sidecar.connect().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\nx: ").await;
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(sidecar.stat("http.in.downstream_rq_header_timeout"), 1);
}

#[tokio::test]
async fn a_body_that_drips_is_cut_with_408() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "request_timeout: 0.1s", "", "");
    let mut client = sidecar.connect().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    let response = client.read_to_end().await;
    assert_eq!(status(&response), 408, "{response}");
}

#[tokio::test]
async fn a_stream_on_which_nothing_moves_is_ended() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "stream_idle_timeout: 0.1s", "", "");
    let response = sidecar.connect().await.ask(GET).await;
    assert_eq!(status(&response), 504);
    assert!(response.ends_with("stream timeout"), "{response}");
}

#[tokio::test]
async fn after_the_last_allowed_request_the_connection_closes() {
    let upstream = Upstream::bind().await;
    let address = upstream.always(OK);
    let options = "common_http_protocol_options: {max_requests_per_connection: 2}";
    let sidecar = Sidecar::proxy(&[address], options, "", "");
    let mut client = sidecar.connect().await;
    assert_eq!(header(&client.ask(GET).await, "connection"), None);
    client.write(GET).await;
    let last = client.read_to_end().await;
    assert_eq!(header(&last, "connection"), Some("close"));
}

#[tokio::test]
async fn draining_lets_a_request_finish_says_close_and_then_closes() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "drain_timeout: 0.2s", "", "");
    let mut client = sidecar.connect().await;
    client.write(GET).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    sidecar.shared.draining.cancel();
    tokio::time::sleep(Duration::from_millis(30)).await;
    server.write(OK).await;
    let response = client.read_to_end().await;
    assert_eq!(status(&response), 200);
    assert_eq!(header(&response, "connection"), Some("close"));
    assert!(response.ends_with("ok"));
}

#[tokio::test]
async fn while_health_checks_are_failed_every_response_asks_the_client_to_go() {
    let upstream = Upstream::bind().await;
    let address = upstream.always(OK);
    let sidecar = Sidecar::proxy(&[address], "", "", "");
    let failing = |fail| sidecar.shared.failing.store(fail, std::sync::atomic::Ordering::Relaxed);
    let mut kept = sidecar.connect().await;
    assert_eq!(header(&kept.ask(GET).await, "connection"), None);
    failing(true);
    kept.write(GET).await;
    assert_eq!(header(&kept.read_to_end().await, "connection"), Some("close"));
    failing(false);
    let mut later = sidecar.connect().await;
    assert_eq!(header(&later.ask(GET).await, "connection"), None);
}

#[tokio::test]
async fn a_drain_of_inbound_traffic_leaves_the_rest_alone() {
    let upstream = Upstream::bind().await;
    let address = upstream.always(OK);
    let sidecar = Sidecar::proxy(&[address], "", "", "");
    let mut client = sidecar.connect().await;
    sidecar.shared.draining_inbound.cancel();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(header(&client.ask(GET).await, "connection"), None);
}

#[tokio::test]
async fn a_drained_http2_connection_says_goaway_and_finishes_its_streams() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let client = sidecar.connect().await;
    let (mut send, connection) = h2::client::handshake(client.stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let request = http::Request::builder().uri("http://a/").body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    sidecar.shared.draining.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.write(OK).await;
    assert_eq!(response.await.unwrap().status(), 200);
    ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_to_an_endpoint_that_is_gone_are_closed() {
    let upstream = Upstream::bind().await;
    let mut sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    client.write(GET).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    server.write(OK).await;
    client.read_message().await;
    sidecar.manager.remove("c");
    drop(sidecar.manager.take_gone());
    assert_eq!(server.read_to_end().await, "");
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_after_the_endpoint_has_agreed_and_not_before() {
    let upstream = Upstream::bind().await;
    let upgrades = "upgrade_configs: [{upgrade_type: websocket}]";
    let sidecar = Sidecar::proxy(&[upstream.address], upgrades, "", "");
    let mut client = sidecar.connect().await;
    client.write(format!("{WEBSOCKET}early")).await;
    let mut server = upstream.accept().await;
    let head = server.read_head().await.unwrap();
    assert_eq!(header(&head, "upgrade"), Some("websocket"));
    assert_eq!(header(&head, "connection"), Some("Upgrade"));
    assert_eq!(header(&head, "sec-websocket-key"), Some("AAAA"));
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(server.buffer.is_empty(), "bytes came before the endpoint agreed");
    let nothing = server.stream.try_read(&mut [0; 16]);
    assert!(nothing.is_err(), "bytes came before the endpoint agreed");
    server.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello").await;
    let head = client.read_head().await.unwrap();
    assert_eq!(status(&head), 101);
    assert_eq!(header(&head, "upgrade"), Some("websocket"));
    assert_eq!(header(&head, "sec-websocket-accept"), Some("x"));
    assert_eq!(client.read_exactly(5).await, "hello");
    assert_eq!(server.read_exactly(5).await, "early");
    client.write("ping").await;
    assert_eq!(server.read_exactly(4).await, "ping");
    drop(client);
    assert_eq!(server.read_to_end().await, "");
    drop(server);
    sidecar.wait_for_stat("http.in.downstream_rq_active", 0).await;
    sidecar.wait_for_stat("cluster.c.upstream_rq_active", 0).await;
}

#[tokio::test]
async fn a_refused_websocket_is_an_ordinary_response_after_which_the_connection_closes() {
    let upstream = Upstream::bind().await;
    let upgrades = "upgrade_configs: [{upgrade_type: websocket}]";
    let sidecar = Sidecar::proxy(&[upstream.address], upgrades, "", "");
    let mut client = sidecar.connect().await;
    client.write(format!("{WEBSOCKET}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    server.write("HTTP/1.1 404 no\r\ncontent-length: 2\r\n\r\nno").await;
    let response = client.read_to_end().await;
    assert_eq!(status(&response), 404);
    assert_eq!(response.matches("HTTP/1.1").count(), 1, "{response}");
    assert_eq!(server.read_to_end().await, "", "the connection saw an upgrade");
    upstream.expect_nobody().await;
}

#[tokio::test]
async fn a_route_may_allow_an_upgrade_that_the_manager_does_not() {
    let upstream = Upstream::bind().await;
    let route = "upgrade_configs: [{upgrade_type: websocket}]";
    let sidecar = Sidecar::proxy(&[upstream.address], "", route, "");
    let mut client = sidecar.connect().await;
    client.write(WEBSOCKET).await;
    let head = upstream.accept().await.read_head().await.unwrap();
    assert_eq!(header(&head, "upgrade"), Some("websocket"));
}

#[tokio::test]
async fn a_websocket_goes_from_http1_over_http2_to_http1() {
    let upstream = Upstream::bind().await;
    let upgrades = "upgrade_configs: [{upgrade_type: websocket}], http2_protocol_options: {allow_connect: true}";
    let inner = Sidecar::proxy(&[upstream.address], upgrades, "", "");
    let outer = Sidecar::proxy(&[inner.addresses[0]], upgrades, "", super::super::testing::HTTP2);
    let mut client = outer.connect().await;
    client.write(WEBSOCKET).await;
    let mut server = upstream.accept().await;
    let head = server.read_head().await.unwrap();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "sec-websocket-key"), Some("AAAA"));
    server.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n").await;
    let head = client.read_head().await.unwrap();
    assert_eq!(status(&head), 101);
    assert_eq!(header(&head, "sec-websocket-accept"), Some("x"));
    client.write("ping").await;
    assert_eq!(server.read_exactly(4).await, "ping");
    server.write("pong").await;
    assert_eq!(client.read_exactly(4).await, "pong");
    drop(server);
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn listener_updates_under_load_fail_no_request_over_http2() {
    let upstream = Upstream::bind().await;
    let address = upstream.always(OK);
    let yaml = |n: usize| {
        super::super::testing::proxy_yaml(&[address], &format!("server_name: v{n}"), "", "")
    };
    let mut inner = Sidecar::start(&yaml(0));
    let outer = Sidecar::proxy(&[inner.addresses[0]], "", "", super::super::testing::HTTP2);
    let mut load = Vec::new();
    for _ in 0..4 {
        let mut client = outer.connect().await;
        load.push(tokio::spawn(async move {
            for n in 0..100 {
                let response = client.ask(GET).await;
                assert_eq!(status(&response), 200, "request {n}: {response}");
            }
        }));
    }
    for n in 1..30 {
        inner.update(&yaml(n));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for load in load {
        load.await.unwrap();
    }
    inner.wait_for_stat("http.in.downstream_rq_active", 0).await;
    outer.wait_for_stat("cluster.c.upstream_rq_active", 0).await;
    outer.wait_for_stat("cluster.c.upstream_rq_pending_active", 0).await;
}
