//! The whole of discovery, put together: what comes is taken apart, converted, warmed, put into effect and answered.
//!
//! [`Discovery::next`] waits, [`Discovery::handle`] acts: the control thread calls them in turn. In one step a response is
//! converted resource by resource, what is complete takes effect, and only then it is answered: an ACK means that
//! everything in it serves or warms, a NACK names all that does not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::any;
use outrigger_proto::google::protobuf::Any;
use prost::Name;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::{Event, StreamError};
use super::needs::{Need, Needs};
use super::resources::Resources;
use super::subscription::{Incoming, Interest, Request, Response, Subscription};
use super::warming::Warming;
use super::{Changes, Kind, Publish, Refusal};
use crate::config;
use crate::config::Rejected;
use crate::config::bootstrap::Variant;
use crate::config::cluster::Cluster;
use crate::config::http_connection_manager::RouteSource;
use crate::config::listener::{Listener, TerminalFilter};
use crate::stats::{
    ClusterManagerCells, ClusterUpdateCells, ControlPlaneCells, ListenerManagerCells, NamedAs,
    NamedText, Registry, Scope, Sharded, SubscriptionCells,
};

/// What is discovered, and how long the start waits for it. `Some(None)`: for ever.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// Clusters (CDS).
    pub(crate) clusters: Option<Option<Duration>>,
    /// Listeners (LDS).
    pub(crate) listeners: Option<Option<Duration>>,
}

/// Something that happened; for [`Discovery::handle`].
#[derive(Debug)]
pub(crate) enum Happened {
    /// On the stream.
    Stream(Event),
    /// The time of something that was waited for is over.
    Timeout,
}

/// Everything that is discovered over one aggregated stream. Lives on the control thread.
pub(crate) struct Discovery {
    subscriptions: [Subscription; Kind::ALL.len()],
    warming: Warming,
    resources: Resources,
    events: mpsc::Receiver<Event>,
    stream: Option<mpsc::UnboundedSender<Request>>,
    wanted: Wanted,
    /// Names in the bootstrap: discovery may not redefine them.
    static_clusters: HashSet<Arc<str>>,
    static_listeners: HashSet<Arc<str>>,
    clusters: Start,
    listeners: Start,
    stats: Stats,
}

/// How the first answer of a wildcard type is waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    /// Not asked for yet.
    Idle,
    /// Asked for; until when it is waited, `None` for ever.
    Waiting(Option<Instant>),
    /// Answered, or not waited for any more.
    Over,
}

/// Statistics of subscriptions.
struct Stats {
    registry: Arc<Registry>,
    cds: Arc<Sharded<SubscriptionCells>>,
    lds: Arc<Sharded<SubscriptionCells>>,
    versions: [Arc<NamedText>; 2],
    control_plane: Arc<Sharded<ControlPlaneCells>>,
    identifier: Arc<NamedText>,
    cluster_manager: Arc<Sharded<ClusterManagerCells>>,
    listener_manager: Arc<Sharded<ListenerManagerCells>>,
    /// Of route configurations and secrets, by scope: they live as long as they are here.
    by_name: HashMap<Scope, Arc<Sharded<SubscriptionCells>>>,
}

impl Discovery {
    /// Over the stream whose events come from `events` (see [`Client`](super::client::Client)). Nothing is asked for before
    /// [`Discovery::start_clusters`].
    pub(crate) fn new(
        variant: Variant,
        wanted: Wanted,
        events: mpsc::Receiver<Event>,
        registry: &Arc<Registry>,
    ) -> Self {
        let start = |wanted: Option<_>| if wanted.is_some() { Start::Idle } else { Start::Over };
        Self {
            subscriptions: Kind::ALL.map(|kind| Subscription::new(kind, variant)),
            warming: Warming::default(),
            resources: Resources::default(),
            events,
            stream: None,
            wanted,
            static_clusters: HashSet::new(),
            static_listeners: HashSet::new(),
            clusters: start(wanted.clusters),
            listeners: start(wanted.listeners),
            stats: Stats::new(registry),
        }
    }

