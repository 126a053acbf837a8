//! HTTP/1 and HTTP/2 on both sides: bodies, trailers, gRPC, upgrades, answers without a body, broken answers.

use anyhow::{Result, ensure};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use outrigger_integration::client::{Connection, Protocol, Request, raw};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- {match: {prefix: /2}, route: {cluster: h2, timeout: 5s}}
- match: {prefix: /ws}
  route: {cluster: h1, upgrade_configs: [{upgrade_type: websocket}]}
- match: {prefix: /no-ws}
  route: {cluster: h1, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}
- {match: {prefix: /}, route: {cluster: h1, timeout: 5s}}
"#;

pub(crate) fn group() -> Group {
    let http2 = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
";
    let upgrading = "upgrade_configs: [{upgrade_type: websocket}]\n";
    Group {
        name: "protocols",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", &routes(ROUTES)),
                http_listener("LISTEN_UPGRADE", &format!("{upgrading}{}", routes(ROUTES))),
            ],
            &[cluster("h1", &["one"], ""), cluster("h2", &["two"], http2)],
        ),
        upstreams: vec![("one", UpstreamKind::Plain), ("two", UpstreamKind::Plain)],
        unsupported: None,
        cases: [bodies(), trailers_and_grpc(), without_body(), broken(), connections(), upgrades()]
            .into_iter()
            .flatten()
            .collect(),
    }
}

fn bodies() -> Vec<Case> {
    let big = "0123456789abcdef".repeat(64 * 1024);
    let post = |path: &str| Request::post(path, "the body");
    let chunked = |path: &str| Request::new("POST", path).chunks(&["one", "two", "three"]);
    vec![
        Case::new("http1_to_http1").get("/", "200 one").send(post("/"), "200 one"),
        Case::new("http1_to_http2").get("/2", "200 two").send(post("/2"), "200 two"),
        Case::new("http2_to_http1")
            .send(Request::get("/").http2(), "200 one")
            .send(post("/").http2(), "200 one"),
        Case::new("http2_to_http2")
            .send(Request::get("/2").http2(), "200 two")
            .send(post("/2").http2(), "200 two"),
        Case::new("bodies_of_unknown_length")
            .send(chunked("/"), "200 one")
            .send(chunked("/2"), "200 two")
            .send(chunked("/").http2(), "200 one")
            .send(chunked("/2").http2(), "200 two"),
        Case::new("answers_of_unknown_length")
            .script("one", [Reply::status(200).chunks(&["one", "two"])])
            .get("/", "200 one")
            .script("one", [Reply::status(200).chunks(&["one", "two"])])
            .send(Request::get("/").http2(), "200 one")
            .script("two", [Reply::status(200).chunks(&["one", "two"])])
            .get("/2", "200 two")
            .script("two", [Reply::status(200).chunks(&["one", "two"])])
            .send(Request::get("/2").http2(), "200 two"),
        Case::new("a_megabyte_each_way")
            .script("one", [Reply::status(200).body(big.clone())])
            .send(Request::post("/", big.clone()), "200 one")
            .script("two", [Reply::status(200).body(big.clone())])
            .send(Request::post("/2", big.clone()), "200 two")
            .script("one", [Reply::status(200).body(big.clone())])
            .send(Request::post("/", big.clone()).http2(), "200 one")
            .script("two", [Reply::status(200).body(big.clone())])
            .send(Request::post("/2", big).http2(), "200 two"),
        Case::new("expect_100_continue")
            .send(post("/").header("expect", "100-continue"), "200 one"),
        Case::new("delete_with_a_body")
            .send(Request::post("/", "x").header("x-method", "delete"), "200 one"),
        Case::new("unknown_methods_pass").send(Request::new("PURGE", "/x"), "200 one"),
        Case::new("options_star").send(Request::new("OPTIONS", "*"), "404 -"),
    ]
}

