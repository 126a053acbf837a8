//! Which virtual host a request belongs to. Each answers with a status of its own.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group};

use crate::parts::{bootstrap, http_listener, indent};

const VIRTUAL_HOSTS: &str = "
- {name: any, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 210}}]}
- {name: exact, domains: [exact.example, 'second.example'], routes: [{match: {prefix: /}, direct_response: {status: 211}}]}
- {name: suffix, domains: ['*.suffix.example'], routes: [{match: {prefix: /}, direct_response: {status: 212}}]}
- {name: long, domains: ['*.long.suffix.example'], routes: [{match: {prefix: /}, direct_response: {status: 213}}]}
- {name: prefix, domains: ['prefix.*'], routes: [{match: {prefix: /}, direct_response: {status: 214}}]}
- {name: longer, domains: ['prefix.long.*'], routes: [{match: {prefix: /}, direct_response: {status: 215}}]}
- {name: port, domains: ['port.example:81'], routes: [{match: {prefix: /}, direct_response: {status: 216}}]}
- {name: both, domains: ['prefix.suffix.example'], routes: [{match: {prefix: /}, direct_response: {status: 217}}]}
- {name: dash, domains: ['*-dash.example'], routes: [{match: {prefix: /}, direct_response: {status: 218}}]}
- {name: upper, domains: ['UPPER.example'], routes: [{match: {prefix: /}, direct_response: {status: 219}}]}
- {name: narrow, domains: ['narrow.example'], routes: [{match: {prefix: /only}, direct_response: {status: 220}}]}
";

const IGNORING_PORTS: &str = "
- {name: exact, domains: [exact.example], routes: [{match: {prefix: /}, direct_response: {status: 211}}]}
";

pub(crate) fn group() -> Group {
    let hosts = |hosts: &str, more: &str| {
        format!("route_config:\n  name: test\n{more}  virtual_hosts:\n{}", indent(hosts, 2))
    };
    Group {
        name: "domains",
        bootstrap: bootstrap(
            &[
                http_listener("LISTEN", &hosts(VIRTUAL_HOSTS, "")),
                http_listener(
                    "LISTEN_PORTS",
                    &hosts(IGNORING_PORTS, "  ignore_port_in_host_matching: true\n"),
                ),
                http_listener("LISTEN_ONE", &hosts(IGNORING_PORTS, "")),
            ],
            &[],
        ),
        upstreams: vec![],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let host = |host: &str| Request::get("/").host(host);
    vec![
        Case::new("an_exact_domain")
            .send(host("exact.example"), "211 -")
            .send(host("second.example"), "211 -"),
        Case::new("domains_ignore_case")
            .send(host("EXACT.example"), "211 -")
            .send(host("upper.example"), "219 -")
            .send(host("A.Suffix.Example"), "212 -"),
        Case::new("a_suffix_wildcard_needs_something_in_front")
            .send(host("a.suffix.example"), "212 -")
            .send(host("a.b.suffix.example"), "212 -")
            .send(host(".suffix.example"), "210 -")
            .send(host("suffix.example"), "210 -"),
        Case::new("the_longest_suffix_wins").send(host("a.long.suffix.example"), "213 -"),
        Case::new("a_suffix_wildcard_may_end_inside_a_label")
            .send(host("x-dash.example"), "218 -")
            .send(host("-dash.example"), "210 -"),
        Case::new("a_prefix_wildcard")
            .send(host("prefix.example"), "214 -")
            .send(host("prefix.long.example"), "215 -"),
        Case::new("exact_before_suffix_before_prefix")
            .send(host("prefix.suffix.example"), "217 -")
            .send(host("prefix.x.suffix.example"), "212 -"),
        Case::new("a_port_is_part_of_the_domain")
            .send(host("port.example:81"), "216 -")
            .send(host("port.example"), "210 -")
            .send(host("exact.example:80"), "210 -"),
        Case::new("ports_are_ignored_when_told")
            .send_to("LISTEN_PORTS", host("exact.example:8080"), "211 -")
            .send_to("LISTEN_PORTS", host("exact.example"), "211 -"),
        Case::new("no_virtual_host_is_not_found").send_to(
            "LISTEN_ONE",
            host("other.example"),
            "404 -",
        ),
        Case::new("a_virtual_host_does_not_fall_through_to_another")
            .send(host("narrow.example"), "404 -")
            .send(Request::get("/only").host("narrow.example"), "220 -"),
        Case::new("http2_authority").send(host("exact.example").http2(), "211 -"),
    ]
}
