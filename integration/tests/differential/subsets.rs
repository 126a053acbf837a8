//! Subsets: which endpoints a request may go to by their metadata, and where it goes when there is none.

use anyhow::Result;
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_listener, indent, routes};

const UPSTREAMS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What the endpoints have, in both clusters' assignments.
const METADATA: [&str; 6] = [
    "stage: prod, version: '1', type: std",
    "stage: prod, version: '1', type: big",
    "stage: prod, version: '2', type: std",
    "stage: dev, version: '3', type: std, number: 1",
    "stage: dev, version: ['4', '5'], type: big, number: '1'",
    "id: x",
];

/// The clusters: their name, and how they are divided.
const CLUSTERS: [(&str, &str); 13] = [
    (
        "none",
        "subset_selectors: [{keys: [stage, version]}, {keys: [stage]}, {keys: [number]}, {keys: [version]}]",
    ),
    ("any", "fallback_policy: ANY_ENDPOINT, subset_selectors: [{keys: [stage]}]"),
    (
        "default",
        "fallback_policy: DEFAULT_SUBSET, default_subset: {stage: prod, type: std}, subset_selectors: [{keys: [version]}]",
    ),
    ("default_of_all", "fallback_policy: DEFAULT_SUBSET, subset_selectors: [{keys: [version]}]"),
    (
        "nobody",
        "fallback_policy: DEFAULT_SUBSET, default_subset: {stage: nowhere}, subset_selectors: [{keys: [version]}]",
    ),
    (
        "panic",
        "fallback_policy: DEFAULT_SUBSET, default_subset: {stage: nowhere}, panic_mode_any: true, subset_selectors: [{keys: [version]}]",
    ),
    (
        "lists",
        "list_as_any: true, fallback_policy: DEFAULT_SUBSET, default_subset: {version: '5'}, subset_selectors: [{keys: [version]}, {keys: [stage, version]}]",
    ),
    (
        "selectors",
        "fallback_policy: ANY_ENDPOINT, default_subset: {type: big}, subset_selectors: [\
        {keys: [stage]}, \
        {keys: [stage, version], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [stage]}, \
        {keys: [type], fallback_policy: NO_FALLBACK}, \
        {keys: [version], fallback_policy: DEFAULT_SUBSET}, \
        {keys: [stage, type], fallback_policy: ANY_ENDPOINT}]",
    ),
    (
        "hidden",
        "default_subset: {type: big}, subset_selectors: [\
        {keys: [stage, version], fallback_policy: ANY_ENDPOINT}, \
        {keys: [stage], fallback_policy: DEFAULT_SUBSET}]",
    ),
    (
        "fallback_list",
        "metadata_fallback_policy: FALLBACK_LIST, subset_selectors: [{keys: [stage, version]}, {keys: [stage]}]",
    ),
    ("no_fallback_list", "subset_selectors: [{keys: [stage, version]}, {keys: [stage]}]"),
    ("single", "subset_selectors: [{keys: [stage], single_host_per_subset: true}]"),
    (
        "same_keys",
        "subset_selectors: [{keys: [stage]}, {keys: [stage], fallback_policy: ANY_ENDPOINT}]",
    ),
];

/// What routes ask: by the path, for each cluster.
const ASKED: [(&str, &str); 19] = [
    ("prod", "stage: prod"),
    ("dev", "stage: dev"),
    ("gone", "stage: gone"),
    ("prod-1", "stage: prod, version: '1'"),
    ("1-prod", "version: '1', stage: prod"),
    ("prod-9", "stage: prod, version: '9'"),
    ("gone-9", "stage: gone, version: '9'"),
    ("version-2", "version: '2'"),
    ("version-5", "version: '5'"),
    ("version-9", "version: '9'"),
    ("versions", "version: ['4', '5']"),
    ("number", "number: 1"),
    ("text", "number: '1'"),
    ("type", "type: none"),
    ("prod-none", "stage: prod, type: none"),
    ("unknown", "unknown: key"),
    ("nothing", ""),
    ("list", "stage: prod, fallback_list: [{version: '9'}, {version: '2'}, {stage: dev}]"),
    ("empty-list", "stage: dev, fallback_list: []"),
];

