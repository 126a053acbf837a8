//! The endpoints of a cluster by priority and health, prepared for choosing.
//!
//! Semantics: Envoy's "priority levels", "degraded endpoints" and "panic threshold". A host set is immutable; a change
//! of endpoints, of their health or of an ejection makes a new one, for this cluster only.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::endpoint::{Endpoint, Health};
use crate::config::endpoint::Locality;

/// The endpoints of a cluster.
#[derive(Debug)]
pub(crate) struct HostSet {
    /// Unique in the process: state that depends on a host set is kept by it.
    pub(super) generation: u64,
    /// By priority, the highest first. Empty: nothing was discovered yet.
    pub(crate) priorities: Box<[Priority]>,
}

/// The endpoints of one priority.
#[derive(Debug)]
pub(crate) struct Priority {
    /// All of them, in the order of the assignment.
    pub(crate) all: Hosts,
    /// The healthy ones.
    pub(crate) healthy: Hosts,
    /// The degraded ones.
    pub(crate) degraded: Hosts,
    /// The localities, in the order of the assignment.
    pub(crate) localities: Arc<[LocalityHosts]>,
    /// Share of the traffic for its healthy endpoints, in percent.
    pub(crate) healthy_load: u8,
    /// Share of the traffic for its degraded endpoints, in percent. All shares add up to 100.
    pub(crate) degraded_load: u8,
    /// So few are available that traffic goes to all of them.
    pub(crate) panic: bool,
}

/// A list to choose from.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// In the order of the assignment.
    pub(crate) list: Arc<[Arc<Endpoint>]>,
    /// Not all weights are equal.
    pub(crate) weighted: bool,
}

/// A run of [`Priority::all`]: the endpoints of one locality.
#[derive(Debug, Clone)]
pub(crate) struct LocalityHosts {
    /// Which.
    pub(crate) locality: Arc<Locality>,
    /// Its weight, if it has one. Counts only where balancing by locality weight is configured, as in Envoy.
    #[allow(dead_code)]
    // that balancing is refused so far, but tests follow the weight through updates
    pub(crate) weight: Option<u32>,
    /// Its first endpoint in the list.
    pub(crate) start: usize,
    /// How many there are.
    pub(crate) count: usize,
}

/// What a host set is made of: the endpoints of one priority, whatever their health.
#[derive(Debug, Clone)]
pub(super) struct Members {
    pub(super) all: Arc<[Arc<Endpoint>]>,
    pub(super) localities: Arc<[LocalityHosts]>,
}

impl HostSet {
    /// Without a single priority.
    pub(super) fn empty() -> Self {
        Self::new(Vec::new(), 140, 50)
    }

    /// Sorts endpoints by their health of this moment, and shares out the traffic.
    ///
    /// `overprovisioning` is a factor in percent, `panic_threshold` is in percent and 0 turns panic off.
    pub(super) fn new(members: Vec<Members>, overprovisioning: u32, panic_threshold: u8) -> Self {
        static GENERATION: AtomicU64 = AtomicU64::new(1);
        let mut priorities: Box<[Priority]> = members.into_iter().map(Priority::new).collect();
        share_out(&mut priorities, u64::from(overprovisioning), panic_threshold.min(100));
        Self { generation: GENERATION.fetch_add(1, Relaxed), priorities }
    }

    /// The members, to make the next host set from.
    pub(super) fn members(&self) -> Vec<Members> {
        self.priorities
            .iter()
            .map(|priority| Members {
                all: Arc::clone(&priority.all.list),
                localities: Arc::clone(&priority.localities),
            })
            .collect()
    }

    /// Every endpoint, the highest priority first.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.priorities.iter().flat_map(|priority| priority.all.list.iter())
    }

    /// Every endpoint with its priority and locality.
    pub(crate) fn located(&self) -> impl Iterator<Item = (usize, &Arc<Locality>, &Arc<Endpoint>)> {
        self.priorities.iter().enumerate().flat_map(|(level, priority)| {
            priority.localities.iter().flat_map(move |group| {
                let hosts = priority.all.list.iter().skip(group.start).take(group.count);
                hosts.map(move |endpoint| (level, &group.locality, endpoint))
            })
        })
    }
}

