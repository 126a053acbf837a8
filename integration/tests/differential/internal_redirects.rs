//! Redirects that the proxy follows itself, and those that it does not.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::access_log::line;
use crate::parts::{bootstrap, cluster, http_listener, routes, statistics};

fn predicate(kind: &str, fields: &str) -> String {
    format!(
        "{{name: a, typed_config: {{'@type': type.googleapis.com/envoy.extensions.internal_redirect.{kind}{fields}}}}}"
    )
}

fn route_text() -> String {
    let listed = predicate(
        "allow_listed_routes.v3.AllowListedRoutesConfig",
        ", allowed_route_names: [good]",
    );
    let previous = predicate("previous_routes.v3.PreviousRoutesConfig", "");
    let safe = predicate("safe_cross_scheme.v3.SafeCrossSchemeConfig", "");
    format!(
        r#"
- {{match: {{prefix: /plain}}, route: {{cluster: a}}}}
- {{match: {{prefix: /codes}}, route: {{cluster: a, internal_redirect_policy: {{redirect_response_codes: [301, 303, 307, 308, 200]}}}}}}
- {{match: {{prefix: /three}}, route: {{cluster: a, internal_redirect_policy: {{max_internal_redirects: 3}}}}}}
- {{match: {{prefix: /zero}}, route: {{cluster: a, internal_redirect_policy: {{max_internal_redirects: 0}}}}}}
- {{match: {{prefix: /cross}}, route: {{cluster: a, internal_redirect_policy: {{allow_cross_scheme_redirect: true}}}}}}
- {{match: {{prefix: /safe}}, route: {{cluster: a, internal_redirect_policy: {{allow_cross_scheme_redirect: true, predicates: [{safe}]}}}}}}
- {{match: {{prefix: /listed}}, name: listed, route: {{cluster: a, internal_redirect_policy: {{predicates: [{listed}]}}}}}}
- {{match: {{prefix: /previous}}, name: previous, route: {{cluster: a, internal_redirect_policy: {{max_internal_redirects: 5, predicates: [{previous}]}}}}}}
- {{match: {{prefix: /good}}, name: good, route: {{cluster: b}}}}
- match: {{prefix: /copied}}
  route: {{cluster: a, internal_redirect_policy: {{response_headers_to_copy: [x-copy, x-clear]}}}}
- match: {{prefix: /rewritten}}
  route: {{cluster: a, prefix_rewrite: /new, host_rewrite_literal: new.example, internal_redirect_policy: {{}}}}
  request_headers_to_add: [{{header: {{key: x-added, value: '1'}}}}]
- match: {{prefix: /retried}}
  route: {{cluster: a, retry_policy: {{retry_on: 5xx}}, internal_redirect_policy: {{}}}}
- match: {{prefix: /small}}
  request_body_buffer_limit: 10
  route: {{cluster: a, internal_redirect_policy: {{}}}}
- {{match: {{prefix: /direct}}, direct_response: {{status: 200, body: {{inline_string: hello}}}}}}
- {{match: {{prefix: /redirect}}, redirect: {{path_redirect: /elsewhere}}}}
- {{match: {{prefix: /b}}, route: {{cluster: b}}}}
- {{match: {{prefix: /to}}, route: {{cluster: a, internal_redirect_policy: {{}}}}}}
"#
    )
}

