//! Whether a request is tried again, and when. Conditions and back-off are Envoy's (documentation of `x-envoy-retry-on`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};

use super::headers::{GRPC_STATUS, X_ENVOY_RATELIMITED};
use super::matching::RequestView;
use crate::cluster::{Breaker, EndpointId, RoutingPriority};
use crate::config::route::{ResetFormat, RetryOn, RetryPolicy};
use crate::local::ClusterRef;
use crate::upstream::Failure;

/// What an attempt ended with, as the policy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempted<'a> {
    /// The head of a response.
    Response(StatusCode, &'a HeaderMap),
    /// No response.
    Failed(&'a Failure),
    /// No response to a request that changes nothing, because a connection broke that had served others: its endpoint is
    /// gone, or was about to close it.
    Lost(&'a Failure),
    /// No response within the timeout of one attempt.
    TimedOut,
}

/// The retries of one request.
pub(crate) struct Retries<'p> {
    policy: &'p RetryPolicy,
    /// Left to do.
    remaining: u32,
    /// Done.
    pub(crate) done: u32,
    /// Endpoints to pass over.
    tried: smallvec::SmallVec<[EndpointId; 4]>,
    permit: Option<Permit>,
}

/// What is to be done after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take what came.
    No,
    /// There were enough attempts.
    LimitExceeded,
    /// The circuit breaker for retries is open.
    Overflow,
    /// Try again after so long.
    After(Duration),
}

impl<'p> Retries<'p> {
    /// The retries of a request; `None` if its route has none for it.
    pub(crate) fn new(policy: Option<&'p RetryPolicy>, request: &RequestView<'_>) -> Option<Self> {
        let policy = policy.filter(|policy| policy.on != RetryOn::default())?;
        let wanted = policy.retriable_request_headers.is_empty()
            || policy.retriable_request_headers.iter().any(|header| header.matches(request));
        wanted.then(|| Self {
            policy,
            remaining: policy.num_retries,
            done: 0,
            tried: smallvec::SmallVec::new(),
            permit: None,
        })
    }

    pub(crate) fn policy(&self) -> &'p RetryPolicy {
        self.policy
    }

    /// Endpoints to pass over, and how often to look for another.
    pub(crate) fn avoid(&self) -> (&[EndpointId], u32) {
        if self.policy.avoid_previous_hosts {
            (&self.tried, self.policy.host_selection_retry_max_attempts)
        } else {
            (&[], 0)
        }
    }

    /// An endpoint is tried.
    pub(crate) fn note(&mut self, endpoint: EndpointId) {
        self.tried.push(endpoint);
    }

    /// What to do after an attempt.
    pub(crate) fn decide(
        &mut self,
        attempted: Attempted<'_>,
        cluster: &ClusterRef,
        priority: RoutingPriority,
    ) -> Verdict {
        // The retry that this attempt was is over.
        let was_retry = self.permit.take().is_some();
        let stats = cluster.stats.local();
        if !wants(self.policy, attempted) {
            if was_retry && matches!(attempted, Attempted::Response(..)) {
                stats.upstream_rq_retry_success.inc();
            }
            return Verdict::No;
        }
        if self.remaining == 0 {
            stats.upstream_rq_retry_limit_exceeded.inc();
            return Verdict::LimitExceeded;
        }
        if !cluster.breaker(priority).try_retry() {
            return Verdict::Overflow;
        }
        self.permit = Some(Permit { cluster: cluster.clone(), priority });
        self.remaining -= 1;
        self.done += 1;
        stats.upstream_rq_retry.inc();
        if let Attempted::Response(_, headers) = attempted
            && let Some(wait) = asked_for(self.policy, headers, SystemTime::now())
        {
            stats.upstream_rq_retry_backoff_ratelimited.inc();
            // All who were told the same must not come back at once.
            return Verdict::After(wait.mul_f64(1.0 + fastrand::f64() / 2.0));
        }
        stats.upstream_rq_retry_backoff_exponential.inc();
        Verdict::After(back_off(self.policy, self.done, fastrand::f64()))
    }
}

/// A place in the circuit breaker for retries, from the decision to the end of the attempt.
struct Permit {
    cluster: ClusterRef,
    priority: RoutingPriority,
}

impl Drop for Permit {
    fn drop(&mut self) {
        Breaker::release_retry(self.cluster.breaker(self.priority));
    }
}

