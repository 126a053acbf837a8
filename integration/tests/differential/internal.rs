//! Clients whose address counts as internal may steer timeouts and retries by request headers.

use std::time::Duration;

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes, statistics};

const ROUTES: &str = r#"
- match: {prefix: /5xx}
  route: {cluster: a, retry_policy: {retry_on: 5xx}}
- match: {prefix: /tries}
  route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 2}}
- match: {prefix: /only}
  route: {cluster: a, retry_policy: {retry_on: 5xx, retriable_request_headers: [{name: x-retry, present_match: true}]}}
- match: {prefix: /added}
  route: {cluster: a}
  request_headers_to_add:
  - header: {key: x-envoy-retry-on, value: 5xx}
  - header: {key: x-envoy-upstream-rq-timeout-ms, value: '50'}
- {match: {prefix: /h2}, route: {cluster: h2}}
- {match: {prefix: /}, route: {cluster: a}}
"#;

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

const ROUTER: &str = "http_filters:
- name: envoy.filters.http.router
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
    respect_expected_rq_timeout: true
    strict_check_headers: [x-envoy-upstream-rq-timeout-ms, x-envoy-upstream-rq-per-try-timeout-ms, x-envoy-max-retries, x-envoy-retry-on, x-envoy-retry-grpc-on]";

const INTERNAL: &str = "
use_remote_address: true
internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}
";

pub(crate) fn group() -> Group {
    Group {
        name: "internal",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", &format!("{INTERNAL}{}", routes(ROUTES))),
                http_listener("LISTEN_ROUTER", &format!("{INTERNAL}{}\n{ROUTER}", routes(ROUTES))),
                http_listener(
                    "LISTEN_OUTSIDE",
                    &format!("use_remote_address: true\n{}", routes(ROUTES)),
                ),
            ],
            &[cluster("a", &["a"], ""), cluster("h2", &["a"], HTTP2)],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: [cases(), retries(), limits(), strict(), outside(), counted()]
            .into_iter()
            .flatten()
            .collect(),
    }
}

fn cases() -> Vec<Case> {
    let failing = |status| Reply::status(status).body("failed");
    let late = || Reply::status(200).body("late").after(Duration::from_millis(500));
    let ask = |path: &str, name: &str, value: &str| Request::get(path).header(name, value);
    let unavailable = || {
        Reply::status(200).header("content-type", "application/grpc").header("grpc-status", "14")
    };
    vec![
        Case::new("an_internal_request_is_marked").get("/", "200 a"),
        Case::new("a_header_sets_the_timeout")
            .script("a", [late()])
            .send(ask("/", "x-envoy-upstream-rq-timeout-ms", "100"), "504 a")
            .send(ask("/", "x-envoy-upstream-rq-timeout-ms", "2000"), "200 a"),
        Case::new("a_header_asks_for_another_status_on_timeout").script("a", [late()]).send(
            ask("/", "x-envoy-upstream-rq-timeout-ms", "100")
                .header("x-envoy-upstream-rq-timeout-alt-response", "1"),
            "204 a",
        ),
        Case::new("a_header_sets_the_timeout_of_a_try")
            .script("a", [late()])
            .send(ask("/tries", "x-envoy-upstream-rq-per-try-timeout-ms", "100"), "200 a,a"),
        Case::new("a_header_adds_retry_conditions")
            .script("a", [failing(500)])
            .send(ask("/", "x-envoy-retry-on", "5xx"), "200 a,a")
            .script("a", [failing(500)])
            .send(ask("/", "x-envoy-retry-on", "gateway-error"), "500 a"),
        Case::new("a_header_sets_the_number_of_retries")
            .script("a", [failing(500), failing(500)])
            .send(ask("/5xx", "x-envoy-max-retries", "2"), "200 a,a,a"),
        Case::new("a_header_forbids_retries")
            .script("a", [failing(500)])
            .send(ask("/5xx", "x-envoy-max-retries", "0"), "500 a"),
        Case::new("a_header_names_retriable_status_codes").script("a", [failing(429)]).send(
            ask("/", "x-envoy-retry-on", "retriable-status-codes")
                .header("x-envoy-retriable-status-codes", "429,418"),
            "200 a,a",
        ),
        Case::new("a_header_names_grpc_conditions").script("a", [unavailable()]).send(
            ask("/", "x-envoy-retry-grpc-on", "unavailable")
                .header("content-type", "application/grpc"),
            "200 a,a",
        ),
    ]
}

fn ask(path: &str, fields: &[(&str, &str)]) -> Request {
    fields.iter().fold(Request::get(path), |request, (name, value)| request.header(name, value))
}

fn failing(status: u16) -> Reply {
    Reply::status(status).body("failed")
}

fn late() -> Reply {
    Reply::status(200).body("late").after(Duration::from_millis(500))
}

