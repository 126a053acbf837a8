//! What lives on over updates, and what is touched by them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Manager;
use crate::cluster::Context;
use crate::cluster::LoadReport;
use crate::cluster::Outcome;
use crate::cluster::cluster::Cluster;
use crate::cluster::endpoint::{Endpoint, Health};
use crate::cluster::event_log::testing::Kept;
use crate::cluster::outlier_detection::EjectionReason;
use crate::cluster::testing::{assignment, config, endpoint, group, outlier_detection};
use crate::config;
use crate::config::cluster::{Discovery, OutlierDetection};
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::endpoint::{HealthStatus, Locality, LocalityEndpoints};
use crate::config::load_balancer::{ClientSideWeighted, LoadBalancer, ZoneAware};
use crate::stats::Registry;
use crate::tls;

mod ejections;
mod health;
mod rates;
mod resolution;

fn manager() -> Manager {
    Manager::new(&Registry::new(0))
}

fn set(manager: &mut Manager, config: config::cluster::Cluster) {
    manager.set(Arc::new(config), &mut tls::Contexts::new()).unwrap();
}

fn eds(name: &str) -> config::cluster::Cluster {
    let source = ConfigSource { origin: Origin::Ads, initial_fetch_timeout: None };
    let discovery = Discovery::Eds { service_name: name.into(), source };
    config::cluster::Cluster { discovery, ..config(name) }
}

fn assign(manager: &mut Manager, name: &str, groups: Vec<LocalityEndpoints>) {
    manager.set_endpoints(name, Arc::new(assignment(name, groups)));
}

fn ports(range: std::ops::Range<u16>) -> Vec<config::endpoint::Endpoint> {
    range.map(endpoint).collect()
}

fn endpoints(manager: &Manager, name: &str) -> Vec<Arc<Endpoint>> {
    manager.get(name).unwrap().hosts.load().endpoints().cloned().collect()
}

