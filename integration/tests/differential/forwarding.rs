//! Header fields between hops: what is removed, what is added, what is believed.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes};

pub(crate) fn group() -> Group {
    let to_a = routes("- {match: {prefix: /}, route: {cluster: a}}");
    let with = |place: &str, more: &str| http_listener(place, &format!("{more}\n{to_a}"));
    Group {
        name: "forwarding",
        bootstrap: bootstrap(
            &[
                with("LISTEN", ""),
                with("LISTEN_EDGE", "use_remote_address: true"),
                with("LISTEN_KEEP", "use_remote_address: true\npreserve_external_request_id: true"),
                with("LISTEN_SKIP", "use_remote_address: true\nskip_xff_append: true"),
                with("LISTEN_HOP", "use_remote_address: true\nxff_num_trusted_hops: 1"),
                with("LISTEN_NO_ID", "generate_request_id: false"),
                with("LISTEN_SERVER", "server_name: mesh"),
                with("LISTEN_PASS", "server_header_transformation: PASS_THROUGH"),
                with("LISTEN_ABSENT", "server_header_transformation: APPEND_IF_ABSENT"),
                with("LISTEN_VIA", "via: proxy-1"),
                with("LISTEN_NORMAL", "normalize_path: true\nmerge_slashes: true"),
            ],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: [hop_by_hop(), forwarded(), ids(), server()].into_iter().flatten().collect(),
    }
}

fn get(fields: &[(&str, &str)]) -> Request {
    fields.iter().fold(Request::get("/"), |request, (name, value)| request.header(name, value))
}

fn hop_by_hop() -> Vec<Case> {
    vec![
        Case::new("fields_named_by_connection").send(
            get(&[("connection", "x-private, keep-alive"), ("x-private", "1"), ("x-public", "1")]),
            "200 a",
        ),
        Case::new("keep_alive_and_proxy_connection")
            .send(get(&[("keep-alive", "timeout=5"), ("proxy-connection", "keep-alive")]), "200 a"),
        Case::new("te_keeps_trailers_only")
            .send(get(&[("te", "trailers")]), "200 a")
            .send(get(&[("te", "gzip, trailers")]), "200 a")
            .send(get(&[("te", "gzip")]), "200 a"),
        Case::new("proxy_authorization_passes").send(
            get(&[("proxy-authorization", "Basic x"), ("authorization", "Basic y")]),
            "200 a",
        ),
        Case::new("fields_of_the_answer_that_are_for_one_hop")
            .script(
                "a",
                [Reply::status(200)
                    .header("keep-alive", "timeout=5")
                    .header("proxy-connection", "keep-alive")
                    .header("proxy-authenticate", "Basic")
                    .body("a")],
            )
            .send(Request::get("/"), "200 a"),
        Case::new("fields_of_the_answer_named_by_connection")
            .script(
                "a",
                [Reply::status(200)
                    .header("connection", "x-private")
                    .header("x-private", "1")
                    .body("a")],
            )
            .send(Request::get("/"), "200 a"),
        Case::new("an_offer_to_upgrade_to_http2_is_ignored")
            .send(get(&[("connection", "upgrade"), ("upgrade", "h2c")]), "200 a"),
    ]
}

fn forwarded() -> Vec<Case> {
    let chain = [("x-forwarded-for", "203.0.113.7, 198.51.100.1")];
    vec![
        Case::new("x_forwarded_for_is_left_alone_by_default")
            .send(Request::get("/"), "200 a")
            .send(get(&chain), "200 a"),
        Case::new("x_forwarded_for_is_appended_at_the_edge")
            .send_to("LISTEN_EDGE", Request::get("/"), "200 a")
            .send_to("LISTEN_EDGE", get(&chain), "200 a"),
        Case::new("x_forwarded_for_is_not_appended_when_told")
            .send_to("LISTEN_SKIP", get(&chain), "200 a")
            .send_to("LISTEN_SKIP", Request::get("/"), "200 a"),
        Case::new("a_trusted_hop").send_to("LISTEN_HOP", get(&chain), "200 a"),
        Case::new("x_forwarded_proto_is_kept_unless_at_the_edge")
            .send(get(&[("x-forwarded-proto", "https")]), "200 a")
            .send_to("LISTEN_EDGE", get(&[("x-forwarded-proto", "https")]), "200 a"),
        Case::new("envoy_fields_of_an_outside_client_are_dropped")
            .send(envoy_fields(), "200 a")
            .send_to("LISTEN_EDGE", envoy_fields(), "200 a"),
        Case::new("client_certificate_field_is_dropped")
            .send(get(&[("x-forwarded-client-cert", "By=spiffe://forged")]), "200 a"),
        Case::new("other_forwarding_fields_pass").send(
            get(&[
                ("forwarded", "for=1.2.3.4"),
                ("x-forwarded-host", "h"),
                ("x-real-ip", "1.2.3.4"),
            ]),
            "200 a",
        ),
        Case::new("via_is_added_when_told").send_to(
            "LISTEN_VIA",
            get(&[("via", "1.1 before")]),
            "200 a",
        ),
        Case::new("user_agent_and_host_from_http2")
            .send(get(&[("user-agent", "test/1")]).http2(), "200 a"),
        Case::new("cookies_over_http2_are_joined")
            .send(get(&[("cookie", "a=1"), ("cookie", "b=2")]).http2(), "200 a"),
        Case::new("paths_are_normalized_when_told")
            .send_to("LISTEN_NORMAL", Request::get("/a/./b/../c//d"), "200 a")
            .send_to("LISTEN_NORMAL", Request::get("/%61%2Fb/%2e%2e/c?x=//y/../z"), "200 a"),
    ]
}

fn envoy_fields() -> Request {
    get(&[
        ("x-envoy-internal", "true"),
        ("x-envoy-external-address", "1.2.3.4"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-max-retries", "3"),
        ("x-envoy-upstream-rq-timeout-ms", "5000"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "500"),
        ("x-envoy-expected-rq-timeout-ms", "1"),
        ("x-envoy-decorator-operation", "op"),
        ("x-envoy-force-trace", "true"),
        ("x-envoy-unknown", "stays?"),
    ])
}

fn ids() -> Vec<Case> {
    let id = [("x-request-id", "mine")];
    vec![
        Case::new("a_request_id_is_made").send(Request::get("/"), "200 a"),
        Case::new("a_request_id_is_kept_inside").send(get(&id), "200 a"),
        Case::new("a_request_id_is_replaced_at_the_edge").send_to("LISTEN_EDGE", get(&id), "200 a"),
        Case::new("a_request_id_is_kept_at_the_edge_when_told")
            .send_to("LISTEN_KEEP", get(&id), "200 a")
            .send_to("LISTEN_KEEP", Request::get("/"), "200 a"),
        Case::new("no_request_id_when_told").send_to("LISTEN_NO_ID", Request::get("/"), "200 a"),
    ]
}

fn server() -> Vec<Case> {
    let named = || Reply::status(200).header("server", "upstream").body("a");
    vec![
        Case::new("server_is_overwritten").script("a", [named()]).send(Request::get("/"), "200 a"),
        Case::new("server_name").script("a", [named()]).send_to(
            "LISTEN_SERVER",
            Request::get("/"),
            "200 a",
        ),
        Case::new("server_passes_when_told")
            .script("a", [named()])
            .send_to("LISTEN_PASS", Request::get("/"), "200 a")
            .send_to("LISTEN_PASS", Request::get("/"), "200 a"),
        Case::new("server_is_added_if_absent_when_told")
            .script("a", [named()])
            .send_to("LISTEN_ABSENT", Request::get("/"), "200 a")
            .send_to("LISTEN_ABSENT", Request::get("/"), "200 a"),
        Case::new("a_date_of_the_upstream_is_kept")
            .script(
                "a",
                [Reply::status(200).header("date", "Mon, 01 Jan 2024 00:00:00 GMT").body("a")],
            )
            .send(Request::get("/"), "200 a"),
        Case::new("envoy_fields_of_an_answer")
            .script(
                "a",
                [Reply::status(200)
                    .header("x-envoy-upstream-service-time", "x")
                    .header("x-envoy-overloaded", "true")
                    .header("x-envoy-other", "1")
                    .header("x-request-id", "from-upstream")
                    .body("a")],
            )
            .send(Request::get("/"), "200 a"),
    ]
}
