//! From a join token to the first identity.
//!
//! Two connections. The first only completes a TLS handshake and looks at the certificates that the server shows: one of
//! them has to be a root with the key that the token pins. The second verifies the server by that root as any connection to
//! the control plane does, and only then sends the token. So a server that merely claims to be the control plane never
//! sees it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_proto::identity::v1::JoinRequest;
use outrigger_proto::identity::v1::identity_client::IdentityClient;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use super::identity::Identity;
use super::token::Token;
use super::{Error, TRUST, bootstrap};
use crate::config::secret::{Secret, SecretValue, ValidationContext};
use crate::tls;
use crate::xds::{ConnectError, ControlPlane};

/// Longest wait for the first connection.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Joins.
pub(super) async fn join(token: &Token, instance: &str) -> Result<Identity, Error> {
    let root = pinned_root(token).await?;
    let mut contexts = tls::Contexts::new();
    let trust = ValidationContext { roots: vec![root], ..ValidationContext::default() };
    let trust = Secret { name: TRUST.into(), value: SecretValue::Validation(Arc::new(trust)) };
    contexts.set_secret(trust).map_err(Error::Unusable)?;
    let cluster = bootstrap::joining_cluster(&token.control_plane, &token.trust_domain)?;
    let control_plane =
        ControlPlane::new(Arc::new(cluster), &mut contexts).map_err(Error::Unusable)?;
    let channel = control_plane.connect(None).await?;

    let (key, csr_der) = request()?;
    let request = JoinRequest { token: token.text.clone(), csr_der, instance: instance.to_owned() };
    let issued =
        IdentityClient::new(channel).join(request).await.map_err(|status| refused(&status))?;
    Ok(Identity::new(&token.control_plane, &token.trust_domain, issued.into_inner(), &key))
}

/// What the server said, for the person who started us.
pub(super) fn refused(status: &tonic::Status) -> Error {
    Error::Refused(status.message().to_owned())
}

/// A new key, and a request for a certificate for it. The request names nobody: names come from the token or from the
/// certificate before.
pub(super) fn request() -> Result<(rcgen::KeyPair, Vec<u8>), rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let params = rcgen::CertificateParams::new(Vec::new())?;
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok((key, request))
}

/// The certificate with the pinned key among those that the server shows.
async fn pinned_root(token: &Token) -> Result<CertificateDer<'static>, Error> {
    let address = &token.control_plane;
    let unreachable = |reason: String| {
        Error::Unreachable(ConnectError::Connect { address: address.clone(), reason })
    };
    let handshake = async {
        let tcp = TcpStream::connect(address.as_str())
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let seen = Arc::new(Seen::default());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unreachable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::from(std::net::IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED));
        let handshake = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        let found = seen.take().into_iter().find(|der| spki_hash(der) == Some(token.pin));
        found.ok_or_else(|| Error::Pin {
            address: address.clone(),
            reason: match handshake {
                Ok(_) => "its certificate authority has another key than the one pinned".to_owned(),
                Err(error) => tls::Failure::of_handshake(&error).to_string(),
            },
        })
    };
    tokio::time::timeout(TIMEOUT, Box::pin(handshake))
        .await
        .map_err(|_| unreachable("timed out".to_owned()))?
}

fn spki_hash(der: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(Sha256::digest(certificate.public_key().raw).into())
}

/// Remembers the certificates of a server. Decides nothing: nothing is sent over its connection, and the root that is
/// found judges the next one.
#[derive(Debug, Default)]
struct Seen(Mutex<Vec<CertificateDer<'static>>>);

impl Seen {
    fn take(&self) -> Vec<CertificateDer<'static>> {
        self.0.lock().map(|mut seen| std::mem::take(&mut *seen)).unwrap_or_default()
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut seen) = self.0.lock() {
            seen.extend(
                std::iter::once(end_entity)
                    .chain(intermediates)
                    .map(|der| der.clone().into_owned()),
            );
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
