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
