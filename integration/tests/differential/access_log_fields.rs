//! The access log: what it says of certificates, connections and paths, and what its filters leave out.

use anyhow::{Context, Result};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;
use regex::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::access_log::line;
use crate::parts::{bootstrap, cluster, http_chain, http_listener, indent, routes};

const ROUTES: &str = r#"
- {match: {prefix: /old}, metadata: {filter_metadata: {ours: {kind: old, n: 1}}}, route: {cluster: t, prefix_rewrite: /new}}
- {match: {prefix: /direct}, direct_response: {status: 404}}
- {match: {prefix: /closed}, route: {cluster: closed}}
- {match: {prefix: /}, route: {cluster: t}}
"#;

/// Commands of one line, each under its name.
const FIELDS: &[&str] = &[
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CERT_V_END(%Y)",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "PATH",
    "PATH(NQ)",
    "PATH(WQ:PATH)",
    "PATH(WQ:ORIG)",
    "PATH(NQ:ORIG_OR_PATH):3",
    "QUERY_PARAM(a)",
    "QUERY_PARAM(b):2",
    "RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)",
    "GRPC_STATUS(SNAKE_STRING)",
    "ACCESS_LOG_TYPE",
    "UNIQUE_ID",
    "BYTES_RETRANSMITTED",
    "PACKETS_RETRANSMITTED",
    "CUSTOM_FLAGS",
    "DYNAMIC_METADATA(a:b)",
    "FILTER_STATE(a)",
    "TRACE_ID",
    "UPSTREAM_TLS_GROUP",
    "QUERY_PARAMS",
    "QUERY_PARAMS(DECODED)",
    "QUERY_PARAM(enc)",
    "REQUEST_HEADERS_BYTES",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAMES_ATTEMPTED",
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "METADATA(ROUTE:ours:kind)",
    "METADATA(ROUTE:ours):7",
    "METADATA(CLUSTER:ours:kind)",
    "METADATA(UPSTREAM_HOST:ours:kind)",
    "METADATA(DYNAMIC:ours)",
    r#"COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"x-none\"}, {\"command\": \"QUERY_PARAM\", \"param\": \"enc\", \"max_length\": 3}, \"RESPONSE_CODE\"]}):2"#,
];

/// Filters, each on a listener of its own.
const FILTERS: &[(&str, &str)] = &[
    (
        "LISTEN_STATUS",
        "{status_code_filter: {comparison: {op: GE, value: {default_value: 404, runtime_key: k}}}}",
    ),
    (
        "LISTEN_DURATION",
        "{duration_filter: {comparison: {op: GE, value: {default_value: 60000, runtime_key: k}}}}",
    ),
    ("LISTEN_HEALTH", "{not_health_check_filter: {}}"),
    ("LISTEN_TRACEABLE", "{traceable_filter: {}}"),
    ("LISTEN_HEADER", "{header_filter: {header: {name: x-log, string_match: {exact: two}}}}"),
    ("LISTEN_METHOD", "{header_filter: {header: {name: ':method', string_match: {exact: POST}}}}"),
    ("LISTEN_FLAGS", "{response_flag_filter: {}}"),
    ("LISTEN_FLAG", "{response_flag_filter: {flags: [NR, UF]}}"),
    ("LISTEN_GRPC", "{grpc_status_filter: {statuses: [UNAVAILABLE, NOT_FOUND]}}"),
    ("LISTEN_NOT_GRPC", "{grpc_status_filter: {statuses: [UNKNOWN], exclude: true}}"),
    ("LISTEN_TYPE", "{log_type_filter: {types: [DownstreamEnd]}}"),
    ("LISTEN_NOT_TYPE", "{log_type_filter: {types: [DownstreamEnd], exclude: true}}"),
    ("LISTEN_RUNTIME", "{runtime_filter: {runtime_key: k, percent_sampled: {numerator: 50}}}"),
    ("LISTEN_NEVER", "{runtime_filter: {runtime_key: k}}"),
    (
        "LISTEN_AND",
        "{and_filter: {filters: [{status_code_filter: {comparison: {op: NE, value: {default_value: 200, runtime_key: k}}}}, {response_flag_filter: {}}]}}",
    ),
    (
        "LISTEN_OR",
        "{or_filter: {filters: [{header_filter: {header: {name: x-log, present_match: true}}}, {response_flag_filter: {flags: [UF]}}]}}",
    ),
];

