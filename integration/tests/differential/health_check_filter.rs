//! The HTTP filter that answers health checks of the proxy itself, and `/healthcheck/fail`.

use std::time::Duration;

use anyhow::Result;
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes, statistics};

const PATH: &str = "headers: [{name: ':path', string_match: {exact: /healthz}}]";

/// A listener at this place with the filter configured so.
fn listener(place: &str, config: &str, before: &str) -> String {
    let manager = format!(
        "{}
access_log:
- name: log
  filter: {{not_health_check_filter: {{}}}}
  typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/{place}', log_format: {{text_format_source: {{inline_string: \"%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n\"}}}}}}
- name: all
  typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${{DIR}}/all-{place}', log_format: {{text_format_source: {{inline_string: \"%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n\"}}}}}}
http_filters:
{before}- {{name: hc, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, {config}}}}}
- ROUTER",
        routes("- {match: {prefix: /missing}, direct_response: {status: 404}}\n- {match: {prefix: /}, route: {cluster: a}}")
    );
    http_listener(place, &manager).replace("stat_prefix: test", &format!("stat_prefix: {place}"))
}

pub(crate) fn group() -> Group {
    let answered = format!("pass_through_mode: false, {PATH}");
    let passed = format!("pass_through_mode: true, {PATH}");
    let cached = format!("pass_through_mode: true, cache_time: 1000s, {PATH}");
    let clusters = |clusters: &str| {
        format!("pass_through_mode: false, cluster_min_healthy_percentages: {{{clusters}}}, {PATH}")
    };
    let denial = "- {name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: DENY, policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}}}\n";
    let mixed = "- name: mixed
  type: STATIC
  load_assignment:
    cluster_name: mixed
    endpoints:
    - lb_endpoints:
      - {endpoint: {address: ${a}}}
      - {endpoint: {address: ${b}}, health_status: DEGRADED}
      - {endpoint: {address: ${c}}, health_status: UNHEALTHY}
      - {endpoint: {address: ${d}}, health_status: UNHEALTHY}
";
    let two_headers = "pass_through_mode: false, headers: [{name: ':path', string_match: {exact: /healthz}}, {name: x-check, present_match: true}]";
    Group {
        name: "health_check_filter",
        bootstrap: bootstrap(
            &[
                listener("LISTEN", &answered, ""),
                listener("LISTEN_PASS", &passed, ""),
                listener("LISTEN_CACHED", &cached, ""),
                listener("LISTEN_HALF", &clusters("mixed: {value: 50}"), ""),
                listener("LISTEN_MORE", &clusters("mixed: {value: 51}"), ""),
                listener("LISTEN_POINT", &clusters("mixed: {value: 50.9}"), ""),
                listener("LISTEN_GONE", &clusters("gone: {value: 0}"), ""),
                listener("LISTEN_EMPTY", &clusters("empty: {value: 1}"), ""),
                listener("LISTEN_EMPTY_ZERO", &clusters("empty: {value: 0}"), ""),
                listener("LISTEN_BOTH", &clusters("mixed: {value: 50}, empty: {value: 1}"), ""),
                listener("LISTEN_TWO", two_headers, ""),
                listener("LISTEN_ALL", "pass_through_mode: false", ""),
                listener("LISTEN_DENIED", &answered, denial),
            ],
            &[
                cluster("a", &["a"], ""),
                mixed.to_owned(),
                "- {name: empty, type: STATIC, load_assignment: {cluster_name: empty}}\n"
                    .to_owned(),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("b", UpstreamKind::Plain),
            ("c", UpstreamKind::Plain),
            ("d", UpstreamKind::Plain),
        ],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let check = || Request::get("/healthz");
    let one = |name, listener, expected| Case::new(name).send_to(listener, check(), expected);
    vec![
        one("answered_here", "LISTEN", "200 -"),
        Case::new("other_requests_go_on").get("/other", "200 a").get("/healthz/x", "200 a"),
        Case::new("a_query_is_part_of_the_path").get("/healthz?x", "200 a"),
        Case::new("head_is_answered_too").send(Request::new("HEAD", "/healthz"), "200 -"),
        Case::new("post_with_a_body").send(Request::post("/healthz", "hello"), "200 -"),
        Case::new("grpc_client").send(
            check().header("content-type", "application/grpc").header("te", "trailers"),
            "200 -",
        ),
        Case::new("all_headers_have_to_match").send_to("LISTEN_TWO", check(), "200 a").send_to(
            "LISTEN_TWO",
            check().header("x-check", "1"),
            "200 -",
        ),
        Case::new("without_headers_everything_is_a_check").send_to(
            "LISTEN_ALL",
            Request::get("/any"),
            "200 -",
        ),
        one("passed_on", "LISTEN_PASS", "200 a"),
        Case::new("the_answer_of_the_endpoint_is_passed_back")
            .script("a", [Reply::status(503).header("x-envoy-degraded", "1").body("no")])
            .send_to("LISTEN_PASS", check(), "503 a"),
        Case::new("an_answer_is_kept")
            .script("a", [Reply::status(500).body("no")])
            .send_to("LISTEN_CACHED", check(), "500 a")
            .send_to("LISTEN_CACHED", check(), "500 -")
            .send_to("LISTEN_CACHED", Request::get("/other"), "200 a"),
        one("half_of_the_endpoints_are_enough", "LISTEN_HALF", "200 -"),
        one("half_of_the_endpoints_are_not_enough", "LISTEN_MORE", "503 -"),
        one("only_whole_percents_count", "LISTEN_POINT", "200 -"),
        one("a_cluster_that_does_not_exist", "LISTEN_GONE", "503 -"),
        one("an_empty_cluster", "LISTEN_EMPTY", "503 -"),
        one("an_empty_cluster_that_may_be", "LISTEN_EMPTY_ZERO", "200 -"),
        one("every_cluster_has_to_be_healthy", "LISTEN_BOTH", "503 -"),
        one("a_filter_before_it_answers", "LISTEN_DENIED", "403 -"),
        Case::custom("told_to_fail", |world| Box::pin(fail(world))),
        Case::custom("logged", |world| Box::pin(logged(world))),
        Case::custom("statistics", |world| {
            const NAMES: &[&str] = &[
                "http.LISTEN.health_check",
                "http.LISTEN.downstream_rq_2xx",
                "http.LISTEN.downstream_rq_4xx",
                "http.LISTEN.downstream_rq_5xx",
                "http.LISTEN.downstream_rq_completed",
                "http.LISTEN.downstream_rq_total",
                "http.LISTEN_PASS.health_check",
                "http.LISTEN_CACHED.health_check",
                "http.LISTEN_HALF.health_check",
                "http.LISTEN_MORE.health_check",
                "http.LISTEN_GONE.health_check",
                "http.LISTEN_EMPTY.health_check",
                "http.LISTEN_EMPTY_ZERO.health_check",
                "http.LISTEN_DENIED.health_check",
            ];
            Box::pin(statistics(world, NAMES))
        }),
    ]
}

/// `/healthcheck/fail`, and back.
async fn fail(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    world.proxy.command("/healthcheck/fail").await?;
    for (listener, path) in [
        ("LISTEN", "/healthz"),
        ("LISTEN", "/other"),
        ("LISTEN", "/missing"),
        ("LISTEN_PASS", "/healthz"),
        ("LISTEN_PASS", "/other"),
        ("LISTEN_HALF", "/healthz"),
        ("LISTEN_DENIED", "/other"),
    ] {
        let step = format!("failing: {listener}{path}");
        world.send(&mut seen, &step, listener, &Request::get(path)).await?;
    }
    world.proxy.command("/healthcheck/ok").await?;
    for path in ["/healthz", "/other"] {
        let step = format!("well: {path}");
        world.send(&mut seen, &step, "LISTEN", &Request::get(path)).await?;
    }
    Ok(seen)
}

/// What the logs have, with and without health checks.
async fn logged(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for place in ["LISTEN", "LISTEN_PASS", "LISTEN_CACHED", "LISTEN_MORE"] {
        // The last line of each is another request's.
        let end = Request::get("/end");
        end.send(world.address(place)?).await;
        for name in [place.to_owned(), format!("all-{place}")] {
            let path = world.folder.path().join(&name);
            let mut text = String::new();
            for _ in 0..500 {
                text = std::fs::read_to_string(&path).unwrap_or_default();
                if text.contains("/end") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            for (index, line) in text.lines().enumerate() {
                seen.fact(&name, &format!("line {index:02}"), line);
            }
        }
    }
    world.upstream("a")?.take();
    Ok(seen)
}