/// Paths of each cluster that are worth asking.
const CASES: [(&str, &str); 13] = [
    ("none", "without_a_fallback_there_is_nobody"),
    ("any", "any_endpoint_may_be_the_fallback"),
    ("default", "a_default_subset_may_be_the_fallback"),
    ("default_of_all", "a_default_subset_that_asks_nothing_has_all"),
    ("nobody", "a_default_subset_may_have_nobody"),
    ("panic", "where_the_default_subset_has_nobody_any_endpoint_does"),
    ("lists", "a_list_may_mean_each_of_its_values"),
    ("selectors", "a_selector_may_fall_back_in_its_own_way"),
    ("hidden", "a_selector_hidden_by_a_longer_one_before_it_has_no_fallback"),
    ("fallback_list", "a_route_may_list_what_to_try"),
    ("no_fallback_list", "the_list_of_a_route_is_a_key_like_any_other"),
    ("single", "of_equal_endpoints_only_one_may_count"),
    ("same_keys", "of_two_selectors_of_the_same_keys_the_first_counts"),
];

fn divided(name: &str, subsets: &str) -> String {
    assigned(name, &format!("lb_subset_config: {{{subsets}}}"))
}

/// The same as a policy of the list.
fn typed(name: &str, subsets: &str) -> String {
    let policy = |kind: &str, config: &str| {
        format!(
            "{{policies: [{{typed_extension_config: {{name: x, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.load_balancing_policies.{kind}, {config}}}}}}}]}}"
        )
    };
    let inside = policy("round_robin.v3.RoundRobin", "");
    let outside = policy("subset.v3.Subset", &format!("{subsets}, subset_lb_policy: {inside}"));
    assigned(name, &format!("load_balancing_policy: {outside}"))
}

fn assigned(name: &str, more: &str) -> String {
    let endpoints: Vec<String> = UPSTREAMS
        .iter()
        .zip(METADATA)
        .map(|(upstream, metadata)| {
            format!(
                "{{endpoint: {{address: ${{{upstream}}}}}, metadata: {{filter_metadata: {{envoy.lb: {{{metadata}}}}}}}}}"
            )
        })
        .collect();
    format!(
        "- name: {name}\n  type: STATIC\n  {more}\n  load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}\n",
        endpoints.join(", ")
    )
}

fn asks(metadata: &str) -> String {
    format!("metadata_match: {{filter_metadata: {{envoy.lb: {{{metadata}}}}}}}")
}

fn all_routes() -> String {
    let names = CLUSTERS.iter().map(|(name, _)| *name).chain(["redundant"]);
    let mut text = String::new();
    for name in names {
        for (path, metadata) in ASKED {
            let asks = asks(metadata);
            text.push_str(&format!(
                "- {{match: {{path: /{name}/{path}}}, route: {{cluster: {name}, {asks}}}}}\n"
            ));
        }
        text.push_str(&format!(
            "- {{match: {{path: /{name}/plain}}, route: {{cluster: {name}}}}}\n"
        ));
    }
    text.push_str(&format!(
        "- match: {{path: /merged}}\n  route:\n    {}\n    weighted_clusters: {{clusters: [{{name: none, weight: 1, {}}}]}}\n",
        asks("stage: prod, version: '1'"),
        asks("version: '2'"),
    ));
    text.push_str(&format!(
        "- match: {{path: /inherited}}\n  route:\n    {}\n    weighted_clusters: {{clusters: [{{name: none, weight: 1}}]}}\n",
        asks("stage: dev"),
    ));
    text.push_str(&format!(
        "- match: {{path: /own}}\n  route:\n    weighted_clusters: {{clusters: [{{name: none, weight: 1, {}}}]}}\n",
        asks("version: '3'"),
    ));
    text.push_str(
        "- match: {path: /foreign}\n  route: {cluster: none, metadata_match: {filter_metadata: {other: {stage: prod}}}}\n\
         - match: {path: /undivided}\n  route: {cluster: undivided, metadata_match: {filter_metadata: {envoy.lb: {stage: prod}}}}\n",
    );
    text
}

