//! The RBAC filter and its overrides on routes.

use std::sync::Arc;

use outrigger_proto::envoy::config::core::v3::CidrRange;
use outrigger_proto::envoy::config::rbac::v3 as proto;
use outrigger_proto::envoy::config::rbac::v3::permission::Rule;
use outrigger_proto::envoy::config::rbac::v3::principal::Identifier;
use outrigger_proto::envoy::extensions::filters::http::rbac::v3 as filter;
use outrigger_proto::envoy::r#type::matcher::v3::{
    MetadataMatcher as MetadataProto, PathMatcher as PathMatcherProto, path_matcher,
};
use outrigger_proto::envoy::r#type::v3::Int32Range;
use outrigger_proto::xds_core::r#type::matcher::v3::Matcher;

use crate::config::Problems;
use crate::config::matcher::PathMatcher;
use crate::config::metadata::MetadataMatcher;
use crate::config::rbac::{
    Action, MetadataSource, Otherwise, Permission, Policy, Principal, Rbac, Rules,
};

use super::common::{cidr, enumeration, required, sorted, unsupported};
use super::{matcher, metadata, rbac_matcher, uri_template};

/// The filter's configuration.
pub(super) fn filter(problems: &mut Problems, proto: filter::Rbac) -> Rbac {
    let filter::Rbac {
        rules,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        track_per_rule_stats: _, // only adds counters
    } = proto;
    let (rules, shadow_rules) = both(problems, (rules, matcher), (shadow_rules, shadow_matcher));
    Rbac {
        rules,
        shadow_rules,
        rules_prefix: rules_stat_prefix.into(),
        shadow_prefix: shadow_rules_stat_prefix.into(),
    }
}

/// A list of policies, or the matcher that counts before it where both are there, as in Envoy.
type Source = (Option<proto::Rbac>, Option<Matcher>);

/// The rules of a filter, and those that are only counted.
pub(super) fn both(
    problems: &mut Problems,
    enforced: Source,
    shadow: Source,
) -> (Option<Rules>, Option<Rules>) {
    let mut of = |(rules, matcher): Source, names: [&str; 2]| {
        let [rules_name, matcher_name] = names;
        let rules = rules.map(|proto| problems.field(rules_name, |problems| list(problems, proto)));
        let matcher = matcher.map(|proto| {
            problems.field(matcher_name, |problems| rbac_matcher::rules(problems, proto))
        });
        matcher.or(rules)
    };
    (of(enforced, ["rules", "matcher"]), of(shadow, ["shadow_rules", "shadow_matcher"]))
}

/// `RBACPerRoute`: other rules for what matches here, or none.
pub(super) fn per_route(problems: &mut Problems, proto: filter::RbacPerRoute) -> Option<Arc<Rbac>> {
    let filter::RbacPerRoute { rbac } = proto;
    rbac.map(|proto| Arc::new(problems.field("rbac", |problems| filter(problems, proto))))
}

/// A list of policies with their action.
pub(super) fn list(problems: &mut Problems, proto: proto::Rbac) -> Rules {
    let proto::Rbac { action, policies, audit_logging_options } = proto;
    unsupported!(problems; audit_logging_options);
    // A refused action is already on the list of problems: what is built then is thrown away.
    let action = enumeration(problems, "action", action).map_or(Action::Allow, self::action);
    let policies = sorted(policies)
        .into_iter()
        .map(|(name, proto)| {
            problems.element("policies", &name, |problems| policy(problems, &name, action, proto))
        })
        .collect();
    let otherwise = if action == Action::Allow { Action::Deny } else { Action::Allow };
    let otherwise = Otherwise { action: otherwise, name: None };
    Rules { logs: action == Action::Log, policies, otherwise }
}

/// What a match means.
pub(super) fn action(proto: proto::rbac::Action) -> Action {
    match proto {
        proto::rbac::Action::Allow => Action::Allow,
        proto::rbac::Action::Deny => Action::Deny,
        proto::rbac::Action::Log => Action::Log,
    }
}

