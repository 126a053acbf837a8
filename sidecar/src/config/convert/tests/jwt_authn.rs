//! `envoy.filters.http.jwt_authn`: what arrives, and what is refused under its own path.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, changed, convert, refused_at};
use crate::config::http_connection_manager::HttpConnectionManager;
use crate::config::http_filters::FilterKind;
use crate::config::jwt_authn::{JwtAuthn, JwtKeys, JwtRequirement};
use crate::config::listener::TerminalFilter;

const PLACE: &str = "HCM.http_filters[0].typed_config";

fn filter(providers: Value, rules: Value) -> Value {
    json!({"name": "jwt", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": providers,
        "rules": rules,
        "requirement_map": {"named": {"provider_name": "a"}},
    }})
}

fn local() -> Value {
    json!({"inline_string": r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#})
}

fn remote(more: Value) -> Value {
    let mut remote = json!({"http_uri": {
        "uri": "https://keys.example:8443/set?a=1", "cluster": "static", "timeout": "2s"}});
    remote.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!({"remote_jwks": remote})
}

fn converted(filter: Value) -> JwtAuthn {
    let bootstrap = accepted(&[("HCM.http_filters[0]", filter)]);
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("a connection manager");
    };
    let manager: &HttpConnectionManager = manager;
    let FilterKind::JwtAuthn(jwt) = &manager.filters[0].kind else { panic!("another filter") };
    jwt.as_ref().clone()
}

#[test]
fn a_provider_arrives_with_its_defaults() {
    let jwt = converted(filter(json!({"a": {"local_jwks": local()}}), json!([])));
    let provider = &jwt.providers[0];
    assert_eq!(provider.clock_skew, 60);
    assert_eq!((provider.cache, provider.max_lifetime), (None, None));
    assert_eq!(provider.locations.headers[0].0, "authorization");
    assert_eq!(&*provider.locations.parameters[0], "access_token");
    assert!(matches!(provider.keys, JwtKeys::Local(_)));
}

#[test]
fn keys_that_are_fetched_arrive_with_where_they_are() {
    let provider = remote(json!({"async_fetch": {}, "retry_policy": {}}));
    let jwt = converted(filter(json!({"a": provider}), json!([])));
    let JwtKeys::Remote(keys) = &jwt.providers[0].keys else { panic!("not fetched") };
    assert_eq!(
        (keys.uri.to_string().as_str(), keys.host.as_bytes()),
        ("/set?a=1", &b"keys.example:8443"[..])
    );
    assert_eq!(keys.cache_duration, Duration::from_secs(600));
    assert_eq!(keys.async_fetch, Some(Duration::from_secs(1)));
    let second = Duration::from_secs(1);
    assert_eq!(keys.retries, Some((1, second, second * 10)));
}

#[test]
fn requirements_name_providers_by_their_place() {
    let providers = json!({"b": {"local_jwks": local()}, "a": {"local_jwks": local()}});
    let requires = |requires: Value| json!([{"match": {"prefix": "/"}, "requires": requires}]);
    let any =
        json!({"requires_any": {"requirements": [{"provider_name": "b"}, {"allow_missing": {}}]}});
    let jwt = converted(filter(providers, requires(any)));
    let Some(JwtRequirement::Any { of, allow_missing: true, allow_missing_or_failed: false }) =
        &jwt.rules[0].requirement
    else {
        panic!("{:?}", jwt.rules);
    };
    assert!(matches!(**of, [JwtRequirement::Provider(1, None)]), "{of:?}");
}

#[test]
fn what_is_wrong_is_refused_under_its_path() {
    let provider = |provider: Value| filter(json!({"a": provider}), json!([]));
    let with = |more: Value| {
        let mut all = json!({"local_jwks": local()});
        all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        provider(all)
    };
    let rule = |rule: Value| {
        let mut all = json!({"match": {"prefix": "/"}});
        all.as_object_mut().unwrap().extend(rule.as_object().cloned().unwrap());
        filter(json!({"a": {"local_jwks": local()}}), json!([all]))
    };
    let mut deep = json!({"provider_name": "a"});
    for _ in 0..16 {
        deep = json!({"requires_all": {"requirements": [deep, {"allow_missing": {}}]}});
    }
    for (filter, path, reason) in [
        (provider(json!({})), "providers[a]", "one of remote_jwks, local_jwks is required"),
        (
            provider(json!({"local_jwks": {"inline_string": "x"}})),
            "providers[a].local_jwks",
            "not a JSON object",
        ),
        (
            provider(json!({"local_jwks": {"inline_string": r#"{"keys":[{"kty":"X"}]}"#}})),
            "providers[a].local_jwks",
            "keys[0]: [kty] \"X\" is not supported",
        ),
        (
            provider(
                json!({"remote_jwks": {"http_uri": {"uri": "/x", "cluster": "static", "timeout": "1s"}}}),
            ),
            "providers[a].remote_jwks.http_uri.uri",
            "is not an http or https URL",
        ),
        (
            provider(
                json!({"remote_jwks": {"http_uri": {"uri": "http://a", "cluster": "static"}}}),
            ),
            "providers[a].remote_jwks.http_uri.timeout",
            "required",
        ),
        (
            provider(remote(json!({"retry_policy": {"retry_on": "5xx"}}))),
            "providers[a].remote_jwks.retry_policy.retry_on",
            "not supported",
        ),
        (
            with(json!({"from_headers": [{"name": "a b"}]})),
            "providers[a].from_headers[0].name",
            "not a valid header name",
        ),
        (
            with(json!({"claim_to_headers": [{"header_name": "x-a"}]})),
            "providers[a].claim_to_headers[0]",
            "exactly one of claim_name, claim_path",
        ),
        (
            rule(json!({"requires": {"provider_name": "b"}})),
            "rules[0].requires.provider_name",
            "no provider \"b\"",
        ),
        (
            rule(json!({"requirement_name": "b"})),
            "rules[0].requirement_name",
            "does not stand in requirement_map",
        ),
        (
            rule(json!({"requires": {"requires_any": {"requirements": [{"provider_name": "a"}]}}})),
            "rules[0].requires.requires_any.requirements",
            "at least two",
        ),
        (
            rule(json!({"requires": {"extract_only_without_validation": {}}})),
            "rules[0].requires.extract_only_without_validation",
            "not supported",
        ),
    ] {
        refused_at(&[("HCM.http_filters[0]", filter)], &format!("{PLACE}.{path}"), reason);
    }
    let found = convert(changed(&[("HCM.http_filters[0]", rule(json!({"requires": deep})))]));
    let found = found.expect_err("too deep");
    assert!(found.iter().all(|problem| problem.reason.contains("more than 16 deep")), "{found:?}");
}

#[test]
fn a_route_says_what_it_needs() {
    let config = |config: Value| {
        let mut all = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig"});
        all.as_object_mut().unwrap().extend(config.as_object().cloned().unwrap());
        all
    };
    let place = "ROUTE.typed_per_filter_config[jwt]";
    accepted(&[(place, config(json!({"disabled": true})))]);
    accepted(&[(place, config(json!({"requirement_name": "a"})))]);
    refused_at(&[(place, config(json!({})))], place, "one of disabled, requirement_name");
    refused_at(
        &[(place, config(json!({"disabled": false})))],
        &format!("{place}.disabled"),
        "must be true",
    );
}
