//! What a route does: forward, redirect, or answer by itself.

use crate::config::runtime::RuntimeNumber;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use outrigger_proto::envoy::config::core::v3::{
    RoutingPriority as RoutingPriorityProto, TypedExtensionConfig,
};
use outrigger_proto::envoy::config::route::v3 as proto;
use outrigger_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use outrigger_proto::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier as ClusterProto, HostRewriteSpecifier,
    InternalRedirectAction,
};
use outrigger_proto::envoy::config::route::v3::weighted_cluster::{
    ClusterWeight, RandomValueSpecifier, cluster_weight,
};
use outrigger_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use crate::config::Problems;
use crate::config::route::{
    ClusterSpecifier, ConnectConfig, Forward, GrpcTimeout, HostRewrite, MaxStreamDuration,
    PathRewrite, Redirect, RouteAction, RoutingPriority, WeightedCluster,
};
use crate::config::subset::MetadataCriteria;

use super::common::{
    boolean, duration, enumeration, header_name, header_value, limit, number, optional, required,
    text, unsupported,
};
use super::rate_limit::Place;
use super::{
    data_source, filter_overrides, hash_policy, header, internal_redirect, matcher, mirror,
    rate_limit, retry, subset, uri_template,
};

/// A route's timeout where it does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// `RouteAction`.
pub(super) fn forward(problems: &mut Problems, proto: proto::RouteAction) -> Option<Forward> {
    let proto::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects: _, // counts only with internal_redirect_action, which is refused
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = proto;
    unsupported!(problems;
        path_rewrite, flush_timeout, early_data_policy,
        retry_policy_typed_config, cors);
    if enumeration(problems, "internal_redirect_action", internal_redirect_action)
        == Some(InternalRedirectAction::HandleInternalRedirect)
    {
        problems.unsupported("internal_redirect_action", true);
    }
    let cluster_not_found_status = match enumeration(
        problems,
        "cluster_not_found_response_code",
        cluster_not_found_response_code,
    ) {
        Some(ClusterNotFoundResponseCode::NotFound) => StatusCode::NOT_FOUND,
        Some(ClusterNotFoundResponseCode::InternalServerError) => StatusCode::INTERNAL_SERVER_ERROR,
        Some(ClusterNotFoundResponseCode::ServiceUnavailable) | None => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let rate_limits = rate_limit::rules(problems, "rate_limits", rate_limits, Place::Route);
    let priority = match enumeration(problems, "priority", priority) {
        Some(RoutingPriorityProto::High) => RoutingPriority::High,
        Some(RoutingPriorityProto::Default) | None => RoutingPriority::Default,
    };
    let metadata_match = subset::criteria(metadata_match, None);
    let weighted_by = weighted_by(problems, cluster_specifier.as_ref());
    let cluster = cluster(problems, cluster_specifier, metadata_match.as_ref());
    let timeout = limit(problems, "timeout", timeout, Some(DEFAULT_TIMEOUT));
    let idle_timeout = duration(problems, "idle_timeout", idle_timeout);
    let max_stream_duration = max_stream_duration.map(|proto| stream_duration(problems, proto));
    let max = duration(problems, "max_grpc_timeout", max_grpc_timeout);
    let offset = duration(problems, "grpc_timeout_offset", grpc_timeout_offset);
    // As in Envoy the newer field replaces both.
    let grpc_timeout = max
        .filter(|_| max_stream_duration.is_none())
        .map(|max| GrpcTimeout { max, offset: offset.unwrap_or_default() });
    let retry_policy = retry::convert(problems, retry_policy);
    let hedge_on_per_try_timeout = retry::hedging(problems, hedge_policy);
    let path_rewrite =
        path_rewrite_of(problems, prefix_rewrite, regex_rewrite, path_rewrite_policy);
    let mirrors = mirror::convert(problems, request_mirror_policies);
    let internal_redirect = internal_redirect::convert(problems, internal_redirect_policy);
    let host_rewrite = host_rewrite(problems, host_rewrite_specifier);
    let (upgrades, connect) = upgrades(problems, upgrade_configs);
    let hash_policy = hash_policy::convert(problems, hash_policy);
    Some(Forward {
        // The virtual host puts its own here.
        host_rate_limits: Arc::default(),
        rate_limits,
        include_vh_rate_limits: boolean(include_vh_rate_limits, false),
        cluster: cluster?,
        weighted_by,
        metadata_match,
        cluster_not_found_status,
        timeout,
        idle_timeout,
        max_stream_duration,
        retry_policy,
        path_rewrite,
        host_rewrite,
        append_x_forwarded_host,
        mirrors,
        internal_redirect,
        grpc_timeout,
        hedge_on_per_try_timeout,
        priority,
        upgrades,
        connect,
        hash_policy,
    })
}

/// The header whose number chooses among several clusters.
fn weighted_by(problems: &mut Problems, proto: Option<&ClusterProto>) -> Option<HeaderName> {
    let Some(ClusterProto::WeightedClusters(proto)) = proto else { return None };
    let Some(RandomValueSpecifier::HeaderName(name)) = &proto.random_value_specifier else {
        return None;
    };
    problems.field("weighted_clusters", |problems| header_name(problems, "header_name", name))
}

fn cluster(
    problems: &mut Problems,
    proto: Option<ClusterProto>,
    metadata_match: Option<&Arc<MetadataCriteria>>,
) -> Option<ClusterSpecifier> {
    match proto {
        None => {
            problems.reject("one of cluster, cluster_header, weighted_clusters is required");
            None
        }
        Some(ClusterProto::Cluster(name)) => {
            Some(ClusterSpecifier::Cluster(text(problems, "cluster", name).into()))
        }
        Some(ClusterProto::WeightedClusters(proto)) => problems
            .field("weighted_clusters", |problems| {
                weighted_clusters(problems, proto, metadata_match)
            }),
        Some(ClusterProto::ClusterHeader(name)) => {
            header_name(problems, "cluster_header", &name).map(ClusterSpecifier::Header)
        }
        Some(ClusterProto::ClusterSpecifierPlugin(_)) => {
            problems.unsupported("cluster_specifier_plugin", true);
            None
        }
        Some(ClusterProto::InlineClusterSpecifierPlugin(_)) => {
            problems.unsupported("inline_cluster_specifier_plugin", true);
            None
        }
    }
}

fn weighted_clusters(
    problems: &mut Problems,
    proto: proto::WeightedCluster,
    metadata_match: Option<&Arc<MetadataCriteria>>,
) -> Option<ClusterSpecifier> {
    let proto::WeightedCluster {
        clusters,
        total_weight: _, // deprecated: the sum of the weights counts
        runtime_key_prefix,
        random_value_specifier,
    } = proto;
    match random_value_specifier {
        // The action has it.
        None | Some(RandomValueSpecifier::HeaderName(_)) => {}
        Some(RandomValueSpecifier::UseHashPolicy(_)) => {
            problems.unsupported("use_hash_policy", true);
        }
    }
    if clusters.is_empty() {
        problems.reject_field("clusters", "must have at least one entry");
        return None;
    }
    let clusters: Vec<WeightedCluster> = clusters
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("clusters", index, |problems| {
                weighted_cluster(problems, proto, metadata_match)
            })
        })
        .map(|cluster| WeightedCluster {
            runtime_weight: (!runtime_key_prefix.is_empty()).then(|| {
                let key = format!("{runtime_key_prefix}.{}", cluster.name);
                RuntimeNumber::new(f64::from(cluster.weight), &key)
            }),
            ..cluster
        })
        .collect();
    let sum: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if sum == 0 || sum > u64::from(u32::MAX) {
        problems
            .reject_field("clusters", format!("the weights sum up to {sum}: 1 to {}", u32::MAX));
        return None;
    }
    Some(ClusterSpecifier::Weighted(clusters))
}

