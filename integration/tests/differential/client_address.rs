//! Who the client is where it is not the peer, and what is done to headers before that is asked.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};

use crate::parts::{bootstrap, cluster, http_listener, routes};

const LOG: &str = "request_headers_to_add: [{header: {key: x-client, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}]";

const INTERNAL: &str =
    "internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}";

fn detection(configs: &[&str]) -> String {
    let extensions: Vec<String> = configs
        .iter()
        .map(|config| {
            let kind = if config.contains("header_name") {
                "custom_header.v3.CustomHeaderConfig"
            } else {
                "xff.v3.XffConfig"
            };
            format!("{{name: a, typed_config: {{'@type': type.googleapis.com/envoy.extensions.http.original_ip_detection.{kind}, {config}}}}}")
        })
        .collect();
    format!("original_ip_detection_extensions: [{}]", extensions.join(", "))
}

fn early(mutations: &str) -> String {
    format!(
        "early_header_mutation_extensions: [{{name: a, typed_config: {{'@type': type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation, mutations: [{mutations}]}}}}]"
    )
}

pub(crate) fn group() -> Group {
    let to_a = routes(&format!("- match: {{prefix: /}}\n  route: {{cluster: a}}\n  {LOG}"));
    let with =
        |place: &str, more: &str| http_listener(place, &format!("{INTERNAL}\n{more}\n{to_a}"));
    let trusted = "xff_trusted_cidrs: {cidrs: [{address_prefix: 127.0.0.0, prefix_len: 8}, {address_prefix: 192.168.0.0, prefix_len: 16}]}";
    let header = "header_name: x-client-ip";
    let append = |name: &str, value: &str, action: &str| {
        format!(
            "{{append: {{header: {{key: {name}, value: '{value}'}}, append_action: {action}}}}}"
        )
    };
    let mutations = [
        append("x-early", "%REQ(x-in)%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        append("x-forwarded-for", "10.9.9.9", "ADD_IF_ABSENT"),
        "{remove: x-gone}".to_owned(),
    ]
    .join(", ");
    Group {
        name: "client_address",
        bootstrap: bootstrap(
            &[
                with("LISTEN", ""),
                with("LISTEN_HOPS", "xff_num_trusted_hops: 1"),
                with("LISTEN_XFF", &detection(&["xff_num_trusted_hops: 1"])),
                with(
                    "LISTEN_APPEND",
                    &detection(&["xff_num_trusted_hops: 0, skip_xff_append: false"]),
                ),
                with("LISTEN_TRUSTED", &detection(&[trusted])),
                with(
                    "LISTEN_UNTRUSTED",
                    &detection(&[
                        "xff_trusted_cidrs: {cidrs: [{address_prefix: 10.0.0.0, prefix_len: 8}]}",
                    ]),
                ),
                with("LISTEN_HEADER", &detection(&[header])),
                with(
                    "LISTEN_HEADER_TRUSTED",
                    &detection(&[&format!(
                        "{header}, allow_extension_to_set_address_as_trusted: true"
                    )]),
                ),
                with(
                    "LISTEN_HEADER_STRICT",
                    &detection(&[&format!("{header}, reject_with_status: {{code: Unauthorized}}")]),
                ),
                with(
                    "LISTEN_HEADER_ODD",
                    &detection(&[&format!("{header}, reject_with_status: {{code: OK}}")]),
                ),
                with("LISTEN_BOTH", &detection(&[header, "xff_num_trusted_hops: 0"])),
                with("LISTEN_EARLY", &early(&mutations)),
                with("LISTEN_EDGE_HOPS", "use_remote_address: true\nxff_num_trusted_hops: 2"),
                with("LISTEN_EDGE_SKIP", "use_remote_address: true\nskip_xff_append: true"),
            ],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: [forwarded_for(), headers(), early_cases()].into_iter().flatten().collect(),
    }
}

fn ask(fields: &[(&str, &str)]) -> Request {
    fields.iter().fold(Request::get("/"), |request, (name, value)| request.header(name, value))
}

fn xff(value: &str) -> Request {
    ask(&[("x-forwarded-for", value)])
}

fn forwarded_for() -> Vec<Case> {
    let at = |name: &'static str, place: &'static str, values: &[&str]| {
        values.iter().fold(Case::new(name), |case, value| case.send_to(place, xff(value), "200 a"))
    };
    vec![
        at(
            "the_last_address_is_the_client_and_internal_only_if_it_is_the_only_one",
            "LISTEN",
            &["10.0.0.1", "1.1.1.1", "10.0.0.2, 10.0.0.1", "10.0.0.1:80", "nobody", "", "::1", ","],
        ),
        at(
            "behind_a_trusted_proxy_nobody_is_internal",
            "LISTEN_HOPS",
            &["10.0.0.1", "10.0.0.1, 1.1.1.1", "1.1.1.1,2.2.2.2,3.3.3.3"],
        ),
        at("the_extension_counts_hops_too", "LISTEN_XFF", &["10.0.0.1, 1.1.1.1", "1.1.1.1", ""]),
        at(
            "the_peer_is_appended_on_demand",
            "LISTEN_APPEND",
            &["10.0.0.1", "nobody", "1.1.1.1, 2.2.2.2"],
        ),
        at(
            "trusted_addresses_are_passed_over",
            "LISTEN_TRUSTED",
            &[
                "1.1.1.1, 2.2.2.2, 192.168.0.1",
                "192.168.0.2, 192.168.0.1",
                "10.0.0.1",
                "nobody, 192.168.0.1",
                "nobody, 1.1.1.1",
                "10.0.0.1,,192.168.0.1",
            ],
        ),
        at("a_peer_that_is_not_trusted_is_the_client", "LISTEN_UNTRUSTED", &["1.1.1.1, 10.0.0.1"]),
        at(
            "two_hops_of_the_edge",
            "LISTEN_EDGE_HOPS",
            &["1.1.1.1", "1.1.1.1, 2.2.2.2", "1.1.1.1,2.2.2.2,3.3.3.3"],
        ),
        at("an_edge_that_appends_nothing", "LISTEN_EDGE_SKIP", &["1.1.1.1", "10.0.0.1, 1.1.1.1"]),
        Case::new("without_x_forwarded_for_the_peer_is_the_client")
            .get("/", "200 a")
            .send_to("LISTEN_XFF", Request::get("/"), "200 a")
            .send_to("LISTEN_TRUSTED", Request::get("/").http2(), "200 a"),
        Case::new("two_lines_are_one_list")
            .send(ask(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "10.0.0.1")]), "200 a"),
    ]
}

