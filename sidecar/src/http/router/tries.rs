//! The attempts of one request: each begins with an endpoint, is judged by what comes of it, and one becomes the response.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::matched::Matched;
use super::payload::Payload;
use super::redirect::{Next, Redirecting};
use super::wanted::{Wanted, note_selected};
use super::{Answer, Refusal};
use crate::access_log::ResponseFlags;
use crate::cluster::{Context, Outcome, RoutingPriority};
use crate::config::route::Forward;
use crate::http::attempt::Attempt;
use crate::http::body::RequestBody;
use crate::http::connection_manager::Connection;
use crate::http::exchange::Exchange;
use crate::http::failures::{
    broken_request, charged, count_expired, count_failure, failed, outcome_of, timed_out,
    unavailable,
};
use crate::http::hash_policy::RequestHash;
use crate::http::headers::{self, Accepted};
use crate::http::limits::{Expired, Limits};
use crate::http::mutations::{Levels, Side};
use crate::http::retry::{Attempted, Retries, Verdict};
use crate::http::rewrite;
use crate::http::timeout::Timer;
use crate::http::upstream_body::UpstreamBody;
use crate::local::{ClusterRef, View};
use crate::upstream::Failure;

/// What came of an attempt: a response, a failure, or a limit that was over first.
pub(super) type Tried = Result<Result<Response<Incoming>, Failure>, Expired>;

/// The attempts of one request.
pub(super) struct Tries<'r> {
    pub(super) connection: &'r Rc<Connection>,
    pub(super) view: &'r View,
    pub(super) cluster: &'r ClusterRef,
    pub(super) matched: &'r Matched<'r>,
    pub(super) action: &'r Forward,
    pub(super) priority: RoutingPriority,
    pub(super) accepted: &'r Accepted,
    pub(super) limits: &'r Limits,
    pub(super) response_headers: &'r Levels<'r>,
    pub(super) hashed: RequestHash,
    pub(super) wanted: Option<Box<Wanted>>,
    pub(super) payload: Payload,
    pub(super) retries: Option<Retries<'r>>,
    /// So many began.
    pub(super) attempts: u32,
    /// The one before was over its timeout.
    pub(super) timed_out_before: bool,
}

