//! Role-based access control.

use std::sync::Arc;

use ipnet::IpNet;

use super::matcher::{HeaderMatcher, PathMatcher, StringMatcher};
use super::metadata::{FilterStateMatcher, MetadataMatcher};
use super::uri_template::UriTemplate;

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

/// Policies, and what holds where none of them matches.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether it is noted for access logs if a policy that logs has matched.
    pub logs: bool,
    /// In the order in which they are walked, for `rules` that of their names; the first that matches decides.
    pub policies: Vec<Policy>,
    /// Where none does.
    pub otherwise: Otherwise,
}

/// What holds where no policy matches.
#[derive(Debug, Clone)]
pub struct Otherwise {
    /// As that of a policy.
    pub action: Action,
    /// Its name, which stands in the denial.
    pub name: Option<Arc<str>>,
}

impl Rules {
    /// What the first policy says of which this is true: whether to allow it, the name of what decided, and whether it
    /// is to be logged.
    pub fn decide(&self, matches: impl Fn(&Policy) -> bool) -> Decision<'_> {
        match self.policies.iter().find(|policy| matches(policy)) {
            Some(policy) => Decision {
                allowed: policy.action != Action::Deny,
                policy: Some(&policy.name),
                logged: policy.action == Action::Log,
            },
            None => Decision {
                allowed: self.otherwise.action != Action::Deny,
                policy: self.otherwise.name.as_deref(),
                logged: self.otherwise.action == Action::Log,
            },
        }
    }
}

/// What rules say of a request or a connection.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'r> {
    /// Whether it may pass.
    pub allowed: bool,
    /// What decided so.
    pub policy: Option<&'r str>,
    /// A policy that logs has matched.
    pub logged: bool,
}

/// What the match of a policy means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Do not.
    Deny,
    /// Let it pass, and note it for access logs.
    Log,
}

/// One policy: any of its permissions and any of its principals.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name, which stands in the denial.
    pub name: Arc<str>,
    /// What a match means.
    pub action: Action,
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
    UriTemplate(UriTemplate),
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
    /// The peer has a certificate, verified or not, of which this matches.
    Certificate(CertificateField, StringMatcher),
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

/// What of a certificate is matched, as Envoy's inputs of matchers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateField {
    /// All of them, with commas between.
    UriSans,
    /// All of them, with commas between.
    DnsSans,
    /// The subject.
    Subject,
}
