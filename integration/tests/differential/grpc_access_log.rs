//! Access logs over gRPC: what a log server gets for each request and connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outrigger_integration::als::{Entry, Kind};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::data::accesslog::v3::AccessLogCommon;
use outrigger_proto::google::protobuf::Duration as DurationProto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- {match: {prefix: /empty}, route: {cluster: empty}}
- {match: {prefix: /closed}, route: {cluster: closed}}
- {match: {prefix: /missing}, route: {cluster: missing}}
- {match: {prefix: /timeout}, route: {cluster: a, timeout: 0.05s}}
- match: {prefix: /retry}
  route: {cluster: a, retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}}
- {match: {prefix: /rewritten}, route: {cluster: a, prefix_rewrite: /new}}
- {match: {prefix: /direct}, direct_response: {status: 201, body: {inline_string: made}}}
- {match: {prefix: /redirect}, redirect: {path_redirect: /x}}
- {match: {prefix: /a}, name: route-a, metadata: {filter_metadata: {k: {p: of the route}}}, route: {cluster: a}}
"#;

/// The `access_log` of a listener.
fn log(kind: &str, name: &str, common: &str, more: &str) -> String {
    format!(
        "access_log: [{{name: l, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.{kind}, \
         common_config: {{log_name: {name}, transport_api_version: V3, buffer_flush_interval: 0.05s, \
         grpc_service: {{envoy_grpc: {{cluster_name: als}}}}{common}}}{more}}}}}]\n"
    )
}

