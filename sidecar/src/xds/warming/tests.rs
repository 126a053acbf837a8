//! Rules of warming.

use std::time::Duration;

use super::*;
use crate::config;
use crate::xds::subscription::Interest;
use crate::xds::testing;

const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

fn cluster(name: &str) -> Arc<Cluster> {
    Arc::new(config::cluster::from_proto(testing::eds_cluster(name)).unwrap())
}

/// The same cluster with another connect timeout.
fn changed_cluster(name: &str) -> Arc<Cluster> {
    let mut proto = testing::eds_cluster(name);
    proto.connect_timeout =
        Some(outrigger_proto::google::protobuf::Duration { seconds: 1, nanos: 0 });
    Arc::new(config::cluster::from_proto(proto).unwrap())
}

/// A cluster whose load assignment has another name.
fn cluster_of_service(name: &str, service: &str) -> Arc<Cluster> {
    let mut proto = testing::eds_cluster(name);
    proto.eds_cluster_config.as_mut().unwrap().service_name = service.to_owned();
    Arc::new(config::cluster::from_proto(proto).unwrap())
}

fn endpoints(name: &str) -> Arc<LoadAssignment> {
    let proto = testing::assignment(name, "127.0.0.1", 1);
    Arc::new(config::endpoint::from_proto(proto).unwrap())
}

fn listener(name: &str, routes: &str) -> Arc<Listener> {
    Arc::new(config::listener::from_proto(testing::rds_listener(name, 1, routes)).unwrap())
}

fn routes(name: &str) -> Arc<RouteConfiguration> {
    Arc::new(config::route::from_proto(testing::routes(name, "c")).unwrap())
}

fn names(interest: Option<Interest>) -> Vec<String> {
    match interest {
        Some(Interest::Names(names)) => names.iter().map(|name| name.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

fn interest(warming: &mut Warming, kind: Kind) -> Option<Interest> {
    let found = warming.take_interests().into_iter().find(|((other, _), _)| *other == kind);
    found.map(|(_, interest)| interest)
}

fn need(kind: Kind, name: &str) -> Need {
    Need { kind, name: name.into(), origin: Origin::Ads }
}

fn clusters(changes: &Changes) -> Vec<&str> {
    changes.clusters.iter().map(|cluster| &*cluster.name).collect()
}

#[test]
fn a_cluster_takes_effect_together_with_its_endpoints_and_not_before() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    assert!(warming.take_changes().is_empty());
    assert_eq!(names(interest(&mut warming, Kind::Endpoint)), ["a"]);
    assert_eq!(warming.warming_clusters(), 1);

    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    let changes = warming.take_changes();
    assert_eq!(clusters(&changes), ["a"]);
    assert_eq!(changes.endpoints.len(), 1);
    assert_eq!(warming.warming_clusters(), 0);
    assert_eq!(warming.deadline(), None);
}

#[test]
fn a_cluster_that_comes_again_uses_the_endpoints_that_are_known() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    warming.take_changes();
    interest(&mut warming, Kind::Endpoint);

    warming.set_cluster(changed_cluster("a"), now);
    assert_eq!(clusters(&warming.take_changes()), ["a"]);
    assert!(interest(&mut warming, Kind::Endpoint).is_none(), "nothing is asked again");
}

#[test]
fn a_cluster_that_comes_unchanged_changes_nothing() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    warming.take_changes();
    warming.set_cluster(cluster("a"), now);
    assert!(warming.take_changes().is_empty());
}

#[test]
fn the_old_version_serves_and_stays_subscribed_while_the_new_one_waits() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    warming.take_changes();
    interest(&mut warming, Kind::Endpoint);

    warming.set_cluster(cluster_of_service("a", "other"), now);
    assert!(warming.take_changes().is_empty());
    assert_eq!(names(interest(&mut warming, Kind::Endpoint)), ["a", "other"]);

    warming.set_endpoints(&Origin::Ads, endpoints("other"), now);
    assert_eq!(clusters(&warming.take_changes()), ["a"]);
    assert_eq!(names(interest(&mut warming, Kind::Endpoint)), ["other"]);
}

#[test]
fn going_back_to_the_version_that_serves_ends_the_wait() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    warming.set_cluster(cluster_of_service("a", "other"), now);
    warming.take_changes();
    warming.set_cluster(cluster("a"), now);
    assert_eq!(warming.warming_clusters(), 0);
    assert_eq!(warming.deadline(), None);
    assert_eq!(names(interest(&mut warming, Kind::Endpoint)), ["a"]);
}

#[test]
fn a_cluster_goes_on_without_endpoints_when_the_initial_fetch_timeout_is_over() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    assert_eq!(warming.deadline(), Some(now + FETCH_TIMEOUT));
    warming.expire(now + FETCH_TIMEOUT - Duration::from_millis(1));
    assert!(warming.take_changes().is_empty());
    warming.expire(now + FETCH_TIMEOUT);
    assert_eq!(clusters(&warming.take_changes()), ["a"]);
    assert_eq!(warming.take_timed_out(), [need(Kind::Endpoint, "a")]);
    assert_eq!(warming.deadline(), None);
}

