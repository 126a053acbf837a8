//! Whether a peer is who it has to be: its chain leads to a trusted root, is valid now and not revoked, and one of its
//! names or its hash is as configured. One judge serves both sides; the wrappers at the end give it to the library.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use sha2::{Digest, Sha256};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder,
};
use x509_parser::prelude::X509Certificate;

use crate::config::secret::ValidationContext;

use super::certificate::{self, Names, claimed_name, distinguished_name};
use super::failure::{Failure, FailureKind};
use super::provider::provider;
use super::resumption::SoonestExpiry;
use super::san;

/// Trusted roots and revocation lists, parsed once for all contexts that share them.
#[derive(Debug, Default)]
pub(super) struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
}

impl Roots {
    /// The roots and lists of a context.
    ///
    /// # Errors
    /// If one does not parse, which its conversion has ruled out.
    pub(super) fn new(context: &ValidationContext) -> Result<Self, webpki::Error> {
        let anchors = context
            .roots
            .iter()
            .map(|root| Ok(webpki::anchor_from_trusted_cert(root)?.to_owned()))
            .collect::<Result<_, webpki::Error>>()?;
        let crls = context
            .crls
            .iter()
            .map(|crl| Ok(OwnedCertRevocationList::from_der(crl)?.into()))
            .collect::<Result<_, webpki::Error>>()?;
        Ok(Self { certificates: context.roots.clone(), anchors, crls })
    }
}

/// How a peer is judged.
#[derive(Debug)]
pub(super) struct Trust {
    roots: Arc<Roots>,
    /// What stands beside the roots; its own roots and lists are in `roots`.
    context: ValidationContext,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    expiry: Arc<SoonestExpiry>,
}

/// What a certificate has to be good for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Server,
    Client,
}

/// An alert for the peer, and the cause for us.
type Refusal = (CertificateError, Failure);

impl Trust {
    pub(super) fn new(roots: Arc<Roots>, context: ValidationContext) -> Self {
        let hints = if context.suppress_client_ca_list {
            Vec::new()
        } else {
            let subjects = roots.anchors.iter().map(|anchor| &anchor.subject);
            subjects.map(|subject| DistinguishedName::in_sequence(subject)).collect()
        };
        Self {
            roots,
            context,
            hints,
            algorithms: provider().signature_verification_algorithms,
            expiry: Arc::new(SoonestExpiry::new()),
        }
    }

    /// Until when sessions may be resumed that this judge let begin.
    pub(super) fn expiry(&self) -> Arc<SoonestExpiry> {
        Arc::clone(&self.expiry)
    }

    /// Whether a peer that passes has a verified chain, and not merely any.
    pub(super) fn verifies_chain(&self) -> bool {
        !self.roots.anchors.is_empty() && !self.context.accept_untrusted
    }

    /// Whether an expired certificate is refused.
    pub(super) fn checks_expiry(&self) -> bool {
        self.verifies_chain() && !self.context.allow_expired
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), TlsError> {
        let verdict = self.judge_chain(leaf, intermediates, purpose, now);
        let verdict = verdict.and_then(|()| self.judge_names(leaf));
        match verdict {
            Err((alert, failure)) if !self.context.accept_untrusted => {
                Failure::remember(Some(failure));
                Err(TlsError::InvalidCertificate(alert))
            }
            _ => {
                Failure::remember(None);
                Ok(())
            }
        }
    }

    fn judge_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        if self.roots.anchors.is_empty() {
            return Ok(());
        }
        let chain = || std::iter::once(leaf).chain(intermediates);
        let expiry = chain().filter_map(not_after).min();
        let time = match expiry {
            // The library always looks at the time; this one is before the first expiry in the chain.
            Some(expiry) if self.context.allow_expired && expiry < now.as_secs() => {
                UnixTime::since_unix_epoch(std::time::Duration::from_secs(expiry))
            }
            _ => now,
        };
        self.verify_path(leaf, intermediates, purpose, time)
            .map_err(|error| refusal(&error, leaf, now))?;
        if let Some(expiry) = expiry.filter(|_| !self.context.allow_expired) {
            self.expiry.note(expiry, now.as_secs());
        }
        Ok(())
    }

    fn verify_path(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        time: UnixTime,
    ) -> Result<(), webpki::Error> {
        // A certificate that is itself trusted needs no issuer. The library knows that only of roots, and takes none
        // for a peer's own; `openssl req -x509` makes such certificates, and Envoy takes them.
        if self.roots.certificates.iter().any(|root| root == leaf) {
            return in_its_time(leaf, time);
        }
        let usage = match purpose {
            Purpose::Server => KeyUsage::server_auth(),
            Purpose::Client => KeyUsage::client_auth(),
        };
        let crls: Vec<&CertRevocationList<'_>> = self.roots.crls.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|builder| {
            let depth = if self.context.only_verify_leaf_crl {
                RevocationCheckDepth::EndEntity
            } else {
                RevocationCheckDepth::Chain
            };
            // One that is over says nothing about what was revoked since.
            builder.with_depth(depth).with_expiration_policy(ExpirationPolicy::Enforce).build()
        });
        EndEntityCert::try_from(leaf)?.verify_for_usage(
            self.algorithms.all,
            &self.roots.anchors,
            intermediates,
            time,
            usage,
            revocation,
            None,
        )?;
        Ok(())
    }

    /// Whether a list names the certificate of a peer, or one above it.
    pub(super) fn revokes(&self, chain: &[CertificateDer<'_>], is_client: bool) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let purpose = if is_client { Purpose::Client } else { Purpose::Server };
        let verdict = self.verify_path(leaf, intermediates, purpose, UnixTime::now());
        !self.roots.crls.is_empty() && verdict == Err(webpki::Error::CertRevoked)
    }

    fn judge_names(&self, leaf: &CertificateDer<'_>) -> Result<(), Refusal> {
        let ValidationContext { san_matchers, certificate_hashes, spki_hashes, .. } = &self.context;
        if !san_matchers.is_empty() {
            let names = certificate::parse(leaf).map(|leaf| Names::of(&leaf)).unwrap_or_default();
            if !san::matches(san_matchers, &names) {
                return Err(other(
                    FailureKind::San,
                    format!(
                        "no name in the peer's certificate is an allowed one: it has {}; expected {}",
                        names.describe(),
                        san::describe(san_matchers)
                    ),
                ));
            }
        }
        if certificate_hashes.is_empty() && spki_hashes.is_empty() {
            return Ok(());
        }
        let hash: [u8; 32] = Sha256::digest(leaf).into();
        let spki = || -> Option<[u8; 32]> {
            Some(Sha256::digest(certificate::parse(leaf)?.public_key().raw).into())
        };
        if certificate_hashes.contains(&hash)
            || spki().is_some_and(|spki| spki_hashes.contains(&spki))
        {
            return Ok(());
        }
        Err(other(
            FailureKind::CertificateHash,
            format!("the {} is not one of the pinned ones", claimed_name(leaf)),
        ))
    }
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    u64::try_from(certificate::parse(certificate)?.validity().not_after.timestamp()).ok()
}

