//! What filters note of a request: who writes it, and who reads it.

use anyhow::Result;
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::access_log;
use crate::parts::{bootstrap, http_listener, indent, statistics};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http";

const VALUES: &str = "{text: hello, number: 5, fraction: 1.5, truth: true, nothing: null, list: [a, 1, {b: c}], inner: {deep: {deeper: found}}, quote: 'a\"b'}";

/// Headers that show what a response can be told.
fn shown() -> String {
    let values = [
        "DYNAMIC_METADATA(test:text)",
        "DYNAMIC_METADATA(test:number)",
        "DYNAMIC_METADATA(test:fraction)",
        "DYNAMIC_METADATA(test:truth)",
        "DYNAMIC_METADATA(test:nothing)",
        "DYNAMIC_METADATA(test:list)",
        "DYNAMIC_METADATA(test:inner)",
        "DYNAMIC_METADATA(test:inner:deep:deeper)",
        "DYNAMIC_METADATA(test:inner:none)",
        "DYNAMIC_METADATA(test:text:none)",
        "DYNAMIC_METADATA(test:quote)",
        "DYNAMIC_METADATA(none)",
        "DYNAMIC_METADATA(second)",
        "DYNAMIC_METADATA(test:text):2",
        "FILTER_STATE(key)",
        "FILTER_STATE(key:PLAIN)",
        "FILTER_STATE(key:TYPED)",
        "FILTER_STATE(key:PLAIN):3",
        "FILTER_STATE(none:PLAIN)",
        "FILTER_STATE(late:PLAIN)",
        "CLUSTER_METADATA(c:name)",
        "CLUSTER_METADATA(c)",
        "UPSTREAM_METADATA(e:zone)",
        "UPSTREAM_METADATA(e:weights)",
    ];
    let added: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(index, value)| format!("{{header: {{key: x-{index:02}, value: '%{value}%'}}}}"))
        .collect();
    format!("response_headers_to_add: [{}]", added.join(", "))
}

fn set_metadata(entries: &str) -> String {
    format!("{{name: set_metadata, typed_config: {{{TYPE}.set_metadata.v3.Config, {entries}}}}}")
}

fn set_state(more: &str, entries: &[(&str, &str, &str)]) -> String {
    let entries: Vec<String> = entries
        .iter()
        .map(|(key, value, more)| {
            format!(
                "{{object_key: {key}, factory_key: envoy.string, {more} format_string: {{text_format_source: {{inline_string: '{value}'}}}}}}"
            )
        })
        .collect();
    format!(
        "{{name: set_state, typed_config: {{{TYPE}.set_filter_state.v3.Config, {more} on_request_headers: [{}]}}}}",
        entries.join(", ")
    )
}

fn manager(place: &str, filters: &[String], routes: &str) -> String {
    let log = format!(
        "access_log:
- name: envoy.access_loggers.file
  filter: {{metadata_filter: {{matcher: {{filter: test, path: [{{key: text}}], value: {{string_match: {{exact: hello}}}}}}}}}}
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: '${{DIR}}/{place}.log'
    log_format: {{json_format: {{path: '%REQ(:PATH)%', text: '%DYNAMIC_METADATA(test:text)%', number: '%DYNAMIC_METADATA(test:number)%', all: '%DYNAMIC_METADATA(test)%', mixed: 'is %DYNAMIC_METADATA(test:inner)%', none: '%DYNAMIC_METADATA(none:x)%', state: '%FILTER_STATE(key)%', plain: '%FILTER_STATE(key:PLAIN)%', cluster: '%CLUSTER_METADATA(c)%', endpoint: '%UPSTREAM_METADATA(e)%', short: '%DYNAMIC_METADATA(test:text):2%'}}}}
"
    );
    let filters: String = filters.iter().map(|filter| format!("- {filter}\n")).collect();
    let more = format!(
        "{log}route_config:
  name: test
  {}
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
{}
http_filters:
{filters}- ROUTER",
        shown(),
        indent(routes, 4)
    );
    http_listener(place, &more)
}

fn rbac(name: &str, rules: &str) -> String {
    format!("{{name: {name}, typed_config: {{{TYPE}.rbac.v3.RBAC, {rules}}}}}")
}

