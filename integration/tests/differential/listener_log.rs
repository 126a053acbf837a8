//! The log of a listener itself: a line for each connection at its end, whatever became of it.

use anyhow::Result;
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::access_log::line;
use crate::parts::{bootstrap, cluster, http_chain, indent, routes};
use crate::wire::{all, first_line, listener_filter, tcp_proxy};

const FORMAT: &str = "%RESPONSE_FLAGS% %FILTER_CHAIN_NAME% %REQUESTED_SERVER_NAME% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %UPSTREAM_CLUSTER% %ACCESS_LOG_TYPE% %DOWNSTREAM_TLS_VERSION% %RESPONSE_CODE%";

fn log(place: &str, more: &str) -> String {
    format!(
        "access_log:\n- name: envoy.access_loggers.file\n  typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/{place}.log', log_format: {{text_format_source: {{inline_string: \"{FORMAT}\\n\"}}}}}}\n{more}"
    )
}

fn listener(place: &str, filters: &str, chains: &str, more: &str) -> String {
    format!(
        "- name: {place}\n  address: ${{{place}}}\n  listener_filters: [{filters}]\n{}  filter_chains:\n{}",
        indent(&log(place, more), 2),
        indent(chains, 2)
    )
}

const TLS: &str = "  transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificates: [{certificate_chain: {filename: '${DIR}/server.crt'}, private_key: {filename: '${DIR}/server.key'}}]}}}\n";

pub(crate) fn group() -> Group {
    let proxy = listener_filter("proxy_protocol", "ProxyProtocol", "", "");
    let inspector = listener_filter("tls_inspector", "TlsInspector", "", "");
    let answer = "- {match: {prefix: /}, direct_response: {status: 200}}";
    let http = format!("{}  name: http\n", http_chain(&routes(answer)));
    let tcp = |target: &str| format!("- {{name: tcp, filters: [{}]}}\n", tcp_proxy(target));
    let only_port = format!("{http}  filter_chain_match: {{destination_port: 1}}\n");
    let only_failures = "  filter: {response_flag_filter: {flags: [NR]}}\n";
    Group {
        name: "listener_log",
        bootstrap: bootstrap(
            &[
                listener("LISTEN", "", &http, ""),
                listener("LISTEN_TCP", "", &tcp("cluster: echo"), ""),
                listener("LISTEN_CLOSED", "", &tcp("cluster: closed"), ""),
                listener("LISTEN_NONE", "", &only_port, ""),
                listener("LISTEN_PROXY", &proxy, &http, ""),
                listener("LISTEN_TLS", &inspector, &format!("{http}{TLS}"), ""),
                listener("LISTEN_FAILURES", "", &http, only_failures),
                listener("LISTEN_NO_ROUTE", "", &only_port, only_failures),
            ],
            &[cluster("echo", &["echo"], ""), cluster("closed", &["closed"], "")],
        ),
        upstreams: vec![("echo", UpstreamKind::Tcp), ("closed", UpstreamKind::Closed)],
        unsupported: None,
        cases: cases(),
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("a_connection_of_http", "LISTEN", GET.to_owned()),
        ("a_connection_of_bytes", "LISTEN_TCP", String::new()),
        ("a_connection_that_goes_nowhere", "LISTEN_CLOSED", String::new()),
        ("a_connection_that_no_chain_takes", "LISTEN_NONE", GET.to_owned()),
        (
            "a_connection_of_another_client",
            "LISTEN_PROXY",
            format!("PROXY TCP4 1.2.3.4 10.0.0.1 1 2\r\n{GET}"),
        ),
        ("a_connection_of_no_chain_alone", "LISTEN_NO_ROUTE", GET.to_owned()),
    ]
    .into_iter()
    .map(|(name, place, bytes)| {
        Case::custom(name, move |world| {
            let bytes = bytes.clone();
            Box::pin(async move {
                if place == "LISTEN_TCP" {
                    first_line(world.address(place)?, bytes.as_bytes()).await?;
                } else {
                    all(world.address(place)?, bytes.as_bytes()).await?;
                }
                logged(world, place, 0).await
            })
        })
    })
    .collect();
    cases.push(Case::custom("a_connection_that_a_filter_refuses", |world| {
        Box::pin(async move {
            all(world.address("LISTEN_PROXY")?, b"no header of that protocol").await?;
            logged(world, "LISTEN_PROXY", 1).await
        })
    }));
    cases.push(Case::custom("a_connection_of_tls", |world| {
        Box::pin(async move {
            let tls = world.client_tls(None, &["http/1.1"])?;
            let request = Request::get("/").header("connection", "close");
            request.tls(&tls, "server.example").send(world.address("LISTEN_TLS")?).await;
            logged(world, "LISTEN_TLS", 0).await
        })
    }));
    cases
}

async fn logged(world: &World, place: &str, number: usize) -> Result<Observation> {
    let mut seen = Observation::default();
    seen.fact("log", "line", world.normal(&line(world, place, number).await?));
    Ok(seen)
}
