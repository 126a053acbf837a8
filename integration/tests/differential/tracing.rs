//! Tracing: which requests are sampled, what goes on to the endpoint, and what the spans say that a collector gets.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::{Outcome, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::otlp::{self, Span};
use outrigger_integration::upstream::{Recorded, Reply};

use crate::parts::{bootstrap, cluster, http_listener, routes};

/// A caller's context, sampled.
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// A caller whose trace is one of the first half of all traces, and one whose is of the other half.
const WITHIN: &str = "00-20f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const BEYOND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";
/// A request id whose chance is 30 of 10000, as it is without any decision.
const ID: &str = "0000001e-8346-491f-9760-6e4165cec4e6";

const ROUTES: &str = r#"
- {match: {prefix: /decorated}, route: {cluster: a}, decorator: {operation: op}}
- {match: {prefix: /silent}, route: {cluster: a}, decorator: {operation: op, propagate: false}}
- {match: {prefix: /never}, route: {cluster: a}, tracing: {overall_sampling: {numerator: 0}}}
- match: {prefix: /tagged}
  metadata: {filter_metadata: {k: {p: of the route, deep: {number: 7}}}}
  route: {cluster: a}
  tracing:
    custom_tags:
    - {tag: literal, literal: {value: of the route}}
    - {tag: own, request_header: {name: x-own, default_value: none}}
- {match: {prefix: /named}, route: {cluster: a}, tracing: {operation: "route %REQ(:METHOD)%", upstream_operation: "up %RESPONSE_CODE%"}}
- {match: {prefix: /direct}, direct_response: {status: 201, body: {inline_string: made}}}
- {match: {prefix: /redirect}, redirect: {path_redirect: /x}}
- {match: {prefix: /closed}, route: {cluster: closed}}
- {match: {prefix: /empty}, route: {cluster: empty}}
- {match: {prefix: /missing}, route: {cluster: missing}}
- {match: {prefix: /rewritten}, route: {cluster: a, prefix_rewrite: /new, host_rewrite_literal: other.example}}
- {match: {prefix: /timeout}, route: {cluster: a, timeout: 0.1s}}
- match: {prefix: /retry}
  route: {cluster: a, retry_policy: {retry_on: "5xx,reset", num_retries: 2, retry_back_off: {base_interval: 0.001s}}}
- {match: {prefix: /a}, route: {cluster: a}}
"#;

const TAGS: &str = r#"custom_tags:
  - {tag: literal, literal: {value: of the manager}}
  - {tag: variable, environment: {name: OUTRIGGER_NO_SUCH_VARIABLE, default_value: none}}
  - {tag: no_variable, environment: {name: OUTRIGGER_NO_SUCH_VARIABLE}}
  - {tag: header, request_header: {name: x-h, default_value: none}}
  - {tag: no_header, request_header: {name: x-none}}
  - {tag: format, value: "%REQ(:METHOD)% %RESPONSE_CODE% %RESPONSE_FLAGS%"}
  - {tag: partly, value: "x%REQ(x-none)%y"}
  - {tag: nothing, value: "%REQ(x-none)%"}
  - {tag: of_the_route, metadata: {kind: {route: {}}, metadata_key: {key: k, path: [{key: p}]}, default_value: none}}
  - {tag: of_the_route_deeper, metadata: {kind: {route: {}}, metadata_key: {key: k, path: [{key: deep}, {key: number}]}}}
  - {tag: of_the_route_whole, metadata: {kind: {route: {}}, metadata_key: {key: k, path: [{key: deep}]}}}
  - {tag: of_the_request, metadata: {kind: {request: {}}, metadata_key: {key: k, path: [{key: p}]}, default_value: none}}
  - {tag: of_the_cluster, metadata: {kind: {cluster: {}}, metadata_key: {key: k, path: [{key: p}]}}}
  - {tag: of_the_endpoint, metadata: {kind: {host: {}}, metadata_key: {key: k, path: [{key: p}]}, default_value: none}}
"#;

