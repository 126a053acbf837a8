//! Role-based access control.

use std::sync::Arc;

use ipnet::IpNet;

use super::matcher::{HeaderMatcher, PathMatcher, StringMatcher};
use super::metadata::{FilterStateMatcher, MetadataMatcher};

/// A validated `envoy.extensions.filters.http.rbac.v3.RBAC`.
#[derive(Debug, Clone)]
pub struct Rbac {
    /// `None`: the filter enforces nothing.
    pub rules: Option<Rules>,
    /// Rules that are only counted and logged.
    pub shadow_rules: Option<Rules>,
    /// Goes before the keys under which the decision of the rules is noted in the metadata.
    pub rules_prefix: Arc<str>,
    /// The same for the rules that are only counted.
    pub shadow_prefix: Arc<str>,
}

/// A list of policies with their action.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a match means.
    pub action: Action,
    /// Policies sorted by name, as Envoy walks them; the first that matches decides.
    pub policies: Vec<Policy>,
}

/// Envoy's `RBAC.Action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Only what some policy matches is allowed.
    Allow,
    /// What some policy matches is denied.
    Deny,
    /// Nothing is denied.
    Log,
}

/// One policy: any of its permissions and any of its principals.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name, which stands in the denial.
    pub name: Arc<str>,
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// What is done.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // named as in the proto
pub enum Permission {
    Any,
    And(Vec<Permission>),
    Or(Vec<Permission>),
    Not(Box<Permission>),
    Header(HeaderMatcher),
    UrlPath(PathMatcher),
    DestinationIp(IpNet),
    DestinationPort(u16),
    /// `[start, end)`
    DestinationPortRange(u16, u16),
    RequestedServerName(StringMatcher),
    Metadata(MetadataSource, MetadataMatcher),
}

/// Envoy's `MetadataSource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataSource {
    /// What filters noted of the request.
    Dynamic,
    /// What stands in the route.
    Route,
}

/// Who does it.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // named as in the proto
pub enum Principal {
    Any,
    And(Vec<Principal>),
    Or(Vec<Principal>),
    Not(Box<Principal>),
    /// The connection is encrypted; with a matcher: the peer has a verified certificate, of which one of the URI SANs, else
    /// DNS SANs, else the subject, matches.
    Authenticated(Option<StringMatcher>),
    /// The peer of the connection itself.
    DirectRemoteIp(IpNet),
    /// The peer, or whom the PROXY protocol names.
    SourceIp(IpNet),
    RemoteIp(IpNet),
    Header(HeaderMatcher),
    UrlPath(PathMatcher),
    Metadata(MetadataSource, MetadataMatcher),
    FilterState(FilterStateMatcher),
}
