//! Rate limits by what a request is described as: of the proxy alone, and of a service that is asked.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http";
const ALL: &str = "{default_value: {numerator: 100}}";

/// A listener with one filter, and its routes; `host` is said by the virtual host.
fn listener(place: &str, filter: &str, host: &str, routes: &str, more: &str) -> String {
    let manager = format!(
        "{more}
route_config:
  name: test
  virtual_hosts:
  - name: all
    domains: ['*']
{}
    routes:
{}
http_filters:
- {{name: note, typed_config: {{{TYPE}.set_metadata.v3.Config, metadata: [{{metadata_namespace: noted, value: {{who: me, limit: {{requests_per_unit: 7, unit: HOUR}}}}}}]}}}}
{filter}
- ROUTER",
        indent(host, 4),
        indent(routes, 4),
    );
    http_listener(place, &manager)
}

fn bucket(max: u32) -> String {
    format!("token_bucket: {{max_tokens: {max}, tokens_per_fill: 1, fill_interval: 3600s}}")
}

/// What a route says about the filter of this process alone.
fn local(more: &str) -> String {
    format!(
        "typed_per_filter_config: {{limit: {{{TYPE}.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit, filter_enabled: {ALL}, filter_enforced: {ALL}, {more}}}}}"
    )
}

/// Limits of one request for each of these descriptions.
fn once(descriptions: &[&[(&str, &str)]]) -> String {
    let all: Vec<String> = descriptions
        .iter()
        .map(|entries| {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{{key: '{key}', value: '{value}'}}"))
                .collect();
            format!("{{entries: [{}], {}}}", entries.join(", "), bucket(1))
        })
        .collect();
    format!("descriptors: [{}]", all.join(", "))
}

/// One rule of these actions.
fn rule(actions: &str) -> String {
    format!("rate_limits: [{{actions: [{actions}]}}]")
}

