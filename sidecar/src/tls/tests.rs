//! Handshakes between our own two sides, over memory: who is let in, who is refused and why, and what survives a change.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, HandshakeKind, NamedGroup};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsConnector, client, server};

use super::{ClientContext, Contexts, Failure, FailureKind, PeerIdentity, ServerContext};
use crate::config::matcher::{StringMatcher, StringPattern};
use crate::config::secret::{CertificateSource, Secret, SecretValue, ValidationContext};
use crate::config::tls::{
    CommonTls, DownstreamTls, SanKind, SanMatcher, SecretRef, TlsVersions, UpstreamTls, Validation,
};

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, uri: &str) -> Arc<CertifiedKey> {
        self.issue_with(uri, |_| {})
    }

    fn issue_with(
        &self,
        uri: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "peer");
        params.distinguished_name.push(DnType::OrganizationName, "acme, inc");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        certified(certificate.der().clone(), &key)
    }

    fn trust(&self) -> ValidationContext {
        ValidationContext { roots: vec![self.certificate.clone()], ..ValidationContext::default() }
    }
}

fn certified(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<CertifiedKey> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Arc::new(CertifiedKey::new(vec![certificate], any_supported_type(&der).unwrap()))
}

fn serial(key: &CertifiedKey) -> String {
    PeerIdentity::of(&key.cert, true).unwrap().serial.into()
}

fn expects(uri: &str) -> Vec<SanMatcher> {
    let pattern = StringPattern::Exact(uri.into());
    vec![SanMatcher { kind: SanKind::Uri, matcher: StringMatcher { pattern, ignore_case: false } }]
}

fn common(certificates: Vec<CertificateSource>, validation: Validation) -> CommonTls {
    CommonTls {
        certificates,
        validation,
        alpn: vec![b"h2".as_slice().into()],
        versions: TlsVersions { tls12: true, tls13: true },
        cipher_suites: Vec::new(),
        groups: Vec::new(),
    }
}

fn secret_ref(name: &str) -> SecretRef {
    SecretRef { name: name.into(), source: None }
}

/// A mutual pair whose certificate and trust are secrets: `server` and `client`, `roots`.
struct Pair {
    contexts: Contexts,
    server: Arc<ServerContext>,
    client: Arc<ClientContext>,
}

const SERVER: &str = "spiffe://test/ns/default/svc/server";
const CLIENT: &str = "spiffe://test/ns/default/svc/client";

fn downstream(certificate: CertificateSource, validation: Validation) -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        common: common(vec![certificate], validation),
        require_client_certificate: true,
        disable_stateless_session_resumption: false,
        disable_stateful_session_resumption: false,
        fingerprint: 1,
    })
}

fn upstream(certificates: Vec<CertificateSource>, validation: Validation) -> Arc<UpstreamTls> {
    Arc::new(UpstreamTls {
        common: common(certificates, validation),
        sni: Some("p80.server".into()),
        max_session_keys: 1,
        fingerprint: 2,
    })
}

impl Pair {
    fn new(authority: &Authority) -> Self {
        let mut contexts = Contexts::new();
        let server = contexts
            .server(&downstream(
                CertificateSource::Secret(secret_ref("server")),
                Validation::Secret(secret_ref("roots")),
            ))
            .unwrap();
        let default = ValidationContext { san_matchers: expects(SERVER), ..Default::default() };
        let client = contexts
            .client(&upstream(
                vec![CertificateSource::Secret(secret_ref("client"))],
                Validation::Combined { default: Arc::new(default), secret: secret_ref("roots") },
            ))
            .unwrap();
        assert!(
            server.accepting().is_none() && !client.is_ready(),
            "nothing works before its secrets"
        );
        let mut pair = Self { contexts, server, client };
        pair.certificate("server", authority.issue(SERVER));
        pair.certificate("client", authority.issue(CLIENT));
        pair.roots(authority.trust());
        pair
    }

    fn certificate(&mut self, name: &str, key: Arc<CertifiedKey>) {
        let value = SecretValue::Certificate(key);
        self.contexts.set_secret(Secret { name: name.into(), value }).unwrap();
    }

    fn roots(&mut self, context: ValidationContext) {
        let value = SecretValue::Validation(Arc::new(context));
        self.contexts.set_secret(Secret { name: "roots".into(), value }).unwrap();
    }

    async fn connect(&self) -> Outcome {
        handshake(&self.server, &self.client).await
    }
}

