//! TLS contexts of both sides.

use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::{TransportSocket, transport_socket};
use outrigger_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3 as proto;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::{
    OcspStaplePolicy, SessionTicketKeysType,
};
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use outrigger_proto::google::protobuf::Any;
use rustls::{CipherSuite, NamedGroup};
use rustls_pki_types::DnsName;

use crate::config::Problems;
use crate::config::secret::CertificateSource;
use crate::config::tls::{
    CommonTls, DownstreamTls, SecretRef, TlsVersions, UpstreamTls, Validation,
};

use super::common::{
    boolean, enumeration, fingerprint, number, required, text, unknown_type, unpack, unsupported,
    unsupported_if_true,
};
use super::extensions::PEER_EXCHANGE;
use super::{certificate, config_source};

/// The configuration of a transport socket; `None` for plaintext (`raw_buffer`), or if something was refused.
pub(super) fn transport_socket(problems: &mut Problems, proto: TransportSocket) -> Option<Any> {
    let TransportSocket { name, config_type } = proto;
    text(problems, "name", name);
    let Some(transport_socket::ConfigType::TypedConfig(config)) = config_type else {
        problems.reject_field("typed_config", "required");
        return None;
    };
    if any::holds::<RawBuffer>(&config) {
        problems.field("typed_config", |problems| {
            let _: Option<RawBuffer> = unpack(problems, &config);
        });
        return None;
    }
    Some(config)
}

/// A `DownstreamTlsContext`.
pub(super) fn downstream(problems: &mut Problems, config: &Any) -> Option<DownstreamTls> {
    if !any::holds::<proto::DownstreamTlsContext>(config) {
        unknown_type(problems, config, &["DownstreamTlsContext", "RawBuffer"]);
        return None;
    }
    let proto::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = unpack(problems, config)?;
    unsupported!(problems; session_timeout, prefer_client_ciphers);
    unsupported_if_true!(problems; require_sni, full_scan_certs_on_sni_mismatch);
    if enumeration(problems, "ocsp_staple_policy", ocsp_staple_policy)
        .is_some_and(|policy: OcspStaplePolicy| policy != OcspStaplePolicy::LenientStapling)
    {
        problems.unsupported("ocsp_staple_policy", true);
    }
    let disable_stateless_session_resumption = match session_ticket_keys_type {
        None => false,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(disable)) => disable,
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            problems.unsupported("session_ticket_keys", true);
            false
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            problems.unsupported("session_ticket_keys_sds_secret_config", true);
            false
        }
    };
    let common = common(problems, common_tls_context)?;
    if common.certificates.is_empty() {
        problems.reject_field(
            "common_tls_context",
            "needs a certificate: tls_certificates or tls_certificate_sds_secret_configs",
        );
    }
    let mut context = DownstreamTls {
        common,
        require_client_certificate: boolean(require_client_certificate, false),
        disable_stateless_session_resumption,
        disable_stateful_session_resumption,
        fingerprint: 0,
    };
    context.fingerprint = fingerprint(&context);
    Some(context)
}

/// An `UpstreamTlsContext`.
pub(super) fn upstream(problems: &mut Problems, config: &Any) -> Option<UpstreamTls> {
    if !any::holds::<proto::UpstreamTlsContext>(config) {
        let supported = ["UpstreamTlsContext", "RawBuffer", "ProxyProtocolUpstreamTransport"];
        unknown_type(problems, config, &supported);
        return None;
    }
    let proto::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage: _, // every handshake here is signed by an RSA key and never encrypted to it
    } = unpack(problems, config)?;
    unsupported!(problems; auto_host_sni, auto_sni_san_validation, allow_renegotiation);
    if sni.len() > MAX_SNI {
        problems.reject_field("sni", format!("has more than {MAX_SNI} bytes"));
    } else if !sni.is_empty() && DnsName::try_from(sni.as_str()).is_err() {
        // Kuma has such names. Whom a connection is with is judged by the certificate, not by this.
        tracing::warn!(sni, "is not a DNS name: connections are made without a server name");
    }
    let common = common(problems, common_tls_context)?;
    if common.certificates.len() > 1 {
        problems.reject_field("common_tls_context", "more than one certificate for a client");
    }
    let mut context = UpstreamTls {
        common,
        sni: (!sni.is_empty()).then(|| sni.into()),
        max_session_keys: number(max_session_keys).unwrap_or(1),
        fingerprint: 0,
    };
    context.fingerprint = fingerprint(&context);
    Some(context)
}

