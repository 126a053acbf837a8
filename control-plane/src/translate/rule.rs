//! One rule of a Route as Envoy routes.

use crate::model::route::{
    BackendRef, FaultInjection, Filter, HeaderModifier, HeaderValue as ModelHeader, Match,
    PathMatch, PathModifier, RequestRedirect, Rule, StringMatch, ValueMatch,
};
use crate::model::service::{HashKey, Retry};
use crate::model::{Config, Route, Service};
use crate::translate::names;
use crate::translate::proto::{duration, exact, regex, string, uint32};
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use outrigger_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use outrigger_proto::envoy::config::route::v3 as proto;
use outrigger_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use outrigger_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use outrigger_proto::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate,
};
use outrigger_proto::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use outrigger_proto::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, hash_policy as parts,
};
use outrigger_proto::envoy::config::route::v3::route_match::PathSpecifier;
use outrigger_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use outrigger_proto::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RedirectAction, RetryPolicy, RouteAction, RouteMatch,
    WeightedCluster, route,
};
use outrigger_proto::envoy::extensions::filters::common::fault::v3::FaultDelay;
use outrigger_proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use outrigger_proto::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use outrigger_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use outrigger_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use outrigger_proto::envoy::r#type::matcher::v3::StringMatcher;
use outrigger_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use outrigger_proto::envoy::r#type::v3::FractionalPercent;
use outrigger_proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Picks of a host for a retry, until one is found that was not tried yet.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// Who reads the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Envoy and our sidecar.
    Envoy,
    /// gRPC libraries, which refuse a whole configuration for a path specifier that they do not know.
    Grpc,
}

/// The rules of a Route in order, for requests to this port (`None`: to a host without one).
pub(crate) fn routes(
    config: &Config,
    route: &Route,
    port: Option<u16>,
    dialect: Dialect,
) -> Vec<proto::Route> {
    let mut out = Vec::new();
    for (index, rule) in route.rules.iter().enumerate() {
        let any = [Match::default()];
        let matches = if rule.matches.is_empty() { &any } else { rule.matches.as_slice() };
        for (place, matched) in matches.iter().enumerate() {
            for (path, rewrite) in paths(matched.path.as_ref(), path_modifier(rule), dialect) {
                let name = format!("{}.{index}.{place}", route.name);
                out.push(one(config, rule, matched, path, rewrite, port, name));
            }
        }
    }
    out
}

/// Every request to a service port goes to its instances.
pub(crate) fn default_route(service: &Service, port: u16) -> proto::Route {
    let cluster = names::outbound_cluster(port, None, &service.name);
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        timeout: service.timeouts.request.and_then(duration),
        retry_policy: service.retry.as_ref().and_then(retry_policy),
        hash_policy: hash_policy(service),
        ..Default::default()
    };
    proto::Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    }
}

fn one(
    config: &Config,
    rule: &Rule,
    matched: &Match,
    path: PathSpecifier,
    rewrite: Option<String>,
    port: Option<u16>,
    name: String,
) -> proto::Route {
    let mut headers: Vec<HeaderMatcher> = Vec::new();
    if let Some(method) = &matched.method {
        headers.push(header(":method", exact(method)));
    }
    headers.extend(matched.headers.iter().map(|it| header(&it.name, value(it))));
    let query_parameters = matched.query_params.iter().map(|it| QueryParameterMatcher {
        name: it.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(value(it))),
    });
    let mut out = proto::Route {
        name,
        r#match: Some(RouteMatch {
            headers,
            query_parameters: query_parameters.collect(),
            path_specifier: Some(path),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut host = None;
    for filter in &rule.filters {
        match filter {
            Filter::RequestHeaderModifier(it) => {
                out.request_headers_to_add = to_add(it);
                out.request_headers_to_remove = it.remove.clone();
            }
            Filter::ResponseHeaderModifier(it) => {
                out.response_headers_to_add = to_add(it);
                out.response_headers_to_remove = it.remove.clone();
            }
            Filter::UrlRewrite(it) => host = it.hostname.clone(),
            Filter::RequestRedirect(_) => {}
            Filter::FaultInjection(it) => {
                let own = any::pack(&fault(it));
                out.typed_per_filter_config = HashMap::from([(FAULT.to_owned(), own)]);
            }
        }
    }
    out.action = Some(match rule.redirect() {
        Some(it) => route::Action::Redirect(redirect(it, rewrite)),
        None => route::Action::Route(forward(config, rule, rewrite, host, port)),
    });
    out
}

fn forward(
    config: &Config,
    rule: &Rule,
    rewrite: Option<String>,
    host: Option<String>,
    port: Option<u16>,
) -> RouteAction {
    // What the rule leaves open is as its first backend wants it.
    let first = rule.backend_refs.first().and_then(|it| config.service(&it.name));
    let timeout = rule.timeouts.request.or(first.and_then(|it| it.timeouts.request));
    let base = first.and_then(|it| it.retry.as_ref());
    let retry = match &rule.retry {
        Some(retry) => Some(retry.over(base)),
        None => base.cloned(),
    };
    RouteAction {
        cluster_specifier: Some(clusters(config, &rule.backend_refs, port)),
        timeout: timeout.and_then(duration),
        retry_policy: retry.as_ref().and_then(retry_policy),
        prefix_rewrite: rewrite.unwrap_or_default(),
        host_rewrite_specifier: host.map(HostRewriteSpecifier::HostRewriteLiteral),
        hash_policy: first.map(|it| hash_policy(it)).unwrap_or_default(),
        ..Default::default()
    }
}

