//! Gauges of a cluster's endpoints.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::cluster::health_check::flags::Flag;
use crate::cluster::host_set::{HostSet, Priority};
use crate::stats::registry::{Name, Reading, Sink, Source};

/// Gauges of a cluster's endpoints, read from the host set.
pub(super) struct Membership {
    pub(super) hosts: Arc<ArcSwap<HostSet>>,
    pub(super) ejects: bool,
    /// Its endpoints are discovered: only then Envoy looks for the heaviest.
    pub(super) weighs: bool,
    pub(super) checks: bool,
}

impl Source for Membership {
    fn read(&self, sink: &mut Sink<'_>) {
        let hosts = self.hosts.load();
        let count = |list: fn(&Priority) -> usize| -> u64 {
            hosts.priorities.iter().map(|priority| list(priority) as u64).sum()
        };
        let mut gauge = |name, value| {
            sink(Name::plain(name), Reading::Gauge { value, used: true });
        };
        gauge("membership_total", count(|priority| priority.all.list.len()));
        gauge("membership_healthy", count(|priority| priority.healthy.list.len()));
        gauge("membership_degraded", count(|priority| priority.degraded.list.len()));
        let excluded = hosts.endpoints().filter(|endpoint| endpoint.is_excluded());
        gauge("membership_excluded", excluded.count() as u64);
        let weighed = hosts.endpoints().filter(|_| self.weighs);
        let heaviest = weighed.map(|endpoint| endpoint.weight()).max();
        gauge("max_host_weight", heaviest.unwrap_or(0).into());
        let subsets = hosts.subsets.as_deref();
        gauge("lb_subsets_active", subsets.map_or(0, |subsets| subsets.selected().len() as u64));
        if let Some(subsets) = subsets {
            gauge("lb_subsets_single_host_per_subset_duplicate", subsets.duplicates);
        }
        if let Some(evenness) = hosts.evenness() {
            if let Some(size) = evenness.size {
                gauge("ring_hash_lb.size", size);
                gauge("ring_hash_lb.min_hashes_per_host", evenness.fewest);
                gauge("ring_hash_lb.max_hashes_per_host", evenness.most);
            } else {
                gauge("maglev_lb.min_entries_per_host", evenness.fewest);
                gauge("maglev_lb.max_entries_per_host", evenness.most);
            }
        }
        if self.checks {
            let checked = || hosts.endpoints().filter(|endpoint| endpoint.check.has(Flag::Checked));
            let healthy = checked().filter(|endpoint| !endpoint.check.has(Flag::Failed));
            gauge("health_check.healthy", healthy.count() as u64);
            let degraded = checked().filter(|endpoint| endpoint.check.has(Flag::Degraded));
            gauge("health_check.degraded", degraded.count() as u64);
        }
        if self.ejects {
            let ejected =
                hosts.endpoints().filter(|endpoint| endpoint.outlier.ejection().is_some());
            gauge("outlier_detection.ejections_active", ejected.count() as u64);
        }
    }
}
