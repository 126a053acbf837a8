//! The body of a response on its way from the endpoint to the client, with what ends with it: the request's place on its
//! connection, its counts, its timeouts.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::body::BodyError;
use super::exchange::Exchange;
use super::headers;
use super::limits::{Expired, OfAttempt};
use super::timeout::{Timer, earlier};
use crate::access_log::ResponseFlags;
use crate::upstream::failure::h2_error;

/// Deadlines of a response under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deadlines {
    /// The route's timeout, from the end of the request.
    pub(crate) route: Option<Duration>,
    /// The stream's longest life.
    pub(crate) stream: Option<Instant>,
    /// Longest pause.
    pub(crate) idle: Option<Duration>,
    /// Of the attempt.
    pub(crate) of_attempt: Option<Rc<OfAttempt>>,
}

/// The body of an endpoint's response.
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    /// `None` once the endpoint is done.
    attempt: Option<Box<Attempt>>,
    timer: Timer,
    deadlines: Deadlines,
    last: Instant,
    /// Bytes that were announced and have not come.
    missing: Option<u64>,
}

impl UpstreamBody {
    pub(crate) fn new(
        incoming: Incoming,
        attempt: Box<Attempt>,
        timer: Timer,
        deadlines: Deadlines,
        has_body: bool,
    ) -> Self {
        // Beside a body that cannot be (HEAD, 204, 304) a length announces nothing.
        let missing = incoming.size_hint().exact().filter(|_| has_body);
        let attempt = Some(attempt);
        Self { incoming, attempt, timer, deadlines, last: Instant::now(), missing }
    }

    /// Whether the endpoint sends nothing more.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// Whether everything was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.attempt.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The endpoint is done: its connection is free.
    pub(crate) fn finish(&mut self, exchange: &mut Exchange, trailers: Option<&HeaderMap>) {
        if let Some(mut attempt) = self.attempt.take() {
            attempt.complete(exchange, trailers);
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => return self.poll_deadlines(cx, exchange),
            Poll::Ready(polled) => polled,
        };
        self.last = Instant::now();
        Poll::Ready(match polled {
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    exchange.sent += bytes;
                    self.missing = self.missing.map(|missing| missing.saturating_sub(bytes));
                    if self.incoming.is_end_stream() {
                        self.finish(exchange, None);
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_trailers(trailers);
                    exchange.trailers(trailers);
                    self.finish(exchange, Some(trailers));
                }
                Some(Ok(frame))
            }
            None if self.missing.is_some_and(|missing| missing > 0) => {
                Some(Err(self.broken(exchange, BodyError::Truncated)))
            }
            None => {
                self.finish(exchange, None);
                None
            }
            Some(Err(error)) => Some(Err(self.broken(exchange, BodyError::Upstream(error)))),
        })
    }

    /// The endpoint broke off: so does the client's response.
    fn broken(&mut self, exchange: &mut Exchange, error: BodyError) -> BodyError {
        let http2 = match &error {
            BodyError::Upstream(error) => h2_error(error),
            _ => None,
        };
        let remote_reset = http2.is_some_and(h2::Error::is_reset);
        let (flag, what) = match http2 {
            Some(_) if remote_reset => (ResponseFlags::UPSTREAM_REMOTE_RESET, "remote_reset"),
            Some(_) => (ResponseFlags::UPSTREAM_CONNECTION_TERMINATION, "connection_termination"),
            // The end of an HTTP/1 connection in the middle of a body is no end of the body.
            None => (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "protocol_error"),
        };
        exchange.fail(flag, format!("upstream_reset_after_response_started{{{what}}}"));
        exchange.connection.stats().rq_reset_after_downstream_response_started.inc();
        if let Some(mut attempt) = self.attempt.take() {
            attempt.reset_after_headers(remote_reset);
        }
        error
    }

    fn poll_deadlines(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let last = exchange.last_activity(self.last);
        let idle = self.deadlines.idle.map(|limit| last + limit);
        let completed = exchange.request_completed_at();
        let route = self.deadlines.route.and_then(|limit| Some(completed? + limit));
        let limits = self.deadlines.of_attempt.as_deref();
        let attempt_idle = limits.and_then(|limits| Some(last + limits.idle?));
        let began = self.attempt.as_ref().map(|attempt| attempt.began());
        let attempt_life = limits.and_then(|limits| Some(began? + limits.life?));
        let of_attempt = earlier(attempt_life, attempt_idle);
        let deadline = earlier(earlier(route, self.deadlines.stream), earlier(idle, of_attempt));
        std::task::ready!(self.timer.poll(cx, deadline));
        let now = Instant::now();
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let text = if passed(route) {
            exchange.fail(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout");
            if let Some(attempt) = &self.attempt {
                attempt.timed_out();
            }
            "upstream request timeout"
        } else if passed(attempt_idle) {
            exchange.fail(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "upstream_per_try_idle_timeout");
            if let Some(attempt) = &self.attempt {
                attempt.count_expired(Expired::PerTryIdle);
            }
            "upstream request timeout"
        } else if passed(attempt_life) {
            exchange.fail(
                ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED,
                "upstream_max_stream_duration_reached",
            );
            if let Some(attempt) = &self.attempt {
                attempt.count_expired(Expired::Attempt);
            }
            "upstream max stream duration reached"
        } else if passed(self.deadlines.stream) {
            exchange.fail(ResponseFlags::DURATION_TIMEOUT, "max_duration_timeout");
            exchange.connection.stats().downstream_rq_max_duration_reached.inc();
            "downstream duration timeout"
        } else {
            exchange.fail(ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout");
            exchange.connection.stats().downstream_rq_idle_timeout.inc();
            "stream timeout"
        };
        self.attempt = None;
        Poll::Ready(Some(Err(BodyError::TimedOut(text))))
    }
}