fn common(problems: &mut Problems, proto: Option<proto::CommonTlsContext>) -> Option<CommonTls> {
    let proto = proto.unwrap_or_default();
    problems.field("common_tls_context", |problems| {
        let proto::CommonTlsContext {
            tls_params,
            tls_certificates,
            tls_certificate_sds_secret_configs,
            tls_certificate_provider_instance,
            custom_tls_certificate_selector,
            tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance,
            alpn_protocols,
            custom_handshaker,
            key_log,
            validation_context_type,
        } = proto;
        unsupported!(problems;
            tls_certificate_provider_instance, custom_tls_certificate_selector,
            tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance,
            custom_handshaker, key_log);
        let parameters = parameters(problems, tls_params);
        if !tls_certificates.is_empty() && !tls_certificate_sds_secret_configs.is_empty() {
            problems.reject_field(
                "tls_certificate_sds_secret_configs",
                "cannot be set together with tls_certificates",
            );
        }
        let inline: Vec<_> = tls_certificates
            .into_iter()
            .enumerate()
            .filter_map(|(index, proto)| {
                problems.element("tls_certificates", index, |problems| {
                    certificate::tls_certificate(problems, proto)
                })
            })
            .map(CertificateSource::Inline)
            .collect();
        let secrets: Vec<_> = tls_certificate_sds_secret_configs
            .into_iter()
            .enumerate()
            .filter_map(|(index, proto)| {
                problems.element("tls_certificate_sds_secret_configs", index, |problems| {
                    secret_ref(problems, proto)
                })
            })
            .map(CertificateSource::Secret)
            .collect();
        let alpn = alpn(problems, &alpn_protocols);
        let validation = validation(problems, validation_context_type)?;
        let Parameters { versions, cipher_suites, groups } = parameters?;
        Some(CommonTls {
            certificates: inline.into_iter().chain(secrets).collect(),
            validation,
            alpn,
            versions,
            cipher_suites,
            groups,
        })
    })
}

/// What `TlsParameters` come to.
struct Parameters {
    versions: TlsVersions,
    cipher_suites: Vec<CipherSuite>,
    groups: Vec<NamedGroup>,
}

fn parameters(problems: &mut Problems, proto: Option<proto::TlsParameters>) -> Option<Parameters> {
    let proto::TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = proto.unwrap_or_default();
    problems.field("tls_params", |problems| {
        unsupported!(problems; signature_algorithms, compliance_policies);
        let versions =
            versions(problems, tls_minimum_protocol_version, tls_maximum_protocol_version);
        // `[A|B]` are equals for the server, of which the client's first choice counts; here A comes before B.
        let suites = cipher_suites
            .iter()
            .flat_map(|entry| entry.split([':', '[', ']', '|']))
            .filter(|name| !name.is_empty());
        let cipher_suites = known(problems, "cipher_suites", suites, cipher_suite);
        let curves = ecdh_curves.iter().flat_map(|entry| entry.split(':'));
        let groups = known(problems, "ecdh_curves", curves, group);
        Some(Parameters { versions: versions?, cipher_suites, groups })
    })
}

/// What of a list of allowed ones we have. To leave some out allows nothing that the list does not; only if none is
/// left there is nothing to speak with.
fn known<'a, T>(
    problems: &mut Problems,
    field: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    parse: fn(&str) -> Option<T>,
) -> Vec<T> {
    let known: Vec<T> = names.clone().filter_map(parse).collect();
    if known.is_empty() && names.clone().next().is_some() {
        let names: Vec<&str> = names.collect();
        problems.reject_field(field, format!("none of {} is spoken here", names.join(", ")));
    }
    known
}

/// The suites of TLS 1.2 that both keep past sessions secret and are authenticated, in their names of OpenSSL and IANA.
fn cipher_suite(name: &str) -> Option<CipherSuite> {
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" | "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-ECDSA-AES256-GCM-SHA384" | "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-ECDSA-CHACHA20-POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "ECDHE-RSA-AES128-GCM-SHA256" | "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-RSA-AES256-GCM-SHA384" | "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-RSA-CHACHA20-POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return None,
    })
}