fn clusters(config: &Config, refs: &[BackendRef], port: Option<u16>) -> ClusterSpecifier {
    let mut order = Vec::new();
    let mut weights: BTreeMap<String, u32> = BTreeMap::new();
    for backend in refs.iter().filter(|it| it.weight > 0) {
        let Some(service) = config.service(&backend.name) else { continue };
        let of_service = |port: &u16| service.http_ports().any(|it| it.port == *port);
        let port = backend
            .port
            .or(port.filter(of_service))
            .or_else(|| service.http_ports().next().map(|it| it.port));
        let Some(port) = port else { continue };
        let cluster = names::outbound_cluster(port, backend.subset.as_deref(), &service.name);
        if !weights.contains_key(&cluster) {
            order.push(cluster.clone());
        }
        let weight = weights.entry(cluster).or_default();
        *weight = weight.saturating_add(backend.weight);
    }
    if let [only] = order.as_slice() {
        return ClusterSpecifier::Cluster(only.clone());
    }
    let weighted = order.into_iter().map(|name| ClusterWeight {
        weight: uint32(weights.get(&name).copied().unwrap_or_default()),
        name,
        ..Default::default()
    });
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: weighted.collect(),
        ..Default::default()
    })
}

fn redirect(it: &RequestRedirect, rewrite: Option<String>) -> RedirectAction {
    let RequestRedirect { scheme, hostname, port, path, status_code } = it;
    let code = match status_code {
        301 => RedirectResponseCode::MovedPermanently,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    let path = rewrite.map(|rewrite| match path {
        Some(PathModifier::ReplaceFullPath(_)) => PathRewriteSpecifier::PathRedirect(rewrite),
        _ => PathRewriteSpecifier::PrefixRewrite(rewrite),
    });
    RedirectAction {
        scheme_rewrite_specifier: scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        host_redirect: hostname.clone().unwrap_or_default(),
        port_redirect: port.unwrap_or_default().into(),
        path_rewrite_specifier: path,
        response_code: code.into(),
        ..Default::default()
    }
}

fn path_modifier(rule: &Rule) -> Option<&PathModifier> {
    rule.filters.iter().find_map(|filter| match filter {
        Filter::UrlRewrite(it) => it.path.as_ref(),
        Filter::RequestRedirect(it) => it.path.as_ref(),
        Filter::RequestHeaderModifier(_)
        | Filter::ResponseHeaderModifier(_)
        | Filter::FaultInjection(_) => None,
    })
}

/// The path specifiers of a match, each with what replaces the part that it matched.
///
/// Envoy replaces a prefix byte by byte: to keep exactly one `/` between the new prefix and the rest, a prefix may have to
/// be matched in two ways.
fn paths(
    path: Option<&PathMatch>,
    modifier: Option<&PathModifier>,
    dialect: Dialect,
) -> Vec<(PathSpecifier, Option<String>)> {
    let full = match modifier {
        Some(PathModifier::ReplaceFullPath(path)) => Some(path.clone()),
        _ => None,
    };
    let prefix = match path {
        None => "/",
        Some(PathMatch::PathPrefix(prefix)) => prefix,
        Some(PathMatch::Exact(path)) => return vec![(PathSpecifier::Path(path.clone()), full)],
        Some(PathMatch::RegularExpression(pattern)) => {
            return vec![(PathSpecifier::SafeRegex(regex(pattern)), full)];
        }
    };
    let new = match modifier {
        Some(PathModifier::ReplacePrefixMatch(new)) => Some(new.trim_end_matches('/')),
        _ => None,
    };
    if prefix == "/" {
        let rewrite = new.map(|new| format!("{new}/")).or(full);
        return vec![(PathSpecifier::Prefix("/".to_owned()), rewrite)];
    }
    let whole = |rewrite| (PathSpecifier::Path(prefix.to_owned()), rewrite);
    let below = |rewrite| (PathSpecifier::Prefix(format!("{prefix}/")), rewrite);
    match new {
        // The rest begins with its own `/`; without a rest, something must remain.
        Some("") => vec![whole(Some("/".to_owned())), below(Some("/".to_owned()))],
        Some(new) if dialect == Dialect::Grpc => {
            vec![whole(Some(new.to_owned())), below(Some(format!("{new}/")))]
        }
        None if dialect == Dialect::Grpc => vec![whole(full.clone()), below(full)],
        Some(new) => {
            vec![(PathSpecifier::PathSeparatedPrefix(prefix.to_owned()), Some(new.to_owned()))]
        }
        None => vec![(PathSpecifier::PathSeparatedPrefix(prefix.to_owned()), full)],
    }
}

/// The name by which routes say what the filter does for them.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";

fn fault(it: &FaultInjection) -> HttpFault {
    let percentage = |percent: u8| {
        Some(FractionalPercent {
            numerator: percent.into(),
            denominator: DenominatorType::Hundred.into(),
        })
    };
    HttpFault {
        delay: it.delay.as_ref().map(|it| FaultDelay {
            percentage: percentage(it.percent),
            fault_delay_secifier: duration(it.duration).map(FaultDelaySecifier::FixedDelay),
        }),
        abort: it.abort.as_ref().map(|it| FaultAbort {
            percentage: percentage(it.percent),
            error_type: Some(ErrorType::HttpStatus(it.http_status.into())),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Whether the filter for faults has anything to do.
pub(crate) fn injects_faults(config: &Config) -> bool {
    let rules = config.routes().flat_map(|route| &route.rules);
    rules.flat_map(|rule| &rule.filters).any(|it| matches!(it, Filter::FaultInjection(_)))
}

/// What of a request to a service is hashed. A route with several backends goes by its first one.
fn hash_policy(service: &Service) -> Vec<HashPolicy> {
    let specifier = |key: &HashKey| match key {
        HashKey::Header(name) => PolicySpecifier::Header(parts::Header {
            header_name: name.clone(),
            ..Default::default()
        }),
        HashKey::Cookie(name) => {
            PolicySpecifier::Cookie(parts::Cookie { name: name.clone(), ..Default::default() })
        }
        HashKey::Query(name) => {
            PolicySpecifier::QueryParameter(parts::QueryParameter { name: name.clone() })
        }
        HashKey::SourceIp(source_ip) => {
            let source_ip = *source_ip;
            PolicySpecifier::ConnectionProperties(parts::ConnectionProperties { source_ip })
        }
    };
    let keys = service.load_balancer.hash_on.iter();
    keys.map(|key| HashPolicy { policy_specifier: Some(specifier(key)), ..Default::default() })
        .collect()
}

fn header(name: &str, matcher: StringMatcher) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher)),
        ..Default::default()
    }
}

fn value(it: &ValueMatch) -> StringMatcher {
    match &it.value {
        StringMatch::Exact(value) => exact(value),
        StringMatch::RegularExpression(pattern) => string(MatchPattern::SafeRegex(regex(pattern))),
    }
}

fn to_add(it: &HeaderModifier) -> Vec<HeaderValueOption> {
    let option = |header: &ModelHeader, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: header.name.clone(),
            // Envoy reads `%` as the beginning of a variable.
            value: header.value.replace('%', "%%"),
            ..Default::default()
        }),
        append_action: action.into(),
        ..Default::default()
    };
    let set = it.set.iter().map(|it| option(it, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = it.add.iter().map(|it| option(it, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

/// `None` if nothing is to be retried.
fn retry_policy(retry: &Retry) -> Option<RetryPolicy> {
    if retry.attempts() == 0 {
        return None;
    }
    let on: Vec<&str> = retry.on().iter().map(|on| on.as_str()).collect();
    let backoff = |base: Duration| RetryBackOff {
        base_interval: duration(base),
        max_interval: duration(base.saturating_mul(10)),
    };
    Some(RetryPolicy {
        retry_on: on.join(","),
        num_retries: uint32(retry.attempts()),
        per_try_timeout: retry.per_try_timeout.and_then(duration),
        retry_back_off: retry.backoff.map(backoff),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any::pack(
                &PreviousHostsPredicate {},
            ))),
        }],
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(prefix: &str, new: &str) -> Vec<(PathSpecifier, Option<String>)> {
        let path = PathMatch::PathPrefix(prefix.to_owned());
        let modifier = PathModifier::ReplacePrefixMatch(new.to_owned());
        paths(Some(&path), Some(&modifier), Dialect::Envoy)
    }

    #[test]
    fn a_replaced_prefix_keeps_one_slash_before_the_rest() {
        let text = |text: &str| text.to_owned();
        let root = [
            (PathSpecifier::Path(text("/v1")), Some(text("/"))),
            (PathSpecifier::Prefix(text("/v1/")), Some(text("/"))),
        ];
        assert_eq!(rewritten("/v1", "/"), root);
        let other = [(PathSpecifier::PathSeparatedPrefix(text("/v1")), Some(text("/x")))];
        assert_eq!(rewritten("/v1", "/x"), other);
        assert_eq!(rewritten("/v1", "/x/"), other);
        let everything = [(PathSpecifier::Prefix(text("/")), Some(text("/x/")))];
        assert_eq!(rewritten("/", "/x"), everything);
    }

    #[test]
    fn a_grpc_client_gets_only_path_specifiers_that_it_knows() {
        let path = PathMatch::PathPrefix("/v1".to_owned());
        let specifiers = paths(Some(&path), None, Dialect::Grpc);
        let specifiers: Vec<_> = specifiers.into_iter().map(|(specifier, _)| specifier).collect();
        let expected =
            [PathSpecifier::Path("/v1".to_owned()), PathSpecifier::Prefix("/v1/".to_owned())];
        assert_eq!(specifiers, expected);
    }
}
