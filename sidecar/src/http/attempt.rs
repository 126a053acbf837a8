//! One attempt to get a response from an endpoint: its place in the circuit breaker, on the endpoint, on a connection.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::RequestBody;
use super::exchange::Exchange;
use super::failures::{count_expired, count_response};
use super::headers::{GRPC_STATUS, X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL};
use super::limits::Expired;
use super::load_report;
use super::local_reply::http_status;
use super::tracing::AttemptSpan;
use crate::cluster::{Outcome, RoutingPriority};
use crate::local::ClusterRef;
use crate::upstream::{Acquired, ConnectionFacts, Failure, Pool};

/// One attempt, for as long as the endpoint has to do with it.
pub(crate) struct Attempt {
    /// The cluster of the endpoint.
    cluster: ClusterRef,
    /// The cluster of the route, where that is another: an aggregate, which counts what the client sees.
    aggregate: Option<ClusterRef>,
    pool: Rc<Pool<RequestBody>>,
    priority: RoutingPriority,
    connection: Option<Acquired<RequestBody>>,
    /// What is known of a connection that was lost.
    lost: Option<(Rc<ConnectionFacts>, bool)>,
    began: Instant,
    /// The outcome is known by the trailers.
    grpc: bool,
    /// The endpoint has been heard, or its silence been judged.
    judged: bool,
    /// The endpoint has reported its load.
    reported: bool,
    /// The connection serves no other request.
    once: bool,
    /// The connection had served another request before.
    used: bool,
    /// The request is of one of ours.
    internal: bool,
    span: Option<Box<AttemptSpan>>,
}

impl Attempt {
    /// Takes a place in the circuit breaker; `None`: there is none. `routed` is the cluster of the route; `member` that of
    /// the endpoint, where it is another.
    pub(crate) fn begin(
        routed: &ClusterRef,
        member: Option<ClusterRef>,
        pool: Rc<Pool<RequestBody>>,
        priority: RoutingPriority,
        internal: bool,
    ) -> Option<Box<Self>> {
        let (cluster, aggregate) = match member {
            Some(member) => (member, Some(routed.clone())),
            None => (routed.clone(), None),
        };
        if !cluster.breaker(priority).try_request() {
            // As in Envoy an error of the endpoint that was chosen.
            pool.endpoint.stats.local().rq_error.inc();
            return None;
        }
        cluster.stats.local().upstream_rq_active.inc();
        pool.endpoint.active.fetch_add(1, Relaxed);
        let host = pool.endpoint.stats.local();
        host.rq_active.inc();
        Some(Box::new(Self {
            cluster,
            aggregate,
            pool,
            priority,
            connection: None,
            lost: None,
            began: Instant::now(),
            grpc: false,
            judged: false,
            reported: false,
            once: false,
            used: false,
            internal,
            span: None,
        }))
    }

    /// What is to be said of it when it is over.
    pub(crate) fn trace(&mut self, span: Box<AttemptSpan>) {
        self.span = Some(span);
    }

    /// The cluster of the endpoint.
    pub(crate) fn cluster(&self) -> &ClusterRef {
        &self.cluster
    }

    /// Which circuit breaker it counts in.
    pub(crate) fn priority(&self) -> RoutingPriority {
        self.priority
    }

    /// The cluster of the route.
    fn routed(&self) -> &ClusterRef {
        self.aggregate.as_ref().unwrap_or(&self.cluster)
    }

    pub(crate) fn pool(&self) -> &Rc<Pool<RequestBody>> {
        &self.pool
    }

    /// A connection to send the request on.
    pub(crate) fn use_connection(
        &mut self,
        connection: Acquired<RequestBody>,
    ) -> &mut Acquired<RequestBody> {
        if self.connection.is_none() && self.lost.is_none() {
            // A request counts once it has a connection, as in Envoy: what could not be connected was never sent.
            self.cluster.stats.local().upstream_rq_total.inc();
            self.pool.endpoint.stats.local().rq_total.inc();
        }
        self.used = connection.was_used();
        if let Some(span) = &mut self.span {
            span.sending(matches!(connection, Acquired::Http2(_)));
        }
        self.cluster.report(&self.pool.endpoint, Outcome::ConnectSuccess);
        self.connection.insert(connection)
    }