/// A listener whose spans go to the collector over HTTP, with more said of tracing and of the connection manager.
fn listener(place: &str, provider: &str, tracing: &str, more: &str) -> String {
    let provider = format!(
        "provider: {{name: envoy.tracers.opentelemetry, typed_config: {{'@type': \
         type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: tested, {provider}}}}}"
    );
    let tracing: String = [provider.as_str(), tracing]
        .iter()
        .flat_map(|text| text.lines())
        .map(|line| format!("  {line}\n"))
        .collect();
    http_listener(
        place,
        &format!("tracing:\n{tracing}{more}\n{}\n  validate_clusters: false\n", routes(ROUTES)),
    )
}

const HTTP: &str = "http_service: {http_uri: {uri: 'http://collector.example/v1/traces', cluster: otel, timeout: 2s}, \
                    request_headers_to_add: [{header: {key: x-token, value: secret}}]}";
const GRPC: &str = "grpc_service: {envoy_grpc: {cluster_name: otel_grpc}, timeout: 2s}";

fn sampler(text: &str) -> String {
    const V3: &str = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3";
    format!("{HTTP}, sampler: {{name: s, typed_config: {}}}", text.replace("V3", V3))
}

fn outbound(listener: String) -> String {
    format!("{listener}  traffic_direction: OUTBOUND\n")
}

