//! TLS to the upstream: what is sent, whom it believes.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};

use crate::parts::{bootstrap, cluster, http_listener, indent, routes};

/// Cluster, upstream, the context's common part and what stands beside it.
const CLUSTERS: &[(&str, &str, &str, &str)] = &[
    (
        "verified",
        "s",
        "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: server.example}}]}",
        "sni: server.example",
    ),
    (
        "mismatch",
        "s",
        "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: other.example}}]}",
        "sni: server.example",
    ),
    (
        "second-san",
        "s",
        "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: x}}, {san_type: DNS, matcher: {exact: server.example}}]}",
        "",
    ),
    (
        "suffix",
        "s",
        "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {suffix: .example}}]}",
        "",
    ),
    (
        "any-name",
        "s",
        "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}",
        "sni: unrelated.example",
    ),
    ("untrusted", "s", "validation_context: {trusted_ca: {filename: ${DIR}/foreign-ca.crt}}", ""),
    ("unverified", "s", "{}", ""),
    (
        "mutual",
        "m",
        "tls_certificates: [{certificate_chain: {filename: ${DIR}/client.crt}, private_key: {filename: ${DIR}/client.key}}]\nvalidation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}",
        "sni: server.example",
    ),
    ("no-certificate", "m", "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}", ""),
    (
        "foreign-certificate",
        "m",
        "tls_certificates: [{certificate_chain: {filename: ${DIR}/foreign.crt}, private_key: {filename: ${DIR}/foreign.key}}]\nvalidation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}",
        "",
    ),
    (
        "spiffe",
        "w",
        "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}, match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: 'spiffe://test/server'}}]}",
        "",
    ),
    (
        "spiffe-prefix",
        "w",
        "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}, match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: 'spiffe://test/'}}]}",
        "",
    ),
    (
        "spiffe-mismatch",
        "w",
        "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}, match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: 'spiffe://test/other'}}]}",
        "",
    ),
    (
        "inline",
        "m",
        "tls_certificates: [{certificate_chain: {inline_string: ${PEM_client}}, private_key: {inline_string: ${KEY_client}}}]\nvalidation_context: {trusted_ca: {inline_string: ${PEM_ca}}}",
        "",
    ),
    (
        "secret",
        "m",
        "tls_certificate_sds_secret_configs: [{name: identity}]\ncombined_validation_context: {default_validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: server.example}}]}, validation_context_sds_secret_config: {name: trust}}",
        "sni: server.example",
    ),
    (
        "secret-mismatch",
        "m",
        "tls_certificate_sds_secret_configs: [{name: identity}]\ncombined_validation_context: {default_validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: other.example}}]}, validation_context_sds_secret_config: {name: trust}}",
        "",
    ),
    (
        "alpn",
        "s",
        "alpn_protocols: [http/1.1]\nvalidation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}",
        "",
    ),
];

const SECRETS: &str = "  secrets:
  - name: identity
    tls_certificate: {certificate_chain: {filename: ${DIR}/client.crt}, private_key: {filename: ${DIR}/client.key}}
  - name: trust
    validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}
";

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
";

pub(crate) fn group() -> Group {
    let mut list: Vec<String> = CLUSTERS
        .iter()
        .map(|(name, upstream, common, beside)| cluster(name, &[upstream], &socket(common, beside)))
        .collect();
    let http2 = socket(
        "alpn_protocols: [h2]\nvalidation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}",
        "",
    );
    list.push(cluster("http2", &["s"], &format!("{http2}{HTTP2}")));
    list.push(cluster("plain", &["s"], ""));
    list.push(cluster("tls-to-plain", &["p"], &socket("{}", "")));
    let names = CLUSTERS.iter().map(|(name, ..)| *name);
    let table: String = names
        .chain(["http2", "plain", "tls-to-plain"])
        .map(|name| format!("- {{match: {{path: /{name}}}, route: {{cluster: {name}}}}}\n"))
        .collect();
    Group {
        name: "tls_upstream",
        bootstrap: bootstrap(&[http_listener("LISTEN", &routes(&table))], &list) + SECRETS,
        upstreams: vec![
            ("s", UpstreamKind::Tls("server")),
            ("m", UpstreamKind::MutualTls("server")),
            ("w", UpstreamKind::Tls("spiffe")),
            ("p", UpstreamKind::Plain),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn socket(common: &str, beside: &str) -> String {
    let common = if common == "{}" {
        "      common_tls_context: {}\n".to_owned()
    } else {
        format!("      common_tls_context:\n{}", indent(common, 8))
    };
    format!(
        "transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
{common}{}",
        indent(beside, 6)
    )
}

fn cases() -> Vec<Case> {
    vec![
        Case::new("a_verified_server_with_its_name_sent").get("/verified", "200 s"),
        Case::new("a_server_with_the_wrong_dns_name").get("/mismatch", "503 -"),
        Case::new("one_of_several_names_is_enough").get("/second-san", "200 s"),
        Case::new("a_name_by_suffix").get("/suffix", "200 s"),
        Case::new("a_trusted_server_of_any_name").get("/any-name", "200 s"),
        Case::new("an_untrusted_server").get("/untrusted", "503 -"),
        Case::new("without_validation_any_server_will_do").get("/unverified", "200 s"),
        Case::new("a_client_certificate_is_shown").get("/mutual", "200 m"),
        Case::new("a_client_certificate_that_is_missing").get("/no-certificate", "503 -"),
        Case::new("a_client_certificate_of_a_foreign_authority")
            .get("/foreign-certificate", "503 -"),
        Case::new("a_spiffe_id").get("/spiffe", "200 w"),
        Case::new("a_spiffe_id_by_prefix").get("/spiffe-prefix", "200 w"),
        Case::new("the_wrong_spiffe_id").get("/spiffe-mismatch", "503 -"),
        Case::new("certificates_inline").get("/inline", "200 m"),
        Case::new("certificates_from_static_secrets").get("/secret", "200 m"),
        Case::new("names_are_checked_with_a_secret_too").get("/secret-mismatch", "503 -"),
        Case::new("alpn_is_offered").get("/alpn", "200 s"),
        Case::new("http2_by_alpn")
            .get("/http2", "200 s")
            .send(Request::post("/http2", "the body").http2(), "200 s"),
        Case::new("plaintext_to_a_tls_server").get("/plain", "502 -"),
        Case::new("tls_to_a_plaintext_server").get("/tls-to-plain", "503 -"),
    ]
}
