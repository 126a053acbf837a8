//! Health checks, row by row: what they change, and when.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Mutex;

use super::ejections::{SECOND, cluster as with_outlier_detection, is_ejected, run};
use super::*;
use crate::cluster::health_check::flags::Flag;
use crate::cluster::health_check::probe::{Pending, Probe};
use crate::cluster::health_check::{Failure, FailureKind, Passed, Plan, Target};
use crate::config::cluster::HealthRules;
use crate::config::endpoint::CheckTarget;
use crate::config::health_check::{Check, HealthCheck, Pace, TcpCheck};
use crate::config::load_balancer::SlowStart;
use crate::stats::registry::Reading;

/// What an endpoint answers.
#[derive(Clone, Copy)]
enum Answer {
    Pass,
    Degraded,
    Fail(FailureKind),
    Silence,
}

/// Answers in the place of all endpoints, by port; those that nothing is said of pass.
#[derive(Clone, Default)]
struct Endpoints(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: HashMap<u16, Answer>,
    asked: Vec<(u16, Instant)>,
}

impl Endpoints {
    fn answer(&self, port: u16, answer: Answer) {
        self.0.lock().unwrap().answers.insert(port, answer);
    }

    /// When a port was asked, in whole seconds since `since`.
    fn asked(&self, port: u16, since: Instant) -> Vec<u64> {
        let script = self.0.lock().unwrap();
        let of_port = script.asked.iter().filter(|(other, _)| *other == port);
        of_port.map(|(_, at)| (*at - since).as_secs()).collect()
    }

    fn was_asked(&self, port: u16) -> usize {
        self.0.lock().unwrap().asked.iter().filter(|(other, _)| *other == port).count()
    }
}

impl Probe for Endpoints {
    fn check<'a>(
        &'a mut self,
        _: &'a Plan,
        target: &'a Target,
    ) -> Pending<'a, Result<Passed, Failure>> {
        let port = target.address.port().unwrap();
        let answer = {
            let mut script = self.0.lock().unwrap();
            script.asked.push((port, Instant::now()));
            script.answers.get(&port).copied().unwrap_or(Answer::Pass)
        };
        Box::pin(async move {
            match answer {
                Answer::Pass => Ok(Passed { degraded: false }),
                Answer::Degraded => Ok(Passed { degraded: true }),
                Answer::Fail(kind) => Err(Failure::new(kind, "as told")),
                Answer::Silence => pending().await,
            }
        })
    }

    fn broken_off(&mut self) -> Pending<'_, ()> {
        Box::pin(pending())
    }

    fn timed_out(&mut self, _: &Plan) {}

    fn disconnect(&mut self) {}
}

fn pace(interval: Duration) -> Pace {
    Pace {
        interval,
        no_traffic: interval,
        no_traffic_healthy: interval,
        unhealthy: interval,
        unhealthy_edge: interval,
        healthy_edge: interval,
        initial_jitter: Duration::ZERO,
        jitter: Duration::ZERO,
        jitter_percent: 0,
    }
}

/// Every 10 s, within 1 s; three failures, two successes.
fn check() -> HealthCheck {
    HealthCheck {
        check: Check::Tcp(TcpCheck { send: Default::default(), receive: Vec::new() }),
        timeout: SECOND,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        reuse_connection: true,
        pace: pace(10 * SECOND),
        event_logs: Vec::new(),
        always_log_failures: false,
        always_log_successes: false,
        alpn: Vec::new(),
        transport_match: None,
        fingerprint: 1,
    }
}

fn checked(check: HealthCheck) -> config::cluster::Cluster {
    config::cluster::Cluster { health_check: Some(Arc::new(check)), ..eds("c") }
}

/// A manager whose endpoints are ours.
fn scripted() -> (Manager, Endpoints) {
    let mut manager = manager();
    let endpoints = Endpoints::default();
    let probe = endpoints.clone();
    manager.make_probe = Arc::new(move || Box::new(probe.clone()));
    (manager, endpoints)
}