fn local_listener() -> String {
    let route = |path: &str, more: &str, action: &str| {
        format!("- {{match: {{prefix: {path}}}, route: {{cluster: a{action}}}, {}}}", local(more))
    };
    let actions = [
        ("/source", "source_cluster: {}", ("source_cluster", "test")),
        ("/destination", "destination_cluster: {}", ("destination_cluster", "a")),
        ("/header", "request_headers: {header_name: x-who, descriptor_key: who}", ("who", "me")),
        (
            "/method",
            "request_headers: {header_name: ':method', descriptor_key: method}",
            ("method", "POST"),
        ),
        (
            "/query",
            "query_parameters: {query_parameter_name: who, descriptor_key: who}",
            ("who", "me"),
        ),
        ("/remote", "remote_address: {}", ("remote_address", "10.1.2.3")),
        (
            "/masked",
            "masked_remote_address: {v4_prefix_mask_len: 16}",
            ("masked_remote_address", "10.1.0.0/16"),
        ),
        ("/whole", "masked_remote_address: {}", ("masked_remote_address", "10.1.2.3/32")),
        (
            "/six",
            "masked_remote_address: {v6_prefix_mask_len: 64}",
            ("masked_remote_address", "2001:db8::/64"),
        ),
        ("/fixed", "generic_key: {descriptor_value: one}", ("generic_key", "one")),
        (
            "/named",
            "generic_key: {descriptor_value: '%REQ(x-who)%', descriptor_key: own}",
            ("own", "%REQ(x-who)%"),
        ),
        (
            "/match",
            "header_value_match: {descriptor_value: yes1, headers: [{name: x-who, string_match: {exact: me}}]}",
            ("header_match", "yes1"),
        ),
        (
            "/unless",
            "header_value_match: {descriptor_key: k, descriptor_value: no1, expect_match: false, headers: [{name: x-who, string_match: {exact: me}}]}",
            ("k", "no1"),
        ),
        (
            "/qmatch",
            "query_parameter_value_match: {descriptor_value: yes1, query_parameters: [{name: who, string_match: {exact: me}}]}",
            ("query_match", "yes1"),
        ),
        (
            "/amatch",
            "remote_address_match: {descriptor_value: near, address_matcher: {ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}}",
            ("remote_address_match", "near"),
        ),
        (
            "/noted",
            "metadata: {descriptor_key: m, metadata_key: {key: noted, path: [{key: who}]}}",
            ("m", "me"),
        ),
        (
            "/default",
            "metadata: {descriptor_key: m, default_value: d, metadata_key: {key: noted, path: [{key: other}]}}",
            ("m", "d"),
        ),
        (
            "/route",
            "metadata: {descriptor_key: m, source: ROUTE_ENTRY, metadata_key: {key: x, path: [{key: name}]}}",
            ("m", "of-route"),
        ),
        (
            "/cluster",
            "metadata: {descriptor_key: m, source: CLUSTER_ENTRY, metadata_key: {key: x, path: [{key: name}]}}",
            ("m", "of-cluster"),
        ),
    ];
    let of_actions = actions.iter().map(|(path, action, entry)| {
        let more =
            format!("{}, {}, {}", bucket(100), once(&[&[*entry]]), rule(&format!("{{{action}}}")));
        let metadata = if *path == "/route" {
            ", metadata: {filter_metadata: {x: {name: of-route}}}"
        } else {
            ""
        };
        format!(
            "- {{match: {{prefix: {path}}}, route: {{cluster: a}}{metadata}, {}}}\n",
            local(&more)
        )
    });
    let of_actions: String = of_actions.collect();
    let who = "{request_headers: {header_name: x-who, descriptor_key: who}}";
    let place = "{generic_key: {descriptor_value: here}}";
    let routes = [
        route(
            "/several",
            &format!(
                "{}, {}, rate_limits: [{{actions: [{who}, {place}]}}, {{actions: [{place}]}}]",
                bucket(3),
                once(&[&[("who", "me"), ("generic_key", "here")]])
            ),
            "",
        ),
        route(
            "/skipped",
            &format!(
                "{}, {}, {}",
                bucket(100),
                once(&[&[("generic_key", "here")]]),
                rule(&format!(
                    "{{request_headers: {{header_name: x-who, descriptor_key: who, skip_if_absent: true}}}}, {place}"
                ))
            ),
            "",
        ),
        route(
            "/open",
            &format!(
                "{}, always_consume_default_token_bucket: false, max_dynamic_descriptors: 1, enable_x_ratelimit_headers: DRAFT_VERSION_03, {}, {}",
                bucket(2),
                once(&[&[("who", "")], &[("who", "fixed")]]),
                rule(who)
            ),
            "",
        ),
        route(
            "/said",
            &format!(
                "{}, enable_x_ratelimit_headers: DRAFT_VERSION_03, enable_retry_after_header: true, response_headers_to_add: [{{header: {{key: x-limited, value: '1'}}}}], descriptors: [{{entries: [{{key: who, value: me}}], token_bucket: {{max_tokens: 5, tokens_per_fill: 1, fill_interval: 3600s}}}}], rate_limits: [{{actions: [{who}], hits_addend: {{number: 2}}}}]",
                bucket(3),
            ),
            "",
        ),
        route(
            "/own",
            &format!(
                "{}, {}, rate_limits: [{{actions: [{who}], x_ratelimit_option: DRAFT_VERSION_03}}]",
                bucket(100),
                once(&[&[("who", "me")]]),
            ),
            "",
        ),
        route(
            "/shadow",
            &format!(
                "{}, descriptors: [{{entries: [{{key: who, value: me}}], shadow_mode: true, {}}}], {}",
                bucket(100),
                bucket(1),
                rule(who)
            ),
            "",
        ),
        // By the rules of routes and the virtual host, which has one for `here`.
        route("/host", &format!("{}, {}", bucket(100), once(&[&[("generic_key", "here")]])), ""),
        route(
            "/override",
            &format!("{}, {}", bucket(100), once(&[&[("generic_key", "here")], &[("who", "me")]])),
            &format!(", rate_limits: [{{actions: [{who}]}}]"),
        ),
        route(
            "/include",
            &format!("{}, {}", bucket(100), once(&[&[("generic_key", "here")], &[("who", "me")]])),
            &format!(", include_vh_rate_limits: true, rate_limits: [{{actions: [{who}]}}]"),
        ),
        route(
            "/ignore",
            &format!(
                "{}, vh_rate_limits: IGNORE, {}",
                bucket(100),
                once(&[&[("generic_key", "here")]])
            ),
            "",
        ),
        route(
            "/stage",
            &format!(
                "{}, stage: 2, {}",
                bucket(100),
                once(&[&[("generic_key", "here")], &[("who", "me")]])
            ),
            &format!(", rate_limits: [{{stage: 2, actions: [{who}]}}, {{actions: [{place}]}}]"),
        ),
        route(
            "/off",
            &format!("{}, {}", bucket(100), once(&[&[("who", "me")]])),
            &format!(", rate_limits: [{{disable_key: any, actions: [{who}]}}]"),
        ),
    ];
    let routes = format!("{of_actions}{}", routes.join("\n"));
    let filter = format!(
        "- {{name: limit, typed_config: {{{TYPE}.local_ratelimit.v3.LocalRateLimit, stat_prefix: limit}}}}"
    );
    let host = "rate_limits: [{actions: [{generic_key: {descriptor_value: here}}]}]";
    listener("LISTEN", &filter, host, &routes, "use_remote_address: true\nxff_num_trusted_hops: 1")
}

