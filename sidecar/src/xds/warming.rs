//! What is complete and may take effect: make before break. Pure: no I/O, and time is told.
//!
//! A cluster waits for its endpoints and secrets, a listener for its routes and secrets, each no longer than its initial
//! fetch timeout. While a new version waits, the old one serves. What was fetched once is known from then on: a cluster
//! that comes again does not wait for endpoints that are here. Needs also are the subscriptions: the names that some
//! version of a cluster or listener, serving or waiting, refers to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;

use self::slot::{Slot, Waiting};
use self::uses::Uses;
use super::needs::{Need, Needs, Wait};
use super::virtual_hosts::VirtualHosts;
use super::{Changes, Kind, Refusal};
use crate::config::Rejected;
use crate::config::cluster::Cluster;
use crate::config::config_source::Origin;
use crate::config::endpoint::LoadAssignment;
use crate::config::extension::Extension;
use crate::config::listener::Listener;
use crate::config::route::{RouteConfiguration, VirtualHost};
use crate::config::runtime::Values;
use crate::config::secret::Secret;

mod check;
mod slot;
#[cfg(test)]
mod tests;
mod uses;

/// The state of everything that has taken effect or is about to.
#[derive(Debug, Default)]
pub(crate) struct Warming {
    clusters: HashMap<Arc<str>, Slot<Cluster>>,
    listeners: HashMap<Arc<str>, Slot<Listener>>,
    /// What was fetched: also load assignments of which the server said that they do not exist.
    here: HashSet<Need>,
    /// Who waits for what.
    waiting: HashMap<Need, BTreeSet<Waiter>>,
    deadlines: BTreeSet<(Instant, Waiter)>,
    /// How many refer to what.
    uses: BTreeMap<Feed, Uses>,
    changes: Changes,
    /// Virtual hosts that come one by one.
    virtual_hosts: VirtualHosts,
    /// Route configurations that wait for the first answer about those: as long as they do, nothing was said of them. What
    /// is awaited, the route configuration, and until when; `None`: for ever.
    unhosted: HashMap<Need, (Need, Option<Instant>)>,
    /// Needs whose time ran out since it was last asked.
    timed_out: Vec<Need>,
    warming_clusters: usize,
    warming_listeners: usize,
}

/// Names of one type that one source is asked for.
pub(crate) type Feed = (Kind, Origin);

/// A cluster or listener, and what it waits for.
pub(crate) type Unready = ((Kind, Arc<str>), Vec<Need>);

/// A cluster or listener by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Waiter {
    Cluster(Arc<str>),
    Listener(Arc<str>),
}

impl Warming {
    /// Takes a new version of a cluster.
    pub(crate) fn set_cluster(&mut self, cluster: Arc<Cluster>, now: Instant) {
        let name = Arc::clone(&cluster.name);
        let slot = self.clusters.entry(Arc::clone(&name)).or_default();
        if slot.warming.is_none()
            && slot.active.as_ref().is_some_and(|old| old.fingerprint == cluster.fingerprint)
        {
            return;
        }
        let replaced = slot.warming.replace(Waiting {
            config: Arc::clone(&cluster),
            since: now,
            deadline: None,
        });
        let waiter = Waiter::Cluster(name);
        self.add_uses(&cluster.needs());
        match replaced {
            Some(replaced) => self.give_up(&waiter, &replaced),
            None => *self.warming_count(&waiter) += 1,
        }
        self.check(&waiter, now);
    }

    /// Takes a new version of a listener.
    pub(crate) fn set_listener(&mut self, listener: Arc<Listener>, now: Instant) {
        let name = Arc::clone(&listener.name);
        let slot = self.listeners.entry(Arc::clone(&name)).or_default();
        let replaced = slot.warming.replace(Waiting {
            config: Arc::clone(&listener),
            since: now,
            deadline: None,
        });
        let waiter = Waiter::Listener(name);
        self.add_uses(&listener.needs());
        match replaced {
            Some(replaced) => self.give_up(&waiter, &replaced),
            None => *self.warming_count(&waiter) += 1,
        }
        self.check(&waiter, now);
    }

