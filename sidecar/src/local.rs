//! What one worker has for itself: its view of the configuration, its connections to endpoints, its timers.
//!
//! All of it is `Rc` and `Cell`: a worker is one thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use arc_swap::{ArcSwap, Cache};
use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterId, Context, Endpoint, aggregate};
use crate::http::body::RequestBody;
use crate::http::timeout::Timers;
use crate::on_demand::Demands;
use crate::snapshot::Snapshot;
use crate::stats::{ServerCells, Sharded};
use crate::upstream::Pools;

/// The snapshot that a request began with. Cloning it touches no count that another thread touches.
pub(crate) type View = Rc<Arc<Snapshot>>;

/// What the control thread shares with all workers.
#[derive(Clone)]
pub(crate) struct Shared {
    /// What is served.
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where requests ask for what is not known yet.
    pub(crate) demands: Demands,
    /// Statistics of the process.
    pub(crate) server: Arc<Sharded<ServerCells>>,
    /// Connections from clients that are open, in all workers.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Health checks are made to fail (`/healthcheck/fail`): every response asks its client to go elsewhere, until they
    /// pass again.
    pub(crate) failing: Arc<AtomicBool>,
    /// `node.cluster` of the bootstrap: whom a health check has reached.
    pub(crate) node_cluster: HeaderValue,
    /// `node.id` of the bootstrap.
    pub(crate) node_id: HeaderValue,
    /// As `draining`, at the listeners of inbound traffic alone.
    pub(crate) draining_inbound: CancellationToken,
    /// The process drains: clients are asked to go elsewhere, new connections are still taken.
    pub(crate) draining: CancellationToken,
    /// No new connections are taken.
    pub(crate) closing: CancellationToken,
}

/// One worker's own.
pub(crate) struct Local {
    /// From 0.
    pub(crate) index: usize,
    /// What it shares with the others.
    pub(crate) shared: Shared,
    /// Connections to endpoints.
    pub(crate) pools: Pools<RequestBody>,
    /// Timers.
    pub(crate) timers: Rc<Timers>,
    cache: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    view: RefCell<View>,
    next_id: Cell<u64>,
    /// Clusters that requests named, as they were found last.
    names: RefCell<HashMap<Arc<str>, ClusterId>>,
}

impl Local {
    pub(crate) fn new(index: usize, shared: Shared) -> Rc<Self> {
        let mut cache = Cache::new(Arc::clone(&shared.snapshot));
        let view = RefCell::new(Rc::new(Arc::clone(cache.load())));
        Rc::new(Self {
            index,
            shared,
            pools: Pools::default(),
            timers: Rc::default(),
            cache: RefCell::new(cache),
            view,
            next_id: Cell::new(0),
            names: RefCell::default(),
        })
    }

    /// The current snapshot: one pointer compare where nothing has changed.
    #[inline]
    pub(crate) fn view(&self) -> View {
        let mut cache = self.cache.borrow_mut();
        let current = cache.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(current, &view) {
            *view = Rc::new(Arc::clone(current));
        }
        Rc::clone(&view)
    }

    /// The cluster of this name in `view`. Looked for among all only when it is first asked for, or was not there.
    pub(crate) fn cluster_named(&self, view: &View, name: &str) -> Option<ClusterId> {
        let mut names = self.names.borrow_mut();
        let known = names.get(name).copied();
        let is_it = |id| view.clusters.get(id).is_some_and(|cluster| *cluster.name == *name);
        if let Some(id) = known.filter(|id| is_it(*id)) {
            return Some(id);
        }
        names.remove(name);
        let cluster = view.clusters.iter().find(|cluster| *cluster.name == *name)?;
        names.insert(Arc::clone(&cluster.name), cluster.id);
        Some(cluster.id)
    }

    /// A number that no other connection of the process has.
    pub(crate) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        (id << 8) | (self.index as u64 & 0xff)
    }

    /// A connection from a client is open until the guard is dropped.
    pub(crate) fn count_connection(&self) -> CountedConnection {
        self.shared.connections.fetch_add(1, Relaxed);
        CountedConnection(Arc::clone(&self.shared.connections))
    }
}

/// See [`Local::count_connection`].
pub(crate) struct CountedConnection(Arc<AtomicUsize>);

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A cluster as it was when a request chose it. Holds the request's view and no count of its own.
#[derive(Clone)]
pub(crate) struct ClusterRef {
    view: View,
    id: ClusterId,
}

impl ClusterRef {
    /// The cluster, if it exists in this view.
    pub(crate) fn new(view: &View, id: ClusterId) -> Option<Self> {
        view.clusters.get(id)?;
        Some(Self { view: Rc::clone(view), id })
    }

    /// Chooses an endpoint, and says whose it is if it is that of a member: of an aggregate cluster.
    pub(crate) fn choose<R>(
        &self,
        context: &Context<'_>,
        take: impl FnOnce(&Arc<Endpoint>) -> R,
    ) -> Option<(Option<Self>, R)> {
        if self.original_dst.is_some() {
            return Some((None, take(context.destination?)));
        }
        if self.members.is_none() {
            return Some((None, take(self.pick(&self.hosts.load(), context)?)));
        }
        let (id, share) = aggregate::choose(&self.view.clusters, self)?;
        let member = Self::new(&self.view, id)?;
        let context = Context { share: Some(share), ..*context };
        let taken = take(member.pick(&member.hosts.load(), &context)?);
        Some((Some(member), taken))
    }
}

impl std::ops::Deref for ClusterRef {
    type Target = Arc<Cluster>;

    fn deref(&self) -> &Arc<Cluster> {
        match self.view.clusters.get(self.id) {
            Some(cluster) => cluster,
            None => unreachable!("it was there, and a snapshot does not change"),
        }
    }
}