fn log(place: &str, filter: &str, format: &str) -> String {
    format!(
        "access_log: [{{name: envoy.access_loggers.file, {filter}typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/{place}.log', \
         log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}]\n"
    )
}

fn fields() -> String {
    FIELDS.iter().map(|name| format!("%{name}%")).collect::<Vec<_>>().join(";")
}

pub(crate) fn group() -> Group {
    let tls = "  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      require_client_certificate: true
      common_tls_context:
        alpn_protocols: [h2, http/1.1]
        tls_certificates: [{certificate_chain: {filename: '${DIR}/server.crt'}, private_key: {filename: '${DIR}/server.key'}}]
        validation_context: {trusted_ca: {filename: '${DIR}/ca.crt'}}
";
    let manager = format!("{}{}\n", log("LISTEN", "", &fields()), routes(ROUTES));
    let secured = format!(
        "- name: LISTEN\n  address: ${{LISTEN}}\n  filter_chains:\n{}",
        indent(&(http_chain(&manager) + tls), 2)
    );
    let plain_manager = format!("{}{}\n", log("LISTEN_PLAIN", "", &fields()), routes(ROUTES));
    let tcp = format!(
        "- name: LISTEN_TCP\n  address: ${{LISTEN_TCP}}\n  filter_chains: [{{filters: [{{name: t, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: echo, \
         {}}}}}]}}]\n",
        log("LISTEN_TCP", "", "%BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% \
             %UPSTREAM_PROTOCOL% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %PROTOCOL% %RESPONSE_CODE% %ACCESS_LOG_TYPE% \
             %REQ(a)% %PATH% %UPSTREAM_TLS_VERSION% %UPSTREAM_REQUEST_ATTEMPT_COUNT%").trim_end()
    );
    let mut listeners = vec![secured, http_listener("LISTEN_PLAIN", &plain_manager), tcp];
    for (place, filter) in FILTERS {
        let log = log(place, &format!("filter: {filter}, "), "%REQ(x-number)%");
        listeners.push(http_listener(place, &format!("{log}{}\n", routes(ROUTES))));
    }
    let upstream_tls = "metadata: {filter_metadata: {ours: {kind: cl}}}
alt_stat_name: other-name
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    common_tls_context: {tls_params: {tls_maximum_protocol_version: TLSv1_3}, validation_context: {trusted_ca: {filename: '${DIR}/ca.crt'}}}
";
    Group {
        name: "access_log_fields",
        bootstrap: bootstrap(
            &listeners,
            &[
                cluster("t", &["t"], upstream_tls),
                cluster("closed", &["closed"], ""),
                cluster("echo", &["echo"], ""),
            ],
        ),
        upstreams: vec![
            ("t", UpstreamKind::Tls("spiffe")),
            ("closed", UpstreamKind::Closed),
            ("echo", UpstreamKind::Tcp),
        ],
        unsupported: None,
        cases: vec![
            Case::custom("fields_of_mutual_tls", |world| Box::pin(said(world, "LISTEN"))),
            Case::custom("fields_of_plaintext", |world| Box::pin(said(world, "LISTEN_PLAIN"))),
            Case::custom("fields_of_a_connection", |world| Box::pin(of_tcp(world))),
            Case::custom("filters", |world| Box::pin(filtered(world))),
        ],
    }
}

fn requests() -> Vec<Request> {
    vec![
        Request::get("/old/x?a=1&b=234"),
        Request::get("/plain"),
        Request::get("/direct?b"),
        Request::get("/closed"),
        Request::get("/plain?enc=%41%20b%zz&x=%C3%A9%4&b=%"),
        Request::post("/grpc", "").header("content-type", "application/grpc"),
    ]
}

