//! Options of HTTP/1, of HTTP/2 and of the connection manager that change a message: names, methods, hosts, schemes.

use anyhow::{Result, ensure};
use outrigger_integration::client::{Request, raw};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::parts::{bootstrap, cluster, http_listener, routes};

const OPTIONS: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n";

fn upstream(options: &str) -> String {
    format!("{OPTIONS}    {options}")
}

const ROUTES: &str = "
- {match: {prefix: /cased}, route: {cluster: cased}}
- {match: {prefix: /whole}, route: {cluster: whole}}
- {match: {prefix: /bytes}, route: {cluster: bytes}}
- {match: {prefix: /long}, route: {cluster: long}}
- {match: {prefix: /table}, route: {cluster: table}}
- {match: {prefix: /tls}, route: {cluster: tls}}
- {match: {prefix: /scheme, headers: [{name: ':scheme', string_match: {exact: https}}]}, direct_response: {status: 200, body: {inline_string: https}}}
- {match: {prefix: /scheme}, direct_response: {status: 200, body: {inline_string: http}}}
- {match: {prefix: /redirect}, redirect: {path_redirect: /there}}
- {match: {prefix: /ws}, route: {cluster: a, upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: other}]}}
- {match: {prefix: /}, route: {cluster: a}}
";

pub(crate) fn group() -> Group {
    let listener =
        |place: &str, more: &str| http_listener(place, &format!("{more}\n{}", routes(ROUTES)));
    let listeners = [
        listener("LISTEN", ""),
        listener(
            "LISTEN_HOST",
            "http_protocol_options: {accept_http_10: true, default_host_for_http_10: default.example}",
        ),
        listener(
            "LISTEN_CASED",
            "http_protocol_options: {header_key_format: {proper_case_words: {}}}",
        ),
        listener("LISTEN_LENGTH", "http_protocol_options: {allow_chunked_length: true}"),
        listener("LISTEN_METHODS", "http_protocol_options: {allow_custom_methods: true}"),
        listener(
            "LISTEN_IGNORED",
            "http_protocol_options: {ignore_http_11_upgrade: [{prefix: TLS/}, {exact: other}]}\nupgrade_configs: [{upgrade_type: websocket}]",
        ),
        listener("LISTEN_TABLE", "http2_protocol_options: {hpack_table_size: 0}"),
        listener("LISTEN_HTTPS", "scheme_header_transformation: {scheme_to_overwrite: https}"),
        listener(
            "LISTEN_HTTP",
            "scheme_header_transformation: {scheme_to_overwrite: http}\nuse_remote_address: true",
        ),
        listener("LISTEN_MATCH", "scheme_header_transformation: {match_upstream: true}"),
        listener("LISTEN_AGENT", "add_user_agent: true"),
        listener("LISTEN_AGENT_EDGE", "add_user_agent: true\nuse_remote_address: true"),
    ];
    let tls = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: server.example}}}}\n{}",
        upstream("explicit_http_config: {http2_protocol_options: {}}")
    );
    let clusters = [
        cluster("a", &["a"], ""),
        cluster(
            "cased",
            &["bytes"],
            &upstream(
                "explicit_http_config: {http_protocol_options: {header_key_format: {proper_case_words: {}}}}",
            ),
        ),
        cluster(
            "whole",
            &["bytes"],
            &upstream(
                "explicit_http_config: {http_protocol_options: {send_fully_qualified_url: true}}",
            ),
        ),
        cluster("bytes", &["bytes"], ""),
        cluster(
            "long",
            &["a"],
            &upstream(
                "common_http_protocol_options: {max_response_headers_kb: 100}\n    explicit_http_config: {http_protocol_options: {}}",
            ),
        ),
        cluster(
            "table",
            &["a"],
            &upstream("explicit_http_config: {http2_protocol_options: {hpack_table_size: 8192}}"),
        ),
        cluster("tls", &["tls"], &tls),
    ];
    Group {
        name: "http_options",
        bootstrap: bootstrap(&listeners, &clusters),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("bytes", UpstreamKind::Closed),
            ("tls", UpstreamKind::Tls("server")),
        ],
        unsupported: None,
        cases: [lines(), methods(), upgrades(), schemes(), agents(), limits()]
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// What is said to `listener`, byte by byte, and what comes back of it.
fn bytes(name: &'static str, listener: &'static str, texts: &'static [&'static str]) -> Case {
    Case::custom(name, move |world| Box::pin(said(world, listener, texts)))
}

