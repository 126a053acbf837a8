//! Distributions, with a seeded generator: the same in every run.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;

use crate::cluster::circuit_breaker::Breaker;
use crate::cluster::cluster::{Cluster, ClusterId};
use crate::cluster::host_set::{HostSet, Members};
use crate::cluster::testing::{config, members};
use crate::config;
use crate::config::endpoint::HealthStatus;
use crate::config::load_balancer::LoadBalancer;
use crate::stats::Sharded;

const P2C: LoadBalancer = LoadBalancer::LeastRequest { choice_count: 2, active_request_bias: 1.0 };

pub(super) fn cluster(config: config::cluster::Cluster, priorities: Vec<Members>) -> Cluster {
    let hosts = HostSet::new(priorities, &config, 140);
    let stats = Arc::new(Sharded::new(1));
    let breaker = || Breaker::new(&config.circuit_breakers[0], Arc::clone(&stats));
    Cluster {
        id: ClusterId(7),
        name: Arc::clone(&config.name),
        breakers: Arc::new([breaker(), breaker()]),
        stats,
        tls_stats: None,
        updates: Arc::new(Sharded::new(1)),
        hosts: Arc::new(ArcSwap::from_pointee(hosts)),
        detector: None,
        config: Arc::new(config),
    }
}

fn with_policy(load_balancer: LoadBalancer, weights: &[u32]) -> Cluster {
    let endpoints: Vec<_> = weights.iter().map(|&w| (w, HealthStatus::Healthy)).collect();
    let members = vec![members(0, &endpoints)];
    cluster(config::cluster::Cluster { load_balancer, ..config("c") }, members)
}

/// How often each port (from 0) is chosen in `n` choices.
fn counts(cluster: &Cluster, n: usize, ports: usize) -> Vec<usize> {
    let mut counts = vec![0; ports];
    let hosts = cluster.hosts.load();
    for _ in 0..n {
        let chosen = cluster.pick(&hosts, &[], 0, None).unwrap();
        counts[usize::from(chosen.address.port())] += 1;
    }
    counts
}

/// Pearson's chi-square of observed counts against expected shares.
fn chi_square(counts: &[usize], shares: &[f64]) -> f64 {
    let total: usize = counts.iter().sum();
    counts
        .iter()
        .zip(shares)
        .map(|(&count, share)| {
            let expected = share * total as f64;
            (count as f64 - expected).powi(2) / expected
        })
        .sum()
}

/// The value that chi-square with 9 degrees of freedom exceeds once in a thousand times.
const CHI_SQUARE_9: f64 = 27.88;

#[test]
fn random_chooses_uniformly_whatever_the_weights() {
    fastrand::seed(1);
    let cluster = with_policy(LoadBalancer::Random, &[1, 9, 1, 1, 5, 1, 1, 1, 1, 1]);
    let counts = counts(&cluster, 10_000, 10);
    assert!(chi_square(&counts, &[0.1; 10]) < CHI_SQUARE_9, "{counts:?}");
}

#[test]
fn round_robin_rotates_from_anywhere_and_goes_on_over_a_new_host_set() {
    fastrand::seed(2);
    let cluster = with_policy(LoadBalancer::RoundRobin, &[1; 4]);
    let pick = || {
        let hosts = cluster.hosts.load();
        cluster.pick(&hosts, &[], 0, None).unwrap().address.port()
    };
    let first: Vec<_> = (0..6).map(|_| pick()).collect();
    assert!(first.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 4), "{first:?}");
    let members = cluster.hosts.load().members();
    cluster.hosts.store(Arc::new(HostSet::new(members, &cluster.config, 140)));
    assert_eq!(pick(), (first[5] + 1) % 4);
}

#[test]
fn round_robin_with_weights_is_proportional_to_within_one_turn() {
    fastrand::seed(3);
    let cluster = with_policy(LoadBalancer::RoundRobin, &[1, 2, 7]);
    let counts = counts(&cluster, 1000, 3);
    for (count, expected) in counts.iter().zip([100i64, 200, 700]) {
        assert!((*count as i64 - expected).abs() <= 1, "{counts:?}");
    }
}

