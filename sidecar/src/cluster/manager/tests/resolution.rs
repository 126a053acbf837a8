//! STRICT_DNS: names are resolved, and failures change nothing.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Mutex;

use super::*;
use crate::cluster::dns::{Answer, Lookup, LookupError, Resolver};
use crate::config::cluster::{DnsFamily, DnsPace};
use crate::config::endpoint::EndpointAddress;

/// Answers from a script: the `n`-th lookup of a name gets its `n`-th answer, and then the last one for ever.
#[derive(Default)]
struct Script(Mutex<Vec<(&'static str, Answers)>>);

type Answers = Vec<Result<Answer, LookupError>>;

impl Lookup for Script {
    fn lookup<'a>(
        &'a self,
        host: &'a str,
        _: DnsFamily,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, LookupError>> + Send + 'a>> {
        let mut script = self.0.lock().unwrap();
        let (_, answers) = script.iter_mut().find(|(name, _)| *name == host).unwrap();
        let answer =
            if answers.len() > 1 { answers.remove(0) } else { answers.first().unwrap().clone() };
        Box::pin(async move { answer })
    }
}

fn addresses(last: &[u8], ttl: u64) -> Result<Answer, LookupError> {
    let addresses = last.iter().map(|&last| IpAddr::from([127, 0, 0, last])).collect();
    Ok(Answer { addresses, ttl: Duration::from_secs(ttl) })
}

fn failure() -> Result<Answer, LookupError> {
    Err("no server answers".to_owned())
}

fn named(host: &str, port: u16) -> config::endpoint::Endpoint {
    let address = EndpointAddress::Name { host: host.into(), port };
    config::endpoint::Endpoint { address, ..endpoint(0) }
}

struct Dns {
    logical: bool,
    pace: DnsPace,
}

const PACE: DnsPace = DnsPace {
    refresh_rate: Duration::from_secs(5),
    respect_ttl: false,
    min_ttl: Duration::ZERO,
    jitter: Duration::ZERO,
    failure_refresh: None,
};
const PLAIN: Dns = Dns { logical: false, pace: PACE };

fn cluster(hosts: &[&str], dns: Dns) -> config::cluster::Cluster {
    let endpoints = hosts.iter().map(|host| named(host, 80)).collect();
    let discovery = Discovery::Dns(config::cluster::Dns {
        assignment: Arc::new(assignment("c", vec![group(0, endpoints)])),
        logical: dns.logical,
        family: DnsFamily::V4Only,
        pace: dns.pace,
    });
    config::cluster::Cluster { discovery, ..config("c") }
}

fn scripted(script: Vec<(&'static str, Answers)>) -> Manager {
    let registry = Registry::new(0);
    let mut manager = Manager::new(&registry);
    manager.resolver = Resolver::with(&registry, Arc::new(Script(Mutex::new(script))));
    manager
}

async fn run(manager: &mut Manager, time: Duration) -> Vec<Arc<str>> {
    let end = Instant::now() + time;
    let mut initialized = Vec::new();
    while let Ok(name) = tokio::time::timeout_at(end, manager.next()).await {
        initialized.extend(name);
    }
    initialized
}

fn found(manager: &Manager) -> Vec<String> {
    endpoints(manager, "c").iter().map(|endpoint| endpoint.address.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_address_of_every_name_is_an_endpoint_that_knows_its_name() {
    let mut manager =
        scripted(vec![("a", vec![addresses(&[2, 1], 0)]), ("b", vec![addresses(&[3], 0)])]);
    set(&mut manager, cluster(&["a", "b"], PLAIN));
    assert!(!manager.is_initialized("c"));
    let initialized = run(&mut manager, Duration::from_secs(1)).await;
    assert_eq!(initialized, ["c".into()], "told once, when every name was looked up");
    assert!(manager.is_initialized("c"));
    assert_eq!(found(&manager), ["127.0.0.1:80", "127.0.0.2:80", "127.0.0.3:80"]);
    assert_eq!(&*endpoints(&manager, "c")[2].hostname, "b");
}

#[tokio::test(start_paused = true)]
async fn addresses_in_the_place_of_names_are_there_at_once() {
    let mut manager = scripted(vec![]);
    let mut cluster = cluster(&[], PLAIN);
    let Discovery::Dns(dns) = &mut cluster.discovery else { panic!("names") };
    dns.assignment = Arc::new(assignment("c", vec![group(0, vec![endpoint(1)])]));
    set(&mut manager, cluster);
    assert!(manager.is_initialized("c"));
    assert_eq!(found(&manager), ["127.0.0.1:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_at_the_refresh_rate_and_known_addresses_stay_the_same_endpoints()
{
    let mut manager = scripted(vec![(
        "a",
        vec![addresses(&[1, 2], 0), addresses(&[2, 1], 0), addresses(&[3, 1], 0)],
    )]);
    set(&mut manager, cluster(&["a"], PLAIN));
    run(&mut manager, Duration::from_secs(1)).await;
    let before = endpoints(&manager, "c");
    let hosts = manager.get("c").unwrap().hosts.load_full();
    run(&mut manager, Duration::from_secs(5)).await;
    assert!(
        Arc::ptr_eq(&hosts, &manager.get("c").unwrap().hosts.load_full()),
        "another order is no change"
    );
    run(&mut manager, Duration::from_secs(5)).await;
    let after = endpoints(&manager, "c");
    assert_eq!(found(&manager), ["127.0.0.1:80", "127.0.0.3:80"]);
    assert!(Arc::ptr_eq(&after[0], &before[0]));
    assert_eq!(manager.take_gone().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_last_good_addresses_and_an_empty_answer_does_not() {
    let mut manager =
        scripted(vec![("a", vec![addresses(&[1], 0), failure(), failure(), addresses(&[], 0)])]);
    set(&mut manager, cluster(&["a"], PLAIN));
    run(&mut manager, Duration::from_secs(11)).await;
    assert_eq!(found(&manager), ["127.0.0.1:80"]);
    let updates = &manager.get("c").unwrap().updates;
    assert_eq!(updates.local().update_failure.value(), 2);
    run(&mut manager, Duration::from_secs(5)).await;
    assert!(found(&manager).is_empty(), "the name has no address any more, says who knows");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_first_lookup_fails_is_initialized_without_endpoints_and_recovers() {
    let mut manager = scripted(vec![("a", vec![failure(), addresses(&[1], 0)])]);
    set(&mut manager, cluster(&["a"], PLAIN));
    assert_eq!(run(&mut manager, Duration::from_secs(1)).await, ["c".into()]);
    assert!(found(&manager).is_empty());
    run(&mut manager, Duration::from_secs(5)).await;
    assert_eq!(found(&manager), ["127.0.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn the_time_to_live_decides_where_it_is_respected() {
    for (respect_ttl, looked_up) in [(true, 2), (false, 7)] {
        let mut manager = scripted(vec![("a", vec![addresses(&[1], 30)])]);
        set(&mut manager, cluster(&["a"], Dns { pace: DnsPace { respect_ttl, ..PACE }, ..PLAIN }));
        run(&mut manager, Duration::from_millis(30_500)).await;
        let attempts = manager.get("c").unwrap().updates.local().update_attempt.value();
        assert_eq!(attempts, looked_up, "respect_ttl: {respect_ttl}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_up_to_the_maximum() {
    fastrand::seed(3);
    let mut manager = scripted(vec![("a", vec![failure()])]);
    let back_off = (Duration::from_secs(1), Duration::from_secs(60));
    set(
        &mut manager,
        cluster(&["a"], Dns { pace: DnsPace { failure_refresh: Some(back_off), ..PACE }, ..PLAIN }),
    );
    run(&mut manager, Duration::from_secs(3600)).await;
    let attempts = manager.get("c").unwrap().updates.local().update_attempt.value();
    // Half a minute each in the long run, and a few quick ones in the beginning.
    assert!((90..160).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn a_harmless_change_of_the_cluster_does_not_look_up_again() {
    let mut manager = scripted(vec![("a", vec![addresses(&[1], 0), failure()])]);
    set(&mut manager, cluster(&["a"], PLAIN));
    run(&mut manager, Duration::from_secs(1)).await;
    let before = endpoints(&manager, "c");
    let changed = config::cluster::Cluster { auto_sni: true, ..cluster(&["a"], PLAIN) };
    set(&mut manager, changed);
    assert!(Arc::ptr_eq(&endpoints(&manager, "c")[0], &before[0]));
    run(&mut manager, Duration::from_secs(1)).await;
    assert_eq!(manager.get("c").unwrap().updates.local().update_attempt.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn other_names_keep_the_old_endpoints_until_they_are_resolved() {
    let mut manager =
        scripted(vec![("a", vec![addresses(&[1], 0)]), ("b", vec![addresses(&[1, 2], 0)])]);
    set(&mut manager, cluster(&["a"], PLAIN));
    run(&mut manager, Duration::from_secs(1)).await;
    set(&mut manager, cluster(&["b"], PLAIN));
    assert_eq!(found(&manager), ["127.0.0.1:80"], "never empty in between");
    run(&mut manager, Duration::from_secs(1)).await;
    assert_eq!(found(&manager), ["127.0.0.1:80", "127.0.0.2:80"]);
}

const LOGICAL: Dns = Dns { logical: true, pace: PACE };

#[tokio::test(start_paused = true)]
async fn a_logical_cluster_has_one_endpoint_where_the_first_address_leads() {
    let answers = vec![addresses(&[2, 1], 0), addresses(&[2, 3], 0), addresses(&[1, 2], 0)];
    let mut manager = scripted(vec![("a", answers)]);
    set(&mut manager, cluster(&["a"], LOGICAL));
    run(&mut manager, Duration::from_secs(1)).await;
    assert_eq!(found(&manager), ["127.0.0.2:80"]);
    let before = endpoints(&manager, "c");
    run(&mut manager, Duration::from_secs(5)).await;
    assert!(Arc::ptr_eq(&endpoints(&manager, "c")[0], &before[0]), "the others do not count");
    run(&mut manager, Duration::from_secs(5)).await;
    assert_eq!(found(&manager), ["127.0.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn to_have_no_address_is_a_failure_for_a_logical_cluster_and_it_keeps_the_last_one() {
    let mut manager = scripted(vec![("a", vec![addresses(&[1], 0), addresses(&[], 0)])]);
    set(&mut manager, cluster(&["a"], LOGICAL));
    run(&mut manager, Duration::from_secs(6)).await;
    assert_eq!(found(&manager), ["127.0.0.1:80"]);
    let updates = manager.get("c").unwrap().updates.local();
    assert_eq!((updates.update_success.value(), updates.update_failure.value()), (1, 1));
    assert_eq!(updates.update_empty.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_short_time_to_live_may_be_stretched() {
    let min_ttl = Duration::from_secs(10);
    let pace = DnsPace { respect_ttl: true, min_ttl, ..PACE };
    let mut manager = scripted(vec![("a", vec![addresses(&[1], 2)])]);
    set(&mut manager, cluster(&["a"], Dns { pace, ..PLAIN }));
    run(&mut manager, Duration::from_millis(30_500)).await;
    assert_eq!(manager.get("c").unwrap().updates.local().update_attempt.value(), 4);
}

#[tokio::test(start_paused = true)]
async fn jitter_makes_lookups_later_and_never_by_as_much_as_it_may() {
    fastrand::seed(5);
    let pace = DnsPace { jitter: Duration::from_secs(5), ..PACE };
    let mut manager = scripted(vec![("a", vec![addresses(&[1], 0)])]);
    set(&mut manager, cluster(&["a"], Dns { pace, ..PLAIN }));
    run(&mut manager, Duration::from_secs(3600)).await;
    let attempts = manager.get("c").unwrap().updates.local().update_attempt.value();
    // One in 7.5 seconds, and one at once.
    assert!((460..=500).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn an_address_in_the_place_of_a_name_is_its_own_host_name() {
    let mut manager = scripted(vec![]);
    let mut cluster = cluster(&[], LOGICAL);
    let Discovery::Dns(dns) = &mut cluster.discovery else { panic!("names") };
    dns.assignment = Arc::new(assignment("c", vec![group(0, vec![endpoint(1)])]));
    set(&mut manager, cluster);
    assert_eq!(&*endpoints(&manager, "c")[0].hostname, "127.0.0.1");
}

/// With the system's own resolver: `localhost` needs no network.
#[tokio::test]
async fn localhost_resolves_without_a_network() {
    let mut manager = manager();
    set(&mut manager, cluster(&["localhost"], PLAIN));
    while !manager.is_initialized("c") {
        manager.next().await;
    }
    assert_eq!(found(&manager), ["127.0.0.1:80"]);
}
