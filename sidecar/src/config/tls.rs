//! TLS contexts of both sides.

use std::sync::Arc;

use rustls::{CipherSuite, NamedGroup};

use super::config_source::ConfigSource;
use super::matcher::StringMatcher;
use super::secret::{CertificateSource, ValidationContext};

/// A validated `DownstreamTlsContext`.
#[derive(Debug, Clone)]
pub struct DownstreamTls {
    /// What both sides have.
    pub common: CommonTls,
    /// Refuse clients without a certificate.
    pub require_client_certificate: bool,
    /// No session tickets.
    pub disable_stateless_session_resumption: bool,
    /// No sessions by id (TLS 1.2).
    pub disable_stateful_session_resumption: bool,
    /// Hash of the encoded proto: equal contexts share one TLS configuration.
    pub fingerprint: u64,
}

/// A validated `UpstreamTlsContext`.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// What both sides have.
    pub common: CommonTls,
    /// Server name, or none.
    pub sni: Option<Box<str>>,
    /// Sessions to keep for resumption. Default 1; 0 turns resumption off.
    pub max_session_keys: u32,
    /// Hash of the encoded proto: equal contexts share one TLS configuration.
    pub fingerprint: u64,
}

/// A validated `CommonTlsContext`.
#[derive(Debug, Clone)]
pub struct CommonTls {
    /// Our certificates: in place, or by the name of a secret.
    pub certificates: Vec<CertificateSource>,
    /// How the peer is verified.
    pub validation: Validation,
    /// Protocols in order of preference; empty: no ALPN.
    pub alpn: Vec<Box<[u8]>>,
    /// Versions of TLS.
    pub versions: TlsVersions,
    /// Allowed cipher suites of TLS 1.2, most wanted first; empty: our default. Those of TLS 1.3 cannot be chosen.
    pub cipher_suites: Vec<CipherSuite>,
    /// Allowed groups of the key exchange, most wanted first; empty: our default.
    pub groups: Vec<NamedGroup>,
}

/// How the peer is verified.
#[derive(Debug, Clone)]
pub enum Validation {
    /// Not at all.
    None,
    /// By what stands here.
    Inline(Arc<ValidationContext>),
    /// By a secret.
    Secret(SecretRef),
    /// By a secret, together with what stands here (`combined_validation_context`).
    Combined {
        /// What stands here: SAN matchers.
        default: Arc<ValidationContext>,
        /// Where the roots come from.
        secret: SecretRef,
    },
}

/// A secret by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is discovered; `None`: it stands in the bootstrap, or the sidecar makes it itself.
    pub source: Option<ConfigSource>,
}

/// Allowed versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2 is allowed.
    pub tls12: bool,
    /// TLS 1.3 is allowed.
    pub tls13: bool,
}

/// A matcher on a subject alternative name.
#[derive(Debug, Clone)]
pub struct SanMatcher {
    /// Which kind of name.
    pub kind: SanKind,
    /// What it must be.
    pub matcher: StringMatcher,
}

/// Kinds of subject alternative names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SanKind {
    Dns,
    Uri,
    Email,
    IpAddress,
    /// Any of them (the deprecated `match_subject_alt_names`).
    Any,
}
