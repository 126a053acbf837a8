//! The commands against a control plane: both are the binary itself.

// Helpers of tests, in a crate that is nothing but tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::Mesh;

const API: &str = "kind: Service
name: api
spec:
  ports: [{port: 9000, protocol: http}]
  timeouts: {request: 1s}
";

#[test]
fn diff_says_what_an_apply_would_change_and_ends_with_3_if_that_is_anything() {
    let mesh = Mesh::start();
    let diff = &["diff", "-f", "-"][..];
    assert!(mesh.expect(3, diff, API).contains("created"));
    mesh.expect(0, &["apply", "-f", "-"], API);
    assert!(mesh.expect(0, diff, API).contains("unchanged"));
    let changed = API.replace("1s", "2s");
    let text = mesh.expect(3, diff, &changed);
    assert!(text.contains("~ spec.timeouts.request: \"1s\" -> \"2s\""), "{text}");
    assert!(text.contains("0 of 0 sidecars change"), "{text}");
    let text = mesh.expect(0, &["apply", "-f", "-", "--dry-run"], &changed);
    assert!(text.contains("nothing was changed (--dry-run)"), "{text}");
    assert!(mesh.expect(0, diff, API).contains("unchanged"), "a dry run changes nothing");
    let text = mesh.expect(4, diff, &API.replace("http}", "htpt}"));
    assert!(text.contains("did you mean \"http\"?") && text.contains("| "), "{text}");
}

#[test]
fn history_shows_the_fields_that_each_revision_changed() {
    let mesh = Mesh::start();
    mesh.expect(0, &["apply", "-f", "-"], API);
    mesh.expect(0, &["apply", "-f", "-"], &API.replace("1s", "2s"));
    mesh.expect(0, &["delete", "service", "api"], "");
    let text = mesh.expect(0, &["history", "--diff"], "");
    let revisions: Vec<&str> = text.lines().filter(|line| line.starts_with("revision")).collect();
    assert_eq!(revisions.len(), 3, "{text}");
    assert!(revisions[0].starts_with("revision 3") && revisions[0].contains(" by api@127.0.0.1"));
    assert!(text.contains("    ~ spec.timeouts.request: \"1s\" -> \"2s\""), "{text}");
    assert!(text.contains("  Service/api deleted\n    - spec: {"), "{text}");
    let text = mesh.expect(0, &["history", "--diff", "--limit", "1"], "");
    assert!(!text.contains("revision 2"), "{text}");
}

#[test]
fn what_works_but_perhaps_not_as_meant_is_shown_with_a_caret() {
    let mesh = Mesh::start();
    let route = "---
kind: Route
name: r
spec:
  hosts: [api]
  rules:
  - backendRefs: [{name: api}]
  - matches: [{method: GET}]
    backendRefs: [{name: api}]
";
    let text = mesh.expect(0, &["apply", "-f", "-"], &format!("{API}{route}"));
    assert!(text.contains("warning: (standard input):13:"), "{text}");
    assert!(text.contains("never reached: spec.rules[0] takes its requests first"), "{text}");
}

#[test]
fn a_check_tells_each_thing_and_how_to_mend_it_and_ends_with_3_if_one_is_wrong() {
    let mesh = Mesh::start();
    let text = mesh.expect(0, &["check", "-o", "json"], "");
    let checks: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(checks["checks"].as_array().unwrap().len() >= 20, "{text}");
    assert_eq!(checks["ok"], true);
    mesh.expect(0, &["apply", "-f", "-"], API);
    let text = mesh.expect(0, &["check"], "");
    assert!(
        text.contains("services-have-instances") && text.contains("outrigger token create"),
        "{text}"
    );
    let two = "{kind: Endpoint, name: one, spec: {service: api, address: 127.0.0.1, port: 9}}\n---\n{kind: Endpoint, name: two, spec: {service: api, address: 127.0.0.1, port: 9}}\n";
    mesh.expect(0, &["apply", "-f", "-"], two);
    let text = mesh.expect(3, &["check"], "");
    assert!(text.contains("127.0.0.1:9 is one and two"), "{text}");
    let text = mesh.expect(3, &["check", "--api", "http://127.0.0.1:1"], "");
    assert!(text.contains("api-reachable: outrigger control-plane"), "{text}");
}

#[test]
fn authz_says_which_policy_decides_live_and_from_files() {
    let mesh = Mesh::start();
    let policy = "---\n{kind: Mesh, name: default, spec: {defaultAction: deny}}\n---\n{kind: Policy, name: read, spec: {to: [{service: api}], action: allow, from: [{service: web}], methods: [GET]}}\n";
    let all = format!("{API}{policy}");
    mesh.expect(0, &["apply", "-f", "-"], &all);
    let get = ["authz", "check", "web", "api", "GET", "/v1"];
    assert_eq!(mesh.expect(0, &get, ""), "allowed: Policy `read` allows it\n");
    let post = ["authz", "check", "web", "api", "POST", "/v1"];
    assert!(mesh.expect(3, &post, "").starts_with("DENIED: no policy allows it"));
    let offline =
        ["authz", "check", "job", "api", "GET", "/v1", "-f", "-", "--api", "http://127.0.0.1:1"];
    assert!(mesh.expect(3, &offline, &all).starts_with("DENIED"));
    mesh.expect(1, &["authz", "check", "web", "nobody", "GET", "/"], "");
    mesh.expect(2, &["authz", "check", "web", "api", "GET"], "");
}
