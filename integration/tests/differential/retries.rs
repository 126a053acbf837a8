//! Which failed tries are repeated, how often, where, and what is sent again.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, indent};

const ROUTES: &str = r#"
- match: {prefix: /5xx}
  route: {cluster: a, retry_policy: {retry_on: 5xx}}
- match: {prefix: /two}
  route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s}}}
- match: {prefix: /gateway}
  route: {cluster: a, retry_policy: {retry_on: gateway-error}}
- match: {prefix: /reset-before}
  route: {cluster: a, retry_policy: {retry_on: reset-before-request}}
- match: {prefix: /reset}
  route: {cluster: a, retry_policy: {retry_on: reset}}
- match: {prefix: /409}
  route: {cluster: a, retry_policy: {retry_on: retriable-4xx}}
- match: {prefix: /codes}
  route: {cluster: a, retry_policy: {retry_on: retriable-status-codes, retriable_status_codes: [418]}}
- match: {prefix: /connect}
  route: {cluster: half, retry_policy: {retry_on: connect-failure, num_retries: 3}}
- match: {prefix: /no-connect}
  route: {cluster: closed, retry_policy: {retry_on: connect-failure}}
- match: {prefix: /grpc}
  route: {cluster: a, retry_policy: {retry_on: "unavailable,cancelled"}}
- match: {prefix: /try-timeout}
  route: {cluster: a, retry_policy: {retry_on: 5xx, per_try_timeout: 0.1s}}
- match: {prefix: /several}
  route: {cluster: a, retry_policy: {retry_on: "connect-failure,reset,retriable-status-codes", retriable_status_codes: [500, 418]}}
- match: {prefix: /other-host}
  route:
    cluster: three
    retry_policy:
      retry_on: 5xx
      num_retries: 2
      retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]
      host_selection_retry_max_attempts: 30
- match: {prefix: /asked}
  route: {cluster: a, retry_policy: {retry_on: 5xx, rate_limited_retry_back_off: {reset_headers: [{name: retry-after}], max_interval: 2s}}}
- {match: {prefix: /none}, route: {cluster: a}}
"#;

pub(crate) fn group() -> Group {
    let hosts = format!(
        "route_config:
  name: test
  virtual_hosts:
  - name: counted
    domains: [counted.example]
    include_request_attempt_count: true
    include_attempt_count_in_response: true
    routes:
{}
  - name: inherited
    domains: [inherited.example]
    retry_policy: {{retry_on: 5xx}}
    routes: [{{match: {{prefix: /}}, route: {{cluster: a}}}}]
  - name: all
    domains: ['*']
    routes:
{}",
        indent(ROUTES, 4),
        indent(ROUTES, 4)
    );
    Group {
        name: "retries",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &hosts)],
            &[
                cluster("a", &["a"], ""),
                cluster("closed", &["closed"], ""),
                cluster("half", &["closed", "a"], ""),
                cluster("three", &["one", "two", "three"], "lb_policy: ROUND_ROBIN"),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
            ("one", UpstreamKind::Plain),
            ("two", UpstreamKind::Plain),
            ("three", UpstreamKind::Plain),
        ],
        unsupported: None,
        cases: [conditions(), limits(), requests()].into_iter().flatten().collect(),
    }
}

fn failing(status: u16) -> Reply {
    Reply::status(status).body("failed")
}

