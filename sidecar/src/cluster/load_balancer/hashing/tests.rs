//! Known values, and the rules of the tables. That they are Envoy's is seen by `integration/tests/differential/hashing.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::murmur::murmur_hash;
use super::{Evenness, HashTable, Shares};
use crate::cluster::Cluster;
use crate::cluster::Context;
use crate::cluster::endpoint::{Endpoint, EndpointId};
use crate::cluster::load_balancer::tests::cluster;
use crate::cluster::testing::{config, located, members};
use crate::config;
use crate::config::endpoint::{HealthStatus, Metadata};
use crate::config::load_balancer::{
    ConsistentHashing, HashFunction, LoadBalancer, Maglev, RingHash,
};

fn ring(minimum_size: u64, maximum_size: u64) -> LoadBalancer {
    LoadBalancer::RingHash(RingHash {
        minimum_size,
        maximum_size,
        function: HashFunction::XxHash,
        common: ConsistentHashing::default(),
    })
}

fn maglev(table_size: u32) -> LoadBalancer {
    LoadBalancer::Maglev(Maglev { table_size, common: ConsistentHashing::default() })
}

fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    let endpoints: Vec<_> = weights.iter().map(|&weight| (weight, HealthStatus::Healthy)).collect();
    members(0, &endpoints).all.to_vec()
}

fn table(policy: &LoadBalancer, endpoints: &[Arc<Endpoint>]) -> HashTable {
    HashTable::new(policy, &Shares::of(endpoints)).unwrap()
}

/// The share of each port among many hashes.
fn spread(table: &HashTable, ports: usize) -> Vec<f64> {
    let mut counts = vec![0.0; ports];
    for n in 0..50_000u64 {
        let chosen = table.choose(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0).unwrap();
        counts[usize::from(chosen.address.port().unwrap())] += 1.0 / 50_000.0;
    }
    counts
}