fn weighted_cluster(
    problems: &mut Problems,
    proto: ClusterWeight,
    of_route: Option<&Arc<MetadataCriteria>>,
) -> Option<WeightedCluster> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = proto;
    let metadata_match = subset::criteria(metadata_match, of_route);
    let (name, header) = match (name.is_empty(), cluster_header.is_empty()) {
        (true, false) => (String::new(), header_name(problems, "cluster_header", &cluster_header)),
        (false, false) => {
            problems.reject_field("cluster_header", "cannot be set together with name");
            (name, None)
        }
        (_, true) => (text(problems, "name", name), None),
    };
    let host_rewrite = match host_rewrite_specifier {
        None => None,
        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            host_value(problems, "host_rewrite_literal", &host)
        }
    };
    Some(WeightedCluster {
        name: name.into(),
        header,
        weight: number(required(problems, "weight", weight)).unwrap_or(0),
        metadata_match,
        runtime_weight: None,
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
        host_rewrite,
        filters: filter_overrides::convert(problems, typed_per_filter_config),
    })
}

/// A literal `Host`; as in Envoy an empty one means that none is set.
fn host_value(problems: &mut Problems, name: &str, host: &str) -> Option<HeaderValue> {
    if host.is_empty() { None } else { header_value(problems, name, host.as_bytes()) }
}