pub(crate) fn group() -> Group {
    let plain = "- {match: {prefix: /}, route: {cluster: a}}";
    let written = manager(
        "LISTEN",
        &[
            set_metadata(&format!(
                "metadata: [{{metadata_namespace: test, value: {VALUES}}}, {{metadata_namespace: second, value: {{a: 1}}}}, {{metadata_namespace: empty}}]"
            )),
            set_state(
                "",
                &[("key", "%REQ(x-key)% from %PROTOCOL%", ""), ("late", "%REQ(x-none)%", "")],
            ),
        ],
        plain,
    );
    let per_route = format!(
        "- {{match: {{prefix: /direct}}, direct_response: {{status: 200, body: {{inline_string: made}}}}}}
{plain}"
    );
    let merged = manager(
        "LISTEN_MERGED",
        &[
            set_metadata(&format!("metadata_namespace: test, value: {VALUES}")),
            set_metadata(
                "metadata: [{metadata_namespace: test, allow_overwrite: true, value: {text: new, list: [z], inner: {deep: {more: 1}}, number: five}}]",
            ).replacen("set_metadata", "second", 1),
            set_metadata("metadata: [{metadata_namespace: test, value: {text: never}}]").replacen("set_metadata", "third", 1),
        ],
        &per_route,
    );
    let rematch = "- {match: {prefix: /, filter_state: [{key: key, string_match: {exact: gold}}]}, name: gold, direct_response: {status: 210}}
- {match: {prefix: /, dynamic_metadata: [{filter: test, path: [{key: text}], value: {string_match: {exact: hello}}}]}, name: hello, direct_response: {status: 202}}
- {match: {prefix: /}, route: {cluster: a}}";
    let cleared = manager(
        "LISTEN_CLEARED",
        &[set_state(
            "clear_route_cache: true,",
            &[("key", "%REQ(x-key)%", "skip_if_empty: true,")],
        )],
        rematch,
    );
    let kept = manager(
        "LISTEN_KEPT",
        &[
            set_state("", &[("key", "%REQ(x-key)%", "")]),
            set_metadata(&format!("metadata: [{{metadata_namespace: test, value: {VALUES}}}]")),
        ],
        rematch,
    );
    let metadata_after = manager(
        "LISTEN_AFTER",
        &[
            set_metadata(&format!("metadata: [{{metadata_namespace: test, value: {VALUES}}}]")),
            set_state("clear_route_cache: true,", &[("other", "x", "")]),
        ],
        rematch,
    );
    let policy = |permission: &str, principal: &str| {
        format!("{{permissions: [{permission}], principals: [{principal}]}}")
    };
    let by = |what: &str| format!("{{filter: test, {what}}}");
    let path = |path: &str, rest: &str| {
        format!("{{and_rules: {{rules: [{{url_path: {{path: {{exact: {path}}}}}}}, {rest}]}}}}")
    };
    let any = "{any: true}";
    let value = |key: &str, value: &str| by(&format!("path: [{{key: {key}}}], value: {value}"));
    let metadata = |matcher: String| format!("{{metadata: {matcher}}}");
    let route_source = "{sourced_metadata: {metadata_source: ROUTE, metadata_matcher: {filter: r, path: [{key: tier}], value: {string_match: {exact: gold}}}}}";
    let dynamic_source = "{sourced_metadata: {metadata_matcher: {filter: test, path: [{key: text}], value: {string_match: {exact: hello}}}}}";
    let policies = [
        (
            "text",
            policy(&path("/text", &metadata(value("text", "{string_match: {prefix: hel}}"))), any),
        ),
        (
            "number",
            policy(&path("/number", &metadata(value("number", "{double_match: {exact: 5}}"))), any),
        ),
        (
            "range",
            policy(
                &path(
                    "/range",
                    &metadata(value("number", "{double_match: {range: {start: 1, end: 5}}}")),
                ),
                any,
            ),
        ),
        ("bool", policy(&path("/bool", &metadata(value("truth", "{bool_match: true}"))), any)),
        ("null", policy(&path("/null", &metadata(value("nothing", "{null_match: {}}"))), any)),
        ("no-null", policy(&path("/no-null", &metadata(value("none", "{null_match: {}}"))), any)),
        (
            "present",
            policy(&path("/present", &metadata(value("inner", "{present_match: true}"))), any),
        ),
        (
            "absent",
            policy(&path("/absent", &metadata(value("none", "{present_match: false}"))), any),
        ),
        (
            "list",
            policy(
                &path(
                    "/list",
                    &metadata(value("list", "{list_match: {one_of: {string_match: {exact: a}}}}")),
                ),
                any,
            ),
        ),
        (
            "or",
            policy(
                &path(
                    "/or",
                    &metadata(value(
                        "text",
                        "{or_match: {value_matchers: [{bool_match: true}, {string_match: {exact: hello}}]}}",
                    )),
                ),
                any,
            ),
        ),
        (
            "inverted",
            policy(
                &path(
                    "/inverted",
                    &metadata(by(
                        "path: [{key: none}], invert: true, value: {string_match: {exact: x}}",
                    )),
                ),
                any,
            ),
        ),
        (
            "principal",
            policy(
                "{url_path: {path: {exact: /principal}}}",
                &metadata(value("text", "{string_match: {exact: hello}}")),
            ),
        ),
        (
            "state",
            policy(
                "{url_path: {path: {exact: /state}}}",
                "{filter_state: {key: key, string_match: {exact: gold}}}",
            ),
        ),
        ("route", policy("{url_path: {path: {exact: /route}}}", route_source)),
        ("no-route", policy("{url_path: {path: {exact: /no-route}}}", route_source)),
        ("dynamic", policy(&path("/dynamic", dynamic_source), any)),
    ];
    let policies: Vec<String> =
        policies.iter().map(|(name, policy)| format!("'{name}': {policy}")).collect();
    let rules = format!("rules: {{policies: {{{}}}}}", policies.join(", "));
    let routes = format!(
        "- {{match: {{prefix: /route}}, route: {{cluster: a}}, metadata: {{filter_metadata: {{r: {{tier: gold}}}}}}}}
{plain}"
    );
    let checked = manager(
        "LISTEN_RBAC",
        &[
            set_metadata(&format!("metadata: [{{metadata_namespace: test, value: {VALUES}}}]")),
            set_state("", &[("key", "%REQ(x-key)%", "")]),
            rbac("rbac", &rules),
        ],
        &routes,
    );
    let one = |action: &str| {
        format!(
            "{{action: {action}, policies: {{one: {{permissions: [{{url_path: {{path: {{prefix: /one}}}}}}], principals: [{{any: true}}]}}}}}}"
        )
    };
    let noted = |place: &str, rules: &str| {
        let listener = manager(place, &[rbac("rbac", rules)], plain);
        // Only what the filter notes is looked at.
        let (before, after) = listener.split_once("response_headers_to_add:").unwrap_or_default();
        let after = after.split_once('\n').unwrap_or_default().1;
        format!(
            "{before}response_headers_to_add: [{{header: {{key: x-rbac, value: '%DYNAMIC_METADATA(envoy.filters.http.rbac)%'}}}}, {{header: {{key: x-hint, value: '%DYNAMIC_METADATA(envoy.common)%'}}}}]\n{after}"
        )
    };
    Group {
        name: "metadata",
        bootstrap: bootstrap(
            &[
                written,
                merged,
                cleared,
                kept,
                metadata_after,
                checked,
                noted("LISTEN_SHADOW", &format!("shadow_rules: {}, shadow_rules_stat_prefix: 'pre_'", one("ALLOW"))),
                noted("LISTEN_BOTH", &format!("shadow_rules: {}, rules: {}, rules_stat_prefix: 'pre_'", one("DENY"), one("ALLOW"))),
                noted("LISTEN_DENY", &format!("rules: {}", one("DENY"))),
                noted("LISTEN_LOG", &format!("rules: {}", one("LOG"))),
            ],
            &["- name: a
  type: STATIC
  metadata: {filter_metadata: {c: {name: cluster-a, list: [1, 2]}}}
  load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: ${a}}, metadata: {filter_metadata: {e: {zone: z1, weights: {b: 2, a: 1}}}}}]}]}
