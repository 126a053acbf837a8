//! What a collector of traces and logs gets: OTLP requests, decoded and made comparable.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span as Proto;
use prost::Message;

use crate::upstream::Recorded;

/// A span as the collector got it.
#[derive(Debug, Clone, Default)]
pub struct Span {
    /// What the span says.
    pub proto: Proto,
    /// What its resource says.
    pub resource: BTreeMap<String, String>,
    /// Who made it.
    pub scope: Option<String>,
}

impl Span {
    /// Its attributes.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        pairs(&self.proto.attributes)
    }

    /// One attribute; empty if there is none.
    pub fn attribute(&self, key: &str) -> String {
        self.attributes().remove(key).unwrap_or_default()
    }

    /// Its trace, in hexadecimal.
    pub fn trace(&self) -> String {
        hex(&self.proto.trace_id)
    }

    /// Its id, in hexadecimal.
    pub fn id(&self) -> String {
        hex(&self.proto.span_id)
    }

    /// The id of its parent, in hexadecimal; empty for none.
    pub fn parent(&self) -> String {
        hex(&self.proto.parent_span_id)
    }

    /// Names of its events, in order.
    pub fn events(&self) -> String {
        let names: Vec<&str> = self.proto.events.iter().map(|event| event.name.as_str()).collect();
        names.join(",")
    }

    /// The code of its status: 0 is unset, 2 an error.
    pub fn status(&self) -> i32 {
        self.proto.status.as_ref().map_or(0, |status| status.code)
    }
}

/// The spans of a request to a collector, over gRPC or HTTP.
///
/// # Errors
/// It is no OTLP request.
pub fn spans(request: &Recorded) -> Result<Vec<Span>> {
    let message = message(request)?;
    let request = ExportTraceServiceRequest::decode(message).context("not an OTLP request")?;
    let mut all = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = resource_spans.resource.map(|it| pairs(&it.attributes)).unwrap_or_default();
        for scope_spans in resource_spans.scope_spans {
            let scope = scope_spans.scope.map(|scope| scope.name);
            let span = |proto| Span { proto, resource: resource.clone(), scope: scope.clone() };
            all.extend(scope_spans.spans.into_iter().map(span));
        }
    }
    Ok(all)
}

/// A record of a log as the collector got it.
#[derive(Debug, Clone)]
pub struct Record {
    /// What the record says.
    pub proto: LogRecord,
    /// What its resource says.
    pub resource: BTreeMap<String, String>,
    /// Who made it.
    pub scope: Option<String>,
}

impl Record {
    /// Its attributes.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        pairs(&self.proto.attributes)
    }

    /// Its body; `None`: it has none.
    pub fn body(&self) -> Option<String> {
        self.proto.body.as_ref().map(|body| text(Some(body)))
    }

    /// Its trace and span, in hexadecimal.
    pub fn ids(&self) -> (String, String) {
        (hex(&self.proto.trace_id), hex(&self.proto.span_id))
    }
}

/// The records of a request to a collector, over gRPC or HTTP.
///
/// # Errors
/// It is no OTLP request.
pub fn records(request: &Recorded) -> Result<Vec<Record>> {
    let message = message(request)?;
    let request = ExportLogsServiceRequest::decode(message).context("not an OTLP request")?;
    let mut all = Vec::new();
    for logs in request.resource_logs {
        let resource = logs.resource.map(|it| pairs(&it.attributes)).unwrap_or_default();
        for logs in logs.scope_logs {
            let scope = logs.scope.map(|scope| scope.name);
            let record = |proto| Record { proto, resource: resource.clone(), scope: scope.clone() };
            all.extend(logs.log_records.into_iter().map(record));
        }
    }
    Ok(all)
}

/// The message of a request.
fn message(request: &Recorded) -> Result<&[u8]> {
    let is_grpc = request
        .headers
        .iter()
        .any(|(name, value)| name == "content-type" && value.starts_with("application/grpc"));
    match is_grpc {
        false => Ok(&request.body[..]),
        true => match &request.body[..] {
            [0, _, _, _, _, message @ ..] => Ok(message),
            _ => bail!("not one uncompressed gRPC message"),
        },
    }
}

fn pairs(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let pair = |it: &KeyValue| (it.key.clone(), text(it.value.as_ref()));
    attributes.iter().map(pair).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
