//! Secrets: certificates with their keys, and what peers are verified by.

pub use super::convert::secret as from_proto;

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::tls::{SanMatcher, SecretRef};

/// A validated `envoy.extensions.transport_sockets.tls.v3.Secret`.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Unique name.
    pub name: Arc<str>,
    /// What it holds.
    pub value: SecretValue,
}

/// What a secret holds.
#[derive(Debug, Clone)]
pub enum SecretValue {
    /// A certificate chain with its key, parsed and known to belong together.
    Certificate(Arc<CertifiedKey>),
    /// What peers are verified by.
    Validation(Arc<ValidationContext>),
}

/// Where our certificate comes from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// It stands in the configuration, or in a file that was read with it.
    Inline(Arc<CertifiedKey>),
    /// It is a secret.
    Secret(SecretRef),
}

/// A validated `CertificateValidationContext`.
#[derive(Debug, Clone, Default)]
pub struct ValidationContext {
    /// Trusted roots; empty: the peer's chain is not verified.
    pub roots: Vec<CertificateDer<'static>>,
    /// Any of these must match a name in the peer's certificate; empty: no such condition.
    pub san_matchers: Vec<SanMatcher>,
    /// SHA-256 of the peer's certificate, any of them; empty: no such condition.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// SHA-256 of the peer's public key (SPKI), any of them; empty: no such condition.
    pub spki_hashes: Vec<[u8; 32]>,
    /// Certificate revocation lists, DER.
    pub crls: Vec<Vec<u8>>,
    /// Ask the revocation lists only about the peer's own certificate, not about its issuers.
    pub only_verify_leaf_crl: bool,
    /// Do not name the roots to clients when asking for their certificate.
    pub suppress_client_ca_list: bool,
    /// Accept an expired certificate.
    pub allow_expired: bool,
    /// Count a failed verification, but accept the peer (`ACCEPT_UNTRUSTED`).
    pub accept_untrusted: bool,
}