    /// Adds a cluster of the bootstrap. It takes effect with the next [`Discovery::start_clusters`] or, if it waits for
    /// something that is discovered, when that is here.
    pub(crate) fn add_static_cluster(&mut self, cluster: Arc<Cluster>) {
        self.static_clusters.insert(Arc::clone(&cluster.name));
        self.warming.set_cluster(cluster, Instant::now());
    }

    /// Adds a listener of the bootstrap, likewise with [`Discovery::start_listeners`].
    pub(crate) fn add_static_listener(&mut self, listener: Arc<Listener>) {
        self.static_listeners.insert(Arc::clone(&listener.name));
        self.warming.set_listener(listener, Instant::now());
    }

    /// Begins to discover clusters, and what clusters refer to. Returns what of the bootstrap could not be put into effect.
    pub(crate) fn start_clusters(&mut self, publish: &mut dyn Publish) -> Vec<Refusal> {
        if let Some(timeout) = self.wanted.clusters
            && self.clusters == Start::Idle
        {
            self.clusters = Start::Waiting(timeout.map(|timeout| Instant::now() + timeout));
            self.subscription(Kind::Cluster).want(Interest::Everything);
        }
        let refused = self.publish(publish);
        self.send(publish);
        refused
    }

    /// Begins to discover listeners, and what they refer to: when every cluster is ready.
    pub(crate) fn start_listeners(&mut self, publish: &mut dyn Publish) -> Vec<Refusal> {
        if let Some(timeout) = self.wanted.listeners
            && self.listeners == Start::Idle
        {
            self.listeners = Start::Waiting(timeout.map(|timeout| Instant::now() + timeout));
            self.subscription(Kind::Listener).want(Interest::Everything);
        }
        let refused = self.publish(publish);
        self.send(publish);
        refused
    }

    /// Whether the first clusters are here, and none of them waits for anything. (Those of DNS may still be resolving.)
    pub(crate) fn clusters_are_ready(&self) -> bool {
        self.clusters == Start::Over && self.warming.warming_clusters() == 0
    }

    /// Whether the first listeners are here, and none of them waits for anything.
    pub(crate) fn listeners_are_ready(&self) -> bool {
        self.listeners == Start::Over && self.warming.warming_listeners() == 0
    }