fn headers() -> Vec<Case> {
    let ip = |value: &str| ask(&[("x-client-ip", value)]);
    vec![
        Case::new("a_header_names_the_client")
            .send_to("LISTEN_HEADER", ip("10.0.0.1"), "200 a")
            .send_to("LISTEN_HEADER", ip("::ffff:1.2.3.4"), "200 a")
            .send_to("LISTEN_HEADER", ip("10.0.0.1, 1.1.1.1"), "200 a")
            .send_to("LISTEN_HEADER", Request::get("/"), "200 a"),
        Case::new("a_header_that_is_trusted_makes_internal")
            .send_to("LISTEN_HEADER_TRUSTED", ip("10.0.0.1"), "200 a")
            .send_to("LISTEN_HEADER_TRUSTED", ip("1.1.1.1"), "200 a"),
        Case::new("a_request_without_the_header_is_refused_where_it_has_to_be_there")
            .send_to("LISTEN_HEADER_STRICT", Request::get("/"), "401 -")
            .send_to("LISTEN_HEADER_STRICT", ip("nobody"), "401 -")
            .send_to("LISTEN_HEADER_STRICT", ip("1.1.1.1"), "200 a")
            .send_to("LISTEN_HEADER_STRICT", Request::get("/").http2(), "401 -")
            .send_to("LISTEN_HEADER_ODD", Request::get("/"), "403 -"),
        Case::new("the_first_way_that_finds_one_counts")
            .send_to(
                "LISTEN_BOTH",
                ask(&[("x-client-ip", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]),
                "200 a",
            )
            .send_to("LISTEN_BOTH", xff("10.0.0.1"), "200 a"),
    ]
}

fn early_cases() -> Vec<Case> {
    vec![
        Case::new("early_mutations_come_before_the_client_is_found")
            .send_to("LISTEN_EARLY", ask(&[("x-in", "1"), ("x-gone", "1")]), "200 a")
            .send_to("LISTEN_EARLY", ask(&[("x-in", "1")]).http2(), "200 a"),
        Case::new("early_mutations_see_what_is_there").send_to(
            "LISTEN_EARLY",
            ask(&[("x-early", "0"), ("x-forwarded-for", "1.1.1.1")]),
            "200 a",
        ),
    ]
}
