//! Starts the live side of the control plane: certificate authority, registry and discovery, on their ports.

use crate::api::view::{Identities, MeshView, TokenIssuer};
use crate::discovery::ads::{self, Port};
use crate::discovery::hub::{ATTACH_GRACE, Hub};
use crate::identity::{
    Administration, CaError, CertificateAuthority, IdentityService, Ledger, MeshIncoming, Progress,
    ServerIdentity, TlsError, Tokens, following, joined_services,
};
use crate::model::Config;
use crate::registry::{AttachService, LEASE, Registry, Remembered};
use crate::store::Store;
use outrigger_proto::identity::v1::identity_server::IdentityServer;
use outrigger_proto::registry::v1::registry_server::RegistryServer;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// A peer that answers no ping within this time is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// How often it is looked whether the issuing certificate is due.
const ISSUING_CHECK: Duration = Duration::from_secs(3600);

/// What the live side needs.
pub struct Options {
    /// Where identities, tokens and the authority's keys are kept.
    pub store: Arc<dyn Store>,
    /// The configuration, as it changes.
    pub config: watch::Receiver<Config>,
    /// Bound listener for discovery, registry and identity over mTLS.
    pub xds: TcpListener,
    /// `HOST:PORT` at which sidecars reach it, for join tokens.
    pub xds_advertised: String,
    /// Bound listener for foreign clients in plaintext.
    pub xds_insecure: Option<TcpListener>,
    /// Ends every stream, and the servers after them, when cancelled.
    pub stopping: CancellationToken,
}

/// The live side, running.
pub struct LiveSide {
    /// What is going on in the mesh.
    pub view: Arc<dyn MeshView>,
    /// Issues join tokens.
    pub tokens: Arc<dyn TokenIssuer>,
    /// Who has an identity; revocation and rotation.
    pub identities: Arc<dyn Identities>,
    /// The certificate authority.
    pub authority: Arc<CertificateAuthority>,
    /// The servers: they end after `stopping` was cancelled, or with an error.
    pub servers: Vec<JoinHandle<Result<(), tonic::transport::Error>>>,
}

/// Why the live side could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate authority could not be opened.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Starts everything. Opening the authority blocks on the store for a moment.
///
/// # Errors
/// See [`StartError`].
pub fn start(options: Options) -> Result<LiveSide, StartError> {
    let Options { store, config, xds, xds_advertised, xds_insecure, stopping } = options;
    let authority = Arc::new(CertificateAuthority::open(&*store, SystemTime::now())?);
    let awaited = joined_services(&*store).map_err(CaError::from)?;
    let trust_domain = config.clone();
    let trust_domain = move || trust_domain.borrow().mesh().trust_domain.clone();
    let pins = authority.clone();
    let tokens =
        Arc::new(Tokens::new(store.clone(), xds_advertised, move || pins.pin(), trust_domain));
    let ledger = Arc::new(Ledger::open(store.clone()).map_err(CaError::from)?);
    let renewing =
        renew_issuing(authority.clone(), ledger.clone(), store.clone(), stopping.clone());
    tokio::spawn(renewing);
    authority.publish(&ledger.refused(SystemTime::now()), SystemTime::now())?;

    let registry = Registry::new();
    let remembered = Remembered::load(store.clone()).map_err(CaError::from)?;
    drop(remembered.start(registry.clone(), LEASE + ATTACH_GRACE, stopping.clone()));
    let hub = Hub::start(
        config.clone(),
        registry.clone(),
        ledger.clone(),
        authority.trust(),
        awaited,
        stopping.clone(),
    );

    let identity = ServerIdentity::start(authority.clone(), config.clone())?;
    let tls = following(&authority, &identity)?;
    let progress = Arc::new(Progress {
        authority: authority.clone(),
        ledger: ledger.clone(),
        store: store.clone(),
        registry: registry.clone(),
        hub: hub.clone(),
    });
    tokio::spawn(progress.clone().drive(stopping.clone()));
    let administration = Arc::new(Administration { progress, tokens: tokens.clone() });
    let identities = IdentityService {
        authority: authority.clone(),
        tokens: tokens.clone(),
        config: config.clone(),
        ledger: ledger.clone(),
    };
    let attachments =
        AttachService { registry, ledger, endpoints: hub.clone(), stopping: stopping.clone() };
    let mesh = Routes::from(ads::services(&hub, Port::Mesh))
        .add_service(IdentityServer::new(identities))
        .add_service(RegistryServer::new(attachments));
    let connections = MeshIncoming::start(xds, tls, config);
    let until = stopping.clone().cancelled_owned();
    let mesh = server().add_routes(mesh).serve_with_incoming_shutdown(connections, until);
    let mut servers = vec![tokio::spawn(mesh)];

    if let Some(listener) = xds_insecure {
        let foreign = Routes::from(ads::services(&hub, Port::Insecure));
        let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
        let until = stopping.cancelled_owned();
        let foreign = server().add_routes(foreign).serve_with_incoming_shutdown(connections, until);
        servers.push(tokio::spawn(foreign));
    }
    Ok(LiveSide { view: hub, tokens, identities: administration, authority, servers })
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

async fn renew_issuing(
    authority: Arc<CertificateAuthority>,
    ledger: Arc<Ledger>,
    store: Arc<dyn Store>,
    stopping: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ISSUING_CHECK) => {}
            () = stopping.cancelled() => return,
        }
        let again = (authority.clone(), ledger.clone());
        let (authority, store) = (authority.clone(), store.clone());
        let renewed =
            tokio::task::spawn_blocking(move || authority.renew_if_due(&*store, SystemTime::now()));
        match renewed.await {
            Ok(Ok(true)) => {
                tracing::info!("renewed the issuing certificate");
                let now = SystemTime::now();
                if let Err(error) = again.0.publish(&again.1.refused(now), now) {
                    tracing::error!(%error, "cannot publish what is revoked");
                }
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::error!(%error, "cannot renew the issuing certificate"),
            Err(error) => tracing::error!(%error, "cannot renew the issuing certificate"),
        }
    }
}
