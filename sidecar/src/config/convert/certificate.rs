//! Certificates, keys and trust: PEM is read, parsed, and checked to belong together, before anything uses it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_proto::envoy::config::core::v3::DataSource;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3 as proto;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::config::Problems;
use crate::config::secret::ValidationContext;
use crate::config::tls::{SanKind, SanMatcher};

use super::common::{enumeration, required, unsupported, unsupported_if_true};
use super::{data_source, matcher};

/// A `TlsCertificate`: a chain with its key.
pub(super) fn tls_certificate(
    problems: &mut Problems,
    proto: proto::TlsCertificate,
) -> Option<Arc<CertifiedKey>> {
    let proto::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = proto;
    unsupported!(problems;
        pkcs12, watched_directory, private_key_provider, password, ocsp_staple,
        signed_certificate_timestamp, tls_params);
    let chain = required(problems, "certificate_chain", certificate_chain)
        .and_then(|source| problems.field("certificate_chain", |problems| chain(problems, source)));
    let key = required(problems, "private_key", private_key)
        .and_then(|source| problems.field("private_key", |problems| key(problems, source)));
    let certified = CertifiedKey::new(chain?, key?);
    match certified.keys_match() {
        Ok(()) => Some(Arc::new(certified)),
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            problems.reject_field(
                "private_key",
                "does not belong to the first certificate of certificate_chain",
            );
            None
        }
        Err(error) => {
            problems.reject_field("certificate_chain", format!("certificate 1: {error}"));
            None
        }
    }
}

fn chain(problems: &mut Problems, source: DataSource) -> Option<Vec<CertificateDer<'static>>> {
    let text = data_source::read(problems, source)?;
    certificates(problems, &text)
}

/// At least one certificate, each of which parses.
fn certificates(problems: &mut Problems, text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut certificates = Vec::new();
    for item in CertificateDer::pem_slice_iter(text) {
        let number = certificates.len() + 1;
        let certificate = match item {
            Ok(certificate) => certificate,
            Err(error) => {
                problems.reject(format!("certificate {number}: {}", pem_error(&error)));
                return None;
            }
        };
        if let Err(error) = x509_parser::parse_x509_certificate(&certificate) {
            problems.reject(format!("certificate {number} is not X.509: {error}"));
            return None;
        }
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        problems.reject("contains no certificate in PEM form (-----BEGIN CERTIFICATE-----)");
        return None;
    }
    Some(certificates)
}

fn key(problems: &mut Problems, source: DataSource) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    let text = data_source::read(problems, source)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if contains(&text, b"ENCRYPTED PRIVATE KEY") => {
            "is encrypted, which is not supported by this version of Outrigger".to_owned()
        }
        pem::Error::NoItemsFound => {
            "contains no private key in PEM form (-----BEGIN PRIVATE KEY-----)".to_owned()
        }
        other => pem_error(&other),
    });
    // Never a word of the key itself: reasons are logged and sent to the control plane.
    let key = key.and_then(|key| {
        any_supported_type(&key).map_err(|_| {
            "is not a usable key: RSA of 2048 bits or more, ECDSA (P-256, P-384, P-521) or Ed25519"
                .to_owned()
        })
    });
    match key {
        Ok(key) => Some(key),
        Err(reason) => {
            problems.reject(reason);
            None
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Without the content: it may be a key.
fn pem_error(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "is cut off: no -----END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "has a broken -----BEGIN line".to_owned(),
        pem::Error::Base64Decode(_) => "is not valid base64 between its PEM lines".to_owned(),
        pem::Error::NoItemsFound => "contains nothing in PEM form".to_owned(),
        _ => "is not valid PEM".to_owned(),
    }
}

/// A `CertificateValidationContext`.
pub(super) fn validation(
    problems: &mut Problems,
    proto: proto::CertificateValidationContext,
) -> ValidationContext {
    let proto::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = proto;
    unsupported!(problems;
        ca_certificate_provider_instance, system_root_certs, watched_directory,
        custom_validator_config, max_verify_depth);
    unsupported_if_true!(problems; require_signed_certificate_timestamp);
    let roots = trusted_ca
        .and_then(|source| problems.field("trusted_ca", |problems| roots(problems, source)))
        .unwrap_or_default();
    let spki_hashes =
        hashes(problems, "verify_certificate_spki", &verify_certificate_spki, |text| {
            STANDARD.decode(text).ok()?.try_into().ok()
        });
    let certificate_hashes =
        hashes(problems, "verify_certificate_hash", &verify_certificate_hash, hexadecimal);
    let typed =
        match_typed_subject_alt_names.into_iter().enumerate().filter_map(|(index, proto)| {
            problems.element("match_typed_subject_alt_names", index, |problems| {
                typed_san(problems, proto)
            })
        });
    let mut san_matchers: Vec<SanMatcher> = typed.collect();
    san_matchers.extend(match_subject_alt_names.into_iter().enumerate().filter_map(
        |(index, proto)| {
            problems.element("match_subject_alt_names", index, |problems| {
                let matcher = matcher::string(problems, proto)?;
                Some(SanMatcher { kind: SanKind::Any, matcher })
            })
        },
    ));
    let crls = crl
        .and_then(|source| problems.field("crl", |problems| crls(problems, source)))
        .unwrap_or_default();
    let accept_untrusted =
        enumeration(problems, "trust_chain_verification", trust_chain_verification)
            == Some(TrustChainVerification::AcceptUntrusted);
    ValidationContext {
        roots,
        san_matchers,
        certificate_hashes,
        spki_hashes,
        crls,
        only_verify_leaf_crl: only_verify_leaf_cert_crl,
        suppress_client_ca_list,
        allow_expired: allow_expired_certificate,
        accept_untrusted,
    }
}

/// What cannot stand without roots. `trusts` tells whether the context as a whole, secrets included, has any.
pub(super) fn needs_roots(problems: &mut Problems, context: &ValidationContext, trusts: bool) {
    if trusts {
        return;
    }
    if !context.san_matchers.is_empty() {
        problems.reject_field(
            "trusted_ca",
            "required with match_typed_subject_alt_names: names in an unverified certificate prove nothing",
        );
    }
    if !context.crls.is_empty() {
        problems.reject_field("trusted_ca", "required with crl");
    }
}

fn roots(problems: &mut Problems, source: DataSource) -> Option<Vec<CertificateDer<'static>>> {
    let text = data_source::read(problems, source)?;
    let roots = certificates(problems, &text)?;
    for (index, root) in roots.iter().enumerate() {
        if let Err(error) = webpki::anchor_from_trusted_cert(root) {
            problems.reject(format!("certificate {} cannot be trusted: {error}", index + 1));
            return None;
        }
    }
    Some(roots)
}

