//! Where tokens stand in a request, and how they are taken out of it.

use std::borrow::Cow;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;

use crate::config::jwt_authn::JwtProvider;
use crate::http::query;

/// Places to look at, with the issuers whose tokens may stand there.
pub(super) struct Locations {
    headers: Vec<(HeaderName, Box<str>, Issuers)>,
    parameters: Vec<(Box<str>, Issuers)>,
    cookies: Vec<(Box<str>, Issuers)>,
}

/// `iss` of tokens; `any` where a provider does not say.
#[derive(Default)]
pub(super) struct Issuers {
    any: bool,
    named: Vec<Box<str>>,
}

impl Issuers {
    fn add(&mut self, issuer: &str) {
        if issuer.is_empty() {
            self.any = true;
        } else {
            self.named.push(issuer.into());
        }
    }

    pub(super) fn allow(&self, issuer: &str) -> bool {
        self.any || self.named.iter().any(|named| **named == *issuer)
    }
}

/// A token that was found.
pub(super) struct Found<'l> {
    pub(super) text: String,
    pub(super) issuers: &'l Issuers,
    place: Place<'l>,
}

enum Place<'l> {
    Header(&'l HeaderName),
    Parameter(&'l str),
    Cookie,
}

impl Locations {
    /// Of some providers together.
    pub(super) fn of<'p>(providers: impl IntoIterator<Item = &'p JwtProvider>) -> Self {
        let mut all = Self { headers: Vec::new(), parameters: Vec::new(), cookies: Vec::new() };
        for provider in providers {
            let locations = &provider.locations;
            for (name, prefix) in &locations.headers {
                let known = all.headers.iter_mut().find(|(n, p, _)| n == name && p == prefix);
                match known {
                    Some((_, _, issuers)) => issuers.add(&provider.issuer),
                    None => {
                        let mut issuers = Issuers::default();
                        issuers.add(&provider.issuer);
                        all.headers.push((name.clone(), prefix.clone(), issuers));
                    }
                }
            }
            add(&mut all.parameters, &locations.parameters, &provider.issuer);
            add(&mut all.cookies, &locations.cookies, &provider.issuer);
        }
        all
    }

    /// Every token of the request.
    pub(super) fn find(&self, request: &Parts) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for (name, prefix, issuers) in &self.headers {
            let mut lines: Vec<Cow<'_, [u8]>> =
                request.headers.get_all(name).iter().map(|line| line.as_bytes().into()).collect();
            // As in Envoy there is one of it: what stands in several lines is one value.
            if *name == AUTHORIZATION && lines.len() > 1 {
                lines = vec![lines.join(&b","[..]).into()];
            }
            for value in &lines {
                // What is no text is no token either: it is refused as one that is malformed.
                let value = String::from_utf8_lossy(value);
                let Some(at) = value.find(&**prefix) else { continue };
                let text = if prefix.is_empty() {
                    value.into_owned()
                } else {
                    let rest = value.get(at + prefix.len()..).unwrap_or_default();
                    let start = rest.find(|c: char| c.is_ascii_alphanumeric() || "-_.".contains(c));
                    start.and_then(|start| rest.get(start..)).unwrap_or(&value).to_owned()
                };
                found.push(Found { text, issuers, place: Place::Header(name) });
            }
        }
        for (name, issuers) in &self.parameters {
            let value = query::parameters(request.uri.query())
                .find(|(other, _)| query::decoded(other) == **name);
            if let Some((_, value)) = value {
                let text = query::decoded(value).into_owned();
                found.push(Found { text, issuers, place: Place::Parameter(name) });
            }
        }
        for (name, issuers) in &self.cookies {
            if let Some(text) = cookie(request, name) {
                found.push(Found { text, issuers, place: Place::Cookie });
            }
        }
        found
    }
}

fn add(to: &mut Vec<(Box<str>, Issuers)>, names: &[Box<str>], issuer: &str) {
    for name in names {
        match to.iter_mut().find(|(other, _)| other == name) {
            Some((_, issuers)) => issuers.add(issuer),
            None => {
                let mut issuers = Issuers::default();
                issuers.add(issuer);
                to.push((name.clone(), issuers));
            }
        }
    }
}