pub(crate) fn group() -> Group {
    let http = |place: &str, log: &str, more: &str| {
        http_listener(
            place,
            &format!("{log}{more}\n{}\n  validate_clusters: false\n", routes(ROUTES)),
        )
    };
    let tags = ", custom_tags: [{tag: literal, literal: {value: x}}, {tag: header, request_header: {name: x-h, default_value: none}}, \
                {tag: format, value: '%RESPONSE_CODE% %REQ(x-h)%'}, \
                {tag: route, metadata: {kind: {route: {}}, metadata_key: {key: k, path: [{key: p}]}}}]";
    let headers = ", additional_request_headers_to_log: [x-a, X-B, x-none, host], \
                   additional_response_headers_to_log: [x-c, content-length], additional_response_trailers_to_log: [x-t]";
    let state = "http_filters:
- name: m
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
    metadata: [{metadata_namespace: mine, value: {text: t, number: 7, flag: true, list: [1, x], deep: {nothing: null}}}]
- name: f
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
    on_request_headers: [{object_key: mine, factory_key: envoy.string, format_string: {text_format_source: {inline_string: '%REQ(:METHOD)%'}}}]
- ROUTER";
    let tcp = |place: &str, log: &str| {
        format!(
            "- name: {place}\n  address: ${{{place}}}\n  filter_chains:\n  - filters:\n    - name: tcp\n      typed_config:\n        '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n        stat_prefix: tcp\n        cluster: t\n        {log}"
        )
    };
    Group {
        name: "grpc_access_log",
        bootstrap: bootstrap(
            &[
                http("LISTEN", &log("HttpGrpcAccessLogConfig", "http", "", ""), ""),
                http("LISTEN_TAGS", &log("HttpGrpcAccessLogConfig", "tags", tags, headers), ""),
                http(
                    "LISTEN_STATE",
                    &log(
                        "HttpGrpcAccessLogConfig",
                        "state",
                        ", filter_state_objects_to_log: [mine, none]",
                        "",
                    ),
                    state,
                ),
                http(
                    "LISTEN_EACH",
                    &log("HttpGrpcAccessLogConfig", "each", ", buffer_size_bytes: 0", ""),
                    "",
                ),
                http("LISTEN_AS_TCP", &log("TcpGrpcAccessLogConfig", "as-tcp", "", ""), ""),
                tcp("LISTEN_TCP", &log("TcpGrpcAccessLogConfig", "tcp", "", "")),
            ],
            &[
                cluster("a", &["a"], ""),
                cluster("t", &["t"], ""),
                cluster("closed", &["closed"], ""),
                "- {name: empty, type: STATIC}\n".to_owned(),
                cluster(
                    "als",
                    &["als"],
                    "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}",
                ),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("t", UpstreamKind::Tcp),
            ("closed", UpstreamKind::Closed),
            ("als", UpstreamKind::AccessLog),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let late = Reply::status(200).body("late").after(Duration::from_millis(300));
    let grpc = Request::post("/a/grpc", "").http2().header("content-type", "application/grpc");
    let grpc_answer = Reply::status(200)
        .header("content-type", "application/grpc")
        .chunks(&["\0\0\0\0\0"])
        .trailer("grpc-status", "5");
    let fields = Request::get("/a?q=1")
        .header("user-agent", "test/1")
        .header("referer", "http://from/")
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-request-id", "0000001e-8346-491f-9760-6e4165cec4e6");
    let tagged = Request::get("/a")
        .header("x-a", "1")
        .header("x-a", "2")
        .header("x-b", "3")
        .header("x-h", "4");
    let tagged_answer = Reply::status(200).header("x-c", "5").chunks(&["body"]).trailer("x-t", "6");
    vec![
        case("a_request", "LISTEN", Request::get("/a"), vec![]),
        case("the_fields_of_a_request", "LISTEN", fields, vec![]),
        case(
            "bodies",
            "LISTEN",
            Request::post("/a", "12345"),
            vec![Reply::status(201).body("123")],
        ),
        case("another_method", "LISTEN", Request::new("PATCH", "/a"), vec![]),
        case("over_http2", "LISTEN", Request::get("/a").http2(), vec![]),
        case("rewritten", "LISTEN", Request::get("/rewritten/x"), vec![]),
        case("no_route", "LISTEN", Request::get("/nowhere"), vec![]),
        case("no_cluster", "LISTEN", Request::get("/missing"), vec![]),
        case("no_endpoint", "LISTEN", Request::get("/empty"), vec![]),
        case("connection_refused", "LISTEN", Request::get("/closed"), vec![]),
        case("reset", "LISTEN", Request::get("/a"), vec![Reply::reset()]),
        case("timeout", "LISTEN", Request::get("/timeout"), vec![late]),
        case("retried", "LISTEN", Request::get("/retry"), vec![Reply::status(500)]),
        case(
            "retries_used_up",
            "LISTEN",
            Request::get("/retry"),
            vec![Reply::status(500), Reply::status(500)],
        ),
        case("direct_response", "LISTEN", Request::get("/direct"), vec![]),
        case("redirect", "LISTEN", Request::get("/redirect"), vec![]),
        case(
            "broken_body",
            "LISTEN",
            Request::get("/a"),
            vec![Reply::status(200).chunks(&["one"]).broken()],
        ),
        case("grpc", "LISTEN", grpc, vec![grpc_answer]),
        case("tags_and_headers", "LISTEN_TAGS", tagged, vec![tagged_answer]),
        case("tags_and_headers_that_are_not_there", "LISTEN_TAGS", Request::get("/direct"), vec![]),
        case("metadata_and_filter_state", "LISTEN_STATE", Request::get("/a"), vec![]),
        case("each_by_itself", "LISTEN_EACH", Request::get("/a"), vec![]),
        case(
            "a_request_in_a_log_of_connections",
            "LISTEN_AS_TCP",
            Request::post("/a", "1234"),
            vec![],
        ),
        Case::custom("a_connection", |world| Box::pin(connection(world))),
    ]
}

fn case(name: &'static str, listener: &'static str, request: Request, replies: Vec<Reply>) -> Case {
    let sent = Arc::new((request, replies));
    Case::custom(name, move |world| {
        let sent = Arc::clone(&sent);
        Box::pin(async move {
            let (request, replies) = &*sent;
            world.upstream("a")?.script(replies.iter().cloned());
            request.send(world.address(listener)?).await;
            world.upstream("a")?.take();
            entry(world).await
        })
    })
}

async fn connection(world: &World) -> Result<Observation> {
    let mut stream = tokio::net::TcpStream::connect(world.address("LISTEN_TCP")?).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await?;
    drop(stream);
    entry(world).await
}

/// Waits for an entry.
async fn entry(world: &World) -> Result<Observation> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let server = world.log_server("als")?;
    loop {
        let mut entries = server.take();
        ensure!(entries.len() < 2, "more than one entry: {entries:?}");
        if let Some(entry) = entries.pop() {
            return Ok(described(world, &entry));
        }
        ensure!(Instant::now() < deadline, "no entry came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn described(world: &World, entry: &Entry) -> Observation {
    let mut seen = Observation::default();
    seen.fact("entry", "log", &entry.log);
    let common = match &entry.entry {
        Kind::Http(http) => {
            seen.fact("entry", "protocol", http.protocol_version);
            let request = http.request.clone().unwrap_or_default();
            let mut fact =
                |name: &str, value: String| seen.fact("request", name, world.normal(&value));
            fact("method", request.request_method.to_string());
            fact("scheme", request.scheme);
            fact("authority", request.authority);
            fact("port", format!("{:?}", request.port));
            fact("path", request.path);
            fact("user_agent", request.user_agent);
            fact("referer", request.referer);
            fact("forwarded_for", request.forwarded_for);
            fact("request_id", request.request_id);
            fact("original_path", request.original_path);
            fact("body_bytes", request.request_body_bytes.to_string());
            fact("headers_bytes", request.request_headers_bytes.to_string());
            fact("headers", sorted(request.request_headers));
            let response = http.response.clone().unwrap_or_default();
            let mut fact =
                |name: &str, value: String| seen.fact("response", name, world.normal(&value));
            fact("code", format!("{:?}", response.response_code));
            fact("details", response.response_code_details);
            fact("body_bytes", response.response_body_bytes.to_string());
            fact("headers", sorted(response.response_headers));
            fact("trailers", sorted(response.response_trailers));
            &http.common_properties
        }
        Kind::Tcp(tcp) => {
            let bytes = tcp.connection_properties.unwrap_or_default();
            seen.fact("connection", "received", bytes.received_bytes);
            seen.fact("connection", "sent", bytes.sent_bytes);
            &tcp.common_properties
        }
    };
    properties(&mut seen, world, common.as_ref().unwrap_or(&AccessLogCommon::default()));
    seen
}

fn properties(seen: &mut Observation, world: &World, common: &AccessLogCommon) {
    let mut fact = |name: &str, value: String| seen.fact("common", name, world.normal(&value));
    fact("sample_rate", common.sample_rate.to_string());
    // The client has another port each time.
    fact("downstream_remote", address(common.downstream_remote_address.as_ref(), false));
    fact("downstream_direct", address(common.downstream_direct_remote_address.as_ref(), false));
    fact("downstream_local", address(common.downstream_local_address.as_ref(), true));
    fact("upstream_remote", address(common.upstream_remote_address.as_ref(), true));
    fact("upstream_local", address(common.upstream_local_address.as_ref(), false));
    fact("upstream_cluster", common.upstream_cluster.clone());
    fact("flags", format!("{:?}", common.response_flags));
    fact("failure", common.upstream_transport_failure_reason.clone());
    fact("route", common.route_name.clone());
    fact("attempts", common.upstream_request_attempt_count.to_string());
    fact("termination", common.connection_termination_details.clone());
    fact("stream_id", common.stream_id.clone());
    fact("type", common.access_log_type.to_string());
    fact("tags", sorted(common.custom_tags.clone()));
    let state = common.filter_state_objects.iter();
    let state = state.map(|(key, any)| (key.clone(), format!("{} {:?}", any.type_url, any.value)));
    fact("filter_state", sorted(state.collect()));
    let metadata = common.metadata.clone().unwrap_or_default().filter_metadata;
    let metadata = metadata.iter().map(|(key, object)| {
        let fields = object.fields.iter().map(|(key, value)| (key.clone(), format!("{value:?}")));
        (key.clone(), sorted(fields.collect()))
    });
    fact("metadata", sorted(metadata.collect()));
    fact("tls", format!("{:?}", common.tls_properties.is_some()));
    fact("start", common.start_time.is_some().to_string());
    for (name, moment) in [
        ("last_rx", &common.time_to_last_rx_byte),
        ("first_upstream_tx", &common.time_to_first_upstream_tx_byte),
        ("last_upstream_tx", &common.time_to_last_upstream_tx_byte),
        ("first_upstream_rx", &common.time_to_first_upstream_rx_byte),
        ("last_upstream_rx", &common.time_to_last_upstream_rx_byte),
        ("first_downstream_tx", &common.time_to_first_downstream_tx_byte),
        ("last_downstream_tx", &common.time_to_last_downstream_tx_byte),
        ("duration", &common.duration),
    ] {
        fact(name, moment_of(moment.as_ref()));
    }
}

fn moment_of(moment: Option<&DurationProto>) -> String {
    match moment {
        None => "none".to_owned(),
        Some(moment) if moment.seconds == 0 => "soon".to_owned(),
        Some(moment) => format!("{moment:?}"),
    }
}

fn address(address: Option<&core::Address>, with_port: bool) -> String {
    let Some(core::address::Address::SocketAddress(socket)) =
        address.and_then(|address| address.address.as_ref())
    else {
        return "none".to_owned();
    };
    match &socket.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(port)) if with_port => {
            format!("{}:{port}", socket.address)
        }
        _ => socket.address.clone(),
    }
}

fn sorted(map: HashMap<String, String>) -> String {
    let mut pairs: Vec<String> =
        map.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(", ")
}
