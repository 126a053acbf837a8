//! The HTTP connection manager filter.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::scheme_header_transformation::Transformation;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use outrigger_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;

use crate::config::Problems;
use crate::config::http_connection_manager::{
    Codec, EscapedSlashes, ForwardClientCert, ForwardClientCertMode, HttpConnectionManager,
    RequestScheme, RouteSource, ServerHeader, StripPort, Upgrade,
};

use super::common::{
    boolean, duration, enumeration, header_value, limit, number_in, optional_header_value,
    required, text, unknown_type, unpack, unsupported, unsupported_if_true,
};
use super::http_filter::{self, Filters};
use super::http_options::{DEFAULT_HEADERS_KB, MAX_HEADERS_KB};
use super::tracing::RequestId;
use super::{
    access_log, client_address, config_source, http_options, http1, local_reply, route,
    route_action, tracing,
};

/// A stream may be silent for so long where nothing is set.
const DEFAULT_STREAM_IDLE: Duration = Duration::from_secs(300);
/// Between the two GOAWAYs where nothing is set.
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);
/// A closing connection waits so long for its client where nothing is set.
const DEFAULT_DELAYED_CLOSE: Duration = Duration::from_secs(1);

/// The filter's configuration.
#[allow(clippy::too_many_lines)] // one field after the other, as in the proto
pub(super) fn convert(
    problems: &mut Problems,
    proto: proto::HttpConnectionManager,
) -> Option<HttpConnectionManager> {
    let proto::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state: _, // of PROXY protocol to upstreams, which is refused
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = proto;
    unsupported!(problems;
        http1_safe_max_connection_duration, http3_protocol_options, stream_flush_timeout, drain_timeout_jitter,
        access_log_flush_interval, forward_client_cert_matcher, proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        path_normalization_options, proxy_status_config, typed_header_validation_config,
        append_x_forwarded_port, append_local_overload, forward_proto_config);
    unsupported_if_true!(problems; stream_error_on_invalid_http_message);
    let request_id = request_id(problems, request_id_extension);
    let tracing = tracing::convert(problems, tracing, &request_id);

    let codec = codec(problems, codec_type);
    let stat_prefix = text(problems, "stat_prefix", stat_prefix);
    let Filters { filters, router } = http_filter::convert(problems, "http_filters", http_filters);
    let common = problems.field("common_http_protocol_options", |problems| {
        // Of responses, which a connection manager does not receive.
        let limits_responses = common_http_protocol_options
            .as_ref()
            .is_some_and(|options| options.max_response_headers_kb.is_some());
        problems.unsupported("max_response_headers_kb", limits_responses);
        http_options::common(problems, common_http_protocol_options)
    });
    let http1 = problems.field("http_protocol_options", |problems| {
        http1::downstream(problems, http_protocol_options)
    });
    let scheme = scheme_header_transformation.and_then(|proto| {
        problems.field("scheme_header_transformation", |problems| scheme(problems, proto))
    });
    let http2 = problems.field("http2_protocol_options", |problems| {
        http_options::http2(problems, http2_protocol_options)
    });
    let server_name = optional_header_value(problems, "server_name", &server_name)
        .unwrap_or(HeaderValue::from_static("envoy"));
    let server_header =
        match enumeration(problems, "server_header_transformation", server_header_transformation) {
            Some(hcm::ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
            Some(hcm::ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
            Some(hcm::ServerHeaderTransformation::Overwrite) | None => ServerHeader::Overwrite,
        };
    let max_request_headers_kb =
        number_in(problems, "max_request_headers_kb", max_request_headers_kb, 1..=MAX_HEADERS_KB)
            .unwrap_or(DEFAULT_HEADERS_KB);
    let stream_idle_timeout =
        limit(problems, "stream_idle_timeout", stream_idle_timeout, Some(DEFAULT_STREAM_IDLE));
    let request_timeout = limit(problems, "request_timeout", request_timeout, None);
    let request_headers_timeout =
        limit(problems, "request_headers_timeout", request_headers_timeout, None);
    let drain_timeout = duration(problems, "drain_timeout", drain_timeout).unwrap_or(DEFAULT_DRAIN);
    let delayed_close_timeout = duration(problems, "delayed_close_timeout", delayed_close_timeout)
        .unwrap_or(DEFAULT_DELAYED_CLOSE);
    let access_logs = access_log::convert(problems, "access_log", access_log);
    let log_new_requests =
        log_options(problems, access_log_options, flush_access_log_on_new_request);
    let via = if via.is_empty() { None } else { header_value(problems, "via", via.as_bytes()) };
    let forward_client_cert =
        client_cert(problems, forward_client_cert_details, set_current_client_cert_details);
    let upgrades = upgrades(problems, upgrade_configs);
    let escaped_slashes = escaped_slashes(problems, path_with_escaped_slashes_action);
    let strip_port = strip_port(problems, strip_matching_host_port, strip_port_mode);
    let local_replies = local_reply::convert(problems, local_reply_config);
    let use_remote_address = boolean(use_remote_address, false);
    let internal_addresses = client_address::internal(problems, internal_address_config);
    let client_addresses = client_address::detection(
        problems,
        original_ip_detection_extensions,
        use_remote_address,
        xff_num_trusted_hops,
    );
    let early_mutations =
        client_address::early_mutations(problems, early_header_mutation_extensions);
    let routes = route_source(problems, route_specifier);
    Some(HttpConnectionManager {
        stat_prefix: stat_prefix.into(),
        codec: codec?,
        routes: routes?,
        filters,
        suppress_envoy_headers: router.suppress_envoy_headers,
        respect_expected_timeout: router.respect_expected_timeout,
        strict_headers: router.strict_headers,
        server_name,
        server_header,
        max_request_headers_bytes: max_request_headers_kb as usize * 1024,
        max_headers_count: common.max_headers_count,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_stream_duration: common.max_stream_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        stream_idle_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        delayed_close_timeout,
        http2,
        http1,
        scheme,
        add_user_agent: boolean(add_user_agent, false),
        use_remote_address,
        xff_num_trusted_hops,
        internal_addresses,
        client_addresses,
        early_mutations,
        skip_xff_append,
        generate_request_id: boolean(generate_request_id, true),
        preserve_external_request_id,
        always_set_request_id_in_response,
        via,
        forward_client_cert,
        normalize_path: boolean(normalize_path, false),
        merge_slashes,
        escaped_slashes,
        underscores: common.underscores,
        strip_port,
        strip_trailing_host_dot,
        upgrades,
        access_logs,
        log_new_requests,
        local_replies: local_replies.map(Arc::new),
        tracing: tracing.map(Arc::new),
    })
}

/// Whether logs are written when a request begins; the field stood in the filter itself before there was a message of its own.
fn log_options(
    problems: &mut Problems,
    options: Option<hcm::HcmAccessLogOptions>,
    old_on_new_request: bool,
) -> bool {
    let Some(options) = options else { return old_on_new_request };
    if old_on_new_request {
        problems.reject_field(
            "flush_access_log_on_new_request",
            "access_log_options must hold it, where they are given",
        );
    }
    problems.field("access_log_options", |problems| {
        let hcm::HcmAccessLogOptions {
            access_log_flush_interval,
            flush_access_log_on_new_request,
            flush_log_on_tunnel_successfully_established,
        } = options;
        unsupported!(problems;
            access_log_flush_interval, flush_log_on_tunnel_successfully_established);
        flush_access_log_on_new_request
    })
}

/// The one way to make a request id here is Envoy's default.
fn request_id(problems: &mut Problems, proto: Option<proto::RequestIdExtension>) -> RequestId {
    let config = proto.and_then(|proto::RequestIdExtension { typed_config }| {
        problems.field("request_id_extension", |problems| {
            let config = required(problems, "typed_config", typed_config)?;
            problems.field("typed_config", |problems| {
                if any::holds::<UuidRequestIdConfig>(&config) {
                    return unpack::<UuidRequestIdConfig>(problems, &config);
                }
                unknown_type(problems, &config, &["UuidRequestIdConfig"]);
                None
            })
        })
    });
    let UuidRequestIdConfig { pack_trace_reason, use_request_id_for_trace_sampling } =
        config.unwrap_or_default();
    RequestId {
        pack_trace_reason: boolean(pack_trace_reason, true),
        use_for_sampling: boolean(use_request_id_for_trace_sampling, true),
    }
}

/// What is done to the scheme of requests.
fn scheme(
    problems: &mut Problems,
    proto: core::SchemeHeaderTransformation,
) -> Option<RequestScheme> {
    let core::SchemeHeaderTransformation { match_upstream, transformation } = proto;
    match transformation {
        None => match_upstream.then_some(RequestScheme::Upstream),
        Some(Transformation::SchemeToOverwrite(_)) if match_upstream => {
            problems.unsupported("match_upstream beside scheme_to_overwrite", true);
            None
        }
        Some(Transformation::SchemeToOverwrite(scheme)) => match &*scheme {
            "http" => Some(RequestScheme::Http),
            "https" => Some(RequestScheme::Https),
            _ => {
                problems.reject_field(
                    "scheme_to_overwrite",
                    format!("{scheme:?} is not one of http, https"),
                );
                None
            }
        },
    }
}

fn codec(problems: &mut Problems, codec_type: i32) -> Option<Codec> {
    match enumeration(problems, "codec_type", codec_type)? {
        hcm::CodecType::Auto => Some(Codec::Auto),
        hcm::CodecType::Http1 => Some(Codec::Http1),
        hcm::CodecType::Http2 => Some(Codec::Http2),
        hcm::CodecType::Http3 => {
            problems
                .reject_field("codec_type", "HTTP3 is not supported by this version of Outrigger");
            None
        }
    }
}

fn client_cert(
    problems: &mut Problems,
    mode: i32,
    details: Option<hcm::SetCurrentClientCertDetails>,
) -> ForwardClientCert {
    let mode = match enumeration(problems, "forward_client_cert_details", mode) {
        Some(hcm::ForwardClientCertDetails::Sanitize) | None => ForwardClientCertMode::Sanitize,
        Some(hcm::ForwardClientCertDetails::ForwardOnly) => ForwardClientCertMode::ForwardOnly,
        Some(hcm::ForwardClientCertDetails::AppendForward) => ForwardClientCertMode::AppendForward,
        Some(hcm::ForwardClientCertDetails::SanitizeSet) => ForwardClientCertMode::SanitizeSet,
        Some(hcm::ForwardClientCertDetails::AlwaysForwardOnly) => {
            ForwardClientCertMode::AlwaysForwardOnly
        }
    };
    let hcm::SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format } =
        details.unwrap_or_default();
    problems.field("set_current_client_cert_details", |problems| {
        unsupported!(problems; issuer);
        if enumeration(problems, "format", format) == Some(hcm::ForwardClientCertFormat::Json) {
            problems.unsupported("format", true);
        }
    });
    ForwardClientCert { mode, subject: boolean(subject, false), cert, chain, dns, uri }
}

fn upgrades(problems: &mut Problems, protos: Vec<hcm::UpgradeConfig>) -> Vec<Upgrade> {
    let mut upgrades: Vec<Upgrade> = Vec::new();
    for (index, proto) in protos.into_iter().enumerate() {
        let hcm::UpgradeConfig { upgrade_type, filters, enabled } = proto;
        problems.element("upgrade_configs", index, |problems| {
            unsupported!(problems; filters);
            if let Some(token) = route_action::upgrade_token(problems, &upgrade_type) {
                if upgrades.iter().any(|known| known.token == token) {
                    problems.reject_field("upgrade_type", format!("{token:?} stands here twice"));
                }
                upgrades.push(Upgrade { token, enabled: boolean(enabled, true) });
            }
        });
    }
    upgrades
}

fn escaped_slashes(problems: &mut Problems, action: i32) -> EscapedSlashes {
    use hcm::PathWithEscapedSlashesAction as Action;
    match enumeration(problems, "path_with_escaped_slashes_action", action) {
        Some(Action::ImplementationSpecificDefault | Action::KeepUnchanged) | None => {
            EscapedSlashes::KeepUnchanged
        }
        Some(Action::RejectRequest) => EscapedSlashes::RejectRequest,
        Some(Action::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Some(Action::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
    }
}

fn strip_port(
    problems: &mut Problems,
    matching: bool,
    mode: Option<hcm::StripPortMode>,
) -> StripPort {
    let any = matches!(mode, Some(hcm::StripPortMode::StripAnyHostPort(true)));
    if any && matching {
        problems.reject_field(
            "strip_any_host_port",
            "cannot be set together with strip_matching_host_port",
        );
    }
    match (any, matching) {
        (true, _) => StripPort::Any,
        (false, true) => StripPort::Matching,
        (false, false) => StripPort::Keep,
    }
}

fn route_source(
    problems: &mut Problems,
    proto: Option<hcm::RouteSpecifier>,
) -> Option<RouteSource> {
    match proto {
        None => {
            problems.reject("one of rds, route_config is required");
            None
        }
        Some(hcm::RouteSpecifier::RouteConfig(proto)) => {
            let routes =
                problems.field("route_config", |problems| route::convert(problems, proto, true));
            Some(RouteSource::Inline(Arc::new(routes)))
        }
        Some(hcm::RouteSpecifier::Rds(proto)) => problems.field("rds", |problems| {
            let proto::Rds { config_source, route_config_name } = proto;
            let name = text(problems, "route_config_name", route_config_name);
            let source = required(problems, "config_source", config_source)?;
            let source = problems
                .field("config_source", |problems| config_source::convert(problems, source))?;
            Some(RouteSource::Rds { name: name.into(), source })
        }),
        Some(hcm::RouteSpecifier::ScopedRoutes(_)) => {
            problems.unsupported("scoped_routes", true);
            None
        }
    }
}
