//! Outlier detection, row by row.

use super::*;

/// A cluster of `size` endpoints with outlier detection.
pub(super) fn cluster(
    size: u16,
    outlier: OutlierDetection,
) -> (Manager, Arc<Cluster>, Vec<Arc<Endpoint>>) {
    let mut manager = manager();
    set(&mut manager, with(outlier));
    assign(&mut manager, "c", vec![group(0, ports(1..size + 1))]);
    let cluster = Arc::clone(manager.get("c").unwrap());
    let endpoints = endpoints(&manager, "c");
    (manager, cluster, endpoints)
}

fn with(outlier: OutlierDetection) -> config::cluster::Cluster {
    config::cluster::Cluster { outlier_detection: Some(outlier), ..eds("c") }
}

/// Lets the manager do what there is to do, for a virtual time.
pub(super) async fn run(manager: &mut Manager, time: Duration) {
    let end = Instant::now() + time;
    while tokio::time::timeout_at(end, manager.next()).await.is_ok() {}
}

async fn settle(manager: &mut Manager) {
    run(manager, Duration::from_millis(1)).await;
}

pub(super) fn is_ejected(endpoint: &Endpoint) -> bool {
    endpoint.outlier.ejection().is_some()
}

fn fail(cluster: &Cluster, endpoint: &Arc<Endpoint>, outcome: Outcome, times: u32) {
    (0..times).for_each(|_| cluster.report(endpoint, outcome));
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_fifth_consecutive_5xx_ejects_and_a_success_in_between_starts_the_count_again() {
    let (mut manager, cluster, endpoints) = cluster(2, outlier_detection());
    fail(&cluster, &endpoints[0], Outcome::Status(500), 4);
    cluster.report(&endpoints[0], Outcome::Status(404));
    fail(&cluster, &endpoints[0], Outcome::Status(500), 4);
    settle(&mut manager).await;
    assert!(!is_ejected(&endpoints[0]));
    cluster.report(&endpoints[0], Outcome::Status(503));
    settle(&mut manager).await;
    let ejection = endpoints[0].outlier.ejection().unwrap();
    assert_eq!(ejection.reason, EjectionReason::Consecutive5xx);
    let hosts = cluster.hosts.load();
    assert_eq!(hosts.priorities[0].healthy.list.len(), 1);
    let chosen: Vec<_> = (0..10)
        .map(|_| cluster.pick(&hosts, &Context::default()).unwrap().address.port().unwrap())
        .collect();
    assert_eq!(chosen, [2; 10]);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_returns_on_the_interval_after_its_time_with_clean_counts() {
    let outlier = OutlierDetection {
        interval: 7 * SECOND,
        base_ejection_time: 30 * SECOND,
        ..outlier_detection()
    };
    let (mut manager, cluster, endpoints) = cluster(2, outlier);
    fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
    settle(&mut manager).await;
    // 30 s are over at 30 s, but intervals end at 28 s and 35 s.
    run(&mut manager, 34 * SECOND).await;
    assert!(is_ejected(&endpoints[0]));
    run(&mut manager, 2 * SECOND).await;
    assert!(!is_ejected(&endpoints[0]));
    fail(&cluster, &endpoints[0], Outcome::Status(500), 4);
    settle(&mut manager).await;
    assert!(!is_ejected(&endpoints[0]), "four failures are not five");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_as_its_end_is_the_end_of_the_ejection() {
    let (mut manager, cluster, endpoints) = cluster(2, outlier_detection());
    run(&mut manager, 3 * SECOND).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
    settle(&mut manager).await;
    // Ejected 3 s into an interval of 10 s for 30 s: it returns at the fourth interval's end, in 37 s.
    let until = Duration::from_millis(endpoints[0].outlier.ejection().unwrap().until);
    let remaining = until - now;
    assert!(remaining > 36 * SECOND && remaining < 38 * SECOND, "{remaining:?}");
    run(&mut manager, Duration::from_millis(36_900)).await;
    assert!(is_ejected(&endpoints[0]));
    run(&mut manager, SECOND).await;
    assert!(!is_ejected(&endpoints[0]));
}

#[tokio::test(start_paused = true)]
async fn each_ejection_is_longer_up_to_the_maximum_and_good_intervals_shorten_the_next() {
    let outlier = OutlierDetection {
        interval: SECOND,
        base_ejection_time: 10 * SECOND,
        max_ejection_time: 25 * SECOND,
        ..outlier_detection()
    };
    let (mut manager, cluster, endpoints) = cluster(2, outlier);
    let lasted = async |manager: &mut Manager| {
        fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
        settle(manager).await;
        let start = Instant::now();
        while is_ejected(&endpoints[0]) {
            manager.next().await;
        }
        start.elapsed().as_secs_f64().round()
    };
    assert_eq!(lasted(&mut manager).await, 10.0);
    assert_eq!(lasted(&mut manager).await, 20.0);
    assert_eq!(lasted(&mut manager).await, 25.0, "the maximum");
    assert_eq!(lasted(&mut manager).await, 25.0);
    // The multiplier stands at 4 by now, and loses one with each interval but the one of the return.
    run(&mut manager, Duration::from_millis(3500)).await;
    assert_eq!(lasted(&mut manager).await, 20.0);
    run(&mut manager, 30 * SECOND).await;
    assert_eq!(lasted(&mut manager).await, 10.0);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_ejected_than_the_percentage_allows() {
    let outlier = OutlierDetection { max_ejection_percent: 50, ..outlier_detection() };
    let (mut manager, cluster, endpoints) = cluster(4, outlier);
    for endpoint in &endpoints {
        fail(&cluster, endpoint, Outcome::Status(500), 5);
    }
    settle(&mut manager).await;
    assert_eq!(endpoints.iter().filter(|endpoint| is_ejected(endpoint)).count(), 2);
    let cells = manager.entry(cluster.id).unwrap().outlier_stats.clone().unwrap();
    assert_eq!(cells.local().ejections_overflow.value(), 2);
    assert_eq!(cells.local().ejections_enforced_total.value(), 2);
    assert_eq!(cells.local().ejections_detected_consecutive_5xx.value(), 4);
}

#[tokio::test(start_paused = true)]
async fn ten_percent_of_few_endpoints_is_nobody_unless_one_may_always_be_ejected() {
    let ten_percent = OutlierDetection { max_ejection_percent: 10, ..outlier_detection() };
    for (size, always, expected) in [(9, false, 0), (10, false, 1), (2, true, 1)] {
        let outlier = OutlierDetection { always_eject_one_host: always, ..ten_percent.clone() };
        let (mut manager, cluster, endpoints) = cluster(size, outlier);
        for endpoint in &endpoints {
            fail(&cluster, endpoint, Outcome::Status(500), 5);
        }
        settle(&mut manager).await;
        let ejected = endpoints.iter().filter(|endpoint| is_ejected(endpoint)).count();
        assert_eq!(ejected, expected, "{size} endpoints, always one: {always}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_detection_that_is_not_enforced_only_counts() {
    let outlier = OutlierDetection { enforcing_consecutive_5xx: 0, ..outlier_detection() };
    let (mut manager, cluster, endpoints) = cluster(2, outlier);
    fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
    settle(&mut manager).await;
    assert!(!is_ejected(&endpoints[0]));
    // The count began again: the next five are detected too.
    fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
    settle(&mut manager).await;
    let cells = manager.entry(cluster.id).unwrap().outlier_stats.clone().unwrap();
    assert_eq!(cells.local().ejections_detected_consecutive_5xx.value(), 2);
    assert_eq!(cells.local().ejections_enforced_total.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_detections_is_enforced_as_configured() {
    fastrand::seed(1);
    let outlier = OutlierDetection {
        enforcing_consecutive_5xx: 30,
        interval: SECOND,
        base_ejection_time: SECOND,
        max_ejection_time: SECOND,
        ..outlier_detection()
    };
    let (mut manager, cluster, endpoints) = cluster(2, outlier);
    let mut ejected = 0;
    for _ in 0..400 {
        fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
        settle(&mut manager).await;
        ejected += u32::from(is_ejected(&endpoints[0]));
        run(&mut manager, 3 * SECOND).await;
    }
    assert!((90..150).contains(&ejected), "{ejected} of 400");
}

#[tokio::test(start_paused = true)]
async fn gateway_failures_are_502_503_504_and_any_other_answer_starts_their_count_again() {
    let outlier = OutlierDetection {
        consecutive_5xx: 100,
        enforcing_consecutive_gateway_failure: 100,
        ..outlier_detection()
    };
    let (mut manager, cluster, endpoints) = cluster(2, outlier);
    fail(&cluster, &endpoints[0], Outcome::Status(503), 4);
    cluster.report(&endpoints[0], Outcome::Status(500));
    for status in [502, 503, 504, 502] {
        cluster.report(&endpoints[0], Outcome::Status(status));
    }
    settle(&mut manager).await;
    assert!(!is_ejected(&endpoints[0]));
    cluster.report(&endpoints[0], Outcome::Status(504));
    settle(&mut manager).await;
    let reason = endpoints[0].outlier.ejection().unwrap().reason;
    assert_eq!(reason, EjectionReason::ConsecutiveGatewayFailure);
}

#[tokio::test(start_paused = true)]
async fn local_failures_count_as_5xx_unless_they_are_split_off() {
    for outcome in [Outcome::ConnectFailure, Outcome::Timeout, Outcome::Reset] {
        let (mut manager, cluster, endpoints) = cluster(2, outlier_detection());
        fail(&cluster, &endpoints[0], outcome, 4);
        // A connection says nothing of what the request will come to.
        cluster.report(&endpoints[0], Outcome::ConnectSuccess);
        cluster.report(&endpoints[0], outcome);
        settle(&mut manager).await;
        let reason = endpoints[0].outlier.ejection().unwrap().reason;
        assert_eq!(reason, EjectionReason::Consecutive5xx, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn split_local_failures_have_their_own_count_which_a_connection_starts_again() {
    let split =
        OutlierDetection { split_external_local_origin_errors: true, ..outlier_detection() };
    for outcome in [Outcome::ConnectFailure, Outcome::Timeout, Outcome::Reset] {
        let (mut manager, cluster, endpoints) = cluster(2, split.clone());
        fail(&cluster, &endpoints[0], outcome, 4);
        cluster.report(&endpoints[0], Outcome::ConnectSuccess);
        fail(&cluster, &endpoints[0], Outcome::Status(500), 4);
        fail(&cluster, &endpoints[0], outcome, 4);
        settle(&mut manager).await;
        assert!(!is_ejected(&endpoints[0]), "{outcome:?}");
        cluster.report(&endpoints[0], outcome);
        settle(&mut manager).await;
        let reason = endpoints[0].outlier.ejection().unwrap().reason;
        assert_eq!(reason, EjectionReason::ConsecutiveLocalOriginFailure, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_tcp_proxy_count_as_answers() {
    let (mut manager, cluster, endpoints) = cluster(2, outlier_detection());
    fail(&cluster, &endpoints[0], Outcome::ConnectFailure, 4);
    cluster.report(&endpoints[0], Outcome::ConnectSuccessFinal);
    cluster.report(&endpoints[0], Outcome::ConnectFailure);
    settle(&mut manager).await;
    assert!(!is_ejected(&endpoints[0]));
    fail(&cluster, &endpoints[0], Outcome::ConnectFailure, 4);
    settle(&mut manager).await;
    assert!(is_ejected(&endpoints[0]));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_survives_updates_of_cluster_and_endpoints() {
    let (mut manager, cluster, endpoints) = cluster(3, outlier_detection());
    fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
    settle(&mut manager).await;
    let until = endpoints[0].outlier.ejection().unwrap().until;

    let changed = OutlierDetection { max_ejection_percent: 90, ..outlier_detection() };
    set(&mut manager, with(changed));
    assign(&mut manager, "c", vec![group(0, ports(1..5))]);
    assert_eq!(endpoints[0].outlier.ejection().unwrap().until, until);
    let hosts = manager.get("c").unwrap().hosts.load_full();
    assert_eq!(hosts.priorities[0].healthy.list.len(), 3);
    run(&mut manager, 31 * SECOND).await;
    assert!(!is_ejected(&endpoints[0]), "and ends when it would have");
}

#[tokio::test(start_paused = true)]
async fn without_outlier_detection_everyone_returns() {
    let (mut manager, cluster, endpoints) = cluster(2, outlier_detection());
    fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
    settle(&mut manager).await;
    set(&mut manager, eds("c"));
    assert!(manager.due.is_empty(), "and no timer runs");
    assert!(!is_ejected(&endpoints[0]));
    let hosts = manager.get("c").unwrap().hosts.load_full();
    assert_eq!(hosts.priorities[0].healthy.list.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn failures_of_an_endpoint_that_left_eject_nobody() {
    let (mut manager, cluster, endpoints) = cluster(2, outlier_detection());
    fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
    assign(&mut manager, "c", vec![group(0, ports(2..3))]);
    settle(&mut manager).await;
    assert!(!is_ejected(&endpoints[0]));
    let cells = manager.entry(cluster.id).unwrap().outlier_stats.clone().unwrap();
    assert_eq!(cells.local().ejections_detected_consecutive_5xx.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn jitter_lengthens_an_ejection_by_at_most_its_bound() {
    fastrand::seed(2);
    let outlier = OutlierDetection {
        interval: Duration::from_millis(100),
        base_ejection_time: SECOND,
        max_ejection_time: SECOND,
        max_ejection_time_jitter: 5 * SECOND,
        ..outlier_detection()
    };
    let (mut manager, cluster, endpoints) = cluster(2, outlier);
    let mut times = Vec::new();
    for _ in 0..50 {
        fail(&cluster, &endpoints[0], Outcome::Status(500), 5);
        settle(&mut manager).await;
        let start = Instant::now();
        while is_ejected(&endpoints[0]) {
            manager.next().await;
        }
        times.push(start.elapsed());
    }
    assert!(times.iter().all(|&time| time > SECOND - SECOND / 10 && time < 7 * SECOND));
    assert!(times.iter().any(|&time| time < 2 * SECOND));
    assert!(times.iter().any(|&time| time > 5 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn an_event_log_tells_every_ejection_and_return() {
    let kept = Arc::new(Kept::default());
    let mut manager = manager();
    manager.set_event_log(Arc::clone(&kept) as _, Some(std::path::Path::new("/log")));
    set(&mut manager, with(OutlierDetection { interval: 10 * SECOND, ..outlier_detection() }));
    assign(&mut manager, "c", vec![group(0, ports(1..3))]);
    let cluster = Arc::clone(manager.get("c").unwrap());
    let first = Arc::clone(&endpoints(&manager, "c")[0]);
    let mut told = Vec::new();
    for _ in 0..2 {
        fail(&cluster, &first, Outcome::Status(500), 5);
        run(&mut manager, 61 * SECOND).await;
        told.extend(kept.take());
    }
    let lines: Vec<String> = told
        .into_iter()
        .map(|(path, event)| {
            assert_eq!(path.to_str(), Some("/log"));
            assert_eq!(event["upstream_url"], "127.0.0.1:1");
            assert_eq!(event["cluster_name"], "c");
            assert_eq!(event.get("eject_consecutive_event").is_some(), event["action"] == "EJECT");
            let since = event.get("secs_since_last_action").map(ToString::to_string);
            format!(
                "{} {} {} {} {}",
                event["action"],
                event["type"],
                event["num_ejections"],
                event["enforced"],
                since.unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            r#""EJECT" "CONSECUTIVE_5XX" 1 true "#,
            r#""UNEJECT" "CONSECUTIVE_5XX" 1 false "30""#,
            r#""EJECT" "CONSECUTIVE_5XX" 2 true "31""#,
            r#""UNEJECT" "CONSECUTIVE_5XX" 2 false "39""#,
        ]
    );
}