#[tokio::test]
async fn an_endpoint_stays_the_same_object_over_updates_of_endpoints_and_cluster() {
    let mut manager = manager();
    set(&mut manager, eds("c"));
    assign(&mut manager, "c", vec![group(0, ports(1..4))]);
    let before = endpoints(&manager, "c");
    before[1].active.store(5, Relaxed);

    // Another order, another priority, another weight, one gone, one new.
    let mut heavy = endpoint(2);
    heavy.weight = 9;
    assign(&mut manager, "c", vec![group(0, vec![endpoint(4), heavy]), group(1, ports(1..2))]);
    let after = endpoints(&manager, "c");
    assert!(Arc::ptr_eq(&after[1], &before[1]) && Arc::ptr_eq(&after[2], &before[0]));
    assert_eq!((after[1].weight(), after[1].active()), (9, 5));
    let gone: Vec<_> = manager.take_gone();
    assert!(gone.len() == 1 && Arc::ptr_eq(&gone[0], &before[2]) && before[2].is_gone());
    assert!(manager.take_gone().is_empty(), "told once");

    // A harmless change of the cluster keeps them without a new assignment.
    let cluster = Arc::clone(manager.get("c").unwrap());
    let changed = config::cluster::Cluster { connect_timeout: Duration::from_secs(1), ..eds("c") };
    set(&mut manager, changed);
    let updated = Arc::clone(manager.get("c").unwrap());
    assert_eq!(updated.config.connect_timeout, Duration::from_secs(1));
    assert!(endpoints(&manager, "c").iter().zip(&after).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(Arc::ptr_eq(&cluster.stats, &updated.stats), "counts go on");
    assert!(Arc::ptr_eq(&cluster.hosts, &updated.hosts), "requests under way see new endpoints");
    assert_eq!(cluster.id, updated.id);
    assert!(manager.take_gone().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_left_and_came_back_is_a_new_one() {
    let mut manager = manager();
    set(&mut manager, eds("c"));
    assign(&mut manager, "c", vec![group(0, ports(1..2))]);
    let before = endpoints(&manager, "c");
    assign(&mut manager, "c", Vec::new());
    assert!(endpoints(&manager, "c").is_empty());
    assign(&mut manager, "c", vec![group(0, ports(1..2))]);
    assert_ne!(endpoints(&manager, "c")[0].id, before[0].id);
}

#[tokio::test]
async fn an_update_of_one_among_ten_thousand_clusters_touches_its_host_set_only() {
    let mut manager = manager();
    for number in 0..10_000 {
        let name = format!("c{number}");
        set(&mut manager, eds(&name));
        assign(&mut manager, &name, vec![group(0, ports(1..3))]);
    }
    let table = manager.table();
    let hosts: Vec<_> = table.iter().map(|cluster| cluster.hosts.load_full()).collect();
    assign(&mut manager, "c4711", vec![group(0, ports(1..4))]);
    let after = manager.table();
    assert_eq!(after.iter().count(), 10_000);
    for ((before, after), hosts) in table.iter().zip(after.iter()).zip(&hosts) {
        assert!(Arc::ptr_eq(before, after), "{} was made anew", after.name);
        let untouched = Arc::ptr_eq(hosts, &after.hosts.load_full());
        assert_eq!(untouched, &*after.name != "c4711", "{}", after.name);
    }
}

#[tokio::test]
async fn a_changed_cluster_changes_one_place_of_the_table() {
    let mut manager = manager();
    for number in 0..200 {
        set(&mut manager, config(&format!("c{number}")));
    }
    let before = manager.table();
    set(&mut manager, config("c100"));
    manager.remove("c150");
    let after = manager.table();
    let (changed, removed) = (manager.id(&"c100".into()), manager.id(&"c150".into()));
    for cluster in before.iter() {
        match after.get(cluster.id) {
            None => assert_eq!(cluster.id, removed),
            Some(now) => assert_eq!(!Arc::ptr_eq(now, cluster), cluster.id == changed),
        }
    }
    assert_eq!(manager.id(&"c150".into()), removed, "a name keeps its id");
}

#[tokio::test]
async fn a_removed_cluster_lets_its_endpoints_go() {
    let mut manager = manager();
    set(&mut manager, eds("c"));
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    let cluster = Arc::clone(manager.get("c").unwrap());
    manager.remove("c");
    assert!(manager.get("c").is_none() && !manager.is_initialized("c"));
    assert_eq!(manager.take_gone().len(), 2);
    assert!(
        cluster.pick(&cluster.hosts.load(), &Context::default()).is_none(),
        "new picks fail at once"
    );
}

#[tokio::test]
async fn endpoints_that_came_before_their_cluster_are_there_at_once() {
    let mut manager = manager();
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    set(&mut manager, eds("c"));
    assert!(manager.is_initialized("c"));
    assert_eq!(endpoints(&manager, "c").len(), 2);
    // Discovery no longer has them, but they are in use.
    manager.forget_endpoints("c");
    set(&mut manager, config::cluster::Cluster { auto_sni: true, ..eds("c") });
    assert_eq!(endpoints(&manager, "c").len(), 2);
}

#[tokio::test]
async fn an_eds_cluster_is_initialized_by_its_endpoints_even_if_there_are_none() {
    let mut manager = manager();
    set(&mut manager, eds("a"));
    assert!(!manager.is_initialized("a"));
    assign(&mut manager, "a", Vec::new());
    assert!(manager.is_initialized("a"), "an empty answer is an answer");
    assert!(!manager.is_initialized("unknown"));
}

#[tokio::test]
async fn an_endpoint_listed_twice_counts_once() {
    let mut manager = manager();
    set(&mut manager, eds("c"));
    assign(&mut manager, "c", vec![group(0, vec![endpoint(1), endpoint(2), endpoint(1)])]);
    assert_eq!(endpoints(&manager, "c").len(), 2);
}

#[tokio::test]
async fn discovered_health_takes_an_endpoint_out_and_back_without_making_it_anew() {
    let mut manager = manager();
    set(&mut manager, eds("c"));
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    let before = endpoints(&manager, "c");
    let mut draining = ports(1..3);
    draining[0].health = HealthStatus::Draining;
    assign(&mut manager, "c", vec![group(0, draining)]);
    let hosts = manager.get("c").unwrap().hosts.load_full();
    assert_eq!(hosts.priorities[0].healthy.list.len(), 1);
    assert_eq!(before[0].health(), Health::Unhealthy);
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    assert_eq!(before[0].health(), Health::Healthy);
    assert!(Arc::ptr_eq(&endpoints(&manager, "c")[0], &before[0]));
}

#[tokio::test]
async fn a_lower_limit_of_an_update_counts_what_is_under_way_already() {
    let mut manager = manager();
    set(&mut manager, config("c"));
    let before = Arc::clone(manager.get("c").unwrap());
    assert!(before.breaker(Default::default()).try_request());
    let mut changed = config("c");
    changed.circuit_breakers[0].max_requests = 1;
    set(&mut manager, changed);
    let after = manager.get("c").unwrap();
    assert!(!after.breaker(Default::default()).try_request());
    before.breaker(Default::default()).release_request();
    assert!(after.breaker(Default::default()).try_request());
}

#[tokio::test]
async fn clusters_follow_the_endpoints_of_the_local_cluster() {
    let zone = |zone: &str, ports| {
        let locality = Locality { zone: zone.into(), ..Locality::default() };
        LocalityEndpoints { locality: Arc::new(locality), ..group(0, ports) }
    };
    let mut manager = manager();
    manager.set_local("local".into(), Some(Locality { zone: "a".into(), ..Locality::default() }));
    for name in ["c", "local"] {
        let zone_aware = ZoneAware::new(100.0, 1.0);
        set(&mut manager, config::cluster::Cluster { zone_aware, ..eds(name) });
    }
    assign(&mut manager, "c", vec![zone("a", ports(1..3)), zone("b", ports(3..5))]);
    let hosts = |manager: &Manager| manager.get("c").unwrap().hosts.load_full();
    let before = hosts(&manager);
    assert!(before.priorities[0].zones.is_none(), "nothing is known of sidecars");
    assign(&mut manager, "local", vec![zone("a", ports(11..12)), zone("b", ports(12..13))]);
    let divided = hosts(&manager);
    assert!(divided.priorities[0].zones.is_some());
    assert!(before.endpoints().zip(divided.endpoints()).all(|(a, b)| Arc::ptr_eq(a, b)));
    let own = manager.get("local").unwrap().hosts.load_full();
    assert!(own.priorities[0].zones.is_none(), "the local cluster is not divided");
    // The same again changes nothing for the others, and other sidecars do.
    assign(&mut manager, "c", vec![zone("a", ports(1..3)), zone("b", ports(3..5))]);
    let same = hosts(&manager);
    manager.follow_local();
    assert!(Arc::ptr_eq(&same, &hosts(&manager)));
    assign(&mut manager, "local", vec![zone("a", ports(11..12))]);
    assert!(hosts(&manager).priorities[0].zones.is_none(), "one zone only");
}

#[tokio::test(start_paused = true)]
async fn weights_that_endpoints_report_are_taken_over_after_each_period() {
    let settings = ClientSideWeighted {
        blackout_period: Duration::ZERO,
        weight_update_period: Duration::from_secs(5),
        ..ClientSideWeighted::default()
    };
    let load_balancer = LoadBalancer::ClientSideWeighted(Arc::new(settings.clone()));
    let mut manager = manager();
    set(&mut manager, config::cluster::Cluster { load_balancer, ..eds("c") });
    let mut heavy = endpoint(1);
    heavy.weight = 9;
    assign(&mut manager, "c", vec![group(0, vec![heavy.clone(), endpoint(2)])]);
    let weights = |manager: &Manager| -> Vec<u32> {
        endpoints(manager, "c").iter().map(|endpoint| endpoint.weight()).collect()
    };
    assert_eq!(weights(&manager), [1, 1], "what discovery says does not count");
    let report = LoadReport { rps_fractional: 10.0, cpu_utilization: 0.5, ..LoadReport::default() };
    endpoints(&manager, "c")[1].reported.get().unwrap().note(&report, &settings);
    let began = Instant::now();
    let before = manager.get("c").unwrap().hosts.load_full();
    manager.next().await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert_eq!(weights(&manager), [20, 20], "the first has the median");
    assert!(!Arc::ptr_eq(&before, &manager.get("c").unwrap().hosts.load_full()));
    let before = manager.get("c").unwrap().hosts.load_full();
    manager.next().await;
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert!(Arc::ptr_eq(&before, &manager.get("c").unwrap().hosts.load_full()), "as before");
    // New endpoints are weighed at once, and the next period ends when it would have.
    assign(&mut manager, "c", vec![group(0, vec![heavy, endpoint(2), endpoint(3)])]);
    assert_eq!(weights(&manager), [20, 20, 20]);
    manager.remove("c");
    assert!(manager.weighings.is_empty());
}
