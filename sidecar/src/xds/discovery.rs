//! The driver of discovery: from what happens on the streams to what takes effect, and back to the answers.
//!
//! A [`Client`](super::client) for each of [`Streams`] tells what happens, one
//! [`Subscription`](super::subscription::Subscription) for each type on it knows the protocol, [`Warming`] knows
//! what is complete, a [`Publish`] puts it into effect, and [`Resources`] remembers what came. No I/O of its own, and time
//! is told: the control thread calls in with events, and with the time when [`Discovery::deadline`] is over.
//!
//! Resources of the bootstrap go the same way: a static listener may take its routes from RDS as well as a discovered one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use outrigger_proto::any::{self, UnpackError};
use outrigger_proto::envoy::config::cluster::v3::Cluster as ClusterProto;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::Listener as ListenerProto;
use outrigger_proto::envoy::config::route::v3::RouteConfiguration as RoutesProto;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::Secret as SecretProto;
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::json::{Problem, Schema};
use prost::Name;
use tokio::time::Instant;

use super::client::Event;
use super::counting::Counting;
use super::lifetimes::Lifetimes;
use super::needs::Need;
use super::streams::{Forgotten, Stream, Streams};
use super::subscription::{Incoming, Interest, Response, Update};
use super::warming::{Feed, Unready, Warming};
use super::{Changes, Kind, Opened, Publish, Refusal, Resources, StreamId};
use crate::config;
use crate::config::Rejected;
use crate::config::bootstrap::Bootstrap;
use crate::config::cluster::{Cluster, Discovery as ClusterDiscovery};
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::http_connection_manager::RouteSource;
use crate::config::listener::{Listener, TerminalFilter};
use crate::stats::Registry;

/// How far the start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Clusters, their endpoints and secrets are awaited.
    Clusters,
    /// Listeners, their routes and secrets are awaited.
    Listeners,
    /// What there was to wait for is here, or its time is over.
    Ready,
}

/// The first answer of a wildcard type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// This type is not discovered.
    Unneeded,
    /// Awaited until then; `None`: for ever.
    Awaited(Option<Instant>),
    /// Came, or is not awaited any longer.
    Over,
}

/// Everything discovery knows.
pub(crate) struct Discovery {
    streams: Streams,
    warming: Warming,
    resources: Resources,
    counting: Counting,
    lifetimes: Lifetimes,
    phase: Phase,
    first_clusters: First,
    first_listeners: First,
    lds: Option<ConfigSource>,
    cds: Option<ConfigSource>,
    /// Clusters of the bootstrap that a stream can be opened to: their endpoints are not themselves discovered.
    servers: HashSet<Arc<str>>,
    has_ads: bool,
    /// Listeners of the bootstrap, until clusters are ready.
    static_listeners: Vec<Arc<Listener>>,
    /// Names that the bootstrap has taken, and whether it was reported that a server uses one too.
    static_names: HashMap<(Kind, Arc<str>), bool>,
    /// Clusters by the EDS service that they take their endpoints from.
    eds_users: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The EDS service of each cluster.
    eds_services: HashMap<Arc<str>, Arc<str>>,
    /// Resources with fields that this build does not know are refused by these descriptors.
    strict: Option<Schema>,
}