/// Whether the policy names what happened.
fn wants(policy: &RetryPolicy, attempted: Attempted<'_>) -> bool {
    let on = |condition| policy.on.contains(condition);
    match attempted {
        Attempted::TimedOut => {
            on(RetryOn::FIVE_XX) || on(RetryOn::GATEWAY_ERROR) || on(RetryOn::RESET)
        }
        // To try again is as safe as after a connection that could not be made.
        Attempted::Lost(failure) => {
            wants(policy, Attempted::Failed(failure))
                || on(RetryOn::CONNECT_FAILURE)
                || on(RetryOn::REFUSED_STREAM)
        }
        Attempted::Failed(failure) => match failure {
            Failure::Overflow => false,
            Failure::Connect(_) | Failure::ConnectTimeout => {
                on(RetryOn::FIVE_XX)
                    || on(RetryOn::GATEWAY_ERROR)
                    || on(RetryOn::RESET)
                    || on(RetryOn::RESET_BEFORE_REQUEST)
                    || on(RetryOn::CONNECT_FAILURE)
            }
            Failure::Refused => {
                on(RetryOn::FIVE_XX)
                    || on(RetryOn::GATEWAY_ERROR)
                    || on(RetryOn::RESET)
                    || on(RetryOn::REFUSED_STREAM)
            }
            Failure::RemoteReset | Failure::ConnectionTermination | Failure::Protocol(_) => {
                on(RetryOn::FIVE_XX) || on(RetryOn::GATEWAY_ERROR) || on(RetryOn::RESET)
            }
        },
        Attempted::Response(status, headers) => {
            if headers.contains_key(X_ENVOY_RATELIMITED) {
                return on(RetryOn::ENVOY_RATELIMITED);
            }
            let grpc = |code: &str, condition| {
                on(condition) && headers.get(GRPC_STATUS).is_some_and(|value| value == code)
            };
            (on(RetryOn::FIVE_XX) && status.is_server_error())
                || (on(RetryOn::GATEWAY_ERROR) && matches!(status.as_u16(), 502..=504))
                || (on(RetryOn::RETRIABLE_4XX) && status == StatusCode::CONFLICT)
                || (on(RetryOn::RETRIABLE_STATUS_CODES)
                    && policy.retriable_status_codes.contains(&status))
                || (on(RetryOn::RETRIABLE_HEADERS)
                    && policy
                        .retriable_headers
                        .iter()
                        .any(|header| header.matches_headers(headers)))
                || grpc("1", RetryOn::GRPC_CANCELLED)
                || grpc("4", RetryOn::GRPC_DEADLINE_EXCEEDED)
                || grpc("8", RetryOn::GRPC_RESOURCE_EXHAUSTED)
                || grpc("13", RetryOn::GRPC_INTERNAL)
                || grpc("14", RetryOn::GRPC_UNAVAILABLE)
        }
    }
}

/// How long a response asks to wait, if the policy looks at it.
fn asked_for(policy: &RetryPolicy, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    policy.reset_headers.iter().find_map(|(name, format)| {
        let number: u64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        let wait = match format {
            ResetFormat::Seconds => Duration::from_secs(number),
            ResetFormat::UnixTimestamp => {
                let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                Duration::from_secs(number.checked_sub(now.as_secs())?)
            }
        };
        (!wait.is_zero() && wait <= policy.reset_max_interval).then_some(wait)
    })
}

