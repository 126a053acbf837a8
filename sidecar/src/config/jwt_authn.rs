//! JSON Web Tokens of requests: `envoy.filters.http.jwt_authn`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::matcher::StringMatcher;
use super::route::RouteMatch;
use crate::jwt::Jwks;

/// A validated `JwtAuthentication`.
#[derive(Debug, Clone)]
pub struct JwtAuthn {
    /// Sorted by name. Requirements name them by their place.
    pub providers: Box<[JwtProvider]>,
    /// The first that matches a request says what it needs.
    pub rules: Box<[JwtRule]>,
    /// Requirements by the name under which routes ask for them; sorted.
    pub named: NamedRequirements,
    /// For requests that no rule takes: a key of the filter state, and requirements by its value.
    pub filter_state: Option<(Box<str>, NamedRequirements)>,
    /// Preflights need no token.
    pub bypass_cors_preflight: bool,
    /// Answers do not say what is wrong.
    pub strip_failure_response: bool,
    /// Stands in the names of statistics, or is empty.
    pub stat_prefix: Arc<str>,
}

/// Requirements by name.
pub type NamedRequirements = Box<[(Box<str>, JwtRequirement)]>;

/// Where a claim stands: keys, from outside in.
pub type ClaimPath = Box<[Box<str>]>;

/// One entry of `rules`.
#[derive(Debug, Clone)]
pub struct JwtRule {
    /// Which requests it takes.
    pub matches: RouteMatch,
    /// What they need; `None`: nothing.
    pub requirement: Option<JwtRequirement>,
}

/// What a request needs.
#[derive(Debug, Clone)]
pub enum JwtRequirement {
    /// Nothing.
    Nothing,
    /// A token of this provider, for one of these audiences (`None`: for those that the provider names).
    Provider(usize, Option<Box<[Box<str>]>>),
    /// One of these.
    Any {
        /// Which.
        of: Box<[JwtRequirement]>,
        /// Or no token at all.
        allow_missing: bool,
        /// Or anything.
        allow_missing_or_failed: bool,
    },
    /// All of these.
    All(Box<[JwtRequirement]>),
    /// Every token has to be right, of whichever provider; there need not be one.
    AllowMissing,
    /// Tokens that are right are used; nothing is refused.
    AllowMissingOrFailed,
}

/// A validated `JwtProvider`.
#[derive(Debug, Clone)]
pub struct JwtProvider {
    /// Its name.
    pub name: Box<str>,
    /// `iss` of its tokens; empty: any.
    pub issuer: Box<str>,
    /// `aud` of its tokens: one of these; empty: any.
    pub audiences: Box<[Box<str>]>,
    /// `sub` of its tokens.
    pub subjects: Option<StringMatcher>,
    /// Tokens must expire: within so long, or at all.
    pub max_lifetime: Option<Option<Duration>>,
    /// The keys.
    pub keys: JwtKeys,
    /// Where tokens are looked for.
    pub locations: JwtLocations,
    /// The endpoint gets the token.
    pub forward: bool,
    /// The endpoint gets the claims in this header, encoded.
    pub forward_payload_header: Option<HeaderName>,
    /// With padding.
    pub pad_payload: bool,
    /// The claims are noted in the metadata under this key.
    pub payload_in_metadata: Option<Box<str>>,
    /// Claims that are noted as lists of their words.
    pub space_delimited_claims: Box<[Box<str>]>,
    /// The token's header is noted in the metadata under this key.
    pub header_in_metadata: Option<Box<str>>,
    /// What is wrong with a token is noted in the metadata under this key.
    pub failed_status_in_metadata: Option<Box<str>>,
    /// How far clocks may differ, in seconds. Default 60.
    pub clock_skew: u64,
    /// How many tokens that were right are remembered, by each worker, and how long they may be; `None`: none.
    pub cache: Option<(usize, usize)>,
    /// Headers that get the value of a claim.
    pub claim_to_headers: Box<[(HeaderName, ClaimPath)]>,
    /// Look for the route again when something was added.
    pub clear_route_cache: bool,
}

/// Where the keys of a provider come from.
#[derive(Debug, Clone)]
pub enum JwtKeys {
    /// They stand in the configuration.
    Local(Arc<Jwks>),
    /// They are fetched.
    Remote(Arc<RemoteJwks>),
}

/// A validated `RemoteJwks`.
#[derive(Debug, Clone)]
pub struct RemoteJwks {
    /// What is asked for.
    pub uri: Uri,
    /// `Host` of the request.
    pub host: HeaderValue,
    /// Whom.
    pub cluster: Arc<str>,
    /// For one attempt.
    pub timeout: Duration,
    /// How long an answer is good for. Default 10 minutes.
    pub cache_duration: Duration,
    /// Fetched before they are needed, and again before they grow old; after a failure again after so long (default 1 s).
    pub async_fetch: Option<Duration>,
    /// Attempts after the first, and the back-off between them: base and maximum.
    pub retries: Option<(u32, Duration, Duration)>,
}

/// Where tokens are looked for, in this order.
#[derive(Debug, Clone, Default)]
pub struct JwtLocations {
    /// Headers, and what stands before the token in them.
    pub headers: Vec<(HeaderName, Box<str>)>,
    /// Query parameters.
    pub parameters: Vec<Box<str>>,
    /// Cookies.
    pub cookies: Vec<Box<str>>,
}

/// What a route says about the filter.
#[derive(Debug, Clone)]
pub enum JwtPerRoute {
    /// Nothing is needed here.
    Disabled,
    /// What stands under this name in the filter's `requirement_map`.
    Named(Box<str>),
}

impl JwtProvider {
    /// An audience as it is compared: without its scheme, and without a slash at the end, as in Envoy.
    pub(crate) fn comparable(audience: &str) -> &str {
        let rest = audience
            .strip_prefix("https://")
            .or_else(|| audience.strip_prefix("http://"))
            .unwrap_or(audience);
        rest.strip_suffix('/').unwrap_or(rest)
    }
}