/// What each side got out of a handshake.
struct Outcome {
    server: Result<(server::TlsStream<DuplexStream>, Option<PeerIdentity>), Failure>,
    client: Result<(client::TlsStream<DuplexStream>, Option<PeerIdentity>), Failure>,
}

impl Outcome {
    /// The kind of handshake that both saw.
    fn kind(&self) -> HandshakeKind {
        let (server, _) = self.server.as_ref().unwrap();
        let (client, _) = self.client.as_ref().unwrap();
        assert_eq!(server.get_ref().1.handshake_kind(), client.get_ref().1.handshake_kind());
        server.get_ref().1.handshake_kind().unwrap()
    }

    fn server_refuses(self) -> Failure {
        self.server.map(|_| ()).unwrap_err()
    }

    fn client_refuses(self) -> Failure {
        self.client.map(|_| ()).unwrap_err()
    }
}

async fn handshake(server: &ServerContext, client: &ClientContext) -> Outcome {
    let (near, far) = tokio::io::duplex(1 << 16);
    let serve = async {
        let mut stream = server
            .accepting()
            .unwrap()
            .accept(far)
            .await
            .map_err(|error| Failure::of_handshake(&error))?;
        let peer = server.peer(stream.get_ref().1)?;
        // Tickets go out with the first data.
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        Ok((stream, peer))
    };
    let (config, name) = client.config().unwrap();
    let connect = async {
        let mut stream = TlsConnector::from(config)
            .connect(name, near)
            .await
            .map_err(|error| Failure::of_handshake(&error))?;
        let peer = client.peer(stream.get_ref().1)?;
        // Under TLS 1.3 the client is done before the server has judged it: only data tells.
        stream.read_u8().await.map_err(|error| Failure::of_handshake(&error))?;
        Ok((stream, peer))
    };
    let (server, client) = tokio::join!(serve, connect);
    Outcome { server, client }
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let pair = Pair::new(&Authority::new("root"));
    let outcome = pair.connect().await;
    let (_, peer) = outcome.server.unwrap();
    let peer = peer.unwrap();
    assert_eq!(*peer.uri_sans, [Box::from(CLIENT)]);
    assert_eq!(&*peer.subject, "O=acme\\, inc,CN=peer");
    assert_eq!(&*peer.issuer, "CN=root");
    assert!(peer.verified);
    let (stream, peer) = outcome.client.unwrap();
    assert_eq!(*peer.unwrap().uri_sans, [Box::from(SERVER)]);
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
}

#[tokio::test]
async fn a_client_of_a_foreign_authority_is_refused_with_unknown_ca_and_both_say_why() {
    let mut pair = Pair::new(&Authority::new("root"));
    pair.certificate("client", Authority::new("evil").issue(CLIENT));
    let outcome = pair.connect().await;
    let seen_by_client = outcome.client.as_ref().map(|_| ()).unwrap_err().clone();
    let failure = outcome.server_refuses();
    assert_eq!(failure.kind, FailureKind::Verify);
    assert!(failure.text.contains(CLIENT), "{failure}");
    assert!(failure.text.contains("\"CN=evil\", which is not trusted"), "{failure}");
    assert_eq!(seen_by_client.kind, FailureKind::RefusedByPeer);
    assert!(seen_by_client.text.contains("UnknownCA"), "{seen_by_client}");
}

#[tokio::test]
async fn a_foreign_authority_of_the_same_name_is_refused() {
    let mut pair = Pair::new(&Authority::new("root"));
    pair.certificate("client", Authority::new("root").issue(CLIENT));
    let failure = pair.connect().await.server_refuses();
    assert_eq!(failure.kind, FailureKind::Verify);
    assert!(failure.text.contains("CN=root"), "{failure}");
}

#[tokio::test]
async fn a_server_of_a_foreign_authority_is_refused() {
    let mut pair = Pair::new(&Authority::new("root"));
    pair.certificate("server", Authority::new("evil").issue(SERVER));
    let failure = pair.connect().await.client_refuses();
    assert_eq!(failure.kind, FailureKind::Verify);
    assert!(failure.text.contains("CN=evil"), "{failure}");
}

