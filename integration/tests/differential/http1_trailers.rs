//! Trailers of HTTP/1, which have to be enabled.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes};

pub(crate) fn group() -> Group {
    let manager = format!(
        "http_protocol_options: {{enable_trailers: true}}\n{}",
        routes("- {match: {prefix: /}, route: {cluster: a}}")
    );
    Group {
        name: "http1_trailers",
        bootstrap: bootstrap(&[http_listener("LISTEN", &manager)], &[cluster("a", &["a"], "")]),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: Some("http_protocol_options.enable_trailers"),
        cases: vec![
            Case::new("trailers_of_http1_pass_when_enabled")
                .script("a", [Reply::status(200).chunks(&["body"]).trailer("x-trailer", "t")])
                .send(Request::get("/").header("te", "trailers"), "200 a"),
        ],
    }
}
