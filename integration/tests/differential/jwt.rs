//! The JWT filter: which tokens are right, where they are looked for, and what becomes of them.

#![allow(clippy::panic)] // without keys there is no test

use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::tokens::{Keys, base64};
use outrigger_integration::upstream::Reply;
use serde_json::{Value, json};

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3";
/// 2100-01-01.
const LATER: u64 = 4_102_444_800;

fn keys() -> &'static Keys {
    Keys::shared().unwrap_or_else(|error| panic!("{error:#}"))
}

fn token(algorithm: &str, payload: &Value) -> String {
    keys().token(algorithm, payload).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Of the issuer that most providers name.
fn of(more: &Value) -> String {
    let mut payload = json!({"iss": "issuer", "sub": "me", "exp": LATER});
    if let (Some(payload), Some(more)) = (payload.as_object_mut(), more.as_object()) {
        payload.extend(more.clone());
    }
    token("ES256", &payload)
}

/// A listener with providers and rules, as flow YAML.
fn listener(place: &str, providers: &str, rules: &str, more: &str, routes: &str) -> String {
    let manager = format!(
        "route_config:
  name: test
  response_headers_to_add:
  - {{header: {{key: x-noted, value: '%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%'}}}}
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
{}
http_filters:
- name: state
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
    on_request_headers: [{{object_key: key, factory_key: envoy.string, format_string: {{text_format_source: {{inline_string: '%REQ(x-key)%'}}}}}}]
- name: jwt
  typed_config: {{{TYPE}.JwtAuthentication, providers: {{{providers}}}, rules: [{rules}], {more}}}
- ROUTER",
        indent(routes, 4),
    );
    http_listener(place, &manager)
}

fn provider(name: &str, more: &str) -> String {
    let jwks = keys().jwks();
    format!("{name}: {{local_jwks: {{inline_string: '{jwks}'}}, {more}}}, ")
}

fn remote(name: &str, upstream: &str, more: &str) -> String {
    format!(
        "{name}: {{issuer: issuer, remote_jwks: {{http_uri: {{uri: 'http://keys.example/set?a=1', cluster: {upstream}, timeout: 2s}}, {more}}}}}, "
    )
}

const PLAIN: &str = "- {match: {prefix: /}, route: {cluster: a}}";

#[allow(clippy::too_many_lines)] // one listener after the other
pub(crate) fn group() -> Group {
    let providers = [
        provider("p", "issuer: issuer, forward_payload_header: x-payload"),
        provider("open", "forward: true, from_headers: [{name: x-open}]"),
        provider(
            "aud",
            "issuer: issuer, audiences: ['https://one/', two], from_headers: [{name: x-aud, value_prefix: 'T '}], from_params: [t, u], from_cookies: [c]",
        ),
        provider("other", "issuer: other, from_headers: [{name: x-other}]"),
        provider("subject", "issuer: issuer, subjects: {prefix: m}"),
        provider("expires", "issuer: issuer, require_expiration: true"),
        provider("short", "issuer: issuer, max_lifetime: 7200s"),
        provider("skewed", "issuer: issuer, clock_skew_seconds: 1"),
        provider(
            "told",
            "issuer: issuer, forward: true, pad_forward_payload_header: true, forward_payload_header: x-payload, payload_in_metadata: payload, header_in_metadata: head, failed_status_in_metadata: failed, normalize_payload_in_metadata: {space_delimited_claims: [scope, list]}, claim_to_headers: [{header_name: x-sub, claim_name: sub}, {header_name: x-number, claim_name: number}, {header_name: x-whole, claim_name: whole}, {header_name: x-negative, claim_name: negative}, {header_name: x-true, claim_name: truth}, {header_name: x-nested, claim_name: in.ner.most}, {header_name: x-dotted, claim_path: [{key: a.b}]}, {header_name: x-list, claim_name: list}, {header_name: x-object, claim_name: in}, {header_name: x-null, claim_name: nothing}, {header_name: x-none, claim_name: none}]",
        ),
        provider("kept", "issuer: issuer, jwt_cache_config: {jwt_cache_size: 2}"),
    ]
    .concat();
    let rules = [
        ("/p", "requires: {provider_name: p}"),
        ("/open", "requires: {provider_name: open}"),
        ("/aud", "requires: {provider_name: aud}"),
        (
            "/other-aud",
            "requires: {provider_and_audiences: {provider_name: aud, audiences: [three]}}",
        ),
        ("/subject", "requires: {provider_name: subject}"),
        ("/expires", "requires: {provider_name: expires}"),
        ("/short", "requires: {provider_name: short}"),
        ("/skewed", "requires: {provider_name: skewed}"),
        ("/told", "requires: {provider_name: told}"),
        ("/kept", "requires: {provider_name: kept}"),
        ("/nothing", ""),
        ("/empty", "requires: {}"),
        (
            "/any",
            "requires: {requires_any: {requirements: [{provider_name: p}, {provider_name: other}]}}",
        ),
        (
            "/all",
            "requires: {requires_all: {requirements: [{provider_name: p}, {provider_name: other}]}}",
        ),
        (
            "/p-or-bad",
            "requires: {requires_any: {requirements: [{provider_name: told}, {allow_missing_or_failed: {}}]}}",
        ),
        (
            "/deep",
            "requires: {requires_any: {requirements: [{requires_all: {requirements: [{provider_name: p}, {provider_name: other}]}}, {provider_name: open}]}}",
        ),
        ("/named", "requirement_name: named"),
    ];
    let rules: Vec<String> =
        rules.iter().map(|(path, rule)| format!("{{match: {{path: {path}}}, {rule}}}")).collect();
    let main = listener(
        "LISTEN",
        &providers,
        &rules.join(", "),
        "bypass_cors_preflight: true, requirement_map: {named: {provider_name: other}}, filter_state_rules: {name: key, requires: {gold: {provider_name: other}}}",
        PLAIN,
    );
    let per_route = format!(
        "- {{match: {{path: /off}}, route: {{cluster: a}}, typed_per_filter_config: {{jwt: {{{TYPE}.PerRouteConfig, disabled: true}}}}}}
- {{match: {{path: /named}}, route: {{cluster: a}}, typed_per_filter_config: {{jwt: {{{TYPE}.PerRouteConfig, requirement_name: named}}}}}}
- {{match: {{path: /wrong}}, route: {{cluster: a}}, typed_per_filter_config: {{jwt: {{{TYPE}.PerRouteConfig, requirement_name: wrong}}}}}}
{PLAIN}"
    );
    let all = "{match: {prefix: /}, requires: {provider_name: p}}";
    let routes = listener(
        "LISTEN_ROUTES",
        &provider("p", "issuer: issuer"),
        all,
        "stat_prefix: second, requirement_map: {named: {allow_missing: {}}}",
        &per_route,
    );
    let stripped = listener(
        "LISTEN_STRIPPED",
        &provider("p", "issuer: issuer"),
        all,
        "strip_failure_response: true, stat_prefix: second",
        PLAIN,
    );
    let rematched = listener(
        "LISTEN_REMATCHED",
        &provider(
            "p",
            "issuer: issuer, clear_route_cache: true, claim_to_headers: [{header_name: x-tier, claim_name: tier}]",
        ),
        all,
        "stat_prefix: second",
        &format!(
            "- {{match: {{prefix: /, headers: [{{name: x-tier, string_match: {{exact: gold}}}}]}}, direct_response: {{status: 210}}}}\n{PLAIN}"
        ),
    );
    // One provider an issuer: which of several is taken, Envoy leaves to chance.
    let maybe = [
        ("/maybe", "allow_missing: {}"),
        ("/whatever", "allow_missing_or_failed: {}"),
        ("/p-or-none", "requires_any: {requirements: [{provider_name: p}, {allow_missing: {}}]}"),
        ("/only-maybe", "requires_any: {requirements: [{allow_missing: {}}, {allow_missing: {}}]}"),
    ];
    let maybe: Vec<String> = maybe
        .iter()
        .map(|(path, rule)| format!("{{match: {{path: {path}}}, requires: {{{rule}}}}}"))
        .collect();
    let maybe = listener(
        "LISTEN_MAYBE",
        &[
            provider("p", "issuer: issuer, forward_payload_header: x-payload"),
            provider("other", "issuer: other, from_headers: [{name: x-other}]"),
        ]
        .concat(),
        &maybe.join(", "),
        "stat_prefix: maybe",
        PLAIN,
    );
    let fetched =
        |place: &str, provider: &str| listener(place, provider, all, "stat_prefix: remote", PLAIN);
    let retried = "retry_policy: {num_retries: 1, retry_back_off: {base_interval: 0.01s}}";
    Group {
        name: "jwt",
        bootstrap: bootstrap(
            &[
                main,
                routes,
                stripped,
                rematched,
                maybe,
                fetched("LISTEN_REMOTE", &remote("p", "keys", "")),
                fetched("LISTEN_AGAIN", &remote("p", "keys", "cache_duration: 0.001s")),
                fetched("LISTEN_FAIL", &remote("p", "keys", "")),
                fetched("LISTEN_RETRY", &remote("p", "keys", retried)),
                fetched("LISTEN_CLOSED", &remote("p", "closed", "")),
                fetched("LISTEN_UNKNOWN", &remote("p", "unknown", "")),
            ],
            &[
                cluster("a", &["a"], ""),
                cluster("keys", &["keys"], ""),
                cluster("closed", &["closed"], ""),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("keys", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
        ],
        unsupported: None,
        cases: [right_cases(), wrong_cases(), place_cases(), need_cases(), fetched_cases()]
            .into_iter()
            .flatten()
            .chain([Case::custom("statistics", |world| {
                Box::pin(statistics(world, &["http.test.jwt_authn."]))
            })])
            .collect(),
    }
}

fn bearer(path: &str, token: &str) -> Request {
    Request::get(path).header("authorization", &format!("Bearer {token}"))
}

fn right_cases() -> Vec<Case> {
    let mine = json!({"iss": "issuer", "sub": "me"});
    let mut cases = Vec::new();
    for (name, algorithm) in [
        ("signed_with_rs256", "RS256"),
        ("signed_with_rs384", "RS384"),
        ("signed_with_rs512", "RS512"),
        ("signed_with_ps256", "PS256"),
        ("signed_with_ps384", "PS384"),
        ("signed_with_ps512", "PS512"),
        ("signed_with_es256", "ES256"),
        ("signed_with_es384", "ES384"),
        ("signed_with_es512", "ES512"),
        ("signed_with_hs256", "HS256"),
        ("signed_with_hs384", "HS384"),
        ("signed_with_hs512", "HS512"),
        ("signed_with_eddsa", "EdDSA"),
    ] {
        // Only the header is looked at by the comparison, and it is the same on both sides.
        cases.push(Case::new(name).send(bearer("/p", &token(algorithm, &mine)), "200 a"));
    }
    let told = json!({
        "number": 1.5, "whole": 12, "negative": -3, "truth": true, "in": {"ner": {"most": "deep"}}, "a.b": "dotted",
        "list": ["x", 1], "nothing": null, "scope": "read  write",
    });
    cases.push(
        Case::new("claims_are_handed_on")
            .send(
                bearer("/told", &of(&told)).header("x-sub", "forged").header("x-none", "forged"),
                "200 a",
            )
            .send(bearer("/told", &of(&json!({}))).http2(), "200 a"),
    );
    cases.push(
        Case::new("reserved_headers_are_removed_everywhere")
            .send(
                Request::get("/nothing").header("x-sub", "forged").header("x-payload", "f"),
                "200 a",
            )
            .send(Request::get("/unmatched").header("x-sub", "forged"), "200 a"),
    );
    cases.push(
        Case::new("a_failure_is_noted")
            .send(Request::get("/told"), "401 -")
            .send(bearer("/p-or-bad", "a.b.c"), "200 a"),
    );
    let again = of(&json!({"jti": "again"}));
    cases.push(
        Case::new("a_token_is_remembered")
            .send(bearer("/kept", &again), "200 a")
            .send(bearer("/kept", &again), "200 a")
            .send(bearer("/kept", &of(&json!({"jti": "1"}))), "200 a")
            .send(bearer("/kept", &of(&json!({"jti": "2"}))), "200 a")
            .send(bearer("/kept", &again), "200 a"),
    );
    cases.push(
        Case::new("a_route_is_looked_for_again")
            .send_to("LISTEN_REMATCHED", bearer("/", &of(&json!({"tier": "gold"}))), "210 -")
            .send_to("LISTEN_REMATCHED", bearer("/", &of(&json!({"tier": "tin"}))), "200 a"),
    );
    cases
}

fn wrong_cases() -> Vec<Case> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let right = of(&json!({}));
    let parts: Vec<&str> = right.split('.').collect();
    let [head, payload, signature] = *parts else { return Vec::new() };
    let other_head = |header: Value| {
        keys()
            .token_with("ES256", &header, &json!({"iss": "issuer"}))
            .unwrap_or_else(|error| panic!("{error:#}"))
    };
    let unsigned = format!("{}.{payload}.AA", base64(r#"{"alg":"none"}"#));
    let huge = of(&json!({"huge": "x".repeat(30_000)}));
    let mut cases = Vec::new();
    for (name, token) in [
        ("two_parts", format!("{head}.{payload}")),
        ("four_parts", format!("{right}.x")),
        ("empty_token", String::new()),
        ("header_not_base64", format!("!.{payload}.{signature}")),
        ("header_not_json", format!("{}.{payload}.{signature}", base64("x"))),
        ("header_without_algorithm", format!("{}.{payload}.{signature}", base64("{}"))),
        ("algorithm_none", unsigned),
        ("algorithm_of_another_kind", other_head(json!({"alg": "HS256", "kid": "p256"}))),
        ("key_of_another_name", other_head(json!({"alg": "ES256", "kid": "../../etc/passwd"}))),
        ("key_of_no_name", other_head(json!({"alg": "ES256", "kid": 7}))),
        ("payload_not_base64", format!("{head}.!.{signature}")),
        ("payload_not_json", format!("{head}.{}.{signature}", base64("x"))),
        ("signature_not_base64", format!("{head}.{payload}.!")),
        ("signature_of_another", format!("{head}.{payload}.{}", base64([1; 64]))),
        (
            "payload_changed",
            format!("{head}.{}.{signature}", base64(r#"{"iss":"issuer","sub":"you"}"#)),
        ),
        ("issuer_of_another", token("ES256", &json!({"iss": "nobody"}))),
        ("issuer_missing", token("ES256", &json!({"sub": "me"}))),
        ("issuer_no_text", of(&json!({"iss": 1}))),
        ("subject_no_text", of(&json!({"sub": 1}))),
        ("expired", of(&json!({"exp": now - 3600}))),
        ("expired_within_the_skew", of(&json!({"exp": now - 30}))),
        ("not_yet_valid", of(&json!({"nbf": now + 3600}))),
        ("not_yet_valid_within_the_skew", of(&json!({"nbf": now + 30}))),
        ("expiry_no_number", of(&json!({"exp": "soon"}))),
        ("expiry_negative", of(&json!({"exp": -1}))),
        ("issued_negative", of(&json!({"iat": -1}))),
        ("audience_no_text", of(&json!({"aud": [1]}))),
        ("huge_token", huge),
    ] {
        let expected = match name {
            "expired_within_the_skew"
            | "not_yet_valid_within_the_skew"
            | "huge_token"
            | "algorithm_of_another_kind" => "200 a",
            _ => "401 -",
        };
        cases.push(Case::new(name).send(bearer("/p", &token), expected));
    }
    cases.push(
        Case::new("a_challenge_names_the_url")
            .send(Request::get("/p?a=1&b=2"), "401 -")
            .send(Request::get("/p").http2(), "401 -")
            .send(Request::get(&format!("/p?{}", "x".repeat(400))), "401 -")
            .send(
                Request::post("/p", "").http2().header("content-type", "application/grpc"),
                "200 -",
            ),
    );
    cases.push(
        Case::new("answers_may_say_nothing")
            .send_to("LISTEN_STRIPPED", Request::get("/"), "401 -")
            .send_to("LISTEN_STRIPPED", bearer("/", "a.b.c"), "401 -"),
    );
    let lifetime = |path: &str, more: Value| bearer(path, &of(&more));
    cases.push(
        Case::new("a_token_has_to_expire_soon_enough")
            .send(lifetime("/expires", json!({})), "200 a")
            .send(bearer("/expires", &token("ES256", &json!({"iss": "issuer"}))), "401 -")
            .send(lifetime("/short", json!({"exp": now + 3600})), "200 a")
            .send(lifetime("/short", json!({})), "401 -")
            .send(bearer("/short", &token("ES256", &json!({"iss": "issuer"}))), "401 -"),
    );
    cases.push(
        Case::new("a_subject_has_to_match")
            .send(lifetime("/subject", json!({})), "200 a")
            .send(lifetime("/subject", json!({"sub": "you"})), "401 -")
            .send(bearer("/subject", &token("ES256", &json!({"iss": "issuer"}))), "401 -"),
    );
    cases.push(
        Case::new("a_skew_may_be_small")
            .send(lifetime("/skewed", json!({"exp": now - 30})), "401 -")
            .send(lifetime("/skewed", json!({"nbf": now + 30})), "401 -"),
    );
    cases
}

fn place_cases() -> Vec<Case> {
    let get = Request::get;
    let one = of(&json!({"aud": "one"}));
    let two = of(&json!({"aud": ["x", "https://two"]}));
    let three = of(&json!({"aud": "three"}));
    vec![
        Case::new("an_audience_is_allowed")
            .send(get("/aud").header("x-aud", &format!("T {one}")), "200 a")
            .send(get("/aud").header("x-aud", &format!("T {two}")), "200 a")
            .send(get("/aud").header("x-aud", &format!("T {three}")), "403 -")
            .send(get("/aud").header("x-aud", &format!("T {}", of(&json!({})))), "403 -")
            .send(get("/other-aud").header("x-aud", &format!("T {three}")), "200 a")
            .send(get("/other-aud").header("x-aud", &format!("T {one}")), "403 -"),
        Case::new("a_token_in_a_header_with_a_prefix")
            .send(get("/aud").header("x-aud", &one), "401 -")
            .send(get("/aud").header("x-aud", &format!("What T {one}")), "200 a")
            .send(get("/aud").header("x-aud", &format!("T   ,{one}")), "200 a"),
        Case::new("a_token_in_a_parameter")
            .send(get(&format!("/aud?t={one}")), "200 a")
            .send(get(&format!("/aud?u={one}")), "200 a")
            .send(get("/aud?t="), "401 -")
            .send(get(&format!("/aud?a=1&t={one}")), "200 a"),
        Case::new("a_token_in_a_cookie")
            .send(get("/aud").header("cookie", &format!("a=b; c={one}")), "200 a")
            .send(get("/aud").header("cookie", &format!("c=\"{one}\"")), "200 a")
            .send(get("/aud").header("cookie", &format!("cc={one}")), "401 -"),
        Case::new("the_usual_places")
            .send(get(&format!("/p?access_token={}", of(&json!({})))), "200 a")
            .send(get("/p").header("authorization", &of(&json!({}))), "401 -")
            .send(get("/p").header("authorization", &format!("bearer {}", of(&json!({})))), "401 -")
            .send(get("/p").header("authorization", "Basic YTpi"), "401 -"),
        Case::new("every_token_has_to_be_right")
            .send(bearer("/p", &of(&json!({}))).header("authorization", "Bearer a.b.c"), "401 -")
            .send(
                get(&format!("/p?access_token={}", of(&json!({}))))
                    .header("authorization", "Bearer x"),
                "401 -",
            ),
        Case::new("any_issuer_where_none_is_named")
            .send(
                get("/open").header("x-open", &token("ES256", &json!({"iss": "whoever"}))),
                "200 a",
            )
            .send(get("/open").header("x-open", &token("ES256", &json!({}))), "200 a"),
    ]
}

fn need_cases() -> Vec<Case> {
    let get = Request::get;
    let mine = of(&json!({}));
    let others = token("ES256", &json!({"iss": "other"}));
    let other = |path: &str| get(path).header("x-other", &others);
    let mut cases = vec![
        Case::new("nothing_is_needed")
            .send(get("/nothing"), "200 a")
            .send(get("/empty"), "200 a")
            .send(bearer("/nothing", "a.b.c"), "200 a")
            .send(get("/unmatched"), "200 a"),
        Case::new("one_of_several")
            .send(bearer("/any", &mine), "200 a")
            .send(other("/any"), "200 a")
            .send(get("/any"), "401 -")
            .send(bearer("/any", "a.b.c"), "401 -")
            .send(bearer("/any", &others), "401 -")
            .send(bearer("/any", "a.b.c").header("x-other", &others), "200 a"),
        Case::new("all_of_several")
            .send(bearer("/all", &mine), "401 -")
            .send(other("/all"), "401 -")
            .send(bearer("/all", &mine).header("x-other", &others), "200 a"),
        Case::new("no_token_is_fine_but_a_wrong_one_is_not")
            .send_to("LISTEN_MAYBE", get("/maybe"), "200 a")
            .send_to("LISTEN_MAYBE", bearer("/maybe", &mine), "200 a")
            .send_to("LISTEN_MAYBE", bearer("/maybe", "a.b.c"), "401 -")
            .send_to("LISTEN_MAYBE", bearer("/maybe", &others), "401 -")
            .send_to("LISTEN_MAYBE", other("/maybe"), "200 a"),
        Case::new("whatever_is_fine")
            .send_to("LISTEN_MAYBE", get("/whatever"), "200 a")
            .send_to("LISTEN_MAYBE", bearer("/whatever", &mine), "200 a")
            .send_to("LISTEN_MAYBE", bearer("/whatever", "a.b.c"), "200 a"),
        Case::new("one_or_none")
            .send_to("LISTEN_MAYBE", get("/p-or-none"), "200 a")
            .send_to("LISTEN_MAYBE", bearer("/p-or-none", &mine), "200 a")
            .send_to("LISTEN_MAYBE", bearer("/p-or-none", "a.b.c"), "401 -")
            .send_to("LISTEN_MAYBE", get("/only-maybe"), "200 a")
            .send_to("LISTEN_MAYBE", bearer("/only-maybe", "a.b.c"), "401 -"),
        Case::new("requirements_in_requirements")
            .send(get("/deep").header("x-open", &mine), "200 a")
            .send(bearer("/deep", &mine), "401 -")
            .send(bearer("/deep", &mine).header("x-other", &others), "200 a"),
        Case::new("a_requirement_by_name")
            .send(get("/named"), "401 -")
            .send(other("/named"), "200 a"),
        Case::new("a_requirement_by_filter_state")
            .send(get("/unmatched").header("x-key", "gold"), "401 -")
            .send(other("/unmatched").header("x-key", "gold"), "200 a")
            .send(get("/unmatched").header("x-key", "tin"), "200 a"),
        Case::new("a_preflight_needs_none")
            .send(
                Request::new("OPTIONS", "/p")
                    .header("origin", "http://a")
                    .header("access-control-request-method", "PUT"),
                "200 a",
            )
            .send(Request::new("OPTIONS", "/p").header("origin", "http://a"), "401 -"),
    ];
    cases.push(
        Case::new("a_route_says_otherwise")
            .send_to("LISTEN_ROUTES", get("/off"), "200 a")
            .send_to("LISTEN_ROUTES", get("/named"), "200 a")
            .send_to("LISTEN_ROUTES", get("/wrong"), "403 -")
            .send_to("LISTEN_ROUTES", get("/"), "401 -"),
    );
    cases
}

fn fetched_cases() -> Vec<Case> {
    let get = Request::get;
    let mine = || bearer("/", &of(&json!({})));
    let set = || Reply::status(200).body(keys().jwks());
    let mut cases = vec![
        Case::new("keys_are_fetched_when_they_are_needed")
            .send_to("LISTEN_REMOTE", get("/"), "401 -")
            .send_to("LISTEN_REMOTE", bearer("/", "a.b.c"), "401 -")
            .script("keys", [set()])
            .send_to("LISTEN_REMOTE", mine(), "200 keys,a")
            .send_to("LISTEN_REMOTE", mine(), "200 a")
            .send_to("LISTEN_REMOTE", bearer("/", &token("ES256", &json!({"iss": "x"}))), "401 -"),
        Case::new("keys_that_are_old_are_fetched_again")
            .script("keys", [set()])
            .send_to("LISTEN_AGAIN", mine(), "200 keys,a")
            .script("keys", [set()])
            .send_to("LISTEN_AGAIN", mine(), "200 keys,a"),
        Case::new("keys_are_asked_for_again_after_a_failure")
            .script("keys", [Reply::status(503), set()])
            .send_to("LISTEN_RETRY", mine(), "200 keys,keys,a"),
        Case::new("keys_of_nobody").send_to("LISTEN_CLOSED", mine(), "401 -").send_to(
            "LISTEN_UNKNOWN",
            mine(),
            "401 -",
        ),
    ];
    for (name, reply) in [
        ("keys_that_are_missing", Reply::status(404)),
        ("keys_of_an_empty_answer", Reply::status(200)),
        ("keys_that_are_no_set", Reply::status(200).body("no set")),
        ("keys_of_which_none_is_right", Reply::status(200).body(r#"{"keys":[{"kty":"X"}]}"#)),
        ("keys_of_an_answer_that_breaks_off", Reply::reset()),
    ] {
        cases.push(Case::new(name).script("keys", [reply]).send_to(
            "LISTEN_FAIL",
            mine(),
            "401 keys",
        ));
    }
    cases
}