/// A filter that asks the service.
fn global(more: &str) -> String {
    format!(
        "- {{name: limit, typed_config: {{{TYPE}.ratelimit.v3.RateLimit, domain: d, timeout: 5s, rate_limit_service: {{grpc_service: {{envoy_grpc: {{cluster_name: limits}}}}, transport_api_version: V3}}, {more}}}}}"
    )
}

fn global_listeners() -> Vec<String> {
    let wish = "{request_headers: {header_name: x-wish, descriptor_key: wish}}";
    let per_route = |more: &str| {
        format!(
            "typed_per_filter_config: {{limit: {{{TYPE}.ratelimit.v3.RateLimitPerRoute, {more}}}}}"
        )
    };
    let routes = [
        "- {match: {prefix: /host}, route: {cluster: a}}".to_owned(),
        format!(
            "- {{match: {{prefix: /both}}, route: {{cluster: a, rate_limits: [{{actions: [{wish}]}}]}}, {}}}",
            per_route("vh_rate_limits: INCLUDE")
        ),
        format!(
            "- {{match: {{prefix: /ignore}}, route: {{cluster: a, rate_limits: [{{actions: [{wish}]}}]}}, {}}}",
            per_route("vh_rate_limits: IGNORE, domain: other")
        ),
        format!(
            "- {{match: {{prefix: /own}}, route: {{cluster: a}}, {}}}",
            per_route(&format!(
                "rate_limits: [{{actions: [{wish}], hits_addend: {{number: 3, is_negative_hits: true}}, x_ratelimit_option: DRAFT_VERSION_03}}]"
            ))
        ),
        format!(
            "- {{match: {{prefix: /limit}}, route: {{cluster: a, rate_limits: [{{actions: [{wish}], limit: {{dynamic_metadata: {{metadata_key: {{key: noted, path: [{{key: limit}}]}}}}}}}}]}}}}"
        ),
        format!(
            "- {{match: {{prefix: /fixed}}, route: {{cluster: a, rate_limits: [{{actions: [{wish}], limit: {{rate_limit: {{requests_per_unit: 9, unit: DAY}}}}}}]}}}}"
        ),
        format!(
            "- {{match: {{prefix: /stage}}, route: {{cluster: a, rate_limits: [{{stage: 1, actions: [{wish}]}}]}}}}"
        ),
        "- {match: {prefix: /direct}, direct_response: {status: 200}}".to_owned(),
        format!(
            "- {{match: {{prefix: /}}, route: {{cluster: a, rate_limits: [{{actions: [{wish}]}}]}}}}"
        ),
    ]
    .join("\n");
    let host = "rate_limits: [{actions: [{generic_key: {descriptor_value: host}}]}]";
    let of = |place: &str, more: &str| listener(place, &global(more), host, &routes, "");
    vec![
        of("LISTEN_ASK", "request_type: both"),
        of(
            "LISTEN_SAYS",
            "enable_x_ratelimit_headers: DRAFT_VERSION_03, enable_retry_after_header: true, disable_x_envoy_ratelimited_header: true, stat_prefix: own, response_headers_to_add: [{header: {key: x-limited, value: '%PROTOCOL%'}}]",
        ),
        of(
            "LISTEN_DENY",
            "failure_mode_deny: true, rate_limited_status: {code: 503}, status_on_error: {code: 504}, rate_limited_as_resource_exhausted: true",
        ),
        of(
            "LISTEN_SOME",
            "failure_mode_deny: true, failure_mode_deny_percent: {default_value: {numerator: 0}}, filter_enforced: {default_value: {numerator: 0}}",
        ),
        of("LISTEN_OFF", "filter_enabled: {default_value: {numerator: 0}}"),
        of("LISTEN_INTERNAL", "request_type: internal"),
        of("LISTEN_STAGE", "stage: 1"),
        of(
            "LISTEN_RULES",
            &format!(
                "metadata_namespace: mine, rate_limits: [{{actions: [{wish}, {{destination_cluster: {{}}}}]}}, {{actions: [{wish}]}}]"
            ),
        ),
        listener(
            "LISTEN_HANGS",
            &global("failure_mode_deny: true").replace("timeout: 5s", "timeout: 0.05s"),
            host,
            &routes,
            "",
        ),
    ]
}