    /// The resources, for `/config_dump` and the disk.
    pub(crate) fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Waits for the next thing that happens. Dropping it loses nothing.
    pub(crate) async fn next(&mut self) -> Happened {
        let deadline = [self.clusters, self.listeners]
            .into_iter()
            .filter_map(|start| match start {
                Start::Waiting(deadline) => deadline,
                Start::Idle | Start::Over => None,
            })
            .chain(self.warming.deadline())
            .min();
        let timeout = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = timeout => Happened::Timeout,
            Some(event) = self.events.recv() => Happened::Stream(event),
            else => std::future::pending().await,
        }
    }

    /// Acts on what happened.
    pub(crate) fn handle(&mut self, happened: Happened, publish: &mut dyn Publish) {
        match happened {
            Happened::Timeout => self.expire(publish),
            Happened::Stream(Event::Connected(stream)) => {
                self.stream = Some(stream);
                self.stats.control_plane.local().connected_state.set(1);
                self.subscriptions.iter_mut().for_each(Subscription::connected);
            }
            Happened::Stream(Event::Disconnected(error)) => self.disconnected(&error),
            Happened::Stream(Event::Response(response)) => self.response(*response, publish),
        }
        self.send(publish);
        self.stats.gauges(&self.warming);
    }

    fn disconnected(&mut self, error: &StreamError) {
        // Once an outage, not once an attempt.
        if self.stream.take().is_some() {
            tracing::warn!(%error, "lost the control plane; the last configuration serves on");
        } else {
            tracing::debug!(%error, "no connection to the control plane");
        }
        self.stats.control_plane.local().connected_state.set(0);
        for (wanted, cells) in
            [(self.wanted.clusters, &self.stats.cds), (self.wanted.listeners, &self.stats.lds)]
        {
            if wanted.is_some() {
                cells.local().update_failure.inc();
            }
        }
    }

    fn expire(&mut self, publish: &mut dyn Publish) {
        let now = Instant::now();
        for (kind, start) in
            [(Kind::Cluster, &mut self.clusters), (Kind::Listener, &mut self.listeners)]
        {
            if matches!(start, Start::Waiting(Some(deadline)) if *deadline <= now) {
                *start = Start::Over;
                tracing::warn!(%kind, "no answer within the initial fetch timeout: going on without");
                if let Some(cells) = self.stats.wildcard(kind) {
                    cells.local().init_fetch_timeout.inc();
                }
            }
        }
        self.warming.expire(now);
        for need in self.warming.take_timed_out() {
            tracing::warn!(
                kind = %need.kind(), name = %need.name(),
                "did not come within the initial fetch timeout: what waits for it goes on without"
            );
        }
        self.publish(publish);
    }

    fn response(&mut self, response: Response, publish: &mut dyn Publish) {
        let Some(kind) = Kind::from_type_url(response.type_url()) else {
            tracing::warn!(type_url = response.type_url(), "response of a type nobody asked for");
            return;
        };
        if let Some(identifier) = response.control_plane() {
            self.stats.identifier.set(identifier);
        }
        let mut update = self.subscription(kind).receive(response);
        if let Some(cells) = self.stats.wildcard(kind) {
            cells.local().update_attempt.inc();
        }
        if let Some(reason) = &update.malformed {
            tracing::warn!(%kind, reason, "response refused as a whole");
            self.stats.rejected(kind, None, &self.warming);
            self.subscription(kind).finish(update, &[]);
            return;
        }

        let mut refused = std::mem::take(&mut update.refused);
        for refusal in &refused {
            self.resources.refuse(refusal, &update.version, None);
        }
        for incoming in &update.resources {
            if let Err(rejected) = self.take(kind, incoming, publish) {
                let refusal = Refusal { kind, name: Arc::clone(&incoming.name), rejected };
                self.resources.refuse(&refusal, &incoming.version, incoming.body.clone());
                refused.push(refusal);
            }
        }
        for name in &update.removed {
            self.remove(kind, name);
        }
        // What is refused only now may have been waiting since an earlier response.
        let here: HashSet<Arc<str>> =
            update.resources.iter().map(|incoming| Arc::clone(&incoming.name)).collect();
        let later = self.publish(publish);
        refused.extend(
            later
                .into_iter()
                .filter(|refusal| refusal.kind == kind && here.contains(&refusal.name)),
        );

        for refusal in &refused {
            for rejected in &refusal.rejected {
                tracing::warn!(%kind, name = %refusal.name, %rejected, "resource refused");
            }
            self.stats.rejected(kind, Some(&refusal.name), &self.warming);
        }
        for name in here.iter().filter(|name| refused.iter().all(|refusal| refusal.name != **name))
        {
            self.stats.accepted(kind, name, &self.warming);
        }
        if refused.is_empty() {
            self.resources.set_version(kind, &update.version);
            self.stats.answered(kind, &update.version);
        }
        match kind {
            Kind::Cluster => self.clusters = Start::Over,
            Kind::Listener => self.listeners = Start::Over,
            Kind::Endpoint | Kind::Route | Kind::Secret => {}
        }
        self.subscription(kind).finish(update, &refused);
    }

    /// Takes one resource. A heartbeat, and one that comes again unchanged, leave everything as it is.
    fn take(
        &mut self,
        kind: Kind,
        incoming: &Incoming,
        publish: &mut dyn Publish,
    ) -> Result<(), Vec<Rejected>> {
        let Incoming { name, version, body } = incoming;
        let Some(body) = body else { return Ok(()) };
        if self.resources.is_current(kind, name, body) {
            self.resources.confirm(kind, name, version);
            return Ok(());
        }
        let now = Instant::now();
        match kind {
            Kind::Cluster => {
                if self.static_clusters.contains(name) {
                    return Err(reason("a cluster of this name stands in the bootstrap"));
                }
                let cluster = Arc::new(config::cluster::from_proto(unpack(body)?)?);
                self.resources.accept(kind, name, version, body.clone());
                self.warming.set_cluster(cluster, now);
            }
            Kind::Listener => {
                if self.static_listeners.contains(name) {
                    return Err(reason("a listener of this name stands in the bootstrap"));
                }
                let listener = Arc::new(config::listener::from_proto(unpack(body)?)?);
                publish.reserve(&listener).map_err(|rejected| vec![rejected])?;
                self.resources.accept(kind, name, version, body.clone());
                self.warming.set_listener(listener, now);
            }
            Kind::Endpoint => {
                let assignment = Arc::new(config::endpoint::from_proto(unpack(body)?)?);
                self.resources.accept(kind, name, version, body.clone());
                self.warming.set_endpoints(assignment, now);
            }
            Kind::Route => {
                let routes = Arc::new(config::route::from_proto(unpack(body)?)?);
                self.resources.accept(kind, name, version, body.clone());
                self.warming.set_routes(routes, now);
            }
            Kind::Secret => {
                let secret = config::secret::from_proto(unpack(body)?)?;
                self.resources.accept(kind, name, version, body.clone());
                self.warming.set_secret(secret, now);
            }
        }
        Ok(())
    }

    /// A name does not exist, or not any more. Routes and secrets in use stay, as in Envoy.
    fn remove(&mut self, kind: Kind, name: &Arc<str>) {
        match kind {
            Kind::Cluster if !self.static_clusters.contains(name) => {
                self.warming.remove_cluster(name);
                self.resources.remove(kind, name);
            }
            Kind::Listener if !self.static_listeners.contains(name) => {
                self.warming.remove_listener(name);
                self.resources.remove(kind, name);
            }
            Kind::Endpoint => self.warming.no_endpoints(name, Instant::now()),
            Kind::Cluster | Kind::Listener | Kind::Route | Kind::Secret => {}
        }
    }

    /// Puts into effect what is complete. Returns what was refused by that.
    fn publish(&mut self, publish: &mut dyn Publish) -> Vec<Refusal> {
        let changes = self.warming.take_changes();
        if changes.is_empty() {
            return Vec::new();
        }
        let names = names(&changes);
        let refused = publish.publish(changes);
        for refusal in &refused {
            self.warming.refused(refusal);
            let version = self.resources.version(refusal.kind).to_owned();
            self.resources.refuse(refusal, &version, None);
        }
        for (kind, name) in names {
            if !refused.iter().any(|refusal| refusal.kind == kind && refusal.name == name) {
                self.resources.activate(kind, &name);
            }
        }
        refused
    }

    /// Tells the server what it does not know yet: answers, and names that are wanted now.
    fn send(&mut self, publish: &mut dyn Publish) {
        for kind in Kind::ALL {
            if let Some(interest) = self.warming.take_interest(kind) {
                self.subscription(kind).want(interest);
            }
        }
        if let Some(stream) = &self.stream {
            for subscription in &mut self.subscriptions {
                while let Some(request) = subscription.next_request() {
                    // Its end is told as an event of its own.
                    let _ = stream.send(request);
                }
            }
        }
        for kind in Kind::ALL {
            for name in self.subscription(kind).take_forgotten() {
                self.warming.forget(kind, &name);
                self.resources.remove(kind, &name);
            }
        }
        self.publish(publish);
    }

    fn subscription(&mut self, kind: Kind) -> &mut Subscription {
        &mut self.subscriptions[kind as usize]
    }
}

