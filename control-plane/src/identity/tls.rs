//! The TLS side of the discovery port. A client certificate is optional (Join has none yet) but, if there is one, verified
//! in the handshake; what asks for more than Join asks [`PeerInfo::identity`].

use crate::identity::ca::{CaError, CertificateAuthority};
use crate::identity::spiffe::PeerIdentity;
use crate::model::Config;
use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Status;
use tonic::transport::server::Connected;

/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at a time; further connections wait in the backlog.
const HANDSHAKES: usize = 256;
/// Pause after an accept that failed, e.g. for want of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Why the TLS side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate authority could not sign.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// A certificate or protocol version is not to the liking of the TLS library.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Clients cannot be verified by the trusted roots.
    #[error("TLS: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The control plane's own certificate, renewed at half of its life and when the root or the trust domain changes.
#[derive(Debug)]
pub(crate) struct ServerIdentity {
    current: ArcSwap<CertifiedKey>,
}

impl ServerIdentity {
    /// Makes the first certificate, and a task that renews it until `config` closes.
    pub(crate) fn start(
        authority: Arc<CertificateAuthority>,
        mut config: watch::Receiver<Config>,
    ) -> Result<Arc<Self>, TlsError> {
        let trust_domain = |config: &mut watch::Receiver<Config>| {
            config.borrow_and_update().mesh().trust_domain.clone()
        };
        let mut domain = trust_domain(&mut config);
        let (key, mut renew_in) = certified(&authority, &domain)?;
        let identity = Arc::new(Self { current: ArcSwap::from_pointee(key) });
        let renewed = identity.clone();
        let mut trust = authority.trust();
        trust.mark_unchanged();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(renew_in) => {}
                    // Another root may sign now.
                    changed = trust.changed() => if changed.is_err() {
                        return;
                    },
                    changed = config.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let now = trust_domain(&mut config);
                        if now == domain {
                            continue;
                        }
                        domain = now;
                    }
                }
                match certified(&authority, &domain) {
                    Ok((key, next)) => {
                        renewed.current.store(Arc::new(key));
                        renew_in = next;
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot renew the control plane's certificate");
                        renew_in = Duration::from_secs(60);
                    }
                }
            }
        });
        Ok(identity)
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// A certificate for the control plane, and when to ask for the next. The root is sent along: a sidecar that joins knows
/// only the hash of its key.
fn certified(
    authority: &CertificateAuthority,
    trust_domain: &str,
) -> Result<(CertifiedKey, Duration), TlsError> {
    let now = SystemTime::now();
    let (leaf, key) = authority.server(trust_domain, now)?;
    let mut chain = leaf.chain;
    chain.extend(authority.roots());
    let key = provider().key_provider.load_private_key(key)?;
    let life = leaf.not_after.duration_since(now).unwrap_or_default();
    Ok((CertifiedKey::new(chain, key), life / 2))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS for the discovery port. No resumption: a resumed session would skip the verification of the client's certificate.
fn server_config(
    authority: &CertificateAuthority,
    identity: Arc<ServerIdentity>,
) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS for the discovery port, by the roots that are trusted at the moment.
pub(crate) fn following(
    authority: &Arc<CertificateAuthority>,
    identity: &Arc<ServerIdentity>,
) -> Result<Arc<ArcSwap<ServerConfig>>, TlsError> {
    let mut trust = authority.trust();
    trust.mark_unchanged();
    let current = Arc::new(ArcSwap::from_pointee(server_config(authority, identity.clone())?));
    let (authority, identity, weak) =
        (authority.clone(), identity.clone(), Arc::downgrade(&current));
    tokio::spawn(async move {
        while trust.changed().await.is_ok() {
            let Some(current) = weak.upgrade() else { return };
            match server_config(&authority, identity.clone()) {
                Ok(config) => current.store(Arc::new(config)),
                Err(error) => tracing::error!(%error, "the discovery port cannot take new roots"),
            }
        }
    });
    Ok(current)
}

/// Who is at the other end of a connection, for the services on it.
#[derive(Debug, Clone)]
pub(crate) struct PeerInfo {
    tls: Option<Result<Arc<PeerIdentity>, NoIdentity>>,
}

/// Why a connection has no identity.
#[derive(Debug, Clone)]
enum NoIdentity {
    NoCertificate,
    Unusable(Arc<str>),
}

impl PeerInfo {
    /// Of the connection that a request came over.
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or(Self { tls: None })
    }

    /// Whether the connection is encrypted.
    pub(crate) fn encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The instance at the other end.
    ///
    /// # Errors
    /// `Unauthenticated`, saying what is missing.
    pub(crate) fn identity(&self) -> Result<Arc<PeerIdentity>, Status> {
        match &self.tls {
            Some(Ok(identity)) => Ok(identity.clone()),
            Some(Err(NoIdentity::Unusable(reason))) => Err(Status::unauthenticated(&**reason)),
            Some(Err(NoIdentity::NoCertificate)) | None => Err(Status::unauthenticated(
                "a client certificate of this mesh is needed: join it with a token first",
            )),
        }
    }
}

/// A connection after its handshake.
pub(crate) struct MeshStream {
    tls: TlsStream<TcpStream>,
    peer: PeerInfo,
}

impl MeshStream {
    fn new(tls: TlsStream<TcpStream>, trust_domain: &str) -> Self {
        let identity = match tls.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            None => Err(NoIdentity::NoCertificate),
            Some(leaf) => match PeerIdentity::from_certificate(leaf) {
                Ok(identity) if &*identity.trust_domain == trust_domain => Ok(Arc::new(identity)),
                Ok(identity) => Err(NoIdentity::Unusable(
                    format!("trust domain {} is not {trust_domain}", identity.trust_domain).into(),
                )),
                Err(reason) => Err(NoIdentity::Unusable(reason.into())),
            },
        };
        Self { tls, peer: PeerInfo { tls: Some(identity) } }
    }
}

impl Connected for MeshStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for MeshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

/// Connections of the discovery port whose handshake is done, until dropped.
pub(crate) struct MeshIncoming(mpsc::Receiver<io::Result<MeshStream>>);

impl MeshIncoming {
    /// Accepts from the listener. Handshakes run beside each other: a slow one holds up nobody.
    pub(crate) fn start(
        listener: TcpListener,
        tls: Arc<ArcSwap<ServerConfig>>,
        config: watch::Receiver<Config>,
    ) -> Self {
        let (accepted, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
            loop {
                let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
                let connection = tokio::select! {
                    connection = listener.accept() => connection,
                    () = accepted.closed() => return,
                };
                let (socket, peer) = match connection {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept on the discovery port");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                };
                let (acceptor, accepted) = (TlsAcceptor::from(tls.load_full()), accepted.clone());
                let trust_domain = config.borrow().mesh().trust_domain.clone();
                tokio::spawn(async move {
                    if let Some(tls) = handshake(acceptor, socket, peer).await {
                        let _ = accepted.send(Ok(MeshStream::new(tls, &trust_domain))).await;
                    }
                    drop(permit);
                });
            }
        });
        Self(receiver)
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    peer: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    let _ = socket.set_nodelay(true);
    let handshake = Box::pin(acceptor.accept(socket));
    let reason = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(tls)) => return Some(tls),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    tracing::warn!(%peer, reason, "TLS handshake failed on the discovery port");
    None
}

impl tokio_stream::Stream for MeshIncoming {
    type Item = io::Result<MeshStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
