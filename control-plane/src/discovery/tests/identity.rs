//! Join and Renew over real TLS.

use super::*;
use crate::identity::PeerIdentity;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_proto::identity::v1::identity_client::IdentityClient;
use outrigger_proto::identity::v1::{Credentials, JoinRequest, RenewRequest};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::PrivatePkcs8KeyDer;
use sha2::{Digest, Sha256};
use tonic::Code;

/// Trusts a chain that holds the pinned root, as a sidecar that joins does.
#[derive(Debug)]
struct Pinned {
    pin: String,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates.iter().find(|certificate| {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
            URL_SAFE_NO_PAD.encode(Sha256::digest(parsed.public_key().raw)) == self.pin
        });
        let root = root.ok_or_else(|| rustls::Error::General("the pin is not there".to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).unwrap();
        let chain = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            provider(),
        );
        Chain(chain.build().unwrap()).verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What a token says.
fn content(token: &str) -> serde_json::Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix("orj1.").unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn joining(token: &str) -> Channel {
    let content = content(token);
    let pin = content["pin"].as_str().unwrap().to_owned();
    let address = content["cp"].as_str().unwrap().parse().unwrap();
    connect(address, verified_by(Arc::new(Pinned { pin }), None)).await.unwrap()
}

/// A request that names somebody else.
fn csr(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["ledger-1.ledger".to_owned()]).unwrap();
    let other = "spiffe://outrigger.local/ns/default/svc/ledger";
    params.subject_alt_names.push(SanType::URI(other.try_into().unwrap()));
    params.serialize_request(key).unwrap().der().to_vec()
}

pub(super) async fn join(token: &str, instance: &str) -> Result<(Credentials, KeyPair), Status> {
    let key = KeyPair::generate().unwrap();
    let request =
        JoinRequest { token: token.to_owned(), csr_der: csr(&key), instance: instance.to_owned() };
    let answer = IdentityClient::new(joining(token).await).join(request).await?;
    Ok((answer.into_inner(), key))
}

fn peer(credentials: &Credentials) -> PeerIdentity {
    PeerIdentity::from_certificate(&credentials.certificate_chain_der[0]).unwrap()
}

#[tokio::test]
async fn a_token_gives_the_identity_that_it_is_for_whatever_the_request_asks() {
    let plane = Plane::new("{kind: Mesh, name: default, spec: {leafTtl: 1h}}").await;
    let token = plane.live.tokens.issue("api", Duration::from_secs(60), 1).unwrap().token;
    let (credentials, _) = join(&token, "api-1").await.unwrap();
    assert_eq!(credentials.spiffe_id, "spiffe://outrigger.local/ns/default/svc/api");
    assert_eq!((&*credentials.service, &*credentials.instance), ("api", "api-1"));
    let peer = peer(&credentials);
    assert_eq!((&*peer.service, &*peer.instance), ("api", "api-1"));
    assert_eq!(credentials.not_after - credentials.not_before, 3630);
    assert_eq!(credentials.trust_bundle_der, [plane.live.authority.roots()[0].to_vec()]);
}

#[tokio::test]
async fn a_renewal_keeps_the_name_and_takes_the_new_key() {
    let plane = Plane::new("").await;
    let token = plane.live.tokens.issue("api", Duration::from_secs(60), 1).unwrap().token;
    let (credentials, key) = join(&token, "api-1").await.unwrap();
    let chain = credentials.certificate_chain_der.iter().cloned().map(CertificateDer::from);
    let identity = (chain.collect(), PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    let config = trusting(&plane.live.authority.roots(), Some(identity));
    let channel = connect(plane.xds, config).await.unwrap();
    let new_key = KeyPair::generate().unwrap();
    let request = RenewRequest { csr_der: csr(&new_key) };
    let renewed = IdentityClient::new(channel).renew(request).await.unwrap().into_inner();
    assert_eq!((&*renewed.service, &*renewed.instance), ("api", "api-1"));
    let leaf = &renewed.certificate_chain_der[0];
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
    assert_eq!(&*parsed.public_key().subject_public_key.data, new_key.public_key_raw());
}

#[tokio::test]
async fn a_renewal_needs_a_certificate() {
    let plane = Plane::new("").await;
    let token = plane.live.tokens.issue("api", Duration::from_secs(60), 1).unwrap().token;
    let request = RenewRequest { csr_der: csr(&KeyPair::generate().unwrap()) };
    let status = IdentityClient::new(joining(&token).await).renew(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_that_is_used_up_or_expired_is_refused_by_name() {
    let plane = Plane::new("").await;
    let token = plane.live.tokens.issue("api", Duration::from_secs(60), 1).unwrap().token;
    join(&token, "api-1").await.unwrap();
    let status = join(&token, "api-2").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("used up"), "{status}");
    let token = plane.live.tokens.issue("api", Duration::ZERO, 1).unwrap().token;
    let status = join(&token, "api-1").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("expired"), "{status}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_costs_no_use_of_the_token() {
    let plane = Plane::new("").await;
    let token = plane.live.tokens.issue("api", Duration::from_secs(60), 1).unwrap().token;
    let status = join(&token, "Api 1").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("instance:"), "{status}");
    let mut client = IdentityClient::new(joining(&token).await);
    let request = JoinRequest {
        token: token.clone(),
        csr_der: b"no request".to_vec(),
        instance: "api-1".to_owned(),
    };
    let status = client.join(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    join(&token, "api-1").await.unwrap();
}

#[tokio::test]
async fn with_another_pin_the_handshake_fails_before_the_token_is_sent() {
    let plane = Plane::new("").await;
    let other = Plane::new("").await;
    let token = plane.live.tokens.issue("api", Duration::from_secs(60), 1).unwrap().token;
    let pin = content(&token)["pin"].as_str().unwrap().to_owned();
    let config = verified_by(Arc::new(Pinned { pin }), None);
    assert!(connect(other.xds, config).await.is_err());
}
