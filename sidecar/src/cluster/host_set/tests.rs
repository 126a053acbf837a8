//! The tables of Envoy's documentation on priority levels.

use super::HostSet;
use crate::cluster::testing::{config, members};
use crate::config::cluster::Cluster;
use crate::config::endpoint::{AssignmentPolicy, HealthStatus};

/// A host set of priorities with so many healthy, degraded and unhealthy endpoints.
fn host_set(priorities: &[(usize, usize, usize)], panic_threshold: u8) -> HostSet {
    let members = priorities.iter().zip(1u16..).map(|(&(healthy, degraded, unhealthy), level)| {
        let mut endpoints = vec![(1, HealthStatus::Healthy); healthy];
        endpoints.extend(vec![(1, HealthStatus::Degraded); degraded]);
        endpoints.extend(vec![(1, HealthStatus::Unhealthy); unhealthy]);
        members(level * 1000, &endpoints)
    });
    let config = Cluster { healthy_panic_threshold: panic_threshold, ..config("c") };
    HostSet::new(members.collect(), &config, AssignmentPolicy::default(), None)
}

fn healthy_loads(priorities: &[(usize, usize, usize)]) -> Vec<u8> {
    let hosts = host_set(priorities, 50);
    hosts.priorities.iter().map(|priority| priority.load.healthy).collect()
}

/// `percent` healthy of 100.
fn of_100(percent: usize) -> (usize, usize, usize) {
    (percent, 0, 100 - percent)
}

#[test]
fn a_priority_spills_over_by_what_its_health_lacks_after_overprovisioning() {
    for (health, expected) in [
        (100, [100, 0]),
        (72, [100, 0]),
        (71, [99, 1]),
        (50, [70, 30]),
        (25, [35, 65]),
        (0, [0, 100]),
    ] {
        assert_eq!(healthy_loads(&[of_100(health), of_100(100)]), expected, "{health}% healthy");
    }
}

#[test]
fn where_all_together_lack_health_loads_are_scaled_up_and_the_rest_goes_to_the_first() {
    let loads = |priorities: &[(usize, usize, usize)]| -> Vec<u8> {
        // Without panic, which would go by the number of endpoints here.
        host_set(priorities, 0).priorities.iter().map(|priority| priority.load.healthy).collect()
    };
    assert_eq!(loads(&[of_100(25), of_100(25)]), [50, 50]);
    // 35 + 35 + 28 of 98: 35, 35 and 28 hundredths rounded down, and the 2 that are left.
    assert_eq!(loads(&[of_100(25), of_100(25), of_100(20)]), [37, 35, 28]);
}

#[test]
fn degraded_endpoints_get_what_the_healthy_of_all_priorities_leave() {
    let hosts = host_set(&[(10, 40, 50), (20, 0, 80)], 0);
    let loads: Vec<_> =
        hosts.priorities.iter().map(|p| (p.load.healthy, p.load.degraded)).collect();
    // Availability 14 and 28 healthy, 56 and 0 degraded: 98 together.
    assert_eq!(loads, [(15, 57), (28, 0)]);
    let hosts = host_set(&[(0, 100, 0), (50, 0, 50)], 50);
    let loads: Vec<_> =
        hosts.priorities.iter().map(|p| (p.load.healthy, p.load.degraded)).collect();
    assert_eq!(loads, [(0, 30), (70, 0)]);
}

#[test]
fn a_priority_panics_only_below_the_threshold_and_only_if_all_together_lack_health() {
    let panics = |priorities: &[(usize, usize, usize)], threshold| -> Vec<bool> {
        host_set(priorities, threshold).priorities.iter().map(|priority| priority.panic).collect()
    };
    assert_eq!(panics(&[of_100(49)], 50), [true]);
    // 50 is not below 50.
    assert_eq!(panics(&[of_100(50)], 50), [false]);
    assert_eq!(panics(&[of_100(10), of_100(100)], 50), [false, false], "the next one suffices");
    assert_eq!(panics(&[of_100(10), of_100(60)], 50), [true, false]);
    assert_eq!(panics(&[of_100(0)], 0), [false], "0 turns panic off");
    assert_eq!(panics(&[(20, 40, 40)], 50), [false], "the degraded count as available");
}

