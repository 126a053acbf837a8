//! Access logs that are sent to an OpenTelemetry collector: a record as OTLP has it.
//!
//! As with [`grpc`](super::grpc) a worker makes the record at once, encoded, and the control thread puts records together
//! and sends them.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord as Proto, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::grpc::Stream;
use super::record::LogRecord;
use super::tag::tag_value;
use super::text::render;
use crate::config::access_log::{OtelAccessLog, OtelLogStream, OtelValue};
use crate::config::bootstrap::LocalInfo;

/// Path of the gRPC method that takes a [`request`].
pub(crate) const GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// One configured log.
pub(super) struct OtelLogger {
    config: Arc<OtelAccessLog>,
    stream: Arc<Stream<OtelLogStream>>,
}

impl OtelLogger {
    pub(super) fn new(config: &Arc<OtelAccessLog>, stream: Arc<Stream<OtelLogStream>>) -> Self {
        Self { config: Arc::clone(config), stream }
    }

    pub(super) fn log(&self, record: &LogRecord<'_>) {
        self.stream.write(encoded(&self.config, record));
    }
}

/// An encoded `LogRecord`.
fn encoded(config: &OtelAccessLog, record: &LogRecord<'_>) -> Bytes {
    let started = record.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut attributes: Vec<KeyValue> =
        config.attributes.iter().map(|(key, of)| pair(key, value(of, record))).collect();
    let state = config.filter_state.iter().filter_map(|key| {
        let text = record.filter_state?.at(key)?;
        // As the message is printed that holds it.
        Some(pair(key, string(text.json(false).to_string())))
    });
    attributes.extend(state);
    let tags = config.custom_tags.iter();
    attributes.extend(
        tags.filter_map(|tag| Some(pair(&tag.tag, string(tag_value(&tag.value, record)?)))),
    );
    let id = |digits: Option<&str>| digits.map(bytes_of).unwrap_or_default();
    Proto {
        time_unix_nano: u64::try_from(started.as_nanos()).unwrap_or(u64::MAX),
        body: config.body.as_ref().map(|body| value(body, record)),
        attributes,
        trace_id: id(record.trace_id),
        span_id: id(record.span_id),
        ..Proto::default()
    }
    .encode_to_vec()
    .into()
}

fn value(of: &OtelValue, record: &LogRecord<'_>) -> AnyValue {
    match of {
        OtelValue::Text(format) => {
            let mut text = Vec::new();
            render(format, record, b"-", &mut text);
            string(String::from_utf8_lossy(&text).into_owned())
        }
        OtelValue::List(list) => {
            let values = list.iter().map(|of| value(of, record)).collect();
            AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }
        }
        OtelValue::Map(map) => {
            let values = map.iter().map(|(key, of)| pair(key, value(of, record))).collect();
            AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }
        }
    }
}

fn string(text: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text)) }
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

/// Of hexadecimal digits; nothing if they are none.
fn bytes_of(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<_>>().unwrap_or_default()
}

/// An encoded `ExportLogsServiceRequest` of these records.
pub(crate) fn request(config: &OtelLogStream, from: &LocalInfo, records: &[Bytes]) -> Vec<u8> {
    let mut attributes = Vec::new();
    if config.builtin_labels {
        for (key, text) in [
            ("log_name", &*config.log_name),
            ("zone_name", &from.zone),
            ("cluster_name", &from.cluster),
            ("node_name", &from.id),
        ] {
            attributes.push(pair(key, string(text.to_owned())));
        }
    }
    // It was encoded by us, as a message of the same shape.
    let more = KeyValueList::decode(&*config.resource).unwrap_or_default();
    attributes.extend(more.values);
    let log_records = records.iter().filter_map(|it| Proto::decode(&**it).ok()).collect();
    let logs = ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bytes() {
        assert_eq!(bytes_of("0af7"), [0x0a, 0xf7]);
        assert_eq!(bytes_of("zz"), [0; 0]);
    }
}
