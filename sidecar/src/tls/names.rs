//! What was negotiated, in the names that Envoy logs.

use std::sync::Arc;

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

use super::PeerIdentity;

/// What TLS says of a client.
#[derive(Debug)]
pub(crate) struct TlsFacts {
    /// Its certificate, if it showed one.
    pub(crate) identity: Option<PeerIdentity>,
    /// The certificate that it was shown.
    pub(crate) own: Option<Arc<PeerIdentity>>,
    /// The server name it asked for.
    pub(crate) server_name: Option<Box<str>>,
    /// `TLSv1.3`
    pub(crate) version: &'static str,
    /// In OpenSSL's names.
    pub(crate) cipher: Option<Box<str>>,
    /// Of the key exchange; `X25519`
    pub(crate) group: Option<Box<str>>,
}

/// `TLSv1.3`
pub(crate) fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    }
}

/// A cipher suite as OpenSSL names it.
pub(crate) fn cipher_name(suite: CipherSuite) -> Box<str> {
    let name = format!("{suite:?}");
    match name.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}").into(),
        None => name
            .trim_start_matches("TLS_")
            .replace("_WITH_", "_")
            .replace("AES_128", "AES128")
            .replace("AES_256", "AES256")
            .replace("CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305")
            .replace('_', "-")
            .into(),
    }
}

/// A key exchange group as BoringSSL names it.
pub(crate) fn group_name(group: NamedGroup) -> Box<str> {
    match group {
        NamedGroup::secp256r1 => "P-256".into(),
        NamedGroup::secp384r1 => "P-384".into(),
        NamedGroup::secp521r1 => "P-521".into(),
        other => format!("{other:?}").into(),
    }
}