fn stream_duration(
    problems: &mut Problems,
    proto: proto::route_action::MaxStreamDuration,
) -> MaxStreamDuration {
    let proto::route_action::MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = proto;
    problems.field("max_stream_duration", |problems| MaxStreamDuration {
        max_stream_duration: duration(problems, "max_stream_duration", max_stream_duration),
        grpc_timeout_header_max: duration(
            problems,
            "grpc_timeout_header_max",
            grpc_timeout_header_max,
        ),
        grpc_timeout_header_offset: duration(
            problems,
            "grpc_timeout_header_offset",
            grpc_timeout_header_offset,
        ),
    })
}

fn path_rewrite_of(
    problems: &mut Problems,
    prefix: String,
    regex: Option<RegexMatchAndSubstitute>,
    policy: Option<TypedExtensionConfig>,
) -> Option<PathRewrite> {
    if let Some(proto) = policy {
        if !prefix.is_empty() || regex.is_some() {
            problems.reject_field(
                "path_rewrite_policy",
                "cannot be set together with prefix_rewrite or regex_rewrite",
            );
        }
        return problems
            .field("path_rewrite_policy", |problems| uri_template::rewrite(problems, proto))
            .map(PathRewrite::Template);
    }
    if !prefix.is_empty() && regex.is_some() {
        problems.reject_field("regex_rewrite", "cannot be set together with prefix_rewrite");
    }
    if let Some(proto) = regex {
        return problems.field("regex_rewrite", |problems| regex_rewrite(problems, proto));
    }
    path_text(problems, "prefix_rewrite", prefix).map(PathRewrite::Prefix)
}

fn regex_rewrite(problems: &mut Problems, proto: RegexMatchAndSubstitute) -> Option<PathRewrite> {
    let (pattern, substitution) = matcher::substitute(problems, proto)?;
    Some(PathRewrite::Regex { pattern, substitution })
}

/// A part of a path that goes out with a request or a `Location`.
fn path_text(problems: &mut Problems, name: &str, value: String) -> Option<Box<str>> {
    if value.contains(['\0', '\r', '\n']) {
        problems.reject_field(name, "must not contain a line break or NUL");
    }
    optional(value)
}

fn host_rewrite(
    problems: &mut Problems,
    proto: Option<HostRewriteSpecifier>,
) -> Option<HostRewrite> {
    match proto? {
        HostRewriteSpecifier::HostRewriteLiteral(host) => {
            host_value(problems, "host_rewrite_literal", &host).map(HostRewrite::Literal)
        }
        HostRewriteSpecifier::AutoHostRewrite(auto) => auto.value.then_some(HostRewrite::Auto),
        HostRewriteSpecifier::HostRewriteHeader(name) => {
            if name.is_empty() {
                return None;
            }
            header_name(problems, "host_rewrite_header", &name).map(HostRewrite::Header)
        }
        HostRewriteSpecifier::HostRewritePathRegex(proto) => {
            problems.field("host_rewrite_path_regex", |problems| {
                let (pattern, substitution) = matcher::substitute(problems, proto)?;
                Some(HostRewrite::PathRegex { pattern, substitution })
            })
        }
        HostRewriteSpecifier::HostRewrite(_) => {
            problems.unsupported("host_rewrite", true);
            None
        }
    }
}