impl Priority {
    fn new(members: Members) -> Self {
        let with = |health: Health| -> Hosts {
            if members.all.iter().all(|endpoint| endpoint.health() == health) {
                // The usual case, in which the list is shared and not copied.
                return Hosts::new(Arc::clone(&members.all));
            }
            let chosen = members.all.iter().filter(|endpoint| endpoint.health() == health);
            Hosts::new(chosen.cloned().collect())
        };
        Self {
            healthy: with(Health::Healthy),
            degraded: with(Health::Degraded),
            all: Hosts::new(Arc::clone(&members.all)),
            localities: members.localities,
            healthy_load: 0,
            degraded_load: 0,
            panic: false,
        }
    }
}

impl Hosts {
    fn new(list: Arc<[Arc<Endpoint>]>) -> Self {
        let weighted = list.windows(2).any(|pair| pair[0].weight() != pair[1].weight());
        Self { list, weighted }
    }
}

/// Gives every priority its share of 100 percent, and decides on panic.
fn share_out(priorities: &mut [Priority], overprovisioning: u64, panic_threshold: u8) {
    let availability = |available: usize, total: usize| match total as u64 {
        0 => 0,
        total => (overprovisioning * available as u64 / total).min(100),
    };
    let healthy: Vec<u64> = priorities
        .iter()
        .map(|priority| availability(priority.healthy.list.len(), priority.all.list.len()))
        .collect();
    let degraded: Vec<u64> = priorities
        .iter()
        .map(|priority| availability(priority.degraded.list.len(), priority.all.list.len()))
        .collect();
    let normalized = healthy.iter().chain(&degraded).sum::<u64>().min(100);

    // As much as possible to the healthy, in order; then to the degraded; what integer division lost, to the first.
    let share = |health: u64| (health * 100).checked_div(normalized).unwrap_or(0);
    let mut remaining = 100;
    for (priority, &health) in priorities.iter_mut().zip(&healthy) {
        let load = share(health).min(remaining);
        priority.healthy_load = load as u8;
        remaining -= load;
    }
    for (priority, &health) in priorities.iter_mut().zip(&degraded) {
        let load = share(health).min(remaining);
        priority.degraded_load = load as u8;
        remaining -= load;
    }
    if let Some(first) = healthy.iter().position(|&health| health > 0) {
        priorities[first].healthy_load += remaining as u8;
    } else if let Some(first) = degraded.iter().position(|&health| health > 0) {
        priorities[first].degraded_load += remaining as u8;
    }

    if panic_threshold == 0 && normalized == 0 {
        // Nobody is available and panic is off: all traffic is for the first, which has nobody.
        if let Some(first) = priorities.first_mut() {
            first.healthy_load = 100;
        }
        return;
    }
    if normalized == 100 {
        return;
    }
    for priority in priorities.iter_mut() {
        let available = priority.healthy.list.len() + priority.degraded.list.len();
        let percent = match priority.all.list.len() {
            0 => 0.0,
            total => 100.0 * available as f64 / total as f64,
        };
        priority.panic = percent < f64::from(panic_threshold);
    }
    if priorities.iter().all(|priority| priority.panic) {
        share_out_by_count(priorities);
    }
}

/// In a total panic health does not count: every priority gets its share by the number of its endpoints.
fn share_out_by_count(priorities: &mut [Priority]) {
    let total: usize = priorities.iter().map(|priority| priority.all.list.len()).sum();
    let mut remaining = 100;
    for priority in priorities.iter_mut() {
        priority.degraded_load = 0;
        let share = 100 * priority.all.list.len();
        priority.healthy_load = share.checked_div(total).unwrap_or(0) as u8;
        remaining -= priority.healthy_load;
    }
    let first = priorities.iter().position(|priority| !priority.all.list.is_empty()).unwrap_or(0);
    if let Some(first) = priorities.get_mut(first) {
        first.healthy_load += remaining;
    }
}
