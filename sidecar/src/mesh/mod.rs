//! Membership of an Outrigger mesh: what a sidecar needs that was started with a join token instead of a bootstrap.
//!
//! Reading order: [`token`] (what a token says), [`join`] (token to first identity), [`identity`] (what is kept of it, and
//! where), [`bootstrap`] (the bootstrap that follows from it), [`renewal`] (the next certificate in time), [`registry`]
//! (the live stream that makes this process an endpoint of its service).
//!
//! A start has two steps. [`Member::prepare`] comes before there is anything to serve from: it loads the identity of an
//! earlier start or joins, and makes the bootstrap. [`Member::start`] runs for the rest of the process's life.

mod bootstrap;
mod identity;
mod join;
mod registry;
mod renewal;
mod token;

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use self::identity::{Identity, IdentityStore};
use self::token::Token;
use crate::cli::Args;
use crate::config::Rejected;
use crate::config::bootstrap::Bootstrap;
use crate::config::secret::Secret;
use crate::xds::{ConnectError, ControlPlane};

pub(crate) use self::registry::Registry;

/// The static secret with this sidecar's certificate and key. The resources of the control plane name it.
pub(crate) const IDENTITY: &str = "identity";
/// The static secret with the roots that the control plane itself is verified by.
pub(crate) const TRUST: &str = "control-plane-trust";

/// Between two attempts to join, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a sidecar cannot be a member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No token, and no identity of an earlier start.
    #[error(
        "no identity: give a join token with --join, --join-file or OUTRIGGER_JOIN (`outrigger token create` makes one){}",
        hint(.data_dir)
    )]
    NoToken {
        /// `--data-dir`.
        data_dir: Option<PathBuf>,
    },
    /// The token is not one.
    #[error("join token: {0}")]
    Token(#[from] token::TokenError),
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The identity file is there, but it is not what was written.
    #[error("{}: {reason}; remove the file and join again", path.display())]
    BadIdentity {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// `--service` names another service than the token or the kept identity.
    #[error("--service {wanted} does not fit: {origin} is for service {actual}")]
    OtherService {
        /// `--service`.
        wanted: String,
        /// The token, or the identity file.
        origin: String,
        /// What it is for.
        actual: String,
    },
    /// The kept identity is too old to be renewed.
    #[error(
        "the identity in {} expired {ago:?} ago; join again with a new token (`outrigger token create --service {service}`)",
        path.display()
    )]
    Expired {
        /// The identity file.
        path: PathBuf,
        /// Since when.
        ago: Duration,
        /// Whose.
        service: String,
    },
    /// The instance's name cannot be used.
    #[error("--instance {0:?} is no DNS label: 1 to 63 of a-z, 0-9 and '-', no '-' at the ends")]
    BadInstance(String),
    /// The server does not show the authority that the token pins.
    #[error("{address} is not the control plane of this token: {reason}. The token was not sent")]
    Pin {
        /// Where.
        address: String,
        /// What is there instead.
        reason: String,
    },
    /// The control plane cannot be reached.
    #[error("cannot reach the control plane: {0}")]
    Unreachable(#[from] ConnectError),
    /// The control plane refused.
    #[error("the control plane refused: {0}")]
    Refused(String),
    /// A new key or request could not be made.
    #[error("cannot make a certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// What the control plane issued cannot be used.
    #[error("the identity that was issued cannot be used: {0}")]
    Unusable(Rejected),
}

fn hint(data_dir: &Option<PathBuf>) -> String {
    match data_dir {
        Some(path) => format!("; there is no identity in {} either", path.display()),
        None => String::new(),
    }
}

impl Error {
    /// Whether the control plane may just not have got as far as we have.
    fn may_be_over_soon(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::File { action, source, .. } => {
                *action == token::READ && source.kind() == ErrorKind::NotFound
            }
            _ => false,
        }
    }
}

