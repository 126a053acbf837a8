//! Tracing of requests, as the connection manager is configured to.
//!
//! [`Tracer::begin`] decides after the route is known ([`decision`]): which trace a request belongs to, and whether its spans
//! are sent. A request that is not sampled carries a context on and has no span. One that is sampled keeps its headers, and
//! when it is over its span says what its log line would ([`tags`]). Where attempts have spans of their own, each is a child
//! of it ([`mod@attempt`]).

mod attempt;
mod decision;
mod tags;

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::body::Progress;
use super::connection_manager::{Connection, ConnectionManager};
use super::headers::{X_ENVOY_ORIGINAL_PATH, X_REQUEST_ID, host_of};
use crate::access_log::{Headers, LogRecord, filled};
use crate::config;
use crate::config::bootstrap::LocalInfo;
use crate::config::tracing::{Sampler, Tracing};
use crate::stats::{Sharded, TracingCells};
use crate::trace::{Kind, Reporter, Span, SpanContext, SpanId, TraceId};

pub(crate) use attempt::AttemptSpan;
use decision::{Reason, decide};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const X_ENVOY_DECORATOR_OPERATION: HeaderName =
    HeaderName::from_static("x-envoy-decorator-operation");
const DOWNSTREAM_CLUSTER: HeaderName =
    HeaderName::from_static("x-envoy-downstream-service-cluster");

/// Tracing of a connection manager, compiled.
pub(crate) struct Tracer {
    pub(crate) config: Arc<Tracing>,
    /// Takes the spans; `None`: nobody wants them.
    pub(crate) reporter: Option<Arc<Reporter>>,
    /// Requests go out of here (`traffic_direction: OUTBOUND`).
    pub(crate) egress: bool,
    pub(crate) cells: Arc<Sharded<TracingCells>>,
    pub(crate) local_info: Arc<LocalInfo>,
}

/// What tracing knows of a request.
pub(crate) struct Trace {
    /// The request is to be traced, by the rules of sampling.
    pub(crate) is_traced: bool,
    /// Where it stands in its trace; `None`: without a provider, or with a context that cannot be continued.
    pub(crate) context: Option<SpanContext>,
    /// The span that it belongs to.
    parent: Option<SpanId>,
    /// Name of the span, as long as no format makes it.
    operation: Operation,
    /// What the response says of it, to the caller.
    answer: Option<HeaderValue>,
    route: Option<Arc<config::route::Route>>,
    /// What the span will need: only of a sampled request.
    kept: Option<Box<Kept>>,
}

enum Operation {
    Default,
    Named(HeaderValue),
}

/// Headers of a sampled request and its response.
#[derive(Default)]
struct Kept {
    host: Option<HeaderValue>,
    request: HeaderMap,
    response: HeaderMap,
    trailers: HeaderMap,
}

impl Tracer {
    /// A request begins, and its route is known.
    pub(crate) fn begin(
        &self,
        request: &mut Parts,
        route: Option<&Arc<config::route::Route>>,
    ) -> Box<Trace> {
        let headers = &mut request.headers;
        let own = route.and_then(|route| route.tracing.as_ref());
        let sampling = own.map_or(&self.config.sampling, |own| &own.sampling);
        let reason = decide(headers, &self.config, sampling);
        let cells = self.cells.local();
        match reason {
            Reason::NotTraceable => cells.not_traceable.inc(),
            Reason::Sampling => cells.random_sampling.inc(),
            Reason::ServiceForced => cells.service_forced.inc(),
            Reason::ClientForced => cells.client_enabled.inc(),
        }
        let is_traced = reason != Reason::NotTraceable;
        let (context, parent) = self.context(headers, is_traced);
        let is_sampled = context.as_ref().is_some_and(|context| context.sampled);
        let kept = is_sampled.then(|| {
            Box::new(Kept { host: headers.get(header::HOST).cloned(), ..Kept::default() })
        });
        let mut trace = Trace {
            is_traced,
            context,
            parent,
            operation: Operation::Default,
            answer: None,
            route: route.cloned(),
            kept,
        };
        if !self.has_operation(&trace) {
            self.decorate(&mut trace, headers);
        }
        Box::new(trace)
    }

    /// A format makes the span's name: decorators have no say then.
    fn has_operation(&self, trace: &Trace) -> bool {
        let own = trace.route.as_ref().and_then(|route| route.tracing.as_ref());
        own.is_some_and(|own| own.operation.is_some()) || self.config.operation.is_some()
    }

