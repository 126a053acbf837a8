//! CONNECT: ended here, and its bytes passed on over TCP; forwarded; refused. And WebSockets from one version of HTTP to the
//! other.

use anyhow::{Result, ensure};
use outrigger_integration::client::{Connection, Outcome, Request, cause};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::proxy::Kind;
use outrigger_integration::upstream::Reply;

use crate::access_log::line;
use crate::parts::{bootstrap, cluster, http_listener, routes, statistics};

const ROUTES: &str = r#"
- match: {connect_matcher: {}, headers: [{name: ":authority", string_match: {exact: "tcp.example:80"}}]}
  response_headers_to_add: [{header: {key: x-route, value: tcp}}]
  route: {cluster: tcp, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}
- match: {connect_matcher: {}, headers: [{name: ":authority", string_match: {exact: "off.example:80"}}]}
  route: {cluster: tcp, upgrade_configs: [{upgrade_type: CONNECT, enabled: false, connect_config: {}}]}
- match: {connect_matcher: {}, headers: [{name: ":authority", string_match: {exact: "closed.example:80"}}]}
  route: {cluster: closed, upgrade_configs: [{upgrade_type: connect, connect_config: {}}]}
- match: {connect_matcher: {}, headers: [{name: ":authority", string_match: {exact: "empty.example:80"}}]}
  route: {cluster: empty, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}
- match: {connect_matcher: {}, headers: [{name: ":authority", string_match: {exact: "h1.example:80"}}]}
  request_headers_to_add: [{header: {key: x-route, value: h1}}]
  route: {cluster: h1, upgrade_configs: [{upgrade_type: CONNECT}]}
- match: {connect_matcher: {}, headers: [{name: ":authority", string_match: {exact: "h2.example:80"}}]}
  route: {cluster: h2, upgrade_configs: [{upgrade_type: CONNECT}]}
- match: {connect_matcher: {}, headers: [{name: ":authority", string_match: {exact: "direct.example:80"}}]}
  direct_response: {status: 203, body: {inline_string: direct}}
- match: {connect_matcher: {}, headers: [{name: ":authority", string_match: {exact: "plain.example:80"}}]}
  route: {cluster: h1}
- match: {prefix: /post}
  response_headers_to_remove: [x-envoy-upstream-service-time]
  route: {cluster: tcp, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}]}
- match: {prefix: /no-post}
  route: {cluster: h1, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}
- match: {prefix: /ws/1}
  route: {cluster: h1, upgrade_configs: [{upgrade_type: websocket}]}
- match: {prefix: /ws/2}
  route: {cluster: h2, upgrade_configs: [{upgrade_type: websocket}]}
- {match: {prefix: /direct}, direct_response: {status: 203, body: {inline_string: direct}}}
- {match: {prefix: ""}, route: {cluster: h1}}
"#;

const LOG: &str = "%REQ(:METHOD)%|%REQ(:PATH)%|%REQ(:AUTHORITY)%|%PROTOCOL%|%RESPONSE_CODE%|%RESPONSE_CODE_DETAILS%|%RESPONSE_FLAGS%|%UPSTREAM_CLUSTER%|%UPSTREAM_HOST%|%UPSTREAM_PROTOCOL%|%BYTES_RECEIVED%|%BYTES_SENT%|%UPSTREAM_REQUEST_ATTEMPT_COUNT%\\n";

pub(crate) fn group() -> Group {
    let http2 = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {allow_connect: true}}
";
    let listener = |place: &str, more: &str| {
        let log = format!(
            "http2_protocol_options: {{allow_connect: true}}\naccess_log: [{{name: envoy.access_loggers.file, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/{place}.log', \
             log_format: {{text_format_source: {{inline_string: \"{LOG}\"}}}}}}}}]\n"
        );
        http_listener(place, &format!("{log}{more}{}", routes(ROUTES)))
    };
    Group {
        name: "connect",
        bootstrap: bootstrap(
            &[
                listener("LISTEN", ""),
                listener("LISTEN_ON", "upgrade_configs: [{upgrade_type: CONNECT}]\n"),
            ],
            &[
                cluster("tcp", &["tcp"], ""),
                cluster("closed", &["closed"], ""),
                "- {name: empty, type: STATIC}\n".to_owned(),
                cluster("h1", &["one"], ""),
                cluster("h2", &["two"], http2),
            ],
        ),
        upstreams: vec![
            ("tcp", UpstreamKind::Tcp),
            ("closed", UpstreamKind::Closed),
            ("one", UpstreamKind::Plain),
            ("two", UpstreamKind::Plain),
        ],
        unsupported: None,
        cases: cases(),
    }
}

