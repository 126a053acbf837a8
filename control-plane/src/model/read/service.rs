//! Reading of kind `Service`.

use super::fields::{At, Fields, Scope};
use super::{Meta, values};
use crate::model::Service;
use crate::model::problem::{Code, Problem};
use crate::model::service::{
    CircuitBreaker, HashKey, HealthCheck, LoadBalancer, LoadBalancerPolicy, OutlierDetection,
    Probe, Protocol, Retry, RetryOn, ServicePort, Subset, Timeouts,
};
use std::time::Duration;

pub(super) fn read(scope: &mut Scope, at: At<'_>, meta: Meta) -> Option<Service> {
    scope.mapping(at, |spec| {
        let ports = spec.required("ports", ports);
        let subsets = spec.optional("subsets", subsets).unwrap_or_default();
        let load_balancer = spec.optional("loadBalancer", load_balancer).unwrap_or_default();
        let outlier_detection = spec.optional("outlierDetection", outlier_detection);
        let circuit_breaker = spec.optional("circuitBreaker", circuit_breaker);
        let timeouts = spec.optional("timeouts", timeouts).unwrap_or_default();
        let retry = spec.optional("retry", retry);
        let health_check = spec.optional("healthCheck", health_check);
        if let (Some(ports), Some(check)) = (&ports, &health_check) {
            spec.optional("healthCheck", |scope, at| -> Option<()> {
                check_probe(scope, at, ports, check);
                None
            });
        }
        Some(Service {
            name: meta.name,
            labels: meta.labels,
            ports: ports?,
            subsets,
            load_balancer,
            health_check,
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
                ("peak_ewma", LoadBalancerPolicy::PeakEwma),
                ("random", LoadBalancerPolicy::Random),
                ("ring_hash", LoadBalancerPolicy::RingHash),
                ("maglev", LoadBalancerPolicy::Maglev),
            ];
            values::choice(scope, at, &choices, &[])
        });
        let hash_on = fields.optional("hashOn", |scope, at| Some(scope.list_of_some(at, hash_key)));
        let slow_start = fields.optional("slowStart", values::positive_duration);
        let locality_weighted = fields.optional("localityWeighted", values::boolean);
        // What is wrong with the policy itself is told already.
        let written = fields.has("policy");
        let policy = match policy {
            Some(policy) => policy,
            None if written => return None,
            None => LoadBalancer::default().policy,
        };
        if policy.hashes() && hash_on.is_none() && !fields.has("hashOn") {
            fields.missing("hashOn", "a policy that hashes needs to know what of a request");
        }
        if !policy.hashes() {
            fields.optional("hashOn", |scope, at| -> Option<()> {
                scope.invalid(at, "only the policies `ring_hash` and `maglev` hash anything");
                None
            });
        }
        let rises = matches!(
            policy,
            LoadBalancerPolicy::RoundRobin
                | LoadBalancerPolicy::LeastRequest
                | LoadBalancerPolicy::PeakEwma
        );
        if !rises {
            fields.optional("slowStart", |scope, at| -> Option<()> {
                scope.invalid(
                    at,
                    "only the policies `round_robin`, `least_request` and `peak_ewma` start slowly",
                );
                None
            });
        }
        Some(LoadBalancer {
            policy,
            hash_on: hash_on.unwrap_or_default(),
            slow_start,
            locality_weighted: locality_weighted.unwrap_or_default(),
        })
    })
}

fn hash_key(scope: &mut Scope, at: At<'_>) -> Option<HashKey> {
    scope.mapping(at, |fields| {
        let header = fields.optional("header", values::header_name).map(HashKey::Header);
        let cookie = fields.optional("cookie", token).map(HashKey::Cookie);
        let query = fields.optional("query", values::query_name).map(HashKey::Query);
        let source = fields.optional("sourceIp", |scope, at| {
            let source = values::boolean(scope, at)?;
            if !source {
                scope.invalid(at, "leave it out: it is `true` or nothing");
            }
            source.then_some(HashKey::SourceIp(true))
        });
        only_one(fields, &["header", "cookie", "query", "sourceIp"]);
        header.or(cookie).or(query).or(source)
    })
}

/// Just one of these keys has to be there.
fn only_one(fields: &mut Fields<'_, '_>, keys: &[&'static str]) {
    let there = keys.iter().filter(|key| fields.has(key)).count();
    if there != 1 {
        let words: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
        let at = fields.at;
        fields.scope.invalid(at, format!("just one of {} is needed", words.join(", ")));
    }
}

fn token(scope: &mut Scope, at: At<'_>) -> Option<String> {
    values::text_that(scope, at, |name| match values::is_token(name) {
        true => Ok(()),
        false => Err(format!("`{name}` is not the name of a cookie")),
    })
}

fn health_check(scope: &mut Scope, at: At<'_>) -> Option<HealthCheck> {
    let threshold = |scope: &mut Scope, at: At<'_>| values::number(scope, at, 1..=1000);
    scope.mapping(at, |fields| {
        let http = fields.optional("http", |scope, at| {
            scope.mapping(at, |fields| {
                Some(Probe::Http { path: fields.required("path", values::path)? })
            })
        });
        let grpc = fields.optional("grpc", |scope, at| {
            scope.mapping(at, |fields| {
                let service = fields.optional("service", grpc_service).unwrap_or_default();
                Some(Probe::Grpc { service })
            })
        });
        let tcp = fields.optional("tcp", |scope, at| scope.mapping(at, |_| Some(Probe::Tcp {})));
        only_one(fields, &["http", "grpc", "tcp"]);
        let interval = fields.optional("interval", values::positive_duration);
        let timeout = fields.optional("timeout", values::positive_duration);
        let unhealthy = fields.optional("unhealthyThreshold", threshold);
        let healthy = fields.optional("healthyThreshold", threshold);
        Some(HealthCheck {
            probe: http.or(grpc).or(tcp)?,
            interval: interval.unwrap_or(Duration::from_secs(5)),
            timeout: timeout.unwrap_or(Duration::from_secs(1)),
            unhealthy_threshold: unhealthy.unwrap_or(3),
            healthy_threshold: healthy.unwrap_or(2),
        })
    })
}

fn grpc_service(scope: &mut Scope, at: At<'_>) -> Option<String> {
    values::text_that(scope, at, |name| {
        let fine = name.len() <= 256 && name.bytes().all(|b| b.is_ascii_graphic());
        if fine {
            Ok(())
        } else {
            Err("a gRPC service has up to 256 visible characters".to_owned())
        }
    })
}

/// Every port is checked in the same way, so every port has to understand it.
fn check_probe(scope: &mut Scope, at: At<'_>, ports: &[ServicePort], check: &HealthCheck) {
    let (key, wanted, understood): (_, _, fn(Protocol) -> bool) = match check.probe {
        Probe::Http { .. } => ("http", "HTTP", Protocol::is_http),
        Probe::Grpc { .. } => ("grpc", "HTTP/2", Protocol::is_http2),
        Probe::Tcp {} => return,
    };
    if let Some(port) = ports.iter().find(|port| !understood(port.protocol)) {
        let reason = format!("port {} does not carry {wanted}: check it by `tcp: {{}}`", port.port);
        let path = format!("{}.{key}", at.path);
        let position = at.node.position_of(key);
        scope.problem(Problem::new(Code::InvalidValue, reason), &path, position);
    }
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
