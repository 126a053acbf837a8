//! What is complete and may take effect: make before break. Pure: no I/O, and time is told.
//!
//! A cluster waits for its endpoints and secrets, a listener for its routes and secrets, each no longer than its initial
//! fetch timeout. While a new version waits, the old one serves. What was fetched once is known from then on: a cluster
//! that comes again does not wait for endpoints that are here. Needs also are the subscriptions: the names that some
//! version of a cluster or listener, serving or waiting, refers to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::needs::{Need, Needs};
use super::subscription::Interest;
use super::{Changes, Kind, Refusal};
use crate::config::cluster::Cluster;
use crate::config::endpoint::LoadAssignment;
use crate::config::listener::Listener;
use crate::config::route::RouteConfiguration;
use crate::config::secret::Secret;

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
    endpoints: Uses,
    routes: Uses,
    secrets: Uses,
    changes: Changes,
    /// Needs whose time ran out since it was last asked.
    timed_out: Vec<Need>,
    warming_clusters: usize,
    warming_listeners: usize,
}

/// A cluster or listener by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Waiter {
    Cluster(Arc<str>),
    Listener(Arc<str>),
}

/// One cluster or listener.
#[derive(Debug)]
struct Slot<T> {
    active: Option<Arc<T>>,
    warming: Option<Waiting<T>>,
    /// What was active before, until it is known that the new one was taken.
    previous: Option<Arc<T>>,
}

/// A version that waits.
#[derive(Debug)]
struct Waiting<T> {
    config: Arc<T>,
    since: Instant,
    deadline: Option<Instant>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { active: None, warming: None, previous: None }
    }
}

/// How many refer to each name of a type.
#[derive(Debug, Default)]
struct Uses {
    counts: BTreeMap<Arc<str>, usize>,
    changed: bool,
}

impl Uses {
    fn add(&mut self, name: &Arc<str>) {
        let count = self.counts.entry(Arc::clone(name)).or_insert(0);
        *count += 1;
        self.changed |= *count == 1;
    }

