//! Outlier detection.

use std::time::Duration;

use outrigger_proto::envoy::config::cluster::v3 as proto;

use crate::config::Problems;
use crate::config::cluster::{FailurePercentage, OutlierDetection, SuccessRate};

use super::common::{
    boolean, duration, number, number_in, positive_duration, unsupported, unsupported_if_true,
};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_BASE_EJECTION: Duration = Duration::from_secs(30);
const DEFAULT_MAX_EJECTION: Duration = Duration::from_secs(300);

/// Outlier detection, with Envoy's defaults.
pub(super) fn convert(problems: &mut Problems, proto: proto::OutlierDetection) -> OutlierDetection {
    let proto::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = proto;
    unsupported!(problems; monitors);
    unsupported_if_true!(problems; detect_degraded_hosts);
    let mut percent =
        |name: &str, value, default| number_in(problems, name, value, 0..=100).unwrap_or(default);
    let enforcing_consecutive_5xx =
        percent("enforcing_consecutive_5xx", enforcing_consecutive_5xx, 100);
    let enforcing_consecutive_gateway_failure =
        percent("enforcing_consecutive_gateway_failure", enforcing_consecutive_gateway_failure, 0);
    let enforcing_consecutive_local_origin_failure = percent(
        "enforcing_consecutive_local_origin_failure",
        enforcing_consecutive_local_origin_failure,
        100,
    );
    let max_ejection_percent = percent("max_ejection_percent", max_ejection_percent, 10);
    let success_rate = SuccessRate {
        minimum_hosts: number(success_rate_minimum_hosts).unwrap_or(5),
        request_volume: number(success_rate_request_volume).unwrap_or(100),
        stdev_factor: number(success_rate_stdev_factor).unwrap_or(1900),
        enforcing: percent("enforcing_success_rate", enforcing_success_rate, 100),
        enforcing_local_origin: percent(
            "enforcing_local_origin_success_rate",
            enforcing_local_origin_success_rate,
            100,
        ),
    };
    let failure_percentage = FailurePercentage {
        threshold: percent("failure_percentage_threshold", failure_percentage_threshold, 85),
        minimum_hosts: number(failure_percentage_minimum_hosts).unwrap_or(5),
        request_volume: number(failure_percentage_request_volume).unwrap_or(50),
        enforcing: percent("enforcing_failure_percentage", enforcing_failure_percentage, 0),
        enforcing_local_origin: percent(
            "enforcing_failure_percentage_local_origin",
            enforcing_failure_percentage_local_origin,
            0,
        ),
    };
    let interval = positive_duration(problems, "interval", interval).unwrap_or(DEFAULT_INTERVAL);
    let base_is_set = base_ejection_time.is_some();
    let base = positive_duration(problems, "base_ejection_time", base_ejection_time);
    let base_ejection_time = base.unwrap_or(DEFAULT_BASE_EJECTION);
    let max_ejection_time = positive_duration(problems, "max_ejection_time", max_ejection_time);
    // One that was refused is no measure for the other.
    let base_counts = base.is_some() || !base_is_set;
    if base_counts && max_ejection_time.is_some_and(|max| max < base_ejection_time) {
        problems.reject_field("max_ejection_time", "must not be less than base_ejection_time");
    }
    OutlierDetection {
        consecutive_5xx: number(consecutive_5xx).unwrap_or(5),
        enforcing_consecutive_5xx,
        consecutive_gateway_failure: number(consecutive_gateway_failure).unwrap_or(5),
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure: number(consecutive_local_origin_failure).unwrap_or(5),
        enforcing_consecutive_local_origin_failure,
        success_rate,
        failure_percentage,
        interval,
        base_ejection_time,
        max_ejection_time: max_ejection_time
            .unwrap_or_else(|| DEFAULT_MAX_EJECTION.max(base_ejection_time)),
        max_ejection_time_jitter: duration(
            problems,
            "max_ejection_time_jitter",
            max_ejection_time_jitter,
        )
        .unwrap_or_default(),
        max_ejection_percent,
        always_eject_one_host: boolean(always_eject_one_host, false),
        uneject_on_passed_check: boolean(successful_active_health_check_uneject_host, true),
    }
}
