//! Whether a request is tried again, and when. Conditions and back-off are Envoy's (documentation of `x-envoy-retry-on`).

use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};

use super::asked::AskedRetries;
use super::headers::{GRPC_STATUS, X_ENVOY_RATELIMITED};
use super::matching::RequestView;
use crate::cluster::{Breaker, EndpointId, RoutingPriority};
use crate::config::matcher::{HeaderMatcher, HeaderValueMatcher, MatchedHeader};
use crate::config::route::{Forward, ResetFormat, RetryOn, RetryPolicy, VirtualHost};
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

/// What a route, or its virtual host, says about trying again.
#[derive(Clone, Copy)]
pub(crate) struct Policies<'p> {
    pub(crate) retry: Option<&'p RetryPolicy>,
    /// An attempt over its timeout goes on beside the next.
    pub(crate) hedges: bool,
}

impl<'p> Policies<'p> {
    pub(crate) fn of(action: &'p Forward, host: &'p VirtualHost) -> Self {
        let retry = action.retry_policy.as_ref().or(host.retry_policy.as_ref());
        let hedges = action.hedge_on_per_try_timeout.or(host.hedge_on_per_try_timeout);
        Self { retry: retry.map(|policy| &**policy), hedges: hedges.unwrap_or(false) }
    }
}

/// The policy of one request.
enum Policy<'p> {
    OfRoute(&'p RetryPolicy),
    /// With what the client asks for.
    Merged(Box<RetryPolicy>),
}

impl Deref for Policy<'_> {
    type Target = RetryPolicy;

    fn deref(&self) -> &RetryPolicy {
        match self {
            Self::OfRoute(policy) => policy,
            Self::Merged(policy) => policy,
        }
    }
}

/// The retries of one request.
pub(crate) struct Retries<'p> {
    policy: Policy<'p>,
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
    /// The retries of a request; `None` if neither its route nor its client wants any for it.
    ///
    /// `request` is asked for only by a policy that looks at it.
    pub(crate) fn new<'r>(
        policy: Option<&'p RetryPolicy>,
        asked: Option<Box<AskedRetries>>,
        request: impl FnOnce() -> RequestView<'r>,
    ) -> Option<Self> {
        let policy = match asked {
            None => Policy::OfRoute(policy?),
            Some(asked) => Policy::Merged(Box::new(merged(policy, *asked))),
        };
        if policy.on == RetryOn::default() {
            return None;
        }
        let wanted = policy.retriable_request_headers.is_empty() || {
            let request = request();
            policy.retriable_request_headers.iter().any(|header| header.matches(&request))
        };
        wanted.then(|| Self {
            remaining: policy.num_retries,
            policy,
            done: 0,
            tried: smallvec::SmallVec::new(),
            permit: None,
        })
    }

    /// Whether no attempt comes after the one that begins now.
    pub(crate) fn is_last(&self) -> bool {
        self.remaining == 0
    }

    /// Whether the policy names what happened.
    pub(crate) fn would(&self, attempted: Attempted<'_>) -> bool {
        wants(&self.policy, attempted)
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
        if !self.would(attempted) {
            if was_retry && matches!(attempted, Attempted::Response(..)) {
                cluster.stats.local().upstream_rq_retry_success.inc();
            }
            return Verdict::No;
        }
        self.another(attempted, cluster, priority)
    }

    /// Whether another attempt begins beside one that is over its timeout: whatever the conditions say, as in Envoy.
    pub(crate) fn hedge(&mut self, cluster: &ClusterRef, priority: RoutingPriority) -> Verdict {
        self.permit = None;
        self.another(Attempted::TimedOut, cluster, priority)
    }

    fn another(
        &mut self,
        attempted: Attempted<'_>,
        cluster: &ClusterRef,
        priority: RoutingPriority,
    ) -> Verdict {
        let stats = cluster.stats.local();
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
            && let Some(wait) = asked_for(&self.policy, headers, SystemTime::now())
        {
            stats.upstream_rq_retry_backoff_ratelimited.inc();
            // All who were told the same must not come back at once.
            return Verdict::After(wait.mul_f64(1.0 + fastrand::f64() / 2.0));
        }
        stats.upstream_rq_retry_backoff_exponential.inc();
        Verdict::After(back_off(&self.policy, self.done, fastrand::f64()))
    }
}

/// The policy of a route, if it has one, with what the client asks for.
fn merged(policy: Option<&RetryPolicy>, asked: AskedRetries) -> RetryPolicy {
    let mut policy = policy.cloned().unwrap_or_default();
    policy.on = policy.on.union(asked.on);
    if let Some(max) = asked.max {
        policy.num_retries = max;
    }
    policy.retriable_status_codes.extend(asked.statuses);
    policy.retriable_headers.extend(asked.headers.into_iter().map(|name| HeaderMatcher {
        name: MatchedHeader::Header(name),
        value: HeaderValueMatcher::Present(true),
        invert: false,
        treat_missing_as_empty: false,
    }));
    policy
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
            retriable_status_codes: vec![StatusCode::TOO_EARLY],
            ..RetryPolicy::default()
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
