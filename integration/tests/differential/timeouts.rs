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
- {match: {prefix: /stream}, route: {cluster: a, timeout: 0.1s, max_stream_duration: {max_stream_duration: 0.3s}}}
- {match: {prefix: /zero}, route: {cluster: a, max_stream_duration: {max_stream_duration: 0s}}}
- {match: {prefix: /grpc}, route: {cluster: a, max_stream_duration: {max_stream_duration: 3s, grpc_timeout_header_max: 1s, grpc_timeout_header_offset: 0.05s}}}
- {match: {prefix: /any-grpc}, route: {cluster: a, max_stream_duration: {grpc_timeout_header_max: 0s}}}
- {match: {prefix: /old-grpc}, route: {cluster: a, max_grpc_timeout: 0.3s, grpc_timeout_offset: 0.05s}}
- {match: {prefix: /try-idle}, route: {cluster: a, retry_policy: {retry_on: 5xx, per_try_idle_timeout: 0.15s}}}
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
        Case::new("the_life_of_a_stream_takes_the_place_of_the_timeout")
            .script("a", [late()])
            .get("/stream", "504 a")
            .get("/stream", "200 a")
            .script("a", [late()])
            .get("/zero", "200 a"),
        Case::new("the_life_of_a_stream_ends_its_body")
            .script("a", [slow_body().between_chunks(Duration::from_millis(200))])
            .get("/stream", "200 a")
            .script("a", [slow_body().between_chunks(Duration::from_millis(200))])
            .send(Request::get("/stream").http2(), "200 a"),
        grpc_timeouts("grpc_timeout_bounds_the_stream", "/grpc"),
        grpc_timeouts("grpc_timeout_without_a_bound", "/any-grpc"),
        grpc_timeouts("grpc_timeout_as_the_timeout_of_the_route", "/old-grpc"),
        Case::new("a_call_that_is_over_its_time")
            .script("a", [late()])
            .send(grpc("/grpc", Some("100m")), "200 a")
            .script("a", [late()])
            .send(grpc("/old-grpc", None), "200 a")
            .script("a", [late()])
            .send(grpc("/", Some("100m")), "200 a"),
        Case::new("a_silent_attempt_is_given_up")
            .script("a", [late()])
            .get("/try-idle", "200 a,a")
            .script("a", [late(), late()])
            .get("/try-idle", "504 a,a"),
        Case::new("an_attempt_that_falls_silent_is_cut")
            .script("a", [slow_body().between_chunks(Duration::from_millis(400))])
            .get("/try-idle", "200 a")
            .script("a", [slow_body()])
            .get("/try-idle", "200 a"),
        Case::new("a_stream_that_moves_is_not_idle")
            .script("a", [slow_body()])
            .get("/idle", "200 a"),
    ]
}

fn grpc(path: &str, timeout: Option<&str>) -> Request {
    let request = Request::post(path, "").http2().header("content-type", "application/grpc");
    match timeout {
        Some(timeout) => request.header("grpc-timeout", timeout),
        None => request,
    }
}

/// What becomes of `grpc-timeout` on its way, in every unit.
fn grpc_timeouts(name: &'static str, path: &str) -> Case {
    let asked = ["10S", "500m", "20000000u", "99999999H", "1M", "x"];
    let case = Case::new(name).send(grpc(path, None), "200 a");
    let case = asked.iter().fold(case, |case, asked| case.send(grpc(path, Some(asked)), "200 a"));
    case.send(Request::get(path).header("grpc-timeout", "500m"), "200 a")
}
