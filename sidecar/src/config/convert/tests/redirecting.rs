//! Copies of requests, redirects that are followed, and paths by template.

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::bootstrap::Bootstrap;
use crate::config::http_connection_manager::RouteSource;
use crate::config::internal_redirect::{InternalRedirect, RedirectPredicate};
use crate::config::listener::TerminalFilter;
use crate::config::mirror::MirrorCluster;
use crate::config::route::{Forward, PathRewrite, PathSpecifier, RouteAction, RouteConfiguration};

fn routes(bootstrap: &Bootstrap) -> &RouteConfiguration {
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("a connection manager")
    };
    match &manager.routes {
        RouteSource::Inline(routes) => routes,
        RouteSource::Rds { .. } => panic!("inline routes"),
    }
}

fn forward(bootstrap: &Bootstrap) -> &Forward {
    match &routes(bootstrap).virtual_hosts[0].routes[0].action {
        RouteAction::Forward(forward) => forward,
        other => panic!("forward, not {other:?}"),
    }
}

fn extension(name: &str, fields: Value) -> Value {
    let mut config = fields;
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{name}"));
    json!({"name": "x", "typed_config": config})
}

#[test]
fn mirrors_at_three_levels() {
    let fraction = json!({"default_value": {"numerator": 5}});
    let bootstrap = accepted(&[
        ("ROUTES.request_mirror_policies", json!([{"cluster": "static"}, {"cluster": "static"}])),
        ("HOST.request_mirror_policies", json!([{"cluster_header": "X-Copy"}])),
        (
            "ACTION.request_mirror_policies",
            json!([{
                "cluster": "static",
                "runtime_fraction": fraction,
                "disable_shadow_host_suffix_append": true,
                "host_rewrite_literal": "copy.test",
                "trace_sampled": false,
                "request_headers_mutations": [{"remove": "x-a"}],
            }]),
        ),
    ]);
    let routes = routes(&bootstrap);
    assert_eq!(routes.mirrors.len(), 2);
    let host = &routes.virtual_hosts[0].mirrors[0];
    assert!(matches!(&host.cluster, MirrorCluster::Header(name) if name == "x-copy"));
    assert!(host.append_suffix && host.share.is_none());
    let own = &forward(&bootstrap).mirrors[0];
    assert_eq!(
        (own.share.as_ref().map(|share| share.current()), own.append_suffix),
        (Some((5, 100)), false)
    );
    assert_eq!(own.host.as_ref().unwrap(), "copy.test");
    assert_eq!(own.mutations.len(), 1);
}

#[test]
fn a_mirror_has_one_cluster() {
    const FIRST: &str = "ACTION.request_mirror_policies[0]";
    for (mirror, place, reason) in [
        (json!({}), FIRST.to_owned(), "one of cluster, cluster_header is required"),
        (
            json!({"cluster": "static", "cluster_header": "x-a"}),
            format!("{FIRST}.cluster_header"),
            "together with cluster",
        ),
        (
            json!({"cluster_header": "x a"}),
            format!("{FIRST}.cluster_header"),
            "not a valid header name",
        ),
        (
            json!({"cluster": "static", "host_rewrite_literal": "a\n"}),
            format!("{FIRST}.host_rewrite_literal"),
            "no header value",
        ),
    ] {
        refused_at(&[("ACTION.request_mirror_policies", json!([mirror]))], &place, reason);
    }
}

