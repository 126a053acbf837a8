//! Route configurations: virtual hosts, routes, and when they match.

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_proto::envoy::config::route::v3 as proto;
use outrigger_proto::envoy::config::route::v3::route_match::{
    ConnectMatcher, PathSpecifier as PathProto,
};
use outrigger_proto::google::protobuf::{UInt32Value, UInt64Value};

use crate::config::Problems;
use crate::config::config_source::ConfigSource;
use crate::config::rate_limit::RateLimitRule;
use crate::config::route::{
    Domain, PathRewrite, PathSpecifier, RequireTls, Route, RouteAction, RouteConfiguration,
    RouteMatch, VirtualHost,
};

use super::common::{boolean, enumeration, header_name, number, required, text, unsupported};
use super::http_filters::on_demand;
use super::rate_limit::Place;
use super::{
    config_source, filter_overrides, header, matcher, metadata, mirror, percent, rate_limit, retry,
    route_action, tracing, uri_template,
};

/// The body of a direct response may be so long where the configuration does not say.
const DEFAULT_MAX_DIRECT_RESPONSE: u32 = 4096;

/// A route configuration. One that stands in a listener (`is_inline`) has its clusters checked where it does not say
/// otherwise, one that is discovered has not.
pub(super) fn convert(
    problems: &mut Problems,
    proto: proto::RouteConfiguration,
    is_inline: bool,
) -> RouteConfiguration {
    let proto::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata: _, // for people and control planes: nothing here reads it
        route_specifiers,
    } = proto;
    let vhds = vhds.and_then(|proto| {
        problems.field("vhds", |problems| virtual_host_source(problems, proto, is_inline))
    });
    unsupported!(problems; cluster_specifier_plugins, vhost_header,
        ignore_path_parameters_in_path_matching, route_specifiers);
    let max_direct_response_body_size =
        number(max_direct_response_body_size_bytes).unwrap_or(DEFAULT_MAX_DIRECT_RESPONSE);
    let virtual_hosts: Vec<VirtualHost> = virtual_hosts
        .into_iter()
        .enumerate()
        .map(|(index, proto)| {
            problems.element("virtual_hosts", index, |problems| {
                virtual_host(problems, proto, max_direct_response_body_size)
            })
        })
        .collect();
    unique_domains(problems, &virtual_hosts);
    let internal_only_headers = internal_only_headers
        .iter()
        .enumerate()
        .filter_map(|(index, name)| {
            header_name(problems, &format!("internal_only_headers[{index}]"), name)
        })
        .collect();
    RouteConfiguration {
        name: name.into(),
        virtual_hosts,
        vhds,
        request_headers: header::mutations(
            problems,
            "request",
            request_headers_to_add,
            request_headers_to_remove,
        ),
        response_headers: header::mutations(
            problems,
            "response",
            response_headers_to_add,
            response_headers_to_remove,
        ),
        validate_clusters: boolean(validate_clusters, is_inline),
        most_specific_header_mutations_wins,
        ignore_port_in_host_matching,
        max_direct_response_body_size,
        internal_only_headers,
        mirrors: mirror::convert(problems, request_mirror_policies),
        filters: filter_overrides::convert(problems, typed_per_filter_config),
    }
}

/// `vhds`: where virtual hosts come from that are discovered one by one.
fn virtual_host_source(
    problems: &mut Problems,
    proto: proto::Vhds,
    is_inline: bool,
) -> Option<ConfigSource> {
    let proto::Vhds { config_source } = proto;
    if is_inline {
        problems.reject(
            "not supported by this version of Outrigger but in a route configuration that is discovered",
        );
        return None;
    }
    let source = required(problems, "config_source", config_source)?;
    problems.field("config_source", |problems| {
        let source = config_source::convert(problems, source)?;
        on_demand::incremental(problems, &source);
        Some(source)
    })
}

/// Which virtual host takes a request must not depend on their order: no domain may stand in two of them.
fn unique_domains(problems: &mut Problems, virtual_hosts: &[VirtualHost]) {
    let mut seen: HashMap<&Domain, usize> = HashMap::new();
    for (index, host) in virtual_hosts.iter().enumerate() {
        for (position, domain) in host.domains.iter().enumerate() {
            if let Some(first) = seen.insert(domain, index) {
                problems.element("virtual_hosts", index, |problems| {
                    problems.element("domains", position, |problems| {
                        problems.reject(format!(
                            "duplicate: virtual host {:?} has the domain {domain} already",
                            virtual_hosts[first].name
                        ));
                    });
                });
            }
        }
    }
}