/// The resources that changes put into effect.
fn names(changes: &Changes) -> Vec<(Kind, Arc<str>)> {
    let clusters = changes.clusters.iter().map(|one| (Kind::Cluster, &one.name));
    let endpoints = changes.endpoints.iter().map(|one| (Kind::Endpoint, &one.cluster_name));
    let listeners = changes.listeners.iter().map(|one| (Kind::Listener, &one.name));
    let routes = changes.routes.iter().map(|one| (Kind::Route, &one.name));
    let secrets = changes.secrets.iter().map(|one| (Kind::Secret, &one.name));
    let all = clusters.chain(endpoints).chain(listeners).chain(routes).chain(secrets);
    all.map(|(kind, name)| (kind, Arc::clone(name))).collect()
}

fn unpack<M: prost::Message + Name + Default>(body: &Any) -> Result<M, Vec<Rejected>> {
    any::unpack(body).map_err(|error| reason(&error.to_string()))
}

fn reason(reason: &str) -> Vec<Rejected> {
    vec![Rejected { path: String::new(), reason: reason.to_owned() }]
}

impl Stats {
    fn new(registry: &Arc<Registry>) -> Self {
        let version_text = |scope| registry.text(scope, NamedAs::plain("version_text"));
        Self {
            cds: registry.scope(Scope::Cds),
            lds: registry.scope(Scope::Lds),
            versions: [version_text(Scope::Cds), version_text(Scope::Lds)],
            control_plane: registry.scope(Scope::ControlPlane),
            identifier: registry.text(Scope::ControlPlane, NamedAs::plain("identifier")),
            cluster_manager: registry.scope(Scope::ClusterManager),
            listener_manager: registry.scope(Scope::ListenerManager),
            by_name: HashMap::new(),
            registry: Arc::clone(registry),
        }
    }