pub(crate) fn group() -> Group {
    let log = "access_log:
- name: a
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: ${DIR}/LISTEN_LOG.log
    log_format: {text_format_source: {inline_string: \"%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER% %BYTES_RECEIVED%\\n\"}}";
    Group {
        name: "internal_redirects",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", &routes(&route_text())),
                http_listener("LISTEN_LOG", &format!("{log}\n{}", routes(&route_text()))),
            ],
            &[cluster("a", &["a"], ""), cluster("b", &["b"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("b", UpstreamKind::Plain)],
        unsupported: None,
        cases: [followed(), not_followed(), predicates()].into_iter().flatten().collect(),
    }
}

fn to(status: u16, location: &str) -> Reply {
    Reply::status(status).header("location", location).body("moved")
}

fn followed() -> Vec<Case> {
    vec![
        Case::new("a_302_is_followed")
            .script("a", [to(302, "http://other.example/b/c?d=e")])
            .get("/to?q", "200 a,b"),
        Case::new("a_302_is_followed_over_http2")
            .script("a", [to(302, "http://other.example/b")])
            .send(Request::get("/to").http2(), "200 a,b"),
        Case::new("a_fragment_does_not_count")
            .script("a", [to(302, "http://other.example/b#there")])
            .get("/to", "200 a,b"),
        Case::new("a_host_without_a_path")
            .script("a", [to(302, "http://other.example")])
            .get("/to", "302 a"),
        Case::new("other_statuses_on_demand")
            .script("a", [to(301, "http://test.example/b")])
            .get("/codes", "200 a,b")
            .script("a", [to(308, "http://test.example/b")])
            .get("/codes", "200 a,b")
            .script("a", [to(302, "http://test.example/b")])
            .get("/codes", "302 a")
            .script("a", [to(200, "http://test.example/b")])
            .get("/codes", "200 a"),
        Case::new("a_post_keeps_its_body")
            .script("a", [to(307, "http://test.example/b")])
            .send(Request::post("/codes", "the body"), "200 a,b")
            .script("a", [to(302, "http://test.example/b")])
            .send(Request::new("POST", "/to").chunks(&["the ", "body"]), "200 a,b"),
        Case::new("see_other_makes_a_get")
            .script("a", [to(303, "http://test.example/b")])
            .send(Request::post("/codes", "the body"), "200 a,b")
            .script("a", [to(303, "http://test.example/b")])
            .send(Request::new("HEAD", "/codes"), "200 a,b"),
        Case::new("several_redirects")
            .script("a", [to(302, "http://test.example/three/2"), to(302, "http://test.example/b")])
            .get("/three/1", "200 a,a,b"),
        Case::new("headers_of_the_response_go_along")
            .script(
                "a",
                [to(302, "http://test.example/b").header("x-copy", "1").header("x-copy", "2")],
            )
            .send(Request::get("/copied").header("x-copy", "0").header("x-clear", "0"), "200 a,b"),
        Case::new("the_request_is_followed_as_its_route_has_changed_it")
            .script("a", [to(302, "http://test.example/b")])
            .get("/rewritten/path", "200 a,b"),
        Case::new("a_redirect_leads_to_an_answer_of_ours")
            .script("a", [to(302, "http://test.example/direct")])
            .get("/to", "200 a")
            .script("a", [to(302, "http://test.example/redirect")])
            .get("/to", "301 a"),
        Case::new("a_retry_may_come_before")
            .script("a", [Reply::status(503), to(302, "http://test.example/b")])
            .get("/retried", "200 a,a,b"),
        Case::new("what_a_redirected_request_asks_for")
            .script("a", [to(302, "http://test.example/b")])
            .send(
                Request::get("/to")
                    .header("x-request-id", "mine")
                    .header("x-envoy-original-url", "x"),
                "200 a,b",
            ),
    ]
}

fn not_followed() -> Vec<Case> {
    let mut bad = Case::new("a_location_that_is_no_url_is_not_followed");
    for location in ["/b", "//test.example/b", "", "ftp://test.example/b", "nonsense"] {
        bad = bad.script("a", [to(302, location)]).get("/to", "302 a");
    }
    vec![
        bad,
        Case::new("without_a_policy_no_redirect_is_followed")
            .script("a", [to(302, "http://test.example/b")])
            .get("/plain", "302 a"),
        Case::new("a_redirect_without_a_location")
            .script("a", [Reply::status(302)])
            .get("/to", "302 a"),
        Case::new("one_redirect_is_the_default")
            .script("a", [to(302, "http://test.example/to/2"), to(302, "http://test.example/b")])
            .get("/to/1", "302 a,a"),
        Case::new("no_redirects_at_all")
            .script("a", [to(302, "http://test.example/b")])
            .get("/zero", "302 a"),
        Case::new("a_place_without_a_route")
            .script("a", [to(302, "http://test.example/nowhere")])
            .get("/to", "302 a"),
        Case::new("a_body_that_was_not_kept")
            .script("a", [to(302, "http://test.example/b")])
            .send(Request::post("/small", "more than ten bytes"), "302 a"),
        Case::new("another_scheme_only_on_demand")
            .script("a", [to(302, "https://test.example/b")])
            .get("/to", "302 a")
            .script("a", [to(302, "https://test.example/b")])
            .get("/cross", "200 a,b"),
    ]
}

fn predicates() -> Vec<Case> {
    vec![
        Case::new("only_to_listed_routes")
            .script("a", [to(302, "http://test.example/good")])
            .get("/listed", "200 a,b")
            .script("a", [to(302, "http://test.example/b")])
            .get("/listed", "302 a"),
        Case::new("not_to_a_route_twice_from_the_same")
            .script(
                "a",
                [
                    to(302, "http://test.example/previous/2"),
                    to(302, "http://test.example/previous/3"),
                ],
            )
            .get("/previous/1", "302 a,a"),
        Case::new("not_from_http_to_https")
            .script("a", [to(302, "https://test.example/b")])
            .get("/safe", "302 a")
            .script("a", [to(302, "http://test.example/b")])
            .get("/safe", "200 a,b"),
        Case::custom("redirects_are_counted", |world| {
            Box::pin(statistics(
                world,
                &[
                    "cluster.a.upstream_internal_redirect",
                    "http.test.passthrough_internal_redirect",
                    "http.test.downstream_rq_total",
                    "http.test.downstream_rq_3",
                    "http.test.rq_total",
                ],
            ))
        }),
        Case::custom("each_redirect_is_logged", |world| {
            Box::pin(async move {
                let mut seen = Observation::default();
                let place = world.address("LISTEN_LOG")?;
                for (path, location) in [
                    ("/to", "http://test.example/b"),
                    ("/three", "http://test.example/direct"),
                    ("/zero", "http://test.example/b"),
                ] {
                    world.upstream("a")?.script([to(302, location)]);
                    Request::post(path, "body").send(place).await;
                    world.upstream("a")?.take();
                    world.upstream("b")?.take();
                }
                for number in 0..5 {
                    let line = line(world, "LISTEN_LOG", number).await?;
                    seen.fact("log", &number.to_string(), line);
                }
                Ok(seen)
            })
        }),
    ]
}
