//! Why a handshake failed.

use std::cell::RefCell;
use std::fmt;
use std::io;

use rustls::{AlertDescription, Error as TlsError, InvalidMessage};

use crate::stats::TlsCells;

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

impl FailureKind {
    /// Counts a failed handshake, on either side.
    pub(crate) fn count(self, stats: &TlsCells) {
        match self {
            Self::NoCertificate => stats.fail_verify_no_cert.inc(),
            Self::San => stats.fail_verify_san.inc(),
            Self::CertificateHash => stats.fail_verify_cert_hash.inc(),
            Self::Verify => stats.fail_verify_error.inc(),
            Self::RefusedByPeer | Self::NotTls | Self::Protocol | Self::Io => {}
        }
        stats.connection_error.inc();
    }
}

thread_local! {
    /// The verifier's last words. TLS errors say what alert goes out and little else (nothing of the issuer that was
    /// not trusted, or of the name that was wanted), and the verifier has no other way to tell the task that waits for
    /// the handshake. It runs inside that task's poll, and the task sees the error in the same poll.
    static LAST: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

impl Failure {
    pub(super) fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Keeps what the verifier found for [`Failure::of_handshake`]; `None` for a peer that was accepted.
    pub(super) fn remember(failure: Option<Self>) {
        LAST.with(|last| *last.borrow_mut() = failure);
    }

    /// The failure behind the error that a handshake ended with. Call it on the thread of the handshake, right after it.
    pub(crate) fn of_handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        let Some(tls) = tls else {
            return Self::new(
                FailureKind::Io,
                format!("connection lost in the TLS handshake: {error}"),
            );
        };
        match tls {
            TlsError::NoCertificatesPresented => Self::new(
                FailureKind::NoCertificate,
                "the peer showed no certificate, and one is required",
            ),
            TlsError::InvalidCertificate(reason) => LAST
                .with(|last| last.borrow_mut().take())
                .unwrap_or_else(|| Self::new(FailureKind::Verify, reason.to_string())),
            TlsError::AlertReceived(alert) => {
                Self::new(FailureKind::RefusedByPeer, refusal(*alert))
            }
            TlsError::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::new(FailureKind::NotTls, "the peer does not speak TLS"),
            other => Self::new(FailureKind::Protocol, other.to_string()),
        }
    }
}

/// What an alert means to the one who gets it.
fn refusal(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::UnknownCA => "it does not trust the issuer of our certificate",
        AlertDescription::CertificateExpired => "our certificate has expired",
        AlertDescription::CertificateRevoked => "our certificate is revoked",
        AlertDescription::CertificateRequired => "it requires a certificate, and we showed none",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it does not accept our certificate"
        }
        AlertDescription::AccessDenied => "our certificate is valid, but not allowed",
        AlertDescription::UnrecognisedName => "it does not know the server name we asked for",
        AlertDescription::NoApplicationProtocol => "it speaks none of our protocols (ALPN)",
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
            "we have no TLS version or cipher in common"
        }
        _ => return format!("the peer refused the TLS handshake: alert {alert:?}"),
    };
    format!("the peer refused the TLS handshake: {meaning} (alert {alert:?})")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
