//! The tasks behind the streams of discovery.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::config::Rejected;
use crate::config::bootstrap::{Bootstrap, DiscoveryService};
use crate::config::cluster::Cluster;
use crate::config::config_source::Origin;
use crate::stats::{ControlPlaneCells, Sharded};
use crate::tls;
use crate::xds::{Client, ControlPlane, Event, FileSource, Node, Opened, StreamId};

/// Every stream that is open, or tried to be.
pub(super) struct Streams {
    node: Node,
    ads: Option<DiscoveryService>,
    /// Of the bootstrap.
    clusters: HashMap<Arc<str>, Arc<Cluster>>,
    /// Where what happens on a stream is told.
    events: mpsc::Sender<(StreamId, Event)>,
    /// The aggregated stream is opened only while this is `true`; `None`: always.
    gate: Option<watch::Receiver<bool>>,
    deny_unknown_fields: bool,
    cells: Arc<Sharded<ControlPlaneCells>>,
    tasks: BTreeMap<StreamId, AbortHandle>,
}

impl Streams {
    /// Of the servers in a bootstrap. With `deny_unknown_fields`, files with a field that does not exist are refused.
    pub(super) fn new(
        bootstrap: &Bootstrap,
        deny_unknown_fields: bool,
        events: mpsc::Sender<(StreamId, Event)>,
        cells: Arc<Sharded<ControlPlaneCells>>,
    ) -> Self {
        let clusters = bootstrap.clusters.iter();
        Self {
            node: bootstrap.node.clone(),
            ads: bootstrap.ads.clone(),
            clusters: clusters.map(|it| (Arc::clone(&it.name), Arc::clone(it))).collect(),
            events,
            gate: None,
            deny_unknown_fields,
            cells,
            tasks: BTreeMap::new(),
        }
    }

    /// The aggregated stream waits for this to be `true`.
    pub(super) fn wait_for(&mut self, gate: watch::Receiver<bool>) {
        self.gate = Some(gate);
    }

    /// Where a service is: the servers of a cluster of the bootstrap, or the one that it names itself.
    ///
    /// # Errors
    /// If there is no such cluster, or its TLS cannot be set up.
    pub(super) fn control_plane(
        &self,
        service: &DiscoveryService,
        contexts: &mut tls::Contexts,
    ) -> Result<ControlPlane, Rejected> {
        if let Some(channel) = &service.channel {
            let cluster = channel.cluster().map_err(|rejected| first(&rejected))?;
            return ControlPlane::new(cluster, contexts);
        }
        let cluster = &service.cluster;
        match self.clusters.get(cluster) {
            Some(cluster) => ControlPlane::new(Arc::clone(cluster), contexts),
            None => {
                let reason = format!("there is no cluster {cluster:?}");
                Err(Rejected { path: String::new(), reason })
            }
        }
    }

    /// Begins to keep a stream open.
    pub(super) fn open(&mut self, opened: Opened, contexts: &mut tls::Contexts) {
        let Opened { id, origin, kind } = opened;
        let (service, gate) = match &origin {
            Origin::Ads => (self.ads.clone(), self.gate.clone()),
            Origin::Service(service) => (Some(DiscoveryService::clone(service)), None),
            Origin::File(file) => {
                let Some(kind) = kind else { return };
                let (file, events) = (Arc::clone(file), self.events.clone());
                let deny_unknown_fields = self.deny_unknown_fields;
                let source = FileSource { id, kind, file, deny_unknown_fields, events };
                self.tasks.insert(id, tokio::spawn(source.run()).abort_handle());
                return;
            }
        };
        let Some(service) = service else { return };
        let control_plane = match self.control_plane(&service, contexts) {
            Ok(control_plane) => control_plane,
            Err(rejected) => {
                // Resources that name such a server are refused before.
                tracing::error!(cluster = %service.cluster, %rejected, "no stream for discovery");
                return;
            }
        };
        let (node, events) = (self.node.clone(), self.events.clone());
        let cells = Arc::clone(&self.cells);
        let client = Client { id, kind, service, node, control_plane, gate, cells, events };
        self.tasks.insert(id, tokio::spawn(client.run()).abort_handle());
    }

    /// Ends a stream that nothing is wanted from.
    pub(super) fn close(&mut self, id: StreamId) {
        if let Some(task) = self.tasks.remove(&id) {
            task.abort();
        }
    }
}

/// What is told of several reasons.
fn first(rejected: &[Rejected]) -> Rejected {
    let none = Rejected { path: String::new(), reason: "cannot be converted".to_owned() };
    rejected.first().cloned().unwrap_or(none)
}
