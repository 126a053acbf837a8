//! Header fields added and removed: route, weighted cluster, virtual host, route configuration; values with operators.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener};

const ROUTES: &str = r#"
route_config:
  name: test
  request_headers_to_add: [{header: {key: x-level, value: config}}]
  response_headers_to_add: [{header: {key: x-level, value: config}}]
  request_headers_to_remove: [x-gone-config]
  response_headers_to_remove: [x-gone-config]
  virtual_hosts:
  - name: all
    domains: ['*']
    request_headers_to_add: [{header: {key: x-level, value: host}}]
    response_headers_to_add: [{header: {key: x-level, value: host}}]
    request_headers_to_remove: [x-gone-host]
    response_headers_to_remove: [x-gone-host]
    routes:
    - match: {prefix: /weighted}
      request_headers_to_add: [{header: {key: x-level, value: route}}]
      response_headers_to_add: [{header: {key: x-level, value: route}}]
      route:
        weighted_clusters:
          clusters:
          - name: a
            weight: 1
            request_headers_to_add: [{header: {key: x-level, value: weighted}}]
            response_headers_to_add: [{header: {key: x-level, value: weighted}}]
            request_headers_to_remove: [x-gone-weighted]
            response_headers_to_remove: [x-gone-weighted]
    - match: {prefix: /levels}
      request_headers_to_add: [{header: {key: x-level, value: route}}]
      response_headers_to_add: [{header: {key: x-level, value: route}}]
      request_headers_to_remove: [x-gone-route]
      response_headers_to_remove: [x-gone-route]
      route: {cluster: a}
    - match: {prefix: /actions}
      request_headers_to_add: &actions
      - {header: {key: x-append, value: new}, append_action: APPEND_IF_EXISTS_OR_ADD}
      - {header: {key: x-if-absent, value: new}, append_action: ADD_IF_ABSENT}
      - {header: {key: x-overwrite, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
      - {header: {key: x-if-exists, value: new}, append_action: OVERWRITE_IF_EXISTS}
      response_headers_to_add: *actions
      route: {cluster: a}
    - match: {prefix: /values}
      request_headers_to_add:
      - {header: {key: x-protocol, value: "%PROTOCOL%"}}
      - {header: {key: x-remote, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}
      - {header: {key: x-local, value: "%DOWNSTREAM_LOCAL_ADDRESS%"}}
      - {header: {key: x-copy, value: "<%REQ(x-from)%>"}}
      - {header: {key: x-fallback, value: "%REQ(x-missing?x-from)%"}}
      - {header: {key: x-cut, value: "%REQ(x-from):3%"}}
      - {header: {key: x-path, value: "%REQ(:path)%"}}
      - {header: {key: x-percent, value: "100%%"}}
      response_headers_to_add:
      - {header: {key: x-from-response, value: "%RESP(x-inner)%"}}
      - {header: {key: x-from-request, value: "%REQ(x-from)%"}}
      - {header: {key: x-code, value: "%RESPONSE_CODE%"}}
      - {header: {key: x-upstream, value: "%UPSTREAM_HOST%"}}
      - {header: {key: x-flags, value: "%RESPONSE_FLAGS%"}}
      route: {cluster: a}
    - match: {prefix: /empty}
      request_headers_to_add:
      - {header: {key: x-dropped, value: ""}}
      - {header: {key: x-kept, value: ""}, keep_empty_value: true}
      - {header: {key: x-dash, value: "%REQ(x-missing)%"}}
      route: {cluster: a}
    - match: {prefix: /remove-then-add}
      request_headers_to_remove: [x-v]
      request_headers_to_add: [{header: {key: x-v, value: added}}]
      response_headers_to_remove: [x-v]
      response_headers_to_add: [{header: {key: x-v, value: added}}]
      route: {cluster: a}
    - match: {prefix: /host-header}
      request_headers_to_add:
      - {header: {key: x-authority, value: "%REQ(:authority)%"}}
      - {header: {key: user-agent, value: proxy}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
      route: {cluster: a}
    - match: {prefix: /direct}
      direct_response: {status: 200, body: {inline_string: direct}}
      response_headers_to_add: [{header: {key: x-level, value: route}}]
    - {match: {prefix: /}, route: {cluster: a}}
"#;

const MOST_SPECIFIC: &str = "
route_config:
  name: test
  most_specific_header_mutations_wins: true
  request_headers_to_add: [{header: {key: x-level, value: config}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
  virtual_hosts:
  - name: all
    domains: ['*']
    request_headers_to_add: [{header: {key: x-level, value: host}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
    routes:
    - match: {prefix: /}
      request_headers_to_add: [{header: {key: x-level, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
      route: {cluster: a}
";

pub(crate) fn group() -> Group {
    let least_specific = MOST_SPECIFIC
        .replace("most_specific_header_mutations_wins: true", "internal_only_headers: []");
    Group {
        name: "headers",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", ROUTES),
                http_listener("LISTEN_SPECIFIC", MOST_SPECIFIC),
                http_listener("LISTEN_GENERAL", &least_specific),
            ],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let answer = |fields: &[(&str, &str)]| {
        let reply = Reply::status(200).body("a");
        fields.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    };
    let gone = [
        ("x-gone-config", "1"),
        ("x-gone-host", "1"),
        ("x-gone-route", "1"),
        ("x-gone-weighted", "1"),
        ("x-stays", "1"),
    ];
    let with = |path: &str, fields: &[(&str, &str)]| {
        fields.iter().fold(Request::get(path), |request, (name, value)| request.header(name, value))
    };
    let present = [
        ("x-append", "old"),
        ("x-if-absent", "old"),
        ("x-overwrite", "old"),
        ("x-if-exists", "old"),
    ];
    vec![
        Case::new("every_level_adds_in_order").script("a", [answer(&[])]).get("/levels", "200 a"),
        Case::new("every_level_removes")
            .script("a", [answer(&gone)])
            .send(with("/levels", &gone), "200 a"),
        Case::new("a_weighted_cluster_adds_first").get("/weighted", "200 a"),
        Case::new("a_weighted_cluster_removes")
            .script("a", [answer(&gone)])
            .send(with("/weighted", &gone), "200 a"),
        Case::new("append_actions_on_fields_that_exist")
            .script("a", [answer(&present)])
            .send(with("/actions", &present), "200 a"),
        Case::new("append_actions_on_fields_that_do_not_exist").get("/actions", "200 a"),
        Case::new("append_actions_on_fields_with_several_values")
            .script(
                "a",
                [answer(&[
                    ("x-append", "1"),
                    ("x-append", "2"),
                    ("x-overwrite", "1"),
                    ("x-overwrite", "2"),
                ])],
            )
            .send(
                with(
                    "/actions",
                    &[
                        ("x-overwrite", "1"),
                        ("x-overwrite", "2"),
                        ("x-append", "1"),
                        ("x-append", "2"),
                    ],
                ),
                "200 a",
            ),
        Case::new("operators_in_values")
            .script("a", [answer(&[("x-inner", "inner")])])
            .send(with("/values?q", &[("x-from", "abcdef")]), "200 a"),
        Case::new("operators_without_a_value").get("/values", "200 a"),
        Case::new("operators_over_http2")
            .send(with("/values", &[("x-from", "abcdef")]).http2(), "200 a"),
        Case::new("empty_values_are_dropped_unless_kept").get("/empty", "200 a"),
        Case::new("removal_and_addition_of_one_field")
            .script("a", [answer(&[("x-v", "old")])])
            .send(with("/remove-then-add", &[("x-v", "old")]), "200 a"),
        Case::new("authority_and_user_agent")
            .send(with("/host-header", &[("user-agent", "client")]), "200 a"),
        Case::new("local_replies_get_the_added_fields").get("/direct", "200 -"),
        Case::new("the_most_specific_level_wins_when_told").send_to(
            "LISTEN_SPECIFIC",
            Request::get("/"),
            "200 a",
        ),
        Case::new("the_least_specific_level_wins_by_default").send_to(
            "LISTEN_GENERAL",
            Request::get("/"),
            "200 a",
        ),
        Case::new("several_values_and_their_order_survive")
            .script(
                "a",
                [answer(&[
                    ("x-many", "1"),
                    ("x-many", "2"),
                    ("set-cookie", "a=1"),
                    ("set-cookie", "b=2"),
                ])],
            )
            .send(with("/", &[("x-many", "1"), ("x-many", "2"), ("cookie", "a=1; b=2")]), "200 a"),
        Case::new("values_keep_their_bytes")
            .script("a", [answer(&[("x-text", "a  b\tc \"d\"")])])
            .send(with("/", &[("x-text", "a  b\tc; \"d\"")]), "200 a"),
    ]
}
