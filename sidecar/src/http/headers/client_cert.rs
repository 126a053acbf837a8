//! `x-forwarded-client-cert`: what the client's certificate says, for whoever comes behind us.

use http::header::{HeaderMap, HeaderValue};

use super::{Peer, Seen, X_FORWARDED_CLIENT_CERT};
use crate::config::http_connection_manager::{
    ForwardClientCert, ForwardClientCertMode, HttpConnectionManager,
};
use crate::http::matching::joined;
use crate::tls::PeerIdentity;

pub(super) fn apply(
    headers: &mut HeaderMap,
    seen: Seen,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
) {
    let rule = &config.forward_client_cert;
    let identity = match (rule.mode, peer.identity) {
        (ForwardClientCertMode::AlwaysForwardOnly, _) => return,
        (ForwardClientCertMode::Sanitize, _) | (_, None) => {
            if seen.any(Seen::XFCC) {
                headers.remove(X_FORWARDED_CLIENT_CERT);
            }
            return;
        }
        (ForwardClientCertMode::ForwardOnly, _) => return,
        (ForwardClientCertMode::AppendForward | ForwardClientCertMode::SanitizeSet, Some(peer)) => {
            peer
        }
    };
    let mut text = Vec::new();
    if rule.mode == ForwardClientCertMode::AppendForward
        && let Some(before) = joined(headers, &X_FORWARDED_CLIENT_CERT)
    {
        text.extend_from_slice(&before);
        text.push(b',');
    }
    text.extend_from_slice(element(identity, rule, peer.local_uri_sans).as_bytes());
    match HeaderValue::from_bytes(&text) {
        Ok(value) => drop(headers.insert(X_FORWARDED_CLIENT_CERT, value)),
        Err(_) => drop(headers.remove(X_FORWARDED_CLIENT_CERT)),
    }
}

fn element(
    identity: &PeerIdentity,
    rule: &ForwardClientCert,
    local_uri_sans: &[Box<str>],
) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for uri in local_uri_sans {
        // Writing to a string cannot fail.
        let _ = write!(text, "By={uri};");
    }
    text.push_str("Hash=");
    for byte in identity.sha256 {
        let _ = write!(text, "{byte:02x}");
    }
    let pem =
        |text: &mut String, key: &str, certificates: &[rustls_pki_types::CertificateDer<'_>]| {
            let _ = write!(text, ";{key}=\"");
            for certificate in certificates {
                text.push_str(&crate::access_log::url_encoded_pem(certificate));
            }
            text.push('"');
        };
    if rule.cert {
        pem(&mut text, "Cert", identity.chain.get(..1).unwrap_or_default());
    }
    if rule.chain {
        pem(&mut text, "Chain", &identity.chain);
    }
    if rule.subject {
        let _ = write!(text, ";Subject=\"{}\"", identity.subject.replace('"', "\\\""));
    }
    if rule.uri {
        if identity.uri_sans.is_empty() {
            text.push_str(";URI=");
        }
        for uri in &identity.uri_sans {
            let _ = write!(text, ";URI={uri}");
        }
    }
    if rule.dns {
        for name in &identity.dns_sans {
            let _ = write!(text, ";DNS={name}");
        }
    }
    text
}
