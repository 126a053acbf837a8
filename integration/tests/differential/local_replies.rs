//! Answers that the proxy makes itself because something is wrong.

use anyhow::Result;
use outrigger_integration::client::{Request, raw};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- {match: {prefix: /missing}, route: {cluster: missing}}
- {match: {prefix: /not-found}, route: {cluster: missing, cluster_not_found_response_code: NOT_FOUND}}
- {match: {prefix: /empty}, route: {cluster: empty}}
- {match: {prefix: /closed}, route: {cluster: closed}}
- {match: {prefix: /a}, route: {cluster: a}}
"#;

const MAPPED: &str = r#"
local_reply_config:
  mappers:
  - filter:
      and_filter:
        filters:
        - response_flag_filter: {flags: [NC]}
        - status_code_filter: {comparison: {op: EQ, value: {default_value: 503, runtime_key: x}}}
    status_code: 510
    body: {inline_string: "not here"}
    headers_to_add: [{header: {key: x-mapped, value: "%RESPONSE_CODE% %REQ(:path)%"}}]
  - filter: {response_flag_filter: {flags: [UH, UF]}}
    body_format_override: {text_format: "<%LOCAL_REPLY_BODY%> %RESPONSE_CODE%", content_type: text/html}
  - filter: {header_filter: {header: {name: x-kind, string_match: {exact: json}}}}
    body_format_override: {json_format: {status: "%RESPONSE_CODE%", path: "%REQ(:path)%", kind: "%REQ(x-kind)%", body: "%LOCAL_REPLY_BODY%"}}
  body_format: {text_format: "%LOCAL_REPLY_BODY%:%RESPONSE_CODE%:path=%REQ(:path)%"}
"#;

pub(crate) fn group() -> Group {
    let unchecked = format!("{}\n  validate_clusters: false\n", routes(ROUTES));
    let small = format!(
        "max_request_headers_kb: 2\n{}",
        routes("- {match: {prefix: /}, route: {cluster: a}}")
    );
    let mapped = format!("{unchecked}{MAPPED}");
    Group {
        name: "local_replies",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", &unchecked),
                http_listener("LISTEN_SMALL", &small),
                http_listener("LISTEN_MAPPED", &mapped),
            ],
            &[
                cluster("a", &["a"], ""),
                cluster("closed", &["closed"], ""),
                "- {name: empty, type: STATIC}\n".to_owned(),
            ],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("closed", UpstreamKind::Closed)],
        unsupported: None,
        cases: [replies(), mapped_replies(), refusals()].into_iter().flatten().collect(),
    }
}

fn replies() -> Vec<Case> {
    let grpc = |path: &str| {
        Request::post(path, "")
            .http2()
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    };
    vec![
        Case::new("unknown_cluster").get("/missing", "503 -").send(grpc("/missing"), "200 -"),
        Case::new("unknown_cluster_with_a_status_of_its_own").get("/not-found", "404 -"),
        Case::new("no_endpoint").get("/empty", "503 -").send(grpc("/empty"), "200 -"),
        Case::new("connection_refused")
            .get("/closed", "503 -")
            .send(grpc("/closed"), "200 -")
            .send(Request::post("/closed", "body"), "503 -"),
        Case::new("reset_before_an_answer")
            .script("a", [Reply::reset()])
            .get("/a", "503 a")
            .script("a", [Reply::reset()])
            .send(grpc("/a"), "200 a"),
        Case::new("no_route").get("/", "404 -").send(grpc("/"), "200 -"),
        Case::new("head_gets_no_body").send(Request::new("HEAD", "/empty"), "503 -"),
        Case::new("head_of_a_missing_route").send(Request::new("HEAD", "/"), "404 -"),
        Case::new("a_refused_answer_keeps_the_connection")
            .send(Request::post("/empty", "x".repeat(70_000)), "503 -"),
        Case::new("request_headers_too_large")
            .send(Request::get("/a").header("x-big", &"x".repeat(70_000)), "431 -")
            .send_to("LISTEN_SMALL", Request::get("/").header("x-big", &"x".repeat(3000)), "431 -"),
        Case::new("request_headers_just_fit")
            .send(Request::get("/a").header("x-big", &"x".repeat(50_000)), "200 a")
            .send(Request::get("/a").header("x-big", &"x".repeat(50_000)).http2(), "200 a"),
    ]
}

fn mapped_replies() -> Vec<Case> {
    let grpc = Request::post("/missing", "").http2().header("content-type", "application/grpc");
    let get = |path: &str| Request::get(path);
    vec![
        Case::new("our_answers_are_changed_by_the_first_mapper_that_takes_them")
            .send_to("LISTEN_MAPPED", get("/missing"), "510 -")
            .send_to("LISTEN_MAPPED", get("/empty"), "503 -")
            .send_to("LISTEN_MAPPED", get("/not-found").header("x-kind", "json"), "404 -")
            .send_to("LISTEN_MAPPED", get("/nowhere?q=1"), "404 -")
            .send_to("LISTEN_MAPPED", get("/nowhere").http2(), "404 -")
            .send_to("LISTEN_MAPPED", grpc, "200 -"),
        Case::new("an_answer_of_an_endpoint_is_not_changed")
            .script("a", [Reply::status(503).body("theirs")])
            .send_to("LISTEN_MAPPED", get("/a"), "503 a"),
    ]
}

/// A request that is not HTTP, or not safe to forward. The rule is in the name; what counts is the status and that
/// nothing reaches the upstream.
fn refusals() -> Vec<Case> {
    let head = "GET /a HTTP/1.1\r\nhost: x\r\n";
    let cases: Vec<(&'static str, String)> = vec![
        ("no_host_is_refused", "GET /a HTTP/1.1\r\n\r\n".to_owned()),
        ("not_http_is_refused", "hello\r\n\r\n".to_owned()),
        ("a_space_before_the_colon_is_refused", format!("{head}x-a : 1\r\n\r\n")),
        ("an_invalid_field_name_is_refused", format!("{head}x(a): 1\r\n\r\n")),
        ("a_nul_in_a_value_is_refused", format!("{head}x-a: a\0b\r\n\r\n")),
        ("an_unknown_version_is_refused", "GET /a HTTP/3.7\r\nhost: x\r\n\r\n".to_owned()),
        ("a_bad_length_is_refused", "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1x\r\n\r\n".to_owned()),
        (
            "two_lengths_are_refused",
            "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(),
        ),
        (
            "length_and_chunked_is_refused",
            "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "an_unknown_transfer_encoding_is_refused",
            "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(),
        ),
        ("connect_without_a_route_is_refused", "CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n".to_owned()),
    ];
    cases
        .into_iter()
        .map(|(name, bytes)| {
            Case::custom(name, move |world| {
                let bytes = bytes.clone();
                Box::pin(async move { refused(world, &bytes).await })
            })
        })
        .collect()
}

async fn refused(world: &World, bytes: &str) -> Result<Observation> {
    let answer = raw(world.address("LISTEN")?, bytes.as_bytes()).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.lines().next().unwrap_or("<nothing>").to_owned();
    let close = answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
    let mut seen = Observation::default();
    seen.fact("refusal", "status line", status);
    seen.fact("refusal", "connection: close", close);
    seen.fact("refusal", "requests upstream", world.upstream("a")?.take().len());
    Ok(seen)
}
