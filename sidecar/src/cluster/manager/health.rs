//! What health checks change: which endpoints get traffic, which may leave, and when a new cluster is ready.

use std::collections::HashSet;
use std::sync::Arc;

use super::assign::NextMembers;
use super::{Entry, Manager};
use crate::cluster::cluster::ClusterId;
use crate::cluster::endpoint::{Endpoint, EndpointId};
use crate::cluster::health_check::flags::Flag;
use crate::cluster::health_check::{Checks, HealthEvent, Plan};
use crate::config::cluster::Discovery;
use crate::stats::{HealthCheckCells, Scope};

/// What is known of a cluster's health checks.
#[derive(Default)]
pub(super) struct Health {
    /// `None` without health checks.
    pub(super) checks: Option<Checks>,
    /// Endpoints of a cluster that is not shown yet whose first check is not over.
    first_round: HashSet<EndpointId>,
    /// Requests may see it. A cluster that is new waits until every endpoint was checked once, as in Envoy; what it has
    /// later is waited for by nobody.
    shown: bool,
}

impl Health {
    /// Whether every endpoint was checked once; from then on it is.
    pub(super) fn is_ready(&self) -> bool {
        self.shown || self.first_round.is_empty()
    }

    /// Requests see the cluster from now on, if it is ready.
    pub(super) fn show(&mut self) -> bool {
        self.shown |= self.first_round.is_empty();
        self.shown
    }

    /// Forgets an endpoint that is gone.
    pub(super) fn forget(&mut self, endpoint: EndpointId) {
        self.first_round.remove(&endpoint);
        if let Some(checks) = &mut self.checks {
            checks.forget(endpoint);
        }
    }
}

impl Manager {
    /// Begins, changes or ends the health checks of a cluster, by its configuration. Results that are known stay.
    pub(super) fn set_checks(&mut self, id: ClusterId) {
        let (make_probe, events) = (Arc::clone(&self.make_probe), self.health.0.clone());
        let registry = Arc::clone(&self.registry);
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let cluster = &entry.cluster;
        let Some(config) = &cluster.config.health_check else {
            entry.health = Health { shown: entry.health.shown, ..Health::default() };
            cluster.hosts.load().endpoints().for_each(|endpoint| endpoint.check.clear());
            return;
        };
        let stats =
            registry.scope::<HealthCheckCells>(Scope::Cluster(cluster.observed_name().into()));
        let transport =
            config.transport_match.as_ref().map(|metadata| entry.transports.of(metadata));
        let (transport, proxy_protocol) =
            transport.map(|way| (way.tls, way.proxy_protocol)).unzip();
        let (config, cluster) = (Arc::clone(config), Arc::clone(cluster));
        let log = Arc::clone(&self.events);
        let plan = Plan { config, cluster, stats, transport, proxy_protocol, log };
        match &entry.health.checks {
            Some(checks) => checks.adopt(plan),
            None => entry.health.checks = Some(Checks::new(plan, make_probe, events)),
        }
    }

    /// Takes what happened to an endpoint's health. Returns the name of a cluster that is ready by it.
    pub(super) fn health_event(&mut self, event: HealthEvent) -> Option<Arc<str>> {
        match event {
            HealthEvent::Told { cluster, endpoint } => {
                if let Some(checks) = self.entry(cluster).and_then(|it| it.health.checks.as_ref()) {
                    checks.told(endpoint.id);
                }
                None
            }
            HealthEvent::Checked { cluster, endpoint, passed, changed } => {
                self.checked(cluster, &endpoint, passed, changed)
            }
        }
    }

    fn checked(
        &mut self,
        id: ClusterId,
        endpoint: &Arc<Endpoint>,
        passed: bool,
        changed: bool,
    ) -> Option<Arc<str>> {
        let entry = self.entries.get_mut(id.index()).and_then(Option::as_mut)?;
        // It may have left since.
        let hosts = entry.cluster.hosts.load_full();
        if !hosts.endpoints().any(|member| Arc::ptr_eq(member, endpoint)) {
            return None;
        }
        let waited = entry.health.first_round.remove(&endpoint.id);
        let is_ready = waited && entry.health.is_ready();
        let ends_ejections =
            entry.outlier_config().is_some_and(|outlier| outlier.uneject_on_passed_check);
        let unejected = passed && ends_ejections && entry.uneject(endpoint);
        let failed = endpoint.check.has(Flag::Failed);
        if changed && failed && endpoint.check.has(Flag::Left) {
            // Discovery took it away before; only its health kept it.
            let assignment = entry.assignment.clone()?;
            self.assign(id, assignment);
        } else if changed || unejected {
            entry.swap_hosts(hosts.members());
        }
        let entry = self.entries.get_mut(id.index()).and_then(Option::as_mut)?;
        if changed && failed {
            entry.cluster.break_connections(endpoint);
        }
        let name = is_ready.then(|| Arc::clone(&entry.cluster.name));
        if is_ready {
            self.changed.insert(id);
        }
        name
    }
}

impl Entry {
    /// Whether an endpoint that discovery no longer has stays: while its health checks pass, unless the cluster says
    /// otherwise.
    pub(super) fn keeps(&self, endpoint: &Endpoint) -> bool {
        let discovered =
            matches!(self.cluster.config.discovery, Discovery::Eds { .. } | Discovery::Dns(_));
        discovered
            && self.health.checks.is_some()
            && !self.cluster.config.health.ignore_on_removal
            && endpoint.check.has(Flag::Checked)
            && !endpoint.check.has(Flag::Failed)
            && !endpoint.discovered_health().is_unhealthy()
    }

    /// Checks the endpoints that there are from now on.
    ///
    /// One that is new is unhealthy until a check passes. One that was there before the checks were keeps its traffic until
    /// one fails.
    pub(super) fn follow_checks(&mut self, members: &NextMembers, before: &HashSet<EndpointId>) {
        let ignores_new = self.cluster.config.health.ignore_new_until_checked;
        let Health { checks, first_round, shown } = &mut self.health;
        let Some(checks) = checks else { return };
        for endpoint in members.endpoints() {
            let at = members.target(endpoint.id);
            if at.is_some_and(|at| at.is_disabled) {
                checks.forget(endpoint.id);
                endpoint.check.clear();
                continue;
            }
            endpoint.check.set(Flag::Checked, true);
            endpoint.check.set(Flag::Left, members.has_left(endpoint.id));
            let is_new = !before.contains(&endpoint.id);
            if is_new {
                endpoint.check.set(Flag::Failed, true);
                endpoint.check.set(Flag::Pending, ignores_new);
            }
            // Where one that has left was checked is not said any more.
            if !members.has_left(endpoint.id) && checks.follow(endpoint, at) && !*shown && is_new {
                first_round.insert(endpoint.id);
            }
        }
    }
}
