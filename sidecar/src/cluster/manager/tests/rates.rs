//! Outlier detection by comparison of rates.

use super::ejections::{SECOND, cluster, is_ejected, run};
use super::*;

/// Lets an endpoint answer `requests` times, `failures` of them with 500, never twice in a row.
fn answer(cluster: &Cluster, endpoint: &Arc<Endpoint>, requests: u32, failures: u32) {
    for request in 0..requests {
        let fails = request % 2 == 0 && request / 2 < failures;
        cluster.report(endpoint, Outcome::Status(if fails { 500 } else { 200 }));
    }
}

fn reason(endpoint: &Endpoint) -> Option<EjectionReason> {
    endpoint.outlier.ejection().map(|ejection| ejection.reason)
}

#[tokio::test(start_paused = true)]
async fn who_succeeds_less_often_than_the_others_is_ejected_at_the_end_of_the_interval() {
    let (mut manager, cluster, endpoints) = cluster(6, outlier_detection());
    endpoints[1..].iter().for_each(|endpoint| answer(&cluster, endpoint, 100, 0));
    answer(&cluster, &endpoints[0], 100, 40);
    run(&mut manager, 9 * SECOND).await;
    assert!(!is_ejected(&endpoints[0]));
    run(&mut manager, 2 * SECOND).await;
    assert_eq!(reason(&endpoints[0]), Some(EjectionReason::SuccessRate));
    assert!(!endpoints[1..].iter().any(|endpoint| is_ejected(endpoint)));
    let cells = manager.entry(cluster.id).unwrap().outlier_stats.clone().unwrap();
    assert_eq!(cells.local().ejections_detected_success_rate.value(), 1);
    assert_eq!(cells.local().ejections_enforced_success_rate.value(), 1);
    assert_eq!(cells.local().ejections_detected_failure_percentage.value(), 0);
    assert_eq!(cells.local().ejections_total.value(), 1);
}

#[tokio::test(start_paused = true)]
async fn too_few_requests_in_one_interval_or_too_few_endpoints_say_nothing_of_the_rate() {
    for (size, requests) in [(6, 99), (4, 100)] {
        let (mut manager, cluster, endpoints) = cluster(size, outlier_detection());
        for _ in 0..2 {
            endpoints[1..].iter().for_each(|endpoint| answer(&cluster, endpoint, requests, 0));
            answer(&cluster, &endpoints[0], requests, 40);
            run(&mut manager, 10 * SECOND).await;
        }
        assert!(!is_ejected(&endpoints[0]), "{size} endpoints, {requests} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_all_fail_alike_are_no_outliers() {
    let (mut manager, cluster, endpoints) = cluster(6, outlier_detection());
    endpoints.iter().for_each(|endpoint| answer(&cluster, endpoint, 100, 50));
    run(&mut manager, 11 * SECOND).await;
    assert!(!endpoints.iter().any(|endpoint| is_ejected(endpoint)));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_failures_ejects_from_its_threshold_on_where_it_is_enforced() {
    let mut outlier = outlier_detection();
    outlier.success_rate.enforcing = 0;
    outlier.failure_percentage.enforcing = 100;
    outlier.failure_percentage.threshold = 40;
    let (mut manager, cluster, endpoints) = cluster(5, outlier);
    let failures = [40, 39, 0, 0, 0];
    for (endpoint, failures) in endpoints.iter().zip(failures) {
        answer(&cluster, endpoint, 100, failures);
    }
    run(&mut manager, 11 * SECOND).await;
    assert_eq!(reason(&endpoints[0]), Some(EjectionReason::FailurePercentage));
    assert!(!endpoints[1..].iter().any(|endpoint| is_ejected(endpoint)));
}

#[tokio::test(start_paused = true)]
async fn split_off_attempts_to_connect_have_a_success_rate_of_their_own() {
    let split =
        OutlierDetection { split_external_local_origin_errors: true, ..outlier_detection() };
    let (mut manager, cluster, endpoints) = cluster(6, split);
    for endpoint in &endpoints {
        for attempt in 0..100 {
            let fails = Arc::ptr_eq(endpoint, &endpoints[0]) && attempt % 2 == 0;
            let outcome = if fails { Outcome::ConnectFailure } else { Outcome::ConnectSuccess };
            cluster.report(endpoint, outcome);
        }
    }
    run(&mut manager, 11 * SECOND).await;
    assert_eq!(reason(&endpoints[0]), Some(EjectionReason::LocalOriginSuccessRate));
}
