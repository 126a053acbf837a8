//! What follows from an event: the phases of the start, names to ask for or to forget, and what takes effect.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Discovery, First, Phase, report};
use crate::config::config_source::Origin;
use crate::xds::needs::{Need, Wait};
use crate::xds::streams::{Forgotten, Stream};
use crate::xds::subscription::Interest;
use crate::xds::{Changes, Kind, Publish, Refusal};

impl Discovery {
    /// Follows up until there is nothing left to do: the phases of the start, names that are needed now or no longer, and
    /// what is to be sent.
    pub(super) fn settle(
        &mut self,
        publish: &mut dyn Publish,
        now: Instant,
        refused: &mut Vec<Refusal>,
    ) {
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
            self.phase = Phase::Runtime;
            self.warming.need(&self.runtime);
            self.runtime_deadline = match self.runtime.iter().map(|(_, wait)| *wait).max() {
                Some(Wait::For(longest)) => Some(now + longest),
                None | Some(Wait::Not | Wait::Forever) => None,
            };
        }
        if self.phase == Phase::Runtime && self.runtime_is_over(now) {
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

    /// Whether every layer of the runtime is there, or its time is over.
    fn runtime_is_over(&self, now: Instant) -> bool {
        let missing: Vec<&Need> = self
            .runtime
            .iter()
            .map(|(need, _)| need)
            .filter(|need| !self.warming.is_here(need))
            .collect();
        if missing.is_empty() {
            return true;
        }
        if self.runtime_deadline.is_none_or(|deadline| deadline > now) {
            return false;
        }
        for need in missing {
            tracing::warn!(name = %need.name, "a layer of the runtime did not come within initial_fetch_timeout");
            self.count_timeout(need);
        }
        true
    }

    pub(super) fn send(&mut self) {
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
    pub(super) fn publish(
        &mut self,
        publish: &mut dyn Publish,
        kind: Kind,
        refused: &mut Vec<Refusal>,
    ) {
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
}

pub(super) fn names(changes: &Changes) -> Vec<(Kind, Arc<str>)> {
    let secrets = changes.secrets.iter().map(|it| (Kind::Secret, &it.name));
    let clusters = changes.clusters.iter().map(|it| (Kind::Cluster, &it.name));
    let endpoints = changes.endpoints.iter().map(|it| (Kind::Endpoint, &it.cluster_name));
    let routes = changes.routes.iter().map(|it| (Kind::Route, &it.name));
    let listeners = changes.listeners.iter().map(|it| (Kind::Listener, &it.name));
    let runtime = changes.runtime.iter().map(|(name, _)| (Kind::Runtime, name));
    let extensions = changes.extensions.iter().map(|it| (Kind::Extension, &it.name));
    let all = secrets.chain(runtime).chain(clusters).chain(endpoints).chain(routes);
    let all = all.chain(extensions).chain(listeners);
    all.map(|(kind, name)| (kind, Arc::clone(name))).collect()
}
