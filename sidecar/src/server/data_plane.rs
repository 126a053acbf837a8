//! Puts configuration into effect: from validated resources to the snapshot that workers serve from.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::event_files::EventFiles;
use super::export;
use super::extensions::Extensions;
use super::routes::{Inline, Routes};
use super::runtime::Runtime;
use super::sockets::{Given, Settled, Sockets};
use crate::access_log::{LogStreams, Writer};
use crate::cluster::{EndpointId, Manager};
use crate::config;
use crate::config::Rejected;
use crate::config::address::Address;
use crate::config::bootstrap::LocalInfo;
use crate::config::cluster::Cluster;
use crate::config::endpoint::LoadAssignment;
use crate::config::listener::TrafficDirection;
use crate::config::route::RouteConfiguration;
use crate::config::runtime::RuntimeLayer;
use crate::config::secret::Secret;
use crate::http::RouteTable;
use crate::listener::{Build, Listener};
use crate::local::{Local, Shared};
use crate::on_demand::Demands;
use crate::snapshot::{ListenerId, Snapshot};
use crate::stats::{ListenerManagerCells, Registry, Scope, Sharded};
use crate::tls;
use crate::trace::Reporters;
use crate::worker::{self, Command, WorkerHandle};
use crate::xds::{Changes, Kind, Publish, Refusal};

/// How long the end of the process waits for collectors.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// Everything that serves. Lives on the control thread.
pub(super) struct DataPlane {
    /// Clusters.
    pub(super) manager: Manager,
    /// TLS contexts and secrets.
    pub(super) contexts: tls::Contexts,
    /// What workers see.
    pub(super) shared: Shared,
    /// What the control thread asks of clusters.
    local: Rc<Local>,
    registry: Arc<Registry>,
    routes: Routes,
    extensions: Extensions,
    /// The layers of the runtime.
    pub(super) runtime: Runtime,
    /// By listener id.
    listeners: Vec<Option<Arc<Listener>>>,
    ids: HashMap<Arc<str>, ListenerId>,
    /// Listeners that wait until another has left their address.
    waiting: Vec<Arc<config::listener::Listener>>,
    /// Listeners that accept nothing any more, and take nothing over.
    stopped: HashSet<ListenerId>,
    /// Who takes over a connection that was going to an address; `None`: to be found out anew.
    by_address: Option<Arc<HashMap<SocketAddr, ListenerId>>>,
    sockets: Sockets,
    workers: Vec<WorkerHandle>,
    writer: Writer,
    event_files: Arc<EventFiles>,
    cells: Arc<Sharded<ListenerManagerCells>>,
    version: u64,
    local_info: Arc<LocalInfo>,
    reporters: Reporters,
    log_streams: LogStreams,
    exporting: JoinSet<()>,
}

/// Sockets that workers get when the snapshot is theirs.
type Opened = Vec<(ListenerId, Given)>;

/// Listeners that were in effect, with what is in their place.
type Left = Vec<(Arc<Listener>, Option<Arc<Listener>>)>;

/// A listener that may take effect, with its inline route configurations.
struct Built {
    listener: Arc<Listener>,
    inline: Inline,
}

