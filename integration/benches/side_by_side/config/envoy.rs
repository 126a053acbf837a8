//! Envoy's bootstraps, which our sidecar gets word for word.
//!
//! On is what a sidecar has on by default: statistics, request ids, least request, circuit breakers, outlier detection,
//! a timeout, retries.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::Case;

pub(super) fn configs(case: Case) -> Vec<String> {
    let http1 =
        |listen, from, upstream, to| proxy(listen, from, &http("", &one_route(), ""), upstream, to);
    match case {
        Case::Http1 => vec![http1("ENTRY", "", "UPSTREAM", "")],
        Case::Http2 => vec![http1("ENTRY", "", "UPSTREAM_HTTP2", HTTP2)],
        Case::Grpc => vec![http1("ENTRY", "", "UPSTREAM_GRPC", HTTP2)],
        Case::MutualTls => vec![http1("ENTRY", FROM_TLS, "UPSTREAM", "")],
        Case::Pair => vec![
            http1("ENTRY", "", "MIDDLE", &format!("{HTTP2}{TO_TLS}")),
            http1("MIDDLE", FROM_TLS, "UPSTREAM", ""),
        ],
        Case::Everything => {
            let manager = http(JSON_LOG, &many_routes(), &filters());
            vec![proxy("ENTRY", "", &manager, "UPSTREAM", "")]
        }
        Case::Tcp => vec![proxy("ENTRY", "", TCP, "UPSTREAM", "")],
        Case::TlsPassthrough => {
            let chain = "
      filter_chain_match: {server_names: [localhost]}
";
            let mut text = proxy("ENTRY", chain, TCP, "UPSTREAM_TLS", "");
            text = text.replace("    filter_chains:", &format!("{INSPECTOR}    filter_chains:"));
            vec![text]
        }
    }
}

/// HTTP/1 from `${ENTRY}` to `${UPSTREAM}`.
pub(crate) fn plain() -> String {
    proxy("ENTRY", "", &http("", &one_route(), ""), "UPSTREAM", "")
}

/// A bootstrap that gets everything by incremental ADS.
pub(crate) fn control_plane_client(server: SocketAddr, admin: SocketAddr) -> String {
    let (host, port) = (server.ip(), server.port());
    let (admin_host, admin_port) = (admin.ip(), admin.port());
    format!(
        "admin: {{address: {{socket_address: {{address: {admin_host}, port_value: {admin_port}}}}}}}
node: {{id: bench, cluster: bench}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
{HTTP2}
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}]}}]
"
    )
}

/// One proxy: from `${listen}` by `filter` to `${upstream}`.
fn proxy(listen: &str, from: &str, filter: &str, upstream: &str, to: &str) -> String {
    format!(
        "node: {{id: bench, cluster: bench}}
static_resources:
  listeners:
  - name: in
    address: ${{{listen}}}
    filter_chains:
    - filters:
{filter}
{from}
  clusters:
  - name: out
    type: STATIC
    connect_timeout: 5s
    lb_policy: LEAST_REQUEST
    circuit_breakers: {{thresholds: [{{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096, max_retries: 3}}]}}
    outlier_detection: {{consecutive_5xx: 5, interval: 10s, base_ejection_time: 30s}}
    load_assignment:
      cluster_name: out
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: ${{{upstream}}}}}}}]}}]
{to}
"
    )
}

fn http(log: &str, routes: &str, filters: &str) -> String {
    format!(
        "      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
{log}
          route_config:
            name: all
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
{routes}
          http_filters:
{filters}
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
    )
}

fn one_route() -> String {
    route("{prefix: /}")
}

fn route(matches: &str) -> String {
    format!(
        "              - match: {matches}
                route:
                  cluster: out
                  timeout: 15s
                  retry_policy: {{retry_on: 'connect-failure,refused-stream,unavailable', num_retries: 2}}
"
    )
}

/// 199 that do not match, and one that does: the last.
fn many_routes() -> String {
    let mut routes = String::new();
    for index in 0..199 {
        let _ = write!(routes, "{}", route(&format!("{{prefix: /service-{index}/}}")));
    }
    routes + &one_route()
}

fn filters() -> String {
    let mut policies = String::new();
    for index in 0..19 {
        let _ = write!(
            policies,
            "
                  policy-{index}:
                    permissions: [{{and_rules: {{rules: [{{header: {{name: ':method', string_match: {{exact: PUT}}}}}}, {{url_path: {{path: {{prefix: /admin-{index}}}}}}}]}}}}]
                    principals: [{{header: {{name: x-team, string_match: {{exact: team-{index}}}}}}}]"
        );
    }
    format!(
        "          - name: envoy.filters.http.rbac
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:{policies}
                  policy-19:
                    permissions: [{{header: {{name: ':method', string_match: {{exact: GET}}}}}}]
                    principals: [{{any: true}}]
          - name: envoy.filters.http.local_ratelimit
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: limit
              token_bucket: {{max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s}}
              filter_enabled: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
              filter_enforced: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}"
    )
}

const JSON_LOG: &str = "          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: ${DIR}/access.log
              log_format:
                json_format:
                  time: '%START_TIME%'
                  method: '%REQ(:METHOD)%'
                  path: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%'
                  protocol: '%PROTOCOL%'
                  status: '%RESPONSE_CODE%'
                  flags: '%RESPONSE_FLAGS%'
                  received: '%BYTES_RECEIVED%'
                  sent: '%BYTES_SENT%'
                  duration: '%DURATION%'
                  service_time: '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%'
                  agent: '%REQ(USER-AGENT)%'
                  id: '%REQ(X-REQUEST-ID)%'
                  authority: '%REQ(:AUTHORITY)%'
                  upstream: '%UPSTREAM_HOST%'";

const TCP: &str = "      - name: envoy.filters.network.tcp_proxy
        typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: out}";

const INSPECTOR: &str = "    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
";

const FROM_TLS: &str = "
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: ${DIR}/leaf.crt}, private_key: {filename: ${DIR}/leaf.key}}]
            validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}
";

const HTTP2: &str = "
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
";

const TO_TLS: &str = "
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: proxy
        common_tls_context:
          alpn_protocols: [h2]
          tls_certificates: [{certificate_chain: {filename: ${DIR}/leaf.crt}, private_key: {filename: ${DIR}/leaf.key}}]
          validation_context:
            trusted_ca: {filename: ${DIR}/ca.crt}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: 'spiffe://bench/proxy'}}]
";
