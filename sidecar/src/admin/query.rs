//! What the admin interface asks of the control thread.
//!
//! The control thread owns the configuration; the admin interface owns nothing. It sends a [`Query`] with a channel for the
//! answer, and the control thread answers between two other things it does.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::cluster::Cluster;
use crate::config::address::Address;
use crate::config::runtime::Entry;
use crate::tls::CertificateSet;

/// A question, or something to do.
#[derive(Debug)]
pub(crate) enum Query {
    /// The listeners that are open.
    Listeners(oneshot::Sender<Vec<ListenerStatus>>),
    /// The clusters.
    Clusters(oneshot::Sender<Vec<ClusterStatus>>),
    /// The configuration in effect.
    ConfigDump(oneshot::Sender<Dumped>),
    /// The certificates in use.
    Certificates(oneshot::Sender<Vec<CertificateSet>>),
    /// What is not complete yet.
    Unready(oneshot::Sender<Vec<Unready>>),
    /// End the interval of histograms, and send statistics to sinks. Answered when it has begun.
    FlushStats(oneshot::Sender<()>),
    /// The runtime.
    Runtime(oneshot::Sender<RuntimeStatus>),
    /// Keys to set in the runtime, or to take back where the value is empty. Answered with the reason if that cannot be.
    ModifyRuntime(Vec<(String, String)>, oneshot::Sender<Result<(), String>>),
    /// Something to do. Answered when it has begun, or with the reason why not.
    Command(Command, oneshot::Sender<Result<(), String>>),
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Close listeners.
    DrainListeners {
        /// Let connections drain for the drain time first.
        graceful: bool,
        /// Only those with inbound traffic.
        inbound_only: bool,
        /// Drain connections, but keep listening.
        skip_exit: bool,
    },
    /// Fail the server's health checks (`true`), or pass them again. The state that `/ready` shows is changed already;
    /// with `true` connections are asked to close, as in Envoy.
    FailHealthChecks(bool),
    /// End the process.
    Quit,
    /// Open access logs again.
    ReopenLogs,
}

/// A listener that is open.
#[derive(Debug, Clone)]
pub(crate) struct ListenerStatus {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Where it listens, the main address first: with the port the system chose, if it was 0.
    pub(crate) local_addresses: Vec<Address>,
}

/// A cluster.
#[derive(Debug, Clone)]
pub(crate) struct ClusterStatus {
    /// The cluster itself.
    pub(crate) cluster: Arc<Cluster>,
    /// It was discovered, and does not stand in the bootstrap.
    pub(crate) added_via_api: bool,
}

/// The runtime.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuntimeStatus {
    /// Names of the layers, in their order.
    pub(crate) layers: Vec<Arc<str>>,
    /// Every key.
    pub(crate) entries: Vec<Entry>,
}

/// The configuration in effect.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dumped {
    /// The bootstrap, encoded, and when it was read. `None` if there was none (a mesh member).
    pub(crate) bootstrap: Option<(Bytes, SystemTime)>,
    /// Every resource.
    pub(crate) resources: Vec<DumpEntry>,
    /// What servers are asked for by name and nothing is known of.
    pub(crate) missing: Vec<Missing>,
}

/// A resource that something refers to, and that is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// As in [`DumpEntry::type_url`].
    pub(crate) type_url: String,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// The server said that there is none; else it said nothing so far.
    pub(crate) does_not_exist: bool,
}

/// One resource.
#[derive(Debug, Clone)]
pub(crate) struct DumpEntry {
    /// `type.googleapis.com/envoy.config.cluster.v3.Cluster` and so on: clusters, load assignments, listeners, route
    /// configurations, secrets.
    pub(crate) type_url: String,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Where it stands.
    pub(crate) state: ResourceState,
    /// Its version; empty for static ones.
    pub(crate) version: String,
    /// When it took effect.
    pub(crate) last_updated: SystemTime,
    /// The accepted message, encoded. Empty: nothing was ever accepted under this name.
    pub(crate) bytes: Bytes,
    /// The last update that was refused, if it came after the accepted one.
    pub(crate) error: Option<DumpError>,
}

/// Where a resource stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceState {
    /// In the bootstrap.
    Static,
    /// Discovered and in effect.
    Active,
    /// Discovered and still incomplete.
    Warming,
}

/// An update that was refused.
#[derive(Debug, Clone)]
pub(crate) struct DumpError {
    /// The refused message, encoded; empty if it could not even be decoded.
    pub(crate) failed_configuration: Bytes,
    /// When it came.
    pub(crate) last_update_attempt: SystemTime,
    /// Fields and reasons.
    pub(crate) details: String,
    /// Its version.
    pub(crate) version: String,
}

/// Something that waits, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unready {
    /// `Cluster NAME`, `Listener NAME` or `Server`.
    pub(crate) who: String,
    /// `EDS NAME`, `RDS NAME`, `SDS NAME`, `DNS NAME`, or `CDS`, `LDS`, for the server.
    pub(crate) waits_for: Vec<String>,
}
