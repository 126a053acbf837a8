//! The statistics of discovery, under the names that Envoy gives them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Kind;
use super::subscription::Request;
use crate::stats::{
    ClusterManagerCells, ClusterUpdateCells, ControlPlaneCells, ExtensionCells,
    ListenerManagerCells, NamedAs, NamedText, Registry, RuntimeUpdateCells, Scope, Sharded,
    SubscriptionCells,
};

/// Writers of every statistic of discovery.
pub(super) struct Counting {
    registry: Arc<Registry>,
    control_plane: Arc<Sharded<ControlPlaneCells>>,
    identifier: Arc<NamedText>,
    clusters: Option<Wildcard>,
    listeners: Option<Wildcard>,
    cluster_manager: Arc<Sharded<ClusterManagerCells>>,
    listener_manager: Arc<Sharded<ListenerManagerCells>>,
    /// Of single secrets and route configurations: kept alive here.
    named: std::cell::RefCell<std::collections::HashMap<Scope, Arc<Sharded<SubscriptionCells>>>>,
    extensions:
        std::cell::RefCell<std::collections::HashMap<Arc<str>, Arc<Versioned<ExtensionCells>>>>,
    runtime: Option<Versioned<RuntimeUpdateCells>>,
    endpoints:
        std::cell::RefCell<std::collections::HashMap<Arc<str>, Arc<Sharded<ClusterUpdateCells>>>>,
}

/// Cells with the text of a version beside them.
type Versioned<C> = (Arc<Sharded<C>>, Arc<NamedText>);

/// `cluster_manager.cds` or `listener_manager.lds`.
struct Wildcard {
    cells: Arc<Sharded<SubscriptionCells>>,
    version: Arc<NamedText>,
}

impl Wildcard {
    fn new(registry: &Registry, scope: Scope) -> Self {
        let version = registry.text(scope.clone(), NamedAs::plain("version_text"));
        Self { cells: registry.scope(scope), version }
    }
}

impl Counting {
    /// With the subscriptions that there are.
    pub(super) fn new(
        registry: &Arc<Registry>,
        clusters: bool,
        listeners: bool,
        runtime: bool,
    ) -> Self {
        let runtime = runtime.then(|| {
            let scope = Scope::Root("runtime");
            let version = registry.text(scope.clone(), NamedAs::plain("version_text"));
            (registry.scope(scope), version)
        });
        Self {
            control_plane: registry.scope(Scope::ControlPlane),
            identifier: registry.text(Scope::ControlPlane, NamedAs::plain("identifier")),
            clusters: clusters.then(|| Wildcard::new(registry, Scope::Cds)),
            listeners: listeners.then(|| Wildcard::new(registry, Scope::Lds)),
            cluster_manager: registry.scope(Scope::ClusterManager),
            listener_manager: registry.scope(Scope::ListenerManager),
            named: Default::default(),
            extensions: Default::default(),
            runtime,
            endpoints: Default::default(),
            registry: Arc::clone(registry),
        }
    }

    /// There is a stream about `kind` (`None`: all types), or there is none any more.
    pub(super) fn connected(&self, kind: Option<Kind>, connected: bool) {
        if kind.is_none_or(Kind::is_wildcard) {
            self.control_plane.local().connected_state.set(i64::from(connected) as _);
        }
        if connected {
            return;
        }
        let kinds = [Kind::Cluster, Kind::Listener].into_iter();
        for about in kinds.filter(|about| kind.is_none_or(|kind| kind == *about)) {
            if let Some(wildcard) = self.wildcard(about) {
                wildcard.cells.local().update_failure.inc();
            }
        }
    }

    /// Who the server says it is.
    pub(super) fn identifier(&self, identifier: &str) {
        self.identifier.set(identifier);
    }

    /// A request goes out.
    pub(super) fn request(&self, request: &Request) {
        let type_url = match request {
            Request::StateOfTheWorld(request) => &request.type_url,
            Request::Delta(request) => &request.type_url,
        };
        if let Some(wildcard) = Kind::from_type_url(type_url).and_then(|kind| self.wildcard(kind)) {
            wildcard.cells.local().update_attempt.inc();
        }
    }

    /// A whole response was accepted or refused.
    pub(super) fn response(&self, kind: Kind, accepted: bool, version: &str) {
        let Some(wildcard) = self.wildcard(kind) else { return };
        count(wildcard.cells.local(), accepted);
        if accepted {
            wildcard.version.set(version);
        }
    }

    /// The first answer did not come in time.
    pub(super) fn timed_out_first(&self, kind: Kind) {
        if let Some(wildcard) = self.wildcard(kind) {
            wildcard.cells.local().init_fetch_timeout.inc();
        }
    }

    /// How many wait.
    pub(super) fn warming(&self, clusters: usize, listeners: usize) {
        self.cluster_manager.local().warming_clusters.set(clusters as _);
        self.listener_manager.local().total_listeners_warming.set(listeners as _);
    }

    /// Endpoints of a cluster.
    pub(super) fn endpoints(&self, cluster: &Arc<str>, accepted: bool) {
        let cells = self.endpoint_cells(cluster);
        let cells = cells.local();
        cells.update_attempt.inc();
        if accepted { &cells.update_success } else { &cells.update_rejected }.inc();
    }

    /// Endpoints that did not come in time.
    pub(super) fn endpoints_timed_out(&self, cluster: &Arc<str>) {
        self.endpoint_cells(cluster).local().init_fetch_timeout.inc();
    }

