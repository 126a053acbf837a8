//! The driver of discovery: from what happens on the streams to what takes effect, and back to the answers.
//!
//! A [`Client`](super::client) for each of [`Streams`] tells what happens, one
//! [`Subscription`](super::subscription::Subscription) for each type on it knows the protocol, [`Warming`] knows
//! what is complete, a [`Publish`] puts it into effect, and [`Resources`] remembers what came. No I/O of its own, and time
//! is told: the control thread calls in with events, and with the time when [`Discovery::deadline`] is over.
//!
//! Resources of the bootstrap go the same way: a static listener may take its routes from RDS as well as a discovered one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use outrigger_proto::json::Schema;
use tokio::time::Instant;

use super::client::Event;
use super::counting::Counting;
use super::demands::Demands;
use super::lifetimes::Lifetimes;
use super::needs::{Need, Wait};
use super::streams::Streams;
use super::subscription::Interest;
use super::warming::{Unready, Warming};
use super::{Kind, Opened, Publish, Refusal, Resources, StreamId};
use crate::config::Rejected;
use crate::config::bootstrap::{Bootstrap, Variant};
use crate::config::cluster::Discovery as ClusterDiscovery;
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::listener::Listener;
use crate::config::runtime::{LayerSource, RuntimeLayer};
use crate::stats::Registry;

mod checks;
mod on_demand;
mod restore;
mod settle;
#[cfg(test)]
mod tests;
mod update;
mod users;

/// How far the start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Clusters, their endpoints and secrets are awaited.
    Clusters,
    /// The layers of the runtime are awaited.
    Runtime,
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
    /// Layers of the runtime that are discovered.
    runtime: Vec<(Need, Wait)>,
    /// Until when they are awaited; `None`: for ever, or not yet.
    runtime_deadline: Option<Instant>,
    lds: Option<ConfigSource>,
    cds: Option<ConfigSource>,
    /// Clusters of the bootstrap that a stream can be opened to: their endpoints are not themselves discovered.
    servers: HashSet<Arc<str>>,
    /// The variant of the aggregated stream, if there is one.
    ads: Option<Variant>,
    /// Requests that wait.
    demands: Demands,
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
        let runtime = runtime_needs(&bootstrap.runtime);
        let servers = bootstrap.clusters.iter();
        let servers = servers.filter(|it| {
            !matches!(it.discovery, ClusterDiscovery::Eds { .. } | ClusterDiscovery::OriginalDst(_))
        });
        let mut discovery = Self {
            streams,
            warming: Warming::default(),
            resources: Resources::default(),
            counting: Counting::new(
                registry,
                bootstrap.cds.is_some(),
                bootstrap.lds.is_some(),
                !runtime.is_empty(),
            ),
            lifetimes: Lifetimes::default(),
            phase: Phase::Clusters,
            first_clusters,
            first_listeners,
            runtime,
            runtime_deadline: None,
            lds: bootstrap.lds.clone(),
            cds: bootstrap.cds.clone(),
            servers: servers.map(|cluster| Arc::clone(&cluster.name)).collect(),
            ads: bootstrap.ads.as_ref().map(|ads| ads.variant),
            demands: Demands::default(),
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
                    self.first_is_over(kind, &origin);
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
        let runtime = self.runtime_deadline.filter(|_| self.phase == Phase::Runtime);
        firsts.chain(runtime).chain(self.warming.deadline()).chain(self.lifetimes.next()).min()
    }

    /// Clusters and listeners that wait, each with what it waits for; first the types of which no answer came yet.
    pub(crate) fn unready(&self) -> (Vec<Kind>, Vec<Unready>) {
        let firsts = [(Kind::Cluster, self.first_clusters), (Kind::Listener, self.first_listeners)];
        let awaited = firsts.into_iter().filter(|(_, first)| matches!(first, First::Awaited(_)));
        (awaited.map(|(kind, _)| kind).collect(), self.warming.unready())
    }

    /// What is asked for by name and has no entry in [`Discovery::resources`]; and whether the server has said that there is
    /// none.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (Kind, &Arc<str>, bool)> {
        // Of virtual hosts no entries are kept: they are a part of their route configuration.
        let named = self.warming.wanted().filter(|(kind, ..)| *kind != Kind::VirtualHost);
        named.filter(|(kind, name, _)| !self.resources.is_known(*kind, name))
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

    /// A source has said something of a type.
    fn first_is_over(&mut self, kind: Kind, origin: &Origin) {
        let wildcard = match kind {
            Kind::Cluster => &self.cds,
            _ => &self.lds,
        };
        if wildcard.as_ref().is_none_or(|source| source.origin != *origin) {
            return;
        }
        match kind {
            Kind::Cluster => self.first_clusters = self.first_clusters.over(),
            Kind::Listener => self.first_listeners = self.first_listeners.over(),
            Kind::Endpoint
            | Kind::Route
            | Kind::VirtualHost
            | Kind::Secret
            | Kind::Extension
            | Kind::Runtime => {}
        }
    }
}

/// What the layers of the runtime need of RTDS.
fn runtime_needs(layers: &[RuntimeLayer]) -> Vec<(Need, Wait)> {
    let needs = layers.iter().filter_map(|layer| match &layer.source {
        LayerSource::Rtds { name, source } => {
            Some((Need::new(Kind::Runtime, name, source), source.initial_fetch_timeout.into()))
        }
        LayerSource::Static(_) | LayerSource::Disk { .. } | LayerSource::Admin => None,
    });
    needs.collect()
}

impl First {
    fn over(self) -> Self {
        match self {
            Self::Unneeded => Self::Unneeded,
            Self::Awaited(_) | Self::Over => Self::Over,
        }
    }
}

/// What a stream is about, for people.
fn describe(kind: Option<Kind>) -> &'static str {
    kind.map_or("all types", Kind::name)
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