#[tokio::test]
async fn a_server_of_another_name_is_refused_naming_both_names() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    pair.certificate("server", authority.issue("spiffe://test/ns/default/svc/other"));
    let failure = pair.connect().await.client_refuses();
    assert_eq!(failure.kind, FailureKind::San);
    assert!(failure.text.contains("URI \"spiffe://test/ns/default/svc/other\""), "{failure}");
    assert!(failure.text.contains(&format!("expected URI {SERVER:?}")), "{failure}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    let anonymous = upstream(vec![], Validation::Secret(secret_ref("roots")));
    let anonymous = UpstreamTls { fingerprint: 3, ..UpstreamTls::clone(&anonymous) };
    pair.client = pair.contexts.client(&Arc::new(anonymous)).unwrap();
    let outcome = pair.connect().await;
    let seen_by_client = outcome.client.as_ref().map(|_| ()).unwrap_err().clone();
    assert_eq!(outcome.server_refuses().kind, FailureKind::NoCertificate);
    assert!(seen_by_client.text.contains("requires a certificate"), "{seen_by_client}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_unless_that_is_allowed() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    pair.certificate(
        "client",
        authority.issue_with(CLIENT, |params| {
            params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(3600);
            params.not_after = OffsetDateTime::now_utc() - Duration::from_secs(60);
        }),
    );
    let failure = pair.connect().await.server_refuses();
    assert_eq!(failure.kind, FailureKind::Verify);
    assert!(failure.text.contains("expired 6"), "{failure}");

    pair.roots(ValidationContext { allow_expired: true, ..authority.trust() });
    assert!(pair.connect().await.server.is_ok());
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    pair.certificate(
        "client",
        authority.issue_with(CLIENT, |params| {
            params.not_before = OffsetDateTime::now_utc() + Duration::from_secs(60);
        }),
    );
    let failure = pair.connect().await.server_refuses();
    assert!(failure.text.contains("is valid only in"), "{failure}");
}

#[tokio::test]
async fn a_certificate_for_servers_only_is_refused_from_a_client() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    pair.certificate(
        "client",
        authority.issue_with(CLIENT, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
    );
    let failure = pair.connect().await.server_refuses();
    assert!(failure.text.contains("extended key usage"), "{failure}");
}

/// A revocation list with one entry, made a minute ago and valid until `left` from then on.
fn revocations(authority: &Authority, serial: &[u8], left: Duration) -> Vec<u8> {
    let made = OffsetDateTime::now_utc() - Duration::from_secs(60);
    let list = CertificateRevocationListParams {
        this_update: made,
        next_update: made + left,
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: made,
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&authority.issuer).unwrap().der().to_vec()
}

#[tokio::test]
async fn a_revocation_list_that_is_over_lets_no_one_in() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    let list = revocations(&authority, &[1], Duration::from_secs(30));
    pair.roots(ValidationContext { crls: vec![list], ..authority.trust() });
    let outcome = pair.connect().await;
    let failure = outcome.client_refuses();
    assert!(failure.text.contains("revocation list of its issuer is over"), "{failure}");
}

#[tokio::test]
async fn only_what_both_sides_allow_is_spoken() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    let mut tls = UpstreamTls { fingerprint: 8, ..UpstreamTls::clone(&pair.client.tls) };
    tls.common.groups = vec![NamedGroup::secp384r1];
    tls.common.versions = TlsVersions { tls12: true, tls13: false };
    tls.common.cipher_suites = vec![CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384];
    pair.client = pair.contexts.client(&Arc::new(tls)).unwrap();
    let (stream, _) = pair.connect().await.server.unwrap();
    let state = stream.get_ref().1;
    assert_eq!(state.negotiated_key_exchange_group().unwrap().name(), NamedGroup::secp384r1);
    assert_eq!(
        state.negotiated_cipher_suite().unwrap().suite(),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
    );

    let mut tls = DownstreamTls { fingerprint: 9, ..DownstreamTls::clone(&pair.server.tls) };
    tls.common.groups = vec![NamedGroup::X25519];
    pair.server = pair.contexts.server(&Arc::new(tls)).unwrap();
    assert_eq!(pair.connect().await.server_refuses().kind, FailureKind::Protocol);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_sessions_with_it() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Resumed);

    let revoked = authority.issue_with(CLIENT, |params| {
        params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0xbc]));
    });
    pair.certificate("client", Arc::clone(&revoked));
    let list = revocations(&authority, &[0x0a, 0xbc], Duration::from_secs(3600));
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    pair.roots(ValidationContext { crls: vec![list], ..authority.trust() });
    let failure = pair.connect().await.server_refuses();
    assert_eq!(failure.kind, FailureKind::Verify);
    assert!(failure.text.contains("is revoked"), "{failure}");
    assert_eq!(serial(&revoked), "0abc");
}

