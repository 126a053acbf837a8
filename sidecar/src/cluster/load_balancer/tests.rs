//! Distributions, with a seeded generator: the same in every run.

use crate::config::runtime::RuntimeNumber;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cluster::Context;
use crate::cluster::circuit_breaker::Breaker;
use crate::cluster::cluster::{Cluster, ClusterId};
use crate::cluster::host_set::{HostSet, Members};
use crate::cluster::testing::{config, located, members};
use crate::config;
use crate::config::endpoint::{AssignmentPolicy, HealthStatus};
use crate::config::load_balancer::{LoadBalancer, SlowStart};
use crate::stats::Sharded;

const P2C: LoadBalancer = LoadBalancer::LeastRequest {
    choice_count: 2,
    active_request_bias: RuntimeNumber::constant(1.0),
    full_scan: false,
};

pub(super) fn cluster(config: config::cluster::Cluster, priorities: Vec<Members>) -> Cluster {
    let hosts = HostSet::new(priorities, &config, AssignmentPolicy::default(), None);
    let stats = Arc::new(Sharded::new(1));
    let breaker = || Breaker::new(&config.circuit_breakers[0], Arc::clone(&stats));
    Cluster {
        bind: None,
        original_dst: None,
        id: ClusterId(7),
        name: Arc::clone(&config.name),
        breakers: Arc::new([breaker(), breaker()]),
        stats,
        tls_stats: None,
        updates: Arc::new(Sharded::new(1)),
        hosts: Arc::new(ArcSwap::from_pointee(hosts)),
        members: None,
        drop_category: Arc::default(),
        drop_overload: Arc::default(),
        detector: None,
        health: None,
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
        let chosen = cluster.pick(&hosts, &Context::default()).unwrap();
        counts[usize::from(chosen.address.port().unwrap())] += 1;
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
        cluster.pick(&hosts, &Context::default()).unwrap().address.port().unwrap()
    };
    let first: Vec<_> = (0..6).map(|_| pick()).collect();
    assert!(first.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 4), "{first:?}");
    let members = cluster.hosts.load().members();
    cluster.hosts.store(Arc::new(HostSet::new(
        members,
        &cluster.config,
        AssignmentPolicy::default(),
        None,
    )));
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
    let policy = LoadBalancer::LeastRequest {
        choice_count: 4,
        active_request_bias: RuntimeNumber::constant(1.0),
        full_scan: false,
    };
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

    let unbiased = LoadBalancer::LeastRequest {
        choice_count: 2,
        active_request_bias: RuntimeNumber::constant(0.0),
        full_scan: false,
    };
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
        let chosen = cluster
            .pick(&hosts, &Context { avoid: &all[..2], attempts: 2, ..Context::default() })
            .unwrap();
        assert_eq!(chosen.id, all[2]);
        assert!(
            cluster
                .pick(&hosts, &Context { avoid: &all, attempts: 5, ..Context::default() })
                .is_some(),
            "nobody is left: the last one"
        );
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
    assert!(
        cluster
            .pick(&cluster.hosts.load(), &Context { attempts: 3, ..Context::default() })
            .is_none()
    );
}

