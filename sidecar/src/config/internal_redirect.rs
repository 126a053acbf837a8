//! Redirects that are followed here, instead of being sent to the client.

use std::sync::Arc;

use http::{HeaderName, StatusCode};

/// A validated `InternalRedirectPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirect {
    /// Most redirects that one request may have followed before this one is. Default 1.
    pub max: u32,
    /// Statuses that are followed. Default 302.
    pub statuses: Vec<StatusCode>,
    /// What else must hold of the route that a redirect leads to.
    pub predicates: Vec<RedirectPredicate>,
    /// From http to https and back, too.
    pub allow_cross_scheme: bool,
    /// Headers that the redirected request takes from the response.
    pub headers_to_copy: Vec<HeaderName>,
}

/// A condition on the route that a redirect leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// It is one of these, by name.
    AllowListedRoutes(Vec<Arc<str>>),
    /// The request has not been led there from this route before.
    PreviousRoutes,
    /// It is not left from http for https.
    SafeCrossScheme,
}
