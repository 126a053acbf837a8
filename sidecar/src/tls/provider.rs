//! The cryptography that all of TLS uses here.

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::version::{TLS12, TLS13};

use crate::config::tls::{CommonTls, TlsVersions};

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

/// As [`provider`], with what a context allows.
pub(super) fn provider_for(common: &CommonTls) -> Arc<CryptoProvider> {
    let CommonTls { cipher_suites, groups, certificates: _, validation: _, alpn: _, versions: _ } =
        common;
    if cipher_suites.is_empty() && groups.is_empty() {
        return provider();
    }
    let mut chosen = CryptoProvider::clone(&provider());
    if !cipher_suites.is_empty() {
        let all = &chosen.cipher_suites;
        let newer = all.iter().filter(|suite| suite.tls13().is_some());
        let allowed = cipher_suites
            .iter()
            .filter_map(|wanted| all.iter().find(|suite| suite.suite() == *wanted));
        chosen.cipher_suites = newer.chain(allowed).copied().collect();
    }
    if !groups.is_empty() {
        let all = aws_lc_rs::ALL_KX_GROUPS;
        let allowed =
            groups.iter().filter_map(|wanted| all.iter().find(|group| group.name() == *wanted));
        chosen.kx_groups = allowed.copied().collect();
    }
    Arc::new(chosen)
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
