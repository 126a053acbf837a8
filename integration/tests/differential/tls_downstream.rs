//! TLS from the client: which filter chain, which protocol, whose certificate.

use anyhow::{Result, ensure};
use outrigger_integration::client::{Request, Tls, handshake};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_chain, indent, routes};

pub(crate) fn group() -> Group {
    let bootstrap = bootstrap(
        &[
            by_name(),
            secured(
                "LISTEN_MUTUAL",
                &format!("{}\nrequire_client_certificate: true", files(TRUSTED)),
            ),
            secured("LISTEN_OPTIONAL", &files(TRUSTED)),
            secured("LISTEN_SAN", &format!("{}\nrequire_client_certificate: true", files(SAN))),
            secured("LISTEN_ALPN", &files("alpn_protocols: [h2, http/1.1]")),
            secured("LISTEN_ALPN_1", &files("alpn_protocols: [http/1.1]")),
            secured("LISTEN_INLINE", INLINE),
            secured("LISTEN_SECRET", SECRET),
            secured("LISTEN_NAMED", &context("both", TRUSTED)),
        ],
        &[cluster("a", &["a"], "")],
    );
    Group {
        name: "tls_downstream",
        bootstrap: bootstrap + SECRETS,
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

const TRUSTED: &str = "validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}";

const SAN: &str = "validation_context:
  trusted_ca: {filename: ${DIR}/ca.crt}
  match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: 'spiffe://test/client'}}]
";

const INLINE: &str = "common_tls_context:
  tls_certificates: [{certificate_chain: {inline_string: ${PEM_server}}, private_key: {inline_string: ${KEY_server}}}]
  validation_context: {trusted_ca: {inline_string: ${PEM_ca}}}
require_client_certificate: true
";

const SECRET: &str = "common_tls_context:
  tls_certificate_sds_secret_configs: [{name: identity}]
  combined_validation_context:
    default_validation_context:
      match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: 'spiffe://test/'}}]
    validation_context_sds_secret_config: {name: trust}
require_client_certificate: true
";

const SECRETS: &str = "  secrets:
  - name: identity
    tls_certificate: {certificate_chain: {filename: ${DIR}/server.crt}, private_key: {filename: ${DIR}/server.key}}
  - name: trust
    validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}
";

/// A context with the certificate files, to whose common part `more` is added.
fn files(more: &str) -> String {
    context("server", more)
}

fn context(certificate: &str, more: &str) -> String {
    format!(
        "common_tls_context:
  tls_certificates: [{{certificate_chain: {{filename: ${{DIR}}/{certificate}.crt}}, private_key: {{filename: ${{DIR}}/{certificate}.key}}}}]
{}",
        indent(more, 2)
    )
}

fn socket(context: &str) -> String {
    format!(
        "  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
{}",
        indent(context, 6)
    )
}

fn secured(place: &str, context: &str) -> String {
    let manager = format!(
        "forward_client_cert_details: SANITIZE_SET
set_current_client_cert_details: {{uri: true}}
{}",
        routes("- {match: {prefix: /}, route: {cluster: a}}")
    );
    let chain = http_chain(&manager) + &socket(context);
    format!("- name: {place}\n  address: ${{{place}}}\n  filter_chains:\n{}", indent(&chain, 2))
}

