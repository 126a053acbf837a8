//! Access logs that are sent over gRPC.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use outrigger_proto::any;
use outrigger_proto::envoy::extensions::access_loggers::grpc::v3 as proto;
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::access_log::{GrpcAccessLog, GrpcLogKind, GrpcLogStream};

use super::common::{header_name, number, positive_duration, required, text, unpack};
use super::{config_source, grpc_service, tracing};

/// Entries wait so long for others where nothing is set.
pub(super) const DEFAULT_FLUSH: Duration = Duration::from_secs(1);
/// Bytes of entries that are sent at once where nothing is set.
pub(super) const DEFAULT_BUFFER: u32 = 16_384;
/// Bounds of the pause before a stream that broke is opened again, where nothing is set.
const DEFAULT_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A log over gRPC; `None` if `config` is something else.
pub(super) fn convert(problems: &mut Problems, config: &Any) -> Option<Option<GrpcAccessLog>> {
    if any::holds::<proto::HttpGrpcAccessLogConfig>(config) {
        return Some(http(problems, config));
    }
    if any::holds::<proto::TcpGrpcAccessLogConfig>(config) {
        return Some(tcp(problems, config));
    }
    None
}

fn http(problems: &mut Problems, config: &Any) -> Option<GrpcAccessLog> {
    let proto::HttpGrpcAccessLogConfig {
        common_config,
        additional_request_headers_to_log,
        additional_response_headers_to_log,
        additional_response_trailers_to_log,
    } = unpack(problems, config)?;
    let mut names = |field: &str, names: Vec<String>| -> Vec<HeaderName> {
        let name = |(index, name): (usize, String)| {
            header_name(problems, &format!("{field}[{index}]"), &name)
        };
        names.into_iter().enumerate().filter_map(name).collect()
    };
    let request_headers =
        names("additional_request_headers_to_log", additional_request_headers_to_log);
    let response_headers =
        names("additional_response_headers_to_log", additional_response_headers_to_log);
    let response_trailers =
        names("additional_response_trailers_to_log", additional_response_trailers_to_log);
    let log = common(problems, GrpcLogKind::Http, common_config)?;
    Some(GrpcAccessLog { request_headers, response_headers, response_trailers, ..log })
}

fn tcp(problems: &mut Problems, config: &Any) -> Option<GrpcAccessLog> {
    let proto::TcpGrpcAccessLogConfig { common_config } = unpack(problems, config)?;
    common(problems, GrpcLogKind::Tcp, common_config)
}

fn common(
    problems: &mut Problems,
    kind: GrpcLogKind,
    proto: Option<proto::CommonGrpcAccessLogConfig>,
) -> Option<GrpcAccessLog> {
    let proto::CommonGrpcAccessLogConfig {
        log_name,
        grpc_service,
        transport_api_version,
        buffer_flush_interval,
        buffer_size_bytes,
        filter_state_objects_to_log,
        grpc_stream_retry_policy,
        custom_tags,
    } = required(problems, "common_config", proto)?;
    problems.field("common_config", |problems| {
        config_source::transport_version(problems, transport_api_version);
        let log_name = text(problems, "log_name", log_name);
        let service = required(problems, "grpc_service", grpc_service)
            .and_then(|it| problems.field("grpc_service", |p| grpc_service::convert(p, it)));
        let flush_interval =
            positive_duration(problems, "buffer_flush_interval", buffer_flush_interval);
        let backoff = grpc_stream_retry_policy.and_then(|proto| {
            problems.field("grpc_stream_retry_policy", |p| grpc_service::backoff(p, proto))
        });
        let custom_tags = tracing::custom_tags(problems, custom_tags);
        let stream = GrpcLogStream {
            kind,
            log_name: log_name.into(),
            service: service?,
            flush_interval: flush_interval.unwrap_or(DEFAULT_FLUSH),
            buffer_size: number(buffer_size_bytes).unwrap_or(DEFAULT_BUFFER) as usize,
            backoff: backoff.unwrap_or(DEFAULT_BACKOFF),
        };
        Some(GrpcAccessLog {
            stream: Arc::new(stream),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            response_trailers: Vec::new(),
            filter_state: filter_state_objects_to_log.into_iter().map(Into::into).collect(),
            custom_tags,
        })
    })
}
