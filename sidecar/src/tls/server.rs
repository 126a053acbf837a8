//! TLS towards clients.

use std::io;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    Acceptor, ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert,
};
use rustls::sign::CertifiedKey;
use rustls::{CommonState, Error as TlsError, HandshakeKind, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::config::tls::DownstreamTls;

use super::provider::{provider_for, versions};
use super::resumption::{SoonestExpiry, Tickets};
use super::verify::{ClientJudge, Trust};
use super::{Failure, FailureKind, PeerIdentity};

/// A `DownstreamTlsContext` with the current version of its secrets.
#[derive(Debug)]
pub(crate) struct ServerContext {
    pub(super) tls: Arc<DownstreamTls>,
    certificates: Arc<Certificates>,
    current: ArcSwapOption<Current>,
    /// Told of each new trust.
    trusts: watch::Sender<()>,
}

/// A configuration and the judge in it.
#[derive(Debug)]
struct Current {
    accepting: Accepting,
    trust: Option<Arc<Trust>>,
}

impl ServerContext {
    /// A context without secrets: it takes no connection yet.
    pub(super) fn new(tls: Arc<DownstreamTls>) -> Self {
        Self {
            tls,
            certificates: Arc::default(),
            current: ArcSwapOption::empty(),
            trusts: watch::Sender::new(()),
        }
    }

    /// What to accept a connection with; `None` while a secret is missing.
    pub(crate) fn accepting(&self) -> Option<Accepting> {
        self.current.load().as_ref().map(|current| current.accepting.clone())
    }

    /// Who the client of an accepted connection is; `None` without a certificate.
    ///
    /// # Errors
    /// If the session was resumed and its certificate has expired since. Tickets end before that, so this is the second
    /// line of defence.
    pub(crate) fn peer(&self, connection: &CommonState) -> Result<Option<PeerIdentity>, Failure> {
        let current = self.current.load();
        let trust = current.as_ref().and_then(|current| current.trust.as_deref());
        identity(connection, trust)
    }

    /// Completes when the certificate of a client that was accepted is revoked.
    pub(crate) async fn revoked(self: Arc<Self>, chain: Arc<[CertificateDer<'static>]>) {
        let mut trusts = self.trusts.subscribe();
        loop {
            let current = self.current.load();
            let trust = current.as_ref().and_then(|current| current.trust.as_deref());
            if trust.is_some_and(|trust| trust.revokes(&chain, true)) {
                return;
            }
            drop(current);
            if trusts.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The certificate that a client which asked for `server_name` is shown.
    pub(crate) fn own(&self, server_name: Option<&str>) -> Option<Arc<PeerIdentity>> {
        let certificates = self.certificates.0.load();
        let by_name = server_name.and_then(|name| {
            certificates.iter().find(|named| named.dns().iter().any(|dns| is_for(dns, name)))
        });
        by_name.or(certificates.first())?.identity.clone()
    }

    /// Takes new certificates of our own. A session that began under another one is over with the trust that is set then:
    /// who resumes one is not shown what it would see now.
    pub(super) fn set_certificates(&self, keys: Vec<Arc<CertifiedKey>>) {
        self.certificates.set(keys);
    }

    /// Takes a trust. All sessions that began under another are over: the keys of their tickets are gone.
    ///
    /// # Errors
    /// If the library refuses the configuration, or has no randomness for ticket keys.
    pub(super) fn set_trust(&self, trust: Option<Arc<Trust>>) -> Result<(), TlsError> {
        let accepting = Accepting::with(self.build(trust.clone())?);
        self.current.store(Some(Arc::new(Current { accepting, trust })));
        self.trusts.send_replace(());
        Ok(())
    }

    fn build(&self, trust: Option<Arc<Trust>>) -> Result<ServerConfig, TlsError> {
        let DownstreamTls {
            common,
            require_client_certificate,
            disable_stateless_session_resumption,
            disable_stateful_session_resumption: _, // sessions by id are never kept: see below
            fingerprint: _,
        } = &*self.tls;
        let expiry =
            trust.as_ref().map_or_else(|| Arc::new(SoonestExpiry::new()), |trust| trust.expiry());
        let builder = ServerConfig::builder_with_provider(provider_for(common))
            .with_protocol_versions(versions(common.versions))?;
        let builder = if trust.is_some() || *require_client_certificate {
            builder.with_client_cert_verifier(Arc::new(ClientJudge {
                trust,
                is_required: *require_client_certificate,
            }))
        } else {
            builder.with_client_cert_verifier(Arc::new(NoClientAuth))
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.certificates) as _);
        config.alpn_protocols = common.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // Sessions are resumed by ticket or not at all: a table of them would be memory that clients fill.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if !disable_stateless_session_resumption {
            config.ticketer = Arc::new(Tickets::new(Ticketer::new()?, expiry));
        }
        Ok(config)
    }
}

/// What a connection is accepted with.
#[derive(Debug, Clone)]
pub(crate) struct Accepting {
    config: Arc<ServerConfig>,
    /// For clients that offer none of our protocols; `None` where we have none.
    without_alpn: Option<Arc<ServerConfig>>,
}

impl Accepting {
    fn with(config: ServerConfig) -> Self {
        let without_alpn = (!config.alpn_protocols.is_empty()).then(|| {
            let mut config = config.clone();
            config.alpn_protocols.clear();
            Arc::new(config)
        });
        Self { config: Arc::new(config), without_alpn }
    }

    /// Shakes hands. A client whose protocols are all foreign to us gets a connection on which none was agreed, as from
    /// Envoy, and not an alert as RFC 7301 has it: sidecars of Istio offer nothing but names of their own.
    ///
    /// # Errors
    /// The handshake fails.
    pub(crate) async fn accept<S>(self, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { config, without_alpn } = self;
        let Some(without_alpn) = without_alpn else {
            return TlsAcceptor::from(config).accept(socket).await;
        };
        let begun = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let agree = begun.client_hello().alpn().is_none_or(|mut offered| {
            offered.any(|protocol| config.alpn_protocols.iter().any(|own| own == protocol))
        });
        begun.into_stream(if agree { config } else { without_alpn }).await
    }
}

/// The identity behind a connection that is up.
pub(super) fn identity(
    connection: &CommonState,
    trust: Option<&Trust>,
) -> Result<Option<PeerIdentity>, Failure> {
    let Some(chain) = connection.peer_certificates() else { return Ok(None) };
    let verified = trust.is_some_and(Trust::verifies_chain);
    let Some(identity) = PeerIdentity::of(chain, verified) else {
        let text = "the peer's certificate is not X.509";
        return Err(Failure::new(FailureKind::Verify, text));
    };
    let is_over = u64::try_from(identity.not_after).unwrap_or(0) < UnixTime::now().as_secs();
    if connection.handshake_kind() == Some(HandshakeKind::Resumed)
        && trust.is_some_and(Trust::checks_expiry)
        && is_over
    {
        let text = format!("the session's certificate, {:?}, has expired", identity.subject);
        return Err(Failure::new(FailureKind::Verify, text));
    }
    Ok(Some(identity))
}

/// Our certificates, of which each handshake shows one.
#[derive(Debug, Default)]
struct Certificates(ArcSwap<Vec<Named>>);

#[derive(Debug)]
struct Named {
    key: Arc<CertifiedKey>,
    /// What it says; `None` if it is not X.509.
    identity: Option<Arc<PeerIdentity>>,
}

impl Named {
    fn dns(&self) -> &[Box<str>] {
        self.identity.as_ref().map_or(&[], |identity| &identity.dns_sans)
    }
}

impl Certificates {
    fn set(&self, keys: Vec<Arc<CertifiedKey>>) {
        let named = |key: Arc<CertifiedKey>| {
            let identity = PeerIdentity::of(&key.cert, false).map(Arc::new);
            Named { key, identity }
        };
        self.0.store(Arc::new(keys.into_iter().map(named).collect()));
    }
}

impl ResolvesServerCert for Certificates {
    /// The first that is for the server name and of a kind that the client can check; else the first it can check.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        if let [only] = certificates.as_slice() {
            return Some(Arc::clone(&only.key));
        }
        let schemes: &[SignatureScheme] = hello.signature_schemes();
        let mut usable =
            certificates.iter().filter(|named| named.key.key.choose_scheme(schemes).is_some());
        let by_name = hello.server_name().and_then(|name| {
            usable.clone().find(|named| named.dns().iter().any(|dns| is_for(dns, name)))
        });
        by_name.or_else(|| usable.next()).map(|named| Arc::clone(&named.key))
    }
}

fn is_for(dns: &str, name: &str) -> bool {
    dns.eq_ignore_ascii_case(name)
        || dns.strip_prefix("*.").is_some_and(|parent| {
            name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent))
        })
}