#[test]
fn an_initial_fetch_timeout_of_zero_waits_for_ever() {
    let now = Instant::now();
    let mut warming = Warming::default();
    let mut proto = testing::eds_cluster("a");
    let eds = proto.eds_cluster_config.as_mut().unwrap().eds_config.as_mut().unwrap();
    eds.initial_fetch_timeout = Some(outrigger_proto::google::protobuf::Duration::default());
    warming.set_cluster(Arc::new(config::cluster::from_proto(proto).unwrap()), now);
    assert_eq!(warming.deadline(), None);
    warming.expire(now + Duration::from_secs(3600));
    assert_eq!(warming.warming_clusters(), 1);
}

#[test]
fn endpoints_that_do_not_exist_end_the_wait_at_once() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    warming.answered(Kind::Endpoint, &Origin::Ads, &"a".into(), now);
    assert_eq!(clusters(&warming.take_changes()), ["a"]);
}

#[test]
fn an_endpoint_update_touches_nothing_but_endpoints() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    warming.take_changes();
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    let changes = warming.take_changes();
    assert_eq!((changes.clusters.len(), changes.endpoints.len()), (0, 1));
}

#[test]
fn what_nothing_refers_to_is_unsubscribed_and_fetched_again_when_it_is_needed_again() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    warming.take_changes();
    assert!(warming.remove_cluster(&"a".into()));
    let changes = warming.take_changes();
    assert_eq!(changes.removed_clusters, [Arc::from("a")]);
    assert!(names(interest(&mut warming, Kind::Endpoint)).is_empty());
    warming.forget(Kind::Endpoint, &Origin::Ads, &"a".into());
    assert_eq!(warming.take_changes().removed_endpoints, [Arc::from("a")]);

    warming.set_cluster(cluster("a"), now);
    assert!(warming.take_changes().is_empty(), "it waits again");
}

#[test]
fn a_listener_waits_for_its_routes_and_reuses_them_when_it_changes() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_listener(listener("l", "r"), now);
    assert!(warming.take_changes().is_empty());
    assert_eq!(names(interest(&mut warming, Kind::Route)), ["r"]);
    warming.set_routes(&Origin::Ads, &routes("r"), now).unwrap();
    let changes = warming.take_changes();
    assert_eq!((changes.listeners.len(), changes.routes.len()), (1, 1));

    warming.set_listener(listener("l", "r"), now);
    assert_eq!(warming.take_changes().listeners.len(), 1);
}

#[test]
fn a_listener_removed_while_it_waits_is_told_of_so_that_its_address_is_given_up() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_listener(listener("l", "r"), now);
    warming.remove_listener(&"l".into());
    let changes = warming.take_changes();
    assert_eq!(changes.removed_listeners, [Arc::from("l")]);
    assert_eq!(warming.deadline(), None);
    assert!(names(interest(&mut warming, Kind::Route)).is_empty());
}

#[test]
fn a_cluster_refused_on_its_way_into_effect_leaves_the_old_one_with_its_needs() {
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(cluster("a"), now);
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    warming.set_cluster(cluster_of_service("a", "other"), now);
    warming.set_endpoints(&Origin::Ads, endpoints("other"), now);
    warming.take_changes();
    interest(&mut warming, Kind::Endpoint);
    warming.refused(&Refusal { kind: Kind::Cluster, name: "a".into(), rejected: Vec::new() });
    assert_eq!(names(interest(&mut warming, Kind::Endpoint)), ["a"]);
    assert!(warming.has_cluster("a"));
}

#[test]
fn secrets_are_needed_by_both_sides_of_tls() {
    let tls = "{sds_config: {ads: {}, resource_api_version: V3}, name: trust}";
    let mut proto = testing::eds_cluster("a");
    proto.transport_socket = Some(testing::read(&format!(
        "{{name: envoy.transport_sockets.tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{validation_context_sds_secret_config: {tls}}}}}}}"
    )));
    let now = Instant::now();
    let mut warming = Warming::default();
    warming.set_cluster(Arc::new(config::cluster::from_proto(proto).unwrap()), now);
    assert_eq!(names(interest(&mut warming, Kind::Secret)), ["trust"]);
    warming.set_endpoints(&Origin::Ads, endpoints("a"), now);
    assert!(warming.take_changes().clusters.is_empty(), "the secret is missing");
    warming.expire(now + FETCH_TIMEOUT);
    assert_eq!(clusters(&warming.take_changes()), ["a"]);
    assert_eq!(warming.take_timed_out(), [need(Kind::Secret, "trust")]);
}
