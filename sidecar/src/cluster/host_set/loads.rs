//! How much of the traffic each priority gets, and whether it panics.

use std::sync::Arc;

use super::{Hosts, Priority};
use crate::cluster::endpoint::Endpoint;
use crate::config::endpoint::AssignmentPolicy;

/// What counts of a priority when traffic is shared out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Availability {
    /// How healthy it is, overprovisioned: 0 to 100 percent.
    healthy: u64,
    /// How much of it is degraded, likewise.
    degraded: u64,
    /// Endpoints, whatever their health.
    hosts: usize,
    /// Those of them that count where the share of healthy ones is asked for.
    counted: usize,
    /// The healthy and the degraded ones.
    available: usize,
}

/// The share of the traffic that a priority gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// For its healthy endpoints, in percent.
    pub(crate) healthy: u8,
    /// For its degraded endpoints, in percent. All loads of a cluster add up to 100.
    pub(crate) degraded: u8,
}

impl Availability {
    /// By the number of endpoints, or by their weights if the policy says so.
    pub(super) fn of(priority: &Priority, policy: AssignmentPolicy) -> Self {
        let amount = |endpoint: &Arc<Endpoint>| {
            if policy.weighted_priority_health { u64::from(endpoint.weight()) } else { 1 }
        };
        let all: u64 = counted(&priority.all).map(amount).sum();
        let percent = |available: &Hosts| {
            let available: u64 = available.list.iter().map(amount).sum();
            let overprovisioned = u64::from(policy.overprovisioning_factor) * available;
            overprovisioned.checked_div(all).unwrap_or(0).min(100)
        };
        Self {
            healthy: percent(&priority.healthy),
            degraded: percent(&priority.degraded),
            hosts: priority.all.list.len(),
            counted: counted(&priority.all).count(),
            available: priority.healthy.list.len() + priority.degraded.list.len(),
        }
    }

    /// Whether there is any endpoint.
    pub(crate) fn has_hosts(&self) -> bool {
        self.hosts > 0
    }

    /// `threshold` is a percentage of endpoints.
    pub(super) fn panics(&self, threshold: u8) -> bool {
        let percent = match self.counted {
            0 => 0.0,
            total => 100.0 * self.available as f64 / total as f64,
        };
        percent < f64::from(threshold)
    }
}

/// Gives every priority its share of 100 percent, and decides on panic. `panic_threshold` is a percentage of endpoints; 0
/// turns panic off.
pub(crate) fn share_out(
    priorities: &[Availability],
    panic_threshold: u8,
) -> (Vec<Load>, Vec<bool>) {
    let sum: u64 = priorities.iter().map(|priority| priority.healthy + priority.degraded).sum();
    let normalized = sum.min(100);
    let mut loads = vec![Load::default(); priorities.len()];
    let mut panics = vec![false; priorities.len()];

    // As much as possible to the healthy, in order; then to the degraded; what integer division lost, to the first.
    let share = |health: u64| (health * 100).checked_div(normalized).unwrap_or(0);
    let mut remaining = 100;
    for (load, priority) in loads.iter_mut().zip(priorities) {
        let part = share(priority.healthy).min(remaining);
        load.healthy = part as u8;
        remaining -= part;
    }
    for (load, priority) in loads.iter_mut().zip(priorities) {
        let part = share(priority.degraded).min(remaining);
        load.degraded = part as u8;
        remaining -= part;
    }
    let first = |health: fn(&Availability) -> u64| {
        priorities.iter().position(|priority| health(priority) > 0)
    };
    if let Some(first) = first(|priority| priority.healthy) {
        loads[first].healthy += remaining as u8;
    } else if let Some(first) = first(|priority| priority.degraded) {
        loads[first].degraded += remaining as u8;
    }

    if panic_threshold == 0 && normalized == 0 {
        // Nobody is available and panic is off: all traffic is for the first, which has nobody.
        if let Some(first) = loads.first_mut() {
            first.healthy = 100;
        }
        return (loads, panics);
    }
    if normalized == 100 {
        return (loads, panics);
    }
    for (panic, priority) in panics.iter_mut().zip(priorities) {
        *panic = priority.panics(panic_threshold);
    }
    if panics.iter().all(|panic| *panic) {
        share_out_by_count(&mut loads, priorities);
    }
    (loads, panics)
}

/// Those that count where the share of healthy endpoints is asked for.
fn counted(hosts: &Hosts) -> impl Iterator<Item = &Arc<Endpoint>> {
    hosts.list.iter().filter(|endpoint| !endpoint.is_excluded())
}

/// In a total panic health does not count: every priority gets its share by the number of its endpoints.
fn share_out_by_count(loads: &mut [Load], priorities: &[Availability]) {
    let total: usize = priorities.iter().map(|priority| priority.hosts).sum();
    let mut remaining = 100;
    for (load, priority) in loads.iter_mut().zip(priorities) {
        let share = (100 * priority.hosts).checked_div(total).unwrap_or(0) as u8;
        *load = Load { healthy: share, degraded: 0 };
        remaining -= share;
    }
    let first = priorities.iter().position(Availability::has_hosts).unwrap_or(0);
    if let Some(first) = loads.get_mut(first) {
        first.healthy += remaining;
    }
}
