//! Policies: RBAC filters of HTTP ports, admitted callers of the others.

use crate::discovery::put_bytes_field;
use crate::identity::workload_id;
use crate::model::mesh::Action;
use crate::model::policy::PathPattern;
use crate::model::{Config, Policy};
use crate::translate::proto::{exact, string};
use outrigger_proto::any;
use outrigger_proto::envoy::config::rbac::v3 as rbac;
use outrigger_proto::envoy::config::rbac::v3::{Permission, Principal, permission, principal};
use outrigger_proto::envoy::config::route::v3::{HeaderMatcher, header_matcher};
use outrigger_proto::envoy::extensions::filters::http::rbac::v3::Rbac;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use outrigger_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use outrigger_proto::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use outrigger_proto::google::protobuf::Any;
use prost::Message;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The policies that judge requests to a service, by name.
pub(crate) fn of<'a>(config: &'a Config, service: &str) -> Vec<&'a Arc<Policy>> {
    let judges = |policy: &&Arc<Policy>| policy.to.iter().any(|to| to.service == service);
    config.policies().filter(judges).collect()
}

/// The filters that refuse what the policies refuse: first what is denied, then what is not allowed.
pub(crate) fn http_filters(config: &Config, policies: &[&Arc<Policy>]) -> Vec<HttpFilter> {
    let mesh = config.mesh();
    let of = |action| policies.iter().copied().filter(move |it| it.action == action);
    let mut filters = Vec::new();
    if of(Action::Deny).next().is_some() {
        let rules = rules(&mesh.trust_domain, rbac::rbac::Action::Deny, of(Action::Deny));
        filters.push(filter("envoy.filters.http.rbac.deny", rules));
    }
    if mesh.default_action == Action::Deny {
        let rules = rules(&mesh.trust_domain, rbac::rbac::Action::Allow, of(Action::Allow));
        filters.push(filter("envoy.filters.http.rbac.allow", rules));
    }
    filters
}

/// Whether a decision depends on the path.
pub(crate) fn judge_paths(policies: &[&Arc<Policy>]) -> bool {
    policies.iter().any(|policy| !policy.paths.is_empty())
}

/// Who may connect to a port without HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Callers {
    /// Every member of the mesh.
    Any,
    /// These SPIFFE ids, perhaps none.
    Only(Vec<String>),
}

/// Who may connect to a port without HTTP. Methods and paths are not visible there: a policy that asks for one denies
/// without it, and does not allow without it.
pub(crate) fn callers(config: &Config, policies: &[&Arc<Policy>]) -> Callers {
    let mesh = config.mesh();
    let denied: Vec<_> = policies.iter().filter(|it| it.action == Action::Deny).collect();
    if mesh.default_action == Action::Allow && denied.is_empty() {
        return Callers::Any;
    }
    let named = |policy: &Policy| {
        policy.from.iter().map(|from| from.service.clone()).collect::<BTreeSet<String>>()
    };
    let everyone = || {
        let services = config.services().map(|it| it.name.clone());
        let gateways = config.gateways().map(|it| it.name.clone());
        let callers = config.policies().flat_map(|it| it.from.iter()).map(|it| it.service.clone());
        services.chain(gateways).chain(callers).collect::<BTreeSet<String>>()
    };
    let allows = policies
        .iter()
        .filter(|it| it.action == Action::Allow && it.methods.is_empty() && it.paths.is_empty());
    let mut allowed = match mesh.default_action {
        Action::Allow => everyone(),
        Action::Deny => {
            let mut allowed = BTreeSet::new();
            for policy in allows {
                if policy.from.is_empty() {
                    if denied.is_empty() {
                        return Callers::Any;
                    }
                    allowed.extend(everyone());
                }
                allowed.extend(named(policy));
            }
            allowed
        }
    };
    for policy in denied {
        if policy.from.is_empty() {
            allowed.clear();
        }
        for service in named(policy) {
            allowed.remove(&service);
        }
    }
    let ids = allowed.iter().map(|service| workload_id(&mesh.trust_domain, service));
    Callers::Only(ids.collect())
}

/// `envoy.config.rbac.v3.RBAC`, encoded with the policies in order of name. (A generated map would come in an order of
/// its own each time, and make a new version of the same listener.)
fn rules<'a>(
    trust_domain: &str,
    action: rbac::rbac::Action,
    policies: impl Iterator<Item = &'a Arc<Policy>>,
) -> Vec<u8> {
    const POLICIES: u32 = 2;
    let mut out = rbac::Rbac { action: action.into(), ..Default::default() }.encode_to_vec();
    for policy in policies {
        let mut entry = Vec::new();
        put_bytes_field(1, policy.name.as_bytes(), &mut entry);
        put_bytes_field(2, &proto(trust_domain, policy).encode_to_vec(), &mut entry);
        put_bytes_field(POLICIES, &entry, &mut out);
    }
    out
}

fn filter(name: &str, rules: Vec<u8>) -> HttpFilter {
    const RULES: u32 = 1;
    let mut value = Vec::new();
    put_bytes_field(RULES, &rules, &mut value);
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(Any {
            type_url: any::type_url::<Rbac>(),
            value,
        })),
        ..Default::default()
    }
}

fn proto(trust_domain: &str, policy: &Policy) -> rbac::Policy {
    let methods = policy.methods.iter().map(|method| {
        permission::Rule::Header(HeaderMatcher {
            name: ":method".to_owned(),
            header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::StringMatch(exact(
                method,
            ))),
            ..Default::default()
        })
    });
    let paths = policy.paths.iter().map(|path| {
        let pattern = match path {
            PathPattern::Exact(path) => exact(path),
            PathPattern::Prefix(path) => string(MatchPattern::Prefix(path.clone())),
        };
        permission::Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(pattern)) })
    });
    let all = [any_of(methods.collect()), any_of(paths.collect())];
    let mut all: Vec<Permission> = all.into_iter().flatten().collect();
    let permission = match all.len() {
        0 => Permission { rule: Some(permission::Rule::Any(true)) },
        1 => all.remove(0),
        _ => Permission { rule: Some(permission::Rule::AndRules(permission::Set { rules: all })) },
    };
    let mut principals: Vec<Principal> = policy
        .from
        .iter()
        .map(|from| {
            let id = workload_id(trust_domain, &from.service);
            let authenticated = principal::Authenticated { principal_name: Some(exact(&id)) };
            Principal { identifier: Some(principal::Identifier::Authenticated(authenticated)) }
        })
        .collect();
    if principals.is_empty() {
        principals.push(Principal { identifier: Some(principal::Identifier::Any(true)) });
    }
    rbac::Policy { permissions: vec![permission], principals, ..Default::default() }
}

/// One of these; `None` without any.
fn any_of(rules: Vec<permission::Rule>) -> Option<Permission> {
    let mut rules: Vec<Permission> =
        rules.into_iter().map(|rule| Permission { rule: Some(rule) }).collect();
    match rules.len() {
        0 => None,
        1 => rules.pop(),
        _ => Some(Permission { rule: Some(permission::Rule::OrRules(permission::Set { rules })) }),
    }
}
