//! Requests and their responses.

use super::super::testing::{HTTP2, Sidecar, Upstream, header, status};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const GET: &str = "GET /path?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[tokio::test]
async fn a_request_goes_to_the_endpoint_and_its_response_comes_back() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    client.write(GET).await;
    let mut server = upstream.accept().await;
    let request = server.read_head().await.unwrap();
    assert!(request.starts_with("GET /path?q=1 HTTP/1.1\r\n"), "{request}");
    assert_eq!(header(&request, "host"), Some("a.example"));
    assert_eq!(header(&request, "x-forwarded-proto"), Some("http"));
    assert_eq!(header(&request, "x-request-id").map(str::len), Some(36));
    assert_eq!(header(&request, "x-envoy-expected-rq-timeout-ms"), Some("15000"));
    server.write(OK).await;
    let response = client.read_message().await;
    assert_eq!(status(&response), 200);
    assert!(response.ends_with("\r\n\r\nok"), "{response}");
    assert_eq!(header(&response, "server"), Some("envoy"));
    assert!(header(&response, "x-envoy-upstream-service-time").is_some());
    assert!(header(&response, "date").is_some());
}

#[tokio::test]
async fn keep_alive_connections_are_used_again_on_both_sides() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    client.write(GET).await;
    let mut server = upstream.accept().await;
    for _ in 0..3 {
        server.read_head().await.unwrap();
        server.write(OK).await;
        assert_eq!(status(&client.read_message().await), 200);
        client.write(GET).await;
    }
    server.read_head().await.unwrap();
    assert_eq!(sidecar.stat("cluster.c.upstream_cx_total"), 1);
    assert_eq!(sidecar.stat("cluster.c.upstream_rq_total"), 4);
}