async fn said(world: &World, listener: &str, texts: &[&str]) -> Result<Observation> {
    let mut seen = Observation::default();
    for (step, text) in texts.iter().enumerate() {
        let step = format!("step {step}");
        let answer = raw(world.address(listener)?, text.as_bytes()).await?;
        let answer = world.normal(&String::from_utf8_lossy(&answer));
        let mut lines: Vec<&str> = answer.split("\r\n").collect();
        let first = if lines.is_empty() { "nothing" } else { lines.remove(0) };
        seen.fact(&step, "first line", first);
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap_or(("text", line));
            let value = match name.to_ascii_lowercase().as_str() {
                "date" | "x-envoy-upstream-service-time" => "<time>",
                _ => value,
            };
            // Whether it is said that the connection ends is no matter of these options.
            if name.eq_ignore_ascii_case("connection") {
                continue;
            }
            if !line.is_empty() && !name.eq_ignore_ascii_case("x-outrigger-reason") {
                seen.fact(&step, name, value);
            }
        }
        for got in world.upstream("a")?.take() {
            seen.recorded(&step, "upstream", "a", &got, &world.values);
        }
    }
    Ok(seen)
}

fn lines() -> Vec<Case> {
    vec![
        bytes(
            "a_request_without_a_host_gets_one",
            "LISTEN_HOST",
            &[
                "GET / HTTP/1.0\r\n\r\n",
                "GET / HTTP/1.0\r\nHost: own.example\r\n\r\n",
                "GET http://url.example/ HTTP/1.0\r\n\r\n",
            ],
        ),
        bytes(
            "names_are_written_in_proper_case",
            "LISTEN_CASED",
            &[
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                "GET /redirect HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            ],
        ),
        bytes(
            "names_are_written_in_lower_case",
            "LISTEN",
            &["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"],
        ),
        bytes(
            "a_length_beside_a_coding_does_not_count",
            "LISTEN_LENGTH",
            &[
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ],
        ),
        Case::custom("an_endpoint_sees_names_and_targets", |world| Box::pin(seen_as_bytes(world))),
    ]
}

/// What an endpoint of bytes gets of a request.
async fn seen_as_bytes(world: &World) -> Result<Observation> {
    const BODY: &str = "the body";
    let mut seen = Observation::default();
    let endpoint = TcpListener::bind(world.address("bytes")?).await?;
    for path in ["/bytes", "/cased", "/whole?a=b"] {
        let request =
            Request::post(path, BODY).header("x-one-two", "x_y").header("x-three-4b", "1");
        let answered = async {
            let (mut stream, _) = endpoint.accept().await?;
            let mut got = Vec::new();
            while !got.ends_with(BODY.as_bytes()) {
                ensure!(stream.read_buf(&mut got).await? > 0, "the request ends early");
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await?;
            Ok(String::from_utf8_lossy(&got).into_owned())
        };
        let (got, _) = tokio::join!(answered, request.send(world.address("LISTEN")?));
        let got = world.normal(&got?);
        let mut lines: Vec<&str> = got.lines().collect();
        seen.fact(path, "target", lines.remove(0));
        lines.sort_unstable();
        seen.fact(path, "lines", lines.join(" / "));
    }
    Ok(seen)
}

fn methods() -> Vec<Case> {
    const TEXTS: &[&str] = &[
        "PURGE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "M-SEARCH / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "UNSUBSCRIBE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ];
    vec![
        bytes("other_methods_are_refused", "LISTEN", TEXTS),
        bytes("other_methods_pass_where_they_may", "LISTEN_METHODS", TEXTS),
        Case::new("http2_has_any_method")
            .send(Request::new("BREW", "/").http2(), "200 a")
            .send(Request::new("get", "/").http2(), "200 a"),
    ]
}

fn upgrades() -> Vec<Case> {
    let upgrade = |path: &str, value: &str| {
        Request::get(path).header("connection", "upgrade").header("upgrade", value)
    };
    vec![
        Case::new("some_upgrades_are_passed_over")
            .send_to("LISTEN_IGNORED", upgrade("/", "TLS/1.2"), "200 a")
            .send_to("LISTEN_IGNORED", upgrade("/", "other"), "200 a")
            .send_to("LISTEN_IGNORED", upgrade("/", "other, TLS/1.0"), "200 a")
            .send_to("LISTEN_IGNORED", upgrade("/", "more"), "403 -")
            .send_to("LISTEN_IGNORED", upgrade("/", "more, other"), "403 -")
            .send_to(
                "LISTEN_IGNORED",
                Request::post("/", "x")
                    .header("connection", "upgrade, close")
                    .header("upgrade", "other"),
                "200 a",
            ),
        Case::new("they_are_not_passed_over_where_nothing_is_said")
            .send(upgrade("/", "TLS/1.2"), "403 -"),
    ]
}

fn schemes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, listener) in [
        ("a_scheme_is_https_whatever_it_was", "LISTEN_HTTPS"),
        ("a_scheme_is_http_whatever_it_was", "LISTEN_HTTP"),
        ("a_scheme_is_that_of_the_endpoint", "LISTEN_MATCH"),
    ] {
        let said = |path: &str| Request::get(path).header("x-forwarded-proto", "https");
        cases.push(
            Case::new(name)
                .send_to(listener, Request::get("/"), "200 a")
                .send_to(listener, said("/"), "200 a")
                .send_to(listener, said("/").http2(), "200 a")
                .send_to(listener, Request::get("/tls"), "200 tls")
                .send_to(listener, said("/table"), "200 a")
                .send_to(listener, Request::get("/scheme"), "200 -")
                .send_to(listener, said("/scheme"), "200 -")
                .send_to(listener, Request::get("/redirect"), "301 -"),
        );
    }
    cases
}

fn agents() -> Vec<Case> {
    ["LISTEN_AGENT", "LISTEN_AGENT_EDGE"]
        .into_iter()
        .zip(["requests_say_who_we_are", "requests_say_who_we_are_at_the_edge"])
        .map(|(listener, name)| {
            Case::new(name)
                .send_to(listener, Request::get("/"), "200 a")
                .send_to(listener, Request::get("/").header("user-agent", "own"), "200 a")
                .send_to(listener, Request::get("/").header("user-agent", ""), "200 a")
                .send_to(
                    listener,
                    Request::get("/")
                        .header("x-envoy-downstream-service-cluster", "other")
                        .header("x-envoy-downstream-service-node", "other")
                        .http2(),
                    "200 a",
                )
        })
        .collect()
}

fn limits() -> Vec<Case> {
    let long = |bytes: usize| Reply::status(200).header("x-long", &"x".repeat(bytes)).body("a");
    vec![
        Case::new("headers_of_responses_may_be_longer")
            .script("a", [long(50_000)])
            .get("/long", "200 a")
            .script("a", [long(80_000)])
            .get("/long", "200 a"),
        Case::new("a_table_of_any_size_is_understood")
            .send_to("LISTEN_TABLE", Request::get("/table").header("x-a", "b").http2(), "200 a")
            .send_to("LISTEN_TABLE", Request::get("/table").header("x-a", "b").http2(), "200 a"),
    ]
}
