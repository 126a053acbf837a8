//! Network filters that stand before the one that takes a connection.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::RuntimeFeatureFlag;
use outrigger_proto::envoy::extensions::filters::network::connection_limit::v3 as connection_limit;
use outrigger_proto::envoy::extensions::filters::network::local_ratelimit::v3 as local_ratelimit;
use outrigger_proto::envoy::extensions::filters::network::rbac::v3 as network_rbac;
use outrigger_proto::envoy::extensions::filters::network::rbac::v3::rbac::EnforcementType;
use outrigger_proto::envoy::extensions::filters::network::sni_cluster::v3::SniCluster;
use outrigger_proto::google::protobuf::{Any, UInt64Value};

use crate::config::Problems;
use crate::config::network_filter::{
    ConnectionLimit, NetworkFilter, NetworkRateLimit, NetworkRbac,
};
use crate::config::rbac::{Permission, Principal, Rules};
use crate::config::runtime::RuntimeFlag;

use super::common::{duration, enumeration, required, text, unpack, unsupported};
use super::http_filters::local_ratelimit::bucket;
use super::{percent, rbac};

/// What `unknown_type` names.
pub(super) const NAMES: [&str; 4] = ["RBAC", "LocalRateLimit", "ConnectionLimit", "SniCluster"];

/// Whether it is one of those filters.
pub(super) fn is_known(config: &Any) -> bool {
    any::holds::<network_rbac::Rbac>(config)
        || any::holds::<local_ratelimit::LocalRateLimit>(config)
        || any::holds::<connection_limit::ConnectionLimit>(config)
        || any::holds::<SniCluster>(config)
}

/// The filter of a configuration that [`is_known`].
pub(super) fn convert(problems: &mut Problems, config: &Any) -> Option<NetworkFilter> {
    if any::holds::<network_rbac::Rbac>(config) {
        let proto = unpack(problems, config)?;
        return rbac_filter(problems, proto).map(NetworkFilter::Rbac);
    }
    if any::holds::<local_ratelimit::LocalRateLimit>(config) {
        let proto = unpack(problems, config)?;
        return rate_limit(problems, proto).map(NetworkFilter::LocalRateLimit);
    }
    if any::holds::<connection_limit::ConnectionLimit>(config) {
        let proto = unpack(problems, config)?;
        return limit(problems, proto).map(NetworkFilter::ConnectionLimit);
    }
    let SniCluster {} = unpack(problems, config)?;
    Some(NetworkFilter::SniCluster)
}

fn rbac_filter(problems: &mut Problems, proto: network_rbac::Rbac) -> Option<NetworkRbac> {
    let network_rbac::Rbac {
        rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = proto;
    // It would judge each piece of data again, by what has not changed since the first.
    let enforcement: EnforcementType = enumeration(problems, "enforcement_type", enforcement_type)?;
    problems.unsupported("enforcement_type", enforcement == EnforcementType::Continuous);
    let stat_prefix = text(problems, "stat_prefix", stat_prefix);
    let (rules, shadow_rules) =
        rbac::both(problems, (rules, matcher), (shadow_rules, shadow_matcher));
    for (name, rules) in [("rules", &rules), ("shadow_rules", &shadow_rules)] {
        if let Some(rules) = rules {
            problems.field(name, |problems| of_connections(problems, rules));
        }
    }
    Some(NetworkRbac {
        rules,
        shadow_rules,
        stat_prefix: stat_prefix.into(),
        shadow_prefix: shadow_rules_stat_prefix.into(),
        delay_deny: duration(problems, "delay_deny", delay_deny).unwrap_or_default(),
    })
}

/// A connection has no request: rules that ask for one are refused, as in Envoy, and so is what nothing notes of a
/// connection. A rule that cannot be judged must never become one that matches, or does not.
fn of_connections(problems: &mut Problems, rules: &Rules) {
    for policy in &rules.policies {
        problems.element("policies", &policy.name, |problems| {
            let foreign = policy.permissions.iter().find_map(foreign_permission);
            if let Some(what) = foreign {
                problems.reject_field("permissions", of_requests(what));
            }
            let foreign = policy.principals.iter().find_map(foreign_principal);
            if let Some(what) = foreign {
                problems.reject_field("principals", of_requests(what));
            }
        });
    }
}

fn of_requests(what: &str) -> String {
    format!("{what} is of requests: not supported by this version of Outrigger for connections")
}

fn foreign_permission(permission: &Permission) -> Option<&'static str> {
    match permission {
        Permission::And(all) | Permission::Or(all) => all.iter().find_map(foreign_permission),
        Permission::Not(not) => foreign_permission(not),
        Permission::Header(_) => Some("header"),
        Permission::UrlPath(_) => Some("url_path"),
        Permission::UriTemplate(_) => Some("uri_template"),
        Permission::Metadata(..) => Some("metadata"),
        Permission::Any
        | Permission::DestinationIp(_)
        | Permission::DestinationPort(_)
        | Permission::DestinationPortRange(..)
        | Permission::RequestedServerName(_) => None,
    }
}

fn foreign_principal(principal: &Principal) -> Option<&'static str> {
    match principal {
        Principal::And(all) | Principal::Or(all) => all.iter().find_map(foreign_principal),
        Principal::Not(not) => foreign_principal(not),
        Principal::Header(_) => Some("header"),
        Principal::UrlPath(_) => Some("url_path"),
        Principal::Metadata(..) => Some("metadata"),
        Principal::FilterState(_) => Some("filter_state"),
        Principal::Any
        | Principal::Authenticated(_)
        | Principal::Certificate(..)
        | Principal::DirectRemoteIp(_)
        | Principal::SourceIp(_)
        | Principal::RemoteIp(_) => None,
    }
}

fn rate_limit(
    problems: &mut Problems,
    proto: local_ratelimit::LocalRateLimit,
) -> Option<NetworkRateLimit> {
    let local_ratelimit::LocalRateLimit { stat_prefix, token_bucket, runtime_enabled, share_key } =
        proto;
    unsupported!(problems; share_key);
    let stat_prefix = text(problems, "stat_prefix", stat_prefix);
    let enabled = enabled(problems, runtime_enabled);
    let bucket = required(problems, "token_bucket", token_bucket)
        .and_then(|proto| problems.field("token_bucket", |problems| bucket(problems, proto)));
    Some(NetworkRateLimit { stat_prefix: stat_prefix.into(), bucket: Arc::new(bucket?), enabled })
}

fn limit(
    problems: &mut Problems,
    proto: connection_limit::ConnectionLimit,
) -> Option<ConnectionLimit> {
    let connection_limit::ConnectionLimit { stat_prefix, max_connections, delay, runtime_enabled } =
        proto;
    let stat_prefix = text(problems, "stat_prefix", stat_prefix);
    let enabled = enabled(problems, runtime_enabled);
    let max_connections = required(problems, "max_connections", max_connections);
    if let Some(UInt64Value { value: 0 }) = max_connections {
        problems.reject_field("max_connections", "must be at least 1");
    }
    Some(ConnectionLimit {
        stat_prefix: stat_prefix.into(),
        max_connections: max_connections?.value,
        delay: duration(problems, "delay", delay).unwrap_or(Duration::ZERO),
        enabled,
    })
}

/// The field `runtime_enabled`: on, unless it is set.
fn enabled(problems: &mut Problems, proto: Option<RuntimeFeatureFlag>) -> RuntimeFlag {
    let flag = proto.and_then(|proto| percent::flag(problems, "runtime_enabled", proto));
    flag.unwrap_or_else(|| true.into())
}
