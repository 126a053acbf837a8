//! Weights that follow from what endpoints report of their load.

use tokio::time::Instant;

use super::{Entry, Manager};
use crate::cluster::cluster::ClusterId;
use crate::cluster::host_set::Members;
use crate::cluster::load_report;
use crate::config::load_balancer::LoadBalancer;

impl Manager {
    /// Plans when the endpoints of a cluster are weighed next, if they are. `previous` is what was planned before.
    pub(super) fn plan_weighing(&mut self, id: ClusterId, previous: Option<Instant>) {
        if let Some(at) = previous {
            self.weighings.remove(&(at, id));
        }
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        entry.weighing = match &entry.cluster.config.load_balancer {
            LoadBalancer::ClientSideWeighted(settings) => {
                let next = Instant::now() + settings.weight_update_period;
                // A change of the cluster does not put it off.
                Some(previous.map_or(next, |planned| planned.min(next)))
            }
            _ => None,
        };
        if let Some(at) = entry.weighing {
            self.weighings.insert((at, id));
        }
    }

    /// Weighs the endpoints of a cluster for which it is time.
    pub(super) fn weigh(&mut self, at: Instant, id: ClusterId) {
        self.weighings.remove(&(at, id));
        if let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) {
            entry.weighing = None;
            let members = entry.cluster.hosts.load().members();
            if entry.weigh(&members) {
                entry.swap_hosts(members);
            }
        }
        self.plan_weighing(id, None);
    }
}

impl Entry {
    /// Gives endpoints the weights that they report, where those count. Returns whether any changed.
    pub(super) fn weigh(&self, members: &[Members]) -> bool {
        match &self.cluster.config.load_balancer {
            LoadBalancer::ClientSideWeighted(settings) => load_report::weigh(members, settings),
            _ => false,
        }
    }
}
