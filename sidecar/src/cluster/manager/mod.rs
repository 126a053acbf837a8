//! The control thread's side of clusters: keeps what lives on over every update.
//!
//! - [`assign`]: from a load assignment to endpoints, the same objects where they stay the same;
//! - [`ejections`]: the decisions of outlier detection;
//! - [`rates`]: those that compare the endpoints of a cluster;
//! - here: clusters by name, and what comes in from discovery, from DNS and from workers.

mod assign;
mod ejections;
mod rates;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::circuit_breaker::{Breaker, BreakerGauges};
use super::cluster::{Cluster, ClusterId};
use super::dns;
use super::endpoint::{Endpoint, EndpointId};
use super::host_set::{HostSet, Members};
use super::outlier_detection::{Detected, Detector};
use super::table::ClusterTable;
use crate::config;
use crate::config::Rejected;
use crate::config::cluster::{Discovery, OutlierDetection};
use crate::config::endpoint::LoadAssignment;
use crate::stats::registry::{Name, Reading, Sink, Source};
use crate::stats::{
    ClusterCells, ClusterManagerCells, ClusterUpdateCells, OutlierCells, Registry, Scope, Sharded,
    TlsCells,
};
use crate::tls;
use assign::Transports;
use ejections::Ejections;

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
    next_endpoint: u32,
    table: ClusterTable,
    /// Places of the table that changed since it was made.
    changed: BTreeSet<ClusterId>,
    /// Endpoints that are gone and have not been told of.
    gone: Vec<Arc<Endpoint>>,
    /// When outlier detection looks at a cluster next. Only clusters that have it are in here.
    due: BTreeSet<(Instant, ClusterId)>,
    resolver: dns::Resolver,
    detected: (mpsc::UnboundedSender<Detected>, mpsc::UnboundedReceiver<Detected>),
    resolved: (mpsc::UnboundedSender<dns::Resolved>, mpsc::UnboundedReceiver<dns::Resolved>),
}

