//! Where a cluster's endpoints come from: its configuration, load assignments, DNS.

use std::sync::Arc;

use super::{Manager, assign};
use crate::cluster::cluster::ClusterId;
use crate::cluster::dns;
use crate::cluster::endpoint::Endpoint;
use crate::config::cluster::Discovery;
use crate::config::endpoint::LoadAssignment;

impl Manager {
    /// Begins to find a cluster's endpoints, or takes those that are known.
    pub(super) fn start_discovery(&mut self, id: ClusterId) {
        self.start_tidying(id);
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let config = Arc::clone(&entry.cluster.config);
        let known = match &config.discovery {
            Discovery::OriginalDst(_) => {
                self.start_original_dst(id);
                return self.reschedule(id);
            }
            Discovery::Static(assignment) => Some(Arc::clone(assignment)),
            Discovery::Eds { service_name, .. } => {
                let known = self.assignments.get(service_name).cloned();
                // A cluster whose kind of discovery changed, or whose endpoints are not here yet, keeps what it has.
                known.or_else(|| entry.assignment.clone())
            }
            // It has none of its own, and is ready whether its members are or not, as in Envoy.
            Discovery::Aggregate(_) => Some(Arc::new(LoadAssignment::empty(&config.name))),
            Discovery::Dns(dns) => {
                if entry.dns.is_none() {
                    let resolved = &self.resolved.0;
                    entry.dns = Some(dns::Targets::start(id, dns, &self.resolver, resolved));
                }
                entry
                    .dns
                    .as_ref()
                    .and_then(dns::Targets::assignment)
                    .or_else(|| entry.assignment.clone())
            }
        };
        match known {
            Some(assignment) => {
                entry.initialized = true;
                self.assign(id, assignment);
            }
            None => self.reschedule(id),
        }
    }

    /// Takes new endpoints of EDS clusters. They touch the host sets of those clusters and nothing else.
    pub(crate) fn set_endpoints(&mut self, service_name: &str, assignment: Arc<LoadAssignment>) {
        let clusters = self.by_service.get(service_name).cloned().unwrap_or_default();
        self.assignments.insert(Arc::from(service_name), Arc::clone(&assignment));
        for id in clusters {
            if let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) {
                entry.cluster.updates.local().update_success.inc();
                entry.initialized = true;
                self.assign(id, Arc::clone(&assignment));
            }
        }
        self.follow_local();
    }

    /// Forgets a load assignment that discovery no longer has. Clusters that use it keep their endpoints: as in Envoy, the
    /// removal of endpoints in use is ignored, and only an empty assignment empties a cluster.
    pub(crate) fn forget_endpoints(&mut self, service_name: &str) {
        if !self.by_service.contains_key(service_name) {
            self.assignments.remove(service_name);
        }
    }

    pub(super) fn resolved(&mut self, resolved: dns::Resolved) -> Option<Arc<str>> {
        let id = resolved.cluster;
        let entry = self.entries.get_mut(id.index()).and_then(Option::as_mut)?;
        let targets = entry.dns.as_mut()?;
        let updates = entry.cluster.updates.local();
        updates.update_attempt.inc();
        match &resolved.addresses {
            // That there is no address is not counted as an empty update, in Envoy either.
            Ok(_) => updates.update_success.inc(),
            Err(_) => updates.update_failure.inc(),
        }
        let changed = targets.take(resolved)?;
        let became_initialized = !entry.initialized && targets.is_complete();
        entry.initialized |= became_initialized;
        let name = became_initialized.then(|| Arc::clone(&entry.cluster.name));
        if !changed {
            entry.cluster.updates.local().update_no_rebuild.inc();
        } else if let Some(assignment) = targets.assignment() {
            self.assign(id, assignment);
        }
        name
    }

    /// Puts an assignment with addresses into effect.
    pub(super) fn assign(&mut self, id: ClusterId, assignment: Arc<LoadAssignment>) {
        let shards = self.registry.shards();
        let endpoint_ids = &self.endpoint_ids;
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let before = entry.cluster.hosts.load_full();
        let (members, changed) = assign::members(
            &assignment,
            &entry.transports,
            &before,
            &|endpoint| entry.keeps(endpoint),
            &mut |address, hostname, transport| {
                Endpoint::new(endpoint_ids.next(), address, hostname, transport, shards)
            },
        );
        entry.assignment = Some(Arc::clone(&assignment));
        let updates = entry.cluster.updates.local();
        if changed {
            updates.membership_change.inc();
        }
        for endpoint in before.endpoints() {
            if !members.contains(endpoint.id) {
                endpoint.set_gone();
                entry.ejections.forget(endpoint.id);
                entry.health.forget(endpoint.id);
                self.gone.push(Arc::clone(endpoint));
            }
        }
        let known = before.endpoints().map(|endpoint| endpoint.id).collect();
        entry.follow_checks(&members, &known);
        if changed && entry.cluster.config.health.close_on_change {
            self.stale.extend(members.endpoints().map(|endpoint| endpoint.id));
        }
        entry.swap_hosts(members.into_members());
        self.reschedule(id);
    }

    pub(super) fn forget_service(&mut self, id: ClusterId, discovery: &Discovery) {
        if let Discovery::Eds { service_name, .. } = discovery
            && let Some(clusters) = self.by_service.get_mut(service_name)
        {
            clusters.retain(|&other| other != id);
            if clusters.is_empty() {
                self.by_service.remove(service_name);
            }
        }
    }
}