/// A listener with a filter chain for each kind of client; each answers with a status of its own.
fn by_name() -> String {
    let chain = |criteria: &str, status: u16, transport: &str| {
        let manager =
            routes(&format!("- {{match: {{prefix: /}}, direct_response: {{status: {status}}}}}"));
        format!("{}  filter_chain_match: {criteria}\n{transport}", http_chain(&manager))
    };
    let server = socket(&files("alpn_protocols: [h2, http/1.1]"));
    let other = socket(&context("other", ""));
    let chains = [
        chain("{server_names: [server.example]}", 210, &server),
        chain("{server_names: ['*.wild.example']}", 211, &server),
        chain("{server_names: [a.wild.example], transport_protocol: tls}", 212, &server),
        chain("{server_names: [alpn.wild.example], application_protocols: [h2]}", 213, &server),
        chain("{server_names: [other.example]}", 214, &other),
        chain("{transport_protocol: raw_buffer}", 215, ""),
    ];
    format!(
        "- name: LISTEN
  address: ${{LISTEN}}
  listener_filters: [{{name: envoy.filters.listener.tls_inspector, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]
  filter_chains:
{}",
        indent(&chains.concat(), 2)
    )
}

fn cases() -> Vec<Case> {
    vec![
        Case::custom("server_name_chooses_the_filter_chain", |world| {
            Box::pin(by_server_name(world))
        }),
        Case::new("plaintext_has_a_filter_chain_of_its_own").get("/", "215 -"),
        Case::custom("no_filter_chain_closes_the_connection", |world| {
            Box::pin(async move {
                shake(world, "LISTEN", None, "unknown.example", &[], "refused").await
            })
        }),
        Case::custom("alpn_is_negotiated", |world| Box::pin(alpn(world))),
        Case::custom("a_required_client_certificate", |world| {
            Box::pin(async move { certificates(world, "LISTEN_MUTUAL", true).await })
        }),
        Case::custom("an_optional_client_certificate", |world| {
            Box::pin(async move { certificates(world, "LISTEN_OPTIONAL", false).await })
        }),
        Case::custom("a_client_certificate_with_the_wrong_name", |world| {
            Box::pin(async move {
                let mut seen =
                    shake(world, "LISTEN_SAN", Some("client"), "server.example", &[], "TLS")
                        .await?;
                seen.extend(
                    shake(world, "LISTEN_SAN", Some("spiffe"), "server.example", &[], "refused")
                        .await?,
                );
                Ok(seen)
            })
        }),
        Case::custom("the_identity_of_the_client_is_told_upstream", |world| {
            Box::pin(told_upstream(world))
        }),
        Case::custom("inline_certificates", |world| {
            Box::pin(async move { certificates(world, "LISTEN_INLINE", true).await })
        }),
        Case::custom("static_secrets", |world| {
            Box::pin(async move { certificates(world, "LISTEN_SECRET", true).await })
        }),
        Case::custom("plaintext_at_a_tls_listener", |world| {
            Box::pin(async move {
                let mut seen = Observation::default();
                let outcome = Request::get("/").send(world.address("LISTEN_MUTUAL")?).await;
                seen.outcome("plaintext", &outcome, &world.values);
                ensure!(outcome.status() == 0, "{outcome:?}");
                Ok(seen)
            })
        }),
    ]
}

async fn by_server_name(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let steps: [(&str, Option<&[&str]>, u16); 6] = [
        ("server.example", None, 210),
        ("SERVER.example", None, 210),
        ("x.wild.example", None, 211),
        ("a.wild.example", None, 212),
        ("alpn.wild.example", Some(&["h2"]), 213),
        ("other.example", None, 214),
    ];
    for (name, alpn, expected) in steps {
        let tls = world.client_tls(None, alpn.unwrap_or_default())?;
        let mut request = Request::get("/").tls(&tls, name);
        if alpn.is_some() {
            request = request.http2();
        }
        let outcome = request.send(world.address("LISTEN")?).await;
        ensure!(outcome.status() == expected, "{name}: {outcome:?}");
        seen.outcome(name, &outcome, &world.values);
    }
    Ok(seen)
}

async fn alpn(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let offers: [&[&str]; 5] =
        [&[], &["h2"], &["http/1.1"], &["http/1.1", "h2"], &["h2", "http/1.1"]];
    for listener in ["LISTEN_ALPN", "LISTEN_ALPN_1", "LISTEN_OPTIONAL"] {
        for offer in offers {
            let tls = Tls {
                config: world.client_tls(None, offer)?,
                server_name: "server.example".to_owned(),
            };
            let agreed = handshake(world.address(listener)?, &tls).await;
            seen.fact(listener, &offer.join(","), agreed);
        }
    }
    Ok(seen)
}

/// One handshake; what is seen has to begin with `expected`.
async fn shake(
    world: &World,
    listener: &str,
    certificate: Option<&str>,
    name: &str,
    alpn: &[&str],
    expected: &str,
) -> Result<Observation> {
    let tls = Tls { config: world.client_tls(certificate, alpn)?, server_name: name.to_owned() };
    let agreed = handshake(world.address(listener)?, &tls).await;
    ensure!(agreed.starts_with(expected), "{agreed}");
    let mut seen = Observation::default();
    seen.fact(certificate.unwrap_or("no certificate"), "handshake", agreed);
    Ok(seen)
}

async fn certificates(world: &World, listener: &str, required: bool) -> Result<Observation> {
    let missing = if required { "refused" } else { "TLS" };
    let mut seen = shake(world, listener, None, "server.example", &[], missing).await?;
    seen.extend(shake(world, listener, Some("client"), "server.example", &[], "TLS").await?);
    seen.extend(shake(world, listener, Some("foreign"), "server.example", &[], "refused").await?);
    Ok(seen)
}

async fn told_upstream(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for (listener, certificate) in [
        ("LISTEN_OPTIONAL", Some("client")),
        ("LISTEN_OPTIONAL", None),
        ("LISTEN_NAMED", Some("client")),
    ] {
        let tls = world.client_tls(certificate, &[])?;
        let request = Request::get("/")
            .header("x-forwarded-client-cert", "URI=spiffe://forged")
            .tls(&tls, "server.example");
        let step = format!("{listener} {}", certificate.unwrap_or("none"));
        let reached = world.send(&mut seen, &step, listener, &request).await?;
        ensure!(reached == "200 a", "{reached}");
    }
    Ok(seen)
}