    fn wildcard(&self, kind: Kind) -> Option<&Arc<Sharded<SubscriptionCells>>> {
        match kind {
            Kind::Cluster => Some(&self.cds),
            Kind::Listener => Some(&self.lds),
            Kind::Endpoint | Kind::Route | Kind::Secret => None,
        }
    }

    /// A response was accepted as a whole.
    fn answered(&self, kind: Kind, version: &str) {
        if let Some(cells) = self.wildcard(kind) {
            cells.local().update_success.inc();
            self.versions[usize::from(kind == Kind::Listener)].set(version);
        }
    }

    /// A named resource was accepted. (Load assignments are counted where they take effect.)
    fn accepted(&mut self, kind: Kind, name: &Arc<str>, warming: &Warming) {
        for scope in scopes(kind, name, warming) {
            let cells = self.named(scope).local();
            cells.update_attempt.inc();
            cells.update_success.inc();
        }
    }

    /// A resource (or, without a name, a whole response) was refused.
    fn rejected(&mut self, kind: Kind, name: Option<&Arc<str>>, warming: &Warming) {
        if let Some(cells) = self.wildcard(kind) {
            cells.local().update_rejected.inc();
        }
        let Some(name) = name else { return };
        for scope in scopes(kind, name, warming) {
            let cells = self.named(scope).local();
            cells.update_attempt.inc();
            cells.update_rejected.inc();
        }
        if kind == Kind::Endpoint {
            for cluster in warming.users(&Need::Endpoints(Arc::clone(name))) {
                let scope = Scope::Cluster(cluster);
                self.registry.scope::<ClusterUpdateCells>(scope).local().update_rejected.inc();
            }
        }
    }

    fn named(&mut self, scope: Scope) -> &Arc<Sharded<SubscriptionCells>> {
        let registry = &self.registry;
        self.by_name.entry(scope).or_insert_with_key(|scope| registry.scope(scope.clone()))
    }

    fn gauges(&self, warming: &Warming) {
        let clusters = warming.warming_clusters() as u64;
        self.cluster_manager.local().warming_clusters.set(clusters);
        let listeners = warming.warming_listeners() as u64;
        self.listener_manager.local().total_listeners_warming.set(listeners);
    }
}

/// Where a route configuration or a secret is counted.
fn scopes(kind: Kind, name: &Arc<str>, warming: &Warming) -> Vec<Scope> {
    match kind {
        Kind::Route => {
            let mut prefixes: Vec<Arc<str>> = warming
                .listeners()
                .filter(|listener| {
                    listener.needs().iter().any(|(need, _)| *need == Need::Routes(Arc::clone(name)))
                })
                .flat_map(|listener| prefixes(listener, name))
                .collect();
            prefixes.sort_unstable();
            prefixes.dedup();
            prefixes.into_iter().map(|prefix| Scope::Rds(prefix, Arc::clone(name))).collect()
        }
        Kind::Secret => vec![Scope::Sds(Arc::clone(name))],
        Kind::Cluster | Kind::Endpoint | Kind::Listener => Vec::new(),
    }
}

/// Statistics prefixes of the connection managers of a listener that use these routes.
fn prefixes(listener: &Listener, routes: &Arc<str>) -> Vec<Arc<str>> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let prefix = |terminal: &TerminalFilter| match terminal {
        TerminalFilter::Http(http) => match &http.routes {
            RouteSource::Rds { name, .. } if name == routes => Some(Arc::from(&*http.stat_prefix)),
            _ => None,
        },
        TerminalFilter::Tcp(_) => None,
    };
    chains.filter_map(|chain| prefix(&chain.terminal)).collect()
}

#[cfg(test)]
mod tests;