    /// The trace that the caller is in, or a new one.
    fn context(
        &self,
        headers: &HeaderMap,
        is_traced: bool,
    ) -> (Option<SpanContext>, Option<SpanId>) {
        let Some(provider) = &self.config.provider else { return (None, None) };
        let sampler = provider.sampler.as_ref();
        match headers.get(TRACEPARENT) {
            None => {
                let trace = TraceId::random();
                let sampled = is_traced && samples(sampler, None, trace.as_str());
                let context = SpanContext {
                    trace,
                    span: SpanId::random(),
                    sampled,
                    state: HeaderValue::from_static(""),
                };
                (Some(context), None)
            }
            Some(header) => {
                let Some(caller) = SpanContext::parse(header, headers.get(TRACESTATE)) else {
                    return (None, None);
                };
                let sampled =
                    is_traced && samples(sampler, Some(caller.sampled), caller.trace.as_str());
                let parent = caller.span;
                (Some(SpanContext { span: SpanId::random(), sampled, ..caller }), Some(parent))
            }
        }
    }

    /// Names the span as the route, or the proxy on the other side, wants it.
    fn decorate(&self, trace: &mut Trace, headers: &mut HeaderMap) {
        let decorator = trace.route.as_ref().and_then(|route| route.decorator.as_ref());
        let told = decorator.filter(|it| it.propagate).map(|it| it.operation.clone());
        if let Some(decorator) = decorator {
            trace.operation = Operation::Named(decorator.operation.clone());
        }
        if self.egress {
            if let Some(told) = told {
                headers.insert(X_ENVOY_DECORATOR_OPERATION, told);
            }
            return;
        }
        trace.answer = told;
        if let Some(wanted) = headers.remove(X_ENVOY_DECORATOR_OPERATION)
            && !wanted.is_empty()
        {
            trace.operation = Operation::Named(wanted);
            trace.answer = None;
        }
    }

    /// Puts the context into the request to the endpoint, and keeps the request as it is now.
    pub(crate) fn inject(&self, trace: &mut Trace, request: &mut Parts) {
        if self.config.context_propagation
            && let Some(context) = &trace.context
        {
            write(context, &mut request.headers);
        }
        trace.keep_request(request);
    }

    /// The span of an attempt, if the request is sampled and attempts have spans of their own. Its context takes the place of
    /// the request's in its headers.
    pub(crate) fn attempt(
        &self,
        trace: &Trace,
        manager: &Arc<ConnectionManager>,
        request: &mut Parts,
        progress: Option<&Rc<Progress>>,
        retries: u32,
    ) -> Option<Box<AttemptSpan>> {
        let context = trace.context.as_ref().filter(|_| self.config.spawn_upstream_span)?;
        let own = SpanContext { span: SpanId::random(), ..context.clone() };
        if self.config.context_propagation {
            write(&own, &mut request.headers);
        }
        let span = AttemptSpan::new(
            manager,
            trace.route.as_ref(),
            (own, context.span),
            request,
            progress,
            retries,
        );
        context.sampled.then(|| Box::new(span))
    }

    /// The head of the response, as it goes to the client.
    pub(crate) fn respond(&self, trace: &mut Trace, headers: &mut HeaderMap) {
        if let Some(answer) = trace.answer.take() {
            headers.insert(X_ENVOY_DECORATOR_OPERATION, answer);
        } else if self.egress && !self.has_operation(trace) {
            match headers.remove(X_ENVOY_DECORATOR_OPERATION) {
                Some(wanted) if !wanted.is_empty() => trace.operation = Operation::Named(wanted),
                _ => {}
            }
        }
    }

    /// The request is over: makes its span from what its log line would say.
    pub(crate) fn finish(&self, trace: Box<Trace>, connection: &Connection, record: LogRecord<'_>) {
        let Trace { context: Some(context), parent, operation, route, kept: Some(kept), .. } =
            *trace
        else {
            return;
        };
        let mut record: LogRecord<'_> = record;
        record.request_headers = Headers::Map(&kept.request);
        record.response_headers = Headers::Map(&kept.response);
        record.response_trailers = Headers::Map(&kept.trailers);
        record.route_metadata = route.as_ref().map(|route| &route.metadata);
        let own = route.as_ref().and_then(|route| route.tracing.as_ref());
        let format = own.and_then(|own| own.operation.as_ref());
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let name = match (format.or(self.config.operation.as_ref()), operation) {
            (Some(format), _) => filled(format, &record),
            (None, Operation::Named(name)) => text(&name),
            (None, Operation::Default) if self.egress => {
                format!("egress {}", kept.host.as_ref().map(text).unwrap_or_default())
            }
            (None, Operation::Default) => "ingress".to_owned(),
        };
        let kind = match self.egress && !self.config.spawn_upstream_span {
            true => Kind::Client,
            false => Kind::Server,
        };
        let end = record.start + record.duration.unwrap_or_default();
        let mut span = Span {
            context,
            parent,
            name,
            kind,
            start: record.start,
            end,
            attributes: Vec::with_capacity(24),
            events: Vec::new(),
            failed: false,
        };
        self.describe(&mut span, &kept, &record, connection);
        tags::common(&mut span, &record);
        tags::grpc_response(&mut span, &kept.response);
        tags::grpc_response(&mut span, &kept.trailers);
        tags::custom(
            &mut span,
            &record,
            own.map(|own| &*own.custom_tags),
            &self.config.custom_tags,
        );
        if self.config.verbose {
            span.events = events(&record);
        }
        self.report(span);
    }

