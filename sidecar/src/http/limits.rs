//! The timeouts of one request, and waiting within them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::asked::Asked;
use super::connection_manager::ConnectionManager;
use super::exchange::Exchange;
use super::headers;
use super::matching::is_grpc;
use super::retry::Policies;
use super::timeout::{Timer, earlier};
use super::upstream_body::Deadlines;
use crate::config::route::{Forward, GrpcTimeout};

/// The timeouts of one request.
pub(crate) struct Limits {
    route: Option<Duration>,
    per_try: Option<Duration>,
    /// Rarely there, and so apart.
    of_attempt: Option<Rc<OfAttempt>>,
    stream: Option<Instant>,
    idle: Option<Duration>,
    request: Option<Instant>,
    /// An attempt over its timeout goes on beside the next.
    pub(crate) hedges: bool,
    /// A timeout is answered with 204.
    pub(crate) no_content_on_timeout: bool,
}

/// Limits of each attempt, response included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OfAttempt {
    /// Longest life.
    pub(crate) life: Option<Duration>,
    /// Longest pause.
    pub(crate) idle: Option<Duration>,
}

/// Which of them is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    Route,
    PerTry,
    PerTryIdle,
    Attempt,
    Stream,
    Idle,
    Request,
}

impl Expired {
    /// Whether it ends one attempt only.
    pub(crate) fn is_of_attempt(self) -> bool {
        matches!(self, Self::PerTry | Self::PerTryIdle | Self::Attempt)
    }
}

/// Zero is none.
fn some(limit: Duration) -> Option<Duration> {
    (!limit.is_zero()).then_some(limit)
}

impl Limits {
    /// Those of the route and what the client asks for. `grpc-timeout` is set to what is left of it.
    pub(crate) fn new(
        action: &Forward,
        policies: Policies<'_>,
        manager: &ConnectionManager,
        exchange: &Exchange,
        request: &mut Parts,
        asked: Asked,
    ) -> Self {
        let config = &manager.config;
        let grpc = is_grpc(&request.headers);
        let limits = action.max_stream_duration.as_ref();
        let mut route = match (limits, action.grpc_timeout) {
            // As in Envoy 1.40 `max_stream_duration` takes the place of `timeout`.
            (Some(_), _) => None,
            (None, Some(GrpcTimeout { max, offset })) if grpc => {
                grpc_timeout(&request.headers, max, offset)
            }
            (None, _) => action.timeout,
        };
        let mut per_try = policies.retry.and_then(|policy| policy.per_try_timeout);
        if let Some(asked) = asked.timeout {
            route = some(asked);
        }
        if let Some(asked) = asked.per_try_timeout {
            per_try = some(asked);
        }
        // One as long as the whole is none.
        let per_try = per_try.filter(|per_try| route.is_none_or(|route| *per_try < route));
        let mut stream = limits.and_then(|limits| limits.max_stream_duration);
        stream = stream.or(config.max_stream_duration);
        if grpc && let Some(max) = limits.and_then(|limits| limits.grpc_timeout_header_max) {
            let offset = limits.and_then(|limits| limits.grpc_timeout_header_offset);
            if let Some(asked) = asked_grpc_timeout(&request.headers) {
                stream = Some(within_bounds(asked, max, offset.unwrap_or_default()));
            }
            if let Some(left) = stream {
                request.headers.insert(headers::GRPC_TIMEOUT, grpc_timeout_header(left));
            }
        }
        let idle = action.idle_timeout.or(config.stream_idle_timeout);
        let life = asked.stream_duration.and_then(some);
        let pause = policies.retry.and_then(|policy| policy.per_try_idle_timeout);
        let limits = Self {
            route,
            per_try,
            of_attempt: (life.is_some() || pause.is_some())
                .then(|| Rc::new(OfAttempt { life, idle: pause })),
            stream: stream.and_then(some).map(|limit| exchange.start + limit),
            idle: idle.and_then(some),
            request: config.request_timeout.map(|limit| exchange.start + limit),
            hedges: asked.hedge.unwrap_or(policies.hedges),
            no_content_on_timeout: asked.no_content_on_timeout,
        };
        if grpc
            && action.grpc_timeout.is_some()
            && let Some(expected) = limits.expected(Duration::ZERO)
        {
            request.headers.insert(headers::GRPC_TIMEOUT, grpc_timeout_header(expected));
        }
        limits
    }

    /// The timeout of the route.
    pub(crate) fn route(&self) -> Option<Duration> {
        self.route
    }

    /// What `x-envoy-expected-rq-timeout-ms` says: what is left for an attempt that begins so long after the first.
    pub(crate) fn expected(&self, after: Duration) -> Option<Duration> {
        // Zero would mean that there is no limit.
        let least = Duration::from_millis(1);
        let left = self.route.map(|route| route.saturating_sub(after).max(least));
        match (self.per_try.filter(|_| !self.hedges), left) {
            (Some(per_try), Some(left)) => Some(per_try.min(left)),
            (per_try, left) => per_try.or(left),
        }
    }

    pub(crate) fn of_response(&self) -> Deadlines {
        Deadlines {
            route: self.route,
            stream: self.stream,
            idle: self.idle,
            of_attempt: self.of_attempt.clone(),
        }
    }