    /// Removes a cluster, whatever its state. Returns whether there was one.
    pub(crate) fn remove_cluster(&mut self, name: &Arc<str>) -> bool {
        let Some(slot) = self.clusters.remove(name) else { return false };
        self.changes.clusters.retain(|cluster| cluster.name != *name);
        if slot.active.is_some() {
            self.changes.removed_clusters.push(Arc::clone(name));
        }
        self.drop_slot(&Waiter::Cluster(Arc::clone(name)), slot);
        true
    }

    /// Removes a listener, whatever its state. Returns whether there was one.
    pub(crate) fn remove_listener(&mut self, name: &Arc<str>) -> bool {
        let Some(slot) = self.listeners.remove(name) else { return false };
        self.changes.listeners.retain(|listener| listener.name != *name);
        // Also one that never was active: its address was reserved.
        self.changes.removed_listeners.push(Arc::clone(name));
        self.drop_slot(&Waiter::Listener(Arc::clone(name)), slot);
        true
    }

    fn drop_slot<T: Needs>(&mut self, waiter: &Waiter, slot: Slot<T>) {
        if let Some(waiting) = slot.warming {
            self.give_up(waiter, &waiting);
            *self.warming_count(waiter) -= 1;
        }
        if let Some(active) = slot.active {
            self.remove_uses(&active.needs());
        }
    }

    /// Takes the endpoints of an EDS service.
    pub(crate) fn set_endpoints(
        &mut self,
        origin: &Origin,
        assignment: Arc<LoadAssignment>,
        now: Instant,
    ) {
        let name = Arc::clone(&assignment.cluster_name);
        self.changes.endpoints.push(assignment);
        self.answered(Kind::Endpoint, origin, &name, now);
    }

    /// Takes a route configuration.
    ///
    /// # Errors
    /// If it takes a domain of a virtual host that came by itself.
    pub(crate) fn set_routes(
        &mut self,
        origin: &Origin,
        routes: &Arc<RouteConfiguration>,
        now: Instant,
    ) -> Result<(), Vec<Rejected>> {
        let name = &routes.name;
        let before = self.virtual_hosts.need(name);
        let (merged, needless) = self.virtual_hosts.set_routes(routes)?;
        self.changes.routes.push(merged);
        let after = self.virtual_hosts.need(name);
        if let Some(need) = after.iter().find(|need| before.as_ref() != Some(need)) {
            self.need(&[(need.clone(), Wait::Not)]);
        }
        self.forget_virtual_hosts(needless);
        match (after, &routes.vhds) {
            (Some(need), Some(source)) if !self.here.contains(&need) => {
                let routes =
                    Need { kind: Kind::Route, name: Arc::clone(name), origin: origin.clone() };
                let deadline = source.initial_fetch_timeout.map(|wait| now + wait);
                self.unhosted.entry(need).or_insert((routes, deadline));
            }
            _ => self.answered(Kind::Route, origin, name, now),
        }
        Ok(())
    }

    /// The virtual hosts that came one by one.
    pub(crate) fn virtual_hosts(&self) -> &VirtualHosts {
        &self.virtual_hosts
    }

    /// Takes a virtual host that was asked for by these names.
    ///
    /// # Errors
    /// If a domain of it is taken.
    pub(crate) fn set_virtual_host(
        &mut self,
        name: &Arc<str>,
        host: VirtualHost,
        asked_for: Vec<Arc<str>>,
    ) -> Result<(), Vec<Rejected>> {
        self.changes.routes.extend(self.virtual_hosts.set(name, host, asked_for)?);
        Ok(())
    }

    /// A virtual host is gone. Returns the names by which it was asked for.
    pub(crate) fn remove_virtual_host(&mut self, name: &str) -> BTreeSet<Arc<str>> {
        let Some((routes, asked_for)) = self.virtual_hosts.remove(name) else {
            return BTreeSet::new();
        };
        self.changes.routes.push(routes);
        asked_for
    }