    fn remove(&mut self, name: &Arc<str>) {
        if let Some(count) = self.counts.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(name);
                self.changed = true;
            }
        }
    }
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
    pub(crate) fn set_endpoints(&mut self, assignment: Arc<LoadAssignment>, now: Instant) {
        let name = Arc::clone(&assignment.cluster_name);
        self.changes.endpoints.push(assignment);
        self.arrived(Need::Endpoints(name), now);
    }

    /// The server says that an EDS service has no load assignment. Clusters that wait for it go on without; one that has
    /// endpoints keeps them, as in Envoy.
    pub(crate) fn no_endpoints(&mut self, name: &Arc<str>, now: Instant) {
        self.arrived(Need::Endpoints(Arc::clone(name)), now);
    }

    /// Takes a route configuration.
    pub(crate) fn set_routes(&mut self, routes: Arc<RouteConfiguration>, now: Instant) {
        let name = Arc::clone(&routes.name);
        self.changes.routes.push(routes);
        self.arrived(Need::Routes(name), now);
    }

    /// Takes a secret.
    pub(crate) fn set_secret(&mut self, secret: Secret, now: Instant) {
        let name = Arc::clone(&secret.name);
        self.changes.secrets.push(secret);
        self.arrived(Need::Secret(name), now);
    }

    /// Nothing refers to a name any more, and the server was told so: what was fetched of it has to be fetched again.
    pub(crate) fn forget(&mut self, kind: Kind, name: &Arc<str>) {
        let (need, removed) = match kind {
            Kind::Endpoint => {
                (Need::Endpoints(Arc::clone(name)), &mut self.changes.removed_endpoints)
            }
            Kind::Route => (Need::Routes(Arc::clone(name)), &mut self.changes.removed_routes),
            Kind::Secret => (Need::Secret(Arc::clone(name)), &mut self.changes.removed_secrets),
            Kind::Cluster | Kind::Listener => return,
        };
        if self.here.remove(&need) {
            removed.push(Arc::clone(name));
        }
    }

    /// A change was refused when it was put into effect: what was there before still is.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        match refusal.kind {
            Kind::Cluster => self.revert(&refusal.name, |warming| &mut warming.clusters),
            Kind::Listener => self.revert(&refusal.name, |warming| &mut warming.listeners),
            Kind::Endpoint | Kind::Route | Kind::Secret => {}
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
    }

    /// When [`Warming::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// What takes effect now.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// What ran out of time since this was last called: types and names.
    pub(crate) fn take_timed_out(&mut self) -> Vec<Need> {
        std::mem::take(&mut self.timed_out)
    }

    /// The names of a type that are needed, if they changed since this was last called.
    pub(crate) fn take_interest(&mut self, kind: Kind) -> Option<Interest> {
        let uses = match kind {
            Kind::Endpoint => &mut self.endpoints,
            Kind::Route => &mut self.routes,
            Kind::Secret => &mut self.secrets,
            Kind::Cluster | Kind::Listener => return None,
        };
        std::mem::take(&mut uses.changed)
            .then(|| Interest::Names(Arc::new(uses.counts.keys().map(Arc::clone).collect())))
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

    /// The latest version of every listener.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.values().filter_map(|slot| {
            slot.warming.as_ref().map(|waiting| &waiting.config).or(slot.active.as_ref())
        })
    }

    fn arrived(&mut self, need: Need, now: Instant) {
        let waiters = self.waiting.remove(&need).unwrap_or_default();
        self.here.insert(need);
        for waiter in waiters {
            self.check(&waiter, now);
        }
    }

    /// Activates what waits, if it waits for nothing more; else notes what it waits for, and until when.
    fn check(&mut self, waiter: &Waiter, now: Instant) {
        match waiter {
            Waiter::Cluster(name) => {
                let Some(active) = self.check_slot(waiter, name, now, |all| &mut all.clusters)
                else {
                    return;
                };
                self.changes.clusters.push(active);
            }
            Waiter::Listener(name) => {
                let Some(active) = self.check_slot(waiter, name, now, |all| &mut all.listeners)
                else {
                    return;
                };
                self.changes.listeners.push(active);
            }
        }
    }

    fn check_slot<T: Needs>(
        &mut self,
        waiter: &Waiter,
        name: &Arc<str>,
        now: Instant,
        slots: fn(&mut Self) -> &mut HashMap<Arc<str>, Slot<T>>,
    ) -> Option<Arc<T>> {
        let waiting = slots(self).get_mut(name)?.warming.take()?;
        let needs = waiting.config.needs();
        self.stop_waiting(waiter, &needs, waiting.deadline);
        let missing: Vec<&(Need, Option<Duration>)> =
            needs.iter().filter(|(need, _)| !self.here.contains(need)).collect();
        // It is over when the longest of the waits is over; one without an end has none.
        let deadline = missing
            .iter()
            .map(|(_, timeout)| timeout.map(|timeout| waiting.since + timeout))
            .reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
            .flatten();
        let in_time = deadline.is_none_or(|deadline| deadline > now);
        if !missing.is_empty() && in_time {
            for (need, _) in &missing {
                self.waiting.entry(need.clone()).or_default().insert(waiter.clone());
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, waiter.clone()));
            }
            let slot = slots(self).get_mut(name)?;
            slot.warming = Some(Waiting { deadline, ..waiting });
            return None;
        }
        *self.warming_count(waiter) -= 1;
        self.timed_out.extend(missing.into_iter().map(|(need, _)| need.clone()));
        let slot = slots(self).get_mut(name)?;
        slot.previous = slot.active.replace(Arc::clone(&waiting.config));
        if let Some(previous) = slot.previous.clone() {
            self.remove_uses(&previous.needs());
        }
        Some(waiting.config)
    }

    fn warming_count(&mut self, waiter: &Waiter) -> &mut usize {
        match waiter {
            Waiter::Cluster(_) => &mut self.warming_clusters,
            Waiter::Listener(_) => &mut self.warming_listeners,
        }
    }

    /// A version that waited is of no interest any more.
    fn give_up<T: Needs>(&mut self, waiter: &Waiter, waiting: &Waiting<T>) {
        let needs = waiting.config.needs();
        self.stop_waiting(waiter, &needs, waiting.deadline);
        self.remove_uses(&needs);
    }

    fn stop_waiting(
        &mut self,
        waiter: &Waiter,
        needs: &[(Need, Option<Duration>)],
        deadline: Option<Instant>,
    ) {
        for (need, _) in needs {
            if let Some(waiters) = self.waiting.get_mut(need) {
                waiters.remove(waiter);
                if waiters.is_empty() {
                    self.waiting.remove(need);
                }
            }
        }
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, waiter.clone()));
        }
    }

    fn add_uses(&mut self, needs: &[(Need, Option<Duration>)]) {
        for (need, _) in needs {
            let (uses, name) = self.uses(need);
            uses.add(&name);
        }
    }

    fn remove_uses(&mut self, needs: &[(Need, Option<Duration>)]) {
        for (need, _) in needs {
            let (uses, name) = self.uses(need);
            uses.remove(&name);
        }
    }

    fn uses(&mut self, need: &Need) -> (&mut Uses, Arc<str>) {
        match need {
            Need::Endpoints(name) => (&mut self.endpoints, Arc::clone(name)),
            Need::Routes(name) => (&mut self.routes, Arc::clone(name)),
            Need::Secret(name) => (&mut self.secrets, Arc::clone(name)),
        }
    }
}

#[cfg(test)]
mod tests;