pub(crate) fn group() -> Group {
    let mut listeners = global_listeners();
    listeners.push(local_listener());
    let http2 = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}";
    Group {
        name: "rate_limits",
        bootstrap: bootstrap(
            &listeners,
            &[
                cluster("a", &["a"], "metadata: {filter_metadata: {x: {name: of-cluster}}}"),
                cluster("limits", &["limits"], http2),
            ],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("limits", UpstreamKind::RateLimits)],
        unsupported: None,
        cases: [local_cases(), global_cases(), vec![counted()]].into_iter().flatten().collect(),
    }
}

fn local_cases() -> Vec<Case> {
    let get =
        |path: &str| Request::get(path).header("x-forwarded-for", "10.1.2.3").header("x-who", "me");
    let twice = |case: Case, request: &Request| {
        case.send(request.clone(), "200 a").send(request.clone(), "429 -")
    };
    let mut actions = Case::new("each_action_describes_a_request");
    for path in [
        "/source",
        "/destination",
        "/header",
        "/remote",
        "/masked",
        "/whole",
        "/fixed",
        "/named",
        "/match",
        "/amatch",
        "/noted",
        "/default",
        "/route",
        "/cluster",
    ] {
        actions = twice(actions, &get(path));
    }
    for path in ["/query?who=me", "/qmatch?a&who=me"] {
        actions = twice(actions, &get(path));
    }
    let method = Request::post("/method", "");
    let far = |path: &str| Request::get(path).header("x-forwarded-for", "192.0.2.1");
    let six = Request::get("/six").header("x-forwarded-for", "2001:db8::1:2:3");
    actions = twice(twice(twice(actions, &method), &six), &far("/unless"));
    let mut others = Case::new("a_request_that_is_not_described_so_has_no_limit_of_its_own");
    for path in ["/header", "/query", "/remote", "/match", "/amatch", "/method", "/qmatch?who=x"] {
        others = others.send(far(path), "200 a").send(far(path), "200 a");
    }
    vec![
        actions,
        others.send(get("/unless"), "200 a").send(get("/unless"), "200 a"),
        Case::new("all_entries_have_to_be_the_same_and_the_common_bucket_counts_too")
            .send(get("/several"), "200 a")
            .send(get("/several"), "429 -")
            .send(far("/several"), "200 a")
            .send(far("/several"), "200 a")
            .send(far("/several"), "429 -"),
        Case::new("an_entry_that_is_absent_may_be_left_out")
            .send(far("/skipped"), "200 a")
            .send(far("/skipped"), "429 -")
            .send(get("/skipped"), "200 a"),
        Case::new("each_value_of_an_open_entry_has_its_bucket")
            .send(get("/open"), "200 a")
            .send(get("/open"), "429 -")
            .send(far("/open").header("x-who", "other"), "200 a")
            .send(get("/open"), "200 a")
            .send(far("/open").header("x-who", "fixed"), "200 a")
            .send(far("/open").header("x-who", "fixed"), "429 -")
            .send(far("/open"), "200 a"),
        Case::new("headers_say_what_is_left")
            .send(get("/said"), "200 a")
            .send(get("/said"), "200 a")
            .send(get("/said"), "429 -")
            .send(far("/said"), "200 a")
            .send(far("/said"), "429 -")
            .send(get("/own"), "200 a")
            .send(get("/own").http2(), "429 -")
            .send(far("/own"), "200 a"),
        Case::new("a_limit_that_only_counts")
            .send(get("/shadow"), "200 a")
            .send(get("/shadow"), "200 a"),
        Case::new("rules_stand_in_routes_and_virtual_hosts")
            .send(get("/host"), "200 a")
            .send(get("/host"), "429 -")
            .send(get("/override"), "200 a")
            .send(far("/override"), "200 a")
            .send(get("/override"), "429 -")
            .send(far("/override"), "200 a")
            .send(get("/include"), "200 a")
            .send(far("/include"), "429 -")
            .send(get("/ignore"), "200 a")
            .send(get("/ignore"), "200 a")
            .send(get("/stage"), "200 a")
            .send(far("/stage"), "200 a")
            .send(get("/stage"), "429 -")
            .send(get("/off"), "200 a")
            .send(get("/off"), "200 a"),
    ]
}