pub(super) fn virtual_host(
    problems: &mut Problems,
    proto: proto::VirtualHost,
    max_direct_response: u32,
) -> VirtualHost {
    let proto::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata: _, // for people and control planes: nothing here reads it
        route_specifiers,
    } = proto;
    unsupported!(problems; matcher, virtual_clusters, cors, retry_policy_typed_config,
        route_specifiers);
    let name = text(problems, "name", name);
    if domains.is_empty() {
        problems.reject_field("domains", "must have at least one entry");
    }
    let domains = domains
        .iter()
        .enumerate()
        .filter_map(|(index, name)| {
            problems.element("domains", index, |problems| domain(problems, name))
        })
        .collect();
    let rate_limits = rate_limit::rules(problems, "rate_limits", rate_limits, Place::Route);
    let rate_limits: Arc<[RateLimitRule]> = rate_limits.into();
    let routes = routes
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems
                .element("routes", index, |problems| route(problems, proto, max_direct_response))
        })
        .map(|mut route| {
            if let RouteAction::Forward(action) = &mut route.action {
                action.host_rate_limits = Arc::clone(&rate_limits);
            }
            Arc::new(route)
        })
        .collect();
    let require_tls = match enumeration(problems, "require_tls", require_tls) {
        Some(proto::virtual_host::TlsRequirementType::ExternalOnly) => RequireTls::ExternalOnly,
        Some(proto::virtual_host::TlsRequirementType::All) => RequireTls::All,
        Some(proto::virtual_host::TlsRequirementType::None) | None => RequireTls::None,
    };
    VirtualHost {
        name: name.into(),
        domains,
        routes,
        require_tls,
        request_headers: header::mutations(
            problems,
            "request",
            request_headers_to_add,
            request_headers_to_remove,
        ),
        response_headers: header::mutations(
            problems,
            "response",
            response_headers_to_add,
            response_headers_to_remove,
        ),
        retry_policy: retry::convert(problems, retry_policy),
        include_request_attempt_count,
        include_attempt_count_in_response,
        mirrors: mirror::convert(problems, request_mirror_policies),
        include_is_timeout_retry_header,
        hedge_on_per_try_timeout: retry::hedging(problems, hedge_policy),
        per_request_buffer_limit: buffer_limit(
            per_request_buffer_limit_bytes,
            request_body_buffer_limit,
        ),
        filters: filter_overrides::convert(problems, typed_per_filter_config),
    }
}

/// The newer field counts where both are set.
fn buffer_limit(bytes: Option<UInt32Value>, limit: Option<UInt64Value>) -> Option<u32> {
    match limit {
        Some(UInt64Value { value }) => Some(u32::try_from(value).unwrap_or(u32::MAX)),
        None => number(bytes),
    }
}

fn domain(problems: &mut Problems, name: &str) -> Option<Domain> {
    if name.is_empty() || name.contains(['\0', '\n', '\r']) {
        problems.reject(format!("{name:?} is not a domain"));
        return None;
    }
    let name = name.to_ascii_lowercase();
    Some(if name == "*" {
        Domain::Any
    } else if let Some(suffix) = name.strip_prefix('*') {
        Domain::Suffix(suffix.into())
    } else if let Some(prefix) = name.strip_suffix('*') {
        Domain::Prefix(prefix.into())
    } else {
        Domain::Exact(name.into())
    })
}