fn policy(problems: &mut Problems, name: &str, action: Action, proto: proto::Policy) -> Policy {
    let proto::Policy { permissions, principals, condition, checked_condition, cel_config } = proto;
    unsupported!(problems; condition, checked_condition, cel_config);
    Policy {
        name: name.into(),
        action,
        permissions: permission_list(problems, "permissions", permissions),
        principals: principal_list(problems, "principals", principals),
    }
}

fn permission_list(
    problems: &mut Problems,
    name: &str,
    protos: Vec<proto::Permission>,
) -> Vec<Permission> {
    not_empty(problems, name, protos.len());
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| permission(problems, proto))
        })
        .collect()
}

fn principal_list(
    problems: &mut Problems,
    name: &str,
    protos: Vec<proto::Principal>,
) -> Vec<Principal> {
    not_empty(problems, name, protos.len());
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| principal(problems, proto))
        })
        .collect()
}

fn not_empty(problems: &mut Problems, name: &str, length: usize) {
    if length == 0 {
        problems.reject_field(name, "must have at least one entry");
    }
}

fn permission(problems: &mut Problems, proto: proto::Permission) -> Option<Permission> {
    let proto::Permission { rule } = proto;
    let Some(rule) = rule else {
        problems.reject("says nothing: one of any, header, url_path, ... is required");
        return None;
    };
    match rule {
        Rule::Any(any) => must_be_true(problems, any).then_some(Permission::Any),
        Rule::AndRules(set) => Some(Permission::And(
            problems.field("and_rules", |problems| permission_list(problems, "rules", set.rules)),
        )),
        Rule::OrRules(set) => Some(Permission::Or(
            problems.field("or_rules", |problems| permission_list(problems, "rules", set.rules)),
        )),
        Rule::NotRule(inner) => {
            let inner = problems.field("not_rule", |problems| permission(problems, *inner))?;
            Some(Permission::Not(Box::new(inner)))
        }
        Rule::Header(header) => {
            let header = problems.field("header", |problems| matcher::header(problems, header))?;
            Some(Permission::Header(header))
        }
        Rule::UrlPath(path) => url_path(problems, path).map(Permission::UrlPath),
        Rule::DestinationIp(range) => {
            cidr(problems, "destination_ip", range).map(Permission::DestinationIp)
        }
        Rule::DestinationPort(port) => match u16::try_from(port) {
            Ok(port) => Some(Permission::DestinationPort(port)),
            Err(_) => {
                problems.reject_field("destination_port", format!("{port} is not a port"));
                None
            }
        },
        Rule::DestinationPortRange(range) => port_range(problems, range),
        Rule::RequestedServerName(name) => {
            let name = problems
                .field("requested_server_name", |problems| matcher::string(problems, name))?;
            Some(Permission::RequestedServerName(name))
        }
        Rule::Metadata(proto) => metadata(problems, proto)
            .map(|matcher| Permission::Metadata(MetadataSource::Dynamic, matcher)),
        Rule::Matcher(_) => refuse(problems, "matcher"),
        Rule::UriTemplate(proto) => problems
            .field("uri_template", |problems| uri_template::matcher(problems, proto))
            .map(Permission::UriTemplate),
        Rule::SourcedMetadata(proto) => sourced_metadata(problems, proto)
            .map(|(source, matcher)| Permission::Metadata(source, matcher)),
    }
}

fn metadata(problems: &mut Problems, proto: MetadataProto) -> Option<MetadataMatcher> {
    problems.field("metadata", |problems| metadata::matcher(problems, proto))
}

fn sourced_metadata(
    problems: &mut Problems,
    proto: proto::SourcedMetadata,
) -> Option<(MetadataSource, MetadataMatcher)> {
    let proto::SourcedMetadata { metadata_matcher, metadata_source } = proto;
    problems.field("sourced_metadata", |problems| {
        let source = match enumeration(problems, "metadata_source", metadata_source)? {
            proto::MetadataSource::Dynamic => MetadataSource::Dynamic,
            proto::MetadataSource::Route => MetadataSource::Route,
        };
        let matcher = required(problems, "metadata_matcher", metadata_matcher)?;
        let matcher =
            problems.field("metadata_matcher", |problems| metadata::matcher(problems, matcher))?;
        Some((source, matcher))
    })
}