/// Sends a request, and notes what the service was asked.
async fn ask(
    world: &World,
    seen: &mut Observation,
    listener: &str,
    request: &Request,
    step: &str,
) -> anyhow::Result<()> {
    world.send(seen, step, listener, request).await?;
    for (index, asked) in world.limit_server("limits")?.take().iter().enumerate() {
        seen.fact(step, &format!("asked[{index}]"), world.normal(asked));
    }
    Ok(())
}

/// A case of requests to these listeners.
fn asked(name: &'static str, requests: Vec<(&'static str, Request)>) -> Case {
    Case::custom(name, move |world| {
        let requests = requests.clone();
        Box::pin(async move {
            let mut seen = Observation::default();
            for (index, (listener, request)) in requests.iter().enumerate() {
                ask(world, &mut seen, listener, request, &format!("step {index}")).await?;
            }
            Ok(seen)
        })
    })
}

fn global_cases() -> Vec<Case> {
    let get = |path: &str, wish: &str| Request::get(path).header("x-wish", wish);
    let grpc = |wish: &str| {
        Request::post("/", "")
            .http2()
            .header("content-type", "application/grpc")
            .header("x-wish", wish)
    };
    let wishes = ["ok", "full", "over", "unknown", "fail"];
    let at = |listener: &'static str| -> Vec<(&'static str, Request)> {
        wishes.iter().map(|wish| (listener, get("/", wish))).collect()
    };
    vec![
        asked("the_service_decides", at("LISTEN_ASK")),
        asked("what_is_said_about_it", at("LISTEN_SAYS")),
        asked("nobody_decides", at("LISTEN_DENY")),
        asked("some_decisions_are_not_enforced", at("LISTEN_SOME")),
        asked("rules_stand_in_the_filter", at("LISTEN_RULES")),
        asked("a_filter_is_off", vec![("LISTEN_OFF", get("/", "over"))]),
        asked(
            "a_grpc_client_gets_a_status",
            vec![
                ("LISTEN_ASK", grpc("over")),
                ("LISTEN_DENY", grpc("over")),
                ("LISTEN_DENY", grpc("fail")),
            ],
        ),
        asked(
            "some_requests_are_not_asked_about",
            vec![
                ("LISTEN_ASK", Request::get("/")),
                ("LISTEN_ASK", get("/direct", "over")),
                ("LISTEN_ASK", get("/stage", "over")),
                ("LISTEN_STAGE", get("/stage", "over")),
                ("LISTEN_STAGE", get("/", "over")),
                ("LISTEN_INTERNAL", get("/", "over")),
                ("LISTEN_INTERNAL", get("/", "over").header("x-envoy-internal", "true")),
            ],
        ),
        asked(
            "a_route_says_otherwise",
            ["/host", "/both", "/ignore", "/own", "/limit", "/fixed"]
                .into_iter()
                .map(|path| ("LISTEN_ASK", get(path, "ok")))
                .collect(),
        ),
        asked("an_answer_that_does_not_come_in_time", vec![("LISTEN_HANGS", get("/", "hang"))]),
    ]
}

fn counted() -> Case {
    Case::custom("statistics", |world| {
        Box::pin(async move {
            statistics(world, &["limit.http_local_rate_limit.", "cluster.a.ratelimit."]).await
        })
    })
}