    fn forget_virtual_hosts(&mut self, needless: Vec<Need>) {
        for need in &needless {
            self.here.remove(need);
            self.unhosted.remove(need);
        }
        let needs: Vec<(Need, Wait)> = needless.into_iter().map(|need| (need, Wait::Not)).collect();
        self.need_no_more(&needs);
    }

    /// Takes a secret.
    pub(crate) fn set_secret(&mut self, origin: &Origin, secret: Secret, now: Instant) {
        let name = Arc::clone(&secret.name);
        self.changes.secrets.push(secret);
        self.answered(Kind::Secret, origin, &name, now);
    }

    /// Takes the configuration of a filter.
    pub(crate) fn set_extension(&mut self, origin: &Origin, extension: Extension, now: Instant) {
        let name = Arc::clone(&extension.name);
        self.changes.extensions.push(Arc::new(extension));
        self.answered(Kind::Extension, origin, &name, now);
    }

    /// The server has no configuration of this filter any more: its default counts.
    pub(crate) fn lose_extension(&mut self, origin: &Origin, name: &Arc<str>, now: Instant) {
        self.changes.extensions.retain(|extension| extension.name != *name);
        self.changes.lost_extensions.push(Arc::clone(name));
        self.answered(Kind::Extension, origin, name, now);
    }

    /// Takes a layer of the runtime.
    pub(crate) fn set_runtime(
        &mut self,
        origin: &Origin,
        name: &Arc<str>,
        values: Values,
        now: Instant,
    ) {
        self.changes.runtime.push((Arc::clone(name), values));
        self.answered(Kind::Runtime, origin, name, now);
    }

    /// The server has said what there is to say of a name, be it that it does not exist, or something that was refused.
    /// Who waits for it goes on without; who has a version from before keeps it, as in Envoy.
    pub(crate) fn answered(&mut self, kind: Kind, origin: &Origin, name: &Arc<str>, now: Instant) {
        let need = Need { kind, name: Arc::clone(name), origin: origin.clone() };
        let waiters = self.waiting.remove(&need).unwrap_or_default();
        let hosted = self.unhosted.remove(&need);
        self.here.insert(need);
        for waiter in waiters {
            self.check(&waiter, now);
        }
        if let Some((Need { kind, name, origin }, _)) = hosted {
            self.answered(kind, &origin, &name, now);
        }
    }

    /// As [`Warming::answered`], for all that a source is asked for: it has nothing that could be used.
    pub(crate) fn all_answered(&mut self, kind: Kind, origin: &Origin, now: Instant) {
        let names: Vec<Arc<str>> = match self.uses.get(&(kind, origin.clone())) {
            Some(uses) => uses.counts.keys().map(Arc::clone).collect(),
            None => Vec::new(),
        };
        for name in names {
            self.answered(kind, origin, &name, now);
        }
    }

    /// Nothing refers to a name of this source any more, and the server was told so: what was fetched of it has to be
    /// fetched again. Returns whether it is gone: it may have come from another source meanwhile.
    pub(crate) fn forget(&mut self, kind: Kind, origin: &Origin, name: &Arc<str>) -> bool {
        let need = Need { kind, name: Arc::clone(name), origin: origin.clone() };
        let was_here = self.here.remove(&need);
        let origins = self.uses.keys().filter(|(other, _)| *other == kind);
        let mut others = origins.map(|(_, origin)| Need { origin: origin.clone(), ..need.clone() });
        if others.any(|other| self.here.contains(&other)) {
            return false;
        }
        if kind == Kind::Route {
            let needless = self.virtual_hosts.forget(name);
            self.forget_virtual_hosts(needless);
        }
        let removed = match kind {
            Kind::Endpoint => &mut self.changes.removed_endpoints,
            Kind::Route => &mut self.changes.removed_routes,
            Kind::Secret => &mut self.changes.removed_secrets,
            Kind::Extension => &mut self.changes.removed_extensions,
            Kind::Cluster | Kind::Listener | Kind::VirtualHost | Kind::Runtime => return true,
        };
        if was_here {
            removed.push(Arc::clone(name));
        }
        true
    }