fn trailers_and_grpc() -> Vec<Case> {
    let answer = || Reply::status(200).chunks(&["body"]).trailer("x-trailer", "t");
    let request =
        |path: &str| Request::new("POST", path).chunks(&["body"]).trailer("x-trailer", "t");
    let grpc = |path: &str| {
        Request::new("POST", path)
            .chunks(&["\0\0\0\0\u{2}hi"])
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    };
    let grpc_answer = || {
        Reply::status(200)
            .header("content-type", "application/grpc")
            .chunks(&["\0\0\0\0\u{2}ho"])
            .trailer("grpc-status", "0")
            .trailer("grpc-message", "fine")
    };
    vec![
        Case::new("trailers_from_http2_to_http2")
            .script("two", [answer()])
            .send(request("/2").http2(), "200 two"),
        Case::new("trailers_to_and_from_http1_are_dropped_by_default")
            .script("one", [answer()])
            .send(request("/").header("te", "trailers"), "200 one")
            .script("one", [answer()])
            .send(request("/").http2(), "200 one")
            .script("two", [answer()])
            .send(request("/2").header("te", "trailers"), "200 two"),
        Case::new("grpc_unary").script("two", [grpc_answer()]).send(grpc("/2").http2(), "200 two"),
        Case::new("grpc_error_in_trailers_only")
            .script(
                "two",
                [Reply::status(200)
                    .header("content-type", "application/grpc")
                    .header("grpc-status", "5")
                    .header("grpc-message", "no such thing")],
            )
            .send(grpc("/2").http2(), "200 two"),
        Case::new("grpc_stream_of_several_messages")
            .script(
                "two",
                [Reply::status(200)
                    .header("content-type", "application/grpc")
                    .chunks(&["\0\0\0\0\u{1}a", "\0\0\0\0\u{1}b", "\0\0\0\0\u{1}c"])
                    .trailer("grpc-status", "0")],
            )
            .send(grpc("/2").http2(), "200 two"),
    ]
}

fn without_body() -> Vec<Case> {
    vec![
        Case::new("head_keeps_the_length")
            .script("one", [Reply::status(200).header("content-length", "7")])
            .send(Request::new("HEAD", "/"), "200 one")
            .script("two", [Reply::status(200).header("content-length", "7")])
            .send(Request::new("HEAD", "/2"), "200 two"),
        Case::new("204_has_no_body")
            .script("one", [Reply::status(204)])
            .get("/", "204 one")
            .script("two", [Reply::status(204)])
            .get("/2", "204 two"),
        Case::new("304_keeps_its_fields")
            .script("one", [Reply::status(304).header("etag", "\"x\"")])
            .get("/", "304 one"),
        Case::new("an_empty_answer")
            .script("one", [Reply::status(200).body("")])
            .get("/", "200 one"),
        Case::new("unusual_status_codes")
            .script("one", [Reply::status(299).body("x")])
            .get("/", "299 one")
            .script("one", [Reply::status(599).body("y")])
            .get("/", "599 one"),
    ]
}

