//! Outlier detection.

use std::time::Duration;

use outrigger_proto::envoy::config::cluster::v3 as proto;
use outrigger_proto::google::protobuf::UInt32Value;

use crate::config::Problems;
use crate::config::cluster::OutlierDetection;

use super::common::{
    boolean, duration, number, number_in, positive_duration, unsupported, unsupported_if_true,
};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_BASE_EJECTION: Duration = Duration::from_secs(30);
const DEFAULT_MAX_EJECTION: Duration = Duration::from_secs(300);

/// Outlier detection: the consecutive variants.
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
        failure_percentage_threshold: _, // of an algorithm that only its enforcing_ fields turn on
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts: _,  // the same
        failure_percentage_request_volume: _, // the same
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host: _, // of active health checks, which are refused
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = proto;
    unsupported!(problems; monitors);
    unsupported_if_true!(problems; detect_degraded_hosts);
    // The statistical algorithms are not there: turned off they are fine, asked for they are refused.
    let success_rate_is_off = number(enforcing_success_rate) == Some(0);
    not_enforced(problems, "enforcing_success_rate", enforcing_success_rate);
    not_enforced(
        problems,
        "enforcing_local_origin_success_rate",
        enforcing_local_origin_success_rate,
    );
    not_enforced(problems, "enforcing_failure_percentage", enforcing_failure_percentage);
    not_enforced(
        problems,
        "enforcing_failure_percentage_local_origin",
        enforcing_failure_percentage_local_origin,
    );
    if !success_rate_is_off {
        unsupported!(problems;
            success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor);
    }
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
    }
}

fn not_enforced(problems: &mut Problems, name: &str, value: Option<UInt32Value>) {
    problems.unsupported(name, number(value).unwrap_or(0) != 0);
}