#[tokio::test]
async fn a_new_certificate_of_the_server_ends_the_sessions_of_the_one_before() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    let first = authority.issue(SERVER);
    pair.certificate("server", Arc::clone(&first));
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Resumed);
    pair.certificate("server", first);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Resumed, "it is the same again");

    let renewed = authority.issue(SERVER);
    pair.certificate("server", Arc::clone(&renewed));
    let outcome = pair.connect().await;
    assert_eq!(outcome.kind(), HandshakeKind::Full);
    let (_, peer) = outcome.client.unwrap();
    assert_eq!(*peer.unwrap().serial, *serial(&renewed));
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_new_certificate_of_the_client_is_shown_at_once_and_not_hidden_by_a_session() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    let renewed = authority.issue(CLIENT);
    pair.certificate("client", Arc::clone(&renewed));
    let outcome = pair.connect().await;
    assert_eq!(outcome.kind(), HandshakeKind::Full);
    let (_, peer) = outcome.server.unwrap();
    assert_eq!(*peer.unwrap().serial, *serial(&renewed));
}

#[tokio::test]
async fn another_trust_forbids_resumption() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut pair = Pair::new(&old);
    // Secrets of its own for the server: the client keeps its trust, and so its sessions.
    let mut apart = Contexts::new();
    let set = |contexts: &mut Contexts, name: &str, value| {
        contexts.set_secret(Secret { name: name.into(), value }).unwrap();
    };
    set(&mut apart, "server", SecretValue::Certificate(old.issue(SERVER)));
    set(&mut apart, "roots", SecretValue::Validation(Arc::new(old.trust())));
    pair.server = apart.server(&pair.server.tls).unwrap();
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Resumed);

    set(&mut apart, "roots", SecretValue::Validation(Arc::new(new.trust())));
    let failure = pair.connect().await.server_refuses();
    assert_eq!(failure.kind, FailureKind::Verify, "{failure}");
}

#[tokio::test]
async fn the_same_trust_again_ends_no_session() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    pair.roots(authority.trust());
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_session_ends_before_the_certificates_that_it_began_with() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    // Certificates count whole seconds: at the beginning of one, so that the next is still far from its end.
    while OffsetDateTime::now_utc().millisecond() > 100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Less than the margin before its end: valid for the handshake, too old for a session.
    let short = authority.issue_with(CLIENT, |params| {
        params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(1);
    });
    pair.certificate("client", short);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full, "no ticket was given");
}

#[tokio::test]
async fn session_tickets_can_be_turned_off() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    let tls = DownstreamTls {
        disable_stateless_session_resumption: true,
        fingerprint: 4,
        ..DownstreamTls::clone(&pair.server.tls)
    };
    pair.server = pair.contexts.server(&Arc::new(tls)).unwrap();
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
}

#[tokio::test]
async fn during_a_rotation_of_roots_both_old_and_new_certificates_are_trusted() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut pair = Pair::new(&old);
    let roots = vec![old.certificate.clone(), new.certificate.clone()];
    pair.roots(ValidationContext { roots, ..ValidationContext::default() });
    pair.certificate("server", new.issue(SERVER));
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
    pair.certificate("client", new.issue(CLIENT));
    pair.roots(new.trust());
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
}

#[tokio::test]
async fn a_secret_of_the_wrong_kind_is_refused_and_changes_nothing() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    let value = SecretValue::Validation(Arc::new(authority.trust()));
    let refused = pair.contexts.set_secret(Secret { name: "server".into(), value }).unwrap_err();
    assert!(refused.reason.contains("\"server\" is used as a tls_certificate"), "{refused}");
    assert!(pair.connect().await.server.is_ok());
    pair.certificate("server", authority.issue(SERVER));
}

#[tokio::test]
async fn matching_names_without_roots_is_refused() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    let value = SecretValue::Validation(Arc::default());
    let refused = pair.contexts.set_secret(Secret { name: "roots".into(), value }).unwrap_err();
    assert!(refused.reason.contains("no trusted_ca"), "{refused}");
}

#[tokio::test]
async fn a_self_signed_certificate_that_is_itself_trusted_is_accepted() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(SERVER.try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap().der().clone();
    let mut pair = Pair::new(&Authority::new("root"));
    let client = upstream(
        vec![CertificateSource::Secret(secret_ref("client"))],
        Validation::Inline(Arc::new(ValidationContext {
            roots: vec![own.clone()],
            san_matchers: expects(SERVER),
            ..ValidationContext::default()
        })),
    );
    let client = UpstreamTls { fingerprint: 5, ..UpstreamTls::clone(&client) };
    pair.client = pair.contexts.client(&Arc::new(client)).unwrap();
    pair.certificate("server", certified(own, &key));
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
}

