//! An attempt that is late goes on beside the next, and the first good response wins.

use std::time::Duration;

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};

const ROUTES: &str = r#"
- match: {prefix: /plain}
  route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.15s}}
- match: {prefix: /status}
  route: {cluster: a, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {retry_on: retriable-4xx, num_retries: 1, per_try_timeout: 0.15s}}
- match: {prefix: /two}
  route: {cluster: a, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {retry_on: 5xx, num_retries: 2, per_try_timeout: 0.15s}}
- match: {prefix: /wide}
  route: {cluster: a, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.4s}}
- match: {prefix: /none}
  route: {cluster: a, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {per_try_timeout: 0.15s}}
- match: {prefix: /short}
  route: {cluster: a, timeout: 0.4s, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.15s}}
- match: {prefix: /off}
  route: {cluster: a, hedge_policy: {}, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.15s}}
- match: {prefix: /}
  route: {cluster: a, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.15s}}
"#;

pub(crate) fn group() -> Group {
    let hosts = format!(
        "route_config:
  name: test
  virtual_hosts:
  - name: inherited
    domains: [inherited.example]
    hedge_policy: {{hedge_on_per_try_timeout: true}}
    include_is_timeout_retry_header: true
    include_request_attempt_count: true
    routes:
{}
  - name: all
    domains: ['*']
    routes:
{}",
        indent(ROUTES, 4),
        indent(ROUTES, 4)
    );
    Group {
        name: "hedging",
        bootstrap: bootstrap(&[http_listener("LISTEN", &hosts)], &[cluster("a", &["a"], "")]),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

fn after(status: u16, body: &str, milliseconds: u64) -> Reply {
    Reply::status(status).body(body.to_owned()).after(Duration::from_millis(milliseconds))
}

fn cases() -> Vec<Case> {
    vec![
        Case::new("a_quick_response_needs_no_second_attempt").get("/", "200 a"),
        Case::new("the_second_attempt_may_win")
            .script("a", [after(200, "first", 900), after(200, "second", 0)])
            .get("/", "200 a,a"),
        Case::new("the_first_attempt_may_still_win")
            .script("a", [after(200, "first", 400), after(200, "second", 900)])
            .get("/", "200 a,a"),
        Case::new("without_hedging_the_first_attempt_is_given_up")
            .script("a", [after(200, "first", 400), after(200, "second", 100)])
            .get("/plain", "200 a,a")
            .script("a", [after(200, "first", 400), after(200, "second", 100)])
            .get("/off", "200 a,a"),
        Case::new("a_bad_response_waits_for_the_other")
            .script("a", [after(200, "first", 500), after(503, "second", 0)])
            .get("/", "200 a,a")
            .script("a", [after(503, "first", 550), after(200, "second", 300)])
            .get("/wide", "200 a,a"),
        Case::new("two_bad_responses_give_the_last")
            .script("a", [after(503, "first", 500), after(502, "second", 0)])
            .get("/", "503 a,a"),
        Case::new("a_reset_waits_for_the_other")
            .script("a", [after(200, "first", 500), Reply::reset()])
            .get("/", "200 a,a"),
        Case::new("a_late_attempt_is_repeated_whatever_the_conditions")
            .script("a", [after(200, "first", 900), after(200, "second", 0)])
            .get("/status", "200 a,a"),
        Case::new("three_attempts_side_by_side")
            .script("a", [after(200, "one", 1500), after(200, "two", 1500), after(200, "three", 0)])
            .get("/two", "200 a,a,a"),
        Case::new("a_late_attempt_is_only_late_where_nothing_is_retried")
            .script("a", [after(200, "first", 400)])
            .get("/none", "200 a"),
        Case::new("the_timeout_of_the_route_ends_all_attempts")
            .script("a", [after(200, "first", 1500), after(200, "second", 1500)])
            .get("/short", "504 a,a"),
        Case::new("a_policy_of_the_virtual_host_applies")
            .script("a", [after(200, "first", 400), after(200, "second", 900)])
            .send(Request::get("/plain").host("inherited.example"), "200 a,a"),
        Case::new("a_retry_says_whether_a_timeout_was_the_cause")
            .script("a", [after(503, "first", 0)])
            .send(Request::get("/").host("inherited.example"), "200 a,a"),
        Case::new("a_body_is_sent_to_both")
            .script("a", [after(200, "first", 400), after(200, "second", 900)])
            .send(Request::post("/", "the body"), "200 a,a")
            .script("a", [after(200, "first", 900), after(200, "second", 0)])
            .send(Request::new("POST", "/").chunks(&["the ", "body"]).http2(), "200 a,a"),
        Case::custom("hedged_attempts_are_counted", |world| {
            Box::pin(statistics(
                world,
                &[
                    "cluster.a.upstream_rq_retry",
                    "cluster.a.upstream_rq_per_try_timeout",
                    "cluster.a.upstream_rq_timeout",
                    "cluster.a.upstream_rq_total",
                    "cluster.a.retry.",
                    "cluster.a.upstream_rq_2",
                    "cluster.a.upstream_rq_5",
                ],
            ))
        }),
    ]
}
