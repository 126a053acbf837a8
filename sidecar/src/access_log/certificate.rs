//! What a log says of a certificate.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;

use super::operator::{Value, list, text, time};
use super::record::Certificate;
use crate::config::access_log::CertificateField;

/// The value of a command that reads a certificate.
pub(super) fn of_certificate<'a>(
    field: &CertificateField,
    certificate: Certificate<'a>,
) -> Value<'a> {
    let moment = |format: &Option<Box<str>>, seconds: i64| {
        let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        time(format.as_deref(), at)
    };
    match field {
        CertificateField::UriSan => list(certificate.uri_sans),
        CertificateField::DnsSan => list(certificate.dns_sans),
        CertificateField::EmailSan => list(certificate.email_sans),
        CertificateField::IpSan => list(certificate.ip_sans),
        CertificateField::Subject => text(Some(certificate.subject)),
        CertificateField::Issuer => text(Some(certificate.issuer)),
        CertificateField::Serial => text(Some(certificate.serial)),
        CertificateField::Fingerprint256 => {
            let digits = certificate.sha256.iter().flat_map(|byte| hexadecimal(*byte));
            Value::Owned(digits.collect())
        }
        CertificateField::Pem => Value::Owned(url_encoded_pem(certificate.der).into_bytes()),
        CertificateField::NotBefore(format) => moment(format, certificate.not_before),
        CertificateField::NotAfter(format) => moment(format, certificate.not_after),
    }
}

fn hexadecimal(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]
}

/// PEM in which what a URL does not allow is encoded, as Envoy writes it in logs and in `x-forwarded-client-cert`.
pub(crate) fn url_encoded_pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            out.push_str("%0A");
        }
        match character {
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            character => out.push(character),
        }
    }
    out.push_str("%0A-----END%20CERTIFICATE-----%0A");
    out
}
