//! HTTP filters and what routes say about them: on, off, and otherwise.

use std::time::{Duration, Instant};

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http";
const OFF: &str =
    "{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}";

/// A listener with one filter, its routes, and what the virtual host says about it.
fn listener(place: &str, filter: &str, host: &str, routes: &str) -> String {
    let manager = format!(
        "route_config:
  name: test
  virtual_hosts:
  - name: all
    domains: ['*']
    typed_per_filter_config: {host}
    routes:
{}
http_filters:
{}
- ROUTER",
        indent(routes, 4),
        filter
    );
    http_listener(place, &manager)
}

fn cors() -> String {
    let host = format!(
        "{{cors: {{{TYPE}.cors.v3.CorsPolicy, allow_origin_string_match: [{{exact: 'http://a'}}, {{suffix: .example}}], allow_methods: 'GET, PUT', allow_headers: x-a, expose_headers: x-b, max_age: '60', allow_credentials: true}}}}"
    );
    let routes = format!(
        "- match: {{prefix: /off}}
  route: {{cluster: a}}
  typed_per_filter_config: {{cors: {OFF}}}
- match: {{prefix: /other}}
  route: {{cluster: a}}
  typed_per_filter_config: {{cors: {{{TYPE}.cors.v3.CorsPolicy, allow_origin_string_match: [{{exact: '*'}}], allow_credentials: false, forward_not_matching_preflights: false}}}}
- match: {{prefix: /strict}}
  route: {{cluster: a}}
  typed_per_filter_config: {{cors: {{{TYPE}.cors.v3.CorsPolicy, forward_not_matching_preflights: false}}}}
- match: {{prefix: /shadow}}
  route: {{cluster: a}}
  typed_per_filter_config: {{cors: {{{TYPE}.cors.v3.CorsPolicy, filter_enabled: {{default_value: {{numerator: 0}}}}, shadow_enabled: {{default_value: {{numerator: 100}}}}}}}}
- match: {{prefix: /}}
  route: {{cluster: a}}"
    );
    let filter = format!("- {{name: cors, typed_config: {{{TYPE}.cors.v3.Cors}}}}");
    listener("LISTEN_CORS", &filter, &host, &routes)
}

fn fault() -> String {
    let fault = |more: &str| format!("{{fault: {{{TYPE}.fault.v3.HTTPFault, {more}}}}}");
    let routes = [
        ("/abort", "abort: {http_status: 418, percentage: {numerator: 100}}"),
        ("/never", "abort: {http_status: 418, percentage: {numerator: 0}}"),
        ("/grpc", "abort: {grpc_status: 5, percentage: {numerator: 100}}"),
        ("/delay", "delay: {fixed_delay: 0.05s, percentage: {numerator: 100}}"),
        (
            "/both",
            "delay: {fixed_delay: 0.05s, percentage: {numerator: 100}}, abort: {http_status: 503, percentage: {numerator: 100}}",
        ),
        (
            "/asked",
            "delay: {header_delay: {}, percentage: {numerator: 100}}, abort: {header_abort: {}, percentage: {numerator: 100}}",
        ),
        (
            "/headers",
            "abort: {http_status: 418, percentage: {numerator: 100}}, headers: [{name: x-fault, string_match: {exact: 'yes'}}]",
        ),
        (
            "/cluster",
            "abort: {http_status: 418, percentage: {numerator: 100}}, upstream_cluster: other",
        ),
        (
            "/node",
            "abort: {http_status: 418, percentage: {numerator: 100}}, downstream_nodes: [n1]",
        ),
        (
            "/slow",
            "response_rate_limit: {fixed_limit: {limit_kbps: 4}, percentage: {numerator: 100}}",
        ),
        ("/asked-slow", "response_rate_limit: {header_limit: {}, percentage: {numerator: 100}}"),
        (
            "/dragging",
            "response_rate_limit: {fixed_limit: {limit_kbps: 1}, percentage: {numerator: 100}}, abort: {http_status: 503, percentage: {numerator: 100}}",
        ),
        ("/full", "abort: {http_status: 418, percentage: {numerator: 100}}, max_active_faults: 0"),
    ];
    let routes: String = routes
        .iter()
        .map(|(path, config)| {
            format!(
                "- {{match: {{prefix: {path}}}, route: {{cluster: a}}, typed_per_filter_config: {}}}\n",
                fault(config)
            )
        })
        .collect();
    let routes = format!(
        "{routes}- match: {{prefix: /weighted}}
  route:
    weighted_clusters:
      clusters:
      - {{name: a, weight: 1, typed_per_filter_config: {}}}
- {{match: {{prefix: /off}}, route: {{cluster: a}}, typed_per_filter_config: {{fault: {OFF}}}}}
- {{match: {{prefix: /}}, route: {{cluster: a}}}}\n",
        fault("abort: {http_status: 451, percentage: {numerator: 100}}")
    );
    let filter = format!(
        "- {{name: fault, typed_config: {{{TYPE}.fault.v3.HTTPFault, abort: {{http_status: 599, percentage: {{numerator: 100}}}}}}}}"
    );
    listener("LISTEN_FAULT", &filter, "{}", &routes)
}

