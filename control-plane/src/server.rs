//! What is bound, opened and started, in which order, and how it ends.
//!
//! Reading order: [`run`], the life of the process; [`Server::bind`], everything that can go wrong, before anything is
//! served; [`Server::serve`], until told to stop.

use crate::api::roles::{Roles, RolesError};
use crate::api::{Api, Parts, directory, serve};
use crate::cli::TokenFile;
use crate::discovery::{self, LiveSide, Options};
use crate::identity::token_files::TokenFiles;
use crate::model::read::{self, Document};
use crate::store::{EmbeddedStore, Store, StoreError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a control plane is told. Addresses are `HOST:PORT`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the store.
    pub data_dir: PathBuf,
    /// Where the mesh API listens.
    pub api: String,
    /// Where discovery and identity listen, with mTLS.
    pub xds: String,
    /// Where plaintext discovery listens, if at all.
    pub xds_insecure: Option<String>,
    /// Where sidecars reach discovery, if not at the address of `xds`.
    pub advertise: Option<String>,
    /// File with the tokens of the API and their roles; without it the API asks nobody for one.
    pub api_tokens: Option<PathBuf>,
    /// Folder of files that are the configuration, if that is not made through the API.
    pub config_dir: Option<PathBuf>,
    /// Documents that are made at the start if they are not there.
    pub seed: Option<String>,
    /// Files with join tokens.
    pub issue_tokens: Vec<TokenFile>,
}

/// Why a control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, not of this host, or not to be resolved.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What would have listened there.
        purpose: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of the configuration cannot be read.
    #[error("cannot read the configuration folder {}: {source}", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tokens of the API cannot be used.
    #[error(transparent)]
    Roles(#[from] RolesError),
    /// The documents of `--seed` are not valid.
    #[error("--seed: {0}")]
    Seed(String),
    /// Identity or discovery does not start.
    #[error(transparent)]
    Live(#[from] discovery::StartError),
}

/// Discovery streams have so long to end at the stop.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a control plane until SIGTERM or SIGINT; a second one ends the process at once.
pub(crate) fn run(settings: Settings) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run_until_signal(settings)),
        Err(error) => Err(format!("no runtime: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run_until_signal(settings: Settings) -> Result<(), String> {
    let stop = CancellationToken::new();
    // Before anything is served: a signal that comes early is not lost.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(terminate), Ok(interrupt)) = signals else {
        return Err("cannot listen for signals".to_owned());
    };
    tokio::spawn(stop_on_signal(terminate, interrupt, stop.clone()));
    let server = Server::bind(settings, stop).await.map_err(|error| error.to_string())?;
    server.serve().await
}

async fn stop_on_signal(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    for first in [true, false] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if first {
            tracing::info!("stopping");
            stop.cancel();
        }
    }
    std::process::exit(1);
}

/// A control plane that is bound and started, about to serve.
pub struct Server {
    api: Arc<Api>,
    listener: TcpListener,
    addresses: Addresses,
    config_dir: Option<PathBuf>,
    seed: Vec<Document>,
    token_files: Arc<TokenFiles>,
    /// The servers of the live side.
    live: JoinSet<Result<(), String>>,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
}

/// Where a control plane listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The mesh API.
    pub api: SocketAddr,
    /// Discovery and identity.
    pub xds: SocketAddr,
    /// Plaintext discovery.
    pub xds_insecure: Option<SocketAddr>,
}