pub(crate) fn group() -> Group {
    let mut clusters: Vec<String> =
        CLUSTERS.iter().map(|(name, subsets)| divided(name, subsets)).collect();
    clusters.push(typed(
        "redundant",
        "allow_redundant_keys: true, subset_selectors: [{keys: [stage, version]}, {keys: [version]}, {keys: [stage]}]",
    ));
    clusters.push(cluster("undivided", &["a", "c"], ""));
    let tcp = format!(
        "- name: LISTEN_TCP
  address: ${{LISTEN_TCP}}
  filter_chains:
  - filters:
    - name: envoy.filters.network.tcp_proxy
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
        stat_prefix: tcp
{}        weighted_clusters: {{clusters: [{{name: none, weight: 1, {}}}]}}
",
        indent(&asks("stage: prod, version: '1'"), 8),
        asks("version: '2'"),
    );
    let mut cases: Vec<Case> = CASES
        .iter()
        .map(|(cluster, rule)| Case::custom(rule, move |world| Box::pin(table(world, cluster))))
        .collect();
    cases.extend([
        Case::custom("keys_may_be_redundant", |world| Box::pin(table(world, "redundant"))),
        Case::new("a_weighted_cluster_is_merged_over_its_route").get("/merged", "200 c"),
        Case::custom("a_weighted_cluster_asks_what_its_route_asks", |world| {
            Box::pin(paths(world, vec!["/inherited".to_owned()]))
        }),
        Case::new("a_weighted_cluster_asks_for_itself").get("/own", "200 d"),
        Case::custom("metadata_of_others_choose_nothing", |world| {
            Box::pin(paths(world, vec!["/foreign".to_owned()]))
        }),
        Case::custom("an_undivided_cluster_does_not_care", |world| {
            Box::pin(paths(world, vec!["/undivided".to_owned()]))
        }),
        Case::new("a_tcp_proxy_asks_as_well").send_to("LISTEN_TCP", Request::get("/"), "200 c"),
        Case::new("what_a_filter_notes_is_asked_as_well")
            .send_to("LISTEN_NOTE", Request::get("/none/plain"), "200 c")
            .send_to("LISTEN_NOTE", Request::get("/none/prod-1"), "200 c")
            .send_to("LISTEN_NOTE", Request::get("/own"), "200 c"),
        Case::custom("choices_and_fallbacks_are_counted", |world| Box::pin(counted(world))),
    ]);
    let noting = "http_filters:
- name: note
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
    metadata: [{metadata_namespace: envoy.lb, value: {version: '2'}}]
- ROUTER";
    let noting = format!("{}{noting}", routes(&all_routes()));
    let listeners = [
        http_listener("LISTEN", &routes(&all_routes())),
        http_listener("LISTEN_NOTE", &noting),
        tcp,
    ];
    Group {
        name: "subsets",
        bootstrap: bootstrap(&listeners, &clusters),
        upstreams: UPSTREAMS.iter().map(|name| (*name, UpstreamKind::Plain)).collect(),
        unsupported: None,
        cases,
    }
}

/// Who is reached in a cluster, by what is asked.
async fn table(world: &World, cluster: &str) -> Result<Observation> {
    let names = ASKED.iter().map(|(path, _)| *path).chain(["plain"]);
    let all: Vec<String> = names.map(|path| format!("/{cluster}/{path}")).collect();
    paths(world, all).await
}

/// Who is reached under each path by requests in turn: statuses and upstreams, in order of their names.
async fn paths(world: &World, paths: Vec<String>) -> Result<Observation> {
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    let mut seen = Observation::default();
    for path in paths {
        let mut reached = Vec::new();
        // Twice around, so that whoever may be reached is reached, whatever the proxy's position.
        for _ in 0..12 {
            let response = connection.send(&Request::get(&path)).await?;
            let body = String::from_utf8_lossy(&response.body).into_owned();
            reached.push(format!("{} {body}", response.status));
        }
        reached.sort();
        reached.dedup();
        seen.fact(&path, "reached", reached.join(", "));
    }
    for name in UPSTREAMS {
        world.upstream(name)?.take();
    }
    Ok(seen)
}

/// What the cases before have counted.
async fn counted(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for (cluster, _) in CLUSTERS {
        for name in ["lb_subsets_selected", "lb_subsets_fallback", "lb_subsets_fallback_panic"] {
            let stat = format!("cluster.{cluster}.{name}");
            let value = world.proxy.stat(&stat).await?;
            seen.fact(cluster, name, value);
        }
    }
    Ok(seen)
}