fn limit() -> String {
    let limit = |more: &str| {
        format!("{{{TYPE}.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit, {more}}}")
    };
    let all = "{default_value: {numerator: 100}}";
    let bucket = |max: u32| {
        format!("token_bucket: {{max_tokens: {max}, tokens_per_fill: 1, fill_interval: 3600s}}")
    };
    let one = format!("{}, filter_enabled: {all}, filter_enforced: {all}", bucket(1));
    let routes = [
        ("/one", one.clone()),
        (
            "/added",
            format!(
                "{one}, status: {{code: 503}}, response_headers_to_add: [{{header: {{key: x-limited, value: '1'}}}}]"
            ),
        ),
        ("/low", format!("{one}, status: {{code: 200}}")),
        ("/exhausted", format!("{one}, rate_limited_as_resource_exhausted: true")),
        (
            "/shadow",
            format!(
                "{}, filter_enabled: {all}, request_headers_to_add_when_not_enforced: [{{header: {{key: x-would-limit, value: '1'}}}}]",
                bucket(1)
            ),
        ),
        ("/disabled", bucket(1)),
        ("/none", format!("{}, filter_enabled: {all}, filter_enforced: {all}", bucket(0))),
    ];
    let routes: String = routes
        .iter()
        .map(|(path, config)| {
            format!(
                "- {{match: {{prefix: {path}}}, route: {{cluster: a}}, typed_per_filter_config: {{limit: {}}}}}\n",
                limit(config)
            )
        })
        .collect();
    let routes = format!("{routes}- {{match: {{prefix: /}}, route: {{cluster: a}}}}");
    let filter = format!(
        "- {{name: limit, typed_config: {{{TYPE}.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}}}}"
    );
    listener("LISTEN_LIMIT", &filter, "{}", &routes)
}