".to_owned()],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let get = |path: &str| Request::get(path);
    let keyed = |path: &str, value: &str| Request::get(path).header("x-key", value);
    let mut cases =
        vec![
            Case::new("what_filters_note_can_be_added_to_responses")
                .send(keyed("/", "gold"), "200 a")
                .send(keyed("/", "a\"b").http2(), "200 a")
                .send(get("/"), "200 a"),
            Case::new("an_answer_without_an_endpoint_knows_what_was_noted").send_to(
                "LISTEN_MERGED",
                get("/direct"),
                "200 -",
            ),
            Case::new("metadata_are_merged_where_they_may_be").send_to(
                "LISTEN_MERGED",
                get("/"),
                "200 a",
            ),
            Case::new("a_route_is_looked_for_again_where_a_filter_says_so")
                .send_to("LISTEN_CLEARED", keyed("/", "gold"), "210 -")
                .send_to("LISTEN_CLEARED", keyed("/", "silver"), "200 a")
                .send_to("LISTEN_CLEARED", get("/"), "200 a"),
            Case::new("a_route_that_was_found_stays").send_to(
                "LISTEN_KEPT",
                keyed("/", "gold"),
                "200 a",
            ),
            Case::new("a_route_by_metadata").send_to("LISTEN_AFTER", get("/"), "202 -"),
            Case::new("a_shadow_decision_is_noted")
                .send_to("LISTEN_SHADOW", get("/one"), "200 a")
                .send_to("LISTEN_SHADOW", get("/two"), "200 a"),
            Case::new("both_decisions_are_noted")
                .send_to("LISTEN_BOTH", get("/one"), "200 a")
                .send_to("LISTEN_BOTH", get("/two"), "403 -"),
            Case::new("a_denial_is_noted").send_to("LISTEN_DENY", get("/one"), "403 -").send_to(
                "LISTEN_DENY",
                get("/two"),
                "200 a",
            ),
            Case::new("a_hint_for_logs_is_noted")
                .send_to("LISTEN_LOG", get("/one"), "200 a")
                .send_to("LISTEN_LOG", get("/two"), "200 a"),
        ];
    for (name, request, expected) in [
        ("rbac_by_a_text", get("/text"), "200 a"),
        ("rbac_by_a_number", get("/number"), "200 a"),
        ("rbac_by_a_range_without_its_end", get("/range"), "403 -"),
        ("rbac_by_a_boolean", get("/bool"), "200 a"),
        ("rbac_by_a_null", get("/null"), "200 a"),
        ("rbac_what_is_missing_is_no_null", get("/no-null"), "403 -"),
        ("rbac_by_presence", get("/present"), "200 a"),
        ("rbac_by_absence_matches_nothing", get("/absent"), "403 -"),
        ("rbac_by_an_element", get("/list"), "200 a"),
        ("rbac_by_one_of_several", get("/or"), "200 a"),
        ("rbac_inverted", get("/inverted"), "200 a"),
        ("rbac_by_a_principal", get("/principal"), "200 a"),
        ("rbac_by_filter_state", keyed("/state", "gold"), "200 a"),
        ("rbac_by_other_filter_state", keyed("/state", "silver"), "403 -"),
        ("rbac_by_the_route", get("/route"), "200 a"),
        ("rbac_by_a_route_without_metadata", get("/no-route"), "403 -"),
        ("rbac_by_named_dynamic_metadata", get("/dynamic"), "200 a"),
    ] {
        cases.push(Case::new(name).send_to("LISTEN_RBAC", request, expected));
    }
    cases.push(Case::custom("lines_of_logs", |world| Box::pin(lines(world))));
    cases.push(Case::custom("statistics", |world| {
        Box::pin(statistics(world, &["http.test.rbac.", "http.test.set_metadata."]))
    }));
    cases
}

/// Only what the filter of the log takes is written.
async fn lines(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let already = std::fs::read_to_string(world.folder.path().join("LISTEN_MERGED.log"))
        .map_or(0, |text| text.lines().count());
    for path in ["/not-written", "/other", "/missing"] {
        world.upstream("a")?.script([Reply::status(200)]);
        Request::get(path).send(world.address("LISTEN_MERGED")?).await;
        Request::get(path).header("x-key", "k").send(world.address("LISTEN")?).await;
    }
    world.upstream("a")?.take();
    for number in 0..3 {
        let line = access_log::line(world, "LISTEN", number).await?;
        seen.fact("line", &number.to_string(), world.normal(&line));
    }
    let text = std::fs::read_to_string(world.folder.path().join("LISTEN_MERGED.log"))?;
    seen.fact("line", "more", text.lines().count() - already);
    Ok(seen)
}