/// A case, with the listener whose log has its line.
type Logged = (&'static str, Case);

fn cases() -> Vec<Case> {
    let logged_cases: Vec<Logged> = [ended_here(), forwarded(), refused(), posts(), websockets()]
        .into_iter()
        .flatten()
        .collect();
    let lines: Vec<_> =
        logged_cases.iter().map(|(listener, case)| (case.name, *listener)).collect();
    let mut cases: Vec<Case> = logged_cases.into_iter().map(|(_, case)| case).collect();
    cases.push(Case::custom("log", move |world| {
        let lines = lines.clone();
        Box::pin(async move { logged(world, &lines).await })
    }));
    cases.extend(counted());
    cases
}

fn case(
    name: &'static str,
    listener: &'static str,
    request: Request,
    reply: Option<(&'static str, Reply)>,
    expected: u16,
) -> Logged {
    let case = Case::custom(name, move |world| {
        let (request, reply) = (request.clone(), reply.clone());
        Box::pin(async move { tunnel(world, listener, &request, reply, expected).await })
    });
    (listener, case)
}

fn ended_here() -> Vec<Logged> {
    let to = |host: &str| Request::connect(host);
    vec![
        case("over_http1_to_tcp", "LISTEN", to("tcp.example:80"), None, 200),
        case("over_http2_to_tcp", "LISTEN", to("tcp.example:80").http2(), None, 200),
        case("nobody_listens", "LISTEN", to("closed.example:80"), None, 503),
        case("nobody_listens_over_http2", "LISTEN", to("closed.example:80").http2(), None, 503),
        case("no_endpoint", "LISTEN", to("empty.example:80"), None, 503),
    ]
}

fn forwarded() -> Vec<Logged> {
    let mut cases = Vec::new();
    for (name, host, upstream) in
        [("http1", "h1.example:80", "one"), ("http2", "h2.example:80", "two")]
    {
        for (from, http2) in [("http1", false), ("http2", true)] {
            let name = |what: &str| -> &'static str {
                Box::leak(format!("from_{from}_to_{name}_{what}").into_boxed_str())
            };
            let request = Request::connect(host);
            let request = if http2 { request.http2() } else { request };
            let reply = Some((upstream, Reply::connected().header("x-a", "b")));
            cases.push(case(name("agreed"), "LISTEN", request.clone(), reply, 200));
            let reply = Some((upstream, Reply::status(407).body("who?")));
            cases.push(case(name("refused"), "LISTEN", request, reply, 407));
        }
    }
    cases
}

fn refused() -> Vec<Logged> {
    let to = |host: &str| Request::connect(host);
    vec![
        case("turned_off_by_the_route", "LISTEN_ON", to("off.example:80"), None, 403),
        case("not_turned_on", "LISTEN", to("plain.example:80"), None, 403),
        case("not_turned_on_over_http2", "LISTEN", to("plain.example:80").http2(), None, 403),
        case(
            "turned_on_by_the_manager",
            "LISTEN_ON",
            to("plain.example:80"),
            Some(("one", Reply::connected())),
            200,
        ),
        case("without_a_route", "LISTEN_ON", to("nowhere.example:80"), None, 404),
        case("without_a_route_and_not_turned_on", "LISTEN", to("nowhere.example:80"), None, 404),
        case("direct_response", "LISTEN_ON", to("direct.example:80"), None, 203),
        case("direct_response_not_turned_on", "LISTEN", to("direct.example:80"), None, 403),
        case("without_a_port", "LISTEN_ON", to("tcp.example"), None, 400),
        case(
            "an_upgrade_is_refused_before_the_route_answers",
            "LISTEN",
            Request::get("/direct").header("connection", "Upgrade").header("upgrade", "websocket"),
            None,
            403,
        ),
    ]
}

fn posts() -> Vec<Logged> {
    // The time of the service is told if all of the request was there when the endpoint was: a matter of chance, so
    // the route removes it.
    let post = |path: &str| Request::new("POST", path).chunks(&["one", "two"]);
    [
        Case::new("a_post_is_taken_for_a_connect").send(post("/post"), "200 -"),
        Case::new("a_post_over_http2_is_too").send(post("/post").http2(), "200 -"),
        Case::new("a_post_of_known_length_is_too").send(Request::post("/post", "three"), "200 -"),
        Case::new("a_post_is_a_post_where_that_is_not_allowed").send(post("/no-post"), "200 one"),
    ]
    .map(|case| ("LISTEN", case))
    .into()
}

fn websockets() -> Vec<Logged> {
    let mut cases = Vec::new();
    for (to, path, upstream, reply) in [
        ("http1", "/ws/1", "one", Reply::upgrade("websocket")),
        ("http2", "/ws/2", "two", Reply::connected()),
    ] {
        for (from, http2) in [("http1", false), ("http2", true)] {
            let name = |what: &str| -> &'static str {
                Box::leak(format!("websocket_from_{from}_to_{to}_{what}").into_boxed_str())
            };
            let request = if http2 {
                Request::new("CONNECT", path).extended("websocket")
            } else {
                Request::get(path).header("connection", "Upgrade").header("upgrade", "websocket")
            };
            let request = request
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            let agreed = if http2 { 200 } else { 101 };
            let reply = Some((upstream, reply.clone().header("sec-websocket-accept", "x")));
            cases.push(case(name("agreed"), "LISTEN", request.clone(), reply, agreed));
            let reply = Some((upstream, Reply::status(404).body("no")));
            cases.push(case(name("refused"), "LISTEN", request, reply, 404));
        }
    }
    cases
}