impl Tries<'_> {
    fn envoy_headers(&self) -> bool {
        !self.connection.manager.config.suppress_envoy_headers
    }

    /// Chooses an endpoint for another attempt, and makes the request as it gets it.
    pub(super) fn begin(
        &mut self,
        exchange: &mut Exchange,
        request: &mut Parts,
    ) -> Result<(Box<Attempt>, Request<RequestBody>), Refusal> {
        let Self { connection, cluster, action, matched, .. } = *self;
        self.attempts += 1;
        if let Some(facts) = &mut exchange.facts {
            facts.attempts = self.attempts;
        }
        let chosen = {
            let (avoid, attempts) = self.retries.as_ref().map_or((&[][..], 0), Retries::avoid);
            let (hash, metadata) = (self.hashed.hash, matched.metadata_match(action));
            let route = Context { hash, metadata, avoid, attempts, ..Context::default() };
            let context = self.wanted.as_ref().map_or(route, |wanted| wanted.over(route));
            cluster.choose(&context, |endpoint| connection.pool_of(endpoint))
        };
        let Some((member, pool)) = chosen else {
            cluster.stats.local().upstream_cx_none_healthy.inc();
            return Err(self.charged(unavailable()));
        };
        note_selected(member.as_ref().unwrap_or(cluster), &pool.endpoint, exchange);
        if let Some(retries) = &mut self.retries {
            retries.note(pool.endpoint.id);
        }
        if let Some(facts) = &mut exchange.facts {
            facts.endpoint = Some(Arc::clone(&pool.endpoint));
            facts.upstream = None;
            facts.last_response_byte = None;
        }

        let span = exchange.begin_attempt(request, self.attempts - 1);
        // A redirect would need the request again.
        let last = self.retries.as_ref().is_none_or(Retries::is_last)
            && action.internal_redirect.is_none();
        let mut outgoing = self.payload.request(request, last);
        let envoy_headers = self.envoy_headers();
        let literal = matched.literal_host();
        rewrite::for_endpoint(action, literal, &pool.endpoint, &mut outgoing, envoy_headers);
        let retry = self.attempts > 1;
        let completed = exchange.request_completed_at().filter(|_| retry);
        let after = completed.map_or(Duration::ZERO, |completed| completed.elapsed());
        let headers = outgoing.headers_mut();
        if envoy_headers && let Some(expected) = self.limits.expected(after) {
            let value = connection.timeout_header(expected);
            headers.insert(headers::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, value);
        }
        if matched.host.include_request_attempt_count {
            let attempts = headers::number(self.attempts.into());
            headers.insert(headers::X_ENVOY_ATTEMPT_COUNT, attempts);
        }
        if matched.host.include_is_timeout_retry_header && retry {
            let value = if self.timed_out_before { "true" } else { "false" };
            headers.insert(headers::X_ENVOY_IS_TIMEOUT_RETRY, HeaderValue::from_static(value));
        }

        let endpoint = span.as_ref().map(|_| Arc::clone(&pool.endpoint));
        let (priority, internal) = (self.priority, self.accepted.internal);
        match (Attempt::begin(cluster, member, pool, priority, internal), span) {
            (Some(mut attempt), span) => {
                exchange.tried = true;
                span.into_iter().for_each(|span| attempt.trace(span));
                Ok((attempt, outgoing))
            }
            (None, span) => {
                if let Some((mut span, endpoint)) = span.zip(endpoint) {
                    span.failed(&Failure::Overflow);
                    span.finish(cluster, &endpoint);
                }
                Err(self.charged(failed(&Failure::Overflow, false)))
            }
        }
    }

    /// Counts what came of an attempt, and decides whether there is another. Refuses where the whole request is over.
    pub(super) fn judge(
        &mut self,
        attempt: &mut Attempt,
        tried: &Tried,
        exchange: &mut Exchange,
        method: &Method,
    ) -> Result<Verdict, Refusal> {
        self.count(attempt, tried, exchange)?;
        let attempted = match tried {
            Ok(Ok(response)) => Attempted::Response(response.status(), response.headers()),
            Ok(Err(failure)) => {
                let lost = *failure == Failure::ConnectionTermination
                    && attempt.was_used()
                    && method.is_safe();
                if lost { Attempted::Lost(failure) } else { Attempted::Failed(failure) }
            }
            Err(_) => Attempted::TimedOut,
        };
        self.timed_out_before = matches!(tried, Err(Expired::PerTry | Expired::PerTryIdle));
        let Some(retries) = &mut self.retries else { return Ok(Verdict::No) };
        if !self.payload.can_replay() {
            self.cluster.stats.local().retry_or_shadow_abandoned.inc();
            return Ok(Verdict::No);
        }
        let verdict = retries.decide(attempted, self.cluster, self.priority);
        note(verdict, exchange);
        Ok(verdict)
    }

    /// Counts what came of an attempt. Refuses where the whole request is over.
    pub(super) fn count(
        &self,
        attempt: &mut Attempt,
        tried: &Tried,
        exchange: &mut Exchange,
    ) -> Result<(), Refusal> {
        match tried {
            Ok(Ok(response)) => attempt.answered(response, self.payload.grpc),
            Ok(Err(failure)) => {
                if let Some(facts) = &mut exchange.facts {
                    facts.failure = failure.cause().map(str::to_owned);
                }
                count_failure(attempt.cluster(), failure);
                attempt.note_failure(failure);
                if let Some(outcome) = outcome_of(failure) {
                    attempt.failed(outcome);
                }
                if exchange.progress.as_ref().is_some_and(|progress| progress.failed.get()) {
                    return Err(broken_request());
                }
            }
            Err(expired) if expired.is_of_attempt() => {
                count_expired(self.cluster, *expired);
                attempt.failed(Outcome::Timeout);
            }
            Err(expired) => {
                let of = Some((attempt, self.cluster));
                return Err(self.charged(timed_out(*expired, self.limits, exchange, of)));
            }
        }
        Ok(())
    }

    /// The answer to a request of which no attempt has got a response.
    pub(super) fn refusal(&self, tried: &Tried, exchange: &Exchange) -> Refusal {
        self.charged(match tried {
            Ok(Err(failure)) => failed(failure, self.attempts > 1),
            Err(expired) => timed_out(*expired, self.limits, exchange, None),
            Ok(Ok(_)) => unavailable(),
        })
    }

    /// The request that takes the place of this one, if the response is a redirect that is followed here.
    fn redirected(
        &self,
        response: &Response<Incoming>,
        exchange: &Exchange,
        request: &Parts,
    ) -> Option<Box<Next>> {
        let policy = self.action.internal_redirect.as_deref()?;
        let status = response.status();
        if !policy.statuses.contains(&status) {
            return None;
        }
        let redirecting = Redirecting {
            connection: self.connection,
            view: self.view,
            table: self.matched.table,
            policy,
            route: &self.matched.route.config.name,
            accepted: self.accepted,
        };
        let whole = self.payload.whole().filter(|_| exchange.request_is_complete());
        let next = whole.and_then(|body| {
            redirecting.follow(status, response.headers(), exchange, request, body)
        });
        let stats = self.cluster.stats.local();
        match &next {
            Some(_) => stats.upstream_internal_redirect_succeeded_total.inc(),
            None => stats.upstream_internal_redirect_failed_total.inc(),
        }
        next
    }

    pub(super) fn charged(&self, reply: Refusal) -> Refusal {
        charged(self.cluster, self.accepted.internal, reply)
    }

    /// The response of an attempt as the client gets it.
    pub(super) fn answer(
        self,
        response: Response<Incoming>,
        attempt: Box<Attempt>,
        timer: Timer,
        exchange: &mut Exchange,
        request: &Parts,
    ) -> Answer {
        if let Some(next) = self.redirected(&response, exchange, request) {
            exchange.next = Some(next);
            return Answer::Redirected;
        }
        self.payload.commit();
        attempt.is_taken(response.status());
        let (mut head, incoming) = response.into_parts();
        headers::clean_response(&mut head.headers);
        exchange.status = head.status.as_u16();
        exchange.details = "via_upstream".into();
        if let Some(facts) = &mut exchange.facts {
            facts.first_response_byte = Some(Instant::now());
        }
        if self.envoy_headers() {
            let milliseconds = headers::number(attempt.elapsed_milliseconds());
            head.headers.insert(headers::X_ENVOY_UPSTREAM_SERVICE_TIME, milliseconds);
        }
        if self.matched.host.include_attempt_count_in_response {
            let attempts = headers::number(self.attempts.into());
            head.headers.insert(headers::X_ENVOY_ATTEMPT_COUNT, attempts);
        }
        self.hashed.set_cookies(&mut head.headers);
        self.response_headers
            .apply(&mut head.headers, Side::Response, &mut || exchange.record_for_additions());
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let has_body = request.method != Method::HEAD && !matches!(head.status.as_u16(), 204 | 304);
        let deadlines = self.limits.of_response();
        let body = UpstreamBody::new(incoming, attempt, timer, deadlines, has_body);
        Answer::Forwarded(Response::from_parts(head, ()), body)
    }
}