/// The delay before retry `n`, from 1: anything below `min(base * 2^(n-1), max)`.
fn back_off(policy: &RetryPolicy, n: u32, random: f64) -> Duration {
    let factor = 1u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
    policy.base_interval.saturating_mul(factor).min(policy.max_interval).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn policy(on: RetryOn) -> RetryPolicy {
        RetryPolicy {
            on,
            num_retries: 3,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: vec![StatusCode::TOO_EARLY],
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            avoid_previous_hosts: false,
            host_selection_retry_max_attempts: 1,
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            reset_headers: Vec::new(),
            reset_max_interval: Duration::from_secs(300),
        }
    }

    fn wants_status(on: RetryOn, status: u16) -> bool {
        let headers = HeaderMap::new();
        let status = StatusCode::from_u16(status).unwrap();
        wants(&policy(on), Attempted::Response(status, &headers))
    }

    #[test]
    fn each_condition_takes_its_statuses_and_no_others() {
        for (on, status, expected) in [
            (RetryOn::FIVE_XX, 500, true),
            (RetryOn::FIVE_XX, 499, false),
            (RetryOn::GATEWAY_ERROR, 500, false),
            (RetryOn::GATEWAY_ERROR, 503, true),
            (RetryOn::RETRIABLE_4XX, 409, true),
            (RetryOn::RETRIABLE_4XX, 404, false),
            (RetryOn::RETRIABLE_STATUS_CODES, 425, true),
            (RetryOn::RETRIABLE_STATUS_CODES, 500, false),
            (RetryOn::CONNECT_FAILURE, 503, false),
        ] {
            assert_eq!(wants_status(on, status), expected, "{on:?} {status}");
        }
    }

    #[test]
    fn a_failure_without_a_response_is_taken_by_the_conditions_that_name_it() {
        let reset = Failure::ConnectionTermination;
        let connect = Failure::Connect(String::new());
        for (on, failure, expected) in [
            (RetryOn::CONNECT_FAILURE, &connect, true),
            (RetryOn::CONNECT_FAILURE, &reset, false),
            (RetryOn::REFUSED_STREAM, &Failure::Refused, true),
            (RetryOn::REFUSED_STREAM, &reset, false),
            (RetryOn::RESET, &reset, true),
            (RetryOn::RESET_BEFORE_REQUEST, &reset, false),
            (RetryOn::RESET_BEFORE_REQUEST, &connect, true),
            (RetryOn::FIVE_XX, &Failure::RemoteReset, true),
            (RetryOn::FIVE_XX, &Failure::Overflow, false),
            (RetryOn::RETRIABLE_4XX, &reset, false),
        ] {
            assert_eq!(
                wants(&policy(on), Attempted::Failed(failure)),
                expected,
                "{on:?} {failure:?}"
            );
        }
    }

    #[test]
    fn a_request_lost_with_its_connection_is_tried_again_like_one_that_found_none() {
        let lost = Attempted::Lost(&Failure::ConnectionTermination);
        for on in [RetryOn::CONNECT_FAILURE, RetryOn::REFUSED_STREAM, RetryOn::RESET] {
            assert!(wants(&policy(on), lost), "{on:?}");
        }
        assert!(!wants(&policy(RetryOn::RETRIABLE_4XX), lost));
    }

    #[test]
    fn what_was_rate_limited_is_tried_again_only_by_its_own_condition() {
        let mut headers = HeaderMap::new();
        headers.insert(X_ENVOY_RATELIMITED, HeaderValue::from_static("true"));
        let response = Attempted::Response(StatusCode::SERVICE_UNAVAILABLE, &headers);
        assert!(!wants(&policy(RetryOn::FIVE_XX), response));
        assert!(wants(&policy(RetryOn::ENVOY_RATELIMITED), response));
    }

    #[test]
    fn grpc_conditions_look_at_the_status_in_the_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, HeaderValue::from_static("14"));
        let response = Attempted::Response(StatusCode::OK, &headers);
        assert!(wants(&policy(RetryOn::GRPC_UNAVAILABLE), response));
        assert!(!wants(&policy(RetryOn::GRPC_CANCELLED), response));
    }

    #[test]
    fn delays_grow_exponentially_up_to_the_maximum() {
        let policy = policy(RetryOn::FIVE_XX);
        let most: Vec<u128> = (1..6).map(|n| back_off(&policy, n, 1.0).as_millis()).collect();
        assert_eq!(most, [25, 50, 100, 200, 250]);
        assert_eq!(back_off(&policy, 3, 0.0), Duration::ZERO);
        assert_eq!(back_off(&policy, 40, 1.0).as_millis(), 250);
    }

    #[test]
    fn a_response_says_when_to_come_back_unless_that_is_past_or_too_late() {
        let mut policy = policy(RetryOn::FIVE_XX);
        policy.reset_headers = vec![
            (http::HeaderName::from_static("retry-after"), ResetFormat::Seconds),
            (http::HeaderName::from_static("x-reset"), ResetFormat::UnixTimestamp),
        ];
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (name, value, expected) in [
            ("retry-after", "5", seconds(5)),
            ("retry-after", "300", seconds(300)),
            ("retry-after", "301", None),
            ("retry-after", "soon", None),
            ("x-reset", "1007", seconds(7)),
            ("x-reset", "999", None),
            ("x-reset", "1000", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(asked_for(&policy, &headers, now), expected, "{name}: {value}");
        }
    }
}
