//! Clients whose address counts as internal may steer timeouts and retries by request headers.

use std::time::Duration;

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- match: {prefix: /5xx}
  route: {cluster: a, retry_policy: {retry_on: 5xx}}
- match: {prefix: /tries}
  route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 2}}
- {match: {prefix: /}, route: {cluster: a}}
"#;

const INTERNAL: &str = "
use_remote_address: true
internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}
";

pub(crate) fn group() -> Group {
    Group {
        name: "internal",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &format!("{INTERNAL}{}", routes(ROUTES)))],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: Some("internal_address_config.cidr_ranges"),
        cases: cases(),
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
