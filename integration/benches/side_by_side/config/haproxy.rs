//! HAProxy: one thread, connections reused, a request id made, errors of the server observed as outlier detection does.

use super::Case;

pub(super) fn configs(case: Case) -> Option<Vec<String>> {
    let http = |listen: &str, upstream: &str| proxy("http", listen, upstream);
    Some(match case {
        Case::Http1 => {
            vec![http("${ENTRY.host}:${ENTRY.port}", "${UPSTREAM.host}:${UPSTREAM.port}")]
        }
        Case::Http2 => vec![http(
            "${ENTRY.host}:${ENTRY.port} proto h2",
            "${UPSTREAM_HTTP2.host}:${UPSTREAM_HTTP2.port} proto h2",
        )],
        Case::Grpc => vec![http(
            "${ENTRY.host}:${ENTRY.port} proto h2",
            "${UPSTREAM_GRPC.host}:${UPSTREAM_GRPC.port} proto h2",
        )],
        Case::MutualTls => {
            vec![http(&tls_bind("ENTRY"), "${UPSTREAM.host}:${UPSTREAM.port}")]
        }
        Case::Pair => vec![
            http(
                "${ENTRY.host}:${ENTRY.port}",
                "${MIDDLE.host}:${MIDDLE.port} ssl crt ${DIR}/leaf.pem ca-file ${DIR}/ca.crt verify required alpn h2",
            ),
            http(&tls_bind("MIDDLE"), "${UPSTREAM.host}:${UPSTREAM.port}"),
        ],
        // Its log goes to syslog, and it has no such policies: nothing that would be the same.
        Case::Everything => return None,
        Case::Tcp => {
            vec![proxy("tcp", "${ENTRY.host}:${ENTRY.port}", "${UPSTREAM.host}:${UPSTREAM.port}")]
        }
        Case::TlsPassthrough => {
            let text = proxy(
                "tcp",
                "${ENTRY.host}:${ENTRY.port}",
                "${UPSTREAM_TLS.host}:${UPSTREAM_TLS.port}",
            );
            vec![text.replace("  default_backend out\n", INSPECT)]
        }
    })
}

const INSPECT: &str = "  tcp-request inspect-delay 5s
  tcp-request content accept if { req_ssl_hello_type 1 }
  use_backend out if { req_ssl_sni -i localhost }
";

fn tls_bind(address: &str) -> String {
    format!(
        "${{{address}.host}}:${{{address}.port}} ssl crt ${{DIR}}/leaf.pem ca-file ${{DIR}}/ca.crt verify required alpn h2,http/1.1 no-tls-tickets"
    )
}

fn proxy(mode: &str, listen: &str, upstream: &str) -> String {
    let (front, back) = match mode {
        "http" => (
            "  unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid\n  unique-id-header X-Request-Id\n",
            "  http-reuse always\n  retry-on conn-failure\n",
        ),
        _ => ("", ""),
    };
    let observe = if mode == "http" { "layer7" } else { "layer4" };
    format!(
        "global
  nbthread 1
  maxconn 8000
  tune.ssl.cachesize 0
defaults
  mode {mode}
  timeout connect 5s
  timeout client 1h
  timeout server 15s
  retries 2
frontend in
  bind {listen}
{front}  default_backend out
backend out
  balance leastconn
{back}  server one {upstream} maxconn 4096 observe {observe} error-limit 5 on-error mark-down check inter 1h downinter 1s
"
    )
}
