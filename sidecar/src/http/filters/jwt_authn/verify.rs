//! Whether a request has the tokens that it needs, and what becomes of those that are right.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use serde_json::{Map, Value, json};

use super::locations::Found;
use super::{Filter, Keys};
use crate::config::jwt_authn::{JwtProvider, JwtRequirement};
use crate::http::filters::Passage;
use crate::jwt::{Status, Token};

/// Namespace of what is noted.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// One request on its way through the filter.
pub(super) struct Verification<'f, 'p, 'a> {
    filter: &'f Filter,
    passage: &'p mut Passage<'a>,
    noted: Map<String, Value>,
}

type Checked<'c> = Pin<Box<dyn Future<Output = Result<(), Status>> + 'c>>;

impl<'f, 'p, 'a> Verification<'f, 'p, 'a> {
    pub(super) fn new(filter: &'f Filter, passage: &'p mut Passage<'a>) -> Self {
        Self { filter, passage, noted: Map::new() }
    }

    /// Notes in the metadata what was found out.
    pub(super) fn finish(self) {
        if !self.noted.is_empty() {
            self.passage.exchange.state().metadata.put(NAMESPACE, self.noted);
        }
    }

    /// Whether the request has what it needs. Boxed: requirements stand in each other.
    pub(super) fn check<'c>(&'c mut self, requirement: &'c JwtRequirement) -> Checked<'c> {
        Box::pin(async move {
            match requirement {
                JwtRequirement::Nothing => Ok(()),
                JwtRequirement::Provider(place, audiences) => {
                    self.provider(*place, audiences.as_deref()).await
                }
                JwtRequirement::All(of) => {
                    for requirement in of {
                        self.check(requirement).await?;
                    }
                    Ok(())
                }
                JwtRequirement::Any { of, allow_missing, allow_missing_or_failed } => {
                    let mut failure = Status::Missing;
                    for requirement in of {
                        let Err(status) = self.check(requirement).await else { return Ok(()) };
                        // What is wrong with a token says more than that there is none for somebody else.
                        let says_little = matches!(status, Status::Missing | Status::UnknownIssuer);
                        if !says_little || failure == Status::Missing {
                            failure = status;
                        }
                    }
                    let is_fine =
                        *allow_missing_or_failed || *allow_missing && failure == Status::Missing;
                    if is_fine { Ok(()) } else { Err(failure) }
                }
                JwtRequirement::AllowMissing => self.every(false).await,
                JwtRequirement::AllowMissingOrFailed => self.every(true).await,
            }
        })
    }

    /// Tokens of one provider: there has to be one, and none that is wrong. A second one must not hide behind the first.
    async fn provider(
        &mut self,
        place: usize,
        audiences: Option<&[Box<str>]>,
    ) -> Result<(), Status> {
        let filter = self.filter;
        let (Some(provider), Some(config)) =
            (filter.providers.get(place), filter.config.providers.get(place))
        else {
            return Err(Status::UnknownIssuer);
        };
        let found = provider.locations.find(self.passage.request);
        let mut result = if found.is_empty() { Err(Status::Missing) } else { Ok(()) };
        for found in found.iter().rev() {
            result = self.token(found, Some(place), audiences).await;
            if result.is_err() {
                break;
            }
        }
        if let (Err(status), Some(key)) = (result, &config.failed_status_in_metadata) {
            let failed = json!({"code": status.number(), "message": status.text()});
            self.noted.insert(key.to_string(), failed);
        }
        result
    }

    /// Tokens of any provider: there need not be one.
    async fn every(&mut self, allow_failed: bool) -> Result<(), Status> {
        let filter = self.filter;
        let found = filter.locations.find(self.passage.request);
        for found in found.iter().rev() {
            let result = self.token(found, None, None).await;
            if !allow_failed {
                result?;
            }
        }
        Ok(())
    }