    /// The deadlines at this moment. They depend on how far the request has come.
    fn deadlines(
        &self,
        exchange: &Exchange,
        attempt: Option<Instant>,
    ) -> [(Expired, Option<Instant>); 7] {
        let completed = exchange.request_completed_at();
        let route = self.route.and_then(|limit| Some(completed? + limit));
        let per_try = self.per_try.and_then(|limit| Some(completed?.max(attempt?) + limit));
        let last = exchange.last_activity(attempt.unwrap_or(exchange.start));
        let idle = self.idle.map(|limit| last + limit);
        let request = self.request.filter(|_| completed.is_none());
        let of_attempt = self.of_attempt.as_deref().filter(|_| attempt.is_some());
        let (life, pause) = of_attempt.map_or((None, None), |limits| (limits.life, limits.idle));
        [
            (Expired::Route, route),
            (Expired::PerTry, per_try),
            (Expired::PerTryIdle, pause.map(|limit| last + limit)),
            (Expired::Attempt, life.and_then(|limit| Some(attempt? + limit))),
            (Expired::Stream, self.stream),
            (Expired::Request, request),
            (Expired::Idle, idle),
        ]
    }
}

fn asked_grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    headers.get(headers::GRPC_TIMEOUT).and_then(|value| parse_grpc_timeout(value.to_str().ok()?))
}

/// `grpc-timeout` as the timeout of a route, within its bounds; `None` for no limit.
fn grpc_timeout(headers: &HeaderMap, max: Duration, offset: Duration) -> Option<Duration> {
    let mut timeout = asked_grpc_timeout(headers).unwrap_or_default();
    if offset < timeout {
        timeout -= offset;
    }
    if !max.is_zero() && (timeout.is_zero() || timeout > max) {
        timeout = max;
    }
    some(timeout)
}

/// `grpc-timeout` as the longest life of a stream. Unlike above the offset is subtracted last.
fn within_bounds(asked: Duration, max: Duration, offset: Duration) -> Duration {
    let timeout = if max.is_zero() { asked } else { asked.min(max) };
    if offset < timeout { timeout - offset } else { timeout }
}

/// A timeout as `grpc-timeout` says it: in milliseconds, or in the least unit in which it has no more than eight digits.
fn grpc_timeout_header(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let mut number = timeout.as_millis();
    let mut unit = 'm';
    for (next, factor) in [('S', 1000), ('M', 60), ('H', 60)] {
        if number > MOST {
            number /= factor;
            unit = next;
        }
    }
    let text = format!("{}{unit}", number.min(MOST));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0m"))
}

/// gRPC over HTTP/2: up to eight digits and a unit.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit())
    {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Runs `future` within the limits.
pub(crate) async fn within<F: Future>(
    future: F,
    timer: &mut Timer,
    exchange: &Exchange,
    limits: &Limits,
    attempt: Option<Instant>,
) -> Result<F::Output, Expired> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if let Some(progress) = &exchange.progress
            && progress.complete.get().is_none()
        {
            progress.wake_at_end(cx.waker());
        }
        loop {
            let deadlines = limits.deadlines(exchange, attempt);
            let first =
                deadlines.iter().fold(None, |first, (_, deadline)| earlier(first, *deadline));
            std::task::ready!(timer.poll(cx, first));
            let now = Instant::now();
            let over = limits.deadlines(exchange, attempt).into_iter();
            let mut over =
                over.filter(|(_, deadline)| deadline.is_some_and(|deadline| deadline <= now));
            if let Some((expired, _)) = over.next() {
                return Poll::Ready(Err(expired));
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("1x", None),
            ("-1S", None),
            ("1\u{e4}", None),
        ] {
            assert_eq!(parse_grpc_timeout(text), expected, "{text}");
        }
    }

    #[test]
    fn a_grpc_timeout_is_cut_at_its_maximum_and_zero_means_without_a_bound() {
        let seconds = Duration::from_secs;
        let with = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(headers::GRPC_TIMEOUT, HeaderValue::from_static(text));
            headers
        };
        assert_eq!(grpc_timeout(&with("10S"), seconds(0), seconds(0)), Some(seconds(10)));
        assert_eq!(grpc_timeout(&with("10S"), seconds(5), seconds(0)), Some(seconds(5)));
        assert_eq!(grpc_timeout(&with("10S"), seconds(0), seconds(1)), Some(seconds(9)));
        assert_eq!(grpc_timeout(&HeaderMap::new(), seconds(5), seconds(0)), Some(seconds(5)));
        assert_eq!(grpc_timeout(&HeaderMap::new(), seconds(0), seconds(0)), None);
    }

    #[test]
    fn a_stream_lives_as_long_as_its_call_may_take_at_most_so_long_and_a_little_less() {
        let seconds = Duration::from_secs;
        for (asked, max, offset, expected) in
            [(10, 0, 0, 10), (10, 5, 0, 5), (10, 5, 1, 4), (10, 5, 5, 5), (3, 5, 1, 2)]
        {
            let got = within_bounds(seconds(asked), seconds(max), seconds(offset));
            assert_eq!(got, seconds(expected), "{asked} {max} {offset}");
        }
    }

    #[test]
    fn a_timeout_is_passed_on_with_eight_digits_at_most() {
        for (millis, expected) in [
            (1500, "1500m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (100_000_000_000, "1666666M"),
            (u64::MAX, "99999999H"),
        ] {
            assert_eq!(grpc_timeout_header(Duration::from_millis(millis)), expected);
        }
    }
}