#[test]
fn weighted_schedules_of_different_workers_begin_at_different_places() {
    fastrand::seed(4);
    let firsts: std::collections::HashSet<_> = (0..20)
        .map(|_| {
            // A new host set makes a new schedule, as another worker would.
            let cluster = with_policy(LoadBalancer::RoundRobin, &[3, 4, 5]);
            counts(&cluster, 1, 3)
        })
        .collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn least_request_between_idle_endpoints_is_uniform() {
    fastrand::seed(5);
    let counts = counts(&with_policy(P2C, &[1; 10]), 10_000, 10);
    assert!(chi_square(&counts, &[0.1; 10]) < CHI_SQUARE_9, "{counts:?}");
}

#[test]
fn least_request_draws_with_replacement() {
    fastrand::seed(6);
    let cluster = with_policy(P2C, &[1, 1]);
    let hosts = cluster.hosts.load();
    hosts.priorities[0].all.list[0].active.store(100, Relaxed);
    // The loaded one is chosen exactly if both draws are it: once in four times.
    let counts = counts(&cluster, 10_000, 2);
    // One degree of freedom, once in a thousand times.
    assert!(chi_square(&counts, &[0.25, 0.75]) < 10.83, "{counts:?}");
}

#[test]
fn least_request_with_more_choices_avoids_the_loaded_one_more() {
    fastrand::seed(7);
    let policy = LoadBalancer::LeastRequest { choice_count: 4, active_request_bias: 1.0 };
    let cluster = with_policy(policy, &[1, 1]);
    cluster.hosts.load().priorities[0].all.list[0].active.store(1, Relaxed);
    let counts = counts(&cluster, 10_000, 2);
    assert!(chi_square(&counts, &[0.0625, 0.9375]) < 10.83, "{counts:?}");
}

#[test]
fn least_request_with_weights_divides_them_by_the_load() {
    fastrand::seed(8);
    let cluster = with_policy(P2C, &[3, 1]);
    cluster.hosts.load().priorities[0].all.list[0].active.store(2, Relaxed);
    // 3 / (2 + 1) against 1 / (0 + 1).
    let balanced = counts(&cluster, 1000, 2);
    assert!(balanced[0].abs_diff(500) <= 1, "{balanced:?}");

    let unbiased = LoadBalancer::LeastRequest { choice_count: 2, active_request_bias: 0.0 };
    let cluster = with_policy(unbiased, &[3, 1]);
    cluster.hosts.load().priorities[0].all.list[0].active.store(2, Relaxed);
    let by_weight = counts(&cluster, 1000, 2);
    assert!(by_weight[0].abs_diff(750) <= 1, "{by_weight:?}");
}

#[test]
fn an_endpoint_to_avoid_is_passed_over_but_taken_when_attempts_run_out() {
    fastrand::seed(9);
    let cluster = with_policy(LoadBalancer::RoundRobin, &[1; 3]);
    let hosts = cluster.hosts.load();
    let all: Vec<_> = hosts.endpoints().map(|endpoint| endpoint.id).collect();
    for _ in 0..10 {
        let chosen = cluster.pick(&hosts, &all[..2], 2, None).unwrap();
        assert_eq!(chosen.id, all[2]);
        assert!(cluster.pick(&hosts, &all, 5, None).is_some(), "nobody is left: the last one");
    }
}

#[test]
fn unhealthy_endpoints_get_nothing_and_in_a_panic_their_share() {
    fastrand::seed(10);
    let of = |unhealthy: usize| {
        let mut endpoints = vec![(1, HealthStatus::Healthy); 4];
        endpoints[..unhealthy].fill((1, HealthStatus::Unhealthy));
        let hosts = vec![members(0, &endpoints)];
        cluster(config("c"), hosts)
    };
    assert_eq!(counts(&of(2), 100, 4), [0, 0, 50, 50]);
    let panicking = of(3);
    assert_eq!(counts(&panicking, 100, 4), [25; 4]);
    assert_eq!(panicking.stats.local().lb_healthy_panic.value(), 100);
}

#[test]
fn traffic_fails_instead_of_panicking_if_configured() {
    let hosts = vec![members(0, &[(1, HealthStatus::Unhealthy)])];
    let config = config::cluster::Cluster { fail_traffic_on_panic: true, ..config("c") };
    let cluster = cluster(config, hosts);
    assert!(cluster.pick(&cluster.hosts.load(), &[], 3, None).is_none());
}

#[test]
fn with_panic_turned_off_nobody_healthy_means_nobody() {
    let hosts = vec![members(0, &[(1, HealthStatus::Unhealthy)])];
    let config = config::cluster::Cluster { healthy_panic_threshold: 0, ..config("c") };
    let cluster = cluster(config, hosts);
    assert!(cluster.pick(&cluster.hosts.load(), &[], 3, None).is_none());
    cluster.hosts.store(Arc::new(HostSet::empty()));
    assert!(cluster.pick(&cluster.hosts.load(), &[], 3, None).is_none());
}

#[test]
fn priorities_share_the_traffic_by_their_loads() {
    fastrand::seed(11);
    let mut first = vec![(1, HealthStatus::Unhealthy); 2];
    first.extend([(1, HealthStatus::Healthy); 2]);
    let second = [(1, HealthStatus::Healthy); 4];
    let hosts = vec![members(0, &first), members(4, &second)];
    // Half of the first are healthy: it keeps 70 percent.
    let counts = counts(&cluster(config("c"), hosts), 10_000, 8);
    let shares = [counts[2] + counts[3], counts[4..].iter().sum()];
    assert_eq!(counts[..2], [0, 0]);
    assert!(chi_square(&shares, &[0.7, 0.3]) < 10.83, "{counts:?}");
}

#[test]
fn degraded_endpoints_serve_what_the_healthy_leave() {
    fastrand::seed(12);
    let endpoints = [HealthStatus::Degraded, HealthStatus::Healthy].map(|health| (1, health));
    let hosts = vec![members(0, &endpoints)];
    let counts = counts(&cluster(config("c"), hosts), 10_000, 2);
    assert!(chi_square(&counts, &[0.3, 0.7]) < 10.83, "{counts:?}");
}