fn counted() -> Vec<Case> {
    vec![Case::custom("statistics", |world| {
        Box::pin(statistics(
            world,
            &[
                "http.test.downstream_cx_upgrades",
                "http.test.downstream_rq_ws_on_non_ws_route",
                "http.test.downstream_rq_1xx",
                "http.test.downstream_rq_2xx",
                "http.test.downstream_rq_4xx",
                "http.test.downstream_rq_5xx",
                "http.test.downstream_rq_total",
                "http.test.downstream_rq_active",
                "http.test.no_route",
                "cluster.tcp.upstream_rq_total",
                "cluster.tcp.upstream_rq_active",
                "cluster.tcp.upstream_rq_pending_total",
                "cluster.tcp.upstream_rq_pending_active",
                "cluster.tcp.upstream_rq_2xx",
                "cluster.tcp.upstream_rq_completed",
                "cluster.tcp.upstream_cx_total",
                "cluster.tcp.upstream_cx_active",
                "cluster.closed.upstream_rq_total",
                "cluster.closed.upstream_rq_pending",
                "cluster.closed.upstream_rq_5xx",
                "cluster.closed.upstream_cx_connect_fail",
                "cluster.empty.upstream_rq_5xx",
                "cluster.empty.upstream_cx_none_healthy",
                "cluster.h1.upstream_rq_total",
                "cluster.h1.upstream_rq_1xx",
                "cluster.h1.upstream_rq_2xx",
                "cluster.h1.upstream_rq_4xx",
                "cluster.h2.upstream_rq_total",
                "cluster.h2.upstream_rq_1xx",
                "cluster.h2.upstream_rq_2xx",
                "cluster.h2.upstream_rq_4xx",
            ],
        ))
    })]
}

/// Asks for a tunnel, and talks through it.
async fn tunnel(
    world: &World,
    listener: &'static str,
    request: &Request,
    reply: Option<(&'static str, Reply)>,
    expected: u16,
) -> Result<Observation> {
    let mut seen = Observation::default();
    if let Some((upstream, reply)) = &reply {
        world.upstream(upstream)?.script([reply.clone()]);
    }
    let mut connection =
        Connection::open(world.address(listener)?, request.protocol(), None).await?;
    let outcome = match connection.tunnel(request, b"hello").await {
        Ok(response) => Outcome::Response(response),
        Err(error) => Outcome::Failed(cause(&error)),
    };
    seen.outcome("tunnel", &outcome, &world.values);
    for upstream in ["one", "two"] {
        for got in world.upstream(upstream)?.take() {
            seen.recorded("tunnel", "upstream", upstream, &got, &world.values);
        }
    }
    if world.proxy.kind == Kind::Envoy {
        ensure!(outcome.status() == expected, "Envoy answered {}:\n{seen}", outcome.status());
    }
    Ok(seen)
}

/// The lines of every case before, in their order.
async fn logged(world: &World, lines: &[(&'static str, &'static str)]) -> Result<Observation> {
    let mut seen = Observation::default();
    for listener in ["LISTEN", "LISTEN_ON"] {
        let of_listener = lines.iter().filter(|(_, to)| *to == listener);
        for (number, (name, _)) in of_listener.enumerate() {
            let line = line(world, listener, number).await?;
            seen.fact(name, "line", world.normal(&line));
        }
    }
    Ok(seen)
}
