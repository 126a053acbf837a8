//! What a route changes in path and authority on the way to the upstream.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- {match: {prefix: /prefix/}, route: {cluster: a, prefix_rewrite: /new/}}
- {match: {prefix: /slash/}, route: {cluster: a, prefix_rewrite: /}}
- {match: {prefix: /Fold/, case_sensitive: false}, route: {cluster: a, prefix_rewrite: /x/}}
- {match: {path: /exact}, route: {cluster: a, prefix_rewrite: /other}}
- {match: {path_separated_prefix: /part}, route: {cluster: a, prefix_rewrite: /whole}}
- {match: {prefix: /host}, route: {cluster: a, host_rewrite_literal: new.example}}
- {match: {prefix: /both}, route: {cluster: a, host_rewrite_literal: new.example, prefix_rewrite: /b}}
- match: {prefix: /header}
  route: {cluster: a, host_rewrite_header: x-host}
- match: {prefix: /regex}
  route: {cluster: a, regex_rewrite: {pattern: {regex: "^/regex/([a-z]+)/([0-9]+)"}, substitution: '/\2/\1'}}
- match: {prefix: /forwarded}
  route: {cluster: a, host_rewrite_literal: new.example, append_x_forwarded_host: true}
- {match: {prefix: /}, route: {cluster: a}}
"#;

pub(crate) fn group() -> Group {
    Group {
        name: "rewriting",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &routes(ROUTES))],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: vec![
            Case::new("prefix_rewrite_replaces_the_matched_prefix")
                .get("/prefix/x", "200 a")
                .get("/prefix/", "200 a"),
            Case::new("prefix_rewrite_keeps_the_query").get("/prefix/x?a=b&c", "200 a"),
            Case::new("prefix_rewrite_to_the_root")
                .get("/slash/x", "200 a")
                .get("/slash/", "200 a"),
            Case::new("prefix_rewrite_of_a_folded_prefix").get("/FOLD/x", "200 a"),
            Case::new("prefix_rewrite_of_an_exact_path").get("/exact?q=1", "200 a"),
            Case::new("prefix_rewrite_of_a_path_separated_prefix")
                .get("/part", "200 a")
                .get("/part/x?q", "200 a"),
            Case::new("a_rewritten_path_is_told_in_a_header").get("/prefix/told", "200 a"),
            Case::new("a_path_header_of_the_client_is_replaced").send(
                Request::get("/prefix/x").header("x-envoy-original-path", "/forged"),
                "200 a",
            ),
            Case::new("host_rewrite").get("/host", "200 a"),
            Case::new("host_rewrite_from_http2").send(Request::get("/host").http2(), "200 a"),
            Case::new("host_and_prefix_rewrite").get("/both/x", "200 a"),
            Case::new("host_rewrite_from_a_header")
                .send(Request::get("/header").header("x-host", "from-header.example"), "200 a")
                .get("/header", "200 a"),
            Case::new("regex_rewrite").get("/regex/abc/12?q=1", "200 a").get("/regex/12", "200 a"),
            Case::new("a_rewritten_host_is_told_in_a_header_when_asked")
                .send(Request::get("/forwarded").host("old.example"), "200 a"),
            Case::new("without_rewrite_nothing_changes").get("/a/%2F/..//b?c=%20d", "200 a"),
        ],
    }
}
