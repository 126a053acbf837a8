//! The `matcher` of access control.

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::http_filters::FilterKind;
use crate::config::listener::TerminalFilter;
use crate::config::rbac::{Action, CertificateField, Principal, Rules};

fn extension(name: &str, fields: Value) -> Value {
    let mut config = fields;
    config["@type"] = json!(format!("type.googleapis.com/envoy.{name}"));
    json!({"name": "x", "typed_config": config})
}

fn uri(value: Value) -> Value {
    let input = extension("extensions.matching.common_inputs.ssl.v3.UriSanInput", json!({}));
    json!({"single_predicate": {"input": input, "value_match": value}})
}

fn outcome(action: &str, name: &str) -> Value {
    let action = json!({"action": action, "name": name});
    json!({"action": extension("config.rbac.v3.Action", action)})
}

/// The rules of the first filter of the base with this matcher.
fn rules(matcher: Value) -> Rules {
    let bootstrap = accepted(&[("RBAC.matcher", matcher)]);
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("not HTTP")
    };
    let FilterKind::Rbac(rbac) = &manager.filters[0].kind else { panic!("not RBAC") };
    rbac.rules.clone().unwrap()
}

#[test]
fn a_matcher_of_access_control_is_a_list_of_policies_with_actions_of_their_own() {
    let rules = rules(json!({
        "matcher_list": {"matchers": [
            {"predicate": uri(json!({"exact": "spiffe://a"})), "on_match": outcome("DENY", "no")},
            {
                "predicate": {"or_matcher": {"predicate": [
                    uri(json!({"prefix": "spiffe://"})),
                    {"not_matcher": uri(json!({"exact": "b"}))},
                ]}},
                "on_match": outcome("ALLOW", "yes"),
            },
        ]},
        "on_no_match": outcome("LOG", "rest"),
    }));
    let actions: Vec<Action> = rules.policies.iter().map(|policy| policy.action).collect();
    assert_eq!(actions, [Action::Deny, Action::Allow]);
    assert!(matches!(
        rules.policies[0].principals.as_slice(),
        [Principal::Certificate(CertificateField::UriSans, _)]
    ));
    assert!(matches!(rules.policies[1].principals.as_slice(), [Principal::Or(_)]));
    assert!(rules.logs);
    let rest = rules.decide(|_| false);
    assert_eq!((rest.allowed, rest.policy, rest.logged), (true, Some("rest"), true));
    let first = rules.decide(|_| true);
    assert_eq!((first.allowed, first.policy, first.logged), (false, Some("no"), false));
}

#[test]
fn what_no_predicate_matches_is_denied_where_nothing_else_is_said() {
    let rest = rules(json!({})).decide(|_| true).allowed;
    assert!(!rest);
}

#[test]
fn a_matcher_that_cannot_be_judged_is_refused() {
    let list = |matcher: Value| json!({"matcher_list": {"matchers": [matcher]}});
    let allow = outcome("ALLOW", "a");
    let port = extension("extensions.transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
    let input = json!({"single_predicate": {"input": port, "value_match": {"exact": "1"}}});
    let custom = json!({"single_predicate": {
        "input": extension("extensions.matching.common_inputs.ssl.v3.DnsSanInput", json!({})),
        "custom_match": port,
    }});
    let first = "RBAC.matcher.matcher_list.matchers[0]";
    for (matcher, path, reason) in [
        (
            list(json!({"predicate": input, "on_match": allow})),
            format!("{first}.predicate.single_predicate.input.typed_config"),
            "RawBuffer",
        ),
        (
            list(json!({"predicate": custom, "on_match": allow})),
            format!("{first}.predicate.single_predicate.custom_match"),
            "not supported",
        ),
        (
            list(json!({"predicate": {"or_matcher": {"predicate": []}}, "on_match": allow})),
            format!("{first}.predicate.or_matcher.predicate"),
            "at least two",
        ),
        (
            list(json!({"predicate": uri(json!({"exact": "a"})), "on_match": {"matcher": {}}})),
            format!("{first}.on_match.matcher"),
            "not supported",
        ),
        (
            list(json!({"predicate": uri(json!({"exact": "a"}))})),
            format!("{first}.on_match"),
            "required",
        ),
        (
            json!({"matcher_list": {}}),
            "RBAC.matcher.matcher_list.matchers".to_owned(),
            "at least one",
        ),
        (
            json!({"matcher_tree": {"input": extension("config.rbac.v3.Action", json!({}))}}),
            "RBAC.matcher.matcher_tree".to_owned(),
            "not supported",
        ),
    ] {
        refused_at(&[("RBAC.matcher", matcher)], &path, reason);
    }
}