    /// Routes of a connection manager.
    pub(super) fn routes(&self, stat_prefix: &Arc<str>, routes: &Arc<str>, accepted: bool) {
        let scope = Scope::Rds(Arc::clone(stat_prefix), Arc::clone(routes));
        let cells = self.named_cells(scope);
        cells.local().update_attempt.inc();
        if accepted {
            cells.local().config_reload.inc();
        }
        count(cells.local(), accepted);
    }

    /// Routes that did not come in time.
    pub(super) fn routes_timed_out(&self, stat_prefix: &Arc<str>, routes: &Arc<str>) {
        let scope = Scope::Rds(Arc::clone(stat_prefix), Arc::clone(routes));
        self.named_cells(scope).local().init_fetch_timeout.inc();
    }

    /// Virtual hosts of the routes of a connection manager.
    pub(super) fn virtual_hosts(&self, stat_prefix: &Arc<str>, routes: &Arc<str>, accepted: bool) {
        let cells = self.named_cells(Scope::Vhds(Arc::clone(stat_prefix), Arc::clone(routes)));
        cells.local().update_attempt.inc();
        if accepted {
            cells.local().config_reload.inc();
        }
        count(cells.local(), accepted);
    }

    /// Virtual hosts of which nothing came in time.
    pub(super) fn virtual_hosts_timed_out(&self, stat_prefix: &Arc<str>, routes: &Arc<str>) {
        let scope = Scope::Vhds(Arc::clone(stat_prefix), Arc::clone(routes));
        self.named_cells(scope).local().init_fetch_timeout.inc();
    }

    /// A secret.
    pub(super) fn secret(&self, name: &Arc<str>, accepted: bool) {
        let cells = self.named_cells(Scope::Sds(Arc::clone(name)));
        cells.local().update_attempt.inc();
        count(cells.local(), accepted);
    }

    /// A secret that did not come in time.
    pub(super) fn secret_timed_out(&self, name: &Arc<str>) {
        self.named_cells(Scope::Sds(Arc::clone(name))).local().init_fetch_timeout.inc();
    }

    /// The configuration of a filter: its version, or `None` if it was refused.
    pub(super) fn extension(&self, name: &Arc<str>, accepted: Option<&str>) {
        let (cells, version) = &*self.extension_cells(name);
        let cells = cells.local();
        cells.update_attempt.inc();
        match accepted {
            Some(accepted) => {
                cells.update_success.inc();
                cells.config_reload.inc();
                cells.update_time.set(now());
                version.set(accepted);
            }
            None => {
                cells.update_rejected.inc();
                cells.config_fail.inc();
            }
        }
    }

    /// The configuration of a filter did not come in time.
    pub(super) fn extension_timed_out(&self, name: &Arc<str>) {
        let (cells, _) = &*self.extension_cells(name);
        cells.local().init_fetch_timeout.inc();
        cells.local().config_fail.inc();
    }

    /// A layer of the runtime: its version, or `None` if it was refused.
    pub(super) fn runtime(&self, accepted: Option<&str>) {
        let Some((cells, version)) = &self.runtime else { return };
        let cells = cells.local();
        cells.update_attempt.inc();
        match accepted {
            Some(accepted) => {
                cells.update_success.inc();
                cells.update_time.set(now());
                version.set(accepted);
            }
            None => cells.update_rejected.inc(),
        }
    }

    /// A layer of the runtime did not come in time.
    pub(super) fn runtime_timed_out(&self) {
        if let Some((cells, _)) = &self.runtime {
            cells.local().init_fetch_timeout.inc();
        }
    }

    fn extension_cells(&self, name: &Arc<str>) -> Arc<Versioned<ExtensionCells>> {
        let mut extensions = self.extensions.borrow_mut();
        let known = extensions.entry(Arc::clone(name)).or_insert_with(|| {
            let scope = Scope::ExtensionConfig(Arc::clone(name));
            let version = self.registry.text(scope.clone(), NamedAs::plain("version_text"));
            Arc::new((self.registry.scope(scope), version))
        });
        Arc::clone(known)
    }

    fn wildcard(&self, kind: Kind) -> Option<&Wildcard> {
        match kind {
            Kind::Cluster => self.clusters.as_ref(),
            Kind::Listener => self.listeners.as_ref(),
            Kind::Endpoint
            | Kind::Route
            | Kind::VirtualHost
            | Kind::Secret
            | Kind::Extension
            | Kind::Runtime => None,
        }
    }

    fn named_cells(&self, scope: Scope) -> Arc<Sharded<SubscriptionCells>> {
        let mut named = self.named.borrow_mut();
        Arc::clone(named.entry(scope.clone()).or_insert_with(|| self.registry.scope(scope)))
    }

    fn endpoint_cells(&self, cluster: &Arc<str>) -> Arc<Sharded<ClusterUpdateCells>> {
        let mut cells = self.endpoints.borrow_mut();
        let scope = || self.registry.scope(Scope::Cluster(Arc::clone(cluster)));
        Arc::clone(cells.entry(Arc::clone(cluster)).or_insert_with(scope))
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}

fn count(cells: &SubscriptionCells, accepted: bool) {
    if accepted {
        cells.update_success.inc();
        cells.update_time.set(now());
    } else {
        cells.update_rejected.inc();
    }
}