impl From<Vec<Rejected>> for Error {
    fn from(rejected: Vec<Rejected>) -> Self {
        let first = rejected.into_iter().next();
        Self::Unusable(first.unwrap_or(Rejected { path: String::new(), reason: "unknown".into() }))
    }
}

/// A member that has its identity, and does nothing with it yet.
pub(crate) struct Member {
    args: Arc<Args>,
    identity: Identity,
    store: IdentityStore,
}

/// A running member.
pub(crate) struct Running {
    /// New versions of the secrets [`IDENTITY`] and [`TRUST`]; to be given to the TLS contexts as they come.
    pub(crate) secrets: mpsc::UnboundedReceiver<Secret>,
    /// The live stream.
    pub(crate) registry: Registry,
    /// Whether the control plane knows this instance. Discovery waits for it.
    pub(crate) attached: watch::Receiver<bool>,
}

/// Whether the arguments ask for a membership.
pub(crate) fn is_wanted(args: &Args) -> bool {
    let has_bootstrap = args.config_path.is_some() || args.config_yaml.is_some();
    let has_token =
        args.join.is_some() || args.join_file.is_some() || token::from_environment().is_some();
    args.join.is_some()
        || args.join_file.is_some()
        || (!has_bootstrap && (has_token || args.service.is_some() || args.data_dir.is_some()))
}

