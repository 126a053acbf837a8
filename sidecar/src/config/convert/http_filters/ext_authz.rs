//! `envoy.filters.http.ext_authz`

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use outrigger_proto::envoy::config::common::mutation_rules::v3 as rules;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use outrigger_proto::envoy::extensions::filters::http::ext_authz::v3 as proto;
use outrigger_proto::envoy::extensions::filters::http::ext_authz::v3::check_settings::ServiceOverride;
use outrigger_proto::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use outrigger_proto::envoy::extensions::filters::http::ext_authz::v3::ext_authz_per_route::Override;
use outrigger_proto::envoy::r#type::matcher::v3::ListStringMatcher;

use crate::config::Problems;
use crate::config::ext_authz::{
    AuthBody, AuthCheck, AuthGrpc, AuthHttp, AuthPerRoute, AuthService, ExtAuthz, MutationRules,
};
use crate::config::matcher::StringMatcher;

use super::super::common::{
    boolean, duration, enumeration, header_name, header_value, http_status, required, sorted, text,
    unsupported,
};
use super::super::{http_uri, matcher, metadata, percent};

/// A service may take so long where nothing is set.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);

/// The filter's configuration.
pub(in super::super) fn filter(
    problems: &mut Problems,
    proto: proto::ExtAuthz,
) -> Option<ExtAuthz> {
    let proto::ExtAuthz {
        transport_api_version,
        failure_mode_allow,
        failure_mode_allow_header_add,
        with_request_body,
        clear_route_cache,
        status_on_error,
        validate_mutations,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces,
        filter_enabled,
        filter_enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        stat_prefix,
        bootstrap_metadata_labels_key,
        allowed_headers,
        disallowed_headers,
        include_tls_session,
        charge_cluster_response_stats,
        encode_raw_headers,
        decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion,
        filter_metadata,
        emit_filter_state_stats,
        max_denied_response_body_bytes,
        enforce_response_header_limits,
        shadow_mode,
        emit_client_span: _, // of spans, which these calls do not have
        services,
    } = proto;
    unsupported!(problems;
        typed_metadata_context_namespaces, route_typed_metadata_context_namespaces,
        bootstrap_metadata_labels_key, filter_metadata, emit_filter_state_stats,
        enforce_response_header_limits, shadow_mode);
    let service = match services {
        None => {
            problems.reject("one of grpc_service, http_service is required");
            None
        }
        Some(Services::GrpcService(proto)) => {
            let version: Option<core::ApiVersion> =
                enumeration(problems, "transport_api_version", transport_api_version);
            if version.is_some_and(|version| version != core::ApiVersion::V3) {
                problems.reject_field("transport_api_version", "must be V3");
            }
            grpc(problems, proto)
        }
        Some(Services::HttpService(proto)) => http(problems, proto),
    };
    let body = with_request_body.and_then(|proto| body(problems, "with_request_body", proto));
    let enabled_metadata = filter_enabled_metadata.and_then(|proto| {
        problems.field("filter_enabled_metadata", |problems| metadata::matcher(problems, proto))
    });
    let deny_at_disable = deny_at_disable
        .and_then(|proto| percent::flag(problems, "deny_at_disable", proto))
        .unwrap_or_else(|| false.into());
    let enabled =
        filter_enabled.and_then(|proto| percent::runtime(problems, "filter_enabled", proto));
    let status_on_error = http_status(problems, "status_on_error", status_on_error);
    let mutation_rules = decoder_header_mutation_rules.map(|proto| {
        problems.field("decoder_header_mutation_rules", |problems| mutation_rules(problems, proto))
    });
    let allowed_headers =
        allowed_headers.map(|proto| matchers(problems, "allowed_headers", Some(proto)));
    let disallowed_headers = matchers(problems, "disallowed_headers", disallowed_headers);
    let names = |names: Vec<String>| names.into_iter().map(Into::into).collect();
    Some(ExtAuthz {
        service: service?,
        failure_mode_allow,
        failure_mode_allow_header: failure_mode_allow_header_add,
        body,
        clear_route_cache,
        status_on_error: status_on_error.unwrap_or(StatusCode::FORBIDDEN),
        validate_mutations,
        metadata_namespaces: names(metadata_context_namespaces),
        route_metadata_namespaces: names(route_metadata_context_namespaces),
        enabled,
        enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        include_tls_session,
        stat_prefix: stat_prefix.into(),
        allowed_headers,
        disallowed_headers,
        charge_cluster: boolean(charge_cluster_response_stats, true),
        raw_headers: encode_raw_headers,
        mutation_rules,
        takes_metadata: boolean(enable_dynamic_metadata_ingestion, true),
        max_denied_body: usize::try_from(max_denied_response_body_bytes)
            .ok()
            .filter(|most| *most > 0),
    })
}

