//! A record as an entry of a gRPC log: what stands in which field is Envoy's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderName, Version};
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use outrigger_proto::envoy::data::accesslog::v3 as proto;
use outrigger_proto::envoy::data::accesslog::v3::tls_properties::certificate_properties::{
    SubjectAltName, subject_alt_name::San,
};
use outrigger_proto::envoy::data::accesslog::v3::tls_properties::{
    CertificateProperties, TlsVersion,
};
use outrigger_proto::envoy::extensions::filters::http::grpc_stats::v3::FilterObject;
use outrigger_proto::google::protobuf::{Any, Duration as DurationProto, Timestamp};
use outrigger_proto::google::protobuf::{StringValue, UInt32Value};
use prost::{Message, Name};

use super::super::flags::ResponseFlags;
use super::super::record::{Certificate, Headers, LogRecord, LogType};
use super::super::tag::tag_value;
use crate::config::access_log::{GrpcAccessLog, GrpcLogKind};
use crate::config::address::Address;
use crate::config::metadata::{StateKind, StateText};

/// An encoded `HTTPAccessLogEntry` or `TCPAccessLogEntry`.
pub(super) fn encoded(config: &GrpcAccessLog, record: &LogRecord<'_>) -> Bytes {
    match config.stream.kind {
        GrpcLogKind::Http => http(config, record).encode_to_vec().into(),
        GrpcLogKind::Tcp => proto::TcpAccessLogEntry {
            common_properties: Some(common(config, record)),
            connection_properties: Some(proto::ConnectionProperties {
                received_bytes: record.bytes_received,
                sent_bytes: record.bytes_sent,
            }),
        }
        .encode_to_vec()
        .into(),
    }
}

fn http(config: &GrpcAccessLog, record: &LogRecord<'_>) -> proto::HttpAccessLogEntry {
    use proto::http_access_log_entry::HttpVersion;
    let protocol_version = match record.protocol {
        None => HttpVersion::ProtocolUnspecified,
        Some(Version::HTTP_10) => HttpVersion::Http10,
        Some(Version::HTTP_2) => HttpVersion::Http2,
        Some(Version::HTTP_3) => HttpVersion::Http3,
        Some(_) => HttpVersion::Http11,
    };
    proto::HttpAccessLogEntry {
        common_properties: Some(common(config, record)),
        protocol_version: protocol_version as i32,
        request: Some(request(config, record)),
        response: Some(response(config, record)),
    }
}

fn request(config: &GrpcAccessLog, record: &LogRecord<'_>) -> proto::HttpRequestProperties {
    let headers = record.request_headers;
    let header = |name: &'static str| {
        let value = headers.get(&HeaderName::from_static(name));
        value.map(|value| text(value.as_bytes())).unwrap_or_default()
    };
    let method = record.method.unwrap_or_default();
    let method = core::RequestMethod::from_str_name(method).unwrap_or_default();
    proto::HttpRequestProperties {
        request_method: method as i32,
        scheme: record.scheme.unwrap_or_default().to_owned(),
        authority: record.authority.unwrap_or_default().to_owned(),
        path: record.path.unwrap_or_default().to_owned(),
        user_agent: header("user-agent"),
        referer: header("referer"),
        forwarded_for: header("x-forwarded-for"),
        request_id: header("x-request-id"),
        original_path: header("x-envoy-original-path"),
        request_headers_bytes: record.request_headers_bytes,
        request_body_bytes: record.bytes_received,
        request_headers: pairs(&config.request_headers, headers),
        ..Default::default()
    }
}