/// One cluster with what only the control thread knows of it.
struct Entry {
    cluster: Arc<Cluster>,
    transports: Transports,
    /// The assignment in force, with addresses.
    assignment: Option<Arc<LoadAssignment>>,
    dns: Option<dns::Targets>,
    ejections: Ejections,
    /// Its place in `Manager::due`.
    due: Option<Instant>,
    outlier_stats: Option<Arc<Sharded<OutlierCells>>>,
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
            next_endpoint: 0,
            table: ClusterTable::default(),
            changed: BTreeSet::new(),
            gone: Vec::new(),
            due: BTreeSet::new(),
            resolver: dns::Resolver::new(registry),
            detected: mpsc::unbounded_channel(),
            resolved: mpsc::unbounded_channel(),
        }
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

    /// Adds a cluster, or puts a new configuration of it into effect.
    ///
    /// Endpoints stay the same objects wherever address and transport stay the same; ejections, active requests, circuit
    /// breakers and statistics go on. An EDS cluster whose endpoints are known already has them at once.
    ///
    /// # Errors
    /// If its TLS cannot be set up. The previous configuration stays in effect.
    pub(crate) fn set(
        &mut self,
        config: Arc<config::cluster::Cluster>,
        tls: &mut tls::Contexts,
    ) -> Result<(), Rejected> {
        let transports = Transports::new(&config, tls)?;
        let id = self.id(&config.name);
        let previous = self.entries.get_mut(id.index()).and_then(Option::take);
        if let Some(at) = previous.as_ref().and_then(|previous| previous.due) {
            self.due.remove(&(at, id));
        }
        match &previous {
            Some(_) => self.cells.local().cluster_modified.inc(),
            None => {
                self.cells.local().cluster_added.inc();
                self.cells.local().active_clusters.inc();
            }
        }
        if let Some(previous) = &previous {
            self.forget_service(id, &previous.cluster.config.discovery);
        }
        if let Discovery::Eds { service_name, .. } = &config.discovery {
            self.by_service.entry(Arc::clone(service_name)).or_default().push(id);
        }
        let entry = self.make_entry(id, config, transports, previous);
        if let Some(slot) = self.entries.get_mut(id.index()) {
            *slot = Some(entry);
        }
        self.changed.insert(id);
        self.start_discovery(id);
        Ok(())
    }

    fn make_entry(
        &self,
        id: ClusterId,
        config: Arc<config::cluster::Cluster>,
        transports: Transports,
        previous: Option<Entry>,
    ) -> Entry {
        let stat_name = |config: &config::cluster::Cluster| -> Arc<str> {
            config.alt_stat_name.as_deref().map_or_else(|| Arc::clone(&config.name), Arc::from)
        };
        let scope = Scope::Cluster(stat_name(&config));
        let stats = self.registry.scope::<ClusterCells>(scope.clone());
        let updates = self.registry.scope::<ClusterUpdateCells>(scope.clone());
        let tls_stats =
            transports.any_tls().then(|| self.registry.scope::<TlsCells>(scope.clone()));
        let detector = config.outlier_detection.clone().map(|config| Detector {
            cluster: id,
            config,
            detected: self.detected.0.clone(),
        });
        let outlier_stats =
            detector.as_ref().map(|_| self.registry.scope::<OutlierCells>(scope.clone()));

        // The counts of the breakers and the hosts go on; a new name in statistics means new gauges.
        let renamed = previous
            .as_ref()
            .is_some_and(|previous| stat_name(&previous.cluster.config) != stat_name(&config));
        let breakers = match &previous {
            Some(previous) if !renamed => {
                let breakers = Arc::clone(&previous.cluster.breakers);
                for (breaker, limits) in breakers.iter().zip(&config.circuit_breakers) {
                    breaker.set_limits(limits);
                }
                breakers
            }
            _ => {
                let [default, high] = &config.circuit_breakers;
                Arc::new([
                    Breaker::new(default, Arc::clone(&stats)),
                    Breaker::new(high, Arc::clone(&stats)),
                ])
            }
        };
        let hosts = previous.as_ref().map_or_else(
            || Arc::new(ArcSwap::from_pointee(HostSet::empty())),
            |previous| Arc::clone(&previous.cluster.hosts),
        );
        let breaker_gauges = match &previous {
            Some(previous) if !renamed => Arc::clone(&previous.breaker_gauges),
            _ => Arc::new(BreakerGauges(Arc::clone(&breakers))),
        };
        let membership = Arc::new(Membership {
            hosts: Arc::clone(&hosts),
            ejects: config.outlier_detection.is_some(),
        });
        self.registry.add_source(scope.clone(), &breaker_gauges);
        self.registry.add_source(scope, &membership);

        let cluster = Cluster {
            id,
            name: Arc::clone(&config.name),
            stats,
            tls_stats,
            updates,
            hosts,
            breakers,
            detector,
            config,
        };
        let now = Instant::now();
        let interval = |config: &config::cluster::Cluster| {
            config.outlier_detection.as_ref().map(|outlier| outlier.interval)
        };
        let (assignment, dns, mut ejections, initialized) = match previous {
            Some(previous) => {
                let mut ejections = previous.ejections;
                if interval(&previous.cluster.config) != interval(&cluster.config) {
                    ejections.restart(now);
                }
                let mut dns = previous.dns.filter(|dns| dns.serves(&cluster.config.discovery));
                if let Some(dns) = &mut dns {
                    dns.adopt(&cluster.config.discovery);
                }
                (previous.assignment, dns, ejections, previous.initialized)
            }
            None => (None, None, Ejections::new(now), false),
        };
        if cluster.config.outlier_detection.is_none() {
            ejections.forgive_all(&cluster);
        }
        Entry {
            cluster: Arc::new(cluster),
            transports,
            assignment,
            dns,
            ejections,
            due: None,
            outlier_stats,
            initialized,
            breaker_gauges,
            _membership: membership,
        }
    }

    /// Begins to find a cluster's endpoints, or takes those that are known.
    fn start_discovery(&mut self, id: ClusterId) {
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let config = Arc::clone(&entry.cluster.config);
        let known = match &config.discovery {
            Discovery::Static(assignment) => Some(Arc::clone(assignment)),
            Discovery::Eds { service_name, .. } => {
                let known = self.assignments.get(service_name).cloned();
                // A cluster whose kind of discovery changed, or whose endpoints are not here yet, keeps what it has.
                known.or_else(|| entry.assignment.clone())
            }
            Discovery::StrictDns { .. } => {
                if entry.dns.is_none() {
                    let resolved = self.resolved.0.clone();
                    entry.dns =
                        dns::Targets::start(id, &config.discovery, &self.resolver, resolved);
                }
                entry
                    .dns
                    .as_ref()
                    .and_then(dns::Targets::assignment)
                    .or_else(|| entry.assignment.clone())
            }
        };
        match known {
            Some(assignment) => {
                entry.initialized = true;
                self.assign(id, assignment);
            }
            None => self.reschedule(id),
        }
    }

    /// Removes a cluster. Requests under way keep its endpoints until they end.
    pub(crate) fn remove(&mut self, name: &str) {
        let Some(&id) = self.ids.get(name) else { return };
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::take) else { return };
        self.forget_service(id, &entry.cluster.config.discovery);
        let hosts = entry.cluster.hosts.swap(Arc::new(HostSet::empty()));
        for endpoint in hosts.endpoints() {
            endpoint.set_gone();
            self.gone.push(Arc::clone(endpoint));
        }
        if let Some(at) = entry.due {
            self.due.remove(&(at, id));
        }
        self.changed.insert(id);
        self.cells.local().cluster_removed.inc();
        self.cells.local().active_clusters.dec();
    }

    /// Takes new endpoints of EDS clusters. They touch the host sets of those clusters and nothing else.
    pub(crate) fn set_endpoints(&mut self, service_name: &str, assignment: Arc<LoadAssignment>) {
        let clusters = self.by_service.get(service_name).cloned().unwrap_or_default();
        self.assignments.insert(Arc::from(service_name), Arc::clone(&assignment));
        for id in clusters {
            if let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) {
                entry.cluster.updates.local().update_success.inc();
                entry.initialized = true;
                self.assign(id, Arc::clone(&assignment));
            }
        }
    }

    /// Forgets a load assignment that discovery no longer has. Clusters that use it keep their endpoints: as in Envoy, the
    /// removal of endpoints in use is ignored, and only an empty assignment empties a cluster.
    pub(crate) fn forget_endpoints(&mut self, service_name: &str) {
        if !self.by_service.contains_key(service_name) {
            self.assignments.remove(service_name);
        }
    }

    /// Whether the cluster's endpoints are there, or its first attempt to find them is over. `false` for a cluster that does not exist.
    pub(crate) fn is_initialized(&self, name: &str) -> bool {
        let entry = self.ids.get(name).and_then(|&id| self.entry(id));
        entry.is_some_and(|entry| entry.initialized)
    }

    /// The table of all clusters, for the next snapshot. Costs what changed since the last call.
    pub(crate) fn table(&mut self) -> ClusterTable {
        if !self.changed.is_empty() {
            let changed = std::mem::take(&mut self.changed);
            self.table = self.table.with(changed.into_iter().map(|id| {
                let entry = self.entries.get(id.index()).and_then(Option::as_ref);
                (id, entry.map(|entry| Arc::clone(&entry.cluster)))
            }));
        }
        self.table.clone()
    }

    /// Endpoints that are gone since the last call: workers drop their pools for them.
    pub(crate) fn take_gone(&mut self) -> Vec<Arc<Endpoint>> {
        std::mem::take(&mut self.gone)
    }

    /// Waits for the next thing that happens to clusters (an address resolved, an endpoint failing, the end of an
    /// ejection) and puts it into effect. Returns the name of a cluster that became initialized by it.
    ///
    /// Meant to be called in a loop, as a branch of a `select!`: dropping it loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Arc<str>> {
        let due = self.due.first().copied();
        let timer = async {
            match due {
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(detected) = self.detected.1.recv() => {
                self.detected(&detected);
                None
            }
            Some(resolved) = self.resolved.1.recv() => self.resolved(resolved),
            () = timer => {
                if let Some((at, id)) = due {
                    self.look(id, at);
                }
                None
            }
        }
    }

    fn resolved(&mut self, resolved: dns::Resolved) -> Option<Arc<str>> {
        let id = resolved.cluster;
        let entry = self.entries.get_mut(id.index()).and_then(Option::as_mut)?;
        let targets = entry.dns.as_mut()?;
        let updates = entry.cluster.updates.local();
        updates.update_attempt.inc();
        match &resolved.addresses {
            Ok(addresses) => {
                updates.update_success.inc();
                if addresses.is_empty() {
                    updates.update_empty.inc();
                }
            }
            Err(_) => updates.update_failure.inc(),
        }
        let changed = targets.take(resolved)?;
        let became_initialized = !entry.initialized && targets.is_complete();
        entry.initialized |= became_initialized;
        let name = became_initialized.then(|| Arc::clone(&entry.cluster.name));
        if !changed {
            entry.cluster.updates.local().update_no_rebuild.inc();
        } else if let Some(assignment) = targets.assignment() {
            self.assign(id, assignment);
        }
        name
    }

    /// Puts an assignment with addresses into effect.
    fn assign(&mut self, id: ClusterId, assignment: Arc<LoadAssignment>) {
        let shards = self.registry.shards();
        let next_endpoint = &mut self.next_endpoint;
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let before = entry.cluster.hosts.load_full();
        let (members, changed) = assign::members(
            &assignment,
            &entry.transports,
            &before,
            &mut |address, hostname, transport| {
                let id = EndpointId(*next_endpoint);
                *next_endpoint += 1;
                Endpoint::new(id, address, hostname, transport, shards)
            },
        );
        entry.assignment = Some(Arc::clone(&assignment));
        let updates = entry.cluster.updates.local();
        if changed {
            updates.membership_change.inc();
        }
        for endpoint in before.endpoints() {
            if !members.contains(endpoint.id) {
                endpoint.set_gone();
                entry.ejections.forget(endpoint.id);
                self.gone.push(Arc::clone(endpoint));
            }
        }
        entry.swap_hosts(members.into_members());
        self.reschedule(id);
    }

    fn forget_service(&mut self, id: ClusterId, discovery: &Discovery) {
        if let Discovery::Eds { service_name, .. } = discovery
            && let Some(clusters) = self.by_service.get_mut(service_name)
        {
            clusters.retain(|&other| other != id);
            if clusters.is_empty() {
                self.by_service.remove(service_name);
            }
        }
    }

    fn entry(&self, id: ClusterId) -> Option<&Entry> {
        self.entries.get(id.index()).and_then(Option::as_ref)
    }
}