fn cookie(request: &Parts, name: &str) -> Option<String> {
    let lines = request.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(other, _)| *other == name)
        .map(|(_, value)| {
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            quoted.unwrap_or(value).to_owned()
        })
}

impl Found<'_> {
    /// Takes the token out of the request; one in a cookie stays, as in Envoy.
    pub(super) fn remove(&self, request: &mut Parts) {
        match self.place {
            Place::Header(name) => drop(request.headers.remove(name)),
            Place::Parameter(name) => {
                let kept: Vec<&str> = request
                    .uri
                    .query()
                    .into_iter()
                    .flat_map(|query| query.split('&'))
                    .filter(|pair| {
                        query::decoded(pair.split_once('=').map_or(pair, |(name, _)| name)) != name
                    })
                    .collect();
                query::replace(request, Cow::Owned(kept.join("&")));
            }
            Place::Cookie => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;
    use crate::config::jwt_authn::{JwtKeys, JwtLocations};
    use crate::jwt::Jwks;

    fn provider(issuer: &str, locations: JwtLocations) -> JwtProvider {
        let jwks = Jwks::parse(br#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#).unwrap();
        JwtProvider {
            name: "p".into(),
            issuer: issuer.into(),
            audiences: Box::default(),
            subjects: None,
            max_lifetime: None,
            keys: JwtKeys::Local(jwks.into()),
            locations,
            forward: false,
            forward_payload_header: None,
            pad_payload: false,
            payload_in_metadata: None,
            space_delimited_claims: Box::default(),
            header_in_metadata: None,
            failed_status_in_metadata: None,
            clock_skew: 60,
            cache: None,
            claim_to_headers: Box::default(),
            clear_route_cache: false,
        }
    }

    fn everywhere() -> JwtLocations {
        JwtLocations {
            headers: vec![
                (HeaderName::from_static("authorization"), "Bearer ".into()),
                (HeaderName::from_static("x-jwt"), "".into()),
            ],
            parameters: vec!["t".into()],
            cookies: vec!["c".into()],
        }
    }

    fn request(path: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::builder().uri(path).body(()).unwrap().into_parts().0;
        for (name, value) in headers {
            request.headers.append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn every_token_is_found_wherever_it_may_stand() {
        let provider = provider("i", everywhere());
        let locations = Locations::of([&provider]);
        let request = request(
            "/p?a=1&t=from%2Dquery",
            &[
                ("authorization", "Bearer one"),
                ("authorization", "Bearer   two"),
                ("authorization", "Basic no"),
                ("x-jwt", "three"),
                ("cookie", "a=b; c=\"four\"; c=never"),
            ],
        );
        let found: Vec<String> =
            locations.find(&request).into_iter().map(|found| found.text).collect();
        assert_eq!(found, ["one,Bearer   two,Basic no", "three", "from-query", "four"]);
    }

    #[test]
    fn a_token_is_taken_out_where_it_stood() {
        let provider = provider("i", everywhere());
        let locations = Locations::of([&provider]);
        let mut request = request("/p?t=x&a=1&t=y", &[("x-jwt", "z"), ("cookie", "c=w")]);
        let before = request.clone();
        locations.find(&before).iter().for_each(|found| found.remove(&mut request));
        assert_eq!(request.uri, "/p?a=1");
        assert!(!request.headers.contains_key("x-jwt") && request.headers.contains_key("cookie"));
    }

    #[test]
    fn a_place_takes_tokens_of_the_providers_that_name_it() {
        let (a, b) = (provider("a", everywhere()), provider("b", JwtLocations::default()));
        let locations = Locations::of([&a, &b]);
        let request = request("/", &[("x-jwt", "t")]);
        let found = locations.find(&request);
        assert!(found[0].issuers.allow("a") && !found[0].issuers.allow("b"));
        let any = provider("", everywhere());
        let locations = Locations::of([&a, &any]);
        assert!(locations.find(&request)[0].issuers.allow("whoever"));
    }
}