/// A cluster with these endpoints; its first round is over.
async fn started(
    config: config::cluster::Cluster,
    ports: std::ops::Range<u16>,
) -> (Manager, Endpoints, Vec<Arc<Endpoint>>) {
    let (mut manager, script) = scripted();
    set(&mut manager, config);
    assign(&mut manager, "c", vec![group(0, super::ports(ports))]);
    settle(&mut manager).await;
    let all = endpoints(&manager, "c");
    (manager, script, all)
}

async fn settle(manager: &mut Manager) {
    run(manager, Duration::from_millis(1)).await;
}

/// Ports that get traffic.
fn healthy(manager: &Manager) -> Vec<u16> {
    let hosts = manager.get("c").unwrap().hosts.load();
    let healthy = hosts.priorities.iter().flat_map(|priority| priority.healthy.list.iter());
    healthy.map(|endpoint| endpoint.address.port().unwrap()).collect()
}

fn is_shown(manager: &mut Manager) -> bool {
    manager.table().iter().any(|cluster| &*cluster.name == "c")
}

fn stat(manager: &Manager, name: &str) -> u64 {
    let mut found = None;
    manager.registry.visit(&mut |sample| {
        let is_it =
            format!("{}.{}", sample.prefix, sample.name.text) == format!("cluster.c.{name}");
        if let Reading::Counter { value, .. } | Reading::Gauge { value, .. } = sample.reading
            && is_it
        {
            found = Some(value);
        }
    });
    found.unwrap_or_else(|| panic!("there is no {name}"))
}

const NETWORK: Answer = Answer::Fail(FailureKind::Network);