fn retries() -> Vec<Case> {
    vec![
        Case::new("conditions_of_route_and_client_add_up")
            .script("a", [failing(409)])
            .send(ask("/5xx", &[("x-envoy-retry-on", "retriable-4xx")]), "200 a,a")
            .script("a", [failing(500)])
            .send(ask("/5xx", &[("x-envoy-retry-on", "retriable-4xx")]), "200 a,a"),
        Case::new("an_unknown_condition_does_not_count")
            .script("a", [failing(500)])
            .send(ask("/", &[("x-envoy-retry-on", "nonsense")]), "500 a")
            .script("a", [failing(500)])
            .send(ask("/", &[("x-envoy-retry-on", "nonsense, 5xx")]), "200 a,a"),
        Case::new("a_number_of_retries_without_a_condition_does_nothing")
            .script("a", [failing(500)])
            .send(ask("/", &[("x-envoy-max-retries", "3")]), "500 a"),
        Case::new("a_number_that_is_none_does_not_count")
            .script("a", [failing(500), failing(500)])
            .send(ask("/5xx", &[("x-envoy-max-retries", "x")]), "500 a,a"),
        Case::new("several_retries_are_asked_for")
            .script("a", [failing(500), failing(502), failing(503)])
            .send(
                ask("/", &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "3")]),
                "200 a,a,a,a",
            ),
        Case::new("a_header_of_the_response_is_named")
            .script("a", [failing(200).header("x-again", "1")])
            .send(
                ask(
                    "/",
                    &[
                        ("x-envoy-retry-on", "retriable-headers"),
                        ("x-envoy-retriable-header-names", "x-other,X-Again"),
                    ],
                ),
                "200 a,a",
            ),
        Case::new("grpc_conditions_are_no_http_conditions")
            .script("a", [grpc_error("14")])
            .send(
                ask(
                    "/",
                    &[("x-envoy-retry-on", "unavailable"), ("content-type", "application/grpc")],
                ),
                "200 a",
            )
            .script("a", [grpc_error("1")])
            .send(
                ask(
                    "/",
                    &[
                        ("x-envoy-retry-grpc-on", "cancelled, internal"),
                        ("content-type", "application/grpc"),
                    ],
                ),
                "200 a,a",
            ),
        Case::new("a_reset_is_retried_on_demand")
            .script("a", [Reply::reset()])
            .send(ask("/", &[("x-envoy-retry-on", "reset")]), "200 a,a"),
        Case::new("a_route_says_which_requests_are_retried")
            .script("a", [failing(500)])
            .get("/only", "500 a")
            .script("a", [failing(500)])
            .send(ask("/only", &[("x-retry", "1")]), "200 a,a")
            .script("a", [failing(500)])
            .send(ask("/only", &[("x-envoy-retry-on", "5xx")]), "500 a"),
        Case::new("a_route_may_ask_like_a_client")
            .script("a", [failing(500)])
            .get("/added", "200 a,a"),
        Case::new("retries_are_asked_for_over_http2")
            .script("a", [failing(500)])
            .send(ask("/h2", &[("x-envoy-retry-on", "5xx")]).http2(), "200 a,a"),
    ]
}

fn limits() -> Vec<Case> {
    let slow_body = || {
        Reply::status(200)
            .chunks(&["one", "two", "three"])
            .between_chunks(Duration::from_millis(150))
    };
    vec![
        Case::new("a_timeout_of_zero_is_none")
            .send(ask("/", &[("x-envoy-upstream-rq-timeout-ms", "0")]), "200 a"),
        Case::new("a_timeout_that_is_no_number_does_not_count")
            .send(ask("/", &[("x-envoy-upstream-rq-timeout-ms", "soon")]), "200 a"),
        Case::new("a_try_as_long_as_the_whole_has_no_timeout_of_its_own")
            .script("a", [late()])
            .send(
                ask(
                    "/tries",
                    &[
                        ("x-envoy-upstream-rq-timeout-ms", "100"),
                        ("x-envoy-upstream-rq-per-try-timeout-ms", "100"),
                    ],
                ),
                "504 a",
            ),
        Case::new("the_timeout_of_a_try_counts_without_retries")
            .script("a", [late()])
            .send(ask("/", &[("x-envoy-upstream-rq-per-try-timeout-ms", "100")]), "504 a"),
        Case::new("another_status_on_the_timeout_of_a_try").script("a", [late()]).send(
            ask(
                "/",
                &[
                    ("x-envoy-upstream-rq-per-try-timeout-ms", "100"),
                    ("x-envoy-upstream-rq-timeout-alt-response", "x"),
                ],
            ),
            "204 a",
        ),
        Case::new("another_status_is_for_timeouts_only")
            .script("a", [failing(503)])
            .send(ask("/", &[("x-envoy-upstream-rq-timeout-alt-response", "1")]), "503 a"),
        Case::new("the_life_of_a_stream_is_bounded_on_demand")
            .script("a", [late()])
            .send(ask("/", &[("x-envoy-upstream-stream-duration-ms", "100")]), "504 a"),
        Case::new("the_life_of_a_stream_includes_its_response")
            .script("a", [slow_body()])
            .send(ask("/", &[("x-envoy-upstream-stream-duration-ms", "200")]), "200 a"),
        Case::new("an_expected_timeout_of_a_client_is_replaced")
            .send(ask("/", &[("x-envoy-expected-rq-timeout-ms", "7")]), "200 a"),
    ]
}

