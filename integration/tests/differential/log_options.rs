//! Logs that are written before the end: when a request or connection begins, when a connection has its endpoint, and each
//! time that so much has passed.

use std::time::Duration;

use anyhow::Result;
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::access_log::line;
use crate::parts::{bootstrap, cluster, http_listener, routes};

const FIELDS: &str = "%ACCESS_LOG_TYPE% %PROTOCOL% %REQ(:path)% %REQ(x-forwarded-proto)% %RESPONSE_CODE% \
%RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %ROUTE_NAME% \
%UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%";

const ROUTES: &str = r#"
- {match: {prefix: /direct}, name: direct, direct_response: {status: 201}}
- {match: {prefix: /closed}, route: {cluster: closed}}
- {match: {prefix: /a}, name: a, route: {cluster: a, prefix_rewrite: /new}}
"#;

/// Without the line of what has just begun, by the field that stood for it before, and by the message of today.
const OPTIONS: &[(&str, &str)] = &[
    ("LISTEN", "access_log_options: {}"),
    ("LISTEN_OLD", "flush_access_log_on_new_request: true"),
    ("LISTEN_NEW", "access_log_options: {flush_access_log_on_new_request: true}"),
];

const TCP_OPTIONS: &[(&str, &str, &str)] = &[
    ("LISTEN_TCP", "echo", "access_log_options: {flush_access_log_on_connected: false}"),
    ("LISTEN_TCP_OLD", "echo", "flush_access_log_on_connected: true"),
    (
        "LISTEN_TCP_NEW",
        "echo",
        "access_log_options: {flush_access_log_on_start: true, flush_access_log_on_connected: true}",
    ),
    (
        "LISTEN_TCP_CLOSED",
        "closed",
        "access_log_options: {flush_access_log_on_start: true, flush_access_log_on_connected: true}",
    ),
    ("LISTEN_TCP_EACH", "echo", "access_log_options: {access_log_flush_interval: 0.4s}"),
    ("LISTEN_TCP_OLD_EACH", "echo", "access_log_flush_interval: 0.4s"),
];

fn log(place: &str) -> String {
    format!(
        "access_log: [{{name: envoy.access_loggers.file, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/{place}.log', \
         log_format: {{text_format_source: {{inline_string: \"{FIELDS}\\n\"}}}}}}}}]"
    )
}

pub(crate) fn group() -> Group {
    let http = OPTIONS.iter().map(|(place, options)| {
        http_listener(place, &format!("{}\n{options}\n{}\n", log(place), routes(ROUTES)))
    });
    let tcp = TCP_OPTIONS.iter().map(|(place, cluster, options)| {
        format!(
            "- name: {place}\n  address: ${{{place}}}\n  filter_chains: [{{filters: [{{name: t, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, \
             cluster: {cluster}, {options}, {}}}}}]}}]\n",
            log(place)
        )
    });
    let listeners: Vec<String> = http.chain(tcp).collect();
    let clusters = ["a", "closed", "echo"].map(|name| cluster(name, &[name], ""));
    Group {
        name: "log_options",
        bootstrap: bootstrap(&listeners, &clusters),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
            ("echo", UpstreamKind::Tcp),
        ],
        unsupported: None,
        cases: vec![
            Case::custom("requests", |world| Box::pin(requests(world))),
            Case::custom("connections", |world| Box::pin(connections(world))),
        ],
    }
}

async fn requests(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for (place, _) in OPTIONS {
        let requests = [
            Request::get("/a?q"),
            Request::post("/a", "12345").http2(),
            Request::get("/direct"),
            Request::get("/closed"),
            Request::get("/nowhere"),
        ];
        let lines = if *place == "LISTEN" { 1 } else { 2 };
        for (count, request) in requests.into_iter().enumerate() {
            request.send(world.address(place)?).await;
            world.upstream("a")?.take();
            for number in 0..lines {
                let line = line(world, place, count * lines + number).await?;
                seen.fact(place, &format!("request {count}, line {number}"), world.normal(&line));
            }
        }
    }
    Ok(seen)
}

async fn connections(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for (place, ..) in TCP_OPTIONS {
        let mut stream = TcpStream::connect(world.address(place)?).await?;
        if place.ends_with("EACH") {
            // Between the ends of intervals, whatever each proxy takes to begin.
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.write_all(b"hello").await?;
            stream.read_exact(&mut [0; 5]).await?;
            tokio::time::sleep(Duration::from_millis(800)).await;
        } else if *place != "LISTEN_TCP_CLOSED" {
            stream.write_all(b"hello").await?;
        }
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        drop(stream);
        let lines = match *place {
            "LISTEN_TCP" => 1,
            "LISTEN_TCP_OLD" | "LISTEN_TCP_CLOSED" => 2,
            _ => 3,
        };
        for number in 0..lines {
            let line = line(world, place, number).await?;
            seen.fact(place, &format!("line {number}"), world.normal(&line));
        }
    }
    Ok(seen)
}