#[tokio::test(start_paused = true)]
async fn a_new_cluster_is_seen_when_every_endpoint_was_checked_once() {
    let (mut manager, script) = scripted();
    script.answer(2, Answer::Silence);
    set(&mut manager, checked(check()));
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    settle(&mut manager).await;
    assert_eq!(healthy(&manager), [1], "a single success is enough for the first time");
    assert!(!manager.is_initialized("c") && !manager.is_checked() && !is_shown(&mut manager));
    let ready = tokio::time::timeout(2 * SECOND, async {
        loop {
            if let Some(name) = manager.next().await {
                break name;
            }
        }
    });
    assert_eq!(&*ready.await.unwrap(), "c", "told when the last one was too slow");
    assert!(manager.is_initialized("c") && manager.is_checked() && is_shown(&mut manager));

    // What comes later is waited for by nobody, and gets nothing before it passes.
    script.answer(3, NETWORK);
    assign(&mut manager, "c", vec![group(0, ports(1..4))]);
    settle(&mut manager).await;
    assert!(is_shown(&mut manager) && healthy(&manager) == [1]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_endpoints_is_seen_at_once() {
    let (mut manager, _) = scripted();
    set(&mut manager, checked(check()));
    assign(&mut manager, "c", Vec::new());
    assert!(manager.is_initialized("c") && is_shown(&mut manager));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_first_check_fails_needs_as_many_successes_as_any() {
    let (mut manager, script) = scripted();
    script.answer(1, NETWORK);
    set(&mut manager, checked(check()));
    assign(&mut manager, "c", vec![group(0, ports(1..2))]);
    settle(&mut manager).await;
    assert!(is_shown(&mut manager) && healthy(&manager).is_empty());
    script.answer(1, Answer::Pass);
    run(&mut manager, 10 * SECOND).await;
    assert!(healthy(&manager).is_empty(), "one of two");
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(healthy(&manager), [1]);
}

#[tokio::test(start_paused = true)]
async fn failures_to_reach_an_endpoint_count_up_to_the_threshold_and_a_bad_answer_at_once() {
    for (kind, failures) in
        [(FailureKind::Network, 3), (FailureKind::Retriable, 3), (FailureKind::Answer, 1)]
    {
        let (mut manager, script, _) = started(checked(check()), 1..3).await;
        script.answer(1, Answer::Fail(kind));
        for failure in 1..=failures {
            assert_eq!(healthy(&manager), [1, 2], "{kind:?} before failure {failure}");
            run(&mut manager, 10 * SECOND).await;
        }
        assert_eq!(healthy(&manager), [2], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_makes_the_count_of_failures_start_again() {
    let (mut manager, script, _) = started(checked(check()), 1..2).await;
    for answer in [NETWORK, NETWORK, Answer::Pass, NETWORK, NETWORK] {
        script.answer(1, answer);
        run(&mut manager, 10 * SECOND).await;
    }
    assert_eq!(healthy(&manager), [1]);
    run(&mut manager, 10 * SECOND).await;
    assert!(healthy(&manager).is_empty(), "the third in a row");
}

#[tokio::test(start_paused = true)]
async fn a_failure_makes_the_count_of_successes_start_again() {
    let (mut manager, script, _) = started(checked(check()), 1..2).await;
    for answer in [Answer::Fail(FailureKind::Answer), Answer::Pass, NETWORK, Answer::Pass] {
        script.answer(1, answer);
        run(&mut manager, 10 * SECOND).await;
    }
    assert!(healthy(&manager).is_empty());
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(healthy(&manager), [1]);
}

#[tokio::test(start_paused = true)]
async fn silence_fails_after_the_timeout_and_is_told_apart_while_the_endpoint_is_unhealthy() {
    let (mut manager, script, all) = started(checked(check()), 1..2).await;
    script.answer(1, Answer::Silence);
    run(&mut manager, 32 * SECOND).await;
    assert!(!all[0].check.has(Flag::Failed) && !all[0].check.has(Flag::TimedOut), "two failures");
    run(&mut manager, 2 * SECOND).await;
    assert!(all[0].check.has(Flag::Failed) && all[0].check.has(Flag::TimedOut));
    script.answer(1, NETWORK);
    run(&mut manager, 10 * SECOND).await;
    assert!(all[0].check.has(Flag::Failed) && !all[0].check.has(Flag::TimedOut));
    assert_eq!(stat(&manager, "health_check.network_failure"), 4);
}

#[tokio::test(start_paused = true)]
async fn the_interval_depends_on_the_result_and_on_whether_the_cluster_had_traffic() {
    let config = HealthCheck {
        pace: Pace {
            interval: 10 * SECOND,
            no_traffic: 100 * SECOND,
            no_traffic_healthy: 50 * SECOND,
            unhealthy: 5 * SECOND,
            unhealthy_edge: 2 * SECOND,
            healthy_edge: SECOND,
            ..pace(SECOND)
        },
        ..check()
    };
    let start = Instant::now();
    let (mut manager, script, _) = started(checked(config), 1..2).await;
    run(&mut manager, 60 * SECOND).await;
    assert_eq!(script.asked(1, start), [0, 50], "nobody uses it");
    manager.get("c").unwrap().stats.local().upstream_cx_total.inc();
    script.answer(1, NETWORK);
    run(&mut manager, 50 * SECOND).await; // 100, and unhealthy with the third: 102, 104; then 109
    assert_eq!(script.asked(1, start)[2..], [100, 102, 104, 109]);
    script.answer(1, Answer::Pass);
    run(&mut manager, 20 * SECOND).await;
    assert_eq!(script.asked(1, start)[6..], [114, 115, 125], "healthy with the second");
}

#[tokio::test(start_paused = true)]
async fn a_harmless_change_of_the_cluster_keeps_health_counts_and_the_time_of_the_next_check() {
    let start = Instant::now();
    let (mut manager, script, before) = started(checked(check()), 1..3).await;
    script.answer(1, Answer::Fail(FailureKind::Answer));
    run(&mut manager, 25 * SECOND).await;
    assert_eq!(healthy(&manager), [2]);
    let changed = config::cluster::Cluster { connect_timeout: SECOND, ..checked(check()) };
    set(&mut manager, changed);
    let slower = HealthCheck { timeout: 2 * SECOND, fingerprint: 2, ..check() };
    set(&mut manager, checked(slower));
    assert!(is_shown(&mut manager) && healthy(&manager) == [2], "seen, and as healthy as before");
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(script.asked(1, start), [0, 10, 20, 30], "no round out of turn");
    let after = endpoints(&manager, "c");
    assert!(before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)));
    // A success before the change and one after it are two.
    script.answer(1, Answer::Pass);
    run(&mut manager, 10 * SECOND).await;
    set(&mut manager, checked(HealthCheck { fingerprint: 3, ..check() }));
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(healthy(&manager), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn another_interval_counts_from_the_last_check() {
    let start = Instant::now();
    let (mut manager, script, _) = started(checked(check()), 1..2).await;
    run(&mut manager, 2 * SECOND).await;
    set(&mut manager, checked(HealthCheck { pace: pace(3 * SECOND), fingerprint: 2, ..check() }));
    run(&mut manager, 5 * SECOND).await;
    assert_eq!(script.asked(1, start), [0, 3, 6]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_discovery_drops_stays_until_a_check_fails() {
    let (mut manager, script, all) = started(checked(check()), 1..4).await;
    script.answer(3, Answer::Fail(FailureKind::Answer));
    run(&mut manager, 10 * SECOND).await;
    assign(&mut manager, "c", vec![group(0, ports(1..2))]);
    assert_eq!(healthy(&manager), [1, 2], "the second passes, the third fails");
    assert!(all[1].check.has(Flag::Left) && !all[1].is_gone() && all[2].is_gone());
    assert_eq!(stat(&manager, "membership_total"), 2);

    // It may come back.
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    assert!(!all[1].check.has(Flag::Left));
    assert!(Arc::ptr_eq(&endpoints(&manager, "c")[1], &all[1]));
    assign(&mut manager, "c", vec![group(0, ports(1..2))]);
    script.answer(2, NETWORK);
    run(&mut manager, 20 * SECOND).await;
    assert!(!all[1].is_gone(), "below the threshold");
    run(&mut manager, 10 * SECOND).await;
    assert!(all[1].is_gone());
    assert_eq!(endpoints(&manager, "c").len(), 1);
    let asked = script.was_asked(2);
    run(&mut manager, 60 * SECOND).await;
    assert_eq!(script.was_asked(2), asked, "nobody asks it any more");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_discovery_drops_leaves_at_once_where_its_health_is_to_be_ignored() {
    let config = config::cluster::Cluster {
        health: HealthRules { ignore_on_removal: true, ..HealthRules::default() },
        ..checked(check())
    };
    let (mut manager, _, all) = started(config, 1..3).await;
    assign(&mut manager, "c", vec![group(0, ports(1..2))]);
    assert!(all[1].is_gone() && endpoints(&manager, "c").len() == 1);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_are_kept_stay_in_their_priority_and_locality() {
    let (mut manager, _, all) = started(checked(check()), 1..3).await;
    assign(&mut manager, "c", vec![group(0, ports(1..3)), group(1, ports(3..5))]);
    settle(&mut manager).await;
    assign(&mut manager, "c", vec![group(0, ports(2..3))]);
    let hosts = manager.get("c").unwrap().hosts.load_full();
    let located: Vec<_> = hosts
        .located()
        .map(|(level, _, endpoint)| (level, endpoint.address.port().unwrap()))
        .collect();
    assert_eq!(located, [(0, 2), (0, 1), (1, 3), (1, 4)]);
    assert!(all[0].check.has(Flag::Left) && !all[1].check.has(Flag::Left));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_says_so_makes_its_endpoint_unhealthy_at_once() {
    let (mut manager, _, all) = started(checked(check()), 1..3).await;
    let cluster = Arc::clone(manager.get("c").unwrap());
    cluster.told_unhealthy(&all[0]);
    settle(&mut manager).await;
    assert_eq!(healthy(&manager), [2]);
    assert!(all[0].check.has(Flag::Excluded) && all[0].is_excluded());
    assert_eq!(stat(&manager, "health_check.passive_failure"), 1);
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(healthy(&manager), [2], "one success is not two");
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(healthy(&manager), [1, 2]);
    assert!(!all[0].check.has(Flag::Excluded));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_may_say_that_it_is_degraded_and_take_it_back() {
    let (mut manager, script, all) = started(checked(check()), 1..3).await;
    script.answer(1, Answer::Degraded);
    run(&mut manager, 10 * SECOND).await;
    assert_eq!((all[0].health(), healthy(&manager)), (Health::Degraded, vec![2]));
    assert_eq!(stat(&manager, "health_check.degraded"), 1);
    script.answer(1, Answer::Pass);
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(healthy(&manager), [1, 2], "at once: there is no threshold");
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_may_count_nowhere_before_its_first_check() {
    for (ignores, expected) in [(false, [(70, 0), (30, 0)]), (true, [(100, 0), (0, 0)])] {
        let config = config::cluster::Cluster {
            health: HealthRules { ignore_new_until_checked: ignores, ..HealthRules::default() },
            ..checked(check())
        };
        let (mut manager, script) = scripted();
        script.answer(2, Answer::Silence);
        set(&mut manager, config);
        assign(&mut manager, "c", vec![group(0, ports(1..3)), group(1, ports(3..5))]);
        settle(&mut manager).await;
        let hosts = manager.get("c").unwrap().hosts.load_full();
        let loads: Vec<_> =
            hosts.priorities.iter().map(|it| (it.load.healthy, it.load.degraded)).collect();
        assert_eq!(loads, expected, "{ignores}");
        assert_eq!(endpoints(&manager, "c")[1].check.has(Flag::Pending), ignores);
        run(&mut manager, SECOND).await;
        assert!(!endpoints(&manager, "c")[1].check.has(Flag::Pending), "its check is over");
        let hosts = manager.get("c").unwrap().hosts.load_full();
        assert_eq!(hosts.priorities[0].load.healthy, 70, "it counts now, as unhealthy");
    }
}

#[tokio::test(start_paused = true)]
async fn a_passed_check_ends_an_ejection_unless_it_is_not_to() {
    for ends in [true, false] {
        let outlier = OutlierDetection { uneject_on_passed_check: ends, ..outlier_detection() };
        let config =
            config::cluster::Cluster { outlier_detection: Some(outlier), ..checked(check()) };
        let (mut manager, _, all) = started(config, 1..3).await;
        let cluster = Arc::clone(manager.get("c").unwrap());
        (0..5).for_each(|_| cluster.report(&all[0], Outcome::Status(500)));
        settle(&mut manager).await;
        assert!(is_ejected(&all[0]) && healthy(&manager) == [2]);
        run(&mut manager, 10 * SECOND).await;
        assert_eq!(is_ejected(&all[0]), !ends);
        assert_eq!(healthy(&manager).len(), if ends { 2 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_may_be_checked_elsewhere_or_not_at_all() {
    let (mut manager, script) = scripted();
    script.answer(1, NETWORK);
    script.answer(2, NETWORK);
    set(&mut manager, checked(check()));
    let with = |port, target| {
        let mut endpoint = endpoint(port);
        endpoint.check = Some(Arc::new(target));
        endpoint
    };
    let elsewhere = CheckTarget { port: Some(9), ..CheckTarget::default() };
    let disabled = CheckTarget { is_disabled: true, ..CheckTarget::default() };
    assign(&mut manager, "c", vec![group(0, vec![with(1, elsewhere), with(2, disabled)])]);
    settle(&mut manager).await;
    assert_eq!(healthy(&manager), [1, 2]);
    assert_eq!((script.was_asked(1), script.was_asked(2), script.was_asked(9)), (0, 0, 1));
    assert!(is_shown(&mut manager));
    assert_eq!(stat(&manager, "health_check.healthy"), 1, "of those that are checked");

    // From now on they are checked where they are. What they had is kept until a check says otherwise.
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    settle(&mut manager).await;
    assert_eq!((healthy(&manager), script.was_asked(1), script.was_asked(2)), (vec![1, 2], 1, 1));
    run(&mut manager, 20 * SECOND).await;
    assert!(healthy(&manager).is_empty(), "three failures");
}

#[tokio::test(start_paused = true)]
async fn checks_that_come_or_go_with_an_update_interrupt_nothing() {
    let (mut manager, script) = scripted();
    set(&mut manager, eds("c"));
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    assert!(is_shown(&mut manager));
    script.answer(1, NETWORK);
    set(&mut manager, checked(check()));
    assert!(is_shown(&mut manager) && healthy(&manager) == [1, 2]);
    run(&mut manager, 25 * SECOND).await;
    assert_eq!(healthy(&manager), [2]);
    set(&mut manager, eds("c"));
    assert_eq!(healthy(&manager), [1, 2], "without checks nobody says that it is unhealthy");
    let asked = script.was_asked(1);
    run(&mut manager, 60 * SECOND).await;
    assert_eq!(script.was_asked(1), asked);
}

#[tokio::test(start_paused = true)]
async fn slow_start_begins_when_an_endpoint_becomes_healthy_again() {
    let config = config::cluster::Cluster {
        slow_start: Some(SlowStart {
            window: 60 * SECOND,
            aggression: 1.0.into(),
            min_weight: 0.1,
        }),
        ..checked(check())
    };
    let (mut manager, script, all) = started(config, 1..3).await;
    run(&mut manager, 100 * SECOND).await;
    assert!(all[0].healthy_for().unwrap() > 60 * SECOND);
    script.answer(1, Answer::Fail(FailureKind::Answer));
    run(&mut manager, 10 * SECOND).await;
    script.answer(1, Answer::Pass);
    run(&mut manager, 20 * SECOND).await;
    assert_eq!(healthy(&manager), [1, 2]);
    assert!(all[0].healthy_for().unwrap() < 60 * SECOND);
    let hosts = manager.get("c").unwrap().hosts.load_full();
    assert!(hosts.slow_until.is_some_and(|until| until > Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn connections_to_an_endpoint_end_when_it_becomes_unhealthy_where_that_is_configured() {
    for (closes, ended) in [(true, None), (false, Some(()))] {
        let config = config::cluster::Cluster {
            health: HealthRules { close_on_failure: closes, ..HealthRules::default() },
            outlier_detection: Some(outlier_detection()),
            ..checked(check())
        };
        let (mut manager, script, all) = started(config, 1..4).await;
        let cluster = Arc::clone(manager.get("c").unwrap());
        script.answer(1, Answer::Fail(FailureKind::Answer));
        (0..5).for_each(|_| cluster.report(&all[1], Outcome::Status(500)));
        let connection = || tokio::time::sleep(30 * SECOND);
        let (checked, ejected, well, ()) = tokio::join!(
            cluster.while_healthy(&all[0], connection()),
            cluster.while_healthy(&all[1], connection()),
            cluster.while_healthy(&all[2], connection()),
            run(&mut manager, 40 * SECOND),
        );
        assert_eq!((checked, ejected, well), (ended, ended, Some(())), "{closes}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_to_all_endpoints_are_renewed_when_some_come_or_go_where_that_is_configured() {
    let config = |closes| config::cluster::Cluster {
        health: HealthRules { close_on_change: closes, ..HealthRules::default() },
        ..eds("c")
    };
    for closes in [true, false] {
        let mut manager = manager();
        set(&mut manager, config(closes));
        assign(&mut manager, "c", vec![group(0, ports(1..2))]);
        manager.take_stale();
        assign(&mut manager, "c", vec![group(0, ports(1..2))]);
        assert!(manager.take_stale().is_empty(), "nothing has changed");
        assign(&mut manager, "c", vec![group(0, ports(1..3))]);
        let all: Vec<_> = endpoints(&manager, "c").iter().map(|endpoint| endpoint.id).collect();
        assert_eq!(manager.take_stale(), if closes { all } else { Vec::new() });
    }
}

#[tokio::test(start_paused = true)]
async fn statistics_count_every_check() {
    let (mut manager, script, _) = started(checked(check()), 1..3).await;
    script.answer(1, Answer::Fail(FailureKind::Answer));
    script.answer(2, NETWORK);
    run(&mut manager, 10 * SECOND).await;
    for (name, value) in [
        ("attempt", 4),
        ("success", 2),
        ("failure", 2),
        ("network_failure", 1),
        ("passive_failure", 0),
        ("verify_cluster", 0),
        ("healthy", 1),
        ("degraded", 0),
    ] {
        assert_eq!(stat(&manager, &format!("health_check.{name}")), value, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_cluster_checks_nobody() {
    let (mut manager, script, all) = started(checked(check()), 1..2).await;
    manager.remove("c");
    run(&mut manager, 60 * SECOND).await;
    assert!(script.was_asked(1) == 1 && all[0].is_gone());
}

#[tokio::test(start_paused = true)]
async fn outlier_detection_alone_has_no_statistics_of_health_checks() {
    let (manager, ..) = with_outlier_detection(2, outlier_detection());
    let mut names = Vec::new();
    manager.registry.visit(&mut |sample| names.push(sample.name.text.to_owned()));
    assert!(!names.is_empty() && !names.iter().any(|name| name.starts_with("health_check")));
}

#[tokio::test(start_paused = true)]
async fn an_event_log_tells_the_first_failure_and_every_change() {
    let (mut manager, script) = scripted();
    let kept = Arc::new(Kept::default());
    manager.set_event_log(Arc::clone(&kept) as _, None);
    script.answer(1, Answer::Fail(FailureKind::Network));
    set(&mut manager, checked(HealthCheck { event_logs: vec!["/log".into()], ..check() }));
    assign(&mut manager, "c", vec![group(0, ports(1..2))]);
    settle(&mut manager).await;
    let told = |kept: &Kept| -> Vec<String> {
        let events = kept.take().into_iter().map(|(path, mut event)| {
            assert_eq!(path.to_str(), Some("/log"));
            assert_eq!(event["cluster_name"], "c");
            assert_eq!(event["host"]["socket_address"]["port_value"], 1);
            let fields = event.as_object_mut().unwrap();
            for field in ["cluster_name", "host", "locality", "health_checker_type"] {
                fields.remove(field).unwrap();
            }
            event.to_string()
        });
        events.collect()
    };
    assert_eq!(
        told(&kept),
        [
            r#"{"health_check_failure_event":{"failure_type":"NETWORK","first_check":true,"http_status_code":0}}"#
        ]
    );
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(told(&kept), [""; 0], "it was unhealthy before");
    script.answer(1, Answer::Pass);
    run(&mut manager, 20 * SECOND).await;
    assert_eq!(told(&kept), [r#"{"add_healthy_event":{"first_check":false}}"#]);
    script.answer(1, Answer::Degraded);
    run(&mut manager, 20 * SECOND).await;
    assert_eq!(told(&kept), [r#"{"degraded_healthy_host":{}}"#]);
    script.answer(1, Answer::Fail(FailureKind::Answer));
    run(&mut manager, 10 * SECOND).await;
    assert_eq!(
        told(&kept),
        [r#"{"eject_unhealthy_event":{"failure_type":"ACTIVE","http_status_code":0}}"#]
    );
}
