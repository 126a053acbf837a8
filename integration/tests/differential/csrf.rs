//! The filter that refuses what another site made a browser send.

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind};

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};
use crate::wire::stats;

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy";
const ALL: &str = "{default_value: {numerator: 100}}";
const NONE: &str = "{default_value: {numerator: 0}, runtime_key: csrf.none}";

pub(crate) fn group() -> Group {
    let policy = |more: &str| format!("{{csrf: {{{TYPE}, {more}}}}}");
    let route = |path: &str, more: &str| {
        let policy = policy(more);
        format!(
            "- {{match: {{prefix: {path}}}, route: {{cluster: a}}, typed_per_filter_config: {policy}}}\n"
        )
    };
    let off =
        "{csrf: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}";
    let routes = [
        route("/shadow", &format!("filter_enabled: {NONE}, shadow_enabled: {ALL}")),
        route("/none", &format!("filter_enabled: {NONE}")),
        route(
            "/more",
            &format!(
                "filter_enabled: {ALL}, additional_origins: [{{exact: one.example}}, {{suffix: '.two.example'}}, {{exact: 'port.example:8080'}}]"
            ),
        ),
        route("/both", &format!("filter_enabled: {ALL}, shadow_enabled: {ALL}")),
        format!("- {{match: {{prefix: /off}}, route: {{cluster: a}}, typed_per_filter_config: {off}}}\n"),
        "- {match: {prefix: /}, route: {cluster: a}}\n".to_owned(),
    ]
    .concat();
    let manager = format!(
        "route_config:
  name: test
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
{}
http_filters:
- {{name: csrf, typed_config: {{{TYPE}, filter_enabled: {ALL}, additional_origins: [{{exact: zero.example}}]}}}}
- ROUTER",
        indent(&routes, 4),
    );
    Group {
        name: "csrf",
        bootstrap: bootstrap(&[http_listener("LISTEN", &manager)], &[cluster("a", &["a"], "")]),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: vec![methods(), origins(), routes_say_otherwise(), hosts(), kinds(), counted()],
    }
}

fn from(method: &str, path: &str, origin: &str) -> Request {
    Request::new(method, path).header("origin", origin)
}

fn methods() -> Case {
    let mut case = Case::new("what_changes_nothing_passes");
    for (method, expected) in [
        ("GET", "200 a"),
        ("HEAD", "200 a"),
        ("OPTIONS", "200 a"),
        ("TRACE", "200 a"),
        ("POST", "403 -"),
        ("PUT", "403 -"),
        ("DELETE", "403 -"),
        ("PATCH", "403 -"),
    ] {
        case = case
            .send(from(method, "/", "http://other.example"), expected)
            .send(from(method, "/", "http://other.example").http2(), expected);
    }
    case
}

fn origins() -> Case {
    let mut case = Case::new("the_origin_is_that_of_the_request");
    for (origin, expected) in [
        ("http://test.example", "200 a"),
        ("https://test.example", "200 a"),
        ("http://TEST.example", "403 -"),
        ("http://test.example:80", "403 -"),
        ("http://test.example:443", "403 -"),
        ("https://test.example:443", "403 -"),
        ("http://test.example/path?query", "200 a"),
        ("http://user@test.example", "200 a"),
        ("test.example", "200 a"),
        ("ftp://test.example", "200 a"),
        ("chrome-extension://test.example", "200 a"),
        ("http://test.example#part", "403 -"),
        ("HTTP://test.example", "200 a"),
        ("http://test.example:8080", "403 -"),
        ("http://zero.example", "200 a"),
        ("http://a.test.example", "403 -"),
        ("null", "403 -"),
        ("", "403 -"),
    ] {
        case = case.send(from("POST", "/", origin), expected);
    }
    case.send(Request::new("POST", "/"), "403 -")
        .send(Request::new("POST", "/").header("referer", "http://test.example/page"), "200 a")
        .send(Request::new("POST", "/").header("referer", "http://other.example/page"), "403 -")
        .send(from("POST", "/", "").header("referer", "https://test.example/page").http2(), "200 a")
        .send(
            from("POST", "/", "http://other.example").header("referer", "http://test.example/"),
            "403 -",
        )
        .send(from("POST", "/", "null").header("referer", "http://test.example/"), "403 -")
        .send(Request::new("POST", "/").header("referer", "null"), "403 -")
        .send(Request::post("/", "a body").header("origin", "http://other.example"), "403 -")
        .send(
            Request::post("/", "a body").header("origin", "http://other.example").http2(),
            "403 -",
        )
        .send(
            from("POST", "/", "http://other.example")
                .header("content-type", "application/grpc")
                .http2(),
            "200 -",
        )
}

fn routes_say_otherwise() -> Case {
    let other = "http://other.example";
    Case::new("a_route_says_otherwise")
        .send(from("POST", "/shadow", other), "200 a")
        .send(from("POST", "/shadow", "http://test.example"), "200 a")
        .send(Request::new("POST", "/shadow"), "200 a")
        .send(from("POST", "/none", other), "200 a")
        .send(from("POST", "/off", other), "200 a")
        .send(from("POST", "/both", other), "403 -")
        .send(from("POST", "/more", other), "403 -")
        .send(from("POST", "/more", "http://one.example"), "200 a")
        .send(from("POST", "/more", "https://a.two.example"), "200 a")
        .send(from("POST", "/more", "https://port.example:8080"), "200 a")
        .send(from("POST", "/more", "http://zero.example"), "403 -")
}

fn hosts() -> Case {
    let mut case = Case::new("the_host_has_a_port_or_none");
    for (host, origin, expected) in [
        ("test.example:8080", "http://test.example:8080", "200 a"),
        ("test.example:8080", "http://test.example", "403 -"),
        ("test.example:80", "http://test.example:80", "200 a"),
        ("test.example:80", "http://test.example", "403 -"),
        ("TEST.example", "http://test.example", "403 -"),
        ("[::1]:81", "http://[::1]:81", "200 a"),
    ] {
        case = case.send(from("PUT", "/", origin).host(host), expected);
    }
    case
}

/// What is no origin at all, and what is another.
fn kinds() -> Case {
    Case::custom("each_origin_is_counted", |world| {
        Box::pin(async move {
            let mut seen = Observation::default();
            for (step, origin) in
                ["null", "http://test.example#part", "http://", "ftp://", "://a", "/"]
                    .iter()
                    .enumerate()
            {
                let before = stats(world, &["http.test.csrf."]).await?;
                from("POST", "/", origin).send(world.address("LISTEN")?).await;
                for (name, value) in stats(world, &["http.test.csrf."]).await? {
                    let grown = value - before.get(&name).copied().unwrap_or(0);
                    if grown > 0 {
                        seen.fact(&format!("step {step}"), &name, grown);
                    }
                }
            }
            Ok(seen)
        })
    })
}

fn counted() -> Case {
    Case::custom("statistics", |world| {
        Box::pin(async move { statistics(world, &["http.test.csrf."]).await })
    })
}
