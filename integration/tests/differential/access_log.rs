//! The access log: Envoy's default line, formats of one's own, and the response flags of each failure.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;
use regex::Regex;

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- {match: {prefix: /missing}, route: {cluster: missing}}
- {match: {prefix: /empty}, route: {cluster: empty}}
- {match: {prefix: /closed}, route: {cluster: closed}}
- {match: {prefix: /timeout}, route: {cluster: a, timeout: 0.05s}}
- match: {prefix: /retry}
  route: {cluster: a, retry_policy: {retry_on: 5xx}}
- {match: {prefix: /rewritten}, route: {cluster: a, prefix_rewrite: /new}}
- {match: {prefix: /direct}, direct_response: {status: 201, body: {inline_string: made}}}
- {match: {prefix: /redirect}, redirect: {path_redirect: /x}}
- {match: {prefix: /a}, name: route-a, route: {cluster: a}}
"#;

const TEXT: &str = r#"text_format_source: {inline_string: "%REQ(:METHOD)%|%REQ(X-A?X-B):5%|%RESP(x-inner)%|%RESPONSE_CODE%|%RESPONSE_CODE_DETAILS%|%RESPONSE_FLAGS%|%RESPONSE_FLAGS_LONG%|%ROUTE_NAME%|%VIRTUAL_CLUSTER_NAME%|%UPSTREAM_CLUSTER%|%UPSTREAM_HOST%|%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%|%DOWNSTREAM_LOCAL_ADDRESS%|%REQUESTED_SERVER_NAME%|%PROTOCOL%|%BYTES_RECEIVED%|%BYTES_SENT%|%UPSTREAM_TRANSPORT_FAILURE_REASON%|%UPSTREAM_REQUEST_ATTEMPT_COUNT%|%GRPC_STATUS%|%TRAILER(x-t)%|100%%\n"}"#;

const JSON: &str = r#"json_format: {method: "%REQ(:METHOD)%", code: "%RESPONSE_CODE%", flags: "%RESPONSE_FLAGS%", sent: "%BYTES_SENT%", mixed: "code=%RESPONSE_CODE%", absent: "%REQ(x-absent)%", quote: "%REQ(x-quote)%", protocol: "%PROTOCOL%", nested: {path: "%REQ(:PATH)%", host: "%UPSTREAM_HOST%"}, list: ["%RESPONSE_CODE%", plain], number: 7, yes: true}"#;

pub(crate) fn group() -> Group {
    let listener = |place: &str, format: &str| {
        let format =
            if format.is_empty() { String::new() } else { format!(", log_format: {{{format}}}") };
        let log = format!(
            "access_log: [{{name: envoy.access_loggers.file, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/{place}.log'{format}}}}}]\n"
        );
        http_listener(place, &format!("{log}{}\n  validate_clusters: false\n", routes(ROUTES)))
    };
    Group {
        name: "access_log",
        bootstrap: bootstrap(
            &[listener("LISTEN", ""), listener("LISTEN_TEXT", TEXT), listener("LISTEN_JSON", JSON)],
            &[
                cluster("a", &["a"], ""),
                cluster("closed", &["closed"], ""),
                "- {name: empty, type: STATIC}\n".to_owned(),
            ],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("closed", UpstreamKind::Closed)],
        unsupported: None,
        cases: cases(),
    }
}

/// What is sent for each line, in all three formats.
fn requests() -> Vec<(&'static str, Request, Vec<Reply>)> {
    let late = Reply::status(200).body("late").after(Duration::from_millis(300));
    let grpc = Request::post("/a/grpc", "").http2().header("content-type", "application/grpc");
    let grpc_answer = Reply::status(200)
        .header("content-type", "application/grpc")
        .chunks(&["\0\0\0\0\0"])
        .trailer("grpc-status", "5");
    vec![
        ("ok", Request::get("/a?q=1").header("user-agent", "test/1"), vec![]),
        ("over_http2", Request::get("/a").http2(), vec![]),
        ("with_bodies", Request::post("/a", "12345"), vec![Reply::status(201).body("123")]),
        (
            "with_fields",
            Request::get("/a").header("x-b", "abcdefgh").header("x-quote", "a\"b\\c"),
            vec![Reply::status(200).header("x-inner", "inner").body("")],
        ),
        ("forwarded_for", Request::get("/a").header("x-forwarded-for", "203.0.113.7"), vec![]),
        ("rewritten", Request::get("/rewritten/x"), vec![]),
        ("no_route", Request::get("/nowhere"), vec![]),
        ("no_cluster", Request::get("/missing"), vec![]),
        ("no_endpoint", Request::get("/empty"), vec![]),
        ("connection_refused", Request::get("/closed"), vec![]),
        ("reset", Request::get("/a"), vec![Reply::reset()]),
        ("timeout", Request::get("/timeout"), vec![late]),
        ("retried", Request::get("/retry"), vec![Reply::status(500)]),
        ("retries_used_up", Request::get("/retry"), vec![Reply::status(500), Reply::status(500)]),
        ("direct_response", Request::get("/direct"), vec![]),
        ("redirect", Request::get("/redirect"), vec![]),
        ("broken_body", Request::get("/a"), vec![Reply::status(200).chunks(&["one"]).broken()]),
        ("grpc_status", grpc, vec![grpc_answer]),
    ]
}

fn cases() -> Vec<Case> {
    let case = |name: &'static str, listener: &'static str| {
        Case::custom(name, move |world| Box::pin(lines(world, listener)))
    };
    vec![
        case("default_format", "LISTEN"),
        case("text_format", "LISTEN_TEXT"),
        case("json_format", "LISTEN_JSON"),
    ]
}

/// Sends every request, one after the other, and reads their lines.
async fn lines(world: &World, listener: &str) -> Result<Observation> {
    let mut seen = Observation::default();
    for (_, request, replies) in requests() {
        world.upstream("a")?.script(replies);
        request.send(world.address(listener)?).await;
        world.upstream("a")?.take();
    }
    for (count, (name, ..)) in requests().into_iter().enumerate() {
        let line = line(world, listener, count).await.with_context(|| name)?;
        if listener == "LISTEN_JSON" {
            ensure!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "not JSON: {line}");
        }
        seen.fact(name, "line", normal(world, &line)?);
    }
    Ok(seen)
}

/// Waits for the line of this number, from 0.
pub(crate) async fn line(world: &World, listener: &str, number: usize) -> Result<String> {
    let path = world.folder.path().join(format!("{listener}.log"));
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some((line, _)) =
            text.split_inclusive('\n').nth(number).and_then(|line| line.split_once('\n'))
        {
            return Ok(line.to_owned());
        }
        ensure!(Instant::now() < deadline, "line {number} is not written; there are:\n{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes out time and durations.
fn normal(world: &World, line: &str) -> Result<String> {
    let time = Regex::new(r"^\[\d{4}-[^\]]+Z\]")?;
    let durations = Regex::new(r#"(" \d+ \S+ \d+ \d+) \d+ (\d+|-) ""#)?;
    let line = world.normal(line);
    let line = time.replace(&line, "[<time>]");
    let line = durations.replace(&line, |found: &regex::Captures<'_>| {
        let service = if &found[2] == "-" { "-" } else { "<ms>" };
        format!("{} <ms> {service} \"", &found[1])
    });
    Ok(line.into_owned())
}
