//! nginx: one process, kept-alive connections upstream, a request id made, failures counted.

use super::Case;

pub(super) fn configs(case: Case) -> Option<Vec<String>> {
    Some(match case {
        Case::Http1 => vec![http("ENTRY", "", "http", "UPSTREAM", "")],
        // Its only HTTP/2 to an upstream is that of gRPC.
        Case::Http2 => vec![grpc("UPSTREAM_HTTP2")],
        Case::Grpc => vec![grpc("UPSTREAM_GRPC")],
        Case::MutualTls => {
            let mut text = http("ENTRY", " ssl http2", "http", "UPSTREAM", FROM_TLS);
            text.push('\n');
            vec![text]
        }
        // No HTTP/2 to an upstream: HTTP/1 over mutual TLS between the two.
        Case::Pair => vec![
            http("ENTRY", "", "https", "MIDDLE", TO_TLS),
            http("MIDDLE", " ssl", "http", "UPSTREAM", FROM_TLS),
        ],
        Case::Everything => return None,
        Case::Tcp => vec![stream("UPSTREAM", "")],
        Case::TlsPassthrough => vec![stream("UPSTREAM_TLS", "ssl_preread on;")],
    })
}

const FROM_TLS: &str = "ssl_certificate ${DIR}/leaf.crt; ssl_certificate_key ${DIR}/leaf.key;
    ssl_client_certificate ${DIR}/ca.crt; ssl_verify_client on;
    ssl_session_cache off; ssl_session_tickets off;";

const TO_TLS: &str =
    "proxy_ssl_certificate ${DIR}/leaf.crt; proxy_ssl_certificate_key ${DIR}/leaf.key;
      proxy_ssl_trusted_certificate ${DIR}/ca.crt; proxy_ssl_verify on; proxy_ssl_name proxy;";

/// What every configuration begins with.
const HEAD: &str =
    "daemon off; master_process off; error_log stderr crit; pid ${DIR}/nginx-ENTRY.pid;
events { worker_connections 16384; }
";

fn head(listen: &str) -> String {
    HEAD.replace("ENTRY", listen)
}

fn http(listen: &str, options: &str, scheme: &str, upstream: &str, tls: &str) -> String {
    let (server_tls, proxy_tls) = if options.is_empty() { ("", tls) } else { (tls, "") };
    format!(
        "{}http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path ${{DIR}}/{listen}-1; proxy_temp_path ${{DIR}}/{listen}-2; fastcgi_temp_path ${{DIR}}/{listen}-3;
  uwsgi_temp_path ${{DIR}}/{listen}-4; scgi_temp_path ${{DIR}}/{listen}-5;
  upstream out {{
    least_conn; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h;
    server ${{{upstream}.host}}:${{{upstream}.port}} max_fails=5 fail_timeout=30s;
  }}
  server {{
    listen ${{{listen}.host}}:${{{listen}.port}}{options} backlog=4096;
    {server_tls}
    location / {{
      proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $http_host;
      proxy_set_header X-Request-Id $request_id;
      proxy_buffers 8 64k; proxy_buffer_size 64k;
      proxy_next_upstream error; proxy_next_upstream_tries 3; proxy_read_timeout 15s;
      {proxy_tls}
      proxy_pass {scheme}://out;
    }}
  }}
}}
",
        head(listen)
    )
}

fn grpc(upstream: &str) -> String {
    format!(
        "{}http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path ${{DIR}}/1; proxy_temp_path ${{DIR}}/2; fastcgi_temp_path ${{DIR}}/3;
  uwsgi_temp_path ${{DIR}}/4; scgi_temp_path ${{DIR}}/5;
  upstream out {{
    least_conn; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h;
    server ${{{upstream}.host}}:${{{upstream}.port}} max_fails=5 fail_timeout=30s;
  }}
  server {{
    listen ${{ENTRY.host}}:${{ENTRY.port}} http2 backlog=4096;
    location / {{ grpc_set_header X-Request-Id $request_id; grpc_read_timeout 15s; grpc_pass grpc://out; }}
  }}
}}
",
        head("ENTRY")
    )
}

fn stream(upstream: &str, options: &str) -> String {
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
{}stream {{
  upstream out {{ least_conn; server ${{{upstream}.host}}:${{{upstream}.port}} max_fails=5 fail_timeout=30s; }}
  server {{ listen ${{ENTRY.host}}:${{ENTRY.port}} backlog=4096; {options} proxy_buffer_size 16k; proxy_pass out; }}
}}
",
        head("ENTRY")
    )
}