/// What is on or off by token, and what becomes of a CONNECT.
fn upgrades(
    problems: &mut Problems,
    protos: Vec<proto::route_action::UpgradeConfig>,
) -> (Vec<(Box<str>, bool)>, Option<ConnectConfig>) {
    let mut upgrades: Vec<(Box<str>, bool)> = Vec::new();
    let mut connect = None;
    for (index, proto) in protos.into_iter().enumerate() {
        let proto::route_action::UpgradeConfig { upgrade_type, enabled, connect_config } = proto;
        problems.element("upgrade_configs", index, |problems| {
            if let Some(token) = upgrade_token(problems, &upgrade_type) {
                if upgrades.iter().any(|(known, _)| *known == token) {
                    problems.reject_field("upgrade_type", format!("{token:?} stands here twice"));
                }
                if let Some(proto) = connect_config {
                    connect = Some(connect_config_of(problems, &token, proto));
                }
                upgrades.push((token, boolean(enabled, true)));
            }
        });
    }
    (upgrades, connect)
}

fn connect_config_of(
    problems: &mut Problems,
    token: &str,
    proto: proto::route_action::upgrade_config::ConnectConfig,
) -> ConnectConfig {
    let proto::route_action::upgrade_config::ConnectConfig { proxy_protocol_config, allow_post } =
        proto;
    if token != "connect" {
        problems.reject_field("connect_config", "goes only with upgrade_type CONNECT");
    }
    problems.field("connect_config", |problems| {
        unsupported!(problems; proxy_protocol_config);
    });
    ConnectConfig { allow_post }
}

/// The token of an `Upgrade` header, lower case.
pub(super) fn upgrade_token(problems: &mut Problems, token: &str) -> Option<Box<str>> {
    let token = token.to_ascii_lowercase();
    let refused = match token.as_str() {
        "connect-udp" | "h2c" => {
            Some(format!("{token:?} is not supported by this version of Outrigger"))
        }
        _ if HeaderName::from_bytes(token.as_bytes()).is_err() => {
            Some(format!("{token:?} is not the name of a protocol"))
        }
        _ => None,
    };
    match refused {
        Some(reason) => {
            problems.reject_field("upgrade_type", reason);
            None
        }
        None => Some(token.into()),
    }
}

/// `RedirectAction`.
pub(super) fn redirect(problems: &mut Problems, proto: proto::RedirectAction) -> Option<Redirect> {
    let proto::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = proto;
    let status = match enumeration(problems, "response_code", response_code) {
        Some(RedirectResponseCode::MovedPermanently) | None => StatusCode::MOVED_PERMANENTLY,
        Some(RedirectResponseCode::Found) => StatusCode::FOUND,
        Some(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
        Some(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Some(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
    };
    let port = u16::try_from(port_redirect).ok();
    if port.is_none() {
        problems.reject_field("port_redirect", format!("{port_redirect} is not a port"));
    }
    let scheme = match scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            path_text(problems, "scheme_redirect", scheme)
        }
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
    };
    let path = match path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            path_text(problems, "path_redirect", path).map(PathRewrite::Full)
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            path_text(problems, "prefix_rewrite", prefix).map(PathRewrite::Prefix)
        }
        Some(PathRewriteSpecifier::RegexRewrite(proto)) => {
            problems.field("regex_rewrite", |problems| regex_rewrite(problems, proto))
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            problems.unsupported("path_rewrite", true);
            None
        }
    };
    Some(Redirect {
        status,
        scheme,
        host: path_text(problems, "host_redirect", host_redirect),
        port: port.filter(|port| *port != 0),
        path,
        strip_query,
    })
}

/// `DirectResponseAction`.
pub(super) fn direct_response(
    problems: &mut Problems,
    proto: proto::DirectResponseAction,
    max_body: u32,
) -> Option<RouteAction> {
    let proto::DirectResponseAction { status, body, body_format } = proto;
    unsupported!(problems; body_format);
    let code = u16::try_from(status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok());
    if code.is_none() {
        problems.reject_field("status", format!("{status} is out of range: 200 to 599"));
    }
    let body = match body {
        None => Vec::new(),
        Some(source) => problems.field("body", |problems| {
            let body = data_source::read(problems, source)?;
            // As in Envoy zero is no limit.
            if max_body > 0 && body.len() as u64 > u64::from(max_body) {
                problems.reject(format!(
                    "{} bytes are more than max_direct_response_body_size_bytes, {max_body}",
                    body.len()
                ));
            }
            Some(body)
        })?,
    };
    Some(RouteAction::DirectResponse { status: code?, body: Bytes::from(body) })
}
