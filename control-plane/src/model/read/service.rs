//! Reading of kind `Service`.

use super::fields::{At, Scope};
use super::{Meta, values};
use crate::model::Service;
use crate::model::service::{
    CircuitBreaker, LoadBalancer, LoadBalancerPolicy, OutlierDetection, Protocol, Retry, RetryOn,
    ServicePort, Subset, Timeouts,
};

pub(super) fn read(scope: &mut Scope, at: At<'_>, meta: Meta) -> Option<Service> {
    scope.mapping(at, |spec| {
        let ports = spec.required("ports", ports);
        let subsets = spec.optional("subsets", subsets).unwrap_or_default();
        let load_balancer = spec.optional("loadBalancer", load_balancer).unwrap_or_default();
        let outlier_detection = spec.optional("outlierDetection", outlier_detection);
        let circuit_breaker = spec.optional("circuitBreaker", circuit_breaker);
        let timeouts = spec.optional("timeouts", timeouts).unwrap_or_default();
        let retry = spec.optional("retry", retry);
        spec.not_supported(&["healthCheck"]);
        Some(Service {
            name: meta.name,
            labels: meta.labels,
            ports: ports?,
            subsets,
            load_balancer,
            outlier_detection,
            circuit_breaker,
            timeouts,
            retry,
        })
    })
}

fn ports(scope: &mut Scope, at: At<'_>) -> Option<Vec<ServicePort>> {
    let ports = scope.list_of_some(at, |scope, at| {
        scope.mapping(at, |fields| {
            let port = fields.required("port", values::port);
            let protocol = fields.required("protocol", protocol);
            Some(ServicePort { port: port?, protocol: protocol? })
        })
    });
    let numbers: Vec<_> = ports.iter().map(|port| port.port.to_string()).collect();
    scope.refuse_duplicates(at, "port", numbers.iter().map(String::as_str));
    Some(ports)
}

fn protocol(scope: &mut Scope, at: At<'_>) -> Option<Protocol> {
    let choices = [
        ("http", Protocol::Http),
        ("http2", Protocol::Http2),
        ("grpc", Protocol::Grpc),
        ("tcp", Protocol::Tcp),
        ("tls", Protocol::Tls),
    ];
    values::choice(scope, at, &choices, &[])
}

fn subsets(scope: &mut Scope, at: At<'_>) -> Option<Vec<Subset>> {
    let subsets = scope.list(at, |scope, at| {
        scope.mapping(at, |fields| {
            let name = fields.required("name", values::name);
            let labels = fields.required("labels", |scope, at| {
                let labels = values::labels(scope, at)?;
                if labels.is_empty() && scope.problems.is_empty() {
                    scope.invalid(
                        at,
                        "at least one label is needed: without one this is every instance",
                    );
                }
                Some(labels)
            });
            Some(Subset { name: name?, labels: labels? })
        })
    });
    scope.refuse_duplicates(at, "name", subsets.iter().map(|subset| subset.name.as_str()));
    Some(subsets)
}

fn load_balancer(scope: &mut Scope, at: At<'_>) -> Option<LoadBalancer> {
    scope.mapping(at, |fields| {
        let policy = fields.optional("policy", |scope, at| {
            let choices = [
                ("round_robin", LoadBalancerPolicy::RoundRobin),
                ("least_request", LoadBalancerPolicy::LeastRequest),
                ("random", LoadBalancerPolicy::Random),
            ];
            values::choice(scope, at, &choices, &["ring_hash", "maglev", "peak_ewma"])
        });
        fields.not_supported(&["hashOn", "slowStart", "localityWeighted"]);
        Some(policy.map_or_else(LoadBalancer::default, |policy| LoadBalancer { policy }))
    })
}

fn outlier_detection(scope: &mut Scope, at: At<'_>) -> Option<OutlierDetection> {
    let count = |scope: &mut Scope, at: At<'_>| values::number(scope, at, 1..=1_000_000);
    scope.mapping(at, |fields| {
        let defaults = OutlierDetection::default();
        let consecutive_5xx = fields.optional("consecutive5xx", count);
        let consecutive_gateway_failure = fields.optional("consecutiveGatewayFailure", count);
        let percent = fields.optional("maxEjectionPercent", percent);
        Some(OutlierDetection {
            consecutive_5xx: match consecutive_gateway_failure {
                None => consecutive_5xx.or(defaults.consecutive_5xx),
                Some(_) => consecutive_5xx,
            },
            consecutive_gateway_failure,
            interval: fields
                .optional("interval", values::positive_duration)
                .unwrap_or(defaults.interval),
            base_ejection_time: fields
                .optional("baseEjectionTime", values::positive_duration)
                .unwrap_or(defaults.base_ejection_time),
            max_ejection_percent: percent.unwrap_or(defaults.max_ejection_percent),
            always_eject_one: fields
                .optional("alwaysEjectOne", values::boolean)
                .unwrap_or(defaults.always_eject_one),
        })
    })
}

fn circuit_breaker(scope: &mut Scope, at: At<'_>) -> Option<CircuitBreaker> {
    let limit = |scope: &mut Scope, at: At<'_>| values::number(scope, at, 0..=u32::MAX);
    scope.mapping(at, |fields| {
        Some(CircuitBreaker {
            max_connections: fields.optional("maxConnections", limit),
            max_pending_requests: fields.optional("maxPendingRequests", limit),
            max_requests: fields.optional("maxRequests", limit),
            max_retries: fields.optional("maxRetries", limit),
            retry_budget_percent: fields.optional("retryBudgetPercent", percent),
        })
    })
}

fn percent(scope: &mut Scope, at: At<'_>) -> Option<u8> {
    values::number(scope, at, 0..=100).and_then(|percent| u8::try_from(percent).ok())
}

fn timeouts(scope: &mut Scope, at: At<'_>) -> Option<Timeouts> {
    scope.mapping(at, |fields| {
        Some(Timeouts {
            request: fields.optional("request", values::duration),
            connect: fields.optional("connect", values::positive_duration),
            idle: fields.optional("idle", values::duration),
        })
    })
}

pub(super) fn retry(scope: &mut Scope, at: At<'_>) -> Option<Retry> {
    scope.mapping(at, |fields| {
        Some(Retry {
            attempts: fields.optional("attempts", |scope, at| values::number(scope, at, 0..=10)),
            on: fields.optional("on", retry_on),
            per_try_timeout: fields.optional("perTryTimeout", values::positive_duration),
            backoff: fields.optional("backoff", values::positive_duration),
        })
    })
}

fn retry_on(scope: &mut Scope, at: At<'_>) -> Option<Vec<RetryOn>> {
    let choices = RetryOn::ALL.map(|on| (on.as_str(), on));
    let on = scope.list_of_some(at, |scope, at| values::choice(scope, at, &choices, &[]));
    scope.refuse_duplicates(at, "", on.iter().map(|on| on.as_str()));
    Some(on)
}
