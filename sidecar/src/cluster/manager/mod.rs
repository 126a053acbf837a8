//! The control thread's side of clusters: keeps what lives on over every update.
//!
//! - [`update`]: a cluster is added, changed or removed;
//! - [`discovery`]: its endpoints come in, from discovery or from DNS;
//! - [`assign`]: from a load assignment to endpoints, the same objects where they stay the same;
//! - [`ejections`]: the decisions of outlier detection;
//! - [`rates`]: those that compare the endpoints of a cluster;
//! - [`health`]: what health checks change;
//! - [`weights`]: those that follow from what endpoints report;
//! - [`original_dst`]: endpoints that workers make;
//! - [`local`]: where we are, for zone aware routing;
//! - [`membership`]: how many endpoints there are, for statistics;
//! - here: clusters by name, and what happens to them by itself.

mod assign;
mod discovery;
mod ejections;
mod health;
mod local;
mod membership;
mod original_dst;
mod rates;
#[cfg(test)]
mod tests;
mod update;
mod weights;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::circuit_breaker::BreakerGauges;
use super::cluster::{Cluster, ClusterId};
use super::dns;
use super::endpoint::{Endpoint, EndpointId};
use super::event_log::{self, EventLog, OutlierLog};
use super::health_check::HealthEvent;
use super::health_check::probe::{MakeProbe, over_network};
use super::host_set::{HostSet, Members, SubsetValues};
use super::original_dst::EndpointIds;
use super::outlier_detection::Detected;
use super::table::ClusterTable;
use crate::config::bind_config::BindConfig;
use crate::config::cluster::OutlierDetection;
use crate::config::endpoint::LoadAssignment;
use crate::stats::{ClusterManagerCells, OutlierCells, Registry, Scope, Sharded};
use assign::Transports;
use ejections::Ejections;
use health::Health;
use local::Locally;
use membership::Membership;
use original_dst::Tidying;

/// All clusters of the process. Lives on the control thread.
pub(crate) struct Manager {
    registry: Arc<Registry>,
    cells: Arc<Sharded<ClusterManagerCells>>,
    ids: HashMap<Arc<str>, ClusterId>,
    /// By cluster id.
    entries: Vec<Option<Entry>>,
    /// Clusters by the name of their load assignment.
    by_service: HashMap<Arc<str>, Vec<ClusterId>>,
    /// Load assignments that came, whether a cluster uses them yet or not.
    assignments: HashMap<Arc<str>, Arc<LoadAssignment>>,
    endpoint_ids: EndpointIds,
    /// Where connections come from, of clusters that do not say.
    bind: Option<Arc<BindConfig>>,
    local: Option<Arc<Locally>>,
    table: ClusterTable,
    /// Places of the table that changed since it was made.
    changed: BTreeSet<ClusterId>,
    /// Endpoints that are gone and have not been told of.
    gone: Vec<Arc<Endpoint>>,
    /// Endpoints whose connections are to serve no further request.
    stale: Vec<EndpointId>,
    /// When outlier detection looks at a cluster next. Only clusters that have it are in here.
    due: BTreeSet<(Instant, ClusterId)>,
    /// When a cluster of type ORIGINAL_DST is looked at next.
    untidy: BTreeSet<(Instant, ClusterId)>,
    /// When the endpoints of a cluster are weighed next. Only clusters of which they report their load are in here.
    weighings: BTreeSet<(Instant, ClusterId)>,
    made: (mpsc::UnboundedSender<ClusterId>, mpsc::UnboundedReceiver<ClusterId>),
    /// What writes event logs.
    events: Arc<dyn EventLog>,
    /// Where ejections are written to.
    outlier_log: Option<Arc<Path>>,
    resolver: dns::Resolver,
    make_probe: MakeProbe,
    health: (mpsc::UnboundedSender<HealthEvent>, mpsc::UnboundedReceiver<HealthEvent>),
    detected: (mpsc::UnboundedSender<Detected>, mpsc::UnboundedReceiver<Detected>),
    resolved: (mpsc::UnboundedSender<dns::Resolved>, mpsc::UnboundedReceiver<dns::Resolved>),
}