async fn said(world: &World, listener: &str) -> Result<Observation> {
    let mut seen = Observation::default();
    for (count, request) in requests().into_iter().enumerate() {
        let step = format!("request {count}");
        if count == 5 {
            let answer = Reply::status(200)
                .header("content-type", "application/grpc")
                .header("grpc-status", "5")
                .body("");
            world.upstream("t")?.script(vec![answer]);
        }
        let request = match listener {
            "LISTEN" => {
                request.tls(&world.client_tls(Some("client"), &["http/1.1"])?, "server.example")
            }
            _ => request,
        };
        request.send(world.address(listener)?).await;
        world.upstream("t")?.take();
        let line = line(world, listener, count).await.with_context(|| step.clone())?;
        for (name, value) in FIELDS.iter().zip(line.split(';')) {
            seen.fact(&step, name, normal(world, name, value)?);
        }
    }
    Ok(seen)
}

/// Takes out what no two runs have in common.
fn normal(world: &World, name: &str, value: &str) -> Result<String> {
    let value = match name {
        _ if value == "-" => value.to_owned(),
        "UNIQUE_ID" => Regex::new("[0-9a-f]")?.replace_all(value, "x").into_owned(),
        _ if name.ends_with("_PORT") && value.bytes().all(|byte| byte.is_ascii_digit()) => {
            "<port>".to_owned()
        }
        // Certificates are made anew for each proxy.
        // The server chooses, by the client's order of preference.
        "UPSTREAM_TLS_GROUP" => "<group>".to_owned(),
        "UPSTREAM_TLS_CIPHER" => {
            value.split("_GCM").next().unwrap_or_default().replace("256", "128")
        }
        "DOWNSTREAM_PEER_SERIAL" => "<serial>".to_owned(),
        "DOWNSTREAM_PEER_FINGERPRINT_256" => format!("{} digits", value.len()),
        "DOWNSTREAM_PEER_CERT_V_START" => Regex::new(r"\d")?.replace_all(value, "0").into_owned(),
        "DOWNSTREAM_PEER_CERT" | "UPSTREAM_PEER_CERT" => shape_of_pem(value),
        _ => addresses(world, value),
    };
    Ok(value)
}

/// First and last line of a certificate, and whether those between are of 64 characters but the last.
fn shape_of_pem(text: &str) -> String {
    let lines: Vec<String> = text
        .split("%0A")
        .map(|line| line.replace("%2B", "+").replace("%2F", "/").replace("%3D", "="))
        .collect();
    let full = lines.iter().filter(|line| line.len() == 64).count();
    let whole = full + 4 == lines.len() || full + 3 == lines.len();
    format!("{} {whole} {}", lines[0], lines[lines.len() - 2..].join("%0A"))
}

/// Addresses by their names.
fn addresses(world: &World, text: &str) -> String {
    let names = ["t", "closed", "echo", "LISTEN", "LISTEN_PLAIN", "LISTEN_TCP"];
    let known = names.iter().filter_map(|name| Some((*name, world.address(name).ok()?)));
    let words = text.split(' ').map(|word| {
        known
            .clone()
            .find_map(|(name, address)| match word {
                _ if word == address.to_string() => Some(format!("<{name}>")),
                _ if word == address.ip().to_string() => Some(format!("<{name}.host>")),
                _ => None,
            })
            .unwrap_or_else(|| word.to_owned())
    });
    words.collect::<Vec<_>>().join(" ")
}

async fn of_tcp(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let mut stream = TcpStream::connect(world.address("LISTEN_TCP")?).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    drop(stream);
    let line = line(world, "LISTEN_TCP", 0).await?;
    seen.fact("one connection", "line", addresses(world, &line));
    Ok(seen)
}

/// Sends the same requests to each listener; the last is one that every filter but some takes.
async fn filtered(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for (place, _) in FILTERS {
        for (number, request) in requests().into_iter().enumerate() {
            // The number that a sample goes by is 10 for every second request, 90 for the others.
            let digits = if number % 2 == 0 { "0000000a" } else { "0000005a" };
            let request = request
                .header("x-number", &number.to_string())
                .header("x-request-id", &format!("{digits}-03da-4021-b93d-0207c2cda02c"));
            let request = match number {
                1 => request.header("x-log", "one").header("x-log", "two"),
                2 => request.header("x-log", "one"),
                _ => request,
            };
            request.send(world.address(place)?).await;
            world.upstream("t")?.take();
        }
    }
    // Envoy writes what it has buffered every ten seconds, we every second.
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    for (place, _) in FILTERS {
        let text = std::fs::read_to_string(world.folder.path().join(format!("{place}.log")))?;
        seen.fact(place, "lines", text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    Ok(seen)
}