    /// One token: of the provider at `place`, or of the first whose issuer it names.
    async fn token(
        &mut self,
        found: &Found<'_>,
        place: Option<usize>,
        audiences: Option<&[Box<str>]>,
    ) -> Result<(), Status> {
        let filter = self.filter;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let worker = self.passage.connection.local.index;
        let cache_of = |place: usize| filter.providers.get(place)?.caches.get(worker);
        let mut known = None;
        if let Some(place) = place {
            known = cache_of(place).and_then(|cache| cache.get(&found.text, now));
            let stats = filter.stats.local();
            match known {
                Some(_) => stats.jwt_cache_hit.inc(),
                None => stats.jwt_cache_miss.inc(),
            }
        }
        let is_known = known.is_some();
        let token = match known {
            Some(token) => token,
            None => Arc::new(Token::parse(&found.text)?),
        };
        if !found.issuers.allow(&token.issuer) {
            return Err(Status::UnknownIssuer);
        }
        let by_issuer = |issuer: &str| {
            filter.config.providers.iter().position(|provider| *provider.issuer == *issuer)
        };
        let chosen = place.or_else(|| by_issuer(&token.issuer)).or_else(|| by_issuer(""));
        let place = chosen.ok_or(Status::UnknownIssuer)?;
        let (Some(provider), Some(config)) =
            (filter.providers.get(place), filter.config.providers.get(place))
        else {
            return Err(Status::UnknownIssuer);
        };
        token.check_time(now, config.clock_skew)?;
        check_claims(&token, config, audiences, now)?;
        if !is_known {
            verify(&token, &provider.keys).await?;
            if chosen.is_some()
                && let Some(cache) = cache_of(place)
            {
                cache.put(&found.text, &token);
            }
        }
        self.use_token(&token, config, found);
        Ok(())
    }

    /// Hands on what a token says.
    fn use_token(&mut self, token: &Token, provider: &JwtProvider, found: &Found<'_>) {
        let request = &mut *self.passage.request;
        let mut added = false;
        if let Some(name) = &provider.forward_payload_header {
            let mut payload = token.encoded_payload.to_string();
            while provider.pad_payload && !payload.len().is_multiple_of(4) {
                payload.push('=');
            }
            if let Ok(payload) = HeaderValue::from_str(&payload) {
                request.headers.append(name, payload);
            }
        }
        for (name, path) in &provider.claim_to_headers {
            let claim = path.iter().try_fold(None, |value: Option<&Value>, key| {
                let object = match value {
                    None => &token.payload,
                    Some(value) => value.as_object()?,
                };
                object.get(&**key).map(Some)
            });
            let text = claim.flatten().map(text_of).filter(|text| !text.is_empty());
            // A claim that no header can hold is left out.
            if let Some(text) = text.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok())
            {
                request.headers.append(name, text);
                added = true;
            }
        }
        if !provider.forward {
            found.remove(request);
        }
        if let Some(key) = &provider.header_in_metadata {
            self.noted.insert(key.to_string(), token.header.clone().into());
        }
        if let Some(key) = &provider.payload_in_metadata {
            let mut payload = token.payload.clone();
            for claim in &provider.space_delimited_claims {
                if let Some(value) = payload.get_mut(&**claim)
                    && let Some(text) = value.as_str()
                {
                    *value = text.split(' ').filter(|word| !word.is_empty()).collect();
                }
            }
            self.noted.insert(key.to_string(), payload.into());
            added = true;
        }
        self.passage.rematch |= provider.clear_route_cache && added;
    }
}

fn check_claims(
    token: &Token,
    provider: &JwtProvider,
    audiences: Option<&[Box<str>]>,
    now: u64,
) -> Result<(), Status> {
    let allowed = audiences.unwrap_or(&provider.audiences);
    let is_allowed = |audience: &String| {
        allowed.iter().any(|allowed| **allowed == *JwtProvider::comparable(audience))
    };
    if !allowed.is_empty() && !token.audiences.iter().any(is_allowed) {
        return Err(Status::AudienceNotAllowed);
    }
    let subjects = provider.subjects.as_ref();
    if subjects.is_some_and(|subjects| !subjects.matches(token.subject.as_bytes())) {
        return Err(Status::VerificationFails);
    }
    let Some(max_lifetime) = provider.max_lifetime else { return Ok(()) };
    let is_short = max_lifetime
        .is_none_or(|most| u128::from(token.expires.saturating_sub(now)) * 1000 < most.as_millis());
    if token.expires == 0 || !is_short {
        return Err(Status::VerificationFails);
    }
    Ok(())
}

async fn verify(token: &Token, keys: &Keys) -> Result<(), Status> {
    let remote = match keys {
        Keys::Local(jwks) => return jwks.verify(token),
        Keys::Remote(remote) => remote,
    };
    if remote.current().is_none() {
        remote.fetch().await?;
    }
    let current = remote.current();
    match current.as_ref().and_then(|current| current.as_ref()) {
        Some(fetched) => fetched.jwks.verify(token),
        None => Err(Status::FetchFailed),
    }
}

/// A claim as the text of a header: numbers without a fraction where they have none, lists and objects as JSON in Base64.
fn text_of(claim: &Value) -> String {
    match claim {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(number)) if number >= 0.0 && number.fract() == 0.0 => {
                format!("{number:.0}")
            }
            (None, Some(number)) => format!("{number:.6}"),
            (None, None) => String::new(),
        },
        Value::Array(_) | Value::Object(_) => STANDARD.encode(claim.to_string()),
    }
}