/// What a log says about retries that did not come about.
pub(super) fn note(verdict: Verdict, exchange: &mut Exchange) {
    match verdict {
        Verdict::LimitExceeded => {
            exchange.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        }
        Verdict::Overflow => exchange.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW),
        Verdict::No | Verdict::After(_) => {}
    }
}

/// Notes what a log wants to know of an attempt that is over, or has got its response.
pub(super) fn note_attempt(attempt: &Attempt, began: Instant, exchange: &mut Exchange) {
    if let Some(facts) = &mut exchange.facts {
        facts.endpoint = Some(Arc::clone(&attempt.pool().endpoint));
        facts.upstream = attempt.connection_facts().map(|(facts, http2)| (facts, Some(http2)));
        if facts.upstream.is_some() {
            facts.sending_since.get_or_insert(began);
            facts.attempt_since = Some(began);
        }
    }
}

/// Counts a response that is not taken, because another attempt follows.
pub(super) fn discard(tried: &Tried, attempt: &mut Attempt, exchange: &mut Exchange) {
    attempt.superseded();
    let Ok(Ok(response)) = tried else { return };
    attempt.is_retried(response.status());
    if response.body().is_end_stream() {
        // Nothing is left to read of it: the connection is free.
        attempt.complete(exchange, None);
    }
}