pub(crate) fn group() -> Group {
    let always = sampler("{'@type': V3.AlwaysOnSamplerConfig}");
    let parent = sampler(
        "{'@type': V3.ParentBasedSamplerConfig, wrapped_sampler: {name: w, typed_config: {'@type': V3.AlwaysOnSamplerConfig}}}",
    );
    let ratio = |share: &str| {
        sampler(&format!(
            "{{'@type': V3.TraceIdRatioBasedSamplerConfig, sampling_percentage: {{{share}}}}}"
        ))
    };
    let id = |text: &str| {
        format!(
            "request_id_extension: {{typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig, {text}}}}}"
        )
    };
    let spawn = "spawn_upstream_span: true";
    Group {
        name: "tracing",
        bootstrap: bootstrap(
            &[
                listener("LISTEN", HTTP, TAGS, ""),
                listener("LISTEN_GRPC", GRPC, "", ""),
                listener(
                    "LISTEN_VERBOSE",
                    HTTP,
                    &format!("verbose: true\nmax_path_tag_length: 5\n{spawn}\n{TAGS}"),
                    "",
                ),
                outbound(listener("LISTEN_OUT", HTTP, "", "")),
                outbound(listener("LISTEN_OUT_SPAWN", HTTP, spawn, "")),
                outbound(listener(
                    "LISTEN_NAMED",
                    HTTP,
                    "operation: 'op %RESPONSE_CODE%%REQ(x-none)%'\nspawn_upstream_span: true\nupstream_operation: 'up %REQ(:PATH)%'",
                    "",
                )),
                listener("LISTEN_NONE", HTTP, "random_sampling: {value: 0}", ""),
                listener(
                    "LISTEN_NO_CLIENT",
                    HTTP,
                    "random_sampling: {value: 0}\nclient_sampling: {value: 0}",
                    "",
                ),
                listener("LISTEN_FEW", HTTP, "overall_sampling: {value: 0.5}", ""),
                listener("LISTEN_ALWAYS", &always, "", ""),
                listener("LISTEN_ALWAYS_NONE", &always, "random_sampling: {value: 0}", ""),
                listener("LISTEN_PARENT", &parent, "", ""),
                listener("LISTEN_RATIO", &ratio("numerator: 50"), "", ""),
                listener("LISTEN_RATIO_NONE", &ratio(""), "", ""),
                listener(
                    "LISTEN_RATIO_ALL",
                    &ratio("numerator: 10000, denominator: TEN_THOUSAND"),
                    "",
                    "",
                ),
                listener("LISTEN_UNPACKED", HTTP, "", &id("pack_trace_reason: false")),
                listener(
                    "LISTEN_INDEPENDENT",
                    HTTP,
                    "random_sampling: {value: 0}",
                    &id("use_request_id_for_trace_sampling: false"),
                ),
                listener("LISTEN_KEPT", HTTP, "no_context_propagation: true", ""),
                listener(
                    "LISTEN_RESOURCE",
                    &format!(
                        "{HTTP}, set_telemetry_sdk_resource_attributes: false, set_instrumentation_scope: false, resource_detectors: [{{name: d, typed_config: {{'@type': type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig, attributes: {{k: v}}}}}}]"
                    ),
                    "",
                    "",
                ),
                http_listener(
                    "LISTEN_NO_PROVIDER",
                    &format!("tracing: {{}}\n{}\n  validate_clusters: false\n", routes(ROUTES)),
                ),
            ],
            &[
                cluster("a", &["a"], "metadata: {filter_metadata: {k: {p: of the cluster}}}"),
                cluster("closed", &["closed"], ""),
                "- {name: empty, type: STATIC}\n".to_owned(),
                cluster("otel", &["otel"], ""),
                cluster(
                    "otel_grpc",
                    &["otel"],
                    "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}",
                ),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
            ("otel", UpstreamKind::Plain),
        ],
        unsupported: None,
        cases: cases(),
    }
}

/// What a case sends, and how much of the answer there is to wait for.
struct Traced {
    name: &'static str,
    listener: &'static str,
    request: Request,
    replies: Vec<Reply>,
    /// Spans with its trace, or none at all.
    spans: usize,
}

fn traced(name: &'static str, listener: &'static str, request: Request, spans: usize) -> Traced {
    Traced { name, listener, request, replies: Vec::new(), spans }
}

impl Traced {
    fn answered(mut self, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.replies = replies.into_iter().collect();
        self
    }
}

fn get(path: &str) -> Request {
    Request::get(path)
}

fn with_id(path: &str, id: &str) -> Request {
    Request::get(path).header("x-request-id", id)
}

fn child(path: &str, parent: &str) -> Request {
    Request::get(path).header("traceparent", parent).header("tracestate", "v=1,w=2")
}

fn grpc(status: &str) -> Reply {
    Reply::status(200)
        .header("content-type", "application/grpc")
        .chunks(&["\0\0\0\0\0"])
        .trailer("grpc-status", status)
        .trailer("grpc-message", "said")
}

fn grpc_call() -> Request {
    Request::post("/a.Service/Method", "\0\0\0\0\0")
        .http2()
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
}

#[allow(clippy::too_many_lines)] // a table
fn cases() -> Vec<Case> {
    let unsampled = PARENT.replace("-01", "-00");
    let decorating =
        Reply::status(200).header("x-envoy-decorator-operation", "of the server").body("");
    let late = Reply::status(200).body("late").after(Duration::from_millis(400));
    let reason = |digit: &str| format!("0000001e-8346-{digit}91f-9760-6e4165cec4e6");
    let named = "x-envoy-decorator-operation";
    let table = vec![
        traced(
            "what_a_span_says",
            "LISTEN",
            get("/a?q=1").header("x-h", "1").header("user-agent", "t/1"),
            1,
        ),
        traced("a_body_each_way", "LISTEN", Request::post("/a", "12345"), 1)
            .answered([Reply::status(201).body("123")]),
        traced("over_http2", "LISTEN", get("/a").http2(), 1),
        traced(
            "from_another_service",
            "LISTEN",
            get("/a").header("x-envoy-downstream-service-cluster", "caller"),
            1,
        ),
        traced(
            "a_client_names_its_trace",
            "LISTEN",
            get("/a").header("x-client-trace-id", "mine"),
            1,
        ),
        traced("direct_response", "LISTEN", get("/direct"), 1),
        traced("redirect", "LISTEN", get("/redirect"), 1),
        traced("no_route", "LISTEN", get("/nowhere"), 1),
        traced("no_cluster", "LISTEN", get("/missing"), 1),
        traced("no_endpoint", "LISTEN", get("/empty"), 1),
        traced("connection_refused", "LISTEN", get("/closed"), 1),
        traced("reset", "LISTEN", get("/a"), 1).answered([Reply::reset()]),
        traced("timeout", "LISTEN", get("/timeout"), 1).answered([late.clone()]),
        traced("server_error", "LISTEN", get("/a"), 1).answered([Reply::status(500)]),
        traced("client_error", "LISTEN", get("/a"), 1).answered([Reply::status(404)]),
        traced("retried", "LISTEN", get("/retry"), 1).answered([Reply::status(503).body("x")]),
        traced("rewritten", "LISTEN", get("/rewritten/x?y"), 1),
        traced("grpc_ok", "LISTEN", grpc_call(), 1).answered([grpc("0")]),
        traced("grpc_not_found", "LISTEN", grpc_call(), 1).answered([grpc("5")]),
        traced("grpc_unavailable", "LISTEN", grpc_call(), 1).answered([grpc("14")]),
        traced("grpc_unknown", "LISTEN", grpc_call(), 1).answered([grpc("2")]),
        traced("grpc_trailers_only", "LISTEN", grpc_call(), 1).answered([Reply::status(200)
            .header("content-type", "application/grpc")
            .header("grpc-status", "12")]),
        traced("tags_of_a_route", "LISTEN", get("/tagged").header("x-own", "1"), 1),
        traced("tags_of_a_route_and_an_attempt", "LISTEN_VERBOSE", get("/tagged"), 2),
        traced("a_name_of_a_route", "LISTEN", get("/named"), 1),
        traced("a_route_is_never_traced", "LISTEN", get("/never"), 0),
        // Contexts.
        traced("a_sampled_caller", "LISTEN", child("/a", PARENT), 1),
        traced("an_unsampled_caller", "LISTEN", child("/a", &unsampled), 0),
        traced("a_caller_without_state", "LISTEN", get("/a").header("traceparent", PARENT), 1),
        traced("a_state_without_caller", "LISTEN", get("/a").header("tracestate", "v=1"), 1),
        traced(
            "a_context_of_another_version",
            "LISTEN",
            child("/a", &PARENT.replacen("00", "cc", 1)),
            1,
        ),
        traced(
            "a_context_with_other_flags",
            "LISTEN",
            child("/a", &PARENT.replace("-01", "-03")),
            1,
        ),
        traced("a_context_in_capitals", "LISTEN", child("/a", &PARENT.to_uppercase()), 1),
        traced("a_broken_context", "LISTEN", child("/a", "00-zz"), 0),
        traced(
            "a_context_without_trace",
            "LISTEN",
            child("/a", "00-00000000000000000000000000000000-b7ad6b7169203331-01"),
            0,
        ),
        traced(
            "a_context_without_span",
            "LISTEN",
            child("/a", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"),
            0,
        ),
        traced(
            "b3_single_is_not_read",
            "LISTEN",
            get("/a").header("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"),
            1,
        ),
        traced(
            "b3_multi_is_not_read",
            "LISTEN",
            get("/a")
                .header("x-b3-traceid", "0af7651916cd43dd8448eb211c80319c")
                .header("x-b3-spanid", "b7ad6b7169203331")
                .header("x-b3-sampled", "0"),
            1,
        ),
        traced("the_context_is_not_passed_on", "LISTEN_KEPT", child("/a", PARENT), 1),
        traced("no_context_is_passed_on", "LISTEN_KEPT", get("/a"), 1),
        // Sampling.
        traced("a_trace_within_the_ratio", "LISTEN_RATIO", child("/a", WITHIN), 1),
        traced("a_trace_beyond_the_ratio", "LISTEN_RATIO", child("/a", BEYOND), 0),
        traced(
            "the_ratio_counts_and_not_the_caller",
            "LISTEN_RATIO",
            child("/a", &WITHIN.replace("-01", "-00")),
            1,
        ),
        traced("a_ratio_of_nothing", "LISTEN_RATIO_NONE", child("/a", PARENT), 0),
        traced("a_ratio_of_everything", "LISTEN_RATIO_ALL", child("/a", &unsampled), 1),
        traced("by_chance", "LISTEN", with_id("/a", ID), 1),
        traced("never_by_chance", "LISTEN_NONE", with_id("/a", ID), 0),
        traced(
            "by_the_client",
            "LISTEN_NONE",
            with_id("/a", ID).header("x-client-trace-id", "c"),
            1,
        ),
        traced(
            "never_by_the_client",
            "LISTEN_NO_CLIENT",
            with_id("/a", ID).header("x-client-trace-id", "c"),
            0,
        ),
        traced("sampled_before", "LISTEN_NONE", with_id("/a", &reason("9")), 1),
        traced("forced_before", "LISTEN_NONE", with_id("/a", &reason("a")), 1),
        traced("by_the_client_before", "LISTEN_NONE", with_id("/a", &reason("b")), 1),
        traced("of_another_version", "LISTEN_NONE", with_id("/a", &reason("7")), 0),
        traced(
            "a_caller_does_not_decide",
            "LISTEN_NONE",
            child("/a", PARENT).header("x-request-id", ID),
            0,
        ),
        traced("within_the_overall_share", "LISTEN_FEW", with_id("/a", ID), 1),
        traced(
            "beyond_the_overall_share",
            "LISTEN_FEW",
            with_id("/a", "00000032-8346-491f-9760-6e4165cec4e6"),
            0,
        ),
        traced(
            "beyond_the_overall_share_decided_before",
            "LISTEN_FEW",
            with_id("/a", "00000032-8346-991f-9760-6e4165cec4e6"),
            0,
        ),
        traced(
            "an_id_that_is_no_number",
            "LISTEN",
            with_id("/a", "zzzzzzzz-8346-491f-9760-6e4165cec4e6"),
            0,
        ),
        traced("a_short_id", "LISTEN", with_id("/a", "0000001"), 0),
        traced("an_id_that_is_no_uuid", "LISTEN", with_id("/a", "0000001e1234567"), 1),
        traced("the_reason_is_not_packed", "LISTEN_UNPACKED", with_id("/a", ID), 1),
        traced("independent_of_the_id", "LISTEN_INDEPENDENT", with_id("/a", ID), 1),
        traced("always_on", "LISTEN_ALWAYS", child("/a", &unsampled), 1),
        traced(
            "always_on_of_none",
            "LISTEN_ALWAYS_NONE",
            child("/a", PARENT).header("x-request-id", ID),
            0,
        ),
        traced("parent_based_root", "LISTEN_PARENT", get("/a"), 1),
        traced("parent_based_sampled", "LISTEN_PARENT", child("/a", PARENT), 1),
        traced("parent_based_unsampled", "LISTEN_PARENT", child("/a", &unsampled), 0),
        traced(
            "without_a_provider",
            "LISTEN_NO_PROVIDER",
            child("/decorated", PARENT).header("x-request-id", ID),
            0,
        ),
        // Names.
        traced("decorated", "LISTEN", get("/decorated"), 1),
        traced("decorated_in_silence", "LISTEN", get("/silent"), 1),
        traced(
            "decorated_by_the_caller",
            "LISTEN",
            get("/decorated").header(named, "of the caller"),
            1,
        ),
        traced(
            "decorated_by_the_caller_with_nothing",
            "LISTEN",
            get("/decorated").header(named, ""),
            1,
        ),
        traced("an_upstream_decorates_in_vain", "LISTEN", get("/a"), 1)
            .answered([decorating.clone()]),
        traced("out", "LISTEN_OUT", get("/a"), 1),
        traced("out_client_error", "LISTEN_OUT", get("/a"), 1).answered([Reply::status(404)]),
        traced("out_rewritten", "LISTEN_OUT", get("/rewritten"), 1),
        traced("out_decorated", "LISTEN_OUT", get("/decorated"), 1),
        traced("out_decorated_in_silence", "LISTEN_OUT", get("/silent"), 1),
        traced("out_decorated_by_the_server", "LISTEN_OUT", get("/decorated"), 1)
            .answered([decorating.clone()]),
        traced(
            "out_the_caller_decorates_in_vain",
            "LISTEN_OUT",
            get("/a").header(named, "of the caller"),
            1,
        ),
        traced("out_grpc_not_found", "LISTEN_OUT", grpc_call(), 1).answered([grpc("5")]),
        traced("a_name_made_by_a_format", "LISTEN_NAMED", get("/decorated"), 2)
            .answered([decorating.clone()]),
        // Attempts.
        traced(
            "a_span_for_the_attempt",
            "LISTEN_VERBOSE",
            get("/a-long-path").header("x-h", "1"),
            2,
        ),
        traced("a_span_for_each_attempt", "LISTEN_VERBOSE", get("/retry"), 4)
            .answered([Reply::status(503).body("x"), Reply::status(500)]),
        traced("a_span_for_an_attempt_that_was_reset", "LISTEN_VERBOSE", get("/a"), 2)
            .answered([Reply::reset()]),
        traced("a_span_for_an_attempt_that_timed_out", "LISTEN_VERBOSE", get("/timeout"), 2)
            .answered([late]),
        traced("a_span_for_an_attempt_that_was_refused", "LISTEN_VERBOSE", get("/closed"), 2),
        traced("no_span_without_an_attempt", "LISTEN_VERBOSE", get("/direct"), 1),
        traced("a_span_for_the_attempt_of_a_call", "LISTEN_VERBOSE", grpc_call(), 2)
            .answered([grpc("14")]),
        traced("out_with_a_span_for_the_attempt", "LISTEN_OUT_SPAWN", get("/decorated"), 2)
            .answered([decorating]),
        traced(
            "attempts_of_a_request_that_is_not_sampled",
            "LISTEN_OUT_SPAWN",
            child("/a", &unsampled),
            0,
        ),
        traced("a_name_of_a_route_for_its_attempts", "LISTEN_OUT_SPAWN", get("/named"), 2),
        // Export.
        traced("exported_over_grpc", "LISTEN_GRPC", get("/a"), 1),
        traced("a_resource", "LISTEN_RESOURCE", get("/a"), 1),
    ];
    table.into_iter().map(case).collect()
}

fn case(traced: Traced) -> Case {
    let name = traced.name;
    let traced = std::sync::Arc::new(traced);
    Case::custom(name, move |world| {
        let traced = std::sync::Arc::clone(&traced);
        Box::pin(async move { observe(world, &traced).await })
    })
}

async fn observe(world: &World, traced: &Traced) -> Result<Observation> {
    let mut seen = Observation::default();
    let (app, otel) = (world.upstream("a")?, world.upstream("otel")?);
    let collected = Reply::status(200)
        .header("content-type", "application/grpc")
        .chunks(&["\0\0\0\0\0"])
        .trailer("grpc-status", "0");
    otel.default_reply(Some(collected));
    app.script(traced.replies.iter().cloned());
    let outcome = traced.request.send(world.address(traced.listener)?).await;
    if let Outcome::Response(response) = &outcome {
        let header = |name: &str| value(&response.headers, name);
        seen.fact("response", "status", response.status);
        seen.fact("response", "decorator", header("x-envoy-decorator-operation"));
    }
    // An attempt that nobody waits for may still be on its way.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let received = app.take();
    let spans = match traced.spans {
        0 => spans(world, traced, 1, Some(Duration::from_millis(50))).await?,
        count => spans(world, traced, count, None).await?,
    };
    ensure!(spans.len() == traced.spans, "{} spans instead of {}", spans.len(), traced.spans);
    for (index, request) in received.iter().enumerate() {
        forwarded(&mut seen, &format!("upstream[{index}]"), request, &spans);
    }
    for (index, span) in spans.iter().enumerate() {
        described(&mut seen, world, &format!("span[{index}]"), span, &spans);
    }
    Ok(seen)
}

/// What went on to the endpoint: the reason in the request's id, and the context, in relation to the spans.
fn forwarded(seen: &mut Observation, step: &str, request: &Recorded, spans: &[Span]) {
    let header = |name: &str| value(&request.headers, name);
    let id = header("x-request-id");
    seen.fact(step, "reason", id.get(14..15).unwrap_or(&id));
    seen.fact(step, "tracestate", header("tracestate"));
    seen.fact(step, "decorator", header("x-envoy-decorator-operation"));
    let parent = header("traceparent");
    let parts: Vec<&str> = parent.split('-').collect();
    let [version, trace, span, flags] = parts[..] else {
        seen.fact(step, "traceparent", parent);
        return;
    };
    let whose = spans.iter().position(|it| it.id() == span);
    let whose = whose.map_or_else(
        || if PARENT.contains(span) { "the caller".to_owned() } else { "unknown".to_owned() },
        |index| format!("span[{index}]"),
    );
    let trace = match spans.first() {
        Some(first) if first.trace() == trace => "of the spans",
        _ if PARENT.contains(trace) => "of the caller",
        _ => "new",
    };
    seen.fact(step, "traceparent", format!("{version}, trace {trace}, {whose}, {flags}"));
}

fn described(seen: &mut Observation, world: &World, step: &str, span: &Span, all: &[Span]) {
    seen.fact(step, "name", world.normal(&span.proto.name));
    seen.fact(step, "kind", span.proto.kind);
    seen.fact(step, "status", span.status());
    seen.fact(step, "state", &span.proto.trace_state);
    seen.fact(step, "events", span.events());
    let parent = span.parent();
    let parent = match all.iter().position(|other| other.id() == parent) {
        Some(index) => format!("span[{index}]"),
        None if parent.is_empty() => "none".to_owned(),
        None if PARENT.contains(&parent) => "the caller".to_owned(),
        None => "unknown".to_owned(),
    };
    seen.fact(step, "parent", parent);
    let caller = if PARENT.contains(&span.trace()) { "of the caller" } else { "new" };
    seen.fact(step, "trace", caller);
    for (key, value) in span.attributes() {
        seen.fact(step, &format!("attribute.{key}"), world.normal(&value));
    }
    for (key, value) in &span.resource {
        seen.fact(step, &format!("resource.{key}"), value);
    }
    seen.fact(step, "scope", span.scope.as_deref().unwrap_or("none"));
    let (start, end) = (span.proto.start_time_unix_nano, span.proto.end_time_unix_nano);
    let events = span.proto.events.iter().map(|event| event.time_unix_nano);
    let times: Vec<u64> = [start].into_iter().chain(events).chain([end]).collect();
    let within = times.iter().all(|time| (start..=end).contains(time));
    seen.fact(step, "times", if within && start > 0 { "in order" } else { "not in order" });
}

/// Waits for so many spans of the request, or for a while if there should be none. Envoy sends spans when five are there: so
/// others are made until it does.
async fn spans(
    world: &World,
    traced: &Traced,
    count: usize,
    patience: Option<Duration>,
) -> Result<Vec<Span>> {
    let deadline = Instant::now() + patience.unwrap_or(Duration::from_secs(15));
    let otel = world.upstream("otel")?;
    let mut found: Vec<Span> = Vec::new();
    let mut fillers = 0;
    loop {
        for request in otel.take() {
            found.extend(otlp::spans(&request).context("what the collector got")?);
        }
        let is_filler = |span: &Span| span.attribute("http.url").contains("filler");
        let traces: Vec<String> =
            found.iter().filter(|span| is_filler(span)).map(Span::trace).collect();
        let own = |span: &&Span| !is_filler(span) && !traces.contains(&span.trace());
        let spans: Vec<Span> = found.iter().filter(own).cloned().collect();
        // All that came before what fills up has come.
        let done = patience.is_none() && spans.len() >= count;
        if done || Instant::now() >= deadline {
            ensure!(done || patience.is_some(), "{} of {count} spans came", spans.len());
            return Ok(spans);
        }
        if fillers < 10 {
            fillers += 1;
            Request::get("/direct/filler")
                .host("filler")
                .send(world.address(traced.listener)?)
                .await;
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn value(headers: &[(String, String)], name: &str) -> String {
    let mut values = headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
    values.next().cloned().unwrap_or_else(|| "none".to_owned())
}