    /// What the span says of the request.
    fn describe(
        &self,
        span: &mut Span,
        kept: &Kept,
        record: &LogRecord<'_>,
        connection: &Connection,
    ) {
        let header = |name: &HeaderName| {
            let value = kept.request.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        span.set("node_id", self.local_info.id.as_str());
        span.set("zone", self.local_info.zone.as_str());
        if let Some(id) = header(&X_REQUEST_ID) {
            span.set("guid:x-request-id", id);
        }
        let path = header(&X_ENVOY_ORIGINAL_PATH);
        let path = path.as_deref().or(record.path).unwrap_or_default();
        let path = prefix(path, self.config.max_path_tag_length);
        let (scheme, host) = (record.scheme.unwrap_or("http"), host_of(&kept.request));
        span.set("http.url", format!("{scheme}://{host}{path}"));
        span.set("http.method", record.method.unwrap_or_default());
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        span.set("downstream_cluster", or_none(header(&DOWNSTREAM_CLUSTER)));
        span.set("user_agent", or_none(header(&header::USER_AGENT)));
        span.set("http.protocol", tags::protocol(record.protocol));
        let peer = connection.peer.ip();
        span.set(
            "peer.address",
            peer.map_or_else(|| connection.peer.to_string(), |ip| ip.to_string()),
        );
        if let Some(id) = header(&decision::X_CLIENT_TRACE_ID) {
            span.set("guid:x-client-trace-id", id);
        }
        if super::matching::is_grpc(&kept.request) {
            span.set("grpc.path", record.path.unwrap_or_default());
            span.set("grpc.authority", host);
            for (tag, name) in
                [("grpc.content_type", "content-type"), ("grpc.timeout", "grpc-timeout")]
            {
                if let Some(value) = header(&HeaderName::from_static(name)) {
                    span.set(tag, value);
                }
            }
        }
        span.set("request_size", record.bytes_received.to_string());
        span.set("response_size", record.bytes_sent.to_string());
    }

    fn report(&self, span: Span) {
        if let Some(reporter) = &self.reporter {
            reporter.report(span);
        }
    }
}

/// Whether a request that is to be traced is sampled; `caller`: what its caller says; `trace`: its trace, in hexadecimal.
fn samples(sampler: Option<&Sampler>, caller: Option<bool>, trace: &str) -> bool {
    match sampler {
        None => caller.unwrap_or(true),
        Some(Sampler::AlwaysOn) => true,
        Some(Sampler::ParentBased(root)) => {
            caller.unwrap_or_else(|| samples(Some(root), None, trace))
        }
        // Envoy's arithmetic: the first eight bytes as they lie in memory.
        Some(Sampler::TraceIdRatio(numerator, denominator)) => {
            let first = trace.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let chance = first.unwrap_or_default().swap_bytes();
            chance % u64::from(*denominator) < u64::from(*numerator)
        }
    }
}

fn write(context: &SpanContext, headers: &mut HeaderMap) {
    headers.insert(TRACEPARENT, context.to_parent());
    headers.insert(TRACESTATE, context.state.clone());
}

/// At most so many bytes of a text, and no half of a character.
fn prefix(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

impl Trace {
    /// Keeps the request for the span, as far as there is one.
    pub(crate) fn keep_request(&mut self, request: &Parts) {
        if let Some(kept) = &mut self.kept {
            kept.request.clone_from(&request.headers);
        }
    }

    /// Keeps the head of the response.
    pub(crate) fn keep_response(&mut self, headers: &HeaderMap) {
        if let Some(kept) = &mut self.kept {
            kept.response.clone_from(headers);
        }
    }

    /// Keeps the trailers of the response.
    pub(crate) fn keep_trailers(&mut self, trailers: &HeaderMap) {
        if let Some(kept) = &mut self.kept {
            kept.trailers.clone_from(trailers);
        }
    }

    /// Its span will be sent.
    pub(crate) fn is_sampled(&self) -> bool {
        self.kept.is_some()
    }
}

/// The moments of a request.
fn events(record: &LogRecord<'_>) -> Vec<(&'static str, SystemTime)> {
    [
        ("last_downstream_rx_byte_received", record.request_duration),
        ("first_upstream_tx_byte_sent", record.request_tx_begin),
        ("last_upstream_tx_byte_sent", record.request_tx_duration),
        ("first_upstream_rx_byte_received", record.response_duration),
        ("last_upstream_rx_byte_received", record.response_rx_duration),
        ("first_downstream_tx_byte_sent", record.downstream_tx_begin()),
        ("last_downstream_tx_byte_sent", record.downstream_tx_end()),
    ]
    .into_iter()
    .filter_map(|(name, since)| Some((name, record.start + since?)))
    .collect()
}