impl Discovery {
    /// Of a bootstrap, whose own resources go first.
    pub(crate) fn new(bootstrap: &Bootstrap, registry: &Arc<Registry>, now: Instant) -> Self {
        let mut streams = Streams::new(bootstrap.ads.as_ref().map(|ads| ads.variant));
        let mut first_clusters = First::Unneeded;
        if let Some(cds) = &bootstrap.cds {
            if let Some(subscription) = streams.subscription(Kind::Cluster, &cds.origin) {
                subscription.want(Interest::Everything);
            }
            first_clusters = First::Awaited(cds.initial_fetch_timeout.map(|wait| now + wait));
        }
        let first_listeners = match &bootstrap.lds {
            Some(_) => First::Awaited(None),
            None => First::Unneeded,
        };
        let servers = bootstrap.clusters.iter();
        let servers = servers.filter(|it| !matches!(it.discovery, ClusterDiscovery::Eds { .. }));
        let mut discovery = Self {
            streams,
            warming: Warming::default(),
            resources: Resources::default(),
            counting: Counting::new(registry, bootstrap.cds.is_some(), bootstrap.lds.is_some()),
            lifetimes: Lifetimes::default(),
            phase: Phase::Clusters,
            first_clusters,
            first_listeners,
            lds: bootstrap.lds.clone(),
            cds: bootstrap.cds.clone(),
            servers: servers.map(|cluster| Arc::clone(&cluster.name)).collect(),
            has_ads: bootstrap.ads.is_some(),
            static_listeners: bootstrap.listeners.clone(),
            static_names: HashMap::new(),
            eds_users: HashMap::new(),
            eds_services: HashMap::new(),
            strict: None,
        };
        for listener in &bootstrap.listeners {
            discovery.static_names.insert((Kind::Listener, Arc::clone(&listener.name)), false);
        }
        for cluster in &bootstrap.clusters {
            discovery.static_names.insert((Kind::Cluster, Arc::clone(&cluster.name)), false);
            discovery.note_eds(cluster);
            discovery.warming.set_cluster(Arc::clone(cluster), now);
        }
        discovery
    }

    /// From now on, refuses resources with fields that this build does not know (`--reject-unknown-dynamic-fields`).
    pub(crate) fn reject_unknown_fields(&mut self, schema: Schema) {
        self.strict = Some(schema);
    }

    /// Puts what the bootstrap brought into effect, as far as it is complete. Returns what of it was refused.
    pub(crate) fn begin(&mut self, publish: &mut dyn Publish, now: Instant) -> Vec<Refusal> {
        let mut refused = Vec::new();
        self.settle(publish, now, &mut refused);
        refused
    }

    /// Takes over resources of an earlier life, as they were kept: the server then only has to send what changed since.
    /// What can no longer be used is left out. Comes before the first stream.
    pub(crate) fn restore(
        &mut self,
        kept: Vec<(Kind, Arc<str>, String, Any)>,
        publish: &mut dyn Publish,
        now: Instant,
    ) {
        let mut by_source: BTreeMap<Feed, Vec<(Arc<str>, String)>> = BTreeMap::new();
        // Clusters first: listeners with routes of their own are checked against them. What is named comes after those
        // that say where it comes from.
        let order = [Kind::Cluster, Kind::Listener, Kind::Secret, Kind::Endpoint, Kind::Route];
        for kind in order {
            for (_, name, version, body) in kept.iter().filter(|(other, ..)| *other == kind) {
                if self.is_static(kind, name) {
                    continue;
                }
                let Some(origin) = self.origin_of(kind, name) else { continue };
                match self.apply((kind, &origin), name, version, body.clone(), publish, now) {
                    Ok(()) => by_source
                        .entry((kind, origin))
                        .or_default()
                        .push((Arc::clone(name), version.clone())),
                    Err(rejected) => report(
                        "a kept resource cannot be used any more",
                        &Refusal { kind, name: Arc::clone(name), rejected },
                    ),
                }
            }
        }
        for ((kind, origin), resources) in by_source {
            if let Some(subscription) = self.streams.subscription(kind, &origin) {
                subscription.restore(String::new(), resources);
            }
            self.first_is_over(kind);
        }
        self.settle(publish, now, &mut Vec::new());
    }

    /// Where a resource comes from, as far as what refers to it says.
    fn origin_of(&self, kind: Kind, name: &Arc<str>) -> Option<Origin> {
        match kind {
            Kind::Cluster => self.cds.as_ref().map(|source| source.origin.clone()),
            Kind::Listener => self.lds.as_ref().map(|source| source.origin.clone()),
            // A listener of the bootstrap that needs it may not have had its turn yet.
            Kind::Endpoint | Kind::Route | Kind::Secret => {
                self.warming.origin_of(kind, name).or_else(|| self.has_ads.then_some(Origin::Ads))
            }
        }
    }

