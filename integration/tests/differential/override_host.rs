//! Requests that name the endpoint they go to.

use anyhow::{Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes};

const UPSTREAMS: [&str; 3] = ["a", "b", "c"];

const POLICIES: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";

fn overriding(sources: &str, more: &str) -> String {
    format!(
        "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: x, typed_config: {{'@type': \
         {POLICIES}.override_host.v3.OverrideHost, override_host_sources: [{sources}], {more} \
         fallback_policy: {{policies: [{{typed_extension_config: {{name: z, typed_config: {{'@type': \
         {POLICIES}.maglev.v3.Maglev}}}}}}]}}}}}}}}]}}"
    )
}

/// The fallback has one healthy endpoint only, so that it is known whom it chooses.
const ROUTES: &str = r#"
- match: {prefix: /retried}
  route: {cluster: headers, retry_policy: {retry_on: 5xx, num_retries: 3, retry_back_off: {base_interval: 0.001s}}}
- {match: {prefix: /headers}, route: {cluster: headers}}
- {match: {prefix: /both}, route: {cluster: both}}
- match: {prefix: /noted}
  route: {cluster: noted}
  response_headers_to_add:
  - header: {key: x-selected, value: '%DYNAMIC_METADATA(chosen:host:address)%'}
"#;

pub(crate) fn group() -> Group {
    let filters = "http_filters:
- name: note
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
    metadata: [{metadata_namespace: wanted, value: {inner: {host: '${c.host}:${c.port}'}}}]
- ROUTER";
    let all = "{endpoint: {address: ${a}}, metadata: {filter_metadata: {envoy.lb: {hash_key: a}}}}, \
               {endpoint: {address: ${b}}, health_status: UNHEALTHY}, \
               {endpoint: {address: ${c}}, health_status: UNHEALTHY}";
    let made = |name: &str, policy: String| {
        cluster(name, &[], &policy).replace("lb_endpoints: []", &format!("lb_endpoints: [{all}]"))
            + "  common_lb_config: {healthy_panic_threshold: {value: 0}}\n"
    };
    let metadata = "{metadata: {key: wanted, path: [{key: inner}, {key: host}]}}";
    let selected = "selected_host_key: {key: chosen, path: [{key: host}, {key: address}]},";
    Group {
        name: "override_host",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &format!("{}{filters}", routes(ROUTES)))],
            &[
                made("headers", overriding("{header: x-host}, {header: x-second}", "")),
                made("both", overriding(&format!("{{header: x-host}}, {metadata}"), "")),
                made("noted", overriding("{header: x-host}", selected)),
            ],
        ),
        upstreams: UPSTREAMS.map(|name| (name, UpstreamKind::Plain)).to_vec(),
        unsupported: None,
        cases: cases(),
    }
}

/// One request: its path, headers with `{NAME}` for the address of an upstream, and what has to come of it.
type Step = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// Sends these in turn. An upstream of `failing` answers 503 the first time.
fn asked(rule: &'static str, failing: &'static [&'static str], steps: &'static [Step]) -> Case {
    Case::custom(rule, move |world| Box::pin(run(world, failing, steps)))
}

async fn run(world: &World, failing: &[&str], steps: &[Step]) -> Result<Observation> {
    for name in failing {
        world.upstream(name)?.script([Reply::status(503)]);
    }
    let mut seen = Observation::default();
    for (number, (path, headers, expected)) in steps.iter().enumerate() {
        let mut request = Request::get(path);
        for (name, value) in *headers {
            let mut value = (*value).to_owned();
            for upstream in UPSTREAMS {
                let address = world.address(upstream)?.to_string();
                value = value.replace(&format!("{{{upstream}}}"), &address);
            }
            request = request.header(name, &value);
        }
        let came = world.send(&mut seen, &format!("step {number}"), "LISTEN", &request).await?;
        ensure!(came == *expected, "step {number}: {came}, not {expected}");
    }
    Ok(seen)
}

fn cases() -> Vec<Case> {
    vec![
        asked("without_a_name_the_fallback_chooses", &[], &[("/headers", &[], "200 a")]),
        asked(
            "the_named_endpoint_is_taken_whatever_its_health",
            &[],
            &[("/headers", &[("x-host", "{b}")], "200 b")],
        ),
        asked(
            "of_several_the_first_that_exists",
            &[],
            &[("/headers", &[("x-host", " 127.0.0.1:1 ,, nonsense,{c},{b}")], "200 c")],
        ),
        asked(
            "sources_are_asked_in_order",
            &[],
            &[("/headers", &[("x-second", "{b}"), ("x-host", "{c}")], "200 c")],
        ),
        asked(
            "a_second_source_counts_if_the_first_names_nobody",
            &[],
            &[("/headers", &[("x-second", "{b}"), ("x-host", "127.0.0.1:1")], "200 b")],
        ),
        asked(
            "only_the_first_line_of_a_header_counts",
            &[],
            &[("/headers", &[("x-host", "127.0.0.1:1"), ("x-host", "{b}")], "200 a")],
        ),
        asked(
            "where_nobody_exists_the_fallback_chooses",
            &[],
            &[("/headers", &[("x-host", "127.0.0.1:1")], "200 a")],
        ),
        asked(
            "a_retry_goes_to_the_next_and_then_to_the_fallback",
            &["c", "b"],
            &[("/retried", &[("x-host", "{c},{b}")], "200 c,b,a")],
        ),
        asked("metadata_may_name_it", &[], &[("/both", &[], "200 c")]),
        asked(
            "a_header_that_is_listed_before_metadata_comes_first",
            &[],
            &[("/both", &[("x-host", "{b}")], "200 b")],
        ),
        asked(
            "who_was_chosen_is_noted",
            &[],
            &[("/noted", &[("x-host", "{b}")], "200 b"), ("/noted", &[], "200 a")],
        ),
    ]
}
