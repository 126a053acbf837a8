//! HTTP/1 options of either side.

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use outrigger_proto::envoy::config::core::v3::http1_protocol_options::header_key_format::{
    HeaderFormat, ProperCaseWords,
};

use crate::config::Problems;
use crate::config::http1::{DownstreamHttp1, UpstreamHttp1};

use super::common::{boolean, optional_header_value, unsupported, unsupported_if_true};
use super::matcher;

/// What a connection manager says.
pub(super) fn downstream(
    problems: &mut Problems,
    proto: Option<core::Http1ProtocolOptions>,
) -> DownstreamHttp1 {
    let core::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser: _, // which of Envoy's two parsers; there is one here
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = proto.unwrap_or_default();
    unsupported!(problems; enable_trailers, send_fully_qualified_url);
    unsupported_if_true!(problems; override_stream_error_on_invalid_http_message);
    if !boolean(allow_absolute_url, true) {
        problems.reject_field("allow_absolute_url", "absolute URLs cannot be turned off");
    }
    let ignored = ignore_http_11_upgrade.into_iter().enumerate().filter_map(|(index, proto)| {
        problems
            .element("ignore_http_11_upgrade", index, |problems| matcher::string(problems, proto))
    });
    let ignored_upgrades = ignored.collect();
    DownstreamHttp1 {
        accept_http_10,
        default_host: optional_header_value(
            problems,
            "default_host_for_http_10",
            &default_host_for_http_10,
        ),
        proper_case: proper_case(problems, header_key_format),
        allow_chunked_length,
        allow_custom_methods,
        ignored_upgrades,
    }
}

/// What a cluster says. What is for servers alone is refused: it would have no effect.
pub(super) fn upstream(
    problems: &mut Problems,
    proto: Option<core::Http1ProtocolOptions>,
) -> UpstreamHttp1 {
    let core::Http1ProtocolOptions {
        allow_absolute_url: _, // of requests that are received
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser: _, // which of Envoy's two parsers; there is one here
        allow_custom_methods: _, // of requests that are received
        ignore_http_11_upgrade,
    } = proto.unwrap_or_default();
    // Endpoints that answer HTTP/1.0 are understood always.
    unsupported!(problems;
        accept_http_10, default_host_for_http_10, enable_trailers, allow_chunked_length,
        ignore_http_11_upgrade);
    unsupported_if_true!(problems; override_stream_error_on_invalid_http_message);
    UpstreamHttp1 {
        proper_case: proper_case(problems, header_key_format),
        fully_qualified: send_fully_qualified_url,
    }
}

/// Whether names of headers are written `Like-This`.
fn proper_case(problems: &mut Problems, proto: Option<HeaderKeyFormat>) -> bool {
    let Some(HeaderKeyFormat { header_format }) = proto else { return false };
    problems.field("header_key_format", |problems| match header_format {
        Some(HeaderFormat::ProperCaseWords(ProperCaseWords {})) => true,
        Some(HeaderFormat::StatefulFormatter(_)) => {
            problems.unsupported("stateful_formatter", true);
            false
        }
        None => {
            problems.reject("one of proper_case_words, stateful_formatter is required");
            false
        }
    })
}
