//! Which route a request takes: path, headers, query parameters, method, and the order of routes.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- {match: {path: /exact}, route: {cluster: a}}
- {match: {path: /Exact-Fold, case_sensitive: false}, route: {cluster: a}}
- {match: {prefix: /prefix/}, route: {cluster: a}}
- {match: {prefix: /Fold/, case_sensitive: false}, route: {cluster: a}}
- {match: {path_separated_prefix: /part}, route: {cluster: a}}
- {match: {safe_regex: {regex: "/re/[0-9]+"}}, route: {cluster: a}}
- {match: {prefix: /order/first}, route: {cluster: a}}
- {match: {prefix: /order}, route: {cluster: b}}
- match: {prefix: /h/exact, headers: [{name: x-v, string_match: {exact: one}}]}
  route: {cluster: a}
- match: {prefix: /h/fold, headers: [{name: x-v, string_match: {exact: One, ignore_case: true}}]}
  route: {cluster: a}
- match: {prefix: /h/prefix, headers: [{name: x-v, string_match: {prefix: "on"}}]}
  route: {cluster: a}
- match: {prefix: /h/suffix, headers: [{name: x-v, string_match: {suffix: ne}}]}
  route: {cluster: a}
- match: {prefix: /h/contains, headers: [{name: x-v, string_match: {contains: "n"}}]}
  route: {cluster: a}
- match: {prefix: /h/regex, headers: [{name: x-v, string_match: {safe_regex: {regex: "o[mn]e"}}}]}
  route: {cluster: a}
- match: {prefix: /h/range, headers: [{name: x-v, range_match: {start: -5, end: 10}}]}
  route: {cluster: a}
- match: {prefix: /h/present, headers: [{name: x-v, present_match: true}]}
  route: {cluster: a}
- match: {prefix: /h/absent, headers: [{name: x-v, present_match: false}]}
  route: {cluster: a}
- match: {prefix: /h/invert, headers: [{name: x-v, string_match: {exact: one}, invert_match: true}]}
  route: {cluster: a}
- match: {prefix: /h/missing-empty, headers: [{name: x-v, string_match: {exact: ""}, treat_missing_header_as_empty: true}]}
  route: {cluster: a}
- match: {prefix: /h/both, headers: [{name: x-v, string_match: {exact: one}}, {name: x-w, string_match: {exact: two}}]}
  route: {cluster: a}
- match: {prefix: /h/method, headers: [{name: ":method", string_match: {exact: PUT}}]}
  route: {cluster: a}
- match: {prefix: /h/authority, headers: [{name: ":authority", string_match: {exact: special.example}}]}
  route: {cluster: a}
- match: {prefix: /h/path, headers: [{name: ":path", string_match: {suffix: "?end"}}]}
  route: {cluster: a}
- match: {prefix: /q/exact, query_parameters: [{name: k, string_match: {exact: v}}]}
  route: {cluster: a}
- match: {prefix: /q/present, query_parameters: [{name: k, present_match: true}]}
  route: {cluster: a}
- match: {prefix: /q/regex, query_parameters: [{name: k, string_match: {safe_regex: {regex: "[a-c]+"}}}]}
  route: {cluster: a}
- match: {prefix: /q/prefix, query_parameters: [{name: k, string_match: {prefix: v}}]}
  route: {cluster: a}
- match: {prefix: /q/two, query_parameters: [{name: k, present_match: true}, {name: l, present_match: true}]}
  route: {cluster: a}
- {match: {prefix: /grpc, grpc: {}}, route: {cluster: a}}
"#;

pub(crate) fn group() -> Group {
    Group {
        name: "matching",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &routes(ROUTES))],
            &[cluster("a", &["a"], ""), cluster("b", &["b"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("b", UpstreamKind::Plain)],
        unsupported: None,
        cases: [paths(), headers(), query_parameters()].into_iter().flatten().collect(),
    }
}

fn paths() -> Vec<Case> {
    vec![
        Case::new("path_matches_the_whole_path_only")
            .get("/exact", "200 a")
            .get("/exact/", "404 -")
            .get("/exactly", "404 -")
            .get("/Exact", "404 -"),
        Case::new("path_ignores_the_query").get("/exact?a=b", "200 a").get("/exact?", "200 a"),
        Case::new("path_folds_case_when_told").get("/exact-fOLD", "200 a"),
        Case::new("prefix_matches_what_begins_with_it")
            .get("/prefix/", "200 a")
            .get("/prefix/x/y", "200 a")
            .get("/prefix", "404 -")
            .get("/PREFIX/x", "404 -"),
        Case::new("prefix_folds_case_when_told").get("/fOLD/x", "200 a"),
        Case::new("path_separated_prefix_ends_at_a_slash")
            .get("/part", "200 a")
            .get("/part/", "200 a")
            .get("/part/x", "200 a")
            .get("/part?q", "200 a")
            .get("/partial", "404 -"),
        Case::new("regex_matches_the_whole_path_without_the_query")
            .get("/re/12", "200 a")
            .get("/re/12?x=1", "200 a")
            .get("/re/12/x", "404 -")
            .get("/x/re/12", "404 -"),
        Case::new("the_first_matching_route_wins")
            .get("/order/first", "200 a")
            .get("/order/second", "200 b"),
        Case::new("escapes_in_the_path_are_left_alone")
            .get("/prefix/%41%2f%20x", "200 a")
            .get("/pre%66ix/", "404 -"),
        Case::new("dot_segments_are_left_alone_without_normalization")
            .get("/prefix/../x", "200 a")
            .get("/prefix//x", "200 a"),
        Case::new("grpc_matches_by_content_type")
            .send(Request::post("/grpc", "").header("content-type", "application/grpc"), "200 a")
            .send(
                Request::post("/grpc", "").header("content-type", "application/grpc+proto"),
                "200 a",
            )
            .send(
                Request::post("/grpc", "").header("content-type", "application/grpcweb"),
                "404 -",
            ),
        Case::new("no_route_is_not_found").get("/nowhere", "404 -").get("/", "404 -"),
        Case::new("no_route_over_http2").send(Request::get("/nowhere").http2(), "404 -"),
    ]
}

