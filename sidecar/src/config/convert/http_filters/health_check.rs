//! `envoy.filters.http.health_check`

use outrigger_proto::envoy::extensions::filters::http::health_check::v3 as proto;

use crate::config::Problems;
use crate::config::http_filters::HealthCheck;

use super::super::common::{Present, boolean, positive_duration, required, sorted};
use super::super::{common_lb, matcher};

pub(in super::super) fn filter(problems: &mut Problems, proto: proto::HealthCheck) -> HealthCheck {
    let proto::HealthCheck {
        pass_through_mode,
        cache_time,
        cluster_min_healthy_percentages,
        headers,
    } = proto;
    let pass_through = boolean(required(problems, "pass_through_mode", pass_through_mode), false);
    if !pass_through && cache_time.is_some() {
        problems.reject_field(
            "cache_time",
            "set without pass_through_mode: there is no answer to keep",
        );
    }
    if pass_through && cluster_min_healthy_percentages.is_present() {
        problems.reject_field(
            "cluster_min_healthy_percentages",
            "has no effect in pass_through_mode: the endpoint answers",
        );
    }
    let least_healthy = sorted(cluster_min_healthy_percentages)
        .into_iter()
        .filter_map(|(name, percent)| {
            let field = format!("cluster_min_healthy_percentages[{name}]");
            let percent = common_lb::percent(problems, &field, percent)?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 100
            let whole = percent as u8; // what is behind the point does not count, as in Envoy
            Some((name.into(), whole))
        })
        .collect();
    HealthCheck {
        pass_through,
        cache_time: positive_duration(problems, "cache_time", cache_time),
        least_healthy,
        headers: matcher::headers(problems, "headers", headers),
    }
}