#[test]
fn murmur_hash_is_that_of_the_gnu_library() {
    for (text, expected) in [
        ("", 0x553e_9390_1e46_2a6e),
        ("a", 0x454d_dee4_88c1_ed6b),
        ("10.0.0.1:80_0", 0xbd8f_6461_ecff_b28c),
        ("abcdefgh", 0x783d_b3e3_8db8_98bb),
        ("abcdefghi", 0xb4ec_9257_851c_8aaf),
        ("0123456789abcdef_12", 0xbbdf_db79_5752_ee0f),
    ] {
        assert_eq!(murmur_hash(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn a_ring_gives_every_endpoint_its_share_of_places_and_carries_fractions_on() {
    let evenness =
        |policy: &LoadBalancer, weights: &[u32]| table(policy, &endpoints(weights)).evenness();
    let even = |size, fewest, most| Evenness { size: Some(size), fewest, most };
    assert_eq!(evenness(&ring(1024, 8 << 20), &[1; 4]), even(1024, 256, 256));
    // The smallest has a whole number of places.
    assert_eq!(evenness(&ring(3, 1024), &[1, 3]), even(4, 1, 3));
    // One and a half for each: two, one, two, one.
    assert_eq!(evenness(&ring(6, 6), &[1; 4]), even(6, 1, 2));
    assert_eq!(evenness(&ring(1024, 1024), &[]), even(0, 0, 0));
}

#[test]
fn on_a_ring_a_hash_belongs_to_the_next_place_and_the_last_are_followed_by_the_first() {
    let hosts = endpoints(&[1, 1]);
    let table = table(&ring(2, 2), &hosts);
    let hash = |port| super::xx_hash(&format!("127.0.0.1:{port}_0"), 0);
    let (first, second) = if hash(0) < hash(1) { (0, 1) } else { (1, 0) };
    let chosen = |hash, attempt| table.choose(hash, attempt).unwrap().address.port().unwrap();
    for (at, expected) in [
        (0, first),
        (hash(first), first),
        (hash(first) + 1, second),
        (hash(second), second),
        (hash(second) + 1, first),
        (u64::MAX, first),
    ] {
        assert_eq!(chosen(at, 0), expected);
        assert_eq!(chosen(at, 1), 1 - expected, "the next attempt, the next place");
        assert_eq!(chosen(at, 2), expected);
    }
}

#[test]
fn shares_follow_the_weights() {
    for policy in [ring(1 << 14, 8 << 20), maglev(65537)] {
        let spread = spread(&table(&policy, &endpoints(&[1, 2, 5])), 3);
        for (share, expected) in spread.iter().zip([0.125, 0.25, 0.625]) {
            assert!((share - expected).abs() < 0.02, "{policy:?}: {spread:?}");
        }
    }
}

#[test]
fn a_maglev_table_is_full_and_as_even_as_can_be() {
    let evenness = table(&maglev(1009), &endpoints(&[1; 10])).evenness();
    assert_eq!(evenness, Evenness { size: None, fewest: 100, most: 101 });
    let empty = table(&maglev(1009), &[]);
    assert!(empty.choose(1, 0).is_none());
    // More than a byte can name.
    let evenness = table(&maglev(1009), &endpoints(&[1; 300])).evenness();
    assert_eq!((evenness.fewest, evenness.most), (3, 4));
}

#[test]
fn without_one_endpoint_most_hashes_stay_where_they_are() {
    for (policy, most) in [(ring(1024, 8 << 20), 0.15), (maglev(65537), 0.05)] {
        let hosts = endpoints(&[1; 10]);
        let (before, after) = (table(&policy, &hosts), table(&policy, &hosts[1..]));
        let (mut moved, mut stayed) = (0.0, 0.0);
        for n in 0..20_000u64 {
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let old = before.choose(hash, 0).unwrap().id;
            if old == hosts[0].id {
                continue;
            }
            if after.choose(hash, 0).unwrap().id == old { stayed += 1.0 } else { moved += 1.0 }
        }
        assert!(moved / (moved + stayed) < most, "{policy:?}: {moved} of {}", moved + stayed);
    }
}

#[test]
fn the_order_of_endpoints_does_not_matter_to_maglev() {
    let hosts = endpoints(&[1; 7]);
    let backwards: Vec<_> = hosts.iter().rev().cloned().collect();
    let (one, other) = (table(&maglev(1009), &hosts), table(&maglev(1009), &backwards));
    for hash in 0..1009 {
        assert_eq!(one.choose(hash, 0).unwrap().id, other.choose(hash, 0).unwrap().id);
    }
}

#[test]
fn an_endpoint_is_known_by_its_hash_key_its_host_name_or_its_address() {
    let endpoint = |port: u16, hostname: &str, metadata: serde_json::Value| {
        let address = ([127, 0, 0, 1], port).into();
        let endpoint = Endpoint::new(EndpointId(port.into()), address, hostname.into(), None, 1);
        let metadata = Metadata(metadata.as_object().unwrap().clone());
        endpoint.update(1, HealthStatus::Healthy, &Arc::new(metadata));
        endpoint
    };
    let none = json!({});
    let own = json!({"envoy.lb": {"hash_key": "own"}});
    assert_eq!(super::key(&endpoint(1, "a.test", none.clone()), false), "127.0.0.1:1");
    assert_eq!(super::key(&endpoint(1, "a.test", none), true), "a.test");
    assert_eq!(super::key(&endpoint(1, "a.test", own), true), "own");
    for other in [json!(""), json!(7)] {
        let metadata = json!({"envoy.lb": {"hash_key": other}});
        assert_eq!(super::key(&endpoint(1, "a.test", metadata), false), "127.0.0.1:1");
    }
}

fn with_policy(policy: LoadBalancer, priorities: &[&[HealthStatus]]) -> Cluster {
    let mut port = 0;
    let priorities = priorities.iter().map(|states| {
        let endpoints: Vec<_> = states.iter().map(|state| (1, *state)).collect();
        port += 10;
        members(port - 10, &endpoints)
    });
    let config = config::cluster::Cluster { load_balancer: policy, ..config("c") };
    cluster(config, priorities.collect())
}

const UP: HealthStatus = HealthStatus::Healthy;
const DOWN: HealthStatus = HealthStatus::Unhealthy;
const SLOW: HealthStatus = HealthStatus::Degraded;

#[test]
fn the_priority_is_chosen_by_the_same_hash() {
    let cluster = with_policy(maglev(1009), &[&[UP, DOWN], &[UP]]);
    let hosts = cluster.hosts.load();
    for hash in 0..200 {
        let expected = if hash % 100 < 70 { 0 } else { 10 };
        for _ in 0..3 {
            let chosen =
                cluster.pick(&hosts, &Context { hash: Some(hash), ..Context::default() }).unwrap();
            assert_eq!(chosen.address.port().unwrap(), expected, "hash {hash}");
        }
    }
}

#[test]
fn in_a_panic_the_table_has_all_endpoints_and_degraded_ones_are_in_none() {
    let ports = |states: &[HealthStatus]| {
        let cluster = with_policy(maglev(1009), &[states]);
        let hosts = cluster.hosts.load();
        let mut counts: HashMap<Option<u16>, u32> = HashMap::new();
        for hash in 0..1000 {
            let chosen = cluster.pick(&hosts, &Context { hash: Some(hash), ..Context::default() });
            *counts.entry(chosen.map(|endpoint| endpoint.address.port().unwrap())).or_default() +=
                1;
        }
        let mut ports: Vec<_> = counts.into_keys().collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports(&[UP, DOWN, DOWN]), [Some(0), Some(1), Some(2)]);
    assert_eq!(ports(&[UP, SLOW]), [Some(0)]);
    assert_eq!(ports(&[SLOW, SLOW]), [None]);
}

#[test]
fn an_endpoint_to_avoid_is_left_for_the_place_of_the_next_attempt() {
    for policy in [ring(1024, 8 << 20), maglev(1009)] {
        let cluster = with_policy(policy, &[&[UP; 5]]);
        let hosts = cluster.hosts.load();
        let table = hosts.priorities[0].table.as_ref().unwrap();
        for hash in (0..1000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let first = table.choose(hash, 0).unwrap().id;
            let expected = (1..=20).map(|attempt| table.choose(hash, attempt).unwrap().id);
            let expected = expected.clone().find(|id| *id != first).unwrap();
            let chosen = cluster
                .pick(
                    &hosts,
                    &Context {
                        hash: Some(hash),
                        avoid: &[first],
                        attempts: 20,
                        ..Context::default()
                    },
                )
                .unwrap();
            assert_eq!(chosen.id, expected);
        }
    }
}

#[test]
fn without_a_hash_the_choice_is_random() {
    fastrand::seed(13);
    let cluster = with_policy(maglev(1009), &[&[UP; 4]]);
    let hosts = cluster.hosts.load();
    let mut counts = [0; 4];
    for _ in 0..4000 {
        let chosen = cluster.pick(&hosts, &Context::default()).unwrap();
        counts[usize::from(chosen.address.port().unwrap())] += 1;
    }
    assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn a_locality_has_its_part_of_all_hashes_whatever_the_health_of_its_endpoints() {
    let spread_of = |localities: &[(Option<u32>, &[HealthStatus])]| {
        let config = config::cluster::Cluster {
            load_balancer: maglev(65537),
            locality_weighted: true,
            ..config("c")
        };
        let cluster = cluster(config, vec![located(0, localities)]);
        let hosts = cluster.hosts.load();
        let spread = spread(hosts.priorities[0].table.as_ref().unwrap(), 20);
        spread.chunks(10).map(|ports| ports.iter().sum()).collect::<Vec<f64>>()
    };
    for (localities, expected) in [
        ([(Some(1), &[UP; 5][..]), (Some(3), &[UP][..])], [0.25, 0.75]),
        ([(Some(1), &[UP, DOWN, DOWN][..]), (Some(1), &[UP, UP, UP][..])], [0.5, 0.5]),
        ([(None, &[UP][..]), (Some(3), &[UP][..])], [0.0, 1.0]),
        ([(Some(9), &[DOWN][..]), (Some(3), &[UP][..])], [0.0, 1.0]),
    ] {
        let spread = spread_of(&localities);
        for (share, expected) in spread.iter().zip(expected) {
            assert!((share - expected).abs() < 0.02, "{spread:?}");
        }
    }
}

#[test]
fn an_address_of_any_length_is_hashed_as_text() {
    for address in ["0.0.0.0", "255.255.255.255", "::", "::ffff:255.255.255.255"] {
        let address: std::net::IpAddr = address.parse().unwrap();
        assert_eq!(super::address_hash(address), super::xx_hash(&address.to_string(), 0));
    }
    let longest = "1111:2222:3333:4444:5555:6666:7777:8888";
    assert_eq!(super::address_hash(longest.parse().unwrap()), super::xx_hash(longest, 0));
}
