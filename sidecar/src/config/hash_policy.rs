//! What of a request is hashed, for load balancers that choose by a hash.

use regex::bytes::Regex;

use super::matcher::MatchedHeader;

/// One entry of `RouteAction.hash_policy`, validated. Those that can give no hash are left out of the list.
#[derive(Debug, Clone)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// If there is a hash by now, the rest of the list does not count.
    pub terminal: bool,
}

/// What of a request is hashed.
#[derive(Debug, Clone)]
pub enum HashSource {
    /// The values of a header, in sorted order.
    Header {
        /// Which.
        name: MatchedHeader,
        /// What is replaced in each value before, and by what.
        rewrite: Option<(Regex, Box<str>)>,
    },
    /// The value of a cookie.
    Cookie(HashCookie),
    /// The address of the client, without its port.
    SourceIp,
    /// The first query parameter of this name.
    QueryParameter(Box<str>),
    /// What a filter noted under this key, if that may be hashed.
    FilterState(Box<str>),
}

/// A cookie that keeps a client at an endpoint.
#[derive(Debug, Clone)]
pub struct HashCookie {
    /// Its name.
    pub name: Box<str>,
    /// What follows its value in `Set-Cookie`; `None`: a client without the cookie is not given one. The text makes a
    /// valid header value.
    pub attributes: Option<Box<str>>,
}
