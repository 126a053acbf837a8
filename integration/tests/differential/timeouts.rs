//! What happens when something takes too long.

use std::time::Duration;

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- {match: {prefix: /short}, route: {cluster: a, timeout: 0.1s}}
- {match: {prefix: /off}, route: {cluster: a, timeout: 0s}}
- {match: {prefix: /idle}, route: {cluster: a, timeout: 0s, idle_timeout: 0.15s}}
- {match: {prefix: /}, route: {cluster: a}}
"#;

pub(crate) fn group() -> Group {
    Group {
        name: "timeouts",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &routes(ROUTES))],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let late = || Reply::status(200).body("late").after(Duration::from_millis(500));
    let slow_body = || {
        Reply::status(200)
            .chunks(&["one", "two", "three"])
            .between_chunks(Duration::from_millis(80))
    };
    vec![
        Case::new("a_late_answer_is_a_gateway_timeout")
            .script("a", [late()])
            .get("/short", "504 a"),
        Case::new("a_late_answer_over_http2")
            .script("a", [late()])
            .send(Request::get("/short").http2(), "504 a"),
        Case::new("a_late_answer_to_grpc").script("a", [late()]).send(
            Request::post("/short", "").http2().header("content-type", "application/grpc"),
            "200 a",
        ),
        Case::new("an_answer_in_time_passes").get("/short", "200 a"),
        Case::new("zero_means_no_timeout").script("a", [late()]).get("/off", "200 a"),
        Case::new("a_body_that_takes_too_long_is_cut")
            .script("a", [slow_body()])
            .get("/short", "200 a"),
        Case::new("a_body_that_takes_too_long_is_cut_over_http2")
            .script("a", [slow_body()])
            .send(Request::get("/short").http2(), "200 a"),
        Case::new("an_outside_client_cannot_set_the_timeout")
            .script("a", [late()])
            .send(Request::get("/").header("x-envoy-upstream-rq-timeout-ms", "100"), "200 a"),
        Case::new("the_expected_timeout_is_told_upstream")
            .get("/", "200 a")
            .get("/short", "200 a")
            .get("/off", "200 a"),
        Case::new("a_silent_stream_is_ended").script("a", [late()]).get("/idle", "504 a"),
        Case::new("a_stream_that_moves_is_not_idle")
            .script("a", [slow_body()])
            .get("/idle", "200 a"),
    ]
}