fn strict() -> Vec<Case> {
    let strict = |case: Case, name: &str, value: &str, expected: &'static str| {
        case.send_to("LISTEN_ROUTER", ask("/", &[(name, value)]), expected)
    };
    let mut wrong = Case::new("a_malformed_header_is_refused_where_asked_for");
    let mut right = Case::new("a_well_formed_header_passes_where_asked_for");
    for (name, bad, good) in [
        ("x-envoy-upstream-rq-timeout-ms", "5s", "5000"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "x", "5000"),
        ("x-envoy-max-retries", "many", "1"),
        ("x-envoy-retry-on", "5xx,6xx", "5xx,reset"),
        ("x-envoy-retry-grpc-on", "canceled", "cancelled"),
    ] {
        wrong = strict(wrong, name, bad, "400 -");
        right = strict(right, name, good, "200 a");
    }
    vec![
        wrong,
        right,
        Case::new("an_expected_timeout_is_the_timeout_where_it_is_respected")
            .script("a", [late()])
            .send_to(
                "LISTEN_ROUTER",
                ask(
                    "/",
                    &[
                        ("x-envoy-expected-rq-timeout-ms", "100"),
                        ("x-envoy-upstream-rq-timeout-ms", "5000"),
                    ],
                ),
                "504 a",
            )
            .script("a", [late()])
            .send_to(
                "LISTEN_ROUTER",
                ask("/", &[("x-envoy-upstream-rq-timeout-ms", "100")]),
                "504 a",
            ),
    ]
}

fn outside() -> Vec<Case> {
    vec![
        Case::new("a_client_behind_a_proxy_is_not_internal").script("a", [failing(500)]).send(
            ask("/", &[("x-forwarded-for", "127.0.0.1"), ("x-envoy-retry-on", "5xx")]),
            "500 a",
        ),
        Case::new("nobody_is_internal_where_nothing_is_configured")
            .script("a", [failing(500)])
            .send_to("LISTEN_OUTSIDE", ask("/", &[("x-envoy-retry-on", "5xx")]), "500 a"),
        Case::new("what_only_insiders_may_say_is_removed").send_to(
            "LISTEN_OUTSIDE",
            ask(
                "/",
                &[
                    ("x-envoy-internal", "true"),
                    ("x-envoy-upstream-alt-stat-name", "mine"),
                    ("x-envoy-original-url", "http://a/"),
                    ("x-envoy-hedge-on-per-try-timeout", "true"),
                    ("x-envoy-decorator-operation", "a"),
                    ("x-envoy-downstream-service-cluster", "a"),
                    ("x-envoy-max-retries", "1"),
                    ("x-envoy-retriable-header-names", "a"),
                    ("x-envoy-something-else", "stays"),
                ],
            ),
            "200 a",
        ),
        Case::new("what_insiders_say_is_used_or_passed_on").send(
            ask(
                "/",
                &[
                    ("x-envoy-internal", "false"),
                    ("x-envoy-upstream-alt-stat-name", "mine"),
                    ("x-envoy-original-url", "http://a/"),
                    ("x-envoy-hedge-on-per-try-timeout", "true"),
                    ("x-envoy-decorator-operation", "a"),
                    ("x-envoy-downstream-service-cluster", "a"),
                    ("x-envoy-max-retries", "1"),
                    ("x-envoy-retriable-header-names", "a"),
                    ("x-envoy-something-else", "stays"),
                    ("x-request-id", "mine"),
                ],
            ),
            "200 a",
        ),
    ]
}

/// A response of headers only, as gRPC servers send their errors.
fn grpc_error(status: &str) -> Reply {
    Reply::status(200).header("content-type", "application/grpc").header("grpc-status", status)
}

fn counted() -> Vec<Case> {
    vec![Case::custom("responses_are_counted_by_whom_they_are_for", |world| {
        Box::pin(statistics(
            world,
            &[
                "cluster.a.internal.upstream_rq_2",
                "cluster.a.internal.upstream_rq_5",
                "cluster.a.internal.upstream_rq_completed",
                "cluster.a.external.upstream_rq_2",
                "cluster.a.external.upstream_rq_completed",
                "cluster.a.upstream_rq_retry",
                "cluster.a.retry.",
                "cluster.a.upstream_rq_per_try_timeout",
                "cluster.a.upstream_rq_max_duration_reached",
                "cluster.a.upstream_rq_timeout",
            ],
        ))
    })]
}