#[tokio::test]
async fn a_body_streams_both_ways_before_either_side_is_done() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    client
        .write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    assert_eq!(server.read_exactly(8).await, "3\r\nabc\r\n");
    server.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n").await;
    client.read_head().await.unwrap();
    assert_eq!(client.read_exactly(7).await, "2\r\nde\r\n");
    client.write("1\r\nf\r\n0\r\n\r\n").await;
    assert_eq!(server.read_exactly(11).await, "1\r\nf\r\n0\r\n\r\n");
    server.write("0\r\n\r\n").await;
    assert_eq!(client.read_exactly(5).await, "0\r\n\r\n");
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_in_the_middle_is_not_a_clean_end() {
    for framing in ["content-length: 10", "transfer-encoding: chunked"] {
        let upstream = Upstream::bind().await;
        let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
        let mut client = sidecar.connect().await;
        client.write(GET).await;
        let mut server = upstream.accept().await;
        server.read_head().await.unwrap();
        server.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n3\r\nabc\r\n")).await;
        client.read_head().await.unwrap();
        drop(server);
        let rest = client.read_to_end().await;
        assert!(!rest.ends_with("0\r\n\r\n") && rest.len() < 10, "{framing}: {rest:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    client.write(GET).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    drop(client);
    assert_eq!(server.read_to_end().await, "");
    sidecar.wait_for_stat("cluster.c.upstream_rq_active", 0).await;
    sidecar.wait_for_stat("http.in.downstream_rq_active", 0).await;
    sidecar.wait_for_stat("http.in.downstream_cx_active", 0).await;
}

#[tokio::test]
async fn no_connection_is_answered_with_503_and_a_reason() {
    let gone = Upstream::bind().await.address;
    let sidecar = Sidecar::proxy(&[gone], "", "", "");
    let response = sidecar.connect().await.ask(GET).await;
    assert_eq!(status(&response), 503);
    assert_eq!(header(&response, "x-outrigger-reason"), Some("upstream_connect_failure"));
    assert!(response.contains("reset reason: remote connection failure"), "{response}");
    assert_eq!(sidecar.stat("cluster.c.upstream_cx_connect_fail"), 1);
    assert_eq!(sidecar.stat("cluster.c.upstream_cx_active"), 0);
}

#[tokio::test]
async fn no_endpoint_at_all_is_answered_with_503() {
    let sidecar = Sidecar::proxy(&[], "", "", "");
    let response = sidecar.connect().await.ask(GET).await;
    assert_eq!(status(&response), 503);
    assert!(response.ends_with("no healthy upstream"), "{response}");
}

#[tokio::test]
async fn an_endpoint_that_closes_without_an_answer_is_answered_with_503() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    client.write(GET).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    drop(server);
    let response = client.read_message().await;
    assert_eq!(status(&response), 503);
    assert!(response.contains("reset reason: connection termination"), "{response}");
    assert_eq!(header(&response, "x-outrigger-reason"), Some("upstream_reset"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_with_504_and_its_connection_closed() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "timeout: 0.05s", "");
    let mut client = sidecar.connect().await;
    client.write(GET).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    let response = client.read_message().await;
    assert_eq!(status(&response), 504);
    assert!(response.ends_with("upstream request timeout"));
    assert_eq!(server.read_to_end().await, "");
    assert_eq!(sidecar.stat("cluster.c.upstream_rq_timeout"), 1);
}

#[tokio::test]
async fn a_retry_goes_to_the_endpoint_again_with_the_same_request_and_body() {
    let upstream = Upstream::bind().await;
    let retry = "retry_policy: {retry_on: 5xx, num_retries: 2}";
    let sidecar = Sidecar::proxy(&[upstream.address], "", retry, "");
    let mut client = sidecar.connect().await;
    client.write("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    let mut server = upstream.accept().await;
    let first = server.read_message().await;
    server.write("HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n").await;
    let second = server.read_message().await;
    assert!(first.ends_with("\r\n\r\nbody"));
    assert!(second.ends_with("\r\n\r\nbody"));
    assert_eq!(header(&first, "x-request-id"), header(&second, "x-request-id"));
    server.write(OK).await;
    assert_eq!(status(&client.read_message().await), 200);
    assert_eq!(sidecar.stat("cluster.c.upstream_rq_retry"), 1);
    assert_eq!(sidecar.stat("cluster.c.upstream_rq_retry_success"), 1);
}

#[tokio::test]
async fn when_retries_are_used_up_the_last_response_is_the_client_s() {
    let upstream = Upstream::bind().await;
    let address = upstream.always("HTTP/1.1 503 no\r\ncontent-length: 4\r\n\r\nbusy");
    let retry = "retry_policy: {retry_on: 5xx, num_retries: 2}";
    let sidecar = Sidecar::proxy(&[address], "", retry, "");
    let response = sidecar.connect().await.ask(GET).await;
    assert_eq!(status(&response), 503);
    assert!(response.ends_with("busy"));
    assert_eq!(sidecar.stat("cluster.c.upstream_rq_total"), 3);
    assert_eq!(sidecar.stat("cluster.c.upstream_rq_retry_limit_exceeded"), 1);
}

#[tokio::test]
async fn an_idle_connection_that_the_endpoint_closed_costs_no_request() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    for _ in 0..20 {
        client.write(GET).await;
        let mut server = upstream.accept().await;
        server.read_head().await.unwrap();
        server.write(OK).await;
        assert_eq!(status(&client.read_message().await), 200);
        drop(server);
        sidecar.wait_for_stat("cluster.c.upstream_cx_active", 0).await;
    }
}

#[tokio::test]
async fn requests_above_the_circuit_breaker_are_shed() {
    let upstream = Upstream::bind().await;
    let breaker = "circuit_breakers: {thresholds: [{max_requests: 1}]}";
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", breaker);
    let mut first = sidecar.connect().await;
    first.write(GET).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    let response = sidecar.connect().await.ask(GET).await;
    assert_eq!(status(&response), 503);
    assert_eq!(header(&response, "x-envoy-overloaded"), Some("true"));
    assert!(response.contains("reset reason: overflow"), "{response}");
    server.write(OK).await;
    assert_eq!(status(&first.read_message().await), 200);
}

#[tokio::test]
async fn a_request_waits_for_a_connection_where_no_more_may_be_opened() {
    let upstream = Upstream::bind().await;
    let breaker = "circuit_breakers: {thresholds: [{max_connections: 1}]}";
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", breaker);
    let (mut first, mut second) = (sidecar.connect().await, sidecar.connect().await);
    first.write(GET).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    second.write(GET).await;
    sidecar.wait_for_stat("cluster.c.upstream_rq_pending_active", 1).await;
    server.write(OK).await;
    assert_eq!(status(&first.read_message().await), 200);
    server.read_head().await.unwrap();
    server.write(OK).await;
    assert_eq!(status(&second.read_message().await), 200);
    assert_eq!(sidecar.stat("cluster.c.upstream_cx_total"), 1);
}

#[tokio::test]
async fn http1_goes_to_an_http2_endpoint_and_back_with_trailers() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", HTTP2);
    let mut client = sidecar.connect().await;
    client
        .write("POST /x HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    let server = upstream.accept().await;
    let mut http2 = h2::server::handshake(server.stream).await.unwrap();
    let (request, mut respond) = http2.accept().await.unwrap().unwrap();
    let driver = tokio::spawn(async move { while http2.accept().await.is_some() {} });
    assert_eq!(request.uri().to_string(), "http://a.example/x");
    assert!(!request.headers().contains_key("host"));
    assert_eq!(request.headers()["te"], "trailers");
    let mut body = request.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "hi");
    let head = http::Response::builder().header("trailer", "grpc-status").body(()).unwrap();
    let mut send = respond.send_response(head, false).unwrap();
    send.send_data("yes".into(), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
    send.send_trailers(trailers).unwrap();
    let head = client.read_head().await.unwrap();
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
    let expected = "3\r\nyes\r\n0\r\ngrpc-status: 0\r\n\r\n";
    assert_eq!(client.read_exactly(expected.len()).await, expected);
    driver.abort();
}

#[tokio::test]
async fn http2_clients_are_served_from_one_connection_at_the_same_time() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let client = sidecar.connect().await;
    let (mut send, connection) = h2::client::handshake(client.stream).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| {
        http::Request::builder().uri(format!("http://a.example{path}")).body(()).unwrap()
    };
    let (first, _) = send.send_request(request("/1"), true).unwrap();
    let mut one = upstream.accept().await;
    let head = one.read_head().await.unwrap();
    assert!(head.starts_with("GET /1 HTTP/1.1\r\n") && header(&head, "host") == Some("a.example"));
    let (second, _) = send.send_request(request("/2"), true).unwrap();
    let mut two = upstream.accept().await;
    two.read_head().await.unwrap();
    two.write(OK).await;
    assert_eq!(second.await.unwrap().status(), 200);
    one.write(OK).await;
    let response = first.await.unwrap();
    assert_eq!(response.headers()["server"], "envoy");
    assert!(!response.headers().contains_key("connection"));
}

#[tokio::test]
async fn a_stream_that_the_endpoint_refused_is_tried_again_where_the_route_says_so() {
    let upstream = Upstream::bind().await;
    let retry = "retry_policy: {retry_on: refused-stream}";
    let sidecar = Sidecar::proxy(&[upstream.address], "", retry, HTTP2);
    let mut client = sidecar.connect().await;
    client.write(GET).await;
    let server = upstream.accept().await;
    let mut http2 = h2::server::handshake(server.stream).await.unwrap();
    let (_, mut respond) = http2.accept().await.unwrap().unwrap();
    respond.send_reset(h2::Reason::REFUSED_STREAM);
    let (_, mut respond) = http2.accept().await.unwrap().unwrap();
    respond.send_response(http::Response::new(()), true).unwrap();
    tokio::spawn(async move { while http2.accept().await.is_some() {} });
    assert_eq!(status(&client.read_message().await), 200);
}

#[tokio::test]
async fn a_grpc_client_gets_our_answers_as_trailers_alone() {
    let sidecar = Sidecar::proxy(&[], "", "", "");
    let mut client = sidecar.connect().await;
    let response = client
        .ask("POST /s/m HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(status(&response), 200);
    assert_eq!(header(&response, "grpc-status"), Some("14"));
    assert_eq!(header(&response, "grpc-message"), Some("no healthy upstream"));
    assert_eq!(header(&response, "content-type"), Some("application/grpc"));
}