    /// The connection turned out to be closed before anything was sent.
    pub(crate) fn drop_connection(&mut self) {
        self.lost = self.connection.take().map(|connection| connection.facts());
    }

    /// The connection that the request was sent on, and whether that is HTTP/2.
    pub(crate) fn connection_facts(&self) -> Option<(Rc<ConnectionFacts>, bool)> {
        self.connection.as_ref().map(Acquired::facts).or_else(|| self.lost.clone())
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Time since it began, for `x-envoy-upstream-service-time`.
    pub(crate) fn elapsed_milliseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The head of a response is there.
    pub(crate) fn answered(&mut self, response: &Response<Incoming>, grpc: bool) {
        self.note_health(response);
        self.note_load(response.headers());
        self.note_latency(false);
        let status = response.status();
        if let Some(span) = &mut self.span {
            span.answered(status.as_u16(), response.headers());
        }
        let in_headers = response.headers().get(GRPC_STATUS);
        self.grpc = grpc && in_headers.is_none() && status == StatusCode::OK;
        if self.grpc {
            return; // its status comes with the trailers
        }
        let outcome = match (grpc, in_headers.and_then(parse_grpc_status)) {
            (true, Some(grpc_status)) => http_status(grpc_status),
            _ => status.as_u16(),
        };
        self.judge(outcome);
    }

    /// A connection was made that carries bytes for this request alone, which is as good as a response.
    pub(crate) fn connected(&mut self) {
        self.cluster.stats.local().upstream_rq_total.inc();
        self.pool.endpoint.stats.local().rq_total.inc();
        self.cluster.report(&self.pool.endpoint, Outcome::ConnectSuccess);
        self.judge(StatusCode::OK.as_u16());
    }

    /// Its response is the request's.
    pub(crate) fn is_taken(&self, status: StatusCode) {
        count_response(self.routed(), self.internal, status);
    }

    /// Its response is not taken: another attempt follows.
    pub(crate) fn is_retried(&self, status: StatusCode) {
        self.routed().stats.local().responses_retry.record(status.as_u16());
    }

    /// What a response says of its endpoint's health, where that is checked.
    fn note_health(&self, response: &Response<Incoming>) {
        if self.cluster.is_checked()
            && response.headers().contains_key(X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL)
        {
            self.cluster.told_unhealthy(&self.pool.endpoint);
        }
    }

    /// What the headers or trailers of a response say of the load of its endpoint, where it is weighed by that. The first
    /// report of a response counts.
    fn note_load(&mut self, headers: &HeaderMap) {
        let Some(settings) = self.cluster.weighs().filter(|_| !self.reported) else { return };
        let Some(reported) = self.pool.endpoint.reported.get() else { return };
        if let Some(report) = load_report::in_headers(headers) {
            self.reported = true;
            reported.note(&report, settings);
        }
    }

    /// How long the endpoint took, where it is chosen by that.
    fn note_latency(&self, failed: bool) {
        self.cluster.note_latency(&self.pool.endpoint, self.began, failed);
    }

    fn judge(&mut self, status: u16) {
        self.judged = true;
        let host = self.pool.endpoint.stats.local();
        if status >= 500 {
            host.rq_error.inc();
            self.note_latency(true);
        } else {
            host.rq_success.inc();
        }
        self.cluster.report(&self.pool.endpoint, Outcome::Status(status));
    }

    /// The endpoint has said everything. Its connection is free if the request was sent to its end as well.
    pub(crate) fn complete(&mut self, exchange: &mut Exchange, trailers: Option<&HeaderMap>) {
        if let Some(facts) = &mut exchange.facts {
            facts.last_response_byte = Some(Instant::now());
        }
        self.complete_with(exchange.request_is_complete(), trailers);
    }

    /// The same for a request of our own, which was sent whole.
    pub(crate) fn complete_call(&mut self, trailers: &HeaderMap) {
        self.complete_with(true, Some(trailers));
    }

    fn complete_with(&mut self, request_is_complete: bool, trailers: Option<&HeaderMap>) {
        if let Some(span) = &mut self.span {
            span.done(trailers);
        }
        if let Some(trailers) = trailers {
            self.note_load(trailers);
        }
        if self.grpc {
            let status = trailers.and_then(|trailers| trailers.get(GRPC_STATUS));
            // Without a status it is an error: 2 is UNKNOWN.
            let status = status.and_then(parse_grpc_status).unwrap_or(2);
            self.judge(http_status(status));
        }
        let stats = self.routed().stats.local();
        let times = if self.internal {
            &stats.upstream_rq_time_internal
        } else {
            &stats.upstream_rq_time_external
        };
        times.record(self.elapsed_milliseconds());
        let reusable = request_is_complete && !self.once;
        if let Some(Acquired::Http1(connection)) = self.connection.take() {
            self.pool.give_back(connection, &self.cluster, reusable);
        }
    }

    /// Another attempt takes its place: for its span.
    pub(crate) fn superseded(&mut self) {
        if let Some(span) = &mut self.span {
            span.retried();
        }
    }

    /// Why there is no response, for its span.
    pub(crate) fn note_failure(&mut self, failure: &Failure) {
        if let Some(span) = &mut self.span {
            span.failed(failure);
        }
    }

    /// It is over before the head of a response.
    pub(crate) fn failed(&mut self, outcome: Outcome) {
        self.judged = true;
        self.note_latency(true);
        let host = self.pool.endpoint.stats.local();
        host.rq_error.inc();
        if outcome == Outcome::Timeout {
            host.rq_timeout.inc();
        }
        self.cluster.report(&self.pool.endpoint, outcome);
    }

    /// The endpoint broke off in the middle of its response.
    pub(crate) fn reset_after_headers(&mut self, remote_reset: bool) {
        let failure =
            if remote_reset { Failure::RemoteReset } else { Failure::ConnectionTermination };
        self.note_failure(&failure);
        if remote_reset {
            self.cluster.stats.local().upstream_rq_rx_reset.inc();
        }
        if !self.judged {
            self.failed(Outcome::Reset);
        }
    }

    /// The route's timeout was over in the middle of the response.
    pub(crate) fn timed_out(&self) {
        self.routed().stats.local().upstream_rq_timeout.inc();
        self.pool.endpoint.stats.local().rq_timeout.inc();
    }

    /// It was over its own time in the middle of the response.
    pub(crate) fn count_expired(&self, expired: Expired) {
        count_expired(self.routed(), expired);
        self.pool.endpoint.stats.local().rq_timeout.inc();
    }

    /// Whether the connection had served another request before.
    pub(crate) fn was_used(&self) -> bool {
        self.used
    }

    /// The connection serves no other request.
    pub(crate) fn keep_from_pool(&mut self) {
        self.once = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            span.finish(self.aggregate.as_ref().unwrap_or(&self.cluster), &self.pool.endpoint);
        }
        let stats = self.cluster.stats.local();
        stats.upstream_rq_active.dec();
        self.pool.endpoint.active.fetch_sub(1, Relaxed);
        self.pool.endpoint.stats.local().rq_active.dec();
        self.cluster.breaker(self.priority).release_request();
        if self.connection.is_some() && !self.judged {
            // Nobody waits for the answer any more: the stream is reset, or the connection closed.
            stats.upstream_rq_cancelled.inc();
        }
    }
}

fn parse_grpc_status(value: &http::HeaderValue) -> Option<u8> {
    value.to_str().ok()?.parse().ok()
}
