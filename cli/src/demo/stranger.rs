//! A TLS client that does not belong to the mesh: its certificate comes from an authority of its own. It looks at the
//! certificates that sidecars show, as anybody on the network could, and tries to call them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// For a handshake and an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A leaf certificate as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Serial number, in hexadecimal.
    pub(crate) serial: String,
    /// From the beginning of its validity to the end.
    pub(crate) life: Duration,
}

/// The certificate that is shown at this address. No call is made.
pub(crate) async fn look(address: SocketAddr) -> anyhow::Result<Leaf> {
    let stream = tokio::time::timeout(PATIENCE, connect(address)).await??;
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    leaf(shown.context("no certificate was shown")?)
}

/// Tries to call, and tells how it is refused: the name of the TLS alert.
///
/// # Errors
/// When it is let in, or the connection ends without an alert.
pub(crate) async fn call(address: SocketAddr) -> anyhow::Result<String> {
    let attempt = async {
        // In TLS 1.3 the client is done before its certificate is looked at: the refusal may come later, with the
        // first read.
        let mut stream = connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: api:9000\r\n\r\n").await?;
        let mut answer = [0; 64];
        stream.read(&mut answer).await.map(|read| (read, answer))
    };
    let error = match tokio::time::timeout(PATIENCE, attempt).await? {
        Ok((0, _)) => bail!("the connection was closed without a reason"),
        Ok((read, answer)) => {
            bail!("it was let in: {}", String::from_utf8_lossy(&answer[..read.min(answer.len())]))
        }
        Err(error) => error,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Ok(format!("TLS alert {alert:?}")),
        _ => Err(anyhow!(error).context("the connection ended without a TLS alert")),
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    let config = config().map_err(std::io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn config() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = foreign_identity()?;
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Curious(provider)))
        .with_client_auth_cert(chain, key)?)
}

/// A certificate with a name of the mesh, by an authority that is not the mesh's.
fn foreign_identity() -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let authority_key = rcgen::KeyPair::generate()?;
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate()?;
    let mut leaf = rcgen::CertificateParams::default();
    let name = "spiffe://outrigger.local/ns/default/svc/web".to_owned();
    leaf.subject_alt_names = vec![rcgen::SanType::URI(name.try_into()?)];
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = leaf.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow!(error))?;
    Ok((vec![certificate.der().clone()], key))
}

fn leaf(der: &CertificateDer<'_>) -> anyhow::Result<Leaf> {
    let (_, certificate) = X509Certificate::from_der(der).context("the certificate shown")?;
    let validity = certificate.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
    Ok(Leaf {
        serial: certificate.raw_serial_as_string(),
        life: Duration::from_secs(u64::try_from(seconds)?),
    })
}

/// Takes every certificate: it wants to look, not to trust.
#[derive(Debug)]
struct Curious(Arc<CryptoProvider>);

impl ServerCertVerifier for Curious {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
