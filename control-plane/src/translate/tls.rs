//! TLS contexts between sidecars. The key never crosses the wire: `identity` is a secret that the sidecar has of itself.

use crate::identity::Trust;
use crate::translate::names;
use crate::translate::proto::{ads, boolean, exact};
use outrigger_proto::envoy::config::core::v3::{DataSource, data_source};
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
    SubjectAltNameMatcher, UpstreamTlsContext, secret,
};

/// For connections to instances of the service with this SPIFFE id.
pub(crate) fn upstream(spiffe_id: &str, server_name: String, alpn: &[&str]) -> UpstreamTlsContext {
    UpstreamTlsContext {
        common_tls_context: Some(common(&[spiffe_id.to_owned()], alpn)),
        sni: server_name,
        ..Default::default()
    }
}

/// For connections from sidecars; with `callers`, only from these SPIFFE ids.
pub(crate) fn downstream(callers: &[String], alpn: &[&str]) -> DownstreamTlsContext {
    DownstreamTlsContext {
        common_tls_context: Some(common(callers, alpn)),
        require_client_certificate: boolean(true),
        ..Default::default()
    }
}

/// The secret with the trusted roots and what is revoked.
pub(crate) fn trust_bundle(trust: &Trust) -> Secret {
    let inline = |text: &str| DataSource {
        specifier: Some(data_source::Specifier::InlineString(text.to_owned())),
        ..Default::default()
    };
    let revoked = !trust.revoked.is_empty();
    let context = CertificateValidationContext {
        trusted_ca: Some(inline(&trust.roots)),
        crl: revoked.then(|| inline(&trust.revoked)),
        // Issuing certificates are not revoked: there is a list of each, and none of the roots.
        only_verify_leaf_cert_crl: revoked,
        ..Default::default()
    };
    Secret {
        name: names::TRUST_BUNDLE.to_owned(),
        r#type: Some(secret::Type::ValidationContext(context)),
    }
}

fn common(peers: &[String], alpn: &[&str]) -> CommonTlsContext {
    let matcher = |id: &String| SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(exact(id)),
        ..Default::default()
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: peers.iter().map(matcher).collect(),
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(SdsSecretConfig {
            name: names::TRUST_BUNDLE.to_owned(),
            sds_config: ads(),
        }),
        ..Default::default()
    };
    CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![SdsSecretConfig {
            name: names::IDENTITY.to_owned(),
            sds_config: None,
        }],
        alpn_protocols: alpn.iter().map(|it| (*it).to_owned()).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..Default::default()
    }
}