/// What a route says.
pub(in super::super) fn per_route(
    problems: &mut Problems,
    proto: proto::ExtAuthzPerRoute,
) -> Option<AuthPerRoute> {
    let proto::ExtAuthzPerRoute { r#override } = proto;
    match r#override {
        None => {
            problems.reject("one of disabled, check_settings is required");
            None
        }
        Some(Override::Disabled(true)) => Some(AuthPerRoute::Disabled),
        Some(Override::Disabled(false)) => Some(AuthPerRoute::Check(Arc::default())),
        Some(Override::CheckSettings(proto)) => {
            let check = problems.field("check_settings", |problems| check(problems, proto));
            Some(AuthPerRoute::Check(Arc::new(check)))
        }
    }
}

fn check(problems: &mut Problems, proto: proto::CheckSettings) -> AuthCheck {
    let proto::CheckSettings {
        context_extensions,
        disable_request_body_buffering,
        with_request_body,
        emit_client_span: _, // of spans, which these calls do not have
        service_override,
    } = proto;
    if disable_request_body_buffering && with_request_body.is_some() {
        problems.reject_field(
            "with_request_body",
            "cannot be set together with disable_request_body_buffering",
        );
    }
    let service = match service_override {
        None => None,
        Some(ServiceOverride::GrpcService(proto)) => grpc(problems, proto),
        Some(ServiceOverride::HttpService(proto)) => http(problems, proto),
    };
    AuthCheck {
        context_extensions: sorted(context_extensions)
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        without_body: disable_request_body_buffering,
        body: with_request_body.and_then(|proto| body(problems, "with_request_body", proto)),
        service,
    }
}

fn body(problems: &mut Problems, name: &str, proto: proto::BufferSettings) -> Option<AuthBody> {
    let proto::BufferSettings { max_request_bytes, allow_partial_message, pack_as_bytes } = proto;
    problems.field(name, |problems| {
        if max_request_bytes == 0 {
            problems.reject_field("max_request_bytes", "must be more than zero");
            return None;
        }
        Some(AuthBody {
            max_bytes: max_request_bytes,
            allow_partial: allow_partial_message,
            as_bytes: pack_as_bytes,
        })
    })
}

fn grpc(problems: &mut Problems, proto: core::GrpcService) -> Option<AuthService> {
    problems.field("grpc_service", |problems| {
        let core::GrpcService { timeout, initial_metadata, retry_policy, target_specifier } = proto;
        unsupported!(problems; retry_policy);
        let timeout = time(problems, timeout);
        let initial_metadata = headers(problems, "initial_metadata", initial_metadata);
        match target_specifier {
            None => {
                problems.reject("one of envoy_grpc, google_grpc is required");
                None
            }
            Some(TargetSpecifier::GoogleGrpc(_)) => {
                problems.unsupported("google_grpc", true);
                None
            }
            Some(TargetSpecifier::EnvoyGrpc(proto)) => problems.field("envoy_grpc", |problems| {
                let EnvoyGrpc {
                    cluster_name,
                    authority,
                    retry_policy,
                    max_receive_message_length: _, // answers are bounded in any case
                    skip_envoy_headers,
                } = proto;
                unsupported!(problems; retry_policy, skip_envoy_headers);
                let cluster = text(problems, "cluster_name", cluster_name);
                let authority = if authority.is_empty() { &cluster } else { &authority };
                let authority = header_value(problems, "authority", authority.as_bytes())?;
                let cluster = cluster.into();
                let grpc = AuthGrpc { cluster, authority, timeout, initial_metadata };
                Some(AuthService::Grpc(Arc::new(grpc)))
            }),
        }
    })
}

/// Unset means the default, zero none.
fn time(
    problems: &mut Problems,
    timeout: Option<outrigger_proto::google::protobuf::Duration>,
) -> Option<Duration> {
    let timeout = duration(problems, "timeout", timeout).unwrap_or(DEFAULT_TIMEOUT);
    (!timeout.is_zero()).then_some(timeout)
}

