//! One request and its response, from the first byte of the head to the last of the body: what is counted and logged.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Version};
use tokio::time::Instant;

use super::body::Progress;
use super::connection_manager::Connection;
use super::filters::fault::Active;
use super::headers::{Accepted, GRPC_STATUS, X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, X_REQUEST_ID};
use super::local_reply;
use super::matching::is_grpc;
use super::router::{Followed, Next};
use super::stream_state::{StreamState, filter_state_of, metadata_of};
use super::tracing::{AttemptSpan, Trace, Tracer};
use crate::access_log::{Captured, Headers, LogRecord, LogType, Needs, ResponseFlags};
use crate::cluster::Endpoint;
use crate::config;
use crate::local::ClusterRef;
use crate::log_facts::{certificate_of, upstream_of};
use crate::upstream::ConnectionFacts;

/// One request and its response. It travels from the connection's task into the response's body; wherever it is dropped,
/// the exchange is over.
pub(crate) struct Exchange {
    /// Whose.
    pub(crate) connection: Rc<Connection>,
    /// When the head of the request was there.
    pub(crate) start: Instant,
    /// Bytes of the response's body so far.
    pub(crate) sent: u64,
    /// Status of the response; 0 as long as there is none.
    pub(crate) status: u16,
    pub(crate) flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`
    pub(crate) details: Cow<'static, str>,
    /// The client, once it is known, and whether it came by HTTPS.
    pub(crate) origin: Option<(Option<IpAddr>, bool)>,
    /// The body of the request, if it has one.
    pub(crate) progress: Option<Rc<Progress>>,
    /// What a log or a header wants to know.
    pub(crate) facts: Option<Box<Facts>>,
    /// An endpoint was tried: what reads the request's body is no longer ours alone.
    pub(crate) tried: bool,
    /// The fault that the request is under.
    pub(crate) fault: Option<Box<Active>>,
    /// What filters noted.
    pub(crate) state: Option<Box<StreamState>>,
    /// Headers of the request as it came, as far as our own answers depend on them.
    pub(crate) for_replies: Option<Box<Captured>>,
    /// It is a health check of this proxy: no response that counts.
    pub(crate) health_check: bool,
    /// Where the response has to repeat it.
    pub(crate) request_id: Option<HeaderValue>,
    /// Where it stands in a trace; `None`: there is no tracing.
    pub(crate) trace: Option<Box<Trace>>,
    /// The request that takes the place of this one.
    pub(crate) next: Option<Box<Next>>,
    /// Redirects that were followed on the way here.
    pub(crate) followed: Option<Box<Followed>>,
    ended: bool,
    /// The client did not get all of its response.
    is_broken: bool,
}

/// What access logs and header additions may ask for. Collected only where one of them is configured.
pub(crate) struct Facts {
    start: SystemTime,
    version: Version,
    method: Method,
    path: Option<PathAndQuery>,
    authority: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    pub(crate) https: bool,
    pub(crate) client: Option<IpAddr>,
    pub(crate) route: Option<Arc<config::route::Route>>,
    pub(crate) cluster: Option<ClusterRef>,
    /// The endpoint that was tried last.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// The connection to it, and whether that is HTTP/2; `None`: it is of bytes.
    pub(crate) upstream: Option<(Rc<ConnectionFacts>, Option<bool>)>,
    /// When the first attempt began.
    pub(crate) sending_since: Option<Instant>,
    /// When the last attempt began.
    pub(crate) attempt_since: Option<Instant>,
    pub(crate) attempts: u32,
    pub(crate) failure: Option<String>,
    pub(crate) first_response_byte: Option<Instant>,
    /// When the endpoint was done with its response.
    pub(crate) last_response_byte: Option<Instant>,
    grpc: bool,
    grpc_status: Option<u32>,
    request: Captured,
    /// For additions to the response.
    for_additions: Captured,
    response: Captured,
    trailers: Captured,
    /// Length of the headers, where a log asks for it.
    request_bytes: u64,
    response_bytes: u64,
    trailers_bytes: u64,
}

impl Exchange {
    /// A request begins.
    pub(crate) fn begin(connection: &Rc<Connection>, request: &Parts) -> Self {
        let stats = connection.stats();
        stats.downstream_rq_total.inc();
        stats.downstream_rq_active.inc();
        if request.version == Version::HTTP_2 {
            stats.downstream_rq_http2_total.inc();
        } else {
            stats.downstream_rq_http1_total.inc();
        }
        connection.begin_request();
        let mut exchange = Self {
            connection: Rc::clone(connection),
            start: Instant::now(),
            sent: 0,
            status: 0,
            flags: ResponseFlags::NONE,
            details: Cow::Borrowed(""),
            origin: None,
            progress: None,
            facts: None,
            tried: false,
            fault: None,
            state: None,
            for_replies: None,
            health_check: false,
            request_id: None,
            trace: None,
            next: None,
            followed: None,
            ended: false,
            is_broken: false,
        };
        if !connection.manager.loggers.is_empty() {
            exchange.collect(request);
        }
        exchange
    }

    /// Where filters note something.
    pub(crate) fn state(&mut self) -> &mut StreamState {
        self.state.get_or_insert_default()
    }

    /// Collects facts about the request from here on.
    pub(crate) fn collect(&mut self, request: &Parts) {
        if self.facts.is_none() {
            self.facts = Some(Box::new(Facts {
                start: SystemTime::now() - self.start.elapsed(),
                version: request.version,
                method: request.method.clone(),
                path: None,
                authority: None,
                request_id: None,
                https: self.origin.map_or(self.connection.tls.is_some(), |(_, https)| https),
                client: self.origin.and_then(|(client, _)| client),
                route: None,
                cluster: None,
                endpoint: None,
                upstream: None,
                sending_since: None,
                attempt_since: None,
                attempts: 0,
                failure: None,
                first_response_byte: None,
                last_response_byte: None,
                grpc: is_grpc(&request.headers),
                grpc_status: None,
                request: Captured::default(),
                for_additions: Captured::default(),
                response: Captured::default(),
                trailers: Captured::default(),
                request_bytes: 0,
                response_bytes: 0,
                trailers_bytes: 0,
            }));
        }
        self.capture_request(request);
    }

    /// Decides about tracing, which may change the request's headers.
    pub(crate) fn begin_trace(
        &mut self,
        tracer: &Tracer,
        request: &mut Parts,
        route: Option<&Arc<config::route::Route>>,
        accepted: &Accepted,
    ) {
        let mut trace = tracer.begin(request, route);
        trace.keep_request(request);
        if self.request_id.is_some() {
            self.request_id = request.headers.get(X_REQUEST_ID).cloned();
        }
        if trace.is_sampled() {
            self.collect(request);
        } else {
            self.capture_request(request);
        }
        self.trace = Some(trace);
        if let Some(facts) = &mut self.facts {
            facts.client = accepted.client;
            facts.https = accepted.https;
            facts.route = route.cloned();
        }
    }

    /// The span of the next attempt, where attempts have spans of their own: the request is to carry its context. Boxed:
    /// it is the rare case.
    pub(crate) fn begin_attempt(
        &self,
        request: &mut Parts,
        retries: u32,
    ) -> Option<Box<AttemptSpan>> {
        let manager = &self.connection.manager;
        let (tracer, trace) = (manager.tracer.as_ref()?, self.trace.as_ref()?);
        tracer.attempt(trace, manager, request, self.progress.as_ref(), retries)
    }

    /// It is a health check of this proxy: no response that counts, and no span.
    pub(crate) fn is_health_check(&mut self) {
        self.health_check = true;
        if let Some(context) = self.trace.as_mut().and_then(|trace| trace.context.as_mut()) {
            context.sampled = false;
        }
    }

    /// Writes logs that are to hold the begin of a request.
    pub(crate) fn log_start(&mut self, request: &Parts, cluster: Option<ClusterRef>) {
        self.capture_request(request);
        if let Some(facts) = &mut self.facts {
            facts.cluster = cluster;
        }
        if let Some(facts) = &self.facts {
            let mut record = self.record(facts);
            record.log_type = LogType::DownstreamStart;
            self.connection.manager.loggers.log(&record);
        }
    }

    /// Notes the request as it is now.
    pub(crate) fn capture_request(&mut self, request: &Parts) {
        if let Some(facts) = &mut self.facts {
            let needs = &self.connection.manager.loggers.needs;
            // An extended CONNECT has become a GET.
            facts.method = request.method.clone();
            facts.path = request.uri.path_and_query().cloned();
            facts.authority = request.headers.get(header::HOST).cloned().or_else(|| {
                let authority = request.uri.authority()?;
                HeaderValue::from_str(authority.as_str()).ok()
            });
            facts.request_id = request.headers.get(X_REQUEST_ID).cloned();
            facts.request = Needs::capture(&needs.request_headers, &request.headers);
            if needs.header_bytes {
                facts.request_bytes = request_bytes(facts, &request.headers);
            }
        }
    }

    /// Keeps what additions to the response will ask of the request.
    pub(crate) fn capture_for_additions(&mut self, request: &Parts, needs: &Needs) {
        if let Some(facts) = &mut self.facts {
            facts.for_additions = Needs::capture(&needs.request_headers, &request.headers);
        }
    }

    /// What additions of headers may ask for; the headers that are added to are not in it.
    pub(crate) fn record_for_additions(&self) -> LogRecord<'_> {
        match &self.facts {
            None => LogRecord::new(SystemTime::now()),
            Some(facts) => {
                let mut record = self.record(facts);
                record.request_headers = Headers::Captured(&facts.for_additions);
                record
            }
        }
    }

    /// The request goes out with `x-envoy-expected-rq-timeout-ms`, which comes after what was noted of its headers.
    pub(crate) fn note_expected(&mut self, timeout: Duration) {
        if let Some(facts) = &mut self.facts
            && self.connection.manager.loggers.needs.header_bytes
        {
            let name = X_ENVOY_EXPECTED_RQ_TIMEOUT_MS.as_str().len();
            let digits = timeout.as_millis().checked_ilog10().map_or(1, |digits| digits + 1);
            facts.request_bytes += name as u64 + u64::from(digits);
        }
    }

    /// Notes the response as it goes out.
    pub(crate) fn capture_response(&mut self, headers: &mut HeaderMap) {
        if let (Some(trace), Some(tracer)) = (&mut self.trace, &self.connection.manager.tracer) {
            tracer.respond(trace, headers);
            trace.keep_response(headers);
        }
        if let Some(facts) = &mut self.facts {
            let needs = &self.connection.manager.loggers.needs;
            facts.response = Needs::capture(&needs.response_headers, headers);
            if needs.header_bytes {
                // With `:status`.
                facts.response_bytes = header_bytes(headers) + 10;
            }
            facts.grpc_status = grpc_status(headers).or(facts.grpc_status);
        }
    }

    /// Notes the trailers of the response.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(trace) = &mut self.trace {
            trace.keep_trailers(trailers);
        }
        if let Some(facts) = &mut self.facts {
            let needs = &self.connection.manager.loggers.needs;
            facts.trailers = Needs::capture(&needs.response_trailers, trailers);
            if needs.header_bytes {
                facts.trailers_bytes = header_bytes(trailers);
            }
            facts.grpc_status = grpc_status(trailers).or(facts.grpc_status);
        }
    }

    /// Notes why the exchange fails, or what is odd about it.
    pub(crate) fn fail(&mut self, flags: ResponseFlags, details: impl Into<Cow<'static, str>>) {
        self.flags.insert(flags);
        self.details = details.into();
    }

    /// When something last came from the client or, at `upstream`, from the endpoint.
    pub(crate) fn last_activity(&self, upstream: Instant) -> Instant {
        self.progress.as_ref().map_or(upstream, |progress| progress.last.get().max(upstream))
    }

    /// The whole of the request is here.
    pub(crate) fn request_is_complete(&self) -> bool {
        self.progress.as_ref().is_none_or(|progress| progress.complete.get().is_some())
    }

    /// When the whole of the request was here.
    pub(crate) fn request_completed_at(&self) -> Option<Instant> {
        match &self.progress {
            None => Some(self.start),
            Some(progress) => progress.complete.get(),
        }
    }

    /// Moves the exchange out, to end somewhere else: a tunnel lives longer than its request.
    pub(crate) fn take_over(&mut self) -> Self {
        let ended = std::mem::replace(&mut self.ended, true);
        Self {
            connection: Rc::clone(&self.connection),
            start: self.start,
            sent: self.sent,
            status: self.status,
            flags: self.flags,
            details: std::mem::take(&mut self.details),
            origin: self.origin,
            progress: self.progress.take(),
            facts: self.facts.take(),
            tried: false,
            fault: self.fault.take(),
            state: self.state.take(),
            for_replies: None,
            health_check: self.health_check,
            request_id: None,
            trace: self.trace.take(),
            next: None,
            followed: None,
            ended,
            is_broken: false,
        }
    }

    /// Ends with a redirect that is followed here, and begins anew with the request that it leads to.
    pub(crate) fn follow(&mut self, next: &mut Next) -> Self {
        self.status = next.status.as_u16();
        self.details = Cow::Borrowed("internal_redirect");
        self.capture_response(&mut next.headers);
        // The client gets no response of this exchange, so none is counted.
        self.close(true);
        let mut exchange = Self::begin(&self.connection, &next.request);
        exchange.origin = Some((next.accepted.client, next.accepted.https));
        exchange.request_id = self.request_id.take();
        exchange.state = self.state.take();
        if let Some(state) = &mut exchange.state {
            // A filter that counts them begins anew.
            state.messages = None;
        }
        exchange.followed = Some(Box::new(std::mem::take(&mut next.followed)));
        if let Some(whole) = &next.body {
            let bytes = whole.data.len() as u64;
            exchange.progress = Some(Progress::done(exchange.start, bytes));
        }
        if let Some(facts) = &mut exchange.facts {
            facts.client = next.accepted.client;
            facts.https = next.accepted.https;
        }
        exchange
    }

    /// The exchange is over; `whole`: the client has got all of its response.
    pub(crate) fn end(&mut self, whole: bool) {
        if !self.ended && self.status != 0 && !self.health_check {
            self.connection.stats().responses.record(self.status);
            self.connection.listener_stats().responses.record(self.status);
        }
        self.close(whole);
    }

    fn close(&mut self, whole: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.is_broken = !whole;
        let stats = self.connection.stats();
        stats.downstream_rq_active.dec();
        if let Some(progress) = &self.progress {
            if progress.complete.get().is_none() && whole {
                stats.downstream_rq_response_before_rq_complete.inc();
            }
            // Whoever still sends it upstream stops there.
            progress.abandoned.set(true);
        }
        if !whole && self.flags.is_empty() {
            self.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            self.details = Cow::Borrowed("downstream_remote_disconnect");
            stats.downstream_rq_rx_reset.inc();
            self.connection.count_reset(self.start.elapsed());
        }
        let milliseconds = self.start.elapsed().as_millis();
        stats.downstream_rq_time.record(u64::try_from(milliseconds).unwrap_or(u64::MAX));
        self.connection.end_request();
        let loggers = &self.connection.manager.loggers;
        if let Some(state) = &mut self.state {
            state.settle();
        }
        if !loggers.is_empty()
            && let Some(facts) = &self.facts
        {
            loggers.log(&self.record(facts));
        }
        self.end_trace();
    }

    /// Makes the span of a request that is sampled.
    fn end_trace(&mut self) {
        let Some(trace) = self.trace.take() else { return };
        if let (Some(tracer), Some(facts)) = (&self.connection.manager.tracer, &self.facts) {
            tracer.finish(trace, &self.connection, self.record(facts));
        }
    }

    /// Everything that is known by now.
    pub(crate) fn record<'a>(&'a self, facts: &'a Facts) -> LogRecord<'a> {
        let connection = &*self.connection;
        let tls = connection.tls.as_ref();
        let identity = tls.and_then(|tls| tls.identity.as_ref());
        let text = |value: &'a Option<HeaderValue>| value.as_ref().and_then(|v| v.to_str().ok());
        let mut record = LogRecord::new(facts.start);
        record.health_check = self.health_check;
        record.protocol = Some(facts.version);
        record.method = Some(facts.method.as_str());
        record.path = facts.path.as_ref().map(PathAndQuery::as_str);
        record.authority = text(&facts.authority);
        record.scheme = Some(if facts.https { "https" } else { "http" });
        record.response_code = (self.status != 0).then_some(self.status);
        record.response_code_details = (!self.details.is_empty()).then_some(&*self.details);
        record.flags = self.flags;
        let progress = self.progress.as_ref();
        record.bytes_received = progress.map_or(0, |progress| progress.received.get());
        record.bytes_sent = self.sent;
        record.duration = Some(self.start.elapsed());
        record.request_duration = self.request_completed_at().map(|at| at - self.start);
        record.response_duration = facts.first_response_byte.map(|at| at - self.start);
        record.is_broken = self.is_broken;
        record.response_rx_duration = facts.last_response_byte.map(|at| at - self.start);
        record.response_tx_duration = facts.first_response_byte.map(|at| at.elapsed());
        let since_start = |at: Instant| at.saturating_duration_since(self.start);
        record.request_tx_begin = facts.sending_since.map(since_start);
        record.request_tx_duration = facts
            .sending_since
            .zip(self.request_completed_at())
            .map(|(since, complete)| since_start(since.max(complete)));
        let endpoint = facts.endpoint.as_deref();
        record.upstream_host = endpoint.map(|endpoint| endpoint.address.clone());
        record.upstream_host_name =
            endpoint.map(|endpoint| &*endpoint.hostname).filter(|name| !name.is_empty());
        record.upstream = facts.upstream.as_ref().and_then(|(upstream, http2)| {
            let version = http2.map(|http2| if http2 { Version::HTTP_2 } else { Version::HTTP_11 });
            upstream_of(upstream, version)
        });
        record.upstream_cluster = facts.cluster.as_ref().map(|cluster| cluster.observed_name());
        record.upstream_cluster_name = facts.cluster.as_ref().map(|cluster| &*cluster.name);
        record.upstream_transport_failure_reason = facts.failure.as_deref();
        record.attempt_count = facts.attempts;
        record.downstream_remote = Some(connection.address_of(facts.client));
        record.downstream_direct_remote = Some(connection.direct_peer.clone());
        record.downstream_local = Some(connection.local_address.clone());
        record.downstream_peer = identity.map(certificate_of);
        record.downstream_own = tls.and_then(|tls| tls.own.as_deref()).map(certificate_of);
        record.downstream_tls_group = tls.and_then(|tls| tls.group.as_deref());
        record.downstream_tls_version = tls.map(|tls| tls.version);
        record.downstream_tls_cipher = tls.and_then(|tls| tls.cipher.as_deref());
        record.requested_server_name = tls.and_then(|tls| tls.server_name.as_deref());
        let state = self.state.as_deref();
        record.dynamic_metadata = metadata_of(state);
        record.filter_state = filter_state_of(state);
        record.cluster_metadata = facts.cluster.as_ref().map(|cluster| &*cluster.config.metadata);
        record.upstream_metadata = endpoint.map(Endpoint::metadata_cell);
        let route = facts.route.as_deref();
        record.route_name = route.map(|route| &*route.name).filter(|name| !name.is_empty());
        record.route_metadata = route.map(|route| &route.metadata);
        record.request_headers_bytes = facts.request_bytes;
        record.response_headers_bytes = facts.response_bytes;
        record.response_trailers_bytes = facts.trailers_bytes;
        record.filter_chain_name = Some(&*connection.chain).filter(|name| !name.is_empty());
        record.connection_id = Some(connection.id);
        record.stream_id = text(&facts.request_id);
        if let Some(trace) = &self.trace {
            record.traced = trace.is_traced;
            record.trace_id = trace.context.as_ref().map(|context| context.trace.as_str());
            record.span_id = trace.context.as_ref().map(|context| context.span.as_str());
        }
        // A call that ends without a status has the one that the response's stands for.
        let implied = || {
            let status = StatusCode::from_u16(self.status).ok().filter(|_| facts.grpc)?;
            Some(u32::from(local_reply::grpc_status(status)))
        };
        record.grpc_status = facts.grpc_status.or_else(implied);
        record.request_headers = Headers::Captured(&facts.request);
        record.response_headers = Headers::Captured(&facts.response);
        record.response_trailers = Headers::Captured(&facts.trailers);
        record
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// Length of all names and values.
fn header_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}

/// Length of a request's headers with those that begin with a colon, as HTTP/2 has them.
fn request_bytes(facts: &Facts, headers: &HeaderMap) -> u64 {
    let host = headers.get(header::HOST).map_or(0, |host| "host".len() + host.len());
    let authority = facts.authority.as_ref().map_or(0, |it| ":authority".len() + it.len());
    let path = facts.path.as_ref().map_or(0, |path| ":path".len() + path.as_str().len());
    let method = ":method".len() + facts.method.as_str().len();
    let scheme = ":scheme".len() + if facts.https { "https".len() } else { "http".len() };
    header_bytes(headers) - host as u64 + (authority + path + method + scheme) as u64
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
