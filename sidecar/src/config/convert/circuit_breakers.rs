//! Circuit breakers.

use outrigger_proto::envoy::config::cluster::v3 as proto;
use outrigger_proto::envoy::config::cluster::v3::circuit_breakers::{
    Thresholds, thresholds::RetryBudget,
};
use outrigger_proto::envoy::config::core::v3::RoutingPriority;

use crate::config::Problems;
use crate::config::cluster::CircuitBreakers;

use super::common::{enumeration, number, unsupported};
use super::common_lb::percent;

/// Envoy's limits where nothing is set.
const DEFAULT: CircuitBreakers = CircuitBreakers {
    max_connections: 1024,
    max_pending_requests: 1024,
    max_requests: 1024,
    max_retries: 3,
    retry_budget: None,
    track_remaining: false,
};

/// Limits by priority: default, high. Of several for one priority the first counts, as in Envoy.
pub(super) fn convert(
    problems: &mut Problems,
    proto: Option<proto::CircuitBreakers>,
) -> [CircuitBreakers; 2] {
    let proto::CircuitBreakers { thresholds, per_host_thresholds } = proto.unwrap_or_default();
    let mut limits = [None, None];
    problems.field("circuit_breakers", |problems| {
        unsupported!(problems; per_host_thresholds);
        for (index, proto) in thresholds.into_iter().enumerate() {
            problems.element("thresholds", index, |problems| {
                let (priority, thresholds) = one(problems, proto);
                let slot = match priority {
                    RoutingPriority::Default => &mut limits[0],
                    RoutingPriority::High => &mut limits[1],
                };
                slot.get_or_insert(thresholds);
            });
        }
    });
    limits.map(|limits| limits.unwrap_or(DEFAULT))
}

fn one(problems: &mut Problems, proto: Thresholds) -> (RoutingPriority, CircuitBreakers) {
    let Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = proto;
    unsupported!(problems; max_connection_pools);
    let priority = enumeration(problems, "priority", priority).unwrap_or(RoutingPriority::Default);
    let retry_budget = retry_budget.map(|proto| {
        problems.field("retry_budget", |problems| {
            let RetryBudget { budget_percent, budget_interval, min_retry_concurrency } = proto;
            unsupported!(problems; budget_interval);
            let percent = budget_percent
                .and_then(|value| percent(problems, "budget_percent", value))
                .unwrap_or(20.0);
            (percent, number(min_retry_concurrency).unwrap_or(3))
        })
    });
    let limits = CircuitBreakers {
        max_connections: number(max_connections).unwrap_or(DEFAULT.max_connections),
        max_pending_requests: number(max_pending_requests).unwrap_or(DEFAULT.max_pending_requests),
        max_requests: number(max_requests).unwrap_or(DEFAULT.max_requests),
        max_retries: number(max_retries).unwrap_or(DEFAULT.max_retries),
        retry_budget,
        track_remaining,
    };
    (priority, limits)
}
