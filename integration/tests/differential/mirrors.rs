//! Copies of requests for other clusters: which requests, what they look like, and that nobody waits for them.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};

const ROUTES: &str = r#"
- match: {prefix: /literal}
  route: {cluster: a, request_mirror_policies: [{cluster: m, host_rewrite_literal: copy.example}]}
- match: {prefix: /same}
  route: {cluster: a, request_mirror_policies: [{cluster: m, disable_shadow_host_suffix_append: true}]}
- match: {prefix: /header}
  route: {cluster: a, request_mirror_policies: [{cluster_header: x-mirror}]}
- match: {prefix: /never}
  route: {cluster: a, request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 0}}}]}
- match: {prefix: /always}
  route: {cluster: a, request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 1000000, denominator: MILLION}}}]}
- match: {prefix: /two}
  route: {cluster: a, request_mirror_policies: [{cluster: m}, {cluster: m2}]}
- match: {prefix: /http2}
  route: {cluster: a, request_mirror_policies: [{cluster: m_http2}]}
- match: {prefix: /closed}
  route: {cluster: a, request_mirror_policies: [{cluster: closed}]}
- match: {prefix: /retried}
  route: {cluster: a, retry_policy: {retry_on: 5xx}, request_mirror_policies: [{cluster: m}]}
- match: {prefix: /mutated}
  route:
    cluster: a
    request_mirror_policies:
    - cluster: m
      request_headers_mutations:
      - {remove: x-gone}
      - {append: {header: {key: x-copy, value: '%REQ(x-in)%'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}
- match: {prefix: /rewritten}
  route: {cluster: a, prefix_rewrite: /new, host_rewrite_literal: new.example, request_mirror_policies: [{cluster: m}]}
  request_headers_to_add: [{header: {key: x-added, value: '1'}}]
- match: {prefix: /small}
  request_body_buffer_limit: 10
  route: {cluster: a, request_mirror_policies: [{cluster: m}]}
- match: {prefix: /timeout}
  route: {cluster: a, timeout: 0.3s, request_mirror_policies: [{cluster: m}]}
- match: {prefix: /direct}
  direct_response: {status: 200, body: {inline_string: hello}}
- match: {prefix: /outer}
  route: {cluster: a}
- match: {prefix: /}
  route: {cluster: a, request_mirror_policies: [{cluster: m}]}
"#;

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

pub(crate) fn group() -> Group {
    let hosts = format!(
        "route_config:
  name: test
  request_mirror_policies: [{{cluster: m2}}]
  virtual_hosts:
  - name: counted
    domains: [counted.example]
    include_request_attempt_count: true
    request_mirror_policies: [{{cluster: m}}]
    routes: [{{match: {{prefix: /}}, route: {{cluster: a}}}}]
  - name: all
    domains: ['*']
    routes:
{}",
        indent(ROUTES, 4)
    );
    Group {
        name: "mirrors",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &hosts)],
            &[
                cluster("a", &["a"], ""),
                cluster("m", &["m"], ""),
                cluster("m2", &["m2"], ""),
                cluster("m_http2", &["m"], HTTP2),
                cluster("closed", &["closed"], ""),
            ],
        ),
        upstreams: vec![
            ("a", UpstreamKind::Plain),
            ("m", UpstreamKind::Plain),
            ("m2", UpstreamKind::Plain),
            ("closed", UpstreamKind::Closed),
        ],
        unsupported: None,
        cases: [copies(), bodies(), choices()].into_iter().flatten().collect(),
    }
}

/// A request, and how many copies of it reach `m` and `m2`.
type Step = (Request, usize, usize);

/// Sends requests one after the other, and waits for the copies of each.
fn case(name: &'static str, steps: impl Fn() -> Vec<Step> + Send + Sync + 'static) -> Case {
    Case::custom(name, move |world| {
        let steps = steps();
        Box::pin(async move {
            let mut seen = Observation::default();
            for (index, (request, m, m2)) in steps.iter().enumerate() {
                let step = format!("step {index}");
                let outcome = request.send(world.address("LISTEN")?).await;
                seen.outcome(&step, &outcome, &world.values);
                for (name, copies) in [("a", None), ("m", Some(*m)), ("m2", Some(*m2))] {
                    note(&mut seen, world, &step, name, copies).await?;
                }
            }
            Ok(seen)
        })
    })
}

