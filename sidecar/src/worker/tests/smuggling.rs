//! Messages that two servers could read in two ways. What counts is what arrives at the endpoint: never more requests than
//! were sent, never two framings, never a clean end for a body that was cut.

use super::super::testing::{Sidecar, Upstream, header, status};

async fn refused(sidecar: &Sidecar, request: &str, expected: u16) {
    let mut client = sidecar.connect().await;
    client.write(request).await;
    let response = client.read_message().await;
    assert_eq!(status(&response), expected, "{request:?} got {response:?}");
    assert_eq!(client.read_to_end().await, "", "after {request:?}");
}

#[tokio::test]
async fn malformed_requests_are_refused_closed_and_never_forwarded() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 001\r\n\r\na", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\n\r\n", 417),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 403),
        ("GET / HTTP/1.0\r\n\r\n", 426),
    ] {
        refused(&sidecar, request, expected).await;
    }
    upstream.expect_nobody().await;
}

#[tokio::test]
async fn too_many_headers_are_refused_with_431() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    refused(&sidecar, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431).await;
    let long = "a".repeat(61 * 1024);
    refused(&sidecar, &format!("GET / HTTP/1.1\r\nHost: a\r\nx: {long}\r\n\r\n"), 431).await;
    upstream.expect_nobody().await;
}

#[tokio::test]
async fn length_and_chunks_together_are_refused_whatever_their_order_and_place() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let rest = "1\r\na\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lines in [
        "Content-Length: 50\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nX: 1\r\ncontent-length: 50",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{rest}");
        refused(&sidecar, &request, 400).await;
    }
    upstream.expect_nobody().await;
}

#[tokio::test]
async fn a_body_with_broken_chunks_is_a_400_and_cut_off_towards_the_endpoint() {
    for broken in ["5\r\nhelloworld", "x\r\n", "0x5\r\nhello\r\n", "5\nhello\r\n0\r\n\r\n"] {
        let upstream = Upstream::bind().await;
        let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
        let mut client = sidecar.connect().await;
        client
            .write(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n{broken}"
            ))
            .await;
        let mut server = upstream.accept().await;
        server.read_head().await.unwrap();
        let body = server.read_to_end().await;
        assert!(!body.ends_with("0\r\n\r\n"), "{broken:?} arrived as {body:?}");
        let response = client.read_to_end().await;
        assert!(response.is_empty() || status(&response) == 400, "{response}");
    }
}

#[tokio::test]
async fn a_client_that_ends_in_the_middle_of_its_body_is_not_a_clean_end() {
    for head in ["Content-Length: 9", "Transfer-Encoding: chunked"] {
        let upstream = Upstream::bind().await;
        let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
        let mut client = sidecar.connect().await;
        client.write(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n3\r\nabc\r\n")).await;
        let mut server = upstream.accept().await;
        server.read_head().await.unwrap();
        drop(client);
        let body = server.read_to_end().await;
        assert!(!body.ends_with("0\r\n\r\n") && body.len() < 9, "{head}: {body:?}");
    }
}

#[tokio::test]
async fn the_absolute_form_names_the_host_and_hop_by_hop_headers_stay_behind() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    client
        .write("GET http://real.example/x HTTP/1.1\r\nHost: other.example\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nx-envoy-retry-on: 5xx\r\nx-forwarded-client-cert: By=me\r\n\r\n")
        .await;
    let head = upstream.accept().await.read_head().await.unwrap();
    assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "host"), Some("real.example"));
    for gone in [
        "connection",
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "x-envoy-retry-on",
        "x-forwarded-client-cert",
    ] {
        assert_eq!(header(&head, gone), None, "{gone} in {head}");
    }
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_keeps_its_body() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let client = sidecar.connect().await;
    let (mut send, connection) = h2::client::handshake(client.stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder().uri("http://a/").body(()).unwrap();
    let (_response, mut body) = send.send_request(request, false).unwrap();
    body.send_data("hidden".into(), true).unwrap();
    let mut server = upstream.accept().await;
    let head = server.read_head().await.unwrap();
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(server.read_exactly(16).await, "6\r\nhidden\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_stream_that_is_reset_in_the_middle_of_its_body_closes_the_http1_connection() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let client = sidecar.connect().await;
    let (mut send, connection) = h2::client::handshake(client.stream).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::builder().method("POST").uri("http://a/").header("content-length", "9");
    let (_response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data("abc".into(), false).unwrap();
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    assert_eq!(server.read_exactly(3).await, "abc");
    body.send_reset(h2::Reason::CANCEL);
    assert_eq!(server.read_to_end().await, "");
}

#[tokio::test]
async fn odd_responses_are_never_passed_on_as_they_are() {
    for (answer, expected) in [
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 502),
        ("garbage\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", 502),
    ] {
        let upstream = Upstream::bind().await;
        let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
        let mut client = sidecar.connect().await;
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.read_head().await.unwrap();
        server.write(answer).await;
        let response = client.read_message().await;
        assert_eq!(status(&response), expected, "{answer:?} became {response:?}");
    }
}

#[tokio::test]
async fn a_response_with_length_and_chunks_has_chunks_alone() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    server
        .write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: x-a\r\nX-A: 1\r\n\r\n1\r\na\r\n0\r\n\r\n")
        .await;
    let head = client.read_head().await.unwrap();
    assert_eq!(header(&head, "content-length"), None);
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(header(&head, "x-a"), None);
    assert_eq!(client.read_exactly(11).await, "1\r\na\r\n0\r\n\r\n");
}

#[tokio::test]
async fn bytes_behind_a_response_never_answer_another_request() {
    let upstream = Upstream::bind().await;
    let sidecar = Sidecar::proxy(&[upstream.address], "", "", "");
    let mut client = sidecar.connect().await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write(get).await;
    let mut server = upstream.accept().await;
    server.read_head().await.unwrap();
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
    assert!(client.read_message().await.ends_with("ok"));
    client.write(get).await;
    let mut fresh = upstream.accept().await;
    fresh.read_head().await.unwrap();
    fresh.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await;
    assert!(client.read_message().await.ends_with("good"));
}
