//! The authorization filter: what a service is asked, and what becomes of what it says.

use std::time::Duration;

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;
use outrigger_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use outrigger_proto::envoy::service::auth::v3::check_response::HttpResponse;
use outrigger_proto::envoy::service::auth::v3::{
    CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use outrigger_proto::envoy::r#type::v3::HttpStatus;
use outrigger_proto::google::protobuf::{BoolValue, Struct, Value, value};
use outrigger_proto::google::rpc::Status;
use prost::Message;

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3";
const GRPC: &str = "grpc_service: {envoy_grpc: {cluster_name: grpc}, timeout: 2s}";
const PLAIN: &str = "- {match: {prefix: /}, route: {cluster: a}}";
const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

/// A listener that asks, as flow YAML.
fn listener(place: &str, filter: &str, routes: &str) -> String {
    let manager = format!(
        "route_config:
  name: test
  response_headers_to_add:
  - {{header: {{key: x-noted, value: '%DYNAMIC_METADATA(envoy.filters.http.ext_authz:word)%'}}}}
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
{}
http_filters:
- name: set
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
    metadata: [{{metadata_namespace: told, value: {{a: [1, x, true]}}}}, {{metadata_namespace: hidden, value: {{b: 1}}}}]
- name: authz
  typed_config: {{{TYPE}.ExtAuthz, transport_api_version: V3, {filter}}}
- ROUTER",
        indent(routes, 4),
    );
    http_listener(place, &manager)
}

fn service(more: &str) -> String {
    format!(
        "http_service: {{server_uri: {{uri: 'http://auth.example', cluster: http, timeout: 2s}}, {more}}}"
    )
}

#[allow(clippy::too_many_lines)] // one listener after the other
pub(crate) fn group() -> Group {
    let http = |more: &str| service(more);
    let per_route = format!(
        "- {{match: {{path: /off}}, route: {{cluster: a}}, typed_per_filter_config: {{authz: {{{TYPE}.ExtAuthzPerRoute, disabled: true}}}}}}
- {{match: {{path: /extended}}, route: {{cluster: a}}, typed_per_filter_config: {{authz: {{{TYPE}.ExtAuthzPerRoute, check_settings: {{context_extensions: {{k: v, l: w}}}}}}}}}}
- {{match: {{path: /bodiless}}, route: {{cluster: a}}, typed_per_filter_config: {{authz: {{{TYPE}.ExtAuthzPerRoute, check_settings: {{disable_request_body_buffering: true}}}}}}}}
- {{match: {{path: /body}}, route: {{cluster: a}}, typed_per_filter_config: {{authz: {{{TYPE}.ExtAuthzPerRoute, check_settings: {{with_request_body: {{max_request_bytes: 4, allow_partial_message: true}}}}}}}}}}
- {{match: {{path: /other}}, route: {{cluster: a}}, typed_per_filter_config: {{authz: {{{TYPE}.ExtAuthzPerRoute, check_settings: {{http_service: {{server_uri: {{uri: 'http://auth.example', cluster: http, timeout: 2s}}, path_prefix: /over}}}}}}}}}}
- {{match: {{path: /answer}}, direct_response: {{status: 200}}}}
{PLAIN}"
    );
    let listeners = [
        listener("LISTEN", &format!("{GRPC}, metadata_context_namespaces: [told, none]"), PLAIN),
        listener(
            "LISTEN_BODY",
            &format!("{GRPC}, stat_prefix: body, with_request_body: {{max_request_bytes: 8}}"),
            &per_route,
        ),
        listener(
            "LISTEN_PART",
            &format!(
                "{GRPC}, stat_prefix: part, with_request_body: {{max_request_bytes: 8, allow_partial_message: true, pack_as_bytes: true}}"
            ),
            PLAIN,
        ),
        listener(
            "LISTEN_HEADERS",
            &format!(
                "{GRPC}, allowed_headers: {{patterns: [{{prefix: x-}}, {{exact: ':path'}}]}}, disallowed_headers: {{patterns: [{{exact: x-secret}}]}}"
            ),
            PLAIN,
        ),
        listener(
            "LISTEN_RAW",
            &format!(
                "{GRPC}, encode_raw_headers: true, disallowed_headers: {{patterns: [{{prefix: x-forwarded}}, {{prefix: x-request}}]}}"
            ),
            PLAIN,
        ),
        listener(
            "LISTEN_OPEN",
            "grpc_service: {envoy_grpc: {cluster_name: closed}}, failure_mode_allow: true, failure_mode_allow_header_add: true",
            PLAIN,
        ),
        listener(
            "LISTEN_STATUS",
            &format!("{GRPC}, status_on_error: {{code: ServiceUnavailable}}"),
            PLAIN,
        ),
        listener(
            "LISTEN_SHORT",
            "grpc_service: {envoy_grpc: {cluster_name: grpc}, timeout: 0.1s}",
            PLAIN,
        ),
        listener("LISTEN_UNKNOWN", "grpc_service: {envoy_grpc: {cluster_name: closed}}", PLAIN),
        listener(
            "LISTEN_NONE",
            &format!("{GRPC}, filter_enabled: {{default_value: {{numerator: 0}}}}"),
            PLAIN,
        ),
        listener(
            "LISTEN_DENY",
            &format!(
                "{GRPC}, filter_enabled: {{default_value: {{numerator: 0}}}}, deny_at_disable: {{default_value: true, runtime_key: k}}"
            ),
            PLAIN,
        ),
        listener(
            "LISTEN_WHEN",
            &format!(
                "{GRPC}, filter_enabled_metadata: {{filter: told, path: [{{key: b}}], value: {{present_match: true}}}}"
            ),
            PLAIN,
        ),
        listener("LISTEN_VALID", &format!("{GRPC}, validate_mutations: true"), PLAIN),
        listener(
            "LISTEN_RULES",
            &format!(
                "{GRPC}, decoder_header_mutation_rules: {{disallow_expression: {{regex: 'x-no.*'}}}}"
            ),
            PLAIN,
        ),
        listener(
            "LISTEN_STRICT",
            &format!(
                "{GRPC}, decoder_header_mutation_rules: {{disallow_all: true, allow_expression: {{regex: x-yes}}, disallow_is_error: true}}"
            ),
            PLAIN,
        ),
        listener(
            "LISTEN_REMATCH",
            &format!("{GRPC}, clear_route_cache: true"),
            &format!(
                "- {{match: {{prefix: /, headers: [{{name: x-tier, string_match: {{exact: gold}}}}]}}, direct_response: {{status: 210}}}}\n{PLAIN}"
            ),
        ),
        listener(
            "LISTEN_DEAF",
            &format!("{GRPC}, enable_dynamic_metadata_ingestion: false"),
            PLAIN,
        ),
        listener("LISTEN_CUT", &format!("{GRPC}, max_denied_response_body_bytes: 4"), PLAIN),
        listener("LISTEN_HTTP", &http(""), PLAIN),
        listener(
            "LISTEN_HTTP_MORE",
            &format!(
                "{}, allowed_headers: {{patterns: [{{prefix: x-}}]}}, with_request_body: {{max_request_bytes: 8, allow_partial_message: true}}",
                http(
                    "path_prefix: /auth, authorization_request: {headers_to_add: [{key: x-own, value: own}, {key: x-client, value: ours}]}, authorization_response: {allowed_upstream_headers: {patterns: [{prefix: x-up}]}, allowed_upstream_headers_to_append: {patterns: [{prefix: x-more}]}, allowed_client_headers: {patterns: [{prefix: x-down}]}, allowed_client_headers_on_success: {patterns: [{prefix: x-fine}]}, dynamic_metadata_from_headers: {patterns: [{exact: word}]}}"
                )
            ),
            PLAIN,
        ),
        listener("LISTEN_HTTP_PATH", &http("path_override: '/one?x=y'"), PLAIN),
    ];
    Group {
        name: "ext_authz",
        bootstrap: bootstrap(
            &listeners,
            &[
                cluster("a", &["a"], ""),
                cluster("grpc", &["grpc"], HTTP2),
                cluster("http", &["http"], ""),
                cluster("closed", &["closed"], HTTP2),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("grpc", UpstreamKind::Plain),
            ("http", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
        ],
        unsupported: None,
        cases: [grpc_cases(), change_cases(), denial_cases(), body_cases(), http_cases()]
            .into_iter()
            .flatten()
            .chain([Case::custom("statistics", |world| {
                Box::pin(statistics(
                    world,
                    &[
                        "http.test.ext_authz.",
                        "cluster.a.ext_authz.",
                        "cluster.a.internal.",
                        "cluster.a.upstream_rq_4",
                        "cluster.a.upstream_rq_completed",
                    ],
                ))
            })])
            .collect(),
    }
}

fn answered(response: &CheckResponse) -> Reply {
    let message = response.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    Reply::status(200)
        .header("content-type", "application/grpc")
        .body(framed)
        .trailer("grpc-status", "0")
}

fn said(code: i32, http: Option<HttpResponse>) -> Reply {
    let word = Value { kind: Some(value::Kind::StringValue("heard".to_owned())) };
    let noted = Struct { fields: [("word".to_owned(), word)].into() };
    let status = Status { code, ..Default::default() };
    answered(&CheckResponse {
        status: Some(status),
        dynamic_metadata: Some(noted),
        http_response: http,
    })
}

fn allowed(ok: OkHttpResponse) -> Reply {
    said(0, Some(HttpResponse::OkResponse(ok)))
}

fn denied(code: i32, headers: Vec<HeaderValueOption>, body: &str) -> Reply {
    let denied =
        DeniedHttpResponse { status: Some(HttpStatus { code }), headers, body: body.to_owned() };
    said(7, Some(HttpResponse::DeniedResponse(denied)))
}

fn fine() -> Reply {
    allowed(OkHttpResponse::default())
}

/// A header with an action.
fn with(name: &str, value: &str, action: i32) -> HeaderValueOption {
    let header =
        HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), append_action: action, ..Default::default() }
}

/// A header with the older `append`.
#[allow(deprecated)]
fn appended(name: &str, value: &str, append: bool) -> HeaderValueOption {
    HeaderValueOption { append: Some(BoolValue { value: append }), ..with(name, value, 0) }
}

fn changed(headers: Vec<HeaderValueOption>) -> Reply {
    allowed(OkHttpResponse { headers, ..Default::default() })
}

fn parameters(set: &[(&str, &str)], remove: &[&str]) -> Reply {
    let set = set
        .iter()
        .map(|(key, value)| QueryParameter { key: (*key).to_owned(), value: (*value).to_owned() });
    allowed(OkHttpResponse {
        query_parameters_to_set: set.collect(),
        query_parameters_to_remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    })
}

fn get(path: &str) -> Request {
    Request::get(path)
}

fn grpc_cases() -> Vec<Case> {
    let once = |name, listener, reply: Reply, request, expected| {
        Case::new(name).script("grpc", [reply]).send_to(listener, request, expected)
    };
    let call_status = |status: &str| {
        Reply::status(200).header("content-type", "application/grpc").trailer("grpc-status", status)
    };
    vec![
        once("allowed", "LISTEN", fine(), get("/p?a=1").header("x-b", "c"), "200 grpc,a"),
        once("allowed_over_http2", "LISTEN", fine(), get("/p").http2(), "200 grpc,a"),
        once("allowed_without_a_response", "LISTEN", said(0, None), get("/"), "200 grpc,a"),
        once(
            "allowed_without_a_status",
            "LISTEN",
            answered(&CheckResponse::default()),
            get("/"),
            "200 grpc,a",
        ),
        once(
            "lines_of_a_header",
            "LISTEN",
            fine(),
            get("/")
                .header("x-b", "1")
                .header("x-b", "2")
                .header("cookie", "a=b")
                .header("cookie", "c=d")
                .header("x-envoy-downstream-service-cluster", "me"),
            "200 grpc,a",
        ),
        once(
            "headers_that_are_told",
            "LISTEN_HEADERS",
            fine(),
            get("/").header("x-a", "1").header("x-secret", "2").header("y", "3"),
            "200 grpc,a",
        ),
        once(
            "raw_headers",
            "LISTEN_RAW",
            fine(),
            get("/").header("x-a", "1").header("x-a", "2"),
            "200 grpc,a",
        ),
        once("metadata_is_not_taken", "LISTEN_DEAF", fine(), get("/"), "200 grpc,a"),
        Case::new("nobody_answers").send_to("LISTEN_UNKNOWN", get("/"), "403 -"),
        Case::new("nobody_answers_and_it_goes_on").send_to("LISTEN_OPEN", get("/"), "200 a"),
        once("the_call_fails", "LISTEN", call_status("13"), get("/"), "403 grpc"),
        once("the_call_is_refused", "LISTEN", call_status("7"), get("/"), "403 grpc"),
        once("the_call_is_not_authenticated", "LISTEN", call_status("16"), get("/"), "403 grpc"),
        once("an_answer_of_http", "LISTEN", Reply::status(503), get("/"), "403 grpc"),
        once("an_answer_without_a_message", "LISTEN", call_status("0"), get("/"), "403 grpc"),
        once(
            "an_answer_that_is_no_message",
            "LISTEN",
            call_status("0").body("\0\0\0\0\u{1}\u{7}"),
            get("/"),
            "403 grpc",
        ),
        once("a_reset_of_the_call", "LISTEN", Reply::reset(), get("/"), "403 grpc"),
        once(
            "a_late_answer",
            "LISTEN_SHORT",
            fine().after(Duration::from_millis(700)),
            get("/"),
            "403 grpc",
        ),
        once("a_status_of_errors", "LISTEN_STATUS", call_status("13"), get("/"), "503 grpc"),
        Case::new("nothing_is_asked").send_to("LISTEN_NONE", get("/"), "200 a"),
        Case::new("nothing_is_asked_and_all_denied").send_to("LISTEN_DENY", get("/"), "403 -"),
        Case::new("nothing_is_asked_by_metadata").send_to("LISTEN_WHEN", get("/"), "200 a"),
        Case::new("a_route_without").send_to("LISTEN_BODY", get("/off"), "200 a"),
        once("a_route_that_tells_more", "LISTEN_BODY", fine(), get("/extended"), "200 grpc,a"),
        once("a_route_that_answers", "LISTEN_BODY", fine(), get("/answer"), "200 grpc"),
        Case::new("a_route_that_asks_another").script("http", [Reply::status(200)]).send_to(
            "LISTEN_BODY",
            get("/other"),
            "200 http,a",
        ),
    ]
}

fn change_cases() -> Vec<Case> {
    let client =
        || get("/p?b=2&a=1&b=3").header("x-one", "1").header("x-two", "2").header("x-two", "3");
    let once = |name, listener, reply: Reply, expected| {
        Case::new(name).script("grpc", [reply]).send_to(listener, client(), expected)
    };
    let all = |headers: &[&str]| OkHttpResponse {
        headers_to_remove: headers.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    let every = |make: &dyn Fn(&str) -> HeaderValueOption| -> Vec<HeaderValueOption> {
        ["x-one", "x-two", "x-new"].into_iter().map(make).collect()
    };
    let response = |action: i32| {
        let headers = ["x-upstream", "x-new"].map(|name| with(name, "authz", action)).to_vec();
        allowed(OkHttpResponse { response_headers_to_add: headers, ..Default::default() })
    };
    let answers = |name, reply: Reply| {
        Case::new(name)
            .script("grpc", [reply])
            .script("a", [Reply::status(200).header("x-upstream", "a")])
            .send(client(), "200 grpc,a")
    };
    vec![
        once("append_if_there", "LISTEN", changed(every(&|name| with(name, "v", 0))), "200 grpc,a"),
        once("add_if_absent", "LISTEN", changed(every(&|name| with(name, "v", 1))), "200 grpc,a"),
        once(
            "overwrite_or_add",
            "LISTEN",
            changed(every(&|name| with(name, "v", 2))),
            "200 grpc,a",
        ),
        once(
            "overwrite_if_there",
            "LISTEN",
            changed(every(&|name| with(name, "v", 3))),
            "200 grpc,a",
        ),
        once(
            "older_append",
            "LISTEN",
            changed(every(&|name| appended(name, "v", true))),
            "200 grpc,a",
        ),
        once(
            "older_overwrite",
            "LISTEN",
            changed(every(&|name| appended(name, "v", false))),
            "200 grpc,a",
        ),
        once(
            "header_twice",
            "LISTEN",
            changed(vec![
                with("x-new", "1", 0),
                with("x-new", "2", 0),
                with("x-set", "1", 2),
                with("x-set", "2", 2),
            ]),
            "200 grpc,a",
        ),
        once(
            "empty_value",
            "LISTEN",
            changed(vec![with("x-one", "", 2), with("x-new", "", 2)]),
            "200 grpc,a",
        ),
        once(
            "headers_removed",
            "LISTEN",
            allowed(all(&["x-one", "X-Two", "x-none", "host", ":path"])),
            "200 grpc,a",
        ),
        once(
            "the_path_is_changed",
            "LISTEN",
            changed(vec![with(":path", "/q?c=d", 2)]),
            "200 grpc,a",
        ),
        once(
            "the_host_is_changed",
            "LISTEN",
            changed(vec![with("host", "h.example", 2)]),
            "200 grpc,a",
        ),
        once(
            "the_authority_is_changed",
            "LISTEN",
            changed(vec![with(":authority", "h.example", 2)]),
            "200 grpc,a",
        ),
        once(
            "the_method_is_changed",
            "LISTEN",
            changed(vec![with(":method", "PUT", 2)]),
            "200 grpc,a",
        ),
        once("invalid_name", "LISTEN_VALID", changed(vec![with("x a", "v", 2)]), "500 grpc"),
        once(
            "invalid_value",
            "LISTEN_VALID",
            changed(vec![with("x-a", "v\u{1}\n", 2)]),
            "500 grpc",
        ),
        once(
            "parameters_set",
            "LISTEN",
            parameters(&[("a", "new"), ("c", "added")], &[]),
            "200 grpc,a",
        ),
        once("parameters_removed", "LISTEN", parameters(&[], &["b", "none"]), "200 grpc,a"),
        once(
            "parameters_set_and_removed",
            "LISTEN",
            parameters(&[("b", "one"), ("a", "x")], &["a"]),
            "200 grpc,a",
        ),
        once("parameters_all_removed", "LISTEN", parameters(&[], &["a", "b"]), "200 grpc,a"),
        once("invalid_parameter", "LISTEN_VALID", parameters(&[("a b", "c")], &[]), "500 grpc"),
        answers("answer_append", response(0)),
        answers("answer_add_if_absent", response(1)),
        answers("answer_overwrite", response(2)),
        answers("answer_overwrite_if_there", response(3)),
        once(
            "rules_leave_out",
            "LISTEN_RULES",
            changed(vec![
                with("x-no-one", "v", 2),
                with("x-yes", "v", 2),
                with("host", "h", 2),
                with("x-envoy-me", "v", 2),
                with(":path", "/q", 2),
            ]),
            "200 grpc,a",
        ),
        once(
            "rules_leave_out_removals",
            "LISTEN_RULES",
            allowed(all(&["x-no-one", "x-one"])),
            "200 grpc,a",
        ),
        once("rules_refuse", "LISTEN_STRICT", changed(vec![with("x-other", "v", 2)]), "500 grpc"),
        once("rules_refuse_removals", "LISTEN_STRICT", allowed(all(&["x-one"])), "500 grpc"),
        once("rules_allow", "LISTEN_STRICT", changed(vec![with("x-yes", "v", 2)]), "200 grpc,a"),
        once(
            "a_route_is_looked_for_again",
            "LISTEN_REMATCH",
            changed(vec![with("x-tier", "gold", 2)]),
            "210 grpc",
        ),
        once("a_route_is_not_looked_for_again", "LISTEN_REMATCH", changed(vec![]), "200 grpc,a"),
    ]
}

fn denial_cases() -> Vec<Case> {
    let once = |name, listener, reply: Reply, expected| {
        Case::new(name).script("grpc", [reply]).send_to(listener, get("/"), expected)
    };
    let headers = || {
        vec![
            with("x-why", "no", 0),
            with("x-why", "twice", 0),
            with("content-type", "text/html", 2),
            with("x-set", "mine", 2),
        ]
    };
    vec![
        once("denied", "LISTEN", denied(401, headers(), "go away"), "401 grpc"),
        once("denied_plainly", "LISTEN", said(7, None), "403 grpc"),
        once(
            "denied_with_an_ok_response",
            "LISTEN",
            said(16, Some(HttpResponse::OkResponse(OkHttpResponse::default()))),
            "403 grpc",
        ),
        once("denied_without_a_status", "LISTEN", denied(0, vec![], ""), "403 grpc"),
        once(
            "denied_with_a_redirect",
            "LISTEN",
            denied(302, vec![with("location", "/login", 2)], ""),
            "302 grpc",
        ),
        once("denied_with_200", "LISTEN", denied(200, vec![], "fine"), "200 grpc"),
        once(
            "denied_with_cookies",
            "LISTEN",
            denied(
                403,
                vec![
                    appended("set-cookie", "a=1", true),
                    appended("set-cookie", "b=2", true),
                    appended("x-set", "1", false),
                    appended("x-set", "2", false),
                ],
                "",
            ),
            "403 grpc",
        ),
        once(
            "denied_with_a_length",
            "LISTEN",
            denied(403, vec![with("content-length", "99", 2)], "short"),
            "403 grpc",
        ),
        once("denied_with_a_long_body", "LISTEN_CUT", denied(403, vec![], "long body"), "403 grpc"),
        once(
            "denied_with_an_invalid_header",
            "LISTEN_VALID",
            denied(403, vec![with("x a", "v", 2)], ""),
            "500 grpc",
        ),
        Case::new("denied_to_grpc").script("grpc", [denied(401, headers(), "go away")]).send(
            Request::post("/", "").http2().header("content-type", "application/grpc"),
            "200 grpc",
        ),
    ]
}

fn body_cases() -> Vec<Case> {
    let once = |name, listener, request, expected| {
        Case::new(name).script("grpc", [fine()]).send_to(listener, request, expected)
    };
    let chunked = |chunks: &[&str]| Request::post("/", "").chunks(chunks);
    vec![
        once("a_body", "LISTEN_BODY", Request::post("/", "12345"), "200 grpc,a"),
        once("a_body_of_the_limit", "LISTEN_BODY", Request::post("/", "12345678"), "200 grpc,a"),
        once("no_body", "LISTEN_BODY", get("/"), "200 grpc,a"),
        once("an_empty_body", "LISTEN_BODY", Request::post("/", ""), "200 grpc,a"),
        once("a_body_in_chunks", "LISTEN_BODY", chunked(&["12", "34"]), "200 grpc,a"),
        once(
            "a_body_over_http2",
            "LISTEN_BODY",
            chunked(&["12", "34"]).http2().trailer("x-t", "1"),
            "200 grpc,a",
        ),
        once("a_body_too_long", "LISTEN_BODY", Request::post("/", "123456789"), "413 -"),
        once("a_body_too_long_in_chunks", "LISTEN_BODY", chunked(&["12345", "6789"]), "413 -"),
        once("part_of_a_body", "LISTEN_PART", Request::post("/", "123456789"), "200 grpc,a"),
        once("a_whole_body_in_parts", "LISTEN_PART", Request::post("/", "1234"), "200 grpc,a"),
        once(
            "a_body_as_long_as_a_part",
            "LISTEN_PART",
            Request::post("/", "12345678"),
            "200 grpc,a",
        ),
        once(
            "a_body_that_is_no_text",
            "LISTEN_PART",
            Request::post("/", vec![0xff, 0, 1]),
            "200 grpc,a",
        ),
        once(
            "a_route_without_body",
            "LISTEN_BODY",
            Request::post("/bodiless", "123456789"),
            "200 grpc,a",
        ),
        once(
            "a_route_with_its_limit",
            "LISTEN_BODY",
            Request::post("/body", "123456789"),
            "200 grpc,a",
        ),
    ]
}

fn http_cases() -> Vec<Case> {
    let once = |name, listener, reply: Reply, request, expected| {
        Case::new(name).script("http", [reply]).send_to(listener, request, expected)
    };
    let client = || {
        get("/p?a=1")
            .header("authorization", "me")
            .header("x-client", "1")
            .header("x-up-one", "client")
            .header("x-more", "client")
            .header("cookie", "c=d")
    };
    let full = |status: u16| {
        Reply::status(status)
            .header("x-up-one", "auth")
            .header("x-up-two", "auth")
            .header("x-more", "auth")
            .header("x-more-new", "auth")
            .header("x-down", "auth")
            .header("x-fine", "auth")
            .header("x-fine", "twice")
            .header("word", "heard")
            .header("location", "/login")
            .header("www-authenticate", "Basic")
            .header("content-type", "text/html")
            .header("set-cookie", "e=f")
            .header("x-envoy-auth-headers-to-remove", "x-client, cookie")
    };
    vec![
        once("http_allowed", "LISTEN_HTTP", full(200), client(), "200 http,a"),
        once("http_denied", "LISTEN_HTTP", full(401).body("no"), client(), "401 http"),
        once("http_allowed_with_rules", "LISTEN_HTTP_MORE", full(200), client(), "200 http,a"),
        once(
            "http_denied_with_rules",
            "LISTEN_HTTP_MORE",
            full(403).body("no"),
            client(),
            "403 http",
        ),
        once("http_redirected", "LISTEN_HTTP", full(302), client(), "302 http"),
        once("http_created", "LISTEN_HTTP", Reply::status(201).body("made"), client(), "201 http"),
        once("http_error", "LISTEN_HTTP", full(500).body("broken"), client(), "403 http"),
        once("http_unavailable", "LISTEN_HTTP", Reply::status(503), client(), "403 http"),
        once("http_reset", "LISTEN_HTTP", Reply::reset(), client(), "403 http"),
        once(
            "http_with_a_body",
            "LISTEN_HTTP_MORE",
            full(200),
            Request::post("/p", "1234"),
            "200 http,a",
        ),
        once(
            "http_with_part_of_a_body",
            "LISTEN_HTTP_MORE",
            full(200),
            Request::post("/p", "123456789"),
            "200 http,a",
        ),
        once(
            "http_without_its_body",
            "LISTEN_HTTP",
            full(200),
            Request::post("/p", "123456789"),
            "200 http,a",
        ),
        once("http_another_path", "LISTEN_HTTP_PATH", full(200), client(), "200 http,a"),
        once("http_over_http2", "LISTEN_HTTP", full(200), client().http2(), "200 http,a"),
    ]
}
