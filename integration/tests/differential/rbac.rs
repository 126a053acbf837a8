//! The RBAC filter: who may do what.

use std::sync::Arc;

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use anyhow::{Result, ensure};

use crate::parts::{bootstrap, cluster, http_listener, indent, routes};

const ALLOW: &str = r#"
action: ALLOW
policies:
  by-path:
    permissions: [{url_path: {path: {exact: /exact}}}, {url_path: {path: {prefix: /prefix/}}}]
    principals: [{any: true}]
  by-header:
    permissions: [{header: {name: x-role, string_match: {exact: admin}}}]
    principals: [{any: true}]
  by-template:
    permissions: [{uri_template: {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/video/{id}/*'}}}]
    principals: [{any: true}]
  by-method:
    permissions:
    - and_rules:
        rules:
        - {header: {name: ":method", string_match: {exact: PUT}}}
        - {url_path: {path: {prefix: /put}}}
        - not_rule: {header: {name: x-no, present_match: true}}
    principals: [{any: true}]
  by-either:
    permissions: [{or_rules: {rules: [{url_path: {path: {exact: /or/1}}}, {url_path: {path: {exact: /or/2}}}]}}]
    principals: [{any: true}]
  by-port:
    permissions: [{and_rules: {rules: [{url_path: {path: {exact: /port}}}, {destination_port: ${LISTEN.port}}]}}]
    principals: [{any: true}]
  by-source:
    permissions: [{url_path: {path: {exact: /source}}}]
    principals: [{direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}]
  by-foreign-source:
    permissions: [{url_path: {path: {exact: /foreign}}}]
    principals: [{direct_remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]
  by-principal-header:
    permissions: [{url_path: {path: {exact: /principal}}}]
    principals:
    - and_ids:
        ids:
        - {header: {name: x-user, string_match: {prefix: ann}}}
        - not_id: {header: {name: x-user, string_match: {suffix: bad}}}
  by-identity-in-the-clear:
    permissions: [{url_path: {path: {exact: /authenticated}}}]
    principals: [{authenticated: {}}]
"#;

const DENY: &str = r#"
action: DENY
policies:
  secret:
    permissions: [{url_path: {path: {prefix: /secret}}}]
    principals: [{any: true}]
  guest:
    permissions: [{any: true}]
    principals: [{header: {name: x-user, string_match: {exact: guest}}}]
"#;

const IDENTITY: &str = r#"
action: ALLOW
policies:
  exact:
    permissions: [{url_path: {path: {exact: /exact}}}]
    principals: [{authenticated: {principal_name: {exact: "spiffe://test/client"}}}]
  prefix:
    permissions: [{url_path: {path: {exact: /prefix}}}]
    principals: [{authenticated: {principal_name: {prefix: "spiffe://test/"}}}]
  other:
    permissions: [{url_path: {path: {exact: /other}}}]
    principals: [{authenticated: {principal_name: {exact: "spiffe://test/other"}}}]
  anyone:
    permissions: [{url_path: {path: {exact: /anyone}}}]
    principals: [{authenticated: {}}]
"#;

pub(crate) fn group() -> Group {
    let manager = |rules: &[&str]| {
        let filters: String = rules
            .iter()
            .map(|rules| {
                format!(
                    "- name: envoy.filters.http.rbac
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules:
{}",
                    indent(rules, 6)
                )
            })
            .collect();
        let route = routes("- {match: {prefix: /}, route: {cluster: a}}");
        format!("{route}\nhttp_filters:\n{filters}- ROUTER\n")
    };
    let tls = "  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context:
        tls_certificates: [{certificate_chain: {filename: ${DIR}/server.crt}, private_key: {filename: ${DIR}/server.key}}]
        validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}
";
    let secured = http_listener("LISTEN_TLS", &manager(&[IDENTITY])) + &indent(tls, 2);
    Group {
        name: "rbac",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", &manager(&[ALLOW])),
                http_listener("LISTEN_DENY", &manager(&[DENY])),
                http_listener("LISTEN_BOTH", &manager(&[DENY, ALLOW])),
                secured,
            ],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let with = |path: &str, name: &str, value: &str| Request::get(path).header(name, value);
    vec![
        Case::new("what_no_allow_policy_names_is_denied").get("/", "403 -"),
        Case::new("denied_over_http2").send(Request::get("/").http2(), "403 -"),
        Case::new("denied_grpc").send(
            Request::post("/", "").http2().header("content-type", "application/grpc"),
            "200 -",
        ),
        Case::new("allowed_by_path")
            .get("/exact", "200 a")
            .get("/exact?q=1", "200 a")
            .get("/exact/", "403 -")
            .get("/prefix/x", "200 a"),
        Case::new("allowed_by_a_template_of_the_path")
            .get("/video/1/a", "200 a")
            .get("/video/1/a?q=1", "200 a")
            .get("/video/1", "403 -")
            .get("/video/1/a/b", "403 -"),
        Case::new("allowed_by_header")
            .send(with("/", "x-role", "admin"), "200 a")
            .send(with("/", "x-role", "user"), "403 -"),
        Case::new("and_or_not_rules")
            .send(Request::new("PUT", "/put"), "200 a")
            .send(Request::new("PUT", "/put").header("x-no", "1"), "403 -")
            .get("/put", "403 -")
            .get("/or/1", "200 a")
            .get("/or/2", "200 a")
            .get("/or/3", "403 -"),
        Case::new("allowed_by_destination_port").get("/port", "200 a"),
        Case::new("allowed_by_source_address").get("/source", "200 a").get("/foreign", "403 -"),
        Case::new("principals_by_header")
            .send(with("/principal", "x-user", "ann"), "200 a")
            .send(with("/principal", "x-user", "ann-bad"), "403 -")
            .get("/principal", "403 -"),
        Case::new("nobody_is_authenticated_in_the_clear").get("/authenticated", "403 -"),
        Case::new("a_deny_policy_denies_what_it_names")
            .send_to("LISTEN_DENY", Request::get("/secret/x"), "403 -")
            .send_to("LISTEN_DENY", with("/", "x-user", "guest"), "403 -")
            .send_to("LISTEN_DENY", Request::get("/"), "200 a"),
        Case::new("two_filters_in_order")
            .send_to("LISTEN_BOTH", with("/secret", "x-role", "admin"), "403 -")
            .send_to("LISTEN_BOTH", with("/x", "x-role", "admin"), "200 a")
            .send_to("LISTEN_BOTH", Request::get("/x"), "403 -"),
        Case::custom("authenticated_identity", |world| Box::pin(identity(world))),
    ]
}

async fn identity(world: &World) -> Result<Observation> {
    let mut observation = Observation::default();
    let with = world.client_tls(Some("client"), &[])?;
    let without = world.client_tls(None, &[])?;
    let steps: [(&str, &Arc<rustls::ClientConfig>, &str); 6] = [
        ("/exact", &with, "200 a"),
        ("/prefix", &with, "200 a"),
        ("/other", &with, "403 -"),
        ("/anyone", &with, "200 a"),
        ("/exact", &without, "403 -"),
        ("/anyone", &without, "200 a"),
    ];
    for (index, (path, config, expected)) in steps.into_iter().enumerate() {
        let request = Request::get(path).tls(config, "server.example");
        let step = format!("{index} {path}");
        let seen = world.send(&mut observation, &step, "LISTEN_TLS", &request).await?;
        ensure!(seen == expected, "{step}: {seen} instead of {expected}");
    }
    Ok(observation)
}
