//! Spans in the OpenTelemetry protocol.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message;

use super::{Kind, Span};
use crate::config::tracing::OpenTelemetry;

/// Path of the gRPC method that takes [`encode`]d spans.
pub(crate) const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// An encoded `ExportTraceServiceRequest`.
pub(crate) fn encode(config: &OpenTelemetry, spans: Vec<Span>) -> Vec<u8> {
    let attributes = config.resource.iter().map(|(key, value)| attribute(key, value)).collect();
    let scope = config.instrumentation_scope.then(|| InstrumentationScope {
        name: "outrigger".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    });
    let spans = proto::ScopeSpans {
        scope,
        spans: spans.into_iter().map(span).collect(),
        ..Default::default()
    };
    let resource_spans = proto::ResourceSpans {
        resource: Some(Resource { attributes, ..Default::default() }),
        scope_spans: vec![spans],
        ..Default::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

fn span(span: Span) -> proto::Span {
    let kind = match span.kind {
        Kind::Server => proto::span::SpanKind::Server,
        Kind::Client => proto::span::SpanKind::Client,
    };
    let event = |(name, at): (&str, SystemTime)| proto::span::Event {
        time_unix_nano: nanoseconds(at),
        name: name.to_owned(),
        ..Default::default()
    };
    let status = span.failed.then(|| proto::Status {
        code: proto::status::StatusCode::Error as i32,
        ..Default::default()
    });
    proto::Span {
        trace_id: span.context.trace.to_bytes(),
        span_id: span.context.span.to_bytes(),
        trace_state: String::from_utf8_lossy(span.context.state.as_bytes()).into_owned(),
        parent_span_id: span.parent.map(super::SpanId::to_bytes).unwrap_or_default(),
        name: span.name,
        kind: kind as i32,
        start_time_unix_nano: nanoseconds(span.start),
        end_time_unix_nano: nanoseconds(span.end),
        attributes: span.attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        events: span.events.into_iter().map(event).collect(),
        status,
        ..Default::default()
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