#[test]
fn in_a_total_panic_loads_follow_the_number_of_endpoints() {
    let hosts = host_set(&[(0, 0, 30), (1, 0, 9), (0, 0, 60)], 50);
    assert!(hosts.priorities.iter().all(|priority| priority.panic));
    let loads: Vec<_> = hosts.priorities.iter().map(|priority| priority.load.healthy).collect();
    assert_eq!(loads, [30, 10, 60]);
    let hosts = host_set(&[(0, 0, 0), (0, 0, 1), (0, 0, 2)], 50);
    let loads: Vec<_> = hosts.priorities.iter().map(|priority| priority.load.healthy).collect();
    assert_eq!(loads, [0, 34, 66], "what is left goes to the first that is not empty");
}

#[test]
fn loads_always_add_up_to_100() {
    for seed in 0..2000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let priorities: Vec<_> = (0..random.usize(1..5))
            .map(|_| (random.usize(0..12), random.usize(0..12), random.usize(0..12)))
            .collect();
        let threshold = *random.choice(&[0u8, 50, 100]).unwrap();
        let hosts = host_set(&priorities, threshold);
        let sum: u32 = hosts
            .priorities
            .iter()
            .map(|p| u32::from(p.load.healthy) + u32::from(p.load.degraded))
            .sum();
        assert_eq!(sum, 100, "{priorities:?}, threshold {threshold}");
    }
}

#[test]
fn a_list_of_which_all_are_healthy_is_shared_and_not_copied() {
    let hosts = host_set(&[(3, 0, 0)], 50);
    let priority = &hosts.priorities[0];
    assert!(std::sync::Arc::ptr_eq(&priority.all.list, &priority.healthy.list));
    assert!(priority.degraded.list.is_empty());
}

#[test]
fn a_priority_is_as_healthy_as_its_weights_where_they_are_to_count() {
    let loads = |weighted_priority_health| {
        let first = [(9, HealthStatus::Unhealthy), (1, HealthStatus::Healthy)];
        let members = vec![members(0, &first), members(10, &[(1, HealthStatus::Healthy)])];
        let policy = AssignmentPolicy { weighted_priority_health, ..AssignmentPolicy::default() };
        let hosts = HostSet::new(members, &config("c"), policy, None);
        hosts.priorities.iter().map(|priority| priority.load.healthy).collect::<Vec<_>>()
    };
    assert_eq!(loads(false), [70, 30]);
    assert_eq!(loads(true), [14, 86]);
}

#[test]
fn the_overprovisioning_factor_may_be_another_one() {
    let loads = |overprovisioning_factor| {
        let half = [(1, HealthStatus::Unhealthy), (1, HealthStatus::Healthy)];
        let members = vec![members(0, &half), members(10, &[(1, HealthStatus::Healthy)])];
        let policy = AssignmentPolicy { overprovisioning_factor, ..AssignmentPolicy::default() };
        let hosts = HostSet::new(members, &config("c"), policy, None);
        hosts.priorities.iter().map(|priority| priority.load.healthy).collect::<Vec<_>>()
    };
    assert_eq!(loads(100), [50, 50]);
    assert_eq!(loads(200), [100, 0]);
}

#[test]
fn a_draining_endpoint_is_left_out_where_the_share_of_healthy_ones_is_counted() {
    let hosts = |states: &[HealthStatus]| {
        let first: Vec<_> = states.iter().map(|state| (1, *state)).collect();
        let members = vec![members(0, &first), members(10, &[(1, HealthStatus::Unhealthy)])];
        HostSet::new(members, &config("c"), AssignmentPolicy::default(), None)
    };
    let (up, down) = (HealthStatus::Healthy, HealthStatus::Unhealthy);
    let draining = HealthStatus::Draining;
    assert!(!hosts(&[up, draining, draining]).priorities[0].panic);
    assert!(hosts(&[up, down, down]).priorities[0].panic);
    let hosts = hosts(&[up, up, down, down, draining]);
    assert!(!hosts.priorities[0].panic, "half of four");
    assert_eq!(hosts.priorities[0].all.list.len(), 5);
    assert_eq!(hosts.priorities[0].healthy.list.len(), 2);
}
