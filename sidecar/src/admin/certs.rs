//! `/certs`.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use serde_json::{Value as Json, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reply::Reply;
use crate::tls::CertificateSet;

pub(super) fn certs(sets: &[CertificateSet]) -> Reply {
    let list = |list: &[(String, CertificateDer<'static>)]| -> Vec<Json> {
        list.iter().map(|(path, der)| details(path, der)).collect()
    };
    let set = |set: &CertificateSet| json!({"ca_cert": list(&set.ca_cert), "cert_chain": list(&set.cert_chain)});
    Reply::json(&json!({"certificates": sets.iter().map(set).collect::<Vec<_>>()}))
}

fn details(path: &str, der: &CertificateDer<'_>) -> Json {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return json!({"path": path, "error": "cannot be parsed"});
    };
    let validity = certificate.validity();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = validity.not_after.timestamp().saturating_sub(now.try_into().unwrap_or(0)).max(0);
    let names = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| names.value.general_names.iter().filter_map(name).collect())
        .unwrap_or_else(Vec::new);
    let date = |seconds: i64| {
        time::OffsetDateTime::from_unix_timestamp(seconds)
            .ok()
            .and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok())
            .unwrap_or_default()
    };
    json!({
        "path": path,
        "serial_number": serial(certificate.raw_serial()),
        "subject_alt_names": names,
        "days_until_expiration": (left / 86_400).to_string(),
        "valid_from": date(validity.not_before.timestamp()),
        "expiration_time": date(validity.not_after.timestamp()),
    })
}

/// Lower-case hexadecimal, without leading zero bytes.
fn serial(bytes: &[u8]) -> String {
    let start = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
    bytes.iter().skip(start).map(|byte| format!("{byte:02x}")).collect()
}

fn name(name: &GeneralName<'_>) -> Option<Json> {
    match name {
        GeneralName::DNSName(name) => Some(json!({"dns": name})),
        GeneralName::URI(name) => Some(json!({"uri": name})),
        GeneralName::IPAddress(bytes) => {
            let ip = match <[u8; 4]>::try_from(*bytes) {
                Ok(v4) => IpAddr::from(v4),
                Err(_) => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
            };
            Some(json!({"ip_address": ip.to_string()}))
        }
        _ => None,
    }
}