fn in_its_time(leaf: &CertificateDer<'_>, time: UnixTime) -> Result<(), webpki::Error> {
    let bound = |timestamp: i64| {
        let seconds = u64::try_from(timestamp).unwrap_or(0);
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    };
    let leaf = certificate::parse(leaf).ok_or(webpki::Error::BadDer)?;
    let not_before = bound(leaf.validity().not_before.timestamp());
    let not_after = bound(leaf.validity().not_after.timestamp());
    if time < not_before {
        return Err(webpki::Error::CertNotValidYet { time, not_before });
    }
    if time > not_after {
        return Err(webpki::Error::CertExpired { time, not_after });
    }
    Ok(())
}

fn other(kind: FailureKind, text: String) -> Refusal {
    let failure = Failure::new(kind, text);
    (CertificateError::Other(OtherError(Arc::new(failure.clone()))), failure)
}

/// The alert for the peer, and a sentence that names its certificate and what is wrong with it.
fn refusal(error: &webpki::Error, leaf: &CertificateDer<'_>, now: UnixTime) -> Refusal {
    use webpki::Error;
    let peer = claimed_name(leaf);
    let (alert, cause) = match error {
        Error::CertExpired { not_after, .. } => (
            CertificateError::Expired,
            format!("expired {} s ago", now.as_secs().saturating_sub(not_after.as_secs())),
        ),
        Error::CertNotValidYet { not_before, .. } => (
            CertificateError::NotValidYet,
            format!("is valid only in {} s", not_before.as_secs().saturating_sub(now.as_secs())),
        ),
        Error::UnknownIssuer => (
            CertificateError::UnknownIssuer,
            format!("was issued by {}, which is not trusted here", issuer(leaf)),
        ),
        // The library says so when a trusted root has the issuer's name, but another key.
        Error::InvalidSignatureForPublicKey => (
            CertificateError::UnknownIssuer,
            format!("was not signed by the trusted root of that name, {}", issuer(leaf)),
        ),
        Error::CertRevoked => (CertificateError::Revoked, "is revoked".to_owned()),
        Error::UnknownRevocationStatus => (
            CertificateError::UnknownRevocationStatus,
            "is not covered by any of the revocation lists".to_owned(),
        ),
        Error::CrlExpired { .. } => (
            CertificateError::ExpiredRevocationList,
            "cannot be checked: the revocation list of its issuer is over".to_owned(),
        ),
        Error::RequiredEkuNotFoundContext(_) => (
            CertificateError::InvalidPurpose,
            "is not for this purpose (extended key usage)".to_owned(),
        ),
        Error::CaUsedAsEndEntity => (
            CertificateError::Other(OtherError(Arc::new(error.clone()))),
            "is that of an authority, not of a peer".to_owned(),
        ),
        _ => (
            CertificateError::Other(OtherError(Arc::new(error.clone()))),
            format!("does not verify: {error}"),
        ),
    };
    (alert, Failure::new(FailureKind::Verify, format!("the {peer} {cause}")))
}

fn issuer(leaf: &CertificateDer<'_>) -> String {
    let name = |leaf: X509Certificate<'_>| distinguished_name(leaf.issuer());
    certificate::parse(leaf)
        .map_or_else(|| "someone unknown".to_owned(), |leaf| format!("{:?}", name(leaf)))
}

/// Judges servers. Without a [`Trust`] every one is accepted, as Envoy does without a validation context.
#[derive(Debug)]
pub(super) struct ServerJudge(pub(super) Option<Arc<Trust>>);

impl ServerCertVerifier for ServerJudge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if let Some(trust) = &self.0 {
            trust.judge(end_entity, intermediates, Purpose::Server, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Judges clients.
#[derive(Debug)]
pub(super) struct ClientJudge {
    pub(super) trust: Option<Arc<Trust>>,
    pub(super) is_required: bool,
}

impl ClientCertVerifier for ClientJudge {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trust.as_ref().map_or(&[], |trust| &trust.hints)
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        if let Some(trust) = &self.trust {
            trust.judge(end_entity, intermediates, Purpose::Client, now)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
