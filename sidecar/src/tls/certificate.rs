//! What a certificate says: its names, its subject, its life.

use std::fmt::Write;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::der_parser::asn1_rs::{Oid, oid};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::X509Name;

/// The subject alternative names of a certificate that can be matched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) uri: Vec<Box<str>>,
    pub(super) dns: Vec<Box<str>>,
    pub(super) email: Vec<Box<str>>,
    pub(super) ip: Vec<Box<str>>,
}

impl Names {
    /// The names in `certificate`. One with a NUL in it is left out: what reads it as the end sees another name.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        let Ok(Some(extension)) = certificate.subject_alternative_name() else { return names };
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(text) => push(&mut names.uri, text),
                GeneralName::DNSName(text) => push(&mut names.dns, text),
                GeneralName::RFC822Name(text) => push(&mut names.email, text),
                GeneralName::IPAddress(bytes) => {
                    if let Some(address) = ip_address(bytes) {
                        names.ip.push(address.to_string().into());
                    }
                }
                _ => {}
            }
        }
        names
    }

    /// All of them for a message, or that there are none.
    pub(super) fn describe(&self) -> String {
        let kinds =
            [("URI", &self.uri), ("DNS", &self.dns), ("email", &self.email), ("IP", &self.ip)];
        let names: Vec<String> = kinds
            .into_iter()
            .flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind} {name:?}")))
            .collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

fn push(names: &mut Vec<Box<str>>, text: &str) {
    if !text.contains('\0') {
        names.push(text.into());
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Parses a certificate; `None` if it is not one.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    x509_parser::parse_x509_certificate(der).ok().map(|(_, certificate)| certificate)
}

/// Who a certificate claims to be for, for messages: its first URI or DNS name, or its subject.
pub(super) fn claimed_name(der: &CertificateDer<'_>) -> String {
    let Some(certificate) = parse(der) else {
        return "what is not an X.509 certificate".to_owned();
    };
    let names = Names::of(&certificate);
    match names.uri.first().or(names.dns.first()) {
        // Quoted: the text is the peer's and may hold anything.
        Some(name) => format!("certificate of {name:?}"),
        None => format!("certificate of {:?}", distinguished_name(certificate.subject())),
    }
}

/// A name in the form of RFC 2253 as OpenSSL prints it: last part first, everything but printable ASCII escaped.
pub(super) fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter().collect();
    let mut text = String::new();
    for (index, part) in parts.iter().rev().enumerate() {
        if index > 0 {
            text.push(',');
        }
        for (index, attribute) in part.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            match short_name(attribute.attr_type()) {
                Some(short) => text.push_str(short),
                None => text.push_str(&attribute.attr_type().to_id_string()),
            }
            text.push('=');
            escape(&mut text, attribute.as_str().unwrap_or_default());
        }
    }
    text
}

fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    let known = [
        (oid!(2.5.4.3), "CN"),
        (oid!(2.5.4.4), "SN"),
        (oid!(2.5.4.5), "serialNumber"),
        (oid!(2.5.4.6), "C"),
        (oid!(2.5.4.7), "L"),
        (oid!(2.5.4.8), "ST"),
        (oid!(2.5.4.9), "street"),
        (oid!(2.5.4.10), "O"),
        (oid!(2.5.4.11), "OU"),
        (oid!(2.5.4.12), "title"),
        (oid!(2.5.4.42), "GN"),
        (oid!(0.9.2342.19200300.100.1.1), "UID"),
        (oid!(0.9.2342.19200300.100.1.25), "DC"),
        (oid!(1.2.840.113549.1.9.1), "emailAddress"),
    ];
    known.into_iter().find(|(known, _)| known == oid).map(|(_, short)| short)
}

fn escape(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        let is_edge_space = byte == b' ' && (index == 0 || index == last);
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'#' if index == 0 => text.push_str("\\#"),
            b' ' if is_edge_space => text.push_str("\\ "),
            0x20..=0x7e => text.push(char::from(byte)),
            // Writing into a String cannot fail.
            _ => drop(write!(text, "\\{byte:02X}")),
        }
    }
}
