//! Who a peer is, read once from its certificate for access control, logs and `x-forwarded-client-cert`.

use std::fmt::Write;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::config::matcher::StringMatcher;
use crate::config::rbac::CertificateField;

use super::certificate::{Names, distinguished_name, parse};

/// What a peer's certificate says.
#[derive(Debug, Clone)]
pub(crate) struct PeerIdentity {
    /// URI SANs, in the order of the certificate.
    pub(crate) uri_sans: Vec<Box<str>>,
    /// DNS SANs, in the order of the certificate.
    pub(crate) dns_sans: Vec<Box<str>>,
    /// Email SANs, in the order of the certificate.
    pub(crate) email_sans: Vec<Box<str>>,
    /// Addresses, in the order of the certificate.
    pub(crate) ip_sans: Vec<Box<str>>,
    /// Subject in the form of RFC 2253, as Envoy prints it: `CN=web,O=acme`.
    pub(crate) subject: Box<str>,
    /// Issuer in the form of RFC 2253.
    pub(crate) issuer: Box<str>,
    /// Serial number in lower-case hexadecimal, two digits a byte, without leading zero bytes.
    pub(crate) serial: Box<str>,
    /// SHA-256 of the certificate.
    pub(crate) sha256: [u8; 32],
    /// Seconds since the epoch before which the certificate is not yet valid.
    pub(crate) not_before: i64,
    /// Seconds since the epoch after which the certificate is no longer valid.
    pub(crate) not_after: i64,
    /// Its chain was verified against trusted roots (and not merely accepted).
    pub(crate) verified: bool,
    /// The chain as presented, the peer's own certificate first.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
}

impl PeerIdentity {
    /// The identity in a presented chain; `None` if there is no certificate that parses.
    pub(crate) fn of(chain: &[CertificateDer<'static>], verified: bool) -> Option<Self> {
        let leaf = chain.first()?;
        let certificate = parse(leaf)?;
        let Names { uri, dns, email, ip } = Names::of(&certificate);
        Some(Self {
            uri_sans: uri,
            dns_sans: dns,
            email_sans: email,
            ip_sans: ip,
            subject: distinguished_name(certificate.subject()).into(),
            issuer: distinguished_name(certificate.issuer()).into(),
            serial: hexadecimal(certificate.raw_serial()).into(),
            sha256: Sha256::digest(leaf).into(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            verified,
            chain: chain.into(),
        })
    }

    /// Whether a field matches as Envoy's matchers see it: several names are one value.
    pub(crate) fn has(&self, field: CertificateField, matcher: &StringMatcher) -> bool {
        let names = |names: &[Box<str>]| match names {
            [only] => matcher.matches(only.as_bytes()),
            several => matcher.matches(several.join(",").as_bytes()),
        };
        match field {
            CertificateField::UriSans => names(&self.uri_sans),
            CertificateField::DnsSans => names(&self.dns_sans),
            CertificateField::Subject => matcher.matches(self.subject.as_bytes()),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in &bytes[start..] {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