impl DataPlane {
    /// Starts the workers, without a listener.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(super) fn start(
        registry: &Arc<Registry>,
        workers: usize,
        local_info: LocalInfo,
        layers: &[RuntimeLayer],
        demands: Demands,
    ) -> io::Result<Self> {
        let shared = Shared {
            demands,
            snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            server: registry.scope(Scope::Server),
            connections: Arc::new(AtomicUsize::new(0)),
            failing: Arc::default(),
            node_cluster: HeaderValue::from_str(&local_info.cluster)
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            node_id: HeaderValue::from_str(&local_info.id)
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            draining: CancellationToken::new(),
            draining_inbound: CancellationToken::new(),
            closing: CancellationToken::new(),
        };
        let writer = Writer::start(registry)?;
        let started = (0..workers)
            .map(|index| worker::spawn(index, shared.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let cells: Arc<Sharded<ListenerManagerCells>> = registry.scope(Scope::ListenerManager);
        cells.local().workers_started.set(1);
        Ok(Self {
            local: Local::new(workers, shared.clone()),
            manager: Manager::new(registry),
            contexts: tls::Contexts::new(),
            shared,
            registry: Arc::clone(registry),
            routes: Routes::default(),
            extensions: Extensions::default(),
            runtime: Runtime::new(layers, registry),
            listeners: Vec::new(),
            ids: HashMap::new(),
            waiting: Vec::new(),
            stopped: HashSet::new(),
            by_address: None,
            sockets: Sockets::new(workers),
            workers: started,
            writer,
            event_files: Arc::default(),
            cells,
            version: 0,
            local_info: Arc::new(local_info),
            reporters: Reporters::default(),
            log_streams: LogStreams::default(),
            exporting: JoinSet::new(),
        })
    }

    /// Listeners in effect, with where they listen.
    pub(super) fn open_listeners(&self) -> impl Iterator<Item = (&Arc<Listener>, Vec<Address>)> {
        self.listeners.iter().flatten().map(|listener| {
            let local = self.sockets.local_addresses(&listener.config.name);
            if local.is_empty() {
                // It has been stopped.
                let addresses = listener.config.addresses();
                return (listener, addresses.map(|(address, _)| address.clone()).collect());
            }
            (listener, local)
        })
    }

    /// Opens access logs again under their names.
    pub(super) fn reopen_logs(&self) {
        self.writer.reopen();
    }

    /// Accepts no more connections at some listeners. Connections that are open go on.
    pub(super) fn stop_listening(&mut self, inbound_only: bool) {
        let names: Vec<(ListenerId, Arc<str>)> = self
            .listeners
            .iter()
            .flatten()
            .filter(|it| !inbound_only || it.config.traffic_direction == TrafficDirection::Inbound)
            .map(|it| (it.id, Arc::clone(&it.config.name)))
            .collect();
        for (id, name) in names {
            self.tell_all(|| Command::Unlisten { listener: id });
            self.sockets.close(&name);
            self.stopped.insert(id);
            self.cells.local().listener_stopped.inc();
        }
        self.sockets.close_unused();
        self.by_address = None;
        self.swap_snapshot();
    }

    /// Accepts no more connections at all.
    pub(super) fn close(&mut self) {
        self.shared.closing.cancel();
        self.sockets.close_all();
    }

    /// Ends the workers, cutting what is still open, and writes the last log lines.
    pub(super) async fn stop(self) {
        let Self { workers, writer, shared, local, listeners, mut exporting, mut manager, .. } =
            self;
        workers.into_iter().for_each(WorkerHandle::stop);
        writer.shutdown();
        // With the last connection manager the exporters get no more; what they have by now they still send.
        drop(listeners);
        shared
            .snapshot
            .store(Arc::new(Snapshot { clusters: manager.table(), ..Default::default() }));
        drop(local.view());
        let sent = async { while exporting.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_EXPORT, sent).await.is_err() {
            tracing::warn!("what was to be reported last could not be sent in time");
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            // A worker that is gone has said why.
            let _ = worker.commands.send(command());
        }
    }

    fn set_secrets(&mut self, secrets: Vec<Secret>, refusals: &mut Vec<Refusal>) {
        for secret in secrets {
            let name = Arc::clone(&secret.name);
            if let Err(rejected) = self.contexts.set_secret(secret) {
                refusals.push(Refusal { kind: Kind::Secret, name, rejected: vec![rejected] });
            }
        }
    }

    fn set_clusters(&mut self, clusters: Vec<Arc<Cluster>>, refusals: &mut Vec<Refusal>) {
        for cluster in clusters {
            let name = Arc::clone(&cluster.name);
            if let Err(rejected) = self.open_event_logs(&cluster) {
                refusals.push(Refusal { kind: Kind::Cluster, name, rejected: vec![rejected] });
                continue;
            }
            if let Err(rejected) = self.manager.set(cluster, &mut self.contexts) {
                refusals.push(Refusal { kind: Kind::Cluster, name, rejected: vec![rejected] });
            }
        }
    }

    /// Opens the files that the health checks of a cluster write to.
    fn open_event_logs(&self, cluster: &Cluster) -> Result<(), Rejected> {
        let check = cluster.health_check.iter();
        for path in check.flat_map(|check| &check.event_logs) {
            self.event_files.open(&self.writer, path).map_err(|error| Rejected {
                path: "health_checks[0].event_logger".to_owned(),
                reason: format!("cannot open {}: {error}", path.display()),
            })?;
        }
        Ok(())
    }

    /// Writes ejections to a file from now on.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn log_ejections(&mut self, path: Option<&Path>) -> io::Result<()> {
        if let Some(path) = path {
            self.event_files.open(&self.writer, path)?;
        }
        self.manager.set_event_log(Arc::clone(&self.event_files) as _, path);
        Ok(())
    }

    fn set_routes(&mut self, routes: &[Arc<RouteConfiguration>]) {
        for config in routes {
            let id = self.routes.named(&config.name);
            let table = RouteTable::build(config, &mut |name| self.manager.id(name));
            self.routes.set(id, Some(Arc::new(table)));
        }
    }

    /// Puts listeners into effect, all that can be. One whose address is about to be left by another waits for that.
    fn set_listeners(
        &mut self,
        configs: Vec<Arc<config::listener::Listener>>,
        refusals: &mut Vec<Refusal>,
    ) -> (Opened, Left) {
        let mut built = Vec::new();
        let mut refuse = |name: &Arc<str>, rejected| {
            let name = Arc::clone(name);
            refusals.push(Refusal { kind: Kind::Listener, name, rejected });
        };
        for config in configs {
            match self.build_listener(&config) {
                Ok(listener) => built.push(listener),
                Err(rejected) => refuse(&config.name, rejected),
            }
        }
        let wanted: Vec<_> = built.iter().map(|built| &*built.listener.config).collect();
        let settled = self.sockets.settle(&wanted);
        let (mut opened, mut left) = (Opened::new(), Left::new());
        for (built, settled) in built.into_iter().zip(settled) {
            let config = Arc::clone(&built.listener.config);
            let reason = match settled {
                Settled::Now => match self.sockets.open(&config) {
                    Ok(sockets) => {
                        opened.extend(sockets.map(|sockets| (built.listener.id, sockets)));
                        self.put_listener(built, &mut left);
                        continue;
                    }
                    Err((address, error)) => cannot_bind(&address, &error),
                },
                Settled::After(other) => {
                    tracing::debug!(listener = %config.name, %other, "waits for the address");
                    self.routes.give_up(built.inline);
                    self.waiting.push(config);
                    continue;
                }
                Settled::Taken(other, address) => Rejected {
                    path: "address".to_owned(),
                    reason: format!("the listener {other:?} has {address} already"),
                },
            };
            self.routes.give_up(built.inline);
            self.cells.local().listener_create_failure.inc();
            refuse(&config.name, vec![reason]);
        }
        (opened, left)
    }

    fn build_listener(
        &mut self,
        config: &Arc<config::listener::Listener>,
    ) -> Result<Built, Vec<Rejected>> {
        let id = self.listener_id(&config.name);
        let previous = self.listeners.get(id.index()).and_then(Option::as_ref).map(Arc::clone);
        let mut inline = Inline::new();
        let Self {
            manager,
            contexts,
            routes,
            registry,
            writer,
            workers,
            reporters,
            log_streams,
            local_info,
            local,
            ..
        } = self;
        let mut build = Build {
            registry,
            workers: workers.len(),
            tls: contexts,
            log_writer: writer,
            control: local,
            reporters,
            log_streams,
            local_info,
            cluster: &mut |name| manager.id(name),
            routes: &mut |source| routes.id(source, &mut inline),
        };
        let built = Listener::build(id, config, previous.as_deref(), &mut build);
        for opened in self.reporters.take_opened() {
            self.exporting.spawn_local(export::spans(opened, Rc::clone(&self.local)));
        }
        for opened in self.log_streams.grpc.take_opened() {
            let (local, local_info) = (Rc::clone(&self.local), Arc::clone(&self.local_info));
            self.exporting.spawn_local(export::logs(opened, local, local_info));
        }
        for opened in self.log_streams.otel.take_opened() {
            let (local, local_info) = (Rc::clone(&self.local), Arc::clone(&self.local_info));
            self.exporting.spawn_local(export::otel_logs(opened, local, local_info));
        }
        match built {
            Ok(listener) => Ok(Built { listener: Arc::new(listener), inline }),
            Err(rejected) => {
                self.cells.local().listener_create_failure.inc();
                self.routes.give_up(inline);
                Err(rejected)
            }
        }
    }

    fn put_listener(&mut self, built: Built, left: &mut Left) {
        let Built { listener, inline } = built;
        for (id, config) in &inline {
            let table = RouteTable::build(config, &mut |name| self.manager.id(name));
            self.routes.set(*id, Some(Arc::new(table)));
        }
        self.routes.keep(&listener, &inline);
        self.extensions.connect(&listener, &self.registry, &self.local);
        let id = listener.id;
        let previous = match self.listeners.get_mut(id.index()) {
            Some(slot) => slot.replace(Arc::clone(&listener)),
            None => None,
        };
        let cells = self.cells.local();
        cells.listener_create_success.add(self.workers.len() as u64);
        match &previous {
            Some(_) => cells.listener_modified.inc(),
            None => cells.listener_added.inc(),
        }
        left.extend(previous.map(|previous| (previous, Some(listener))));
        self.stopped.remove(&id);
        self.by_address = None;
    }

    fn listener_id(&mut self, name: &Arc<str>) -> ListenerId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = ListenerId(self.listeners.len() as u32);
        self.listeners.push(None);
        self.ids.insert(Arc::clone(name), id);
        id
    }

    /// Takes a listener out. Its id stays its own, should it come again.
    fn remove_listener(&mut self, name: &Arc<str>) -> Option<Arc<Listener>> {
        self.sockets.close(name);
        let id = self.ids.get(name)?;
        let removed = self.listeners.get_mut(id.index()).and_then(Option::take)?;
        self.by_address = None;
        self.cells.local().listener_removed.inc();
        Some(removed)
    }

    /// Workers see everything that was changed until now.
    fn swap_snapshot(&mut self) {
        self.version += 1;
        let by_address = self.by_address();
        self.shared.snapshot.store(Arc::new(Snapshot {
            version: self.version,
            listeners: self.listeners.as_slice().into(),
            by_address,
            routes: self.routes.tables(),
            clusters: self.manager.table(),
        }));
        let active = self.listeners.iter().flatten().count();
        self.cells.local().total_listeners_active.set(active as u64);
    }

    /// Listeners by where they are. Costs nothing as long as they stay the same.
    fn by_address(&mut self) -> Arc<HashMap<SocketAddr, ListenerId>> {
        if let Some(known) = &self.by_address {
            return Arc::clone(known);
        }
        let open =
            self.open_listeners().filter(|(listener, _)| !self.stopped.contains(&listener.id));
        let each = |(listener, addresses): (&Arc<Listener>, Vec<Address>)| {
            let id = listener.id;
            addresses.into_iter().filter_map(move |address| Some((address.socket()?, id)))
        };
        let map: HashMap<_, _> = open.flat_map(each).collect();
        Arc::clone(self.by_address.insert(Arc::new(map)))
    }

    /// Forgets what only requests under way still hold. Called now and then.
    pub(super) fn collect(&mut self) {
        self.routes.collect();
        self.extensions.collect();
        self.local.pools.sweep();
        while self.exporting.try_join_next().is_some() {}
    }

    /// What happened in clusters by itself: one that became ready is shown.
    pub(super) fn clusters_changed(&mut self, ready: bool) {
        if ready {
            self.swap_snapshot();
        }
        self.release_gone();
    }

    /// Lets workers close their connections to endpoints that are gone, and those that some change made stale.
    fn release_gone(&mut self) {
        let gone: Arc<[EndpointId]> =
            self.manager.take_gone().iter().map(|endpoint| endpoint.id).collect();
        if !gone.is_empty() {
            self.tell_all(|| Command::Release(Arc::clone(&gone)));
            self.local.pools.release(&gone);
        }
        let stale: Arc<[EndpointId]> = self.manager.take_stale().into();
        if !stale.is_empty() {
            self.tell_all(|| Command::Retire(Arc::clone(&stale)));
        }
    }

    fn set_endpoints(&mut self, endpoints: Vec<Arc<LoadAssignment>>) {
        for assignment in endpoints {
            let name = Arc::clone(&assignment.cluster_name);
            self.manager.set_endpoints(&name, assignment);
        }
    }
}

