//! Who a peer is, read once from its certificate for access control, logs and `x-forwarded-client-cert`.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;

/// What a peer's certificate says.
#[derive(Debug, Clone)]
pub(crate) struct PeerIdentity {
    /// URI SANs, in the order of the certificate.
    pub(crate) uri_sans: Vec<Box<str>>,
    /// DNS SANs, in the order of the certificate.
    pub(crate) dns_sans: Vec<Box<str>>,
    /// Subject in the form of RFC 2253, as Envoy prints it: `CN=web,O=acme`.
    pub(crate) subject: Box<str>,
    /// Issuer in the form of RFC 2253.
    pub(crate) issuer: Box<str>,
    /// Serial number in lower-case hexadecimal, without leading zeros.
    pub(crate) serial: Box<str>,
    /// SHA-256 of the certificate.
    pub(crate) sha256: [u8; 32],
    /// Seconds since the epoch after which the certificate is no longer valid.
    pub(crate) not_after: i64,
    /// Its chain was verified against trusted roots (and not merely accepted).
    pub(crate) verified: bool,
    /// The chain as presented, the peer's own certificate first.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
}