    /// Streams to open since this was last asked; what happens on them comes back by [`Discovery::on_event`].
    pub(crate) fn take_opened(&mut self) -> Vec<Opened> {
        self.streams.take_opened()
    }

    /// Streams to close since this was last asked.
    pub(crate) fn take_closed(&mut self) -> Vec<StreamId> {
        self.streams.take_closed()
    }

    /// Something happened on a stream.
    pub(crate) fn on_event(
        &mut self,
        id: StreamId,
        event: Event,
        publish: &mut dyn Publish,
        now: Instant,
    ) {
        // It may have been closed while this was under way.
        let Some(stream) = self.streams.get(id) else { return };
        let kind = stream.kind();
        match event {
            Event::Connected(sender) => {
                stream.sender = Some(sender);
                for subscription in &mut stream.subscriptions {
                    subscription.connected();
                }
                self.counting.connected(kind, true);
                self.send();
            }
            Event::Response(response) => {
                if std::mem::take(&mut stream.outage_reported) {
                    tracing::info!(about = describe(kind), "discovery is back");
                }
                self.on_response(id, *response, publish, now);
            }
            Event::Unusable => {
                let origin = stream.origin.clone();
                if let Some(kind) = kind {
                    self.counting.response(kind, false, "");
                    self.first_is_over(kind);
                    self.warming.all_answered(kind, &origin, now);
                    self.settle(publish, now, &mut Vec::new());
                }
            }
            Event::Disconnected(error) => {
                stream.sender = None;
                let is_reported = std::mem::replace(&mut stream.outage_reported, true);
                self.counting.connected(kind, false);
                if !is_reported {
                    let about = describe(kind);
                    tracing::warn!(about, %error, "no discovery; serving on with what is known");
                }
            }
        }
    }

    /// The time of [`Discovery::deadline`] has come.
    pub(crate) fn on_time(&mut self, publish: &mut dyn Publish, now: Instant) {
        self.warming.expire(now);
        for (kind, name, origin) in self.lifetimes.take_ended(now) {
            tracing::warn!(%kind, %name, "its time to live is over, and the server did not renew it");
            self.remove(kind, &origin, &name, now);
            if let Some(subscription) = self.streams.subscription(kind, &origin) {
                subscription.expired(&name);
            }
        }
        for (first, kind) in
            [(&mut self.first_clusters, Kind::Cluster), (&mut self.first_listeners, Kind::Listener)]
        {
            if let First::Awaited(Some(deadline)) = *first
                && deadline <= now
            {
                *first = First::Over;
                self.counting.timed_out_first(kind);
                tracing::warn!(%kind, "no answer within initial_fetch_timeout; going on without");
            }
        }
        self.settle(publish, now, &mut Vec::new());
    }