impl Publish for DataPlane {
    fn reserve(&mut self, listener: &config::listener::Listener) -> Result<(), Rejected> {
        let reserved = self.sockets.reserve(listener);
        reserved.map_err(|(address, error)| cannot_bind(&address, &error))
    }

    fn publish(&mut self, changes: Changes) -> Vec<Refusal> {
        let Changes {
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
        } = changes;
        let mut refusals = Vec::new();
        // Endpoints alone are swapped in their clusters; everything else needs a new snapshot.
        let is_visible = !(clusters.is_empty()
            && routes.is_empty()
            && listeners.is_empty()
            && self.waiting.is_empty()
            && removed_listeners.is_empty()
            && removed_routes.is_empty()
            && removed_clusters.is_empty());
        self.set_secrets(secrets, &mut refusals);
        for (resource, values) in &runtime {
            self.runtime.set_discovered(resource, values);
        }
        self.set_clusters(clusters, &mut refusals);
        self.set_endpoints(endpoints);
        self.set_routes(&routes);
        for name in &lost_extensions {
            self.extensions.lose(name, &self.registry, &self.local);
        }
        for extension in extensions {
            self.extensions.set(extension, &self.registry, &self.local);
        }

        // Removed first: another listener may get the address in the same update.
        let mut left = Left::new();
        for name in &removed_listeners {
            left.extend(self.remove_listener(name).map(|removed| (removed, None)));
        }
        let mut wanted = std::mem::take(&mut self.waiting);
        wanted.retain(|waiting| {
            let is_newer = |newer: &Arc<config::listener::Listener>| newer.name == waiting.name;
            !listeners.iter().any(is_newer) && !removed_listeners.contains(&waiting.name)
        });
        wanted.extend(listeners);
        let (opened, changed) = self.set_listeners(wanted, &mut refusals);
        left.extend(changed);
        for name in &removed_routes {
            let id = self.routes.named(name);
            self.routes.set(id, None);
        }
        for name in &removed_endpoints {
            self.manager.forget_endpoints(name);
        }
        for name in &removed_clusters {
            self.manager.remove(name);
        }
        for name in &removed_extensions {
            self.extensions.forget(name);
        }
        for name in &removed_secrets {
            self.contexts.remove_secret(name);
        }
        if is_visible {
            self.swap_snapshot();
        }
        for (id, sockets) in opened {
            for (worker, sockets) in self.workers.iter().zip(sockets) {
                let _ = worker.commands.send(Command::Listen { listener: id, sockets });
            }
        }
        for (old, next) in left {
            let was_bound = old.config.bind_to_port;
            if was_bound && next.as_ref().is_none_or(|next| !next.config.bind_to_port) {
                self.tell_all(|| Command::Unlisten { listener: old.id });
            }
            old.drain_unless_in(next.as_deref());
        }
        self.sockets.close_unused();
        self.release_gone();
        refusals
    }
}

fn cannot_bind(address: &Address, error: &io::Error) -> Rejected {
    Rejected { path: "address".to_owned(), reason: format!("cannot bind {address}: {error}") }
}