fn broken() -> Vec<Case> {
    let broken = || Reply::status(200).chunks(&["one", "two"]).broken();
    vec![
        Case::new("an_answer_that_breaks_off_is_not_ended_cleanly")
            .script("one", [broken()])
            .get("/", "200 one")
            .script("one", [broken()])
            .send(Request::get("/").http2(), "200 one")
            .script("two", [broken()])
            .get("/2", "200 two")
            .script("two", [broken()])
            .send(Request::get("/2").http2(), "200 two"),
        Case::new("no_answer_is_a_503")
            .script("one", [Reply::reset()])
            .get("/", "503 one")
            .script("one", [Reply::reset()])
            .send(Request::get("/").http2(), "503 one"),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        Case::custom("requests_share_a_kept_connection", |world| Box::pin(kept(world))),
        Case::custom("connection_close_is_honoured", |world| {
            Box::pin(text(world, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        }),
        Case::custom("pipelined_requests_are_answered_in_order", |world| {
            let one = "GET /a HTTP/1.1\r\nhost: x\r\n\r\n";
            let two = "GET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            Box::pin(async move { text(world, &format!("{one}{two}")).await })
        }),
        Case::custom("http_1_0_is_refused", |world| {
            Box::pin(text(world, "GET / HTTP/1.0\r\nhost: x\r\n\r\n"))
        }),
        Case::custom("an_absolute_target_is_made_relative", |world| {
            Box::pin(text(
                world,
                "GET http://other.example/p?q HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            ))
        }),
        Case::custom("an_answer_that_closes_its_connection_is_passed_on", |world| {
            Box::pin(async move {
                let reply = Reply::status(200).header("connection", "close").body("bye");
                world.upstream("one")?.script([reply]);
                kept(world).await
            })
        }),
    ]
}

/// Two requests on one connection of the client.
async fn kept(world: &World) -> Result<Observation> {
    let mut observation = Observation::default();
    for (name, protocol) in [("http1", Protocol::Http1), ("http2", Protocol::Http2)] {
        let mut connection = Connection::open(world.address("LISTEN")?, protocol, None).await?;
        for index in 0..2 {
            let mut request = Request::get("/");
            if protocol == Protocol::Http2 {
                request = request.http2();
            }
            let response = connection.send(&request).await?;
            observation.fact(name, &format!("{index}"), response.status);
        }
        observation.fact(name, "closed", connection.is_closed());
    }
    observation.fact("upstream", "requests", world.upstream("one")?.take().len());
    Ok(observation)
}

/// Sends bytes and reports the bytes that come back, and whether they ended with the connection.
async fn text(world: &World, bytes: &str) -> Result<Observation> {
    let answer = raw(world.address("LISTEN")?, bytes.as_bytes()).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let lines = answer.lines().map(|line| match line.split_once(": ") {
        Some(("date", _)) => "date: <date>".to_owned(),
        Some(("x-envoy-upstream-service-time", _)) => {
            "x-envoy-upstream-service-time: <ms>".to_owned()
        }
        _ => world.normal(line),
    });
    let mut lines: Vec<String> = lines.collect();
    // The order of the fields of one head says nothing.
    for head in lines.split_mut(String::is_empty) {
        if let Some((_, fields)) = head.split_first_mut() {
            fields.sort();
        }
    }
    let mut observation = Observation::default();
    observation.fact("bytes", "answer", lines.join(" / "));
    for (index, got) in world.upstream("one")?.take().into_iter().enumerate() {
        observation.recorded("bytes", &format!("upstream[{index}]"), "one", &got, &world.values);
    }
    Ok(observation)
}

fn upgrades() -> Vec<Case> {
    vec![
        Case::custom("a_websocket_is_tunnelled_when_the_manager_allows", |world| {
            Box::pin(websocket(world, "LISTEN_UPGRADE", "/"))
        }),
        Case::custom("a_websocket_is_tunnelled_when_the_route_allows", |world| {
            Box::pin(websocket(world, "LISTEN", "/ws"))
        }),
        Case::custom("a_websocket_is_refused_when_the_route_forbids", |world| {
            Box::pin(websocket(world, "LISTEN_UPGRADE", "/no-ws"))
        }),
        Case::custom("a_websocket_is_refused_by_default", |world| {
            Box::pin(websocket(world, "LISTEN", "/"))
        }),
        Case::custom("an_upgrade_that_the_upstream_refuses", |world| {
            Box::pin(async move {
                world.upstream("one")?.script([Reply::status(400).body("no")]);
                websocket(world, "LISTEN_UPGRADE", "/").await
            })
        }),
    ]
}

async fn websocket(world: &World, listener: &str, path: &str) -> Result<Observation> {
    let request = Request::get(path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13");
    world.upstream("one")?.script([Reply::upgrade("websocket")]);
    let mut connection = Connection::open(world.address(listener)?, Protocol::Http1, None).await?;
    let response = connection.start(&request).await?;
    let mut observation = Observation::default();
    observation.fact("upgrade", "status", response.status().as_u16());
    for name in ["upgrade", "connection", "content-length", "transfer-encoding"] {
        let value = response.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
        observation.fact("upgrade", name, value.unwrap_or("<absent>"));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await?);
        let mut got = vec![0; 5];
        tunnel.write_all(b"hello").await?;
        tunnel.read_exact(&mut got).await?;
        ensure!(got == b"hello", "{got:?}");
        tunnel.shutdown().await?;
        let mut rest = Vec::new();
        tunnel.read_to_end(&mut rest).await?;
        observation.fact("tunnel", "bytes after the end", rest.len());
    }
    for (index, got) in world.upstream("one")?.take().into_iter().enumerate() {
        observation.recorded("upgrade", &format!("upstream[{index}]"), "one", &got, &world.values);
    }
    Ok(observation)
}
