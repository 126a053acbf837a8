//! The same bootstrap and the same requests, through real Envoy 1.40 and through our sidecar: equal in status, body,
//! response headers and in what the upstream received. Each module is one group of cases; a kept difference stands in
//! `tests/accepted_differences.yaml` with its reason. How it works: `outrigger_integration::differential`.

mod access_log;
mod access_log_fields;
mod admin;
mod aggregates;
mod client_address;
mod compression;
mod connect;
mod csrf;
mod decompression;
mod distributions;
mod domains;
mod event_logs;
mod ext_authz;
mod filters;
mod forwarding;
mod grpc_access_log;
mod grpc_stats;
mod happy_eyeballs;
mod hashing;
mod headers;
mod health_check_filter;
mod health_checks;
mod hedging;
mod http1_trailers;
mod http_inspector;
mod http_options;
mod internal;
mod internal_redirects;
mod jwt;
mod limits;
mod listener_log;
mod listening;
mod load_reports;
mod local_replies;
mod log_options;
mod matching;
mod metadata;
mod mirrors;
mod names;
mod network_filters;
mod orca;
mod original_dst;
mod otel_access_log;
mod outlier_detection;
mod override_host;
mod pipes;
mod protocols;
mod proxy_protocol;
mod rate_limits;
mod rbac;
mod redirects;
mod retries;
mod rewriting;
mod stat_names;
mod stats_sinks;
mod subsets;
mod tcp;
mod templates;
mod timeouts;
mod tls_downstream;
mod tls_upstream;
mod tracing;
mod upstream_proxy_protocol;
mod weights;
mod wire;
mod zones;

use outrigger_integration::differential::{self, Accepted, Group};
use zones::{
    local_elsewhere as zones_local_elsewhere, local_panic as zones_local_panic,
    local_zone as zones_local_zone,
};

macro_rules! groups {
    ($($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Err(error) = differential::run($name::group()).await {
                    panic!("{error:#}");
                }
            }
        )*

        fn all() -> Vec<Group> {
            vec![$($name::group()),*]
        }
    };
}

groups! {
    access_log
    access_log_fields
    admin
    aggregates
    client_address
    distributions
    compression
    connect
    csrf
    decompression
    domains
    event_logs
    ext_authz
    filters
    forwarding
    grpc_access_log
    grpc_stats
    happy_eyeballs
    hashing
    headers
    health_check_filter
    health_checks
    hedging
    http1_trailers
    http_inspector
    http_options
    internal
    internal_redirects
    jwt
    limits
    listener_log
    listening
    load_reports
    local_replies
    log_options
    matching
    metadata
    mirrors
    names
    network_filters
    orca
    original_dst
    otel_access_log
    outlier_detection
    override_host
    pipes
    protocols
    proxy_protocol
    rate_limits
    rbac
    redirects
    retries
    rewriting
    stat_names
    stats_sinks
    subsets
    tcp
    templates
    timeouts
    tls_downstream
    tls_upstream
    tracing
    upstream_proxy_protocol
    weights
    zones
    zones_local_elsewhere
    zones_local_panic
    zones_local_zone
}

#[test]
fn accepted_differences_name_groups_that_exist() {
    let known: Vec<&str> = all().iter().map(|group| group.name).collect();
    for group in Accepted::groups().unwrap() {
        assert!(known.contains(&group.as_str()), "no group {group}");
    }
}

#[test]
fn names_of_cases_are_unique_in_their_group() {
    for group in all() {
        let mut names: Vec<&str> = group.cases.iter().map(|case| case.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name stands twice in {}", group.name);
    }
}

/// Parts that most groups need; what a group is about stays visible in its own text.
mod parts {
    use anyhow::{Context, Result};
    use outrigger_integration::differential::{Observation, World};

    /// What was counted so far under these prefixes: a last case for a group.
    pub(crate) async fn statistics(world: &World, prefixes: &[&str]) -> Result<Observation> {
        let mut seen = Observation::default();
        let text = world.proxy.admin("/stats").await?;
        for line in text.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                let value: u64 = value.parse().with_context(|| line.to_owned())?;
                if value != 0 {
                    seen.fact("statistics", name, value);
                }
            }
        }
        Ok(seen)
    }

    /// The whole: these listeners and clusters, as YAML list items.
    pub(crate) fn bootstrap(listeners: &[String], clusters: &[String]) -> String {
        format!(
            "node: {{id: test, cluster: test}}\nstatic_resources:\n  listeners:\n{}\n  clusters:\n{}\n",
            indent(&listeners.concat(), 2),
            indent(&clusters.concat(), 2),
        )
    }

    /// A listener at `${place}` with one connection manager, to which `more` is added.
    pub(crate) fn http_listener(place: &str, more: &str) -> String {
        let chain = http_chain(more);
        format!("- name: {place}\n  address: ${{{place}}}\n  filter_chains:\n{}", indent(&chain, 2))
    }

    /// A filter chain with one connection manager, to which `more` is added, as a YAML list item.
    pub(crate) fn http_chain(more: &str) -> String {
        let router = "{name: envoy.filters.http.router, typed_config: {'@type': \
                      type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
        let filters = if more.contains("http_filters:") {
            more.replace("ROUTER", router)
        } else {
            format!("{more}\nhttp_filters: [{router}]")
        };
        format!(
            "- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: test
{}",
            indent(&filters, 6)
        )
    }

    /// A route configuration with one virtual host for every domain.
    pub(crate) fn routes(routes: &str) -> String {
        let routes = indent(routes, 4);
        format!(
            "route_config:\n  name: test\n  virtual_hosts:\n  - name: all\n    domains: ['*']\n    routes:\n{routes}"
        )
    }

    /// A static cluster over these upstreams, to which `more` is added.
    pub(crate) fn cluster(name: &str, upstreams: &[&str], more: &str) -> String {
        let endpoints: Vec<String> = upstreams
            .iter()
            .map(|name| format!("{{endpoint: {{address: ${{{name}}}}}}}"))
            .collect();
        format!(
            "- name: {name}
  type: STATIC
  connect_timeout: 2s
  load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}
{}",
            endpoints.join(", "),
            indent(more, 2)
        )
    }

    /// Every non-empty line further to the right.
    pub(crate) fn indent(text: &str, by: usize) -> String {
        let mut out = String::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            out.push_str(&" ".repeat(by));
            out.push_str(line);
            out.push('\n');
        }
        out
    }
}
