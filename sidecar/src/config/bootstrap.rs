//! The bootstrap: what a sidecar starts from.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::config::core::v3::Node;

use super::cluster::Cluster;
use super::listener::Listener;
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
