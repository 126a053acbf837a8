//! The bootstrap: what a sidecar starts from.

pub use super::convert::bootstrap as from_proto;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::config::bootstrap::v3::Bootstrap as BootstrapProto;
use outrigger_proto::envoy::config::core::v3::Node;
use outrigger_proto::json::{JsonError, Schema};
use prost::Message;

use super::cluster::Cluster;
use super::listener::Listener;
use super::problem::Rejected;
use super::secret::Secret;

/// A validated `envoy.config.bootstrap.v3.Bootstrap`.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Who we are, as discovery servers are told.
    pub node: Node,
    /// Address of the admin interface; `None`: there is none.
    pub admin: Option<SocketAddr>,
    /// Listeners that stand in the file.
    pub listeners: Vec<Arc<Listener>>,
    /// Clusters that stand in the file.
    pub clusters: Vec<Arc<Cluster>>,
    /// Secrets that stand in the file.
    pub secrets: Vec<Secret>,
    /// The aggregated discovery service.
    pub ads: Option<DiscoveryService>,
    /// Listeners are discovered.
    pub lds: Option<Subscription>,
    /// Clusters are discovered.
    pub cds: Option<Subscription>,
    /// The message as it was read, encoded: what `/config_dump` shows.
    pub encoded: Vec<u8>,
}

/// A discovery server and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryService {
    /// Name of the cluster (`envoy_grpc.cluster_name`); it stands in the bootstrap.
    pub cluster: Arc<str>,
    /// `:authority` of the calls; `None`: the cluster's name.
    pub authority: Option<Box<str>>,
    /// The protocol variant.
    pub variant: Variant,
    /// The node is sent only in the first request of a stream.
    pub set_node_on_first_message_only: bool,
    /// Metadata of the call.
    pub initial_metadata: Vec<(Box<str>, Box<str>)>,
    /// Back-off of reconnects: base and maximum. Default 500 ms and 30 s.
    pub backoff: (Duration, Duration),
}

/// The two variants of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// State of the world (`GRPC`).
    StateOfTheWorld,
    /// Incremental (`DELTA_GRPC`).
    Delta,
}

/// How a type is discovered: over ADS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Longest wait for the first answer before the start goes on without; `None` for ever. Default 15 s.
    pub initial_fetch_timeout: Option<Duration>,
}

/// What the command line adds to a bootstrap file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--service-node`: instead of `node.id`.
    pub service_node: Option<String>,
    /// `--service-cluster`: instead of `node.cluster`.
    pub service_cluster: Option<String>,
    /// `--service-zone`: instead of `node.locality.zone`.
    pub service_zone: Option<String>,
    /// `--allow-unknown-static-fields`: a key that a message does not have is skipped instead of refused.
    pub allow_unknown_static_fields: bool,
}

/// Why a bootstrap could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a file nor a text was named.
    #[error("no configuration: name a file with --config-path, or give it with --config-yaml")]
    Nothing,
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The text is not YAML or JSON, or does not fit the messages.
    #[error("{origin}: {source}")]
    Text {
        /// The file, or `--config-yaml`.
        origin: String,
        /// What is wrong with it.
        source: JsonError,
    },
    /// It is a bootstrap, but not one that can be run.
    #[error("{}", list(.0))]
    Rejected(Vec<Rejected>),
}

fn list(rejected: &[Rejected]) -> String {
    rejected.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads a bootstrap from a file (YAML or JSON) and `--config-yaml`, whichever are given. The latter is merged over the
/// file as protos merge: messages field by field, repeated fields by appending.
///
/// # Errors
/// With everything that is wrong at once, where the text is a bootstrap at all.
pub fn read(
    path: Option<&Path>,
    overlay: Option<&str>,
    options: &Options,
) -> Result<Bootstrap, ConfigError> {
    let schema = Schema::load()
        .map_err(|source| ConfigError::Text { origin: "bootstrap".to_owned(), source })?;
    let parse = |origin: &str, text: &str| {
        schema
            .read::<BootstrapProto>(text, !options.allow_unknown_static_fields)
            .map_err(|source| ConfigError::Text { origin: origin.to_owned(), source })
    };
    let mut proto = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
            parse(&path.display().to_string(), &text)?
        }
        None if overlay.is_none() => return Err(ConfigError::Nothing),
        None => BootstrapProto::default(),
    };
    if let Some(text) = overlay {
        merge(&mut proto, &parse("--config-yaml", text)?);
    }
    override_node(&mut proto, options);
    from_proto(proto).map_err(ConfigError::Rejected)
}

/// As every protobuf runtime merges: fields that are set replace, messages merge, lists append.
fn merge(proto: &mut BootstrapProto, overlay: &BootstrapProto) {
    // What was just encoded decodes again.
    let _ = proto.merge(overlay.encode_to_vec().as_slice());
}

fn override_node(proto: &mut BootstrapProto, options: &Options) {
    let Options { service_node, service_cluster, service_zone, allow_unknown_static_fields: _ } =
        options;
    let node = proto.node.get_or_insert_default();
    if let Some(id) = service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = service_cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = service_zone {
        node.locality.get_or_insert_default().zone.clone_from(zone);
    }
}
