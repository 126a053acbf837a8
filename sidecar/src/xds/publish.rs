//! The boundary between discovery and the data plane: what changed, and what could not be put into effect.

use std::sync::Arc;

use super::Kind;
use crate::config::Rejected;
use crate::config::cluster::Cluster;
use crate::config::endpoint::LoadAssignment;
use crate::config::extension::Extension;
use crate::config::listener::Listener;
use crate::config::route::RouteConfiguration;
use crate::config::runtime::Values;
use crate::config::secret::Secret;

/// What takes effect now, all at once, in the order of the fields.
///
/// Everything in here is complete: a cluster's endpoints and a listener's routes are there, or the wait for them is over.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Secrets, new or changed. They take effect on the next handshake.
    pub(crate) secrets: Vec<Secret>,
    /// Layers of the runtime, by the names of their resources.
    pub(crate) runtime: Vec<(Arc<str>, Values)>,
    /// Clusters, new or changed.
    pub(crate) clusters: Vec<Arc<Cluster>>,
    /// Endpoints of EDS clusters, by `LoadAssignment::cluster_name`, new or changed.
    pub(crate) endpoints: Vec<Arc<LoadAssignment>>,
    /// Route configurations, new or changed.
    pub(crate) routes: Vec<Arc<RouteConfiguration>>,
    /// Configurations of filters, new or changed.
    pub(crate) extensions: Vec<Arc<Extension>>,
    /// Filters that there is no configuration of any more: their defaults count.
    pub(crate) lost_extensions: Vec<Arc<str>>,
    /// Listeners, new or changed. Sockets of an address that stays are kept.
    pub(crate) listeners: Vec<Arc<Listener>>,
    /// Names of listeners that are gone: they drain.
    pub(crate) removed_listeners: Vec<Arc<str>>,
    /// Names of route configurations that no listener uses any more.
    pub(crate) removed_routes: Vec<Arc<str>>,
    /// Names of load assignments that no cluster uses any more.
    pub(crate) removed_endpoints: Vec<Arc<str>>,
    /// Names of clusters that are gone.
    pub(crate) removed_clusters: Vec<Arc<str>>,
    /// Names of filters whose configuration no listener uses any more.
    pub(crate) removed_extensions: Vec<Arc<str>>,
    /// Names of secrets that nothing uses any more.
    pub(crate) removed_secrets: Vec<Arc<str>>,
}

impl Changes {
    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            secrets,
            runtime,
            clusters,
            endpoints,
            routes,
            extensions,
            lost_extensions,
            listeners,
            removed_listeners,
            removed_routes,
            removed_endpoints,
            removed_clusters,
            removed_extensions,
            removed_secrets,
        } = self;
        secrets.is_empty()
            && runtime.is_empty()
            && clusters.is_empty()
            && endpoints.is_empty()
            && routes.is_empty()
            && extensions.is_empty()
            && lost_extensions.is_empty()
            && listeners.is_empty()
            && removed_listeners.is_empty()
            && removed_routes.is_empty()
            && removed_endpoints.is_empty()
            && removed_clusters.is_empty()
            && removed_extensions.is_empty()
            && removed_secrets.is_empty()
    }
}

/// A resource that was refused, with every reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its type.
    pub(crate) kind: Kind,
    /// Its name; if even that could not be read, its place in the response (`resources[3]`).
    pub(crate) name: Arc<str>,
    /// Fields and reasons.
    pub(crate) rejected: Vec<Rejected>,
}

/// Who puts configuration into effect.
pub(crate) trait Publish {
    /// Makes sure that a listener could be opened, before it is accepted: binds its address unless that is bound already.
    /// Called when the listener is accepted; it begins to listen with [`Publish::publish`], or is given up in
    /// [`Changes::removed_listeners`].
    ///
    /// # Errors
    /// If the address cannot be bound; names it.
    fn reserve(&mut self, listener: &Listener) -> Result<(), Rejected>;

    /// Puts changes into effect. What is refused keeps its previous configuration; the rest takes effect all the same.
    fn publish(&mut self, changes: Changes) -> Vec<Refusal>;
}