impl Member {
    /// Loads the identity of an earlier start, or else joins. What may be over soon is waited for as long as
    /// `--join-wait-s` says.
    ///
    /// # Errors
    /// If there is neither an identity nor a token that is good for one.
    pub(crate) async fn prepare(args: Arc<Args>) -> Result<Self, Error> {
        let started = Instant::now();
        let patience = Duration::from_secs(args.join_wait_s);
        let mut pause = FIRST_PAUSE;
        loop {
            match Self::prepare_once(Arc::clone(&args)).await {
                Err(error) if error.may_be_over_soon() && started.elapsed() < patience => {
                    tracing::info!(%error, "not joined yet; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                result => return result,
            }
        }
    }

    async fn prepare_once(args: Arc<Args>) -> Result<Self, Error> {
        let store = IdentityStore::open(args.data_dir.clone())?;
        let identity = match store.load()? {
            Some(kept) => match Self::check_kept(&args, &store, &kept) {
                Ok(()) => kept,
                // A new token is a new beginning.
                Err(Error::Expired { .. }) if Token::find(&args)?.is_some() => {
                    Self::join(&args, &store).await?
                }
                Err(error) => return Err(error),
            },
            None => Self::join(&args, &store).await?,
        };
        Ok(Self { args, identity, store })
    }

    async fn join(args: &Args, store: &IdentityStore) -> Result<Identity, Error> {
        let token =
            Token::find(args)?.ok_or_else(|| Error::NoToken { data_dir: args.data_dir.clone() })?;
        check_service(args, &token.service, || "the join token".to_owned())?;
        let instance = instance_name(args)?;
        let identity = join::join(&token, &instance).await?;
        store.save(&identity)?;
        tracing::info!(
            service = identity.service,
            instance = identity.instance,
            spiffe_id = identity.spiffe_id,
            "joined the mesh"
        );
        Ok(identity)
    }

    fn check_kept(args: &Args, store: &IdentityStore, kept: &Identity) -> Result<(), Error> {
        let path = || store.path().unwrap_or_default();
        check_service(args, &kept.service, || path().display().to_string())?;
        match SystemTime::now().duration_since(kept.not_after()) {
            Ok(ago) => Err(Error::Expired { path: path(), ago, service: kept.service.clone() }),
            Err(_) => Ok(()),
        }
    }

    /// The bootstrap that follows from the identity, its static secrets included.
    ///
    /// # Errors
    /// If the issued identity cannot be used.
    pub(crate) fn bootstrap(&self) -> Result<Bootstrap, Error> {
        bootstrap::bootstrap(&self.args, &self.identity)
    }

    /// Keeps the identity fresh and the instance registered, over connections to `control_plane`.
    pub(crate) fn start(self, control_plane: ControlPlane) -> Running {
        let Self { args, identity, store } = self;
        let (sender, secrets) = mpsc::unbounded_channel();
        let renew = Arc::new(Notify::new());
        let renewing =
            renewal::run(identity, store, control_plane.clone(), Arc::clone(&renew), sender);
        tokio::spawn(renewing);
        let (registry, attached) = registry::start(args, control_plane, renew);
        Running { secrets, registry, attached }
    }
}

fn check_service(args: &Args, actual: &str, origin: impl Fn() -> String) -> Result<(), Error> {
    match &args.service {
        Some(wanted) if wanted != actual => Err(Error::OtherService {
            wanted: wanted.clone(),
            origin: origin(),
            actual: actual.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// `--instance`, or a label from the host name and, because several sidecars may share a host, the inbound port.
fn instance_name(args: &Args) -> Result<String, Error> {
    if let Some(name) = &args.instance {
        return if is_dns_label(name) {
            Ok(name.clone())
        } else {
            Err(Error::BadInstance(name.clone()))
        };
    }
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let host = host.split('.').next().unwrap_or_default();
    let label: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(56).collect();
    let label = label.trim_matches('-');
    let label = if label.is_empty() { "instance" } else { label };
    Ok(format!("{label}-{}", args.inbound_port))
}

fn is_dns_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The address others reach this sidecar at: `--advertise`, or the local address towards the control plane.
async fn advertised(args: &Args, control_plane: &ControlPlane) -> Result<IpAddr, ConnectError> {
    match args.advertise {
        Some(address) => Ok(address),
        None => control_plane.local_address().await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn args(arguments: &[&str]) -> Args {
        Args::try_parse_from(std::iter::once("sidecar").chain(arguments.iter().copied())).unwrap()
    }

    #[test]
    fn an_instance_is_named_after_the_host_and_its_port_unless_it_has_a_name() {
        assert_eq!(instance_name(&args(&["--instance", "api-1"])).unwrap(), "api-1");
        let name = instance_name(&args(&["--inbound-port", "16001"])).unwrap();
        assert!(is_dns_label(&name) && name.ends_with("-16001"), "{name}");
        for wrong in ["Api", "-a", "a-", "a_b", "a.b", ""] {
            let error = instance_name(&args(&[&format!("--instance={wrong}")])).unwrap_err();
            assert!(error.to_string().contains("DNS label"), "{error}");
        }
    }

    #[tokio::test]
    async fn without_a_token_and_without_an_identity_the_error_says_how_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let args = args(&["--data-dir", folder.path().to_str().unwrap()]);
        let error = Member::prepare(Arc::new(args)).await.err().unwrap().to_string();
        assert!(error.contains("outrigger token create"), "{error}");
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_not_there_yet_is_waited_for_as_long_as_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let wait = |seconds: &str| {
            args(&["--join-file", file.to_str().unwrap(), "--join-wait-s", seconds])
        };
        let started = Instant::now();
        let error = Member::prepare(Arc::new(wait("0"))).await.err().unwrap();
        assert!(error.may_be_over_soon(), "{error}");
        assert_eq!(started.elapsed(), Duration::ZERO);
        Member::prepare(Arc::new(wait("10"))).await.err().unwrap();
        let waited = started.elapsed();
        assert!(
            waited >= Duration::from_secs(10) && waited <= Duration::from_secs(12),
            "{waited:?}"
        );
        // What is there and is no token will not become one.
        std::fs::write(&file, "no token").unwrap();
        let error = Member::prepare(Arc::new(wait("10"))).await.err().unwrap();
        assert!(matches!(error, Error::Token(_)), "{error}");
        assert_eq!(started.elapsed(), waited);
    }

    #[test]
    fn a_token_for_another_service_is_refused_before_anything_is_sent() {
        let args = args(&["--service", "web"]);
        let error = check_service(&args, "api", || "the join token".to_owned()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--service web does not fit: the join token is for service api"
        );
    }
}
