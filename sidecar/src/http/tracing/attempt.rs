//! The span of one attempt, where attempts have spans of their own.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::HeaderMap;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Version};
use tokio::time::Instant;

use super::super::body::Progress;
use super::super::connection_manager::ConnectionManager;
use super::super::headers::host_of;
use super::tags;
use crate::access_log::{Headers, LogRecord, ResponseFlags, filled};
use crate::cluster::{Cluster, Endpoint};
use crate::config;
use crate::trace::{Kind, Span, SpanContext, SpanId};
use crate::upstream::Failure;

/// What is to be said of an attempt when it is over.
pub(crate) struct AttemptSpan {
    pub(super) manager: Arc<ConnectionManager>,
    pub(super) route: Option<Arc<config::route::Route>>,
    pub(super) context: SpanContext,
    pub(super) parent: SpanId,
    /// Retries before it.
    pub(super) retries: u32,
    pub(super) method: Method,
    pub(super) path: Option<PathAndQuery>,
    pub(super) request: HeaderMap,
    pub(super) progress: Option<Rc<Progress>>,
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    sent: Option<Instant>,
    answered: Option<(Instant, u16)>,
    done: Option<Instant>,
    is_retried: bool,
    failure: Option<(&'static str, ResponseFlags)>,
    grpc: HeaderMap,
    version: Option<Version>,
}

impl AttemptSpan {
    pub(super) fn new(
        manager: &Arc<ConnectionManager>,
        route: Option<&Arc<config::route::Route>>,
        (context, parent): (SpanContext, SpanId),
        request: &Parts,
        progress: Option<&Rc<Progress>>,
        retries: u32,
    ) -> Self {
        Self {
            manager: Arc::clone(manager),
            route: route.cloned(),
            context,
            parent,
            retries,
            method: request.method.clone(),
            path: request.uri.path_and_query().cloned(),
            request: request.headers.clone(),
            progress: progress.cloned(),
            began: Instant::now(),
            began_at: SystemTime::now(),
            sent: None,
            answered: None,
            done: None,
            is_retried: false,
            failure: None,
            grpc: HeaderMap::new(),
            version: None,
        }
    }

    /// The request goes out on a connection.
    pub(crate) fn sending(&mut self, http2: bool) {
        self.version = Some(if http2 { Version::HTTP_2 } else { Version::HTTP_11 });
        self.sent = Some(Instant::now());
    }

    /// The head of the response is there.
    pub(crate) fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.answered = Some((Instant::now(), status));
        self.keep_grpc(headers);
    }

    /// All of the response is there.
    pub(crate) fn done(&mut self, trailers: Option<&HeaderMap>) {
        self.done = Some(Instant::now());
        if let Some(trailers) = trailers {
            self.keep_grpc(trailers);
        }
    }

    /// Another attempt takes its place.
    pub(crate) fn retried(&mut self) {
        self.is_retried = true;
    }

    /// There is no response, or no end of it.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        let flags = match failure {
            Failure::Connect(_) | Failure::ConnectTimeout => {
                ResponseFlags::UPSTREAM_CONNECTION_FAILURE
            }
            Failure::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            Failure::Refused | Failure::RemoteReset => ResponseFlags::UPSTREAM_REMOTE_RESET,
            Failure::ConnectionTermination => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Failure::Protocol(_) => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
        };
        self.failure = Some((failure.text(), flags));
    }

    fn keep_grpc(&mut self, headers: &HeaderMap) {
        for name in ["grpc-status", "grpc-message"] {
            if let Some(value) = headers.get(name) {
                self.grpc.insert(name, value.clone());
            }
        }
    }

    /// The attempt is over, one way or another.
    pub(crate) fn finish(self, cluster: &Cluster, endpoint: &Endpoint) {
        let Some(tracer) = &self.manager.tracer else { return };
        let mut record = LogRecord::new(self.began_at);
        record.method = Some(self.method.as_str());
        record.path = self.path.as_ref().map(PathAndQuery::as_str);
        record.authority = Some(host_of(&self.request));
        record.response_code = self.answered.map(|(_, status)| status);
        record.flags = self.failure.map_or(ResponseFlags::NONE, |(_, flags)| flags);
        record.upstream_host = Some(endpoint.address.clone());
        record.upstream_cluster = Some(cluster.observed_name());
        record.upstream_cluster_name = Some(&cluster.name);
        record.cluster_metadata = Some(&*cluster.config.metadata);
        record.upstream_metadata = Some(endpoint.metadata_cell());
        record.attempt_count = self.retries + 1;
        record.request_headers = Headers::Map(&self.request);
        record.route_metadata = self.route.as_ref().map(|route| &route.metadata);
        record.trace_id = Some(self.context.trace.as_str());
        record.span_id = Some(self.context.span.as_str());

        // What is configured is filled in from what the request's own log line says by now: of an attempt whose response is
        // not the request's, nothing.
        let mut known = record.clone();
        if self.done.is_none() || self.is_retried {
            known.response_code = None;
            known.flags = ResponseFlags::NONE;
        }
        let route = self.route.as_ref().and_then(|route| route.tracing.as_ref());
        let operation = route.and_then(|route| route.upstream_operation.as_ref());
        let operation = operation.or(tracer.config.upstream_operation.as_ref());
        let name = match operation {
            Some(format) => filled(format, &known),
            None => format!("router {} egress", cluster.observed_name()),
        };
        let at = |moment: Instant| self.began_at + moment.saturating_duration_since(self.began);
        let mut span = Span {
            context: self.context.clone(),
            parent: Some(self.parent),
            name,
            kind: Kind::Client,
            start: self.began_at,
            end: at(Instant::now()),
            attributes: Vec::with_capacity(16),
            events: Vec::new(),
            failed: false,
        };
        if self.retries > 0 {
            span.set("retry.count", self.retries.to_string());
        }
        match self.failure {
            Some((reason, _)) => {
                span.set("error", "true");
                span.set("error.reason", reason);
            }
            None if self.done.is_none() => span.set("canceled", "true"),
            None => {}
        }
        span.set("http.protocol", tags::protocol(self.version));
        let address = endpoint.address.to_string();
        span.set("upstream_address", address.as_str());
        span.set("peer.address", address);
        tags::common(&mut span, &record);
        // Without any answer there is no status that would make it an error.
        span.failed &= self.answered.is_some();
        tags::grpc_response(&mut span, &self.grpc);
        let own = route.map(|route| &*route.custom_tags);
        tags::custom(&mut span, &known, own, &tracer.config.custom_tags);
        if tracer.config.verbose {
            let complete = match &self.progress {
                None => self.sent,
                Some(progress) => progress.complete.get(),
            };
            let complete = self.sent.zip(complete).map(|(sent, complete)| sent.max(complete));
            for (name, moment) in [
                ("first_upstream_tx_byte_sent", self.sent),
                ("last_upstream_tx_byte_sent", complete),
                ("first_upstream_rx_byte_received", self.answered.map(|(moment, _)| moment)),
                ("last_upstream_rx_byte_received", self.done),
            ] {
                span.events.extend(moment.map(|moment| (name, at(moment))));
            }
        }
        tracer.report(span);
    }
}