fn response(config: &GrpcAccessLog, record: &LogRecord<'_>) -> proto::HttpResponseProperties {
    let code = record.response_code.map(|code| UInt32Value { value: code.into() });
    proto::HttpResponseProperties {
        response_code: code,
        response_headers_bytes: record.response_headers_bytes,
        response_body_bytes: record.bytes_sent,
        response_headers: pairs(&config.response_headers, record.response_headers),
        response_trailers: pairs(&config.response_trailers, record.response_trailers),
        response_code_details: record.response_code_details.unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

/// The named headers that are there, several values of one joined.
fn pairs(names: &[HeaderName], headers: Headers<'_>) -> std::collections::HashMap<String, String> {
    let pair = |name: &HeaderName| {
        let values: Vec<String> = headers.all(name).map(|value| text(value.as_bytes())).collect();
        (!values.is_empty()).then(|| (name.as_str().to_owned(), values.join(",")))
    };
    names.iter().filter_map(pair).collect()
}

/// What every entry says.
#[expect(deprecated, reason = "intermediate_log_entry: Envoy sets it still")]
fn common(config: &GrpcAccessLog, record: &LogRecord<'_>) -> proto::AccessLogCommon {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let upstream = record.upstream;
    let filter_state = config
        .filter_state
        .iter()
        .filter_map(|key| Some((key.to_string(), packed(record.filter_state?.at(key)?))));
    let tag = |tag: &crate::config::tracing::CustomTag| {
        Some((tag.tag.to_string(), tag_value(&tag.value, record)?))
    };
    proto::AccessLogCommon {
        downstream_remote_address: record.downstream_remote.as_ref().map(address_proto),
        downstream_local_address: record.downstream_local.as_ref().map(address_proto),
        downstream_direct_remote_address: record
            .downstream_direct_remote
            .as_ref()
            .map(address_proto),
        tls_properties: tls(record),
        start_time: Some(timestamp(record.start)),
        time_to_last_rx_byte: record.request_duration.map(duration),
        time_to_first_upstream_tx_byte: record.request_tx_begin.map(duration),
        time_to_last_upstream_tx_byte: record.request_tx_duration.map(duration),
        time_to_first_upstream_rx_byte: record.response_duration.map(duration),
        time_to_last_upstream_rx_byte: record.response_rx_duration.map(duration),
        time_to_first_downstream_tx_byte: record.downstream_tx_begin().map(duration),
        time_to_last_downstream_tx_byte: record.downstream_tx_end().map(duration),
        upstream_remote_address: record.upstream_host.as_ref().map(address_proto),
        upstream_local_address: upstream
            .and_then(|upstream| Some(address_proto(&upstream.local?.into()))),
        // Of the endpoint: without one there is none.
        upstream_cluster: text(
            record.upstream_cluster_name.filter(|_| record.upstream_host.is_some()),
        ),
        response_flags: flags(record.flags),
        metadata: metadata(record),
        upstream_transport_failure_reason: text(record.upstream_transport_failure_reason),
        route_name: text(record.route_name),
        filter_state_objects: filter_state.collect(),
        custom_tags: config.custom_tags.iter().filter_map(tag).collect(),
        duration: record.duration.map(duration),
        upstream_request_attempt_count: record.attempt_count,
        connection_termination_details: text(record.connection_termination_details),
        stream_id: text(record.stream_id),
        access_log_type: kind(record.log_type) as i32,
        intermediate_log_entry: is_intermediate(record.log_type),
        ..Default::default()
    }
}

fn packed(state: &StateText) -> Any {
    match state.kind {
        StateKind::Text | StateKind::Hashable => {
            let value = StringValue { value: state.text.to_string() };
            Any { type_url: StringValue::type_url(), value: value.encode_to_vec() }
        }
        StateKind::GrpcMessages { request, response } => {
            let value =
                FilterObject { request_message_count: request, response_message_count: response };
            Any { type_url: FilterObject::type_url(), value: value.encode_to_vec() }
        }
    }
}

/// More is to come of this request or connection.
fn is_intermediate(log_type: LogType) -> bool {
    match log_type {
        LogType::NotSet | LogType::DownstreamEnd | LogType::TcpConnectionEnd => false,
        LogType::DownstreamStart
        | LogType::TcpConnectionStart
        | LogType::TcpUpstreamConnected
        | LogType::TcpPeriodic => true,
    }
}

fn kind(log_type: LogType) -> proto::AccessLogType {
    match log_type {
        LogType::NotSet => proto::AccessLogType::NotSet,
        LogType::DownstreamStart => proto::AccessLogType::DownstreamStart,
        LogType::DownstreamEnd => proto::AccessLogType::DownstreamEnd,
        LogType::TcpConnectionStart => proto::AccessLogType::TcpConnectionStart,
        LogType::TcpUpstreamConnected => proto::AccessLogType::TcpUpstreamConnected,
        LogType::TcpPeriodic => proto::AccessLogType::TcpPeriodic,
        LogType::TcpConnectionEnd => proto::AccessLogType::TcpConnectionEnd,
    }
}

/// The message of an address.
pub(crate) fn address_proto(address: &Address) -> core::Address {
    let address = match address {
        Address::Ip(address) => core::address::Address::SocketAddress(core::SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..Default::default()
        }),
        Address::Pipe(path) => {
            core::address::Address::Pipe(core::Pipe { path: path.to_string(), mode: 0 })
        }
    };
    core::Address { address: Some(address) }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: since.subsec_nanos() as i32 }
}

fn duration(length: Duration) -> DurationProto {
    let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
    DurationProto { seconds, nanos: length.subsec_nanos() as i32 }
}