fn mutation(place: &str, more: &str) -> String {
    let append = |name: &str, value: &str, action: &str| {
        format!(
            "{{append: {{header: {{key: {name}, value: '{value}'}}, append_action: {action}}}}}"
        )
    };
    let level = |level: &str| {
        format!(
            "{{mutation: {{{TYPE}.header_mutation.v3.HeaderMutationPerRoute, mutations: {{request_mutations: [{}], response_mutations: [{}]}}}}}}",
            append("x-level", level, "OVERWRITE_IF_EXISTS_OR_ADD"),
            append("x-level", level, "OVERWRITE_IF_EXISTS_OR_ADD"),
        )
    };
    let routes = format!(
        "- {{match: {{prefix: /off}}, route: {{cluster: a}}, typed_per_filter_config: {{mutation: {OFF}}}}}
- {{match: {{prefix: /direct}}, direct_response: {{status: 200, body: {{inline_string: hello}}}}, typed_per_filter_config: {}}}
- {{match: {{prefix: /}}, route: {{cluster: a}}, typed_per_filter_config: {}}}",
        level("route"),
        level("route"),
    );
    let request = [
        append("x-a", "1", "APPEND_IF_EXISTS_OR_ADD"),
        append("x-b", "%REQ(x-a)% %PROTOCOL%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        "{remove: x-gone}".to_owned(),
        append("x-gone", "back", "ADD_IF_ABSENT"),
        "{remove_on_match: {key_matcher: {prefix: x-no-}}}".to_owned(),
    ]
    .join(", ");
    let response = [
        append("x-answer", "%REQ(x-a)% %RESPONSE_CODE%", "APPEND_IF_EXISTS_OR_ADD"),
        "{remove: x-secret}".to_owned(),
    ]
    .join(", ");
    let filter = format!(
        "- {{name: mutation, typed_config: {{{TYPE}.header_mutation.v3.HeaderMutation, {more} mutations: {{request_mutations: [{request}], response_mutations: [{response}]}}}}}}"
    );
    listener(place, &filter, &level("host"), &routes)
}

fn buffer() -> String {
    let routes = format!(
        "- {{match: {{prefix: /off}}, route: {{cluster: a}}, typed_per_filter_config: {{buffer: {{{TYPE}.buffer.v3.BufferPerRoute, disabled: true}}}}}}
- {{match: {{prefix: /large}}, route: {{cluster: a}}, typed_per_filter_config: {{buffer: {{{TYPE}.buffer.v3.BufferPerRoute, buffer: {{max_request_bytes: 100000}}}}}}}}
- {{match: {{prefix: /}}, route: {{cluster: a}}}}"
    );
    let filter = format!(
        "- {{name: buffer, typed_config: {{{TYPE}.buffer.v3.Buffer, max_request_bytes: 1000}}}}"
    );
    listener("LISTEN_BUFFER", &filter, "{}", &routes)
}

/// A filter that is off until a route turns it on.
fn disabled() -> String {
    let routes = format!(
        "- {{match: {{prefix: /own}}, route: {{cluster: a}}, typed_per_filter_config: {{fault: {{{TYPE}.fault.v3.HTTPFault, abort: {{http_status: 418, percentage: {{numerator: 100}}}}}}}}}}
- {{match: {{prefix: /}}, route: {{cluster: a}}}}"
    );
    let filter = format!(
        "- {{name: fault, disabled: true, typed_config: {{{TYPE}.fault.v3.HTTPFault, abort: {{http_status: 599, percentage: {{numerator: 100}}}}}}}}"
    );
    listener("LISTEN_DISABLED", &filter, "{}", &routes)
}

pub(crate) fn group() -> Group {
    Group {
        name: "filters",
        bootstrap: bootstrap(
            &[
                cors(),
                fault(),
                limit(),
                mutation("LISTEN_MUTATION", ""),
                mutation("LISTEN_SPECIFIC", "most_specific_header_mutations_wins: true,"),
                buffer(),
                disabled(),
            ],
            &[cluster("a", &["a"], ""), cluster("other", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: [cors_cases(), fault_cases(), other_cases(), vec![counted()]]
            .into_iter()
            .flatten()
            .collect(),
    }
}

fn cors_cases() -> Vec<Case> {
    let get = |path: &str, origin: &str| Request::get(path).header("origin", origin);
    let preflight = |path: &str, origin: &str| {
        Request::new("OPTIONS", path)
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
    };
    vec![
        Case::new("a_response_to_an_allowed_origin_says_so")
            .send_to("LISTEN_CORS", get("/", "http://a"), "200 a")
            .send_to("LISTEN_CORS", get("/", "http://x.example"), "200 a")
            .send_to("LISTEN_CORS", get("/", "http://b"), "200 a")
            .send_to("LISTEN_CORS", Request::get("/"), "200 a"),
        Case::new("a_preflight_of_an_allowed_origin_is_answered")
            .send_to("LISTEN_CORS", preflight("/", "http://a"), "200 -")
            .send_to("LISTEN_CORS", preflight("/", "http://a").http2(), "200 -")
            .send_to("LISTEN_CORS", preflight("/", "http://b"), "200 a")
            .send_to(
                "LISTEN_CORS",
                Request::new("OPTIONS", "/").header("origin", "http://a"),
                "200 a",
            ),
        Case::new("a_route_says_otherwise_field_by_field")
            .send_to("LISTEN_CORS", preflight("/other", "http://b"), "200 -")
            .send_to("LISTEN_CORS", get("/other", "http://b"), "200 a")
            .send_to("LISTEN_CORS", preflight("/strict", "http://b"), "200 -")
            .send_to("LISTEN_CORS", preflight("/strict", "http://a"), "200 -")
            .send_to("LISTEN_CORS", get("/shadow", "http://a"), "200 a"),
        Case::new("cors_is_off_where_a_route_says_so").send_to(
            "LISTEN_CORS",
            preflight("/off", "http://a"),
            "200 a",
        ),
    ]
}

fn fault_cases() -> Vec<Case> {
    let get = |path: &str| Request::get(path);
    let grpc =
        |path: &str| Request::post(path, "").http2().header("content-type", "application/grpc");
    let asked = |name: &str, value: &str| get("/asked").header(name, value);
    vec![
        Case::new("an_abort_is_configured_at_each_level")
            .send_to("LISTEN_FAULT", get("/"), "599 -")
            .send_to("LISTEN_FAULT", get("/abort"), "418 -")
            .send_to("LISTEN_FAULT", grpc("/abort"), "200 -")
            .send_to("LISTEN_FAULT", get("/never"), "200 a")
            .send_to("LISTEN_FAULT", get("/weighted"), "451 -")
            .send_to("LISTEN_FAULT", get("/off"), "200 a"),
        Case::new("an_abort_with_a_grpc_status")
            .send_to("LISTEN_FAULT", get("/grpc"), "200 -")
            .send_to("LISTEN_FAULT", grpc("/grpc"), "200 -"),
        Case::new("a_delay_goes_before_all")
            .send_to("LISTEN_FAULT", get("/delay"), "200 a")
            .send_to("LISTEN_FAULT", get("/both"), "503 -"),
        Case::new("a_client_may_ask_for_a_fault")
            .send_to("LISTEN_FAULT", get("/asked"), "200 a")
            .send_to("LISTEN_FAULT", asked("x-envoy-fault-abort-request", "404"), "404 -")
            .send_to("LISTEN_FAULT", asked("x-envoy-fault-abort-grpc-request", "7"), "200 -")
            .send_to("LISTEN_FAULT", asked("x-envoy-fault-abort-request", "99"), "200 a")
            .send_to("LISTEN_FAULT", asked("x-envoy-fault-delay-request", "30"), "200 a")
            .send_to(
                "LISTEN_FAULT",
                asked("x-envoy-fault-abort-request", "404")
                    .header("x-envoy-fault-abort-request-percentage", "0"),
                "200 a",
            ),
        slowly("a_response_takes_as_long_as_its_rate_says", false),
        slowly("a_response_takes_as_long_as_its_rate_says_in_http2", true),
        Case::new("a_slow_response_is_whole")
            .send_to("LISTEN_FAULT", get("/slow"), "200 a")
            .send_to("LISTEN_FAULT", Request::new("HEAD", "/slow"), "200 a")
            .send_to("LISTEN_FAULT", get("/dragging"), "503 -")
            .send_to("LISTEN_FAULT", get("/dragging").http2(), "503 -")
            .send_to("LISTEN_FAULT", get("/asked-slow"), "200 a")
            .send_to(
                "LISTEN_FAULT",
                get("/asked-slow").header("x-envoy-fault-throughput-response", "1"),
                "200 a",
            )
            .send_to(
                "LISTEN_FAULT",
                get("/asked-slow")
                    .header("x-envoy-fault-throughput-response", "1")
                    .header("x-envoy-fault-throughput-response-percentage", "0"),
                "200 a",
            )
            .script("a", [Reply::status(200).chunks(&["one", "two"]).trailer("x-end", "1")])
            .send_to("LISTEN_FAULT", get("/slow").http2(), "200 a"),
        Case::new("a_fault_is_meant_for_some_requests")
            .send_to("LISTEN_FAULT", get("/headers").header("x-fault", "yes"), "418 -")
            .send_to("LISTEN_FAULT", get("/headers"), "200 a")
            .send_to("LISTEN_FAULT", get("/cluster"), "200 a")
            .send_to("LISTEN_FAULT", get("/node"), "200 a")
            .send_to(
                "LISTEN_FAULT",
                get("/node").header("x-envoy-downstream-service-node", "n1"),
                "418 -",
            )
            .send_to("LISTEN_FAULT", get("/full"), "200 a"),
        Case::new("a_filter_that_is_off_until_a_route_turns_it_on")
            .send_to("LISTEN_DISABLED", get("/"), "200 a")
            .send_to("LISTEN_DISABLED", get("/own"), "418 -"),
    ]
}

fn counted() -> Case {
    Case::custom("faults_are_counted", |world| {
        Box::pin(async move { statistics(world, &["http.test.fault."]).await })
    })
}

/// 2 KiB at 4 KiB per second are half a second.
fn slowly(name: &'static str, http2: bool) -> Case {
    Case::custom(name, move |world| {
        Box::pin(async move {
            let mut seen = Observation::default();
            for chunks in [&["x".repeat(2048)][..], &["x".repeat(1000), "y".repeat(1048)][..]] {
                let pieces: Vec<&str> = chunks.iter().map(String::as_str).collect();
                world.upstream("a")?.script([Reply::status(200).chunks(&pieces)]);
                let request = Request::get("/slow");
                let request = if http2 { request.http2() } else { request };
                let began = Instant::now();
                let answer = request.send(world.address("LISTEN_FAULT")?).await;
                let took = began.elapsed();
                let step = format!("{} pieces", chunks.len());
                seen.fact(&step, "bytes", answer.body().len());
                let bounds = Duration::from_millis(350)..Duration::from_millis(800);
                seen.fact(&step, "takes half a second", bounds.contains(&took));
                world.upstream("a")?.take();
            }
            Ok(seen)
        })
    })
}

fn other_cases() -> Vec<Case> {
    let get = |path: &str| Request::get(path);
    let grpc =
        |path: &str| Request::post(path, "").http2().header("content-type", "application/grpc");
    let full = |path: &str| {
        get(path)
            .header("x-a", "0")
            .header("x-gone", "1")
            .header("x-no-1", "1")
            .header("x-no-2", "1")
    };
    let large = "x".repeat(2000);
    vec![
        Case::new("a_rate_limit_refuses_what_has_no_token")
            .send_to("LISTEN_LIMIT", get("/one"), "200 a")
            .send_to("LISTEN_LIMIT", get("/one"), "429 -")
            .send_to("LISTEN_LIMIT", grpc("/one"), "200 -")
            .send_to("LISTEN_LIMIT", get("/none"), "429 -"),
        Case::new("a_rate_limit_answers_as_configured")
            .send_to("LISTEN_LIMIT", get("/added"), "200 a")
            .send_to("LISTEN_LIMIT", get("/added"), "503 -")
            .send_to("LISTEN_LIMIT", get("/low"), "200 a")
            .send_to("LISTEN_LIMIT", get("/low"), "429 -")
            .send_to("LISTEN_LIMIT", get("/exhausted"), "200 a")
            .send_to("LISTEN_LIMIT", grpc("/exhausted"), "200 -"),
        Case::new("a_rate_limit_that_is_not_enforced_only_tells")
            .send_to("LISTEN_LIMIT", get("/shadow"), "200 a")
            .send_to("LISTEN_LIMIT", get("/shadow"), "200 a")
            .send_to("LISTEN_LIMIT", get("/disabled"), "200 a")
            .send_to("LISTEN_LIMIT", get("/disabled"), "200 a")
            .send_to("LISTEN_LIMIT", get("/"), "200 a"),
        Case::new("header_mutations_are_done_in_order_and_level_by_level")
            .send_to("LISTEN_MUTATION", full("/"), "200 a")
            .send_to("LISTEN_SPECIFIC", full("/"), "200 a")
            .send_to("LISTEN_MUTATION", full("/off"), "200 a")
            .send_to("LISTEN_MUTATION", full("/direct"), "200 -"),
        Case::new("a_body_is_buffered_up_to_its_limit")
            .send_to("LISTEN_BUFFER", Request::post("/", "body"), "200 a")
            .send_to("LISTEN_BUFFER", Request::post("/", "body").http2(), "200 a")
            .send_to("LISTEN_BUFFER", get("/"), "200 a")
            .send_to("LISTEN_BUFFER", Request::post("/", large.clone()), "413 -")
            .send_to("LISTEN_BUFFER", Request::post("/large", large.clone()), "200 a")
            .send_to("LISTEN_BUFFER", Request::post("/off", large), "200 a"),
    ]
}
