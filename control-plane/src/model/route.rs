//! Kind `Route`: where requests go. Fields are those of the Kubernetes Gateway API's HTTPRoute.

use super::duration;
use super::object::Labels;
use super::service::Retry;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// Where requests for some hosts go.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// A DNS label.
    #[serde(skip)]
    pub name: String,
    /// Labels of the object.
    #[serde(skip)]
    pub labels: Labels,
    /// The Gateway whose requests it routes. Absent: requests inside the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Host names without port: exact, `*.suffix`, or (at a gateway) `*`. At least one.
    pub hosts: Vec<String>,
    /// The first that matches decides. At least one.
    pub rules: Vec<Rule>,
}

/// One rule of a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Any of them matches; none: every request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// What is changed on the way; each type once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where to; at least one, and one weight above zero, unless a filter redirects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    /// Time limits; what is absent has the value of the backend's service.
    #[serde(skip_serializing_if = "RouteTimeouts::is_empty")]
    pub timeouts: RouteTimeouts,
    /// Retries; what is absent has the value of the backend's service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

impl Rule {
    /// The redirect, if the rule answers with one.
    pub fn redirect(&self) -> Option<&RequestRedirect> {
        self.filters.iter().find_map(|filter| match filter {
            Filter::RequestRedirect(redirect) => Some(redirect),
            _ => None,
        })
    }
}

/// What a request must have; all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// The path. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// The method, in upper case. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers; names are unique.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    /// Query parameters; names are unique.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<ValueMatch>,
}

/// What a path must be. Every value but a regular expression begins with `/`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "value")]
pub enum PathMatch {
    /// This, whole.
    Exact(String),
    /// It begins with this, element by element: `/v1` matches `/v1` and `/v1/x`, not `/v1x`. Without a `/` at its end,
    /// unless it is `/`.
    PathPrefix(String),
    /// It matches this regular expression, whole.
    RegularExpression(String),
}

/// A named value (a header, a query parameter) that must be there.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueMatch {
    /// Name; of a header, in lower case.
    pub name: String,
    /// What its value must be.
    pub value: StringMatch,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum StringMatch {
    /// This.
    Exact(String),
    /// It matches this regular expression, whole.
    RegularExpression(String),
}

impl Serialize for ValueMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, value) = match &self.value {
            StringMatch::Exact(value) => ("Exact", value),
            StringMatch::RegularExpression(value) => ("RegularExpression", value),
        };
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("type", kind)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("value", value)?;
        map.end()
    }
}

/// What is changed on the way.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Headers of the request.
    RequestHeaderModifier(HeaderModifier),
    /// Headers of the response.
    ResponseHeaderModifier(HeaderModifier),
    /// The request is answered with a redirect.
    RequestRedirect(RequestRedirect),
    /// Host and path of the request. (The name is the Gateway API's: `URLRewrite`.)
    UrlRewrite(UrlRewrite),
    /// Some requests are held back or refused, to see what happens then.
    FaultInjection(FaultInjection),
}

impl Filter {
    /// The value of its `type`.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::RequestHeaderModifier(_) => "RequestHeaderModifier",
            Self::ResponseHeaderModifier(_) => "ResponseHeaderModifier",
            Self::RequestRedirect(_) => "RequestRedirect",
            Self::UrlRewrite(_) => "URLRewrite",
            Self::FaultInjection(_) => "FaultInjection",
        }
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", self.type_name())?;
        match self {
            Self::RequestHeaderModifier(it) => map.serialize_entry("requestHeaderModifier", it)?,
            Self::ResponseHeaderModifier(it) => {
                map.serialize_entry("responseHeaderModifier", it)?
            }
            Self::RequestRedirect(it) => map.serialize_entry("requestRedirect", it)?,
            Self::UrlRewrite(it) => map.serialize_entry("urlRewrite", it)?,
            Self::FaultInjection(it) => map.serialize_entry("faultInjection", it)?,
        }
        map.end()
    }
}

/// Faults on purpose. Not empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultInjection {
    /// Requests that are held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Requests that are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// Requests that are held back.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// For so long, more than zero.
    #[serde(serialize_with = "duration::serialize")]
    pub duration: Duration,
    /// Such a share of them, 0 to 100; 100 when absent.
    pub percent: u8,
}

/// Requests that are refused.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// With this status, 200 to 599.
    pub http_status: u16,
    /// Such a share of them, 0 to 100; 100 when absent.
    pub percent: u8,
}

/// Changes of headers. Not empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderModifier {
    /// Replaced, or added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HeaderValue>,
    /// Added to what is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HeaderValue>,
    /// Names that are removed, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderValue {
    /// In lower case.
    pub name: String,
    /// Visible ASCII, spaces and tabs; never interpreted.
    pub value: String,
}

/// A redirect. What is absent stays as it was in the request. Not empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// A host name without port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// 1 to 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// 301, 302 (when absent), 303, 307 or 308.
    pub status_code: u16,
}

/// A rewrite of host or path. Not empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UrlRewrite {
    /// The host, as the backend sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The path, as the backend sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// A new path. In a [`UrlRewrite`], `ReplaceFullPath` needs that each match of the rule is an exact path; anywhere,
/// `ReplacePrefixMatch` needs that each is a prefix.
#[derive(Debug, Clone, PartialEq)]
pub enum PathModifier {
    /// The whole path (not the query).
    ReplaceFullPath(String),
    /// The prefix that matched.
    ReplacePrefixMatch(String),
}

impl Serialize for PathModifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, key, value) = match self {
            Self::ReplaceFullPath(value) => ("ReplaceFullPath", "replaceFullPath", value),
            Self::ReplacePrefixMatch(value) => ("ReplacePrefixMatch", "replacePrefixMatch", value),
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", kind)?;
        map.serialize_entry(key, value)?;
        map.end()
    }
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// A Service.
    pub name: String,
    /// A port of it that carries HTTP. Absent: the port that was asked for if the service has it, else its first HTTP port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// A subset of it. Absent: all instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Its share is its weight over the sum of all, 0 to 1,000,000; 1 when absent.
    pub weight: u32,
}

/// Time limits of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTimeouts {
    /// From the end of the request to the end of the response; zero: no limit.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "duration::serialize_optional"
    )]
    pub request: Option<Duration>,
}

impl RouteTimeouts {
    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
