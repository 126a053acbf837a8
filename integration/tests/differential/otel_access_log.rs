//! Access logs that are sent to an OpenTelemetry collector: the records it gets for each request and connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::otlp::{self, Record};
use outrigger_integration::upstream::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const GRPC: &str = "grpc_service: {envoy_grpc: {cluster_name: otel_grpc}, timeout: 2s}";
const HTTP: &str = "http_service: {http_uri: {uri: 'http://collector.example/v1/logs', cluster: otel, timeout: 2s}, \
                    request_headers_to_add: [{header: {key: x-token, value: secret}}]}";

/// As it was written before there was another way.
const COMMON: &str = "common_config: {log_name: common, transport_api_version: V3, \
                      grpc_service: {envoy_grpc: {cluster_name: otel_grpc}, timeout: 2s}}";

/// The `access_log` of a listener.
fn log(service: &str, more: &str) -> String {
    format!(
        "access_log: [{{name: l, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig, \
         {service}, buffer_flush_interval: 0.05s{more}}}}}]\n"
    )
}

const TRACING: &str = "tracing: {provider: {name: envoy.tracers.opentelemetry, typed_config: {'@type': \
         type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: tested, \
         http_service: {http_uri: {uri: 'http://collector.example/v1/traces', cluster: otel, timeout: 2s}}}}}\n";

