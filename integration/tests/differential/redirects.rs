//! Redirects and direct responses: answers that need no upstream.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group};

use crate::parts::{bootstrap, http_listener, routes};

const ROUTES: &str = r#"
- {match: {prefix: /https}, redirect: {https_redirect: true}}
- {match: {prefix: /scheme}, redirect: {scheme_redirect: ftp}}
- {match: {prefix: /host}, redirect: {host_redirect: other.example}}
- {match: {prefix: /port}, redirect: {port_redirect: 8443}}
- {match: {prefix: /all}, redirect: {https_redirect: true, host_redirect: other.example, port_redirect: 444, path_redirect: /new}}
- {match: {prefix: /path-query}, redirect: {path_redirect: "/new?a=b"}}
- {match: {prefix: /path}, redirect: {path_redirect: /new}}
- {match: {prefix: /prefix}, redirect: {prefix_rewrite: /new}}
- {match: {prefix: /strip}, redirect: {path_redirect: /new, strip_query: true}}
- {match: {prefix: /r301}, redirect: {path_redirect: /x, response_code: MOVED_PERMANENTLY}}
- {match: {prefix: /r302}, redirect: {path_redirect: /x, response_code: FOUND}}
- {match: {prefix: /r303}, redirect: {path_redirect: /x, response_code: SEE_OTHER}}
- {match: {prefix: /r307}, redirect: {path_redirect: /x, response_code: TEMPORARY_REDIRECT}}
- {match: {prefix: /r308}, redirect: {path_redirect: /x, response_code: PERMANENT_REDIRECT}}
- match: {prefix: /regex}
  redirect: {regex_rewrite: {pattern: {regex: "/regex/(.*)"}, substitution: '/new/\1'}}
- match: {prefix: /with-header}
  redirect: {path_redirect: /x}
  response_headers_to_add: [{header: {key: x-added, value: "yes"}}]
- {match: {prefix: /direct/body}, direct_response: {status: 200, body: {inline_string: "hello\n"}}}
- {match: {prefix: /direct/empty}, direct_response: {status: 204}}
- {match: {prefix: /direct/error}, direct_response: {status: 503, body: {inline_string: sorry}}}
- match: {prefix: /direct/header}
  direct_response: {status: 200, body: {inline_string: '{}'}}
  response_headers_to_add:
  - {header: {key: content-type, value: application/json}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
  - {header: {key: x-added, value: "yes"}}
"#;

pub(crate) fn group() -> Group {
    Group {
        name: "redirects",
        bootstrap: bootstrap(&[http_listener("LISTEN", &routes(ROUTES))], &[]),
        upstreams: vec![],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let with_port = |path: &str, host: &str| Request::get(path).host(host);
    vec![
        Case::new("https_redirect").get("/https/x?q=1", "301 -"),
        Case::new("https_redirect_drops_the_default_port")
            .send(with_port("/https", "test.example:80"), "301 -")
            .send(with_port("/https", "test.example:8080"), "301 -"),
        Case::new("scheme_redirect").get("/scheme", "301 -"),
        Case::new("host_redirect")
            .get("/host/x?q", "301 -")
            .send(with_port("/host", "test.example:8080"), "301 -"),
        Case::new("port_redirect")
            .get("/port", "301 -")
            .send(with_port("/port", "test.example:8080"), "301 -"),
        Case::new("every_part_redirected").get("/all?q=1", "301 -"),
        Case::new("path_redirect_keeps_the_query").get("/path/x?q=1", "301 -"),
        Case::new("path_redirect_with_a_query_of_its_own").get("/path-query?q=1", "301 -"),
        Case::new("prefix_redirect").get("/prefix/x?q=1", "301 -"),
        Case::new("the_query_is_stripped_when_told").get("/strip/x?q=1", "301 -"),
        Case::new("regex_redirect").get("/regex/x?q=1", "301 -"),
        Case::new("redirect_codes")
            .get("/r301", "301 -")
            .get("/r302", "302 -")
            .get("/r303", "303 -")
            .get("/r307", "307 -")
            .get("/r308", "308 -"),
        Case::new("redirect_over_http2").send(Request::get("/https/x").http2(), "301 -"),
        Case::new("redirect_of_a_post").send(Request::post("/path", "body"), "301 -"),
        Case::new("redirect_with_an_added_header").get("/with-header", "301 -"),
        Case::new("direct_response_with_a_body").get("/direct/body", "200 -"),
        Case::new("direct_response_to_head").send(Request::new("HEAD", "/direct/body"), "200 -"),
        Case::new("direct_response_without_a_body").get("/direct/empty", "204 -"),
        Case::new("direct_response_with_an_error").get("/direct/error", "503 -"),
        Case::new("direct_response_with_headers").get("/direct/header", "200 -"),
        Case::new("direct_response_to_a_post_with_a_body")
            .send(Request::post("/direct/body", "x".repeat(2000)), "200 -"),
        Case::new("direct_response_over_http2")
            .send(Request::get("/direct/body").http2(), "200 -")
            .send(Request::get("/direct/empty").http2(), "204 -"),
        Case::new("direct_response_to_grpc").send(
            Request::post("/direct/error", "").http2().header("content-type", "application/grpc"),
            "200 -",
        ),
    ]
}