fn group(name: &str) -> Option<NamedGroup> {
    Some(match name {
        "X25519" => NamedGroup::X25519,
        "P-256" => NamedGroup::secp256r1,
        "P-384" => NamedGroup::secp384r1,
        "X25519MLKEM768" => NamedGroup::X25519MLKEM768,
        _ => return None,
    })
}

fn versions(problems: &mut Problems, minimum: i32, maximum: i32) -> Option<TlsVersions> {
    let mut version = |name: &str, value| match enumeration(problems, name, value)? {
        TlsProtocol::TlsAuto => Some(None),
        TlsProtocol::TlSv12 => Some(Some(12)),
        TlsProtocol::TlSv13 => Some(Some(13)),
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            problems.reject_field(name, "TLS 1.0 and 1.1 are not spoken: TLSv1_2 or TLSv1_3");
            None
        }
    };
    let minimum = version("tls_minimum_protocol_version", minimum);
    let maximum = version("tls_maximum_protocol_version", maximum);
    let (minimum, maximum) = (minimum?.unwrap_or(12), maximum?.unwrap_or(13));
    if minimum > maximum {
        problems
            .reject_field("tls_maximum_protocol_version", "is below tls_minimum_protocol_version");
        return None;
    }
    Some(TlsVersions { tls12: minimum == 12, tls13: maximum == 13 })
}

/// The most that Envoy accepts.
const MAX_SNI: usize = 255;

/// Envoy joins the entries with commas and splits the whole again: one entry may name several protocols.
fn alpn(problems: &mut Problems, protos: &[String]) -> Vec<Box<[u8]>> {
    let mut protocols = Vec::new();
    for (index, entry) in protos.iter().enumerate() {
        for protocol in entry.split(',') {
            if protocol.is_empty() || protocol.len() > 255 {
                problems.element("alpn_protocols", index, |problems| {
                    problems.reject("a protocol has 1 to 255 bytes");
                });
            }
            if protocol != PEER_EXCHANGE {
                protocols.push(protocol.as_bytes().into());
            }
        }
    }
    protocols
}

fn secret_ref(problems: &mut Problems, proto: proto::SdsSecretConfig) -> Option<SecretRef> {
    let proto::SdsSecretConfig { name, sds_config } = proto;
    let name = text(problems, "name", name);
    let source = match sds_config {
        None => None,
        Some(source) => Some(
            problems.field("sds_config", |problems| config_source::convert(problems, source))?,
        ),
    };
    (!name.is_empty()).then(|| SecretRef { name: name.into(), source })
}

fn validation(problems: &mut Problems, proto: Option<ValidationContextType>) -> Option<Validation> {
    match proto {
        None => Some(Validation::None),
        Some(ValidationContextType::ValidationContext(proto)) => {
            problems.field("validation_context", |problems| {
                let context = certificate::validation(problems, proto);
                certificate::needs_roots(problems, &context, !context.roots.is_empty());
                Some(Validation::Inline(Arc::new(context)))
            })
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(proto)) => {
            let secret = problems.field("validation_context_sds_secret_config", |problems| {
                secret_ref(problems, proto)
            })?;
            Some(Validation::Secret(secret))
        }
        Some(ValidationContextType::CombinedValidationContext(proto)) => {
            problems.field("combined_validation_context", |problems| combined(problems, proto))
        }
        Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
            problems.unsupported("validation_context_certificate_provider", true);
            None
        }
        Some(ValidationContextType::ValidationContextCertificateProviderInstance(_)) => {
            problems.unsupported("validation_context_certificate_provider_instance", true);
            None
        }
    }
}

fn combined(
    problems: &mut Problems,
    proto: CombinedCertificateValidationContext,
) -> Option<Validation> {
    let CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = proto;
    unsupported!(problems;
        validation_context_certificate_provider, validation_context_certificate_provider_instance);
    let default =
        required(problems, "default_validation_context", default_validation_context).map(|proto| {
            problems.field("default_validation_context", |problems| {
                certificate::validation(problems, proto)
            })
        });
    let secret = required(
        problems,
        "validation_context_sds_secret_config",
        validation_context_sds_secret_config,
    )
    .and_then(|proto| {
        problems
            .field("validation_context_sds_secret_config", |problems| secret_ref(problems, proto))
    });
    Some(Validation::Combined { default: Arc::new(default?), secret: secret? })
}