pub(crate) fn group() -> Group {
    let routes = routes(
        "- {match: {prefix: /direct}, direct_response: {status: 201, body: {inline_string: made}}}
- match: {prefix: /a}
  metadata: {filter_metadata: {k: {p: of the route}}}
  route: {cluster: a}",
    );
    let http = |place: &str, log: &str, more: &str| {
        http_listener(place, &format!("{log}{more}\n{routes}\n"))
    };
    let text = |text: &str| format!("{{string_value: '{text}'}}");
    let body = format!(", body: {}", text("%REQ(:METHOD)% %RESPONSE_CODE% %REQ(x-none)%"));
    let nested = format!(
        ", body: {{kvlist_value: {{values: [{{key: code, value: {}}}, {{key: list, value: {{array_value: {{values: [{}, {}]}}}}}}]}}}}",
        text("%RESPONSE_CODE%"),
        text("one"),
        text("%REQ(x-h)%"),
    );
    let attributes = format!(
        ", attributes: {{values: [{{key: method, value: {}}}, {{key: size, value: {}}}, {{key: map, value: {{kvlist_value: {{values: [{{key: in, value: {}}}]}}}}}}]}}",
        text("%REQ(:METHOD)%"),
        text("%BYTES_SENT%"),
        text("%PROTOCOL%"),
    );
    let resource = ", resource_attributes: {values: [{key: mine, value: {string_value: '%PROTOCOL%'}}, {key: number, value: {int_value: 7}}]}";
    let tags = ", custom_tags: [{tag: literal, literal: {value: x}}, {tag: header, request_header: {name: x-h, default_value: none}}, \
                {tag: route, metadata: {kind: {route: {}}, metadata_key: {key: k, path: [{key: p}]}}}]";
    let tcp = format!(
        "- name: LISTEN_TCP\n  address: ${{LISTEN_TCP}}\n  filter_chains:\n  - filters:\n    - name: tcp\n      typed_config:\n        '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n        stat_prefix: tcp\n        cluster: t\n        {}",
        log(GRPC, &format!(", log_name: tcp, body: {}", text("%BYTES_RECEIVED% %BYTES_SENT%")))
    );
    let http2 = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}";
    Group {
        name: "otel_access_log",
        bootstrap: bootstrap(
            &[
                http("LISTEN", &log(COMMON, &body), ""),
                http("LISTEN_HTTP", &log(HTTP, &format!(", log_name: named{nested}")), ""),
                http(
                    "LISTEN_ATTRIBUTES",
                    &log(GRPC, &format!(", log_name: attributes{attributes}{resource}")),
                    "",
                ),
                http(
                    "LISTEN_BARE",
                    &log(
                        GRPC,
                        &format!(
                            ", log_name: bare, disable_builtin_labels: true, stat_prefix: bare{body}"
                        ),
                    ),
                    "",
                ),
                http("LISTEN_TAGS", &log(GRPC, &format!(", log_name: tags{tags}")), ""),
                http("LISTEN_TRACED", &log(GRPC, &format!(", log_name: traced{body}")), TRACING),
                tcp,
            ],
            &[
                cluster("a", &["a"], ""),
                cluster("t", &["t"], ""),
                cluster("otel", &["otel"], ""),
                cluster("otel_grpc", &["otel"], http2),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("t", UpstreamKind::Tcp),
            ("otel", UpstreamKind::Plain),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let traced = Request::get("/a")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    vec![
        case("a_body", "LISTEN", Request::get("/a")),
        case("a_local_answer", "LISTEN", Request::get("/direct")),
        case("no_route", "LISTEN", Request::post("/nowhere", "x")),
        case("a_nested_body_over_http", "LISTEN_HTTP", Request::get("/a").header("x-h", "1")),
        case("attributes_and_a_resource", "LISTEN_ATTRIBUTES", Request::get("/a").http2()),
        case("without_labels", "LISTEN_BARE", Request::get("/a")),
        case("tags", "LISTEN_TAGS", Request::get("/a").header("x-h", "2")),
        case("tags_that_are_not_there", "LISTEN_TAGS", Request::get("/direct")),
        case("the_trace_of_a_request", "LISTEN_TRACED", traced),
        Case::custom("a_connection", |world| Box::pin(connection(world))),
        Case::custom("statistics", |world| Box::pin(statistics(world))),
    ]
}

fn case(name: &'static str, listener: &'static str, request: Request) -> Case {
    let request = Arc::new(request);
    Case::custom(name, move |world| {
        let request = Arc::clone(&request);
        Box::pin(async move {
            collecting(world)?;
            request.send(world.address(listener)?).await;
            world.upstream("a")?.take();
            record(world).await
        })
    })
}

/// The collector takes what it gets, over gRPC and HTTP.
fn collecting(world: &World) -> Result<()> {
    let reply = Reply::status(200)
        .header("content-type", "application/grpc")
        .chunks(&["\0\0\0\0\0"])
        .trailer("grpc-status", "0");
    let collector = world.upstream("otel")?;
    collector.take();
    collector.default_reply(Some(reply));
    Ok(())
}

async fn connection(world: &World) -> Result<Observation> {
    collecting(world)?;
    let mut stream = tokio::net::TcpStream::connect(world.address("LISTEN_TCP")?).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    drop(stream);
    record(world).await
}

/// Waits for a record, and describes it and how it came.
async fn record(world: &World) -> Result<Observation> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        // Not the spans.
        let is_log = |path: &str| path.contains("LogsService") || path.contains("/v1/logs");
        let requests = world.upstream("otel")?.take();
        if let Some(request) = requests.into_iter().find(|request| is_log(&request.path)) {
            let mut records = otlp::records(&request).context("what the collector got")?;
            ensure!(records.len() == 1, "not one record: {records:?}");
            let mut seen = Observation::default();
            seen.fact("request", "target", &request.path);
            let token = request.headers.iter().find(|(name, _)| name == "x-token");
            seen.fact("request", "token", format!("{token:?}"));
            if let Some(record) = records.pop() {
                describe(world, &record, &mut seen);
            }
            return Ok(seen);
        }
        ensure!(Instant::now() < deadline, "no record came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn describe(world: &World, record: &Record, seen: &mut Observation) {
    for (key, value) in &record.resource {
        seen.fact("resource", key, value);
    }
    seen.fact("record", "scope", format!("{:?}", record.scope));
    seen.fact("record", "body", world.normal(&format!("{:?}", record.body())));
    for (key, value) in record.attributes() {
        seen.fact("attribute", &key, world.normal(&value));
    }
    let (trace, span) = record.ids();
    seen.fact("record", "trace", trace);
    // Ours alone, and so another one each time.
    seen.fact("record", "span", span.len());
    seen.fact("record", "has a time", record.proto.time_unix_nano > 0);
    let other = (
        record.proto.observed_time_unix_nano,
        record.proto.severity_number,
        &record.proto.severity_text,
        record.proto.flags,
        &record.proto.event_name,
    );
    seen.fact("record", "other", format!("{other:?}"));
}

async fn statistics(world: &World) -> Result<Observation> {
    let written = "access_logs.open_telemetry_access_log.bare.logs_written";
    world.proxy.wait_for_stat(written, Duration::from_secs(15), |count| count > 0).await?;
    crate::parts::statistics(world, &["access_logs.open_telemetry_access_log"]).await
}