fn conditions() -> Vec<Case> {
    vec![
        Case::new("5xx_is_retried").script("a", [failing(500)]).get("/5xx", "200 a,a"),
        Case::new("4xx_is_not_retried_on_5xx").script("a", [failing(404)]).get("/5xx", "404 a"),
        Case::new("without_a_policy_nothing_is_retried")
            .script("a", [failing(503)])
            .get("/none", "503 a"),
        Case::new("gateway_error_means_502_503_504")
            .script("a", [failing(502)])
            .get("/gateway", "200 a,a")
            .script("a", [failing(503)])
            .get("/gateway", "200 a,a")
            .script("a", [failing(504)])
            .get("/gateway", "200 a,a")
            .script("a", [failing(500)])
            .get("/gateway", "500 a"),
        Case::new("a_reset_is_retried_on_reset")
            .script("a", [Reply::reset()])
            .get("/reset", "200 a,a"),
        Case::new("a_reset_counts_as_5xx").script("a", [Reply::reset()]).get("/5xx", "200 a,a"),
        Case::new("a_reset_counts_as_gateway_error")
            .script("a", [Reply::reset()])
            .get("/gateway", "200 a,a"),
        Case::new("a_reset_of_a_sent_request_is_not_before_request")
            .script("a", [Reply::reset()])
            .get("/reset-before", "503 a"),
        Case::new("a_status_is_no_reset").script("a", [failing(503)]).get("/reset", "503 a"),
        Case::new("retriable_4xx_means_409")
            .script("a", [failing(409)])
            .get("/409", "200 a,a")
            .script("a", [failing(400)])
            .get("/409", "400 a"),
        Case::new("retriable_status_codes")
            .script("a", [failing(418)])
            .get("/codes", "200 a,a")
            .script("a", [failing(500)])
            .get("/codes", "500 a"),
        Case::new("a_response_says_when_to_try_again")
            .script("a", [failing(503).header("retry-after", "1")])
            .get("/asked", "200 a,a")
            .script("a", [failing(503).header("retry-after", "3600")])
            .get("/asked", "200 a,a"),
        Case::new("several_conditions")
            .script("a", [failing(418)])
            .get("/several", "200 a,a")
            .script("a", [Reply::reset()])
            .get("/several", "200 a,a"),
        Case::new("a_connect_failure_is_retried_on_another_endpoint")
            .get("/connect/1", "200 a")
            .get("/connect/2", "200 a")
            .get("/connect/3", "200 a")
            .get("/connect/4", "200 a"),
        Case::new("a_connect_failure_of_every_endpoint").get("/no-connect", "503 -"),
        Case::new("grpc_statuses_are_retried")
            .script("a", [grpc_error("14")])
            .send(grpc("/grpc"), "200 a,a")
            .script("a", [grpc_error("1")])
            .send(grpc("/grpc"), "200 a,a")
            .script("a", [grpc_error("13")])
            .send(grpc("/grpc"), "200 a"),
        Case::new("what_an_upstream_says_about_overload_does_not_matter")
            .script("a", [failing(503).header("x-envoy-overloaded", "true")])
            .get("/5xx", "200 a,a"),
        Case::new("a_policy_of_the_virtual_host_applies")
            .script("a", [failing(500)])
            .send(Request::get("/").host("inherited.example"), "200 a,a"),
    ]
}

fn limits() -> Vec<Case> {
    let slow = || Reply::status(200).body("late").after(Duration::from_millis(600));
    vec![
        Case::new("one_retry_is_the_default")
            .script("a", [failing(500), failing(503)])
            .get("/5xx", "503 a,a"),
        Case::new("num_retries")
            .script("a", [failing(500), failing(502), failing(503)])
            .get("/two", "503 a,a,a")
            .script("a", [failing(500), failing(502)])
            .get("/two", "200 a,a,a"),
        Case::new("attempts_are_counted_for_both_sides")
            .script("a", [failing(500), failing(500)])
            .send(Request::get("/two").host("counted.example"), "200 a,a,a"),
        Case::new("a_forged_attempt_count_is_replaced").send(
            Request::get("/two").host("counted.example").header("x-envoy-attempt-count", "7"),
            "200 a",
        ),
        Case::new("per_try_timeout_is_retried")
            .script("a", [slow()])
            .get("/try-timeout", "200 a,a"),
        Case::new("per_try_timeout_of_every_try")
            .script("a", [slow(), slow()])
            .get("/try-timeout", "504 a,a"),
        Case::custom("previous_hosts_are_avoided", |world| Box::pin(other_host(world))),
    ]
}

fn requests() -> Vec<Case> {
    vec![
        Case::new("the_body_is_sent_again")
            .script("a", [failing(500)])
            .send(Request::post("/5xx", "the body"), "200 a,a"),
        Case::new("a_chunked_body_and_its_trailers_are_sent_again")
            .script("a", [failing(500)])
            .send(Request::new("POST", "/5xx").chunks(&["one", "two"]), "200 a,a"),
        Case::new("a_body_over_http2_is_sent_again")
            .script("a", [failing(500)])
            .send(Request::post("/5xx", "the body").http2(), "200 a,a"),
        Case::new("a_post_is_retried_like_a_get")
            .script("a", [Reply::reset()])
            .send(Request::post("/5xx", ""), "200 a,a"),
        Case::new("an_outside_client_cannot_ask_for_retries").script("a", [failing(500)]).send(
            Request::get("/none")
                .header("x-envoy-retry-on", "5xx")
                .header("x-envoy-max-retries", "2"),
            "500 a",
        ),
    ]
}

fn grpc(path: &str) -> Request {
    Request::post(path, "\0\0\0\0\0")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// A response of headers only, as gRPC servers send their errors.
fn grpc_error(status: &str) -> Reply {
    Reply::status(200).header("content-type", "application/grpc").header("grpc-status", status)
}

/// Two of three endpoints fail; whichever comes first, the third try reaches the good one, and none is asked twice.
async fn other_host(world: &World) -> Result<Observation> {
    let names = ["one", "two", "three"];
    let mut observation = Observation::default();
    for good in names {
        for name in names {
            let bad = (name != good).then(|| failing(500));
            world.upstream(name)?.default_reply(bad);
        }
        let outcome = Request::get("/other-host").send(world.address("LISTEN")?).await;
        ensure!(outcome.status() == 200 && outcome.body() == good, "{outcome:?}");
        for name in names {
            let count = world.upstream(name)?.take().len();
            ensure!(count <= 1, "{name} was tried {count} times");
        }
        observation.outcome(good, &outcome, &world.values);
    }
    Ok(observation)
}
