//! Access logs that are sent to an OpenTelemetry collector.

use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::extensions::access_loggers::grpc::v3::CommonGrpcAccessLogConfig;
use outrigger_proto::envoy::extensions::access_loggers::open_telemetry::v3 as proto;
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::opentelemetry::common::v1::any_value::Value;
use outrigger_proto::opentelemetry::common::v1::{AnyValue, KeyValueList};
use prost::Message;

use crate::config::Problems;
use crate::config::access_log::{OtelAccessLog, OtelLogStream, OtelValue};
use crate::config::tracing::Exporter;

use super::common::{number, positive_duration, required, text, unpack, unsupported};
use super::grpc_access_log::{DEFAULT_BUFFER, DEFAULT_FLUSH};
use super::{config_source, format, grpc_service, tracing};

/// How deep values may stand in each other.
const MAX_DEPTH: u32 = 16;

/// A log over OTLP; `None` if `config` is something else.
pub(super) fn convert(problems: &mut Problems, config: &Any) -> Option<Option<OtelAccessLog>> {
    any::holds::<proto::OpenTelemetryAccessLogConfig>(config).then(|| log(problems, config))
}

fn log(problems: &mut Problems, config: &Any) -> Option<OtelAccessLog> {
    #[allow(deprecated)] // it is what most configurations have
    let proto::OpenTelemetryAccessLogConfig {
        common_config,
        http_service,
        grpc_service,
        disable_builtin_labels,
        resource_attributes,
        resource_detectors,
        body,
        attributes,
        stat_prefix,
        formatters,
        log_name,
        buffer_flush_interval,
        buffer_size_bytes,
        filter_state_objects_to_log,
        custom_tags,
    } = unpack(problems, config)?;
    unsupported!(problems; resource_detectors, formatters);
    let common = common_config.map(|proto| {
        problems.field("common_config", |problems| {
            let CommonGrpcAccessLogConfig {
                log_name,
                grpc_service,
                transport_api_version,
                buffer_flush_interval,
                buffer_size_bytes,
                filter_state_objects_to_log,
                grpc_stream_retry_policy,
                custom_tags,
            } = proto;
            // There is no stream: each message is a call.
            unsupported!(problems; grpc_stream_retry_policy);
            config_source::transport_version(problems, transport_api_version);
            let log_name = text(problems, "log_name", log_name);
            let service = required(problems, "grpc_service", grpc_service).and_then(|proto| {
                problems.field("grpc_service", |problems| grpc_service::convert(problems, proto))
            });
            let flush = positive_duration(problems, "buffer_flush_interval", buffer_flush_interval);
            let tags = tracing::custom_tags(problems, custom_tags);
            let size = number(buffer_size_bytes);
            (log_name, service, flush, size, filter_state_objects_to_log, tags)
        })
    });
    let grpc = grpc_service.and_then(|proto| {
        problems.field("grpc_service", |problems| grpc_service::convert(problems, proto))
    });
    let http = http_service.and_then(|proto| {
        problems.field("http_service", |problems| grpc_service::http(problems, proto))
    });
    let own_flush = positive_duration(problems, "buffer_flush_interval", buffer_flush_interval);
    let own_tags = tracing::custom_tags(problems, custom_tags);
    let (common_name, common_service, common_flush, common_size, common_state, common_tags) =
        common.unwrap_or_default();
    let given = [grpc.is_some(), http.is_some(), common_service.is_some()];
    if given.into_iter().filter(|is_given| *is_given).count() > 1 {
        problems.reject("only one of grpc_service, http_service, common_config.grpc_service");
    }
    let exporter = grpc.or(common_service).map(Exporter::Grpc).or_else(|| http.map(Exporter::Http));
    if exporter.is_none() {
        problems.reject("one of grpc_service, http_service is required");
    }
    let body = body
        .filter(|body| body.value.is_some())
        .and_then(|body| problems.field("body", |problems| value(problems, body, 0)));
    let attributes =
        problems.field("attributes", |problems| pairs(problems, attributes.unwrap_or_default(), 0));
    let own_or = |own: Vec<String>, common: Vec<String>| if own.is_empty() { common } else { own };
    let stream = OtelLogStream {
        exporter: exporter?,
        log_name: if log_name.is_empty() { common_name } else { log_name }.into(),
        builtin_labels: !disable_builtin_labels,
        resource: resource_attributes.unwrap_or_default().encode_to_vec(),
        stat_prefix: stat_prefix.into(),
        flush_interval: own_flush.or(common_flush).unwrap_or(DEFAULT_FLUSH),
        buffer_size: number(buffer_size_bytes).or(common_size).unwrap_or(DEFAULT_BUFFER) as usize,
    };
    let filter_state = own_or(filter_state_objects_to_log, common_state);
    Some(OtelAccessLog {
        stream: Arc::new(stream),
        body,
        attributes: attributes.into_vec(),
        filter_state: filter_state.into_iter().map(Into::into).collect(),
        custom_tags: if own_tags.is_empty() { common_tags } else { own_tags },
    })
}

/// As Envoy takes them: texts, lists and maps.
fn value(problems: &mut Problems, proto: AnyValue, depth: u32) -> Option<OtelValue> {
    if depth > MAX_DEPTH {
        problems.reject(format!("stands deeper than {MAX_DEPTH} levels"));
        return None;
    }
    match proto.value {
        Some(Value::StringValue(text)) => match format::parse(&text) {
            Ok(format) => Some(OtelValue::Text(format)),
            Err(reason) => {
                problems.reject_field("string_value", reason);
                None
            }
        },
        Some(Value::ArrayValue(list)) => problems.field("array_value", |problems| {
            let each = list.values.into_iter().enumerate().filter_map(|(index, proto)| {
                problems.element("values", index, |problems| value(problems, proto, depth + 1))
            });
            Some(OtelValue::List(each.collect()))
        }),
        Some(Value::KvlistValue(map)) => problems.field("kvlist_value", |problems| {
            Some(OtelValue::Map(pairs(problems, map, depth + 1)))
        }),
        _ => {
            problems.reject("only string_value, array_value and kvlist_value can be formatted");
            None
        }
    }
}

fn pairs(problems: &mut Problems, proto: KeyValueList, depth: u32) -> Box<[(Box<str>, OtelValue)]> {
    let each = proto.values.into_iter().enumerate().filter_map(|(index, pair)| {
        problems.element("values", index, |problems| {
            let of = pair.value.unwrap_or_default();
            let value = problems.field("value", |problems| value(problems, of, depth))?;
            Some((pair.key.into(), value))
        })
    });
    each.collect()
}