/// Bytes of a header as text; what is not UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The request's metadata, if any.
fn metadata(record: &LogRecord<'_>) -> Option<core::Metadata> {
    let metadata = record.dynamic_metadata.filter(|metadata| !metadata.0.is_empty())?;
    Some(crate::config::metadata::to_proto(metadata))
}

fn tls(record: &LogRecord<'_>) -> Option<proto::TlsProperties> {
    let version = record.downstream_tls_version?;
    let tls_version = match version {
        "TLSv1.3" => TlsVersion::TlSv13,
        "TLSv1.2" => TlsVersion::TlSv12,
        "TLSv1.1" => TlsVersion::TlSv11,
        "TLSv1" => TlsVersion::TlSv1,
        _ => TlsVersion::VersionUnspecified,
    };
    Some(proto::TlsProperties {
        tls_version: tls_version as i32,
        tls_cipher_suite: record.downstream_tls_cipher.and_then(suite),
        tls_sni_hostname: record.requested_server_name.unwrap_or_default().to_owned(),
        local_certificate_properties: Some(
            record.downstream_own.map(certificate).unwrap_or_default(),
        ),
        peer_certificate_properties: Some(
            record.downstream_peer.map(certificate).unwrap_or_default(),
        ),
        ..Default::default()
    })
}

fn certificate(certificate: Certificate<'_>) -> CertificateProperties {
    let uris = certificate.uri_sans.iter().map(|uri| San::Uri(uri.to_string()));
    let names = certificate.dns_sans.iter().map(|name| San::Dns(name.to_string()));
    CertificateProperties {
        subject_alt_name: uris.chain(names).map(|san| SubjectAltName { san: Some(san) }).collect(),
        subject: certificate.subject.to_owned(),
        issuer: certificate.issuer.to_owned(),
    }
}

/// The number of a cipher suite (IANA), by OpenSSL's name.
fn suite(name: &str) -> Option<UInt32Value> {
    let value = match name {
        "TLS_AES_128_GCM_SHA256" => 0x1301,
        "TLS_AES_256_GCM_SHA384" => 0x1302,
        "TLS_CHACHA20_POLY1305_SHA256" => 0x1303,
        "ECDHE-ECDSA-AES128-GCM-SHA256" => 0xc02b,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => 0xc02c,
        "ECDHE-RSA-AES128-GCM-SHA256" => 0xc02f,
        "ECDHE-RSA-AES256-GCM-SHA384" => 0xc030,
        "ECDHE-RSA-CHACHA20-POLY1305" => 0xcca8,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => 0xcca9,
        _ => return None,
    };
    Some(UInt32Value { value })
}

/// The flags that the message has a field for.
fn flags(flags: ResponseFlags) -> Option<proto::ResponseFlags> {
    if flags.is_empty() {
        return None;
    }
    let mut set = proto::ResponseFlags::default();
    for name in flags.names(false) {
        let field = match name {
            "LH" => &mut set.failed_local_healthcheck,
            "UH" => &mut set.no_healthy_upstream,
            "UT" => &mut set.upstream_request_timeout,
            "LR" => &mut set.local_reset,
            "UR" => &mut set.upstream_remote_reset,
            "UF" => &mut set.upstream_connection_failure,
            "UC" => &mut set.upstream_connection_termination,
            "UO" => &mut set.upstream_overflow,
            "NR" => &mut set.no_route_found,
            "DI" => &mut set.delay_injected,
            "FI" => &mut set.fault_injected,
            "RL" => &mut set.rate_limited,
            "RLSE" => &mut set.rate_limit_service_error,
            "DC" => &mut set.downstream_connection_termination,
            "URX" => &mut set.upstream_retry_limit_exceeded,
            "SI" => &mut set.stream_idle_timeout,
            "IH" => &mut set.invalid_envoy_request_headers,
            "DPE" => &mut set.downstream_protocol_error,
            "UMSDR" => &mut set.upstream_max_stream_duration_reached,
            "RFCF" => &mut set.response_from_cache_filter,
            "NFCF" => &mut set.no_filter_config_found,
            "DT" => &mut set.duration_timeout,
            "UPE" => &mut set.upstream_protocol_error,
            "NC" => &mut set.no_cluster_found,
            "OM" => &mut set.overload_manager,
            "DF" => &mut set.dns_resolution_failure,
            "DR" => &mut set.downstream_remote_reset,
            "UAEX" => {
                use proto::response_flags::unauthorized::Reason;
                let reason = Reason::ExternalService as i32;
                set.unauthorized_details = Some(proto::response_flags::Unauthorized { reason });
                continue;
            }
            _ => continue,
        };
        *field = true;
    }
    Some(set)
}
