//! The names in certificates: `spiffe://TRUST-DOMAIN/ns/default/svc/SERVICE` as the only URI, `INSTANCE.SERVICE` as the
//! only DNS name.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The only namespace there is.
const NAMESPACE: &str = "default";

/// The SPIFFE id of a service's instances.
pub fn workload_id(trust_domain: &str, service: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{NAMESPACE}/svc/{service}")
}

/// The SPIFFE id of the control plane.
pub fn control_plane_id(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/control-plane")
}

/// The DNS name that says which instance of a service a certificate is for.
pub(crate) fn instance_name(service: &str, instance: &str) -> String {
    format!("{instance}.{service}")
}

/// Who a verified certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerIdentity {
    pub(crate) trust_domain: Arc<str>,
    pub(crate) service: Arc<str>,
    pub(crate) instance: Arc<str>,
    /// End of the certificate's validity.
    pub(crate) expires: SystemTime,
    /// Serial number of the certificate, as [`hexadecimal`] writes it.
    pub(crate) serial: Arc<str>,
}

impl PeerIdentity {
    /// Reads the names of a certificate whose chain was verified.
    ///
    /// # Errors
    /// In words, if it is not the certificate of an instance.
    pub(crate) fn from_certificate(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| format!("the certificate does not parse: {error}"))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| format!("the certificate's names do not parse: {error}"))?
            .ok_or("the certificate names nobody")?;
        let mut uris = Vec::new();
        let mut dns = Vec::new();
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::DNSName(name) => dns.push(*name),
                _ => {}
            }
        }
        let [uri] = uris.as_slice() else {
            return Err(format!("the certificate has {} URI names, not one", uris.len()));
        };
        let (trust_domain, service) = workload(uri)
            .ok_or_else(|| format!("{uri} is not the identity of a service of this mesh"))?;
        let instance = match dns.as_slice() {
            [name] => name.strip_suffix(service).and_then(|rest| rest.strip_suffix('.')),
            _ => None,
        };
        let instance = instance
            .filter(|name| !name.is_empty() && !name.contains('.'))
            .ok_or("the certificate does not say which instance it is for")?;
        let expires = certificate.validity().not_after.timestamp();
        Ok(Self {
            trust_domain: trust_domain.into(),
            service: service.into(),
            instance: instance.into(),
            expires: UNIX_EPOCH + Duration::from_secs(expires.try_into().unwrap_or(0)),
            serial: hexadecimal(certificate.raw_serial()).into(),
        })
    }
}

/// An integer in hexadecimal, without leading zero bytes.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let significant = bytes.iter().skip_while(|byte| **byte == 0);
    significant.map(|byte| format!("{byte:02x}")).collect()
}

/// Trust domain and service of a workload's id.
fn workload(uri: &str) -> Option<(&str, &str)> {
    let (trust_domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    let service = path.strip_prefix("ns/")?.strip_prefix(NAMESPACE)?.strip_prefix("/svc/")?;
    (!trust_domain.is_empty() && !service.is_empty() && !service.contains('/'))
        .then_some((trust_domain, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_id_is_read_as_it_is_written() {
        assert_eq!(workload(&workload_id("td", "api")), Some(("td", "api")));
        for other in [
            control_plane_id("td"),
            "spiffe://td/ns/other/svc/api".to_owned(),
            "spiffe://td/ns/default/svc/api/x".to_owned(),
            "spiffe://td/ns/default/svc/".to_owned(),
            "spiffe:///ns/default/svc/api".to_owned(),
            "https://td/ns/default/svc/api".to_owned(),
        ] {
            assert_eq!(workload(&other), None, "{other}");
        }
    }
}
