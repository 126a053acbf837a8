//! Role-based access control of connections, `envoy.filters.network.rbac`: as that of requests, by what is known of a
//! connection alone.

use ipnet::IpNet;

use super::network_filters::Peer;
use crate::config::address::Address;
use crate::config::matcher::StringMatcher;
use crate::config::rbac::{Permission, Principal, Rules};

/// Whether the rules allow the connection, and the policy that matched.
pub(super) fn decide<'r>(rules: &'r Rules, peer: &Peer<'_>) -> (bool, Option<&'r str>) {
    let decision = rules.decide(|policy| {
        policy.permissions.iter().any(|permission| permits(permission, peer))
            && policy.principals.iter().any(|principal| is(principal, peer))
    });
    (decision.allowed, decision.policy)
}

/// A Unix domain socket is in no network, and has no port.
fn contains(network: &IpNet, address: &Address) -> bool {
    address.ip().is_some_and(|address| network.contains(&address))
}

fn permits(permission: &Permission, peer: &Peer<'_>) -> bool {
    let local = &peer.ends.local;
    match permission {
        Permission::Any => true,
        Permission::And(all) => all.iter().all(|one| permits(one, peer)),
        Permission::Or(any) => any.iter().any(|one| permits(one, peer)),
        Permission::Not(not) => !permits(not, peer),
        Permission::DestinationIp(network) => contains(network, local),
        Permission::DestinationPort(port) => local.port() == Some(*port),
        Permission::DestinationPortRange(start, end) => {
            local.port().is_some_and(|port| (*start..*end).contains(&port))
        }
        Permission::RequestedServerName(matcher) => {
            matcher.matches(peer.server_name.unwrap_or_default().as_bytes())
        }
        // Of requests: no configuration with such a rule is accepted.
        Permission::Header(_)
        | Permission::UrlPath(_)
        | Permission::UriTemplate(_)
        | Permission::Metadata(..) => false,
    }
}

fn is(principal: &Principal, peer: &Peer<'_>) -> bool {
    match principal {
        Principal::Any => true,
        Principal::And(all) => all.iter().all(|one| is(one, peer)),
        Principal::Or(any) => any.iter().any(|one| is(one, peer)),
        Principal::Not(not) => !is(not, peer),
        Principal::Authenticated(matcher) => is_authenticated(matcher.as_ref(), peer),
        Principal::Certificate(field, matcher) => {
            let identity = peer.tls.and_then(|tls| tls.identity.as_ref());
            identity.is_some_and(|identity| identity.has(*field, matcher))
        }
        Principal::DirectRemoteIp(network) => contains(network, &peer.ends.direct_peer),
        Principal::SourceIp(network) | Principal::RemoteIp(network) => {
            contains(network, &peer.ends.peer)
        }
        // Of requests: no configuration with such a rule is accepted.
        Principal::Header(_)
        | Principal::UrlPath(_)
        | Principal::Metadata(..)
        | Principal::FilterState(_) => false,
    }
}

/// Without a name, any TLS connection will do. The names of a certificate count only if its chain was verified.
fn is_authenticated(matcher: Option<&StringMatcher>, peer: &Peer<'_>) -> bool {
    let Some(tls) = peer.tls else { return false };
    let Some(matcher) = matcher else { return true };
    let Some(identity) = tls.identity.as_ref().filter(|identity| identity.verified) else {
        return false;
    };
    let matches = |names: &[Box<str>]| names.iter().any(|name| matcher.matches(name.as_bytes()));
    if !identity.uri_sans.is_empty() {
        matches(&identity.uri_sans)
    } else if !identity.dns_sans.is_empty() {
        matches(&identity.dns_sans)
    } else {
        matcher.matches(identity.subject.as_bytes())
    }
}
