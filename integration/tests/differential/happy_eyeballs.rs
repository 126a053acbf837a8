//! Endpoints with several addresses: which is tried, and what logs say of the one that was taken.

use outrigger_integration::differential::{Case, Group, UpstreamKind};

use crate::parts::{bootstrap, http_listener, routes};

const HOST: &str = "{header: {key: x-host, value: '%UPSTREAM_HOST%'}}, ";
const SEEN: &str = "{header: {key: x-remote, value: '%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}";

/// A cluster whose one endpoint is at these addresses, with more fields in flow YAML.
fn cluster(name: &str, addresses: &[&str], more: &str) -> String {
    let (first, rest) = addresses.split_first().unwrap_or((&"", &[]));
    let rest: Vec<String> = rest.iter().map(|address| format!("{{address: {address}}}")).collect();
    format!(
        "- {{name: {name}, type: STATIC, connect_timeout: 2s, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {first}, additional_addresses: [{}]}}}}]}}]}}{more}}}\n",
        rest.join(", ")
    )
}

pub(crate) fn group() -> Group {
    let names =
        ["first", "second", "third", "none", "six", "six_first", "six_closed", "two", "back"];
    let to: Vec<String> = names
        .iter()
        .map(|name| {
            // The comparison knows no name for the port that nobody listens on where it is one of version 6; and where no
            // connection came to be, our answer has no endpoint to name, unlike Envoy's.
            let host = if ["six_first", "back", "none"].contains(name) { "" } else { HOST };
            format!("- {{match: {{path: /{name}}}, route: {{cluster: {name}}}, response_headers_to_add: [{host}{SEEN}]}}\n")
        })
        .collect();
    // Nobody listens there: the port is that of an address of version 4.
    let six = "{socket_address: {address: '::1', port_value: ${closed.port}}}";
    let order = |config: &str| {
        format!(", upstream_connection_options: {{happy_eyeballs_config: {{{config}}}}}")
    };
    Group {
        name: "happy_eyeballs",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &routes(&to.concat()))],
            &[
                cluster("first", &["${a}", "${b}"], ""),
                cluster("second", &["${closed}", "${a}"], ""),
                cluster("third", &["${closed}", "${closed}", "${b}"], ""),
                cluster("none", &["${closed}", "${closed}"], ""),
                cluster("six", &["${a}", six], ""),
                cluster("six_first", &[six, "${a}"], ""),
                cluster(
                    "six_closed",
                    &["${a}", six, "${b}"],
                    &order("first_address_family_version: V6"),
                ),
                cluster(
                    "two",
                    &["${closed}", "${b}", six],
                    &order("first_address_family_count: 2"),
                ),
                cluster(
                    "back",
                    &[six, "${b}"],
                    &order("first_address_family_version: V4, first_address_family_count: 1"),
                ),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("b", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
        ],
        unsupported: None,
        cases: [
            ("the_first_address_is_taken", "/first", "200 a"),
            ("one_that_refuses_is_passed_over", "/second", "200 a"),
            ("two_that_refuse_are_passed_over", "/third", "200 b"),
            ("all_that_refuse_are_a_failure", "/none", "503 -"),
            ("version_4_is_tried_before_version_6", "/six", "200 a"),
            ("version_6_is_tried_first_if_it_stands_first", "/six_first", "200 a"),
            ("version_6_is_tried_first_if_that_is_said", "/six_closed", "200 a"),
            ("two_of_a_family_are_tried_before_the_other", "/two", "200 b"),
            ("version_4_is_tried_first_if_that_is_said", "/back", "200 b"),
        ]
        .into_iter()
        .map(|(name, path, expected)| Case::new(name).get(path, expected))
        .collect(),
    }
}
