//! The timeouts of one request, and waiting within them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::request::Parts;
use tokio::time::Instant;

use super::connection_manager::ConnectionManager;
use super::exchange::Exchange;
use super::headers;
use super::matching::is_grpc;
use super::retry::Retries;
use super::timeout::{Timer, earlier};
use super::upstream_body::Deadlines;
use crate::config::route::Forward;

/// The timeouts of one request.
pub(crate) struct Limits {
    route: Option<Duration>,
    per_try: Option<Duration>,
    stream: Option<Instant>,
    idle: Option<Duration>,
    request: Option<Instant>,
}

/// Which of them is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    Route,
    PerTry,
    Stream,
    Idle,
    Request,
}

impl Limits {
    pub(crate) fn new(
        action: &Forward,
        manager: &ConnectionManager,
        exchange: &Exchange,
        request: &Parts,
        retries: Option<&Retries<'_>>,
    ) -> Self {
        let config = &manager.config;
        let limits = action.max_stream_duration.as_ref();
        let mut route = action.timeout;
        if let Some(most) = limits.and_then(|limits| limits.grpc_timeout_header_max)
            && is_grpc(&request.headers)
        {
            let offset = limits.and_then(|limits| limits.grpc_timeout_header_offset);
            route = grpc_timeout(&request.headers, most, offset.unwrap_or_default());
        }
        let stream = limits.and_then(|limits| limits.max_stream_duration);
        let stream = stream.or(config.max_stream_duration).filter(|limit| !limit.is_zero());
        let idle = action.idle_timeout.or(config.stream_idle_timeout);
        let per_try = retries.and_then(|retries| retries.policy().per_try_timeout);
        Self {
            route,
            // One as long as the whole is none.
            per_try: per_try.filter(|per_try| route.is_none_or(|route| *per_try < route)),
            stream: stream.map(|limit| exchange.start + limit),
            idle: idle.filter(|limit| !limit.is_zero()),
            request: config.request_timeout.map(|limit| exchange.start + limit),
        }
    }

    /// What `x-envoy-expected-rq-timeout-ms` says: what is left for an attempt that begins so long after the first.
    pub(crate) fn expected(&self, after: Duration) -> Option<Duration> {
        let left = self.route.map(|route| route.saturating_sub(after));
        match (self.per_try, left) {
            (Some(per_try), Some(left)) => Some(per_try.min(left)),
            (per_try, left) => per_try.or(left),
        }
    }

    pub(crate) fn of_response(&self) -> Deadlines {
        Deadlines { route: self.route, stream: self.stream, idle: self.idle }
    }

    /// The deadlines at this moment. They depend on how far the request has come.
    fn deadlines(
        &self,
        exchange: &Exchange,
        attempt: Option<Instant>,
    ) -> [(Expired, Option<Instant>); 5] {
        let completed = exchange.request_completed_at();
        let route = self.route.and_then(|limit| Some(completed? + limit));
        let per_try = self.per_try.and_then(|limit| Some(completed?.max(attempt?) + limit));
        let idle = self
            .idle
            .map(|limit| exchange.last_activity(attempt.unwrap_or(exchange.start)) + limit);
        let request = self.request.filter(|_| completed.is_none());
        [
            (Expired::Route, route),
            (Expired::PerTry, per_try),
            (Expired::Stream, self.stream),
            (Expired::Request, request),
            (Expired::Idle, idle),
        ]
    }
}

/// `grpc-timeout` within its bounds; `None` for no limit.
fn grpc_timeout(headers: &http::HeaderMap, most: Duration, offset: Duration) -> Option<Duration> {
    let asked = headers
        .get(headers::GRPC_TIMEOUT)
        .and_then(|value| parse_grpc_timeout(value.to_str().ok()?));
    let mut timeout = asked.unwrap_or_default();
    if offset < timeout {
        timeout -= offset;
    }
    if !most.is_zero() && (timeout.is_zero() || timeout > most) {
        timeout = most;
    }
    (!timeout.is_zero()).then_some(timeout)
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
    use http::{HeaderMap, HeaderValue};

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
}