async fn note(
    seen: &mut Observation,
    world: &World,
    step: &str,
    name: &'static str,
    copies: Option<usize>,
) -> Result<()> {
    let upstream = world.upstream(name)?;
    let mut rounds = 0;
    while copies.is_some_and(|copies| upstream.count() < copies) {
        rounds += 1;
        ensure!(rounds < 500, "{step}: {name} got {} requests", upstream.count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (index, got) in upstream.take().iter().enumerate() {
        seen.recorded(step, &format!("{name}[{index}]"), name, got, &world.values);
    }
    Ok(())
}

fn get(path: &str, fields: &[(&str, &str)]) -> Request {
    fields.iter().fold(Request::get(path), |request, (name, value)| request.header(name, value))
}

fn copies() -> Vec<Case> {
    vec![
        case("a_copy_goes_to_another_cluster", || vec![(get("/", &[("x-a", "1")]), 1, 0)]),
        case("a_copy_of_a_request_over_http2", || vec![(get("/", &[("x-a", "1")]).http2(), 1, 0)]),
        case("a_copy_over_http2", || {
            vec![(get("/http2", &[]), 1, 0), (Request::post("/http2", "body").http2(), 1, 0)]
        }),
        case("a_copy_goes_by_another_host", || {
            vec![
                (get("/", &[]).host("a.example:80"), 1, 0),
                (get("/literal", &[]), 1, 0),
                (get("/same", &[]), 1, 0),
            ]
        }),
        case("a_copy_is_of_the_request_as_its_route_has_changed_it", || {
            vec![(get("/rewritten/path?q", &[]), 1, 0)]
        }),
        case("a_copy_may_have_other_headers", || {
            vec![(get("/mutated", &[("x-in", "1"), ("x-gone", "1")]), 1, 0)]
        }),
        case("a_copy_says_which_attempt_it_is", || {
            vec![(get("/", &[]).host("counted.example"), 1, 0)]
        }),
        case("a_head_and_an_options_are_copied", || {
            vec![(Request::new("HEAD", "/"), 1, 0), (Request::new("OPTIONS", "/"), 1, 0)]
        }),
    ]
}

fn bodies() -> Vec<Case> {
    vec![
        case("a_copy_has_the_body", || {
            vec![
                (Request::post("/", "the body"), 1, 0),
                (Request::post("/", ""), 1, 0),
                (Request::new("POST", "/").chunks(&["the ", "body"]).http2(), 1, 0),
                (Request::post("/", "x".repeat(100_000)), 1, 0),
            ]
        }),
        case("a_copy_to_http2_has_the_trailers", || {
            let request = Request::new("POST", "/http2").chunks(&["the ", "body"]).http2();
            vec![(request.trailer("x-end", "1"), 1, 0)]
        }),
    ]
}

fn choices() -> Vec<Case> {
    vec![
        case("a_header_names_the_cluster", || {
            vec![
                (get("/header", &[("x-mirror", "m2")]), 0, 1),
                (get("/header", &[("x-mirror", "m")]), 1, 0),
                (get("/header", &[]), 0, 0),
                (get("/header", &[("x-mirror", "nobody")]), 0, 0),
            ]
        }),
        case("a_share_of_requests_is_copied", || {
            vec![(get("/never", &[]), 0, 0), (get("/always", &[]), 1, 0)]
        }),
        case("several_copies_of_one_request", || vec![(Request::post("/two", "body"), 1, 1)]),
        case("the_most_specific_level_that_has_mirrors_counts", || {
            vec![(get("/outer", &[]), 0, 1), (get("/", &[]).host("counted.example"), 1, 0)]
        }),
        case("a_copy_that_fails_changes_nothing", || vec![(get("/closed", &[]), 0, 0)]),
        case("what_we_answer_ourselves_is_not_copied", || vec![(get("/direct", &[]), 0, 0)]),
        Case::custom("a_request_that_is_tried_again_is_copied_once", |world| {
            Box::pin(async move {
                world.upstream("a")?.script([Reply::status(503)]);
                let mut seen = Observation::default();
                let outcome = get("/retried", &[]).send(world.address("LISTEN")?).await;
                seen.outcome("step 0", &outcome, &world.values);
                note(&mut seen, world, "step 0", "m", Some(1)).await?;
                Ok(seen)
            })
        }),
        Case::custom("nobody_waits_for_a_copy", |world| {
            Box::pin(async move {
                let late = Reply::status(200).after(Duration::from_secs(3));
                world.upstream("m")?.script([late]);
                let mut seen = Observation::default();
                let outcome = get("/", &[]).send(world.address("LISTEN")?).await;
                seen.outcome("step 0", &outcome, &world.values);
                note(&mut seen, world, "step 0", "m", Some(1)).await?;
                Ok(seen)
            })
        }),
        Case::custom("copies_are_counted_where_they_go", |world| {
            Box::pin(statistics(
                world,
                &[
                    "cluster.m.internal.upstream_rq_2",
                    "cluster.m.internal.upstream_rq_completed",
                    "cluster.m.external",
                    "cluster.m2.upstream_rq_total",
                    "cluster.a.upstream_rq_total",
                    "http.test.downstream_rq_total",
                ],
            ))
        }),
    ]
}