#[test]
fn a_redirect_policy_with_its_defaults() {
    let policy = |fields: Value| {
        let bootstrap = accepted(&[("ACTION.internal_redirect_policy", fields)]);
        forward(&bootstrap).internal_redirect.as_deref().cloned().unwrap()
    };
    let default = InternalRedirect {
        max: 1,
        statuses: vec![http::StatusCode::FOUND],
        predicates: Vec::new(),
        allow_cross_scheme: false,
        headers_to_copy: Vec::new(),
    };
    assert_eq!(policy(json!({})), default);
    let all = policy(json!({
        "max_internal_redirects": 0,
        "redirect_response_codes": [301, 304, 200, 307],
        "allow_cross_scheme_redirect": true,
        "response_headers_to_copy": ["X-A"],
        "predicates": [
            extension(
                "internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
                json!({"allowed_route_names": ["a"]}),
            ),
            extension("internal_redirect.previous_routes.v3.PreviousRoutesConfig", json!({})),
            extension("internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig", json!({})),
        ],
    }));
    assert_eq!(all.max, 0);
    assert_eq!(all.statuses, [301, 307].map(|code| http::StatusCode::from_u16(code).unwrap()));
    assert_eq!(all.headers_to_copy, ["x-a"]);
    let listed = RedirectPredicate::AllowListedRoutes(vec!["a".into()]);
    let others = [RedirectPredicate::PreviousRoutes, RedirectPredicate::SafeCrossScheme];
    assert_eq!(all.predicates[0], listed);
    assert_eq!(all.predicates[1..], others);
    assert!(forward(&accepted(&[])).internal_redirect.is_none());
}

#[test]
fn a_redirect_policy_that_is_none() {
    const POLICY: &str = "ACTION.internal_redirect_policy";
    for name in [":path", "Host"] {
        refused_at(
            &[(POLICY, json!({"response_headers_to_copy": [name]}))],
            &format!("{POLICY}.response_headers_to_copy[0]"),
            "is not copied",
        );
    }
    let other = extension("transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
    refused_at(
        &[(POLICY, json!({"predicates": [other]}))],
        &format!("{POLICY}.predicates[0].typed_config"),
        "not supported by this version of Outrigger, which has AllowListedRoutesConfig",
    );
}

fn template(text: &str) -> Value {
    let kind = "path.match.uri_template.v3.UriTemplateMatchConfig";
    json!({"path_match_policy": extension(kind, json!({"path_template": text}))})
}

fn rewrite(text: &str) -> Value {
    let kind = "path.rewrite.uri_template.v3.UriTemplateRewriteConfig";
    extension(kind, json!({"path_template_rewrite": text}))
}

#[test]
fn a_template_and_its_rewrite() {
    let bootstrap = accepted(&[
        ("ROUTE.match", template("/a/{b}")),
        ("ACTION.prefix_rewrite", Value::Null),
        ("ACTION.path_rewrite_policy", rewrite("/{b}/a")),
    ]);
    let route = &routes(&bootstrap).virtual_hosts[0].routes[0];
    assert!(matches!(&route.matches.path, PathSpecifier::Template(_)));
    assert!(matches!(
        &forward(&bootstrap).path_rewrite,
        Some(PathRewrite::Template(rewrite)) if rewrite.0.len() == 3
    ));
}

#[test]
fn a_template_that_cannot_be_meant() {
    refused_at(
        &[("ROUTE.match", template("a"))],
        "ROUTE.match.path_match_policy.typed_config.path_template",
        "does not begin with '/'",
    );
    let policy = "ACTION.path_rewrite_policy";
    refused_at(
        &[("ACTION.prefix_rewrite", Value::Null), (policy, rewrite("/*"))],
        "ACTION.path_rewrite_policy.typed_config.path_template_rewrite",
        "no part of a path",
    );
    refused_at(
        &[("ACTION.prefix_rewrite", Value::Null), (policy, rewrite("/a"))],
        policy,
        "goes only with path_match_policy",
    );
    refused_at(
        &[
            ("ROUTE.match", template("/a/{b}")),
            ("ACTION.prefix_rewrite", Value::Null),
            (policy, rewrite("/{c}")),
        ],
        policy,
        "no variable \"c\"",
    );
    refused_at(
        &[
            ("ROUTE.match", template("/a/{b}")),
            ("ACTION.prefix_rewrite", json!("/x")),
            (policy, rewrite("/{b}")),
        ],
        policy,
        "together with prefix_rewrite",
    );
    let other = extension("transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
    refused_at(
        &[("ROUTE.match", json!({"path_match_policy": other}))],
        "ROUTE.match.path_match_policy.typed_config",
        "not supported by this version of Outrigger, which has UriTemplateMatchConfig",
    );
}