    /// When [`Discovery::on_time`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let firsts = [self.first_clusters, self.first_listeners];
        let firsts = firsts.into_iter().filter_map(|first| match first {
            First::Awaited(deadline) => deadline,
            First::Unneeded | First::Over => None,
        });
        firsts.chain(self.warming.deadline()).chain(self.lifetimes.next()).min()
    }

    /// Clusters and listeners that wait, each with what it waits for; first the types of which no answer came yet.
    pub(crate) fn unready(&self) -> (Vec<Kind>, Vec<Unready>) {
        let firsts = [(Kind::Cluster, self.first_clusters), (Kind::Listener, self.first_listeners)];
        let awaited = firsts.into_iter().filter(|(_, first)| matches!(first, First::Awaited(_)));
        (awaited.map(|(kind, _)| kind).collect(), self.warming.unready())
    }

    /// How far the start is.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// What came, for the admin interface and for the disk.
    pub(crate) fn resources(&self) -> &Resources {
        &self.resources
    }

    /// As [`Discovery::resources`]; to ask what changed.
    pub(crate) fn resources_mut(&mut self) -> &mut Resources {
        &mut self.resources
    }

    fn first_is_over(&mut self, kind: Kind) {
        match kind {
            Kind::Cluster => self.first_clusters = self.first_clusters.over(),
            Kind::Listener => self.first_listeners = self.first_listeners.over(),
            Kind::Endpoint | Kind::Route | Kind::Secret => {}
        }
    }

    fn on_response(
        &mut self,
        id: StreamId,
        response: Response,
        publish: &mut dyn Publish,
        now: Instant,
    ) {
        let Some(stream) = self.streams.get(id) else { return };
        let origin = stream.origin.clone();
        let type_url = response.type_url();
        // A stream of one type need not say which.
        let kind = match Kind::from_type_url(type_url) {
            None if type_url.is_empty() => stream.kind(),
            kind => kind,
        };
        let Some((kind, subscription)) =
            kind.and_then(|kind| Some((kind, stream.subscription(kind)?)))
        else {
            tracing::warn!(type_url, "a response of a type nobody asked for");
            return;
        };
        if let Some(identifier) = response.control_plane() {
            self.counting.identifier(identifier);
        }
        let mut update = subscription.receive(response);
        let refused = match &update.malformed {
            Some(reason) => {
                tracing::warn!(%kind, reason, "a response is refused as a whole");
                Vec::new()
            }
            None => self.on_update((kind, &origin), &mut update, publish, now),
        };
        let accepted = update.malformed.is_none() && refused.is_empty();
        self.counting.response(kind, accepted, &update.version);
        self.first_is_over(kind);
        if let Some(subscription) = self.streams.subscription(kind, &origin) {
            subscription.finish(update, &refused);
        }
        self.settle(publish, now, &mut Vec::new());
    }

    /// Applies an update resource by resource. Returns everything that was refused.
    fn on_update(
        &mut self,
        (kind, origin): (Kind, &Origin),
        update: &mut Update,
        publish: &mut dyn Publish,
        now: Instant,
    ) -> Vec<Refusal> {
        let mut refused = std::mem::take(&mut update.refused);
        for refusal in &refused {
            report("a resource cannot be read", refusal);
            self.resources.refuse(refusal, &update.version, None);
            self.count(kind, &refusal.name, false);
        }
        update.removed.retain(|name| !self.is_static(kind, name));
        update.resources.retain(|resource| !self.is_static(kind, &resource.name));
        // What goes comes first: it may free the address of what comes.
        for name in &update.removed {
            self.remove(kind, origin, name, now);
        }
        if kind == Kind::Listener && !update.removed.is_empty() {
            self.publish(publish, kind, &mut refused);
        }
        for Incoming { name, version, body, ttl } in &update.resources {
            if body.is_some() || self.resources.is_accepted(kind, name) {
                let end = ttl.map(|ttl| now + ttl);
                self.lifetimes.set((kind, Arc::clone(name), origin.clone()), end);
            }
            // Without a body it is a heartbeat: what there is stays.
            let Some(body) = body else { continue };
            if self.resources.is_current(kind, name, body) {
                self.resources.confirm(kind, name, version);
                self.count(kind, name, true);
                continue;
            }
            let applied = self.apply((kind, origin), name, version, body.clone(), publish, now);
            self.count(kind, name, applied.is_ok());
            if let Err(rejected) = applied {
                let refusal = Refusal { kind, name: Arc::clone(name), rejected };
                report("a resource is refused; its previous version stays", &refusal);
                self.resources.refuse(&refusal, version, Some(body.clone()));
                refused.push(refusal);
                if !kind.is_wildcard() {
                    self.warming.answered(kind, origin, name, now);
                }
            }
        }
        self.publish(publish, kind, &mut refused);
        refused
    }

    /// Whether the bootstrap has taken a name: what a server says of it is ignored, and accepted, as in Envoy. Servers
    /// send everyone all clusters, their own among them, by which they are reached.
    fn is_static(&mut self, kind: Kind, name: &Arc<str>) -> bool {
        let Some(is_reported) = self.static_names.get_mut(&(kind, Arc::clone(name))) else {
            return false;
        };
        if !std::mem::replace(is_reported, true) {
            tracing::info!(%kind, %name, "discovered too, but the one of the bootstrap stays");
        }
        true
    }

    /// Converts a resource and hands it to warming.
    fn apply(
        &mut self,
        (kind, origin): (Kind, &Origin),
        name: &Arc<str>,
        version: &str,
        body: Any,
        publish: &mut dyn Publish,
        now: Instant,
    ) -> Result<(), Vec<Rejected>> {
        if let Some(schema) = &self.strict {
            check_known(schema, &body)?;
        }
        let resolved = config::typed_struct::resolve(&body, self.strict.is_some())?;
        match kind {
            Kind::Cluster => {
                let cluster = config::cluster::from_proto(unpack::<ClusterProto>(&resolved)?)?;
                self.check_sources((kind, name), &cluster)?;
                self.note_eds(&cluster);
                self.warming.set_cluster(Arc::new(cluster), now);
            }
            Kind::Endpoint => {
                let assignment =
                    config::endpoint::from_proto(unpack::<ClusterLoadAssignment>(&resolved)?)?;
                self.warming.set_endpoints(origin, Arc::new(assignment), now);
            }
            Kind::Listener => {
                let listener = config::listener::from_proto(unpack::<ListenerProto>(&resolved)?)?;
                self.check_sources((kind, name), &listener)?;
                self.check_clusters(&listener)?;
                publish.reserve(&listener).map_err(|rejected| vec![rejected])?;
                self.warming.set_listener(Arc::new(listener), now);
            }
            Kind::Route => {
                let routes = config::route::from_proto(unpack::<RoutesProto>(&resolved)?)?;
                let mut rejected = Vec::new();
                self.check_routes(&routes, "", &mut rejected);
                if !rejected.is_empty() {
                    return Err(rejected);
                }
                self.warming.set_routes(origin, Arc::new(routes), now);
            }
            Kind::Secret => {
                let secret = config::secret::from_proto(unpack::<SecretProto>(&resolved)?)?;
                self.warming.set_secret(origin, secret, now);
            }
        }
        drop(resolved);
        self.resources.accept(kind, name, version, body);
        Ok(())
    }

    fn remove(&mut self, kind: Kind, origin: &Origin, name: &Arc<str>, now: Instant) {
        self.lifetimes.set((kind, Arc::clone(name), origin.clone()), None);
        match kind {
            Kind::Cluster => {
                self.warming.remove_cluster(name);
                self.forget_eds(name);
                self.resources.remove(kind, name);
            }
            Kind::Listener => {
                self.warming.remove_listener(name);
                self.resources.remove(kind, name);
            }
            Kind::Endpoint => self.warming.answered(kind, origin, name, now),
            // Whatever uses it keeps it, as in Envoy; it goes when nothing does.
            Kind::Route | Kind::Secret => {}
        }
    }

    /// Follows up until there is nothing left to do: the phases of the start, names that are needed now or no longer, and
    /// what is to be sent.
    fn settle(&mut self, publish: &mut dyn Publish, now: Instant, refused: &mut Vec<Refusal>) {
        loop {
            self.advance(publish, now, refused);
            for ((kind, origin), interest) in self.warming.take_interests() {
                if let Some(subscription) = self.streams.subscription(kind, &origin) {
                    subscription.want(interest);
                }
            }
            self.send();
            for (kind, origin, name) in self.take_forgotten() {
                self.lifetimes.set((kind, Arc::clone(&name), origin.clone()), None);
                if self.warming.forget(kind, &origin, &name) {
                    self.resources.remove(kind, &name);
                }
            }
            self.streams.close_idle();
            for need in self.warming.take_timed_out() {
                tracing::warn!(
                    kind = %need.kind,
                    name = %need.name,
                    "did not come within initial_fetch_timeout; going on without"
                );
                self.count_timeout(&need);
            }
            if !self.publish_all(publish, refused) {
                break;
            }
        }
        self.counting.warming(self.warming.warming_clusters(), self.warming.warming_listeners());
    }

    fn advance(&mut self, publish: &mut dyn Publish, now: Instant, refused: &mut Vec<Refusal>) {
        if self.phase == Phase::Clusters
            && !matches!(self.first_clusters, First::Awaited(_))
            && self.warming.warming_clusters() == 0
        {
            self.phase = Phase::Listeners;
            for listener in std::mem::take(&mut self.static_listeners) {
                match publish.reserve(&listener) {
                    Ok(()) => self.warming.set_listener(listener, now),
                    Err(rejected) => refused.push(Refusal {
                        kind: Kind::Listener,
                        name: Arc::clone(&listener.name),
                        rejected: vec![rejected],
                    }),
                }
            }
            if let Some(lds) = &self.lds {
                if let Some(subscription) = self.streams.subscription(Kind::Listener, &lds.origin) {
                    subscription.want(Interest::Everything);
                }
                if let First::Awaited(_) = self.first_listeners {
                    let deadline = lds.initial_fetch_timeout.map(|wait| now + wait);
                    self.first_listeners = First::Awaited(deadline);
                }
            }
        }
        if self.phase == Phase::Listeners
            && !matches!(self.first_listeners, First::Awaited(_))
            && self.warming.warming_listeners() == 0
        {
            self.phase = Phase::Ready;
        }
    }

    fn send(&mut self) {
        for stream in self.streams.iter_mut() {
            let Some(sender) = &stream.sender else { continue };
            for subscription in &mut stream.subscriptions {
                while let Some(request) = subscription.next_request() {
                    self.counting.request(&request);
                    // A stream that has ended says so by itself.
                    let _ = sender.send(request);
                }
            }
        }
    }

    /// Names that their servers were told to leave out, or that nobody will be told of any more.
    fn take_forgotten(&mut self) -> Vec<Forgotten> {
        let mut all = Vec::new();
        for stream in self.streams.iter_mut() {
            let Stream { origin, subscriptions, .. } = stream;
            for subscription in subscriptions {
                if *origin != Origin::Ads && subscription.is_unwanted() {
                    subscription.abandon();
                }
                let forgotten = subscription.take_forgotten().into_iter();
                let kind = subscription.kind();
                all.extend(forgotten.map(|name| (kind, origin.clone(), name)));
            }
        }
        all
    }

    /// As [`Discovery::publish`], for whatever comes of it. Returns whether there was anything.
    fn publish_all(&mut self, publish: &mut dyn Publish, refused: &mut Vec<Refusal>) -> bool {
        let mut any = false;
        loop {
            let changes = self.warming.take_changes();
            if changes.is_empty() {
                return any;
            }
            any = true;
            refused.extend(self.put_into_effect(publish, changes));
        }
    }

    /// Puts what is complete into effect. What is refused of `kind`, whose response this follows from, joins `refused`.
    fn publish(&mut self, publish: &mut dyn Publish, kind: Kind, refused: &mut Vec<Refusal>) {
        let mut all = Vec::new();
        self.publish_all(publish, &mut all);
        for refusal in all.into_iter().filter(|refusal| refusal.kind == kind) {
            if !refused.iter().any(|known| known.name == refusal.name) {
                refused.push(refusal);
            }
        }
    }

    fn put_into_effect(&mut self, publish: &mut dyn Publish, changes: Changes) -> Vec<Refusal> {
        let names = names(&changes);
        let refused = publish.publish(changes);
        for refusal in &refused {
            report("a resource could not be put into effect; its previous version stays", refusal);
            self.warming.refused(refusal);
            self.resources.refuse(refusal, "", None);
        }
        for (kind, name) in names {
            if !refused.iter().any(|refusal| refusal.kind == kind && refusal.name == name) {
                self.resources.activate(kind, &name);
            }
        }
        refused
    }

    fn note_eds(&mut self, cluster: &Cluster) {
        self.forget_eds(&cluster.name);
        if let ClusterDiscovery::Eds { service_name, .. } = &cluster.discovery {
            let name = Arc::clone(&cluster.name);
            self.eds_users.entry(Arc::clone(service_name)).or_default().insert(Arc::clone(&name));
            self.eds_services.insert(name, Arc::clone(service_name));
        }
    }

    fn forget_eds(&mut self, cluster: &Arc<str>) {
        if let Some(service) = self.eds_services.remove(cluster)
            && let Some(users) = self.eds_users.get_mut(&service)
        {
            users.remove(cluster);
            if users.is_empty() {
                self.eds_users.remove(&service);
            }
        }
    }

    /// Counts an update of one resource where Envoy counts it: at the clusters, connection managers or secret it is for.
    fn count(&self, kind: Kind, name: &Arc<str>, accepted: bool) {
        match kind {
            // Those are counted by response.
            Kind::Cluster | Kind::Listener => {}
            Kind::Endpoint => {
                for cluster in self.eds_users.get(name).into_iter().flatten() {
                    self.counting.endpoints(cluster, accepted);
                }
            }
            Kind::Route => {
                for prefix in self.route_users(name) {
                    self.counting.routes(&prefix, name, accepted);
                }
            }
            Kind::Secret => self.counting.secret(name, accepted),
        }
    }

    fn count_timeout(&self, need: &Need) {
        let Need { kind, name, origin: _ } = need;
        match kind {
            Kind::Cluster | Kind::Listener => {}
            Kind::Endpoint => {
                for cluster in self.eds_users.get(name).into_iter().flatten() {
                    self.counting.endpoints_timed_out(cluster);
                }
            }
            Kind::Route => {
                for prefix in self.route_users(name) {
                    self.counting.routes_timed_out(&prefix, name);
                }
            }
            Kind::Secret => self.counting.secret_timed_out(name),
        }
    }

    /// `stat_prefix` of every connection manager that takes these routes.
    fn route_users(&self, routes: &str) -> BTreeSet<Arc<str>> {
        let chains = self.warming.listeners().flat_map(|listener| {
            listener.filter_chains.iter().chain(&listener.default_filter_chain)
        });
        chains
            .filter_map(|chain| match &chain.terminal {
                TerminalFilter::Http(http) => Some(http),
                TerminalFilter::Tcp(_) => None,
            })
            .filter(
                |http| matches!(&http.routes, RouteSource::Rds { name, .. } if **name == *routes),
            )
            .map(|http| Arc::from(&*http.stat_prefix))
            .collect()
    }
}

