use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::config::http_filters::FilterOverrides;
use crate::config::metadata::Metadata;
use crate::config::route::{
    Forward, RequireTls, Route as RouteConfig, RouteConfiguration, VirtualHost as HostConfig,
    WeightedCluster,
};

fn route(name: &str, path: PathSpecifier) -> Arc<RouteConfig> {
    let matches = RouteMatch {
        path,
        case_sensitive: true,
        headers: Vec::new(),
        query_parameters: Vec::new(),
        grpc: false,
        runtime_fraction: None,
        dynamic_metadata: Vec::new(),
        filter_state: Vec::new(),
    };
    Arc::new(RouteConfig {
        metadata: Metadata::default(),
        name: name.into(),
        matches,
        action: RouteAction::DirectResponse {
            status: http::StatusCode::OK,
            body: bytes::Bytes::new(),
        },
        request_headers: Default::default(),
        response_headers: Default::default(),
        per_request_buffer_limit: None,
        filters: FilterOverrides::default(),
        tracing: None,
        decorator: None,
    })
}

fn host(name: &str, domains: Vec<Domain>, routes: Vec<Arc<RouteConfig>>) -> HostConfig {
    HostConfig {
        name: name.into(),
        domains,
        routes,
        require_tls: RequireTls::None,
        request_headers: Default::default(),
        response_headers: Default::default(),
        retry_policy: None,
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        mirrors: Vec::new(),
        include_is_timeout_retry_header: false,
        hedge_on_per_try_timeout: None,
        per_request_buffer_limit: None,
        filters: FilterOverrides::default(),
    }
}

fn table(virtual_hosts: Vec<HostConfig>, ignore_port: bool) -> RouteTable {
    let config = RouteConfiguration {
        vhds: None,
        name: "r".into(),
        virtual_hosts,
        request_headers: Default::default(),
        response_headers: Default::default(),
        validate_clusters: false,
        mirrors: Vec::new(),
        most_specific_header_mutations_wins: false,
        ignore_port_in_host_matching: ignore_port,
        max_direct_response_body_size: 4096,
        internal_only_headers: Vec::new(),
        filters: FilterOverrides::default(),
    };
    RouteTable::build(&Arc::new(config), &mut |name| ClusterId(name.parse().unwrap_or_default()))
}

fn name_of(table: &RouteTable, authority: &str) -> Option<String> {
    let host = table.host(authority)?;
    table.host_config(host).map(|config| config.name.to_string())
}

fn view<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView {
        state: None,
        method: &Method::GET,
        path,
        query: None,
        path_and_query: path,
        authority: "a",
        scheme: "http",
        headers,
    }
}

#[test]
fn an_exact_domain_wins_then_the_longest_suffix_then_the_longest_prefix_then_any() {
    let table = table(
        vec![
            host("any", vec![Domain::Any], vec![]),
            host("suffix", vec![Domain::Suffix(".b.com".into())], vec![]),
            host("longer", vec![Domain::Suffix(".a.b.com".into())], vec![]),
            host("dash", vec![Domain::Suffix("-x.b.com".into())], vec![]),
            host("prefix", vec![Domain::Prefix("www.".into())], vec![]),
            host("exact", vec![Domain::Exact("www.b.com".into())], vec![]),
        ],
        false,
    );
    for (authority, expected) in [
        ("www.b.com", "exact"),
        ("WWW.B.com", "exact"),
        ("x.b.com", "suffix"),
        ("x.a.b.com", "longer"),
        ("a-x.b.com", "dash"),
        ("www.c.org", "prefix"),
        ("b.com", "any"),
        (".b.com", "any"),
        ("www.", "any"),
        ("www.b.com:80", "prefix"),
        ("", "any"),
        ("ü.b.com", "suffix"),
    ] {
        assert_eq!(name_of(&table, authority).as_deref(), Some(expected), "{authority}");
    }
}

#[test]
fn a_host_that_no_domain_takes_has_no_virtual_host() {
    let table = table(vec![host("exact", vec![Domain::Exact("a".into())], vec![])], false);
    assert_eq!(name_of(&table, "b"), None);
}

#[test]
fn the_port_is_ignored_only_where_configured() {
    let hosts = || vec![host("a", vec![Domain::Exact("a".into())], vec![])];
    assert_eq!(name_of(&table(hosts(), false), "a:80"), None);
    assert_eq!(name_of(&table(hosts(), true), "a:80").as_deref(), Some("a"));
}