fn route(problems: &mut Problems, proto: proto::Route, max_direct_response: u32) -> Option<Route> {
    let proto::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix: _, // only adds statistics
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = proto;
    unsupported!(problems; route_specifiers);
    let matches = required(problems, "match", r#match)
        .and_then(|proto| problems.field("match", |problems| route_match(problems, proto)));
    let action = action_of(problems, action, max_direct_response);
    let request_headers =
        header::mutations(problems, "request", request_headers_to_add, request_headers_to_remove);
    let response_headers = header::mutations(
        problems,
        "response",
        response_headers_to_add,
        response_headers_to_remove,
    );
    if let (Some(matches), Some(action)) = (&matches, &action) {
        template_fits(problems, matches, action);
    }
    let filters = filter_overrides::convert(problems, typed_per_filter_config);
    let tracing = tracing::of_route(problems, tracing);
    let decorator = tracing::decorator(problems, decorator);
    Some(Route {
        name: name.into(),
        matches: matches?,
        action: action?,
        metadata: metadata.map(metadata::of).unwrap_or_default(),
        request_headers,
        response_headers,
        per_request_buffer_limit: buffer_limit(
            per_request_buffer_limit_bytes,
            request_body_buffer_limit,
        ),
        filters,
        tracing,
        decorator,
    })
}

/// A path can be put together only from what the template of the match has found.
fn template_fits(problems: &mut Problems, matches: &RouteMatch, action: &RouteAction) {
    let RouteAction::Forward(forward) = action else { return };
    let Some(PathRewrite::Template(rewrite)) = &forward.path_rewrite else { return };
    let fits = match &matches.path {
        PathSpecifier::Template(template) => uri_template::fits(rewrite, template),
        _ => Err("goes only with path_match_policy".to_owned()),
    };
    if let Err(reason) = fits {
        problems.field("route", |problems| {
            problems.reject_field("path_rewrite_policy", reason);
        });
    }
}

fn action_of(
    problems: &mut Problems,
    proto: Option<proto::route::Action>,
    max_direct_response: u32,
) -> Option<RouteAction> {
    use proto::route::Action;
    match proto {
        None => {
            problems.reject("one of route, redirect, direct_response is required");
            None
        }
        Some(Action::Route(proto)) => {
            let forward =
                problems.field("route", |problems| route_action::forward(problems, proto))?;
            Some(RouteAction::Forward(Box::new(forward)))
        }
        Some(Action::Redirect(proto)) => {
            let redirect =
                problems.field("redirect", |problems| route_action::redirect(problems, proto))?;
            Some(RouteAction::Redirect(Box::new(redirect)))
        }
        Some(Action::DirectResponse(proto)) => problems.field("direct_response", |problems| {
            route_action::direct_response(problems, proto, max_direct_response)
        }),
        Some(Action::FilterAction(_)) => {
            problems.unsupported("filter_action", true);
            None
        }
        Some(Action::NonForwardingAction(_)) => {
            problems.unsupported("non_forwarding_action", true);
            None
        }
    }
}

/// A `RouteMatch`.
pub(super) fn route_match(problems: &mut Problems, proto: proto::RouteMatch) -> Option<RouteMatch> {
    let proto::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = proto;
    unsupported!(problems; cookies, tls_context);
    let path = path(problems, path_specifier);
    let runtime_fraction =
        runtime_fraction.and_then(|proto| percent::runtime(problems, "runtime_fraction", proto));
    let headers = matcher::headers(problems, "headers", headers);
    let query_parameters = query_parameters
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("query_parameters", index, |problems| {
                matcher::query_parameter(problems, proto)
            })
        })
        .collect();
    Some(RouteMatch {
        path: path?,
        case_sensitive: boolean(case_sensitive, true),
        headers,
        query_parameters,
        grpc: grpc.is_some(),
        runtime_fraction,
        dynamic_metadata: metadata::matchers(problems, "dynamic_metadata", dynamic_metadata),
        filter_state: metadata::state_matchers(problems, "filter_state", filter_state),
    })
}

fn path(problems: &mut Problems, proto: Option<PathProto>) -> Option<PathSpecifier> {
    match proto {
        None => {
            problems.reject("one of prefix, path, path_separated_prefix, safe_regex is required");
            None
        }
        Some(PathProto::Prefix(prefix)) => Some(PathSpecifier::Prefix(prefix.into())),
        Some(PathProto::Path(path)) => Some(PathSpecifier::Path(path.into())),
        Some(PathProto::PathSeparatedPrefix(prefix)) => {
            // The rule of the proto: at least two characters, no query or fragment, no slash at the end.
            let valid = prefix.chars().nth(1).is_some()
                && !prefix.contains(['?', '#'])
                && !prefix.ends_with('/');
            if !valid {
                problems.reject_field(
                    "path_separated_prefix",
                    format!("{prefix:?} must have two characters or more, no '?' or '#', and not end with '/'"),
                );
                return None;
            }
            Some(PathSpecifier::PathSeparatedPrefix(prefix.into()))
        }
        Some(PathProto::SafeRegex(regex)) => {
            let regex =
                problems.field("safe_regex", |problems| matcher::full_regex(problems, regex))?;
            Some(PathSpecifier::Regex(regex))
        }
        Some(PathProto::ConnectMatcher(ConnectMatcher {})) => Some(PathSpecifier::Connect),
        Some(PathProto::PathMatchPolicy(proto)) => problems
            .field("path_match_policy", |problems| uri_template::matcher(problems, proto))
            .map(PathSpecifier::Template),
    }
}