fn headers() -> Vec<Case> {
    let with = |path: &str, value: &str| Request::get(path).header("x-v", value);
    vec![
        Case::new("header_exact")
            .send(with("/h/exact", "one"), "200 a")
            .send(with("/h/exact", "One"), "404 -")
            .get("/h/exact", "404 -"),
        Case::new("header_exact_ignoring_case").send(with("/h/fold", "oNE"), "200 a"),
        Case::new("header_prefix")
            .send(with("/h/prefix", "one"), "200 a")
            .send(with("/h/prefix", "bone"), "404 -"),
        Case::new("header_suffix")
            .send(with("/h/suffix", "one"), "200 a")
            .send(with("/h/suffix", "ones"), "404 -"),
        Case::new("header_contains")
            .send(with("/h/contains", "one"), "200 a")
            .send(with("/h/contains", "two"), "404 -"),
        Case::new("header_regex_matches_the_whole_value")
            .send(with("/h/regex", "ome"), "200 a")
            .send(with("/h/regex", "some"), "404 -"),
        Case::new("header_range_is_half_open")
            .send(with("/h/range", "-5"), "200 a")
            .send(with("/h/range", "9"), "200 a")
            .send(with("/h/range", "10"), "404 -")
            .send(with("/h/range", "1x"), "404 -"),
        Case::new("header_present")
            .send(with("/h/present", ""), "200 a")
            .get("/h/present", "404 -"),
        Case::new("header_absent").send(with("/h/absent", "x"), "404 -").get("/h/absent", "200 a"),
        Case::new("header_inverted")
            .send(with("/h/invert", "two"), "200 a")
            .send(with("/h/invert", "one"), "404 -"),
        Case::new("an_inverted_header_has_to_be_there").get("/h/invert", "404 -"),
        Case::new("missing_header_treated_as_empty").get("/h/missing-empty", "200 a"),
        Case::new("all_headers_must_match")
            .send(with("/h/both", "one").header("x-w", "two"), "200 a")
            .send(with("/h/both", "one"), "404 -"),
        Case::new("one_of_several_values_of_a_header_has_to_match")
            .send(with("/h/exact", "one").header("x-v", "two"), "200 a")
            .send(with("/h/exact", "two").header("x-v", "one"), "200 a")
            .send(with("/h/exact", "one,two"), "404 -"),
        Case::new("method_is_a_pseudo_header")
            .send(Request::new("PUT", "/h/method"), "200 a")
            .get("/h/method", "404 -"),
        Case::new("authority_is_a_pseudo_header")
            .send(Request::get("/h/authority").host("special.example"), "200 a")
            .send(Request::get("/h/authority").host("special.example").http2(), "200 a")
            .get("/h/authority", "404 -"),
        Case::new("path_header_holds_the_query")
            .get("/h/path?end", "200 a")
            .get("/h/path", "404 -"),
    ]
}

fn query_parameters() -> Vec<Case> {
    vec![
        Case::new("query_exact")
            .get("/q/exact?k=v", "200 a")
            .get("/q/exact?a=b&k=v&c", "200 a")
            .get("/q/exact?k=w", "404 -")
            .get("/q/exact?K=v", "404 -")
            .get("/q/exact", "404 -"),
        Case::new("query_present")
            .get("/q/present?k", "200 a")
            .get("/q/present?k=", "200 a")
            .get("/q/present?kk=1", "404 -"),
        Case::new("query_regex_matches_the_whole_value")
            .get("/q/regex?k=abc", "200 a")
            .get("/q/regex?k=abcd", "404 -"),
        Case::new("query_prefix").get("/q/prefix?k=value", "200 a").get("/q/prefix?k=x", "404 -"),
        Case::new("the_first_of_several_query_values_counts")
            .get("/q/exact?k=v&k=w", "200 a")
            .get("/q/exact?k=w&k=v", "404 -"),
        Case::new("query_values_are_not_decoded_for_matching")
            .get("/q/exact?k=%76", "404 -")
            .get("/q/prefix?k=%76", "404 -"),
        Case::new("all_query_parameters_must_match")
            .get("/q/two?k=1&l=2", "200 a")
            .get("/q/two?k=1", "404 -"),
    ]
}