impl First {
    fn over(self) -> Self {
        match self {
            Self::Unneeded => Self::Unneeded,
            Self::Awaited(_) | Self::Over => Self::Over,
        }
    }
}

fn names(changes: &Changes) -> Vec<(Kind, Arc<str>)> {
    let secrets = changes.secrets.iter().map(|it| (Kind::Secret, &it.name));
    let clusters = changes.clusters.iter().map(|it| (Kind::Cluster, &it.name));
    let endpoints = changes.endpoints.iter().map(|it| (Kind::Endpoint, &it.cluster_name));
    let routes = changes.routes.iter().map(|it| (Kind::Route, &it.name));
    let listeners = changes.listeners.iter().map(|it| (Kind::Listener, &it.name));
    let all = secrets.chain(clusters).chain(endpoints).chain(routes).chain(listeners);
    all.map(|(kind, name)| (kind, Arc::clone(name))).collect()
}

/// What a stream is about, for people.
fn describe(kind: Option<Kind>) -> &'static str {
    kind.map_or("all types", Kind::name)
}

fn check_known(schema: &Schema, body: &Any) -> Result<(), Vec<Rejected>> {
    let unknown = schema
        .unknown_fields(any::message_name(&body.type_url), &body.value)
        .map_err(|error| whole(error.to_string()))?;
    if unknown.is_empty() {
        return Ok(());
    }
    let rejected = |problem: Problem| Rejected { path: problem.path, reason: problem.reason };
    Err(unknown.into_iter().map(rejected).collect())
}

fn unpack<M: Name + Default>(body: &Any) -> Result<M, Vec<Rejected>> {
    any::unpack(body).map_err(|error: UnpackError| whole(error.to_string()))
}

fn whole(reason: String) -> Vec<Rejected> {
    vec![Rejected { path: String::new(), reason }]
}

fn report(what: &'static str, refusal: &Refusal) {
    let Refusal { kind, name, rejected } = refusal;
    for rejected in rejected {
        tracing::warn!(%kind, %name, reason = %rejected, "{what}");
    }
}

mod checks;
#[cfg(test)]
mod tests;