/// One cluster with what only the control thread knows of it.
struct Entry {
    cluster: Arc<Cluster>,
    transports: Transports,
    /// Where we are, if the bootstrap says and this is another cluster.
    local: Option<Arc<Locally>>,
    /// The assignment in force, with addresses.
    assignment: Option<Arc<LoadAssignment>>,
    dns: Option<dns::Targets>,
    ejections: Ejections,
    health: Health,
    /// Its place in `Manager::due`.
    due: Option<Instant>,
    tidying: Tidying,
    /// Its place in `Manager::weighings`.
    weighing: Option<Instant>,
    outlier_stats: Option<Arc<Sharded<OutlierCells>>>,
    outlier_log: Option<OutlierLog>,
    /// Endpoints were found, or the first attempt is over.
    initialized: bool,
    /// Gauges, which the registry only holds weakly.
    breaker_gauges: Arc<BreakerGauges>,
    _membership: Arc<Membership>,
}

impl Manager {
    /// Without a cluster.
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        Self {
            registry: Arc::clone(registry),
            cells: registry.scope(Scope::ClusterManager),
            ids: HashMap::new(),
            entries: Vec::new(),
            by_service: HashMap::new(),
            assignments: HashMap::new(),
            endpoint_ids: EndpointIds::default(),
            bind: None,
            local: None,
            table: ClusterTable::default(),
            changed: BTreeSet::new(),
            gone: Vec::new(),
            stale: Vec::new(),
            due: BTreeSet::new(),
            untidy: BTreeSet::new(),
            weighings: BTreeSet::new(),
            made: mpsc::unbounded_channel(),
            events: Arc::new(event_log::Nowhere),
            outlier_log: None,
            resolver: dns::Resolver::new(registry),
            make_probe: over_network(),
            health: mpsc::unbounded_channel(),
            detected: mpsc::unbounded_channel(),
            resolved: mpsc::unbounded_channel(),
        }
    }

    /// Where connections come from, of clusters that do not say.
    pub(crate) fn set_default_bind(&mut self, bind: Option<Arc<BindConfig>>) {
        self.bind = bind;
    }

    /// What writes event logs, and where ejections are written to.
    pub(crate) fn set_event_log(&mut self, events: Arc<dyn EventLog>, outliers: Option<&Path>) {
        self.events = events;
        self.outlier_log = outliers.map(Arc::from);
    }

    /// The id of a name. A cluster need not exist: routes may name one that is still to come.
    pub(crate) fn id(&mut self, name: &Arc<str>) -> ClusterId {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = ClusterId(self.ids.len() as u32);
        self.ids.insert(Arc::clone(name), id);
        self.entries.push(None);
        id
    }

    /// The cluster of a name, if it exists.
    #[cfg(test)]
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.entry(*self.ids.get(name)?).map(|entry| &entry.cluster)
    }

    /// Whether the cluster's endpoints are there and were checked once, or its first attempt to find them is over. `false`
    /// for a cluster that does not exist.
    pub(crate) fn is_initialized(&self, name: &str) -> bool {
        let entry = self.ids.get(name).and_then(|&id| self.entry(id));
        entry.is_some_and(|entry| entry.initialized && entry.health.is_ready())
    }

    /// Whether the endpoints of every cluster were checked once, where they are checked.
    pub(crate) fn is_checked(&self) -> bool {
        self.entries.iter().flatten().all(|entry| entry.health.is_ready())
    }

    /// The table of all clusters, for the next snapshot. Costs what changed since the last call.
    ///
    /// A cluster that is new is in it once its endpoints were checked, where they are checked.
    pub(crate) fn table(&mut self) -> ClusterTable {
        if !self.changed.is_empty() {
            let changed = std::mem::take(&mut self.changed);
            self.table = self.table.with(changed.into_iter().map(|id| {
                let entry = self.entries.get_mut(id.index()).and_then(Option::as_mut);
                let shown = entry.and_then(|entry| entry.health.show().then_some(entry));
                (id, shown.map(|entry| Arc::clone(&entry.cluster)))
            }));
        }
        self.table.clone()
    }

    /// Endpoints that are gone since the last call: workers close their idle connections to them.
    pub(crate) fn take_gone(&mut self) -> Vec<Arc<Endpoint>> {
        std::mem::take(&mut self.gone)
    }

    /// Endpoints whose connections are to serve no further request, since the last call.
    pub(crate) fn take_stale(&mut self) -> Vec<EndpointId> {
        std::mem::take(&mut self.stale)
    }

    /// Waits for the next thing that happens to clusters (a health check, an address resolved, an endpoint failing, the end of an
    /// ejection) and puts it into effect. Returns the name of a cluster that became initialized by it.
    ///
    /// Meant to be called in a loop, as a branch of a `select!`: dropping it loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Arc<str>> {
        let due = self.due.first().copied();
        let untidy = self.untidy.first().copied();
        let weighing = self.weighings.first().copied();
        let weigh = at(weighing.map(|(at, _)| at));
        let timer = at(due.map(|(at, _)| at));
        let tidying = at(untidy.map(|(at, _)| at));
        let became_initialized = tokio::select! {
            biased;
            Some(detected) = self.detected.1.recv() => {
                self.detected(&detected);
                None
            }
            Some(event) = self.health.1.recv() => self.health_event(event),
            Some(resolved) = self.resolved.1.recv() => self.resolved(resolved),
            Some(id) = self.made.1.recv() => {
                self.expect_new(id);
                None
            }
            () = timer => {
                if let Some((at, id)) = due {
                    self.look(id, at);
                }
                None
            }
            () = weigh => {
                if let Some((at, id)) = weighing {
                    self.weigh(at, id);
                }
                None
            }
            () = tidying => {
                if let Some((at, id)) = untidy {
                    self.tidy(at, id);
                }
                None
            }
        };
        self.follow_local();
        became_initialized
    }

    fn entry(&self, id: ClusterId) -> Option<&Entry> {
        self.entries.get(id.index()).and_then(Option::as_ref)
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Entry {
    /// Makes a new host set, by the health of this moment.
    fn swap_hosts(&self, members: Vec<Members>) {
        let policy = self.assignment.as_ref().map(|assignment| assignment.policy);
        let policy = policy.unwrap_or_default();
        // Discovery has said other weights, or the health of endpoints has changed: either way those that they report count.
        self.weigh(&members);
        let hosts = match &self.local {
            None => HostSet::new(members, &self.cluster.config, policy, None),
            Some(local) => local.host_set(members, &self.cluster, policy),
        };
        if hosts.subsets.is_some() {
            self.count_subsets(&hosts);
        }
        self.cluster.drop_overload.store(policy.drop_overload, Relaxed);
        let category = self.assignment.as_ref().and_then(|it| it.drop_category.as_deref());
        self.cluster.drop_category.store(category.map(|category| Arc::new(category.into())));
        self.cluster.hosts.store(Arc::new(hosts));
    }

    /// Counts which subsets come and go.
    fn count_subsets(&self, next: &HostSet) {
        fn values(hosts: &HostSet) -> impl Iterator<Item = &SubsetValues> {
            hosts.subsets.iter().flat_map(|subsets| subsets.selected())
        }
        let before = self.cluster.hosts.load();
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (values(&before).collect(), values(next).collect());
        let cells = self.cluster.stats.local();
        cells.lb_subsets_created.add(new.difference(&old).count() as u64);
        cells.lb_subsets_removed.add(old.difference(&new).count() as u64);
    }

    fn outlier_config(&self) -> Option<&OutlierDetection> {
        self.cluster.config.outlier_detection.as_ref()
    }
}