    /// A change was refused when it was put into effect: what was there before still is.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        match refusal.kind {
            Kind::Cluster => self.revert(&refusal.name, |warming| &mut warming.clusters),
            Kind::Listener => self.revert(&refusal.name, |warming| &mut warming.listeners),
            Kind::Endpoint
            | Kind::Route
            | Kind::VirtualHost
            | Kind::Secret
            | Kind::Extension
            | Kind::Runtime => {}
        }
    }

    fn revert<T: Needs>(
        &mut self,
        name: &Arc<str>,
        slots: fn(&mut Self) -> &mut HashMap<Arc<str>, Slot<T>>,
    ) {
        let Some(slot) = slots(self).get_mut(name) else { return };
        let previous = slot.previous.take();
        let refused = std::mem::replace(&mut slot.active, previous.clone());
        let gone = slot.active.is_none() && slot.warming.is_none();
        if let Some(previous) = previous {
            self.add_uses(&previous.needs());
        }
        if let Some(refused) = refused {
            self.remove_uses(&refused.needs());
        }
        if gone {
            slots(self).remove(name);
        }
    }

    /// Gives up on everything whose time is over at `now`.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((deadline, waiter)) = self.deadlines.first().cloned() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            self.check(&waiter, now);
        }
        let is_over = |deadline: &Option<Instant>| deadline.is_some_and(|it| it <= now);
        let over = self.unhosted.extract_if(|_, (_, deadline)| is_over(deadline));
        for (awaited, (routes, _)) in over.collect::<Vec<_>>() {
            self.timed_out.push(awaited);
            self.answered(routes.kind, &routes.origin, &routes.name, now);
        }
    }

    /// When [`Warming::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|(deadline, _)| *deadline);
        first.into_iter().chain(self.unhosted.values().filter_map(|(_, deadline)| *deadline)).min()
    }

    /// What takes effect now.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// What ran out of time since this was last called: types and names.
    pub(crate) fn take_timed_out(&mut self) -> Vec<Need> {
        std::mem::take(&mut self.timed_out)
    }

    /// Clusters and listeners that wait, each with what it waits for.
    pub(crate) fn unready(&self) -> Vec<Unready> {
        let mut all: BTreeMap<&Waiter, Vec<Need>> = BTreeMap::new();
        for (need, waiters) in &self.waiting {
            for waiter in waiters {
                all.entry(waiter).or_default().push(need.clone());
            }
        }
        all.into_iter()
            .map(|(waiter, mut needs)| {
                needs.sort();
                let who = match waiter {
                    Waiter::Cluster(name) => (Kind::Cluster, Arc::clone(name)),
                    Waiter::Listener(name) => (Kind::Listener, Arc::clone(name)),
                };
                (who, needs)
            })
            .collect()
    }

    /// Clusters that wait.
    pub(crate) fn warming_clusters(&self) -> usize {
        self.warming_clusters
    }

    /// Listeners that wait.
    pub(crate) fn warming_listeners(&self) -> usize {
        self.warming_listeners
    }

    /// Whether a cluster of this name exists, serving or waiting.
    pub(crate) fn has_cluster(&self, name: &str) -> bool {
        self.clusters.contains_key(name)
    }

    /// Whether a cluster of this name is in effect.
    pub(crate) fn is_serving(&self, name: &str) -> bool {
        self.clusters.get(name).is_some_and(|slot| slot.active.is_some())
    }

    /// The latest version of every listener.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.values().filter_map(|slot| {
            slot.warming.as_ref().map(|waiting| &waiting.config).or(slot.active.as_ref())
        })
    }
}
