//! Protocol options that connection managers and clusters share.

use std::time::Duration;

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;

use crate::config::Problems;
use crate::config::http_connection_manager::{Http2Options, Underscores};

use super::common::{
    enumeration, limit, number, number_in, positive_duration, required, unsupported,
    unsupported_if_true,
};

/// Streams a peer may have open at once where nothing is set: Envoy's default.
const DEFAULT_STREAMS: u32 = 1024;
/// Window of a stream where nothing is set. The connection's window is what bounds memory.
const DEFAULT_STREAM_WINDOW: u32 = 256 << 10;
/// Window of a connection where nothing is set: Envoy's advice for proxies that face clients.
const DEFAULT_CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of headers that the peer's encoder keeps where nothing is set.
const DEFAULT_TABLE: u32 = 4096;
/// The longest window of HTTP/2, RFC 9113 section 6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The shortest window that Envoy accepts.
const MIN_WINDOW: u32 = 65_535;
/// How long a connection may have no request where nothing is set.
const DEFAULT_IDLE: Duration = Duration::from_secs(3600);
/// Headers of a message where nothing is set.
const DEFAULT_HEADERS: u32 = 100;
/// Kilobytes of a response's headers where nothing is set.
pub(super) const DEFAULT_HEADERS_KB: u32 = 60;
/// The most that Envoy accepts.
pub(super) const MAX_HEADERS_KB: u32 = 8192;

/// HTTP/2 options, with our defaults where there are none.
pub(super) fn http2(
    problems: &mut Problems,
    proto: Option<core::Http2ProtocolOptions>,
) -> Http2Options {
    let core::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec: _, // which of Envoy's two codecs; there is one here
        max_metadata_size: _, // of METADATA frames, which allow_metadata would turn on and which is refused
        enable_huffman_encoding: _, // how headers are packed; both ends understand either way
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = proto.unwrap_or_default();
    unsupported!(problems;
        allow_metadata, max_outbound_frames, max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent, custom_settings_parameters,
        stream_error_on_invalid_http_messaging, max_header_field_size_kb, stream_reset_burst,
        stream_reset_rate);
    unsupported_if_true!(problems;
        override_stream_error_on_invalid_http_message, disallow_obs_text);
    let max_concurrent_streams =
        number_in(problems, "max_concurrent_streams", max_concurrent_streams, 1..=MAX_WINDOW);
    let stream_window = number_in(
        problems,
        "initial_stream_window_size",
        initial_stream_window_size,
        MIN_WINDOW..=MAX_WINDOW,
    );
    let connection_window = number_in(
        problems,
        "initial_connection_window_size",
        initial_connection_window_size,
        MIN_WINDOW..=MAX_WINDOW,
    );
    Http2Options {
        max_concurrent_streams: max_concurrent_streams.unwrap_or(DEFAULT_STREAMS),
        initial_stream_window_size: stream_window.unwrap_or(DEFAULT_STREAM_WINDOW),
        initial_connection_window_size: connection_window.unwrap_or(DEFAULT_CONNECTION_WINDOW),
        allow_connect,
        header_table_size: number(hpack_table_size).unwrap_or(DEFAULT_TABLE),
        keepalive: connection_keepalive.and_then(|proto| {
            problems.field("connection_keepalive", |problems| keepalive(problems, proto))
        }),
    }
}

fn keepalive(
    problems: &mut Problems,
    proto: core::KeepaliveSettings,
) -> Option<(Duration, Duration)> {
    let core::KeepaliveSettings {
        interval,
        timeout,
        interval_jitter: _, // spreads pings of many connections in time; changes no outcome
        connection_idle_interval,
    } = proto;
    unsupported!(problems; connection_idle_interval);
    let timeout = required(problems, "timeout", timeout)
        .and_then(|timeout| positive_duration(problems, "timeout", Some(timeout)));
    let interval = positive_duration(problems, "interval", interval);
    interval.zip(timeout)
}

/// What `HttpProtocolOptions` of the core API says, for either side.
pub(super) struct Common {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_headers_count: usize,
    /// Of endpoints.
    pub(super) max_response_headers_bytes: u32,
    pub(super) max_stream_duration: Option<Duration>,
    pub(super) underscores: Underscores,
    pub(super) max_requests_per_connection: Option<u32>,
}

/// The common options, with Envoy's defaults where there are none.
pub(super) fn common(problems: &mut Problems, proto: Option<core::HttpProtocolOptions>) -> Common {
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = proto.unwrap_or_default();
    unsupported!(problems; max_connection_duration_jitter);
    let max_response_headers_kb =
        number_in(problems, "max_response_headers_kb", max_response_headers_kb, 1..=MAX_HEADERS_KB)
            .unwrap_or(DEFAULT_HEADERS_KB);
    let idle_timeout = limit(problems, "idle_timeout", idle_timeout, Some(DEFAULT_IDLE));
    let max_connection_duration =
        limit(problems, "max_connection_duration", max_connection_duration, None);
    let max_headers_count =
        number_in(problems, "max_headers_count", max_headers_count, 1..=u32::MAX)
            .unwrap_or(DEFAULT_HEADERS);
    let max_stream_duration = limit(problems, "max_stream_duration", max_stream_duration, None);
    let underscores = match enumeration(
        problems,
        "headers_with_underscores_action",
        headers_with_underscores_action,
    ) {
        Some(HeadersWithUnderscoresAction::RejectRequest) => Underscores::RejectRequest,
        Some(HeadersWithUnderscoresAction::DropHeader) => Underscores::DropHeader,
        Some(HeadersWithUnderscoresAction::Allow) | None => Underscores::Allow,
    };
    Common {
        idle_timeout,
        max_connection_duration,
        max_headers_count: max_headers_count as usize,
        max_response_headers_bytes: max_response_headers_kb * 1024,
        max_stream_duration,
        underscores,
        max_requests_per_connection: number(max_requests_per_connection).filter(|max| *max > 0),
    }
}