impl Server {
    /// Binds every address, opens the store, and starts the live side, in an order in which what fails has changed nothing
    /// yet.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind(settings: Settings, stop: CancellationToken) -> Result<Self, StartError> {
        let seed = seed(settings.seed.as_deref())?;
        let listener = bind(&settings.api, "the API").await?;
        let xds = bind(&settings.xds, "discovery").await?;
        let xds_insecure = match &settings.xds_insecure {
            Some(address) => Some(bind(address, "plaintext discovery").await?),
            None => None,
        };
        let addresses = Addresses {
            api: local(&listener, &settings.api)?,
            xds: local(&xds, &settings.xds)?,
            xds_insecure: match (&xds_insecure, &settings.xds_insecure) {
                (Some(listener), Some(address)) => Some(local(listener, address)?),
                _ => None,
            },
        };
        let roles = settings.api_tokens.as_deref().map(Roles::read).transpose()?;
        if roles.is_none() && !addresses.api.ip().is_loopback() {
            tracing::warn!(
                address = %addresses.api,
                "the API asks nobody for a token (--api-tokens), and listens for more than this host"
            );
        }
        if let Some(path) = &settings.config_dir {
            directory::look(path)
                .map_err(|source| StartError::Directory { path: path.clone(), source })?;
        }
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&settings.data_dir)?);
        let xds_advertised =
            settings.advertise.unwrap_or_else(|| reachable(addresses.xds).to_string());
        let LiveSide { view, tokens, identities, servers, .. } = discovery::start(Options {
            store: Arc::clone(&store),
            config: store.watch(),
            xds,
            xds_advertised,
            xds_insecure,
            stopping: stop.clone(),
        })?;
        let mut live = JoinSet::new();
        for server in servers {
            live.spawn(async move {
                match server.await {
                    Ok(ended) => ended.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            });
        }
        let (ready, is_ready) = watch::channel(false);
        let config_dir = settings.config_dir;
        let read_only = config_dir.clone();
        let token_files = Arc::new(TokenFiles::new(settings.issue_tokens, Arc::clone(&tokens)));
        let parts = Parts { view, tokens, identities, roles, read_only };
        let api = Api::new(store, parts, is_ready);
        Ok(Self { api, listener, addresses, config_dir, seed, token_files, live, ready, stop })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until it is told to stop, and what is under way has ended.
    ///
    /// # Errors
    /// If the live side ended by itself: without it there is nothing to serve.
    pub async fn serve(mut self) -> Result<(), String> {
        let Addresses { api, xds, xds_insecure } = self.addresses;
        tracing::info!(%api, %xds, ?xds_insecure, "the control plane serves");
        let follower = match self.config_dir.take() {
            None => None,
            Some(path) => {
                if let Ok(files) = directory::look(&path) {
                    directory::apply(&self.api, &files).await;
                }
                let follow = directory::follow(Arc::clone(&self.api), path, self.stop.clone());
                Some(tokio::spawn(follow))
            }
        };
        if !self.seed.is_empty() {
            self.api.seed(std::mem::take(&mut self.seed)).await;
        }
        // Whoever sees it ready finds the files.
        let again = self.token_files.issue().await;
        let token_files = tokio::spawn(self.token_files.keep(again, self.stop.clone()));
        self.ready.send_replace(true);
        let serving =
            tokio::spawn(serve(self.listener, Arc::clone(&self.api).router(), self.stop.clone()));
        let broken = tokio::select! {
            () = self.stop.cancelled() => None,
            ended = self.live.join_next() => ended,
        };
        let broken = broken.filter(|_| !self.stop.is_cancelled());
        // Event streams end now, and with them the last connections.
        self.ready.send_replace(false);
        self.stop.cancel();
        let _ = serving.await;
        let _ = token_files.await;
        if let Some(follower) = follower {
            let _ = follower.await;
        }
        if tokio::time::timeout(GRACE, self.live.join_all()).await.is_err() {
            tracing::warn!("discovery streams were cut off: they took longer than {GRACE:?}");
        }
        match broken {
            None => {}
            Some(Ok(Err(error))) => return Err(format!("discovery failed: {error}")),
            Some(_) => return Err("discovery ended by itself".to_owned()),
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// The documents of a text.
fn seed(text: Option<&str>) -> Result<Vec<Document>, StartError> {
    let (documents, problems) = read::documents(text.unwrap_or_default());
    if problems.is_empty() {
        return Ok(documents);
    }
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(StartError::Seed(problems.join("\n")))
}

async fn bind(address: &str, purpose: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        address: address.to_owned(),
        purpose,
        source,
    })
}

fn local(listener: &TcpListener, address: &str) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen {
        address: address.to_owned(),
        purpose: "a service",
        source,
    })
}

