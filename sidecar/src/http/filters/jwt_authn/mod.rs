//! JSON Web Tokens, `envoy.filters.http.jwt_authn`: requests need the tokens that rules ask for.
//!
//! [`Filter::run`] finds out what a request needs; [`verify`] looks for tokens ([`locations`]), judges them with keys that
//! stand in the configuration or are fetched ([`remote`]), and remembers those that were right ([`cache`]).

mod cache;
mod locations;
mod remote;
mod verify;

use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use super::Passage;
use crate::config::jwt_authn::{JwtAuthn, JwtKeys, JwtPerRoute, JwtRequirement};
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::router::Refusal;
use crate::http::stream_state::filter_state_of;
use crate::jwt::{Jwks, Status};
use crate::local::Local;
use crate::stats::{JwtCells, Registry, Scope, Sharded};

use cache::Cache;
use locations::Locations;
use remote::RemoteKeys;
use verify::Verification;

/// Longest path in `www-authenticate`.
const MAX_PATH: usize = 256;

/// The filter of one connection manager.
pub(super) struct Filter {
    config: Arc<JwtAuthn>,
    stats: Arc<Sharded<JwtCells>>,
    /// By the place of the provider.
    providers: Box<[Provider]>,
    /// Of all providers together.
    locations: Locations,
    /// Headers that only this filter may write.
    reserved: Box<[HeaderName]>,
}

struct Provider {
    keys: Keys,
    locations: Locations,
    /// By the worker.
    caches: Box<[Cache]>,
}

enum Keys {
    Local(Arc<Jwks>),
    Remote(Arc<RemoteKeys>),
}

impl Filter {
    pub(super) fn new(
        config: &Arc<JwtAuthn>,
        registry: &Arc<Registry>,
        prefix: &Arc<str>,
        local: &Rc<Local>,
    ) -> Self {
        let scope =
            Scope::HttpFilter("jwt_authn", Arc::clone(prefix), Arc::clone(&config.stat_prefix));
        let stats: Arc<Sharded<JwtCells>> = registry.scope(scope);
        let providers = config.providers.iter().map(|provider| Provider {
            keys: match &provider.keys {
                JwtKeys::Local(jwks) => Keys::Local(Arc::clone(jwks)),
                JwtKeys::Remote(remote) => Keys::Remote(RemoteKeys::start(remote, &stats, local)),
            },
            locations: Locations::of([provider]),
            caches: match provider.cache {
                None => Box::default(),
                Some((size, length)) => {
                    (0..registry.shards()).map(|_| Cache::new(size, length)).collect()
                }
            },
        });
        let mut reserved: Vec<HeaderName> = Vec::new();
        for provider in &config.providers {
            reserved.extend(provider.forward_payload_header.clone());
            reserved.extend(provider.claim_to_headers.iter().map(|(name, _)| name.clone()));
        }
        Self {
            providers: providers.collect(),
            locations: Locations::of(&config.providers),
            reserved: reserved.into(),
            config: Arc::clone(config),
            stats,
        }
    }

    /// Lets the request pass, or refuses it.
    pub(super) async fn run(
        &self,
        per_route: Option<&JwtPerRoute>,
        passage: &mut Passage<'_>,
    ) -> Result<(), Refusal> {
        // Whoever reads them believes that they come from here.
        self.reserved.iter().for_each(|name| drop(passage.request.headers.remove(name)));
        let stats = self.stats.local();
        if self.config.bypass_cors_preflight && is_preflight(passage) {
            stats.cors_preflight_bypassed.inc();
            stats.allowed.inc();
            return Ok(());
        }
        let requirement = match per_route {
            None => self.requirement(passage),
            Some(JwtPerRoute::Disabled) => None,
            Some(JwtPerRoute::Named(name)) => {
                let found = self.config.named.iter().find(|(other, _)| other == name);
                let Some((_, requirement)) = found else {
                    stats.denied.inc();
                    return Err(self.unknown(name));
                };
                Some(requirement)
            }
        };
        let Some(requirement) = requirement else {
            stats.allowed.inc();
            return Ok(());
        };
        let realm = realm(passage);
        let mut verification = Verification::new(self, passage);
        let result = verification.check(requirement).await;
        verification.finish();
        match result {
            Ok(()) => {
                self.stats.local().allowed.inc();
                Ok(())
            }
            Err(status) => {
                self.stats.local().denied.inc();
                Err(self.denied(status, &realm))
            }
        }
    }

    fn requirement(&self, passage: &Passage<'_>) -> Option<&JwtRequirement> {
        let view = passage.view();
        if let Some(rule) = self.config.rules.iter().find(|rule| rule.matches.matches(&view)) {
            return rule.requirement.as_ref();
        }
        let (key, requirements) = self.config.filter_state.as_ref()?;
        let value = filter_state_of(passage.exchange.state.as_deref())?.get(key)?;
        requirements.iter().find(|(other, _)| **other == *value).map(|(_, it)| it)
    }

    fn denied(&self, status: Status, realm: &str) -> Refusal {
        let code = match status {
            Status::AudienceNotAllowed => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        let body = if self.config.strip_failure_response { "" } else { status.text() };
        let mut reply = LocalReply::new(code, body, details(status.text()));
        if !self.config.strip_failure_response {
            let error = if status == Status::Missing { "" } else { ", error=\"invalid_token\"" };
            let challenge = format!("Bearer realm=\"{realm}\"{error}");
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                reply.headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
        }
        reply.because(Reason::JwtDenied).into()
    }

    fn unknown(&self, name: &str) -> Refusal {
        let known: Vec<&str> = self.config.named.iter().map(|(name, _)| &**name).collect();
        let wrong =
            format!("Wrong requirement_name: {name}. It should be one of [{}]", known.join(","));
        let body = if self.config.strip_failure_response {
            String::new()
        } else {
            format!("Failed JWT authentication: {wrong}")
        };
        let reply = LocalReply::new(StatusCode::FORBIDDEN, body, details(&wrong));
        reply.because(Reason::JwtDenied).into()
    }
}

/// Envoy keeps spaces out of its details.
fn details(text: &str) -> String {
    format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"))
}

fn is_preflight(passage: &Passage<'_>) -> bool {
    let has =
        |name: HeaderName| passage.request.headers.get(name).is_some_and(|value| !value.is_empty());
    passage.request.method == Method::OPTIONS
        && has(header::ORIGIN)
        && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The URL of the request as it came.
fn realm(passage: &Passage<'_>) -> String {
    let view = passage.view();
    let path = passage.request.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let end = (0..=MAX_PATH.min(path.len())).rev().find(|at| path.is_char_boundary(*at));
    let path = path.get(..end.unwrap_or(0)).unwrap_or_default();
    format!("{}://{}{path}", view.scheme, view.authority)
}