#[tokio::test]
async fn a_pinned_certificate_is_the_only_one_accepted() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    let wanted = authority.issue(CLIENT);
    let hash = PeerIdentity::of(&wanted.cert, true).unwrap().sha256;
    pair.server = pair
        .contexts
        .server(&Arc::new(DownstreamTls {
            fingerprint: 6,
            ..DownstreamTls::clone(&downstream(
                CertificateSource::Inline(authority.issue(SERVER)),
                Validation::Inline(Arc::new(ValidationContext {
                    certificate_hashes: vec![hash],
                    ..authority.trust()
                })),
            ))
        }))
        .unwrap();
    assert_eq!(pair.connect().await.server_refuses().kind, FailureKind::CertificateHash);
    pair.certificate("client", wanted);
    assert_eq!(pair.connect().await.kind(), HandshakeKind::Full);
}

#[tokio::test]
async fn an_untrusted_client_can_be_accepted_but_never_counts_as_verified() {
    let authority = Authority::new("root");
    let mut pair = Pair::new(&authority);
    pair.roots(ValidationContext { accept_untrusted: true, ..authority.trust() });
    pair.certificate("client", Authority::new("evil").issue(CLIENT));
    let (_, peer) = pair.connect().await.server.unwrap();
    assert!(!peer.unwrap().verified);
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_called_that() {
    let pair = Pair::new(&Authority::new("root"));
    let (mut near, far) = tokio::io::duplex(1 << 12);
    near.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let error = pair.server.accepting().unwrap().accept(far).await.unwrap_err();
    assert_eq!(Failure::of_handshake(&error).kind, FailureKind::NotTls);

    let (near, mut far) = tokio::io::duplex(1 << 12);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let (config, name) = pair.client.config().unwrap();
    let error = TlsConnector::from(config).connect(name, near).await.unwrap_err();
    assert_eq!(Failure::of_handshake(&error).kind, FailureKind::NotTls);
}

#[tokio::test]
async fn the_server_name_goes_out_as_configured_or_from_the_host() {
    let pair = Pair::new(&Authority::new("root"));
    let (_, name) = pair.client.config().unwrap();
    assert_eq!(name.to_str(), "p80.server");
    for (host, expected) in [
        ("api.example:8080", "api.example"),
        ("api.example", "api.example"),
        ("10.0.0.1:80", "p80.server"),
    ] {
        let (_, name) = pair.client.config_for_host(host).unwrap();
        assert_eq!(name.to_str(), expected, "{host}");
    }
}

#[test]
fn equal_configurations_share_a_context_while_someone_holds_it() {
    let authority = Authority::new("root");
    let mut contexts = Contexts::new();
    let tls = downstream(
        CertificateSource::Inline(authority.issue(SERVER)),
        Validation::Inline(Arc::new(authority.trust())),
    );
    let first = contexts.server(&tls).unwrap();
    let again = contexts.server(&tls).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(first.accepting().is_some(), "nothing to wait for");
}

#[test]
fn certificates_in_use_are_told_with_the_secrets_that_they_came_in() {
    let authority = Authority::new("a");
    let mut pair = Pair::new(&authority);
    let places = |pair: &Pair| -> Vec<(Vec<String>, Vec<String>)> {
        let names = |list: &[(String, CertificateDer<'static>)]| {
            list.iter().map(|(place, _)| place.clone()).collect()
        };
        let sets = pair.contexts.in_use();
        sets.iter().map(|set| (names(&set.cert_chain), names(&set.ca_cert))).collect()
    };
    let own = |name: &str| (vec![name.to_owned()], vec!["roots".to_owned()]);
    assert_eq!(places(&pair), [own("client"), own("server")]);

    let renewed = authority.issue(SERVER);
    pair.certificate("server", Arc::clone(&renewed));
    assert_eq!(pair.contexts.in_use()[1].cert_chain[0].1, renewed.cert[0], "the current one");
    let Pair { contexts, server, client } = pair;
    drop(server);
    assert_eq!(contexts.in_use().len(), 1, "nobody uses it any more");
    drop(client);
}

#[test]
fn the_certificate_that_a_client_is_shown_is_known() {
    let authority = Authority::new("a");
    let pair = Pair::new(&authority);
    let own = pair.server.own(Some("any.name")).unwrap();
    assert_eq!(*own.uri_sans, [SERVER.into()]);
}