/// A part of a rule that we cannot judge must never become one that matches, or does not: the whole is refused.
fn refuse<T>(problems: &mut Problems, name: &str) -> Option<T> {
    problems.unsupported(name, true);
    None
}

fn must_be_true(problems: &mut Problems, any: bool) -> bool {
    if !any {
        problems.reject_field("any", "must be true");
    }
    any
}

fn port_range(problems: &mut Problems, range: Int32Range) -> Option<Permission> {
    let Int32Range { start, end } = range;
    // `end` is exclusive: 65536 takes in the last port, which a `u16` bound cannot say.
    let bounds = u16::try_from(start).ok().zip(u16::try_from(end).ok());
    if let Some((start, end)) = bounds.filter(|(start, end)| start < end) {
        return Some(Permission::DestinationPortRange(start, end));
    }
    if let (Ok(first), 65_536) = (u16::try_from(start), end) {
        let last = Permission::DestinationPort(u16::MAX);
        if first == u16::MAX {
            return Some(last);
        }
        return Some(Permission::Or(vec![Permission::DestinationPortRange(first, u16::MAX), last]));
    }
    problems.reject_field(
        "destination_port_range",
        format!("[{start}, {end}) is not a range of ports: 0 <= start < end <= 65536"),
    );
    None
}

fn url_path(problems: &mut Problems, proto: PathMatcherProto) -> Option<PathMatcher> {
    let PathMatcherProto { rule } = proto;
    problems.field("url_path", |problems| match rule {
        Some(path_matcher::Rule::Path(path)) => {
            problems.field("path", |problems| matcher::string(problems, path))
        }
        None => {
            problems.reject_field("path", "required");
            None
        }
    })
}

fn principal(problems: &mut Problems, proto: proto::Principal) -> Option<Principal> {
    let proto::Principal { identifier } = proto;
    let Some(identifier) = identifier else {
        problems.reject("says nothing: one of any, authenticated, header, ... is required");
        return None;
    };
    let ip = |problems: &mut Problems, name: &str, range: CidrRange| cidr(problems, name, range);
    match identifier {
        Identifier::Any(any) => must_be_true(problems, any).then_some(Principal::Any),
        Identifier::AndIds(set) => Some(Principal::And(
            problems.field("and_ids", |problems| principal_list(problems, "ids", set.ids)),
        )),
        Identifier::OrIds(set) => Some(Principal::Or(
            problems.field("or_ids", |problems| principal_list(problems, "ids", set.ids)),
        )),
        Identifier::NotId(inner) => {
            let inner = problems.field("not_id", |problems| principal(problems, *inner))?;
            Some(Principal::Not(Box::new(inner)))
        }
        Identifier::Authenticated(proto::principal::Authenticated { principal_name }) => {
            let name = match principal_name {
                None => None,
                Some(name) => Some(problems.field("authenticated", |problems| {
                    problems.field("principal_name", |problems| matcher::string(problems, name))
                })?),
            };
            Some(Principal::Authenticated(name))
        }
        Identifier::SourceIp(range) => ip(problems, "source_ip", range).map(Principal::SourceIp),
        Identifier::DirectRemoteIp(range) => {
            ip(problems, "direct_remote_ip", range).map(Principal::DirectRemoteIp)
        }
        Identifier::RemoteIp(range) => ip(problems, "remote_ip", range).map(Principal::RemoteIp),
        Identifier::Header(header) => {
            let header = problems.field("header", |problems| matcher::header(problems, header))?;
            Some(Principal::Header(header))
        }
        Identifier::UrlPath(path) => url_path(problems, path).map(Principal::UrlPath),
        Identifier::Metadata(proto) => metadata(problems, proto)
            .map(|matcher| Principal::Metadata(MetadataSource::Dynamic, matcher)),
        Identifier::FilterState(proto) => problems
            .field("filter_state", |problems| metadata::state_matcher(problems, proto))
            .map(Principal::FilterState),
        Identifier::SourcedMetadata(proto) => sourced_metadata(problems, proto)
            .map(|(source, matcher)| Principal::Metadata(source, matcher)),
        Identifier::Custom(_) => refuse(problems, "custom"),
    }
}