fn crls(problems: &mut Problems, source: DataSource) -> Option<Vec<Vec<u8>>> {
    let text = data_source::read(problems, source)?;
    let mut crls = Vec::new();
    for item in CertificateRevocationListDer::pem_slice_iter(&text) {
        let number = crls.len() + 1;
        let reason = match item {
            Ok(crl) => match webpki::OwnedCertRevocationList::from_der(&crl) {
                Ok(_) => {
                    crls.push(crl.as_ref().to_vec());
                    continue;
                }
                Err(error) => format!("revocation list {number}: {error}"),
            },
            Err(error) => format!("revocation list {number}: {}", pem_error(&error)),
        };
        problems.reject(reason);
        return None;
    }
    if crls.is_empty() {
        problems.reject("contains no revocation list in PEM form (-----BEGIN X509 CRL-----)");
        return None;
    }
    Some(crls)
}

fn typed_san(problems: &mut Problems, proto: proto::SubjectAltNameMatcher) -> Option<SanMatcher> {
    let proto::SubjectAltNameMatcher { san_type, matcher, oid } = proto;
    unsupported!(problems; oid);
    let kind = match enumeration(problems, "san_type", san_type) {
        Some(SanType::Email) => Some(SanKind::Email),
        Some(SanType::Dns) => Some(SanKind::Dns),
        Some(SanType::Uri) => Some(SanKind::Uri),
        Some(SanType::IpAddress) => Some(SanKind::IpAddress),
        Some(SanType::OtherName) => {
            problems.reject_field(
                "san_type",
                "OTHER_NAME is not supported by this version of Outrigger",
            );
            None
        }
        Some(SanType::Unspecified) => {
            problems.reject_field("san_type", "required: EMAIL, DNS, URI or IP_ADDRESS");
            None
        }
        None => None,
    };
    let matcher = required(problems, "matcher", matcher)
        .and_then(|proto| problems.field("matcher", |problems| matcher::string(problems, proto)));
    Some(SanMatcher { kind: kind?, matcher: matcher? })
}

fn hashes(
    problems: &mut Problems,
    name: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Option<[u8; 32]>,
) -> Vec<[u8; 32]> {
    texts
        .iter()
        .enumerate()
        .filter_map(|(index, text)| {
            let hash = parse(text);
            if hash.is_none() {
                problems.element(name, index, |problems| {
                    problems.reject(format!("{text:?} is not a SHA-256 hash"));
                });
            }
            hash
        })
        .collect()
}

/// 64 hexadecimal digits, or the same in pairs with colons between.
fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = if text.contains(':') {
        let pairs: Vec<&str> = text.split(':').collect();
        if pairs.iter().any(|pair| pair.len() != 2) {
            return None;
        }
        pairs.concat().into_bytes()
    } else {
        text.as_bytes().to_vec()
    };
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(nibble(pair[0])? * 16 + nibble(pair[1])?).ok()?;
    }
    Some(hash)
}
