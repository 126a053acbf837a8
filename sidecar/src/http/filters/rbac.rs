//! Role-based access control, `envoy.filters.http.rbac`: who may do what.
//!
//! Policies are walked in the order of their names; the first that matches decides. A rule that denies looks at every
//! value of a header on its own as well, so that a second value cannot hide the first.

use std::net::IpAddr;

use serde_json::Map;

use super::Passage;
use crate::config::matcher::StringMatcher;
use crate::config::metadata::{Metadata, MetadataMatcher};
use crate::config::rbac::{Action, Decision, MetadataSource, Permission, Principal, Rbac, Rules};
use crate::http::connection_manager::Connection;
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::matching::RequestView;
use crate::http::router::Refusal;
use crate::http::stream_state::{filter_state_of, metadata_of};
use crate::stats::{RbacCells, RbacShadowCells};

/// Lets the request pass, or denies it.
pub(super) fn run(
    config: &Rbac,
    stats: &RbacCells,
    shadow_stats: &RbacShadowCells,
    passage: &mut Passage<'_>,
) -> Result<(), Refusal> {
    if let Some(shadow) = &config.shadow_rules {
        let Decision { allowed, policy, .. } = decide(shadow, &Input::of(passage));
        match allowed {
            true => shadow_stats.shadow_allowed.inc(),
            false => shadow_stats.shadow_denied.inc(),
        }
        note(passage, &config.shadow_prefix, "shadow", allowed, policy);
    }
    let Some(rules) = &config.rules else { return Ok(()) };
    let Decision { allowed, policy, logged } = decide(rules, &Input::of(passage));
    if rules.logs {
        let log = [("access_log_hint".to_owned(), logged.into())];
        passage.exchange.state().metadata.put("envoy.common", log.into_iter().collect());
    }
    note(passage, &config.rules_prefix, "enforced", allowed, policy);
    if allowed {
        stats.allowed.inc();
        return Ok(());
    }
    stats.denied.inc();
    let policy = policy.unwrap_or("none");
    // Envoy keeps spaces out of its details.
    let details = format!("rbac_access_denied_matched_policy[{policy}]").replace(' ', "_");
    let reply = LocalReply::new(http::StatusCode::FORBIDDEN, "RBAC: access denied", details);
    Err(reply.because(Reason::RbacDenied).into())
}

/// Notes a decision in the metadata.
fn note(passage: &mut Passage<'_>, prefix: &str, kind: &str, allowed: bool, policy: Option<&str>) {
    let mut noted = Map::new();
    let result = if allowed { "allowed" } else { "denied" };
    noted.insert(format!("{prefix}{kind}_engine_result"), result.into());
    if let Some(policy) = policy {
        noted.insert(format!("{prefix}{kind}_effective_policy_id"), policy.into());
    }
    passage.exchange.state().metadata.put("envoy.filters.http.rbac", noted);
}

/// What the rules look at.
struct Input<'a> {
    request: RequestView<'a>,
    connection: &'a Connection,
    /// The client, which is not the peer where trusted proxies stand in between.
    client: Option<IpAddr>,
    route: Option<&'a Metadata>,
}

impl<'a> Input<'a> {
    fn of(passage: &'a Passage<'_>) -> Self {
        Self {
            request: passage.view(),
            connection: passage.connection,
            client: passage.accepted.client,
            route: passage.route.map(|route| &route.metadata),
        }
    }

    fn has(&self, source: MetadataSource, matcher: &MetadataMatcher) -> bool {
        matcher.matches(match source {
            MetadataSource::Dynamic => metadata_of(self.request.state),
            MetadataSource::Route => self.route,
        })
    }
}

/// Whether the rules allow the request, and what decided so.
fn decide<'r>(rules: &'r Rules, input: &Input<'_>) -> Decision<'r> {
    rules.decide(|policy| {
        let strict = policy.action == Action::Deny;
        policy.permissions.iter().any(|permission| permits(permission, input, strict))
            && policy.principals.iter().any(|principal| is(principal, input, strict))
    })
}

/// `any_value`: a header matches if any of its values does. Turned round below a `not`, so that it stays on the safe side.
fn permits(permission: &Permission, input: &Input<'_>, any_value: bool) -> bool {
    let local = &input.connection.local_address;
    match permission {
        Permission::Any => true,
        Permission::And(all) => all.iter().all(|one| permits(one, input, any_value)),
        Permission::Or(any) => any.iter().any(|one| permits(one, input, any_value)),
        Permission::Not(not) => !permits(not, input, !any_value),
        Permission::Header(matcher) if any_value => matcher.matches_any_value(&input.request),
        Permission::Header(matcher) => matcher.matches(&input.request),
        Permission::UrlPath(matcher) => matcher.matches(input.request.path.as_bytes()),
        Permission::UriTemplate(template) => template.0.is_match(input.request.path.as_bytes()),
        Permission::DestinationIp(network) => contains(network, local.ip()),
        Permission::DestinationPort(port) => local.port() == Some(*port),
        Permission::DestinationPortRange(start, end) => {
            local.port().is_some_and(|port| (*start..*end).contains(&port))
        }
        Permission::RequestedServerName(matcher) => {
            let name = input.connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
            matcher.matches(name.unwrap_or_default().as_bytes())
        }
        Permission::Metadata(source, matcher) => input.has(*source, matcher),
    }
}

/// A Unix domain socket is in no network, and has no port.
fn contains(network: &ipnet::IpNet, address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| network.contains(&address.to_canonical()))
}

fn is(principal: &Principal, input: &Input<'_>, any_value: bool) -> bool {
    match principal {
        Principal::Any => true,
        Principal::And(all) => all.iter().all(|one| is(one, input, any_value)),
        Principal::Or(any) => any.iter().any(|one| is(one, input, any_value)),
        Principal::Not(not) => !is(not, input, !any_value),
        Principal::Authenticated(matcher) => is_authenticated(matcher.as_ref(), input),
        Principal::Certificate(field, matcher) => {
            let identity = input.connection.tls.as_ref().and_then(|tls| tls.identity.as_ref());
            identity.is_some_and(|identity| identity.has(*field, matcher))
        }
        Principal::DirectRemoteIp(network) => contains(network, input.connection.direct_peer.ip()),
        Principal::SourceIp(network) => contains(network, input.connection.peer.ip()),
        Principal::RemoteIp(network) => contains(network, input.client),
        Principal::Header(matcher) if any_value => matcher.matches_any_value(&input.request),
        Principal::Header(matcher) => matcher.matches(&input.request),
        Principal::UrlPath(matcher) => matcher.matches(input.request.path.as_bytes()),
        Principal::Metadata(source, matcher) => input.has(*source, matcher),
        Principal::FilterState(matcher) => matcher.matches(filter_state_of(input.request.state)),
    }
}

/// Without a name, any TLS connection will do, as in Envoy. The names of a certificate count only if its chain was verified.
fn is_authenticated(matcher: Option<&StringMatcher>, input: &Input<'_>) -> bool {
    let Some(tls) = &input.connection.tls else { return false };
    let Some(matcher) = matcher else { return true };
    let identity = tls.identity.as_ref().filter(|identity| identity.verified);
    let Some(identity) = identity else { return false };
    let matches = |names: &[Box<str>]| names.iter().any(|name| matcher.matches(name.as_bytes()));
    // As in Envoy: URI SANs if there are any, else DNS SANs, else the subject.
    if !identity.uri_sans.is_empty() {
        matches(&identity.uri_sans)
    } else if !identity.dns_sans.is_empty() {
        matches(&identity.dns_sans)
    } else {
        matcher.matches(identity.subject.as_bytes())
    }
}