#[test]
fn a_port_is_cut_off_but_not_a_part_of_an_ipv6_address() {
    for (host, expected) in [
        ("a:80", "a"),
        ("a:", "a"),
        ("a", "a"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
    ] {
        assert_eq!(without_port(host), expected);
    }
}

#[test]
fn the_first_route_that_matches_wins_and_a_separated_prefix_ends_at_a_slash() {
    let routes = vec![
        route("separated", PathSpecifier::PathSeparatedPrefix("/api".into())),
        route("exact", PathSpecifier::Path("/apix".into())),
        route("prefix", PathSpecifier::Prefix("/api".into())),
    ];
    let table = table(vec![host("a", vec![Domain::Any], routes)], false);
    let headers = HeaderMap::new();
    for (path, expected) in [
        ("/api", Some("separated")),
        ("/api/x", Some("separated")),
        ("/apix", Some("exact")),
        ("/apixy", Some("prefix")),
        ("/other", None),
    ] {
        let found = table.host("a").unwrap().route(&view(path, &headers));
        assert_eq!(found.map(|route| &*route.config.name), expected, "{path}");
    }
}

#[test]
fn weighted_clusters_are_chosen_by_their_share_and_weight_zero_never() {
    let forward = Forward {
        rate_limits: Vec::new(),
        host_rate_limits: Arc::default(),
        include_vh_rate_limits: false,
        cluster: ClusterSpecifier::Weighted(
            [("1", 0), ("2", 90), ("3", 10)]
                .map(|(name, weight)| WeightedCluster {
                    name: name.into(),
                    header: None,
                    weight,
                    metadata_match: None,
                    runtime_weight: None,
                    request_headers: Default::default(),
                    response_headers: Default::default(),
                    host_rewrite: None,
                    filters: FilterOverrides::default(),
                })
                .into(),
        ),
        weighted_by: None,
        metadata_match: None,
        cluster_not_found_status: http::StatusCode::SERVICE_UNAVAILABLE,
        timeout: None,
        idle_timeout: None,
        max_stream_duration: None,
        hash_policy: Vec::new(),
        connect: None,
        retry_policy: None,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        mirrors: Vec::new(),
        internal_redirect: None,
        grpc_timeout: None,
        hedge_on_per_try_timeout: None,
        priority: Default::default(),
        upgrades: Vec::new(),
    };
    let mut config = (*route("w", PathSpecifier::Prefix("/".into()))).clone();
    config.action = RouteAction::Forward(Box::new(forward));
    let route = Route::build(&Arc::new(config), &[], &mut |name| {
        ClusterId(name.parse().unwrap_or_default())
    });
    fastrand::seed(7);
    let mut counts = [0; 4];
    for _ in 0..10_000 {
        let (id, index) = route.target.choose(&http::HeaderMap::new(), |_| None).unwrap();
        assert_eq!(id, ClusterId(index.unwrap() as u32 + 1));
        counts[index.unwrap() + 1] += 1;
    }
    assert_eq!(counts[1], 0);
    assert!((700..1300).contains(&counts[3]), "{counts:?}");
}

fn specifier() -> impl Strategy<Value = PathSpecifier> {
    let text = "/[ab]{0,3}(/[ab]{1,2}){0,2}";
    prop_oneof![
        text.prop_map(|text| PathSpecifier::Prefix(text.into())),
        text.prop_map(|text| PathSpecifier::Path(text.into())),
        text.prop_map(|text| PathSpecifier::PathSeparatedPrefix(text.into())),
        Just(PathSpecifier::Regex(regex::bytes::Regex::new("^/a.*b$").unwrap())),
    ]
}

proptest! {
    #[test]
    fn the_index_finds_the_same_route_as_trying_all_in_order(
        specifiers in prop::collection::vec((specifier(), any::<bool>()), INDEXED_FROM..40),
        path in "/[abA]{0,3}(/[ab]{1,2}){0,3}",
    ) {
        let routes: Vec<_> = specifiers
            .into_iter()
            .enumerate()
            .map(|(index, (path, case_sensitive))| {
                let mut config = (*route(&index.to_string(), path)).clone();
                config.matches.case_sensitive = case_sensitive;
                Arc::new(config)
            })
            .collect();
        let headers = HeaderMap::new();
        let view = view(&path, &headers);
        let expected = routes.iter().find(|route| route.matches.matches(&view)).map(|route| route.name.clone());
        let table = table(vec![host("a", vec![Domain::Any], routes)], false);
        let host = table.host("a").unwrap();
        prop_assert!(host.paths.is_some());
        prop_assert_eq!(host.route(&view).map(|route| route.config.name.clone()), expected);
    }
}

#[test]
fn a_connect_fits_only_a_route_for_connects_and_nothing_else_fits_that() {
    let paths = [
        PathSpecifier::Prefix("".into()),
        PathSpecifier::Regex(regex::bytes::Regex::new("^.*$").unwrap()),
        PathSpecifier::Connect,
    ];
    let headers = HeaderMap::new();
    let connect = RequestView { method: &http::Method::CONNECT, ..view("", &headers) };
    let extended = RequestView { method: &http::Method::GET, ..view("/", &headers) };
    let matching = |view: &RequestView<'_>| {
        let routes = paths.clone().map(|path| route("r", path).matches.matches(view));
        routes.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(matching(&connect), [false, false, true]);
    assert_eq!(matching(&extended), [true, true, false]);
}