impl Entry {
    /// Makes a new host set, by the health of this moment.
    fn swap_hosts(&self, members: Vec<Members>) {
        let policy = self.assignment.as_ref().map(|assignment| assignment.policy);
        let hosts = HostSet::new(members, &self.cluster.config, policy.unwrap_or_default());
        self.cluster.hosts.store(Arc::new(hosts));
    }

    fn outlier_config(&self) -> Option<&OutlierDetection> {
        self.cluster.config.outlier_detection.as_ref()
    }
}

/// Gauges of a cluster's endpoints, read from the host set.
struct Membership {
    hosts: Arc<ArcSwap<HostSet>>,
    ejects: bool,
}

impl Source for Membership {
    fn read(&self, sink: &mut Sink<'_>) {
        let hosts = self.hosts.load();
        let count = |list: fn(&super::host_set::Priority) -> usize| -> u64 {
            hosts.priorities.iter().map(|priority| list(priority) as u64).sum()
        };
        let mut gauge = |name, value| {
            sink(Name::plain(name), Reading::Gauge { value, used: true });
        };
        gauge("membership_total", count(|priority| priority.all.list.len()));
        gauge("membership_healthy", count(|priority| priority.healthy.list.len()));
        gauge("membership_degraded", count(|priority| priority.degraded.list.len()));
        let excluded = hosts.endpoints().filter(|endpoint| endpoint.is_excluded());
        gauge("membership_excluded", excluded.count() as u64);
        let heaviest = hosts.endpoints().map(|endpoint| endpoint.weight()).max();
        gauge("max_host_weight", heaviest.unwrap_or(0).into());
        if let Some(evenness) = hosts.evenness() {
            if let Some(size) = evenness.size {
                gauge("ring_hash_lb.size", size);
                gauge("ring_hash_lb.min_hashes_per_host", evenness.fewest);
                gauge("ring_hash_lb.max_hashes_per_host", evenness.most);
            } else {
                gauge("maglev_lb.min_entries_per_host", evenness.fewest);
                gauge("maglev_lb.max_entries_per_host", evenness.most);
            }
        }
        if self.ejects {
            let ejected =
                hosts.endpoints().filter(|endpoint| endpoint.outlier.ejection().is_some());
            gauge("outlier_detection.ejections_active", ejected.count() as u64);
        }
    }
}
