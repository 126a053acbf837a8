//! Clusters whose endpoints are host names: STRICT_DNS, LOGICAL_DNS and the cluster type `envoy.cluster.dns`.
//!
//! The only names here are those that need no network: `localhost`, and one that cannot exist.

use anyhow::Result;
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, http_listener, routes};

const DNS: &str = "'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, dns_lookup_family: V4_ONLY";

/// The clusters: their name, their type, and the host of each endpoint.
const CLUSTERS: [(&str, &str, &[&str]); 11] = [
    ("strict", "type: STRICT_DNS, dns_lookup_family: V4_ONLY", &["localhost"]),
    ("logical", "type: LOGICAL_DNS, dns_lookup_family: V4_ONLY", &["localhost"]),
    ("preferred", "type: STRICT_DNS, dns_lookup_family: V4_PREFERRED", &["localhost"]),
    ("logical_preferred", "type: LOGICAL_DNS, dns_lookup_family: V4_PREFERRED", &["localhost"]),
    ("typed", "cluster_type: {name: envoy.cluster.dns, typed_config: {TYPED}}", &["localhost"]),
    (
        "typed_logical",
        "cluster_type: {name: envoy.cluster.dns, typed_config: {TYPED, all_addresses_in_single_endpoint: true}}",
        &["localhost"],
    ),
    (
        "paced",
        "type: STRICT_DNS, dns_lookup_family: V4_ONLY, dns_refresh_rate: 60s, respect_dns_ttl: true, \
         dns_failure_refresh_rate: {base_interval: 60s}, dns_jitter: 1s",
        &["localhost"],
    ),
    ("address", "type: STRICT_DNS, dns_lookup_family: V4_ONLY", &["127.0.0.1"]),
    ("logical_address", "type: LOGICAL_DNS, dns_lookup_family: V4_ONLY", &["127.0.0.1"]),
    (
        "mixed",
        "type: STRICT_DNS, dns_lookup_family: V4_ONLY, dns_refresh_rate: 60s",
        &["localhost", "nowhere.invalid"],
    ),
    (
        "unknown",
        "type: STRICT_DNS, dns_lookup_family: V4_ONLY, dns_refresh_rate: 60s",
        &["nowhere.invalid"],
    ),
];

fn cluster(name: &str, kind: &str, hosts: &[&str]) -> String {
    let kind = kind.replace("TYPED", DNS);
    let endpoints: Vec<String> = hosts
        .iter()
        .map(|host| {
            format!(
                "{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: ${{a.port}}}}}}}}}}"
            )
        })
        .collect();
    format!(
        "- {{name: {name}, {kind}, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}}}\n",
        endpoints.join(", ")
    )
}

pub(crate) fn group() -> Group {
    let mut all = String::new();
    for (name, _, _) in CLUSTERS {
        all.push_str(&format!(
            "- {{match: {{prefix: /{name}/host}}, route: {{cluster: {name}, auto_host_rewrite: true}}}}\n\
             - {{match: {{prefix: /{name}}}, route: {{cluster: {name}}}}}\n"
        ));
    }
    let mut cases = vec![
        Case::new("a_strict_cluster_resolves_its_names").get("/strict", "200 a"),
        Case::new("a_logical_cluster_resolves_its_name").get("/logical", "200 a"),
        Case::new("ipv4_may_be_preferred")
            .get("/preferred", "200 a")
            .get("/logical_preferred", "200 a"),
        Case::new("a_strict_cluster_may_be_an_extension").get("/typed", "200 a"),
        Case::new("a_logical_cluster_may_be_an_extension").get("/typed_logical", "200 a"),
        Case::new("the_pace_of_lookups_may_be_set").get("/paced", "200 a"),
        Case::new("an_address_may_stand_where_a_name_does")
            .get("/address", "200 a")
            .get("/logical_address", "200 a"),
        Case::new("a_name_that_does_not_exist_has_no_endpoint")
            .get("/mixed", "200 a")
            .get("/mixed", "200 a"),
        Case::new("the_host_may_be_rewritten_to_the_name")
            .get("/strict/host", "200 a")
            .get("/logical/host", "200 a")
            .get("/typed_logical/host", "200 a")
            .get("/address/host", "200 a")
            .get("/logical_address/host", "200 a"),
        Case::custom("a_cluster_without_an_address_is_ready_and_has_nobody", |world| {
            Box::pin(nobody(world))
        }),
    ];
    cases.push(Case::custom("lookups_and_endpoints_are_counted", |world| Box::pin(counted(world))));
    Group {
        name: "names",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &routes(&all))],
            &CLUSTERS.map(|(name, kind, hosts)| cluster(name, kind, hosts)),
        ),
        upstreams: vec![("a", UpstreamKind::Localhost)],
        unsupported: None,
        cases,
    }
}

async fn nobody(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let outcome = Request::get("/unknown").send(world.address("LISTEN")?).await;
    seen.fact("/unknown", "status", outcome.status());
    Ok(seen)
}

async fn counted(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for (cluster, _, _) in CLUSTERS {
        for name in ["membership_total", "membership_healthy", "update_empty"] {
            let value = world.proxy.stat(&format!("cluster.{cluster}.{name}")).await?;
            seen.fact(cluster, name, value);
        }
    }
    let attempts = world.proxy.stat("cluster.paced.update_attempt").await?;
    seen.fact("paced", "update_attempt", attempts);
    Ok(seen)
}
