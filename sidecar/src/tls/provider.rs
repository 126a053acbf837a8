//! The cryptography that all of TLS uses here.

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::version::{TLS12, TLS13};

use crate::config::tls::TlsVersions;

/// AWS-LC. Key exchange as Envoy offers it, X25519 first and then P-256: the hybrid with ML-KEM, which is the library's
/// own first choice, makes the first flight longer than one packet.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// The library's names of the allowed versions.
pub(super) fn versions(allowed: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    let [newer, older] = [&BOTH[..1], &BOTH[1..]];
    match (allowed.tls12, allowed.tls13) {
        (true, false) => older,
        (false, true) => newer,
        // Neither cannot be configured.
        (true, true) | (false, false) => &BOTH,
    }
}
