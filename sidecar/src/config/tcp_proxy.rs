//! The TCP proxy filter.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;
use super::subset::MetadataCriteria;

/// A validated `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug, Clone)]
pub struct TcpProxy {
    /// `tcp.STAT_PREFIX.…` in statistics.
    pub stat_prefix: Box<str>,
    /// Where connections go: one cluster, or several by weight. Never empty; the weights sum up to more than 0.
    pub clusters: Vec<Target>,
    /// A connection without a byte in either direction for so long is closed; `None` never. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// A connection ends when it is so old; `None`: it does not.
    pub max_downstream_connection_duration: Option<Duration>,
    /// And as much later, at random, as this part of it; 0 to 1.
    pub duration_jitter: f64,
    /// A load balancer that chooses by a hash goes by the address of the client; else by chance.
    pub hash_source_ip: bool,
    /// Attempts to connect, the first included. Default 1.
    pub max_connect_attempts: u32,
    /// Logs of connections.
    pub access_logs: Vec<AccessLog>,
    /// When they are written, but at the end of a connection.
    pub log_options: LogOptions,
}

/// When the logs of a connection are written, but at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// When it begins.
    pub on_start: bool,
    /// When it is connected with an endpoint.
    pub on_connected: bool,
    /// Each time that so much has passed since it began; at least 1 ms.
    pub interval: Option<Duration>,
}

/// One of the clusters that connections go to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub cluster: Arc<str>,
    /// Its share.
    pub weight: u32,
    /// What the metadata of the endpoint must hold, for clusters that are divided into subsets.
    pub metadata_match: Option<Arc<MetadataCriteria>>,
}