/// An address at which others reach what listens on `bound`: the same, or for any address, the one from which this host
/// would send (nothing is sent to find out).
fn reachable(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // 192.0.2.0/24 is for documentation (RFC 5737): routed like any address out there.
    let source = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    let address = source.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |source| source.ip());
    tracing::info!(%address, "sidecars are told to reach discovery there; --advertise says otherwise");
    SocketAddr::new(address, bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &std::path::Path) -> Settings {
        Settings {
            data_dir: directory.join("data"),
            api: "127.0.0.1:0".to_owned(),
            xds: "127.0.0.1:0".to_owned(),
            xds_insecure: None,
            advertise: None,
            config_dir: None,
            api_tokens: None,
            seed: None,
            issue_tokens: Vec::new(),
        }
    }

    async fn start_error(settings: Settings) -> String {
        match Server::bind(settings, CancellationToken::new()).await {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn what_keeps_it_from_starting_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let api = Settings { api: address.clone(), ..settings(directory.path()) };
        assert!(start_error(api).await.contains(&format!("{address} for the API")));
        let xds = Settings { xds: address.clone(), ..settings(directory.path()) };
        assert!(start_error(xds).await.contains(&format!("{address} for discovery")));
        let insecure = Settings { xds_insecure: Some(address), ..settings(directory.path()) };
        assert!(start_error(insecure).await.contains("for plaintext discovery"));
        let missing = directory.path().join("none");
        let config = Settings { config_dir: Some(missing), ..settings(directory.path()) };
        assert!(start_error(config).await.contains("configuration folder"));
        assert!(!directory.path().join("data").exists(), "nothing was made by what failed");
        std::fs::write(directory.path().join("data"), "").unwrap();
        assert!(start_error(settings(directory.path())).await.contains("data"));
    }

    #[tokio::test]
    async fn a_seed_that_is_not_valid_is_refused_with_every_problem() {
        let directory = tempfile::tempdir().unwrap();
        let seed = Some("kind: Service\nname: api\n---\nkind: Servise\nname: b\n".to_owned());
        let error = start_error(Settings { seed, ..settings(directory.path()) }).await;
        assert!(error.starts_with("--seed: ") && error.contains("4:7"), "{error}");
        assert!(!directory.path().join("data").exists());
    }

    #[tokio::test]
    async fn a_data_directory_has_one_control_plane() {
        let directory = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let first = Server::bind(settings(directory.path()), stop.clone()).await.unwrap();
        assert!(start_error(settings(directory.path())).await.contains("in use by another"));
        stop.cancel();
        first.serve().await.unwrap();
    }

    #[tokio::test]
    async fn it_serves_until_it_is_told_to_stop() {
        let directory = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let insecure = Some("127.0.0.1:0".to_owned());
        let settings = Settings { xds_insecure: insecure, ..settings(directory.path()) };
        let server = Server::bind(settings, stop.clone()).await.unwrap();
        let Addresses { api, xds, xds_insecure } = server.addresses();
        let serving = tokio::spawn(server.serve());
        for address in [api, xds, xds_insecure.unwrap()] {
            tokio::net::TcpStream::connect(address).await.unwrap();
        }
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap().unwrap();
        assert!(tokio::net::TcpStream::connect(api).await.is_err());
    }

    #[test]
    fn sidecars_are_never_sent_to_any_address() {
        let bound = "127.0.0.9:1".parse().unwrap();
        assert_eq!(reachable(bound), bound);
        assert!(!reachable("0.0.0.0:1".parse().unwrap()).ip().is_unspecified());
    }
}