#[test]
fn with_panic_turned_off_nobody_healthy_means_nobody() {
    let hosts = vec![members(0, &[(1, HealthStatus::Unhealthy)])];
    let config = config::cluster::Cluster { healthy_panic_threshold: 0, ..config("c") };
    let cluster = cluster(config, hosts);
    assert!(
        cluster
            .pick(&cluster.hosts.load(), &Context { attempts: 3, ..Context::default() })
            .is_none()
    );
    cluster.hosts.store(Arc::new(HostSet::empty()));
    assert!(
        cluster
            .pick(&cluster.hosts.load(), &Context { attempts: 3, ..Context::default() })
            .is_none()
    );
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

/// A cluster that divides traffic by the weights of these localities; each has endpoints on ports of its own ten.
fn with_localities(
    load_balancer: LoadBalancer,
    localities: &[(Option<u32>, &[HealthStatus])],
) -> Cluster {
    let config = config::cluster::Cluster { load_balancer, locality_weighted: true, ..config("c") };
    cluster(config, vec![located(0, localities)])
}

const UP: HealthStatus = HealthStatus::Healthy;
const DOWN: HealthStatus = HealthStatus::Unhealthy;
const SLOW: HealthStatus = HealthStatus::Degraded;

/// How often each ten of ports is chosen.
fn counts_of_localities(cluster: &Cluster, n: usize) -> Vec<usize> {
    counts(cluster, n, 30).chunks(10).map(|ports| ports.iter().sum()).collect()
}

#[test]
fn localities_get_traffic_by_their_weights_whatever_the_number_of_their_endpoints() {
    fastrand::seed(20);
    for policy in [LoadBalancer::RoundRobin, P2C, LoadBalancer::Random] {
        let cluster = with_localities(policy, &[(Some(1), &[UP; 8]), (Some(2), &[UP])]);
        let counts = counts_of_localities(&cluster, 300);
        assert!(counts[0].abs_diff(100) <= 1 && counts[1].abs_diff(200) <= 1, "{counts:?}");
    }
}

#[test]
fn in_a_locality_the_policy_chooses_as_it_would_in_the_whole() {
    fastrand::seed(21);
    let localities: &[(Option<u32>, &[HealthStatus])] = &[(Some(1), &[UP; 4]), (Some(1), &[UP; 2])];
    let counts = counts(&with_localities(LoadBalancer::RoundRobin, localities), 800, 12);
    assert_eq!((counts[..4].to_vec(), counts[10..].to_vec()), (vec![100; 4], vec![200; 2]));
}

#[test]
fn a_locality_without_a_weight_gets_nothing_unless_none_has_one() {
    fastrand::seed(22);
    let cluster = with_localities(LoadBalancer::RoundRobin, &[(None, &[UP]), (Some(1), &[UP])]);
    assert_eq!(counts_of_localities(&cluster, 100), [0, 100, 0]);
    let cluster = with_localities(LoadBalancer::RoundRobin, &[(None, &[UP; 3]), (None, &[UP])]);
    assert_eq!(counts_of_localities(&cluster, 100), [75, 25, 0], "as without localities");
}

#[test]
fn a_locality_that_lacks_health_gets_less_after_overprovisioning() {
    fastrand::seed(23);
    let shares = |health: &[HealthStatus]| {
        let localities = [(Some(1), health), (Some(1), &[UP; 10])];
        let cluster = with_localities(LoadBalancer::RoundRobin, &localities);
        counts_of_localities(&cluster, 1700)
    };
    // 8 of 10 are 112 percent after overprovisioning, 5 of 10 are 70.
    let mut health = [UP; 10];
    health[..2].fill(DOWN);
    assert_eq!(shares(&health), [850, 850, 0]);
    health[..5].fill(DOWN);
    let counts = shares(&health);
    assert!(counts[0].abs_diff(700) <= 1 && counts[1].abs_diff(1000) <= 1, "{counts:?}");
    assert_eq!(shares(&[DOWN; 10]), [0, 1700, 0]);
}

#[test]
fn degraded_endpoints_have_localities_of_their_own_and_in_a_panic_there_are_none() {
    fastrand::seed(24);
    let localities: &[(Option<u32>, &[HealthStatus])] =
        &[(Some(3), &[SLOW; 2]), (Some(1), &[SLOW; 2])];
    let counts = counts_of_localities(&with_localities(LoadBalancer::RoundRobin, localities), 400);
    assert!(counts[0].abs_diff(300) <= 1 && counts[1].abs_diff(100) <= 1, "{counts:?}");
    let localities: &[(Option<u32>, &[HealthStatus])] = &[(Some(9), &[DOWN; 3]), (Some(1), &[UP])];
    let cluster = with_localities(LoadBalancer::RoundRobin, localities);
    assert_eq!(counts_of_localities(&cluster, 400), [300, 100, 0]);
}

#[test]
fn a_locality_that_is_listed_twice_is_one() {
    fastrand::seed(25);
    let mut members = located(0, &[(Some(5), &[UP; 2]), (Some(2), &[UP; 2]), (Some(2), &[UP])]);
    let mut localities = members.localities.to_vec();
    localities[1].locality = Arc::clone(&localities[0].locality);
    members.localities = localities.into();
    let config = config::cluster::Cluster { locality_weighted: true, ..config("c") };
    let counts = counts(&cluster(config, vec![members]), 800, 30);
    assert_eq!((&counts[..2], &counts[10..12], counts[20]), (&[100; 2][..], &[100; 2][..], 400));
}

#[test]
fn least_request_of_all_takes_the_least_and_among_equals_any() {
    fastrand::seed(30);
    let policy = LoadBalancer::LeastRequest {
        choice_count: 2,
        active_request_bias: RuntimeNumber::constant(1.0),
        full_scan: true,
    };
    let cluster = with_policy(policy, &[1; 4]);
    let hosts = cluster.hosts.load();
    let list = &hosts.priorities[0].all.list;
    for (endpoint, active) in list.iter().zip([2, 1, 3, 1]) {
        endpoint.active.store(active, Relaxed);
    }
    let counts = counts(&cluster, 1000, 4);
    assert_eq!((counts[0], counts[2]), (0, 0));
    assert!(counts[1].abs_diff(500) < 80, "{counts:?}");
}

/// Two endpoints, of which the second came this long ago and the first long before; and how often the second is chosen in
/// a thousand.
async fn share_of_newcomer(load_balancer: LoadBalancer, slow: SlowStart, age: Duration) -> usize {
    let window = slow.window;
    let config = config::cluster::Cluster { load_balancer, slow_start: Some(slow), ..config("c") };
    let members = members(0, &[(1, UP), (1, UP)]);
    let first = Members { all: members.all[..1].into(), localities: [].into() };
    let cluster = cluster(config, vec![first]);
    tokio::time::advance(window).await;
    let both = HostSet::new(vec![members], &cluster.config, AssignmentPolicy::default(), None);
    cluster.hosts.store(Arc::new(both));
    tokio::time::advance(age).await;
    counts(&cluster, 1000, 2)[1]
}

const SLOW_START: SlowStart = SlowStart {
    window: Duration::from_secs(10),
    aggression: RuntimeNumber::constant(1.0),
    min_weight: 0.1,
};

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_its_share_little_by_little() {
    fastrand::seed(31);
    for policy in [LoadBalancer::RoundRobin, P2C] {
        for (seconds, weight) in [(0, 0.1), (1, 0.1), (2, 0.2), (5, 0.5), (9, 0.9)] {
            let age = Duration::from_secs(seconds);
            let share = share_of_newcomer(policy.clone(), SLOW_START, age).await;
            let expected = 1000.0 * weight / (1.0 + weight);
            assert!((share as f64 - expected).abs() <= 2.0, "{policy:?}, {seconds}: {share}");
        }
    }
    let all = share_of_newcomer(LoadBalancer::RoundRobin, SLOW_START, SLOW_START.window).await;
    assert_eq!(all, 500);
}

#[tokio::test(start_paused = true)]
async fn aggression_bends_the_way_to_the_full_weight() {
    fastrand::seed(32);
    let slow = SlowStart { aggression: RuntimeNumber::constant(2.0), ..SLOW_START };
    let share =
        share_of_newcomer(LoadBalancer::RoundRobin, slow, Duration::from_millis(2500)).await;
    // The root of a quarter is a half.
    assert!(share.abs_diff(333) <= 2, "{share}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_comes_ill_starts_slowly_when_it_is_well() {
    fastrand::seed(33);
    let config = config::cluster::Cluster { slow_start: Some(SLOW_START), ..config("c") };
    let members = members(0, &[(1, UP), (1, DOWN)]);
    let newcomer = Arc::clone(&members.all[1]);
    let cluster = cluster(config, vec![members.clone()]);
    tokio::time::advance(SLOW_START.window * 3).await;
    newcomer.update(1, UP, &Arc::default());
    let hosts = HostSet::new(vec![members], &cluster.config, AssignmentPolicy::default(), None);
    cluster.hosts.store(Arc::new(hosts));
    let counts = counts(&cluster, 1100, 2);
    assert!(counts[1].abs_diff(100) <= 1, "{counts:?}");
}

/// Sends requests one after the other, each of which takes as long as its endpoint does; how many each port (from 0) got.
async fn one_by_one(cluster: &Cluster, requests: usize, takes: &[u64]) -> Vec<usize> {
    let LoadBalancer::PeakEwma(settings) = &cluster.config.load_balancer else {
        panic!("{cluster:?}")
    };
    let mut counts = vec![0; takes.len()];
    let hosts = cluster.hosts.load();
    for _ in 0..requests {
        let chosen = cluster.pick(&hosts, &Context::default()).unwrap();
        let port = usize::from(chosen.address.port().unwrap());
        counts[port] += 1;
        let time = Duration::from_millis(takes[port]);
        tokio::time::advance(time).await;
        chosen.latency.get_or_init(Box::default).observe(time, settings.decay);
    }
    counts
}

fn peak_ewma() -> LoadBalancer {
    LoadBalancer::PeakEwma(Arc::default())
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_avoids_a_slow_endpoint_even_if_only_one_request_is_under_way() {
    fastrand::seed(31);
    let cluster = with_policy(peak_ewma(), &[1; 4]);
    let counts = one_by_one(&cluster, 2000, &[5, 5, 5, 500]).await;
    // Least request would send it 500.
    assert!(counts[3] < 20, "{counts:?}");
    assert!(counts[..3].iter().all(|count| *count > 500), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_comes_back_to_an_endpoint_that_is_fast_again() {
    fastrand::seed(32);
    let cluster = with_policy(peak_ewma(), &[1; 4]);
    one_by_one(&cluster, 500, &[5, 5, 5, 500]).await;
    one_by_one(&cluster, 20_000, &[5; 4]).await;
    let counts = one_by_one(&cluster, 4000, &[5; 4]).await;
    assert!(counts.iter().all(|count| *count > 500), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_sends_less_to_who_has_more_under_way() {
    fastrand::seed(33);
    let cluster = with_policy(peak_ewma(), &[1; 3]);
    let hosts = cluster.hosts.load_full();
    for endpoint in hosts.endpoints() {
        endpoint
            .latency
            .get_or_init(Box::default)
            .observe(Duration::from_millis(5), Duration::from_secs(10));
    }
    hosts.endpoints().next().unwrap().active.store(3, Relaxed);
    let counts = counts(&cluster, 900, 3);
    assert_eq!(counts[0], 0, "the busiest loses to each of the others");
    assert!(counts[1].abs_diff(counts[2]) < 450, "{counts:?}");
}

#[test]
fn peak_ewma_is_uniform_among_equals_and_goes_by_weight_among_others() {
    fastrand::seed(34);
    let equal = counts(&with_policy(peak_ewma(), &[1; 10]), 10_000, 10);
    assert!(chi_square(&equal, &[0.1; 10]) < CHI_SQUARE_9, "{equal:?}");
    let weighted = counts(&with_policy(peak_ewma(), &[1, 3]), 4000, 2);
    assert!(weighted[1] > 2 * weighted[0] && weighted[0] > 400, "{weighted:?}");
}