fn http(problems: &mut Problems, proto: proto::HttpService) -> Option<AuthService> {
    problems.field("http_service", |problems| {
        let proto::HttpService {
            server_uri,
            path_prefix,
            path_override,
            authorization_request,
            authorization_response,
            retry_policy,
        } = proto;
        unsupported!(problems; retry_policy);
        if !path_prefix.is_empty() && !path_override.is_empty() {
            problems.reject_field("path_override", "cannot be set together with path_prefix");
        }
        for (name, path) in [("path_prefix", &path_prefix), ("path_override", &path_override)] {
            if !path.is_empty() && !path.starts_with('/') {
                problems.reject_field(name, "must begin with '/'");
            }
        }
        let server = required(problems, "server_uri", server_uri)?;
        let server = problems.field("server_uri", |problems| http_uri::convert(problems, server));
        let proto::AuthorizationRequest { allowed_headers, headers_to_add } =
            authorization_request.unwrap_or_default();
        let headers_to_add = problems.field("authorization_request", |problems| {
            // Deprecated in favour of the filter's own field, which says the same.
            unsupported!(problems; allowed_headers);
            headers(problems, "headers_to_add", headers_to_add)
        });
        let proto::AuthorizationResponse {
            allowed_upstream_headers,
            allowed_upstream_headers_to_append,
            allowed_client_headers,
            allowed_client_headers_on_success,
            dynamic_metadata_from_headers,
        } = authorization_response.unwrap_or_default();
        problems.field("authorization_response", |problems| {
            let client_headers = allowed_client_headers
                .map(|proto| matchers(problems, "allowed_client_headers", Some(proto)));
            let server = server?;
            Some(AuthService::Http(Arc::new(AuthHttp {
                cluster: server.cluster,
                timeout: (!server.timeout.is_zero()).then_some(server.timeout),
                path_prefix: path_prefix.into(),
                path_override: path_override.into(),
                headers_to_add,
                upstream_headers: matchers(
                    problems,
                    "allowed_upstream_headers",
                    allowed_upstream_headers,
                ),
                upstream_headers_to_append: matchers(
                    problems,
                    "allowed_upstream_headers_to_append",
                    allowed_upstream_headers_to_append,
                ),
                client_headers,
                client_headers_on_success: matchers(
                    problems,
                    "allowed_client_headers_on_success",
                    allowed_client_headers_on_success,
                ),
                metadata_headers: matchers(
                    problems,
                    "dynamic_metadata_from_headers",
                    dynamic_metadata_from_headers,
                ),
            })))
        })
    })
}

fn matchers(
    problems: &mut Problems,
    name: &str,
    proto: Option<ListStringMatcher>,
) -> Box<[StringMatcher]> {
    let Some(ListStringMatcher { patterns }) = proto else { return Box::default() };
    problems.field(name, |problems| {
        if patterns.is_empty() {
            problems.reject_field("patterns", "must have at least one entry");
        }
        patterns
            .into_iter()
            .enumerate()
            .filter_map(|(index, proto)| {
                problems.element("patterns", index, |problems| matcher::string(problems, proto))
            })
            .collect()
    })
}

fn headers(problems: &mut Problems, name: &str, protos: Vec<core::HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (index, proto) in protos.into_iter().enumerate() {
        let core::HeaderValue { key, value, raw_value } = proto;
        problems.element(name, index, |problems| {
            let value: &[u8] = if value.is_empty() { &raw_value } else { value.as_bytes() };
            if value.contains(&b'%') {
                problems.reject_field(
                    "value",
                    "command operators are not supported here by this version of Outrigger",
                );
            }
            let value: Option<HeaderValue> = header_value(problems, "value", value);
            if let Some((name, value)) = header_name(problems, "key", &key).zip(value) {
                headers.append(name, value);
            }
        });
    }
    headers
}

fn mutation_rules(problems: &mut Problems, proto: rules::HeaderMutationRules) -> MutationRules {
    let rules::HeaderMutationRules {
        allow_all_routing,
        allow_envoy,
        disallow_system,
        disallow_all,
        allow_expression,
        disallow_expression,
        disallow_is_error,
    } = proto;
    let allow = allow_expression.and_then(|proto| {
        problems.field("allow_expression", |problems| matcher::full_regex(problems, proto))
    });
    let disallow = disallow_expression.and_then(|proto| {
        problems.field("disallow_expression", |problems| matcher::full_regex(problems, proto))
    });
    MutationRules {
        allow_all_routing: boolean(allow_all_routing, false),
        allow_envoy: boolean(allow_envoy, false),
        disallow_system: boolean(disallow_system, false),
        disallow_all: boolean(disallow_all, false),
        allow,
        disallow,
        disallow_is_error: boolean(disallow_is_error, false),
    }
}
