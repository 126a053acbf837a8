//! Why a handshake failed.

use std::fmt;
use std::io;

/// A failed handshake, or a peer that was refused after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For counters.
    pub(crate) kind: FailureKind,
    /// For logs and for the person who has to fix it: names the peer's certificate and the cause.
    pub(crate) text: String,
}

/// What a failure counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The peer showed no certificate: `ssl.fail_verify_no_cert`.
    NoCertificate,
    /// No name in the peer's certificate is an allowed one: `ssl.fail_verify_san`.
    San,
    /// The certificate or key is not one of the pinned ones: `ssl.fail_verify_cert_hash`.
    CertificateHash,
    /// The chain does not verify (foreign issuer, expired, revoked, ...): `ssl.fail_verify_error`.
    Verify,
    /// The peer refused us with an alert: `ssl.connection_error`.
    RefusedByPeer,
    /// The peer does not speak TLS: `ssl.connection_error`.
    NotTls,
    /// Nothing in common, or a broken message: `ssl.connection_error`.
    Protocol,
    /// The connection broke during the handshake.
    Io,
}

impl Failure {
    /// The failure behind the error that a handshake ended with. Call it on the thread of the handshake, right after it.
    pub(crate) fn of_handshake(error: &io::Error) -> Self {
        Self { kind: FailureKind::Io, text: error.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
