//! HTTP/1 settings, of either side.

use http::HeaderValue;

use super::matcher::StringMatcher;

/// HTTP/1 settings towards clients.
#[derive(Debug, Clone, Default)]
pub struct DownstreamHttp1 {
    /// Accept HTTP/1.0 requests. Default false: they get 426.
    pub accept_http_10: bool,
    /// `Host` of an HTTP/1.0 request that has none; `None`: the address that it came to.
    pub default_host: Option<HeaderValue>,
    /// Names of headers are written `Like-This`, word by dash. Default `like-this`.
    pub proper_case: bool,
    /// A request with a length and a coding is taken by the coding. Default false: it is refused.
    pub allow_chunked_length: bool,
    /// Any token is a method. Default false: only those of [`METHODS`].
    pub allow_custom_methods: bool,
    /// Protocols in `Upgrade` that are passed over, as if the client had not asked for them.
    pub ignored_upgrades: Vec<StringMatcher>,
}

/// HTTP/1 settings towards endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamHttp1 {
    /// Names of headers are written `Like-This`, word by dash. Default `like-this`.
    pub proper_case: bool,
    /// The target of a request is a whole URL.
    pub fully_qualified: bool,
}

/// The methods that Envoy knows.
pub const METHODS: [&str; 34] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];
