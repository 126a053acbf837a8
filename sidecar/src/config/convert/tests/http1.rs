//! Options of HTTP/1 and the scheme of requests: what arrives, and what is refused under its own path.

use serde_json::{Value, json};

use super::harness::{accepted, refused_at};
use crate::config::http_connection_manager::{HttpConnectionManager, RequestScheme};
use crate::config::listener::TerminalFilter;

fn manager(changes: &[(&str, Value)]) -> HttpConnectionManager {
    let bootstrap = accepted(changes);
    let TerminalFilter::Http(manager) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("a connection manager");
    };
    manager.as_ref().clone()
}

#[test]
fn everything_is_off_unless_it_is_said() {
    let http1 = manager(&[("HCM.http_protocol_options", json!({}))]).http1;
    assert!(!http1.accept_http_10 && http1.default_host.is_none() && !http1.proper_case);
    assert!(!http1.allow_chunked_length && !http1.allow_custom_methods);
    assert!(http1.ignored_upgrades.is_empty());
    let options = json!({
        "default_host_for_http_10": "a",
        "header_key_format": {"proper_case_words": {}},
        "ignore_http_11_upgrade": [{"exact": "a"}],
    });
    let http1 = manager(&[("HCM.http_protocol_options", options)]).http1;
    assert!(http1.default_host.is_some_and(|host| host == "a") && http1.proper_case);
    assert_eq!(http1.ignored_upgrades.len(), 1);
}

#[test]
fn a_scheme_is_one_of_two_or_that_of_the_endpoint() {
    let place = "HCM.scheme_header_transformation";
    for (value, expected) in [
        (json!({}), None),
        (json!({"match_upstream": true}), Some(RequestScheme::Upstream)),
        (json!({"scheme_to_overwrite": "http"}), Some(RequestScheme::Http)),
        (json!({"scheme_to_overwrite": "https"}), Some(RequestScheme::Https)),
    ] {
        assert_eq!(manager(&[(place, value)]).scheme, expected);
    }
    refused_at(
        &[(place, json!({"scheme_to_overwrite": "ws"}))],
        &format!("{place}.scheme_to_overwrite"),
        "is not one of http, https",
    );
}
