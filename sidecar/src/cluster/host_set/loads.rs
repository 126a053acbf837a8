//! How much of the traffic each priority gets, and whether it panics.

use std::sync::Arc;

use super::{Hosts, Priority};
use crate::cluster::endpoint::Endpoint;
use crate::config::endpoint::AssignmentPolicy;

/// Gives every priority its share of 100 percent, and decides on panic.
///
/// Availability is the share of endpoints, or of their weights if the policy says so. `panic_threshold` is a percentage of
/// endpoints in either case; 0 turns panic off.
pub(super) fn share_out(
    priorities: &mut [Priority],
    policy: AssignmentPolicy,
    panic_threshold: u8,
) {
    let amount = |endpoint: &Arc<Endpoint>| {
        if policy.weighted_priority_health { u64::from(endpoint.weight()) } else { 1 }
    };
    let availability = |available: &Hosts, all: &Hosts| -> u64 {
        let available: u64 = available.list.iter().map(amount).sum();
        let all: u64 = counted(all).map(amount).sum();
        let overprovisioned = u64::from(policy.overprovisioning_factor) * available;
        overprovisioned.checked_div(all).unwrap_or(0).min(100)
    };
    let healthy: Vec<u64> =
        priorities.iter().map(|priority| availability(&priority.healthy, &priority.all)).collect();
    let degraded: Vec<u64> =
        priorities.iter().map(|priority| availability(&priority.degraded, &priority.all)).collect();
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
        let percent = match counted(&priority.all).count() {
            0 => 0.0,
            total => 100.0 * available as f64 / total as f64,
        };
        priority.panic = percent < f64::from(panic_threshold);
    }
    if priorities.iter().all(|priority| priority.panic) {
        share_out_by_count(priorities);
    }
}

/// Those that count where the share of healthy endpoints is asked for.
fn counted(hosts: &Hosts) -> impl Iterator<Item = &Arc<Endpoint>> {
    hosts.list.iter().filter(|endpoint| !endpoint.is_excluded())
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
