//! State of the world, rules named as in the xds-test-harness.

use super::*;
use ResourceType::{Cluster, Endpoint, Listener, Route};

/// Names of a type's resources for services `a` to `d`, and a change of `b`'s.
struct Case {
    kind: ResourceType,
    names: [&'static str; 4],
    change_b: fn() -> String,
}

const CASES: [Case; 3] = [
    Case {
        kind: Cluster,
        names: ["outbound|8001||a", "outbound|8002||b", "outbound|8003||c", "outbound|8004||d"],
        change_b: || service("b", 2, ", timeouts: {connect: 1s}"),
    },
    Case {
        kind: Endpoint,
        names: ["outbound|8001||a", "outbound|8002||b", "outbound|8003||c", "outbound|8004||d"],
        change_b: || {
            "{kind: Endpoint, name: b-2, spec: {service: b, address: 127.0.0.9, port: 9000}}"
                .to_owned()
        },
    },
    Case {
        kind: Route,
        names: ["8001", "8002", "8003", "8004"],
        change_b: || service("b", 2, ", timeouts: {request: 1s}"),
    },
];

/// On the aggregated service, and on the type's own.
fn scopes(kind: ResourceType) -> [Option<ResourceType>; 2] {
    [None, Some(kind)]
}

/// A listener per port: what the wildcard of listeners holds.
const LISTENERS: [&str; 4] = ["outbound|8001", "outbound|8002", "outbound|8003", "outbound|8004"];

#[tokio::test]
async fn s1_s2_s3_a_wildcard_gets_everything_and_again_everything_after_a_change() {
    for scope in scopes(Cluster) {
        let plane = Plane::new(&four_services()).await;
        let mut client = Sotw::open(plane.foreign().await, scope, Cluster, &[]).await;
        let all = CASES[0].names;
        assert_eq!(client.expect(Cluster, &all, &[]).await.version_info, "1");
        plane.apply(&(CASES[0].change_b)());
        assert_eq!(client.expect(Cluster, &all, &[]).await.version_info, "2");
        plane.apply(&service("e", 5, ""));
        let five = [all[0], all[1], all[2], all[3], "outbound|8005||e"];
        client.expect(Cluster, &five, &[]).await;
    }
    for scope in scopes(Listener) {
        let plane = Plane::new(&four_services()).await;
        let mut client = Sotw::open(plane.foreign().await, scope, Listener, &[]).await;
        client.expect(Listener, &LISTENERS, &[]).await;
        plane.apply(&service("e", 5, ""));
        let [a, b, c, d] = LISTENERS;
        client.expect(Listener, &[a, b, c, d, "outbound|8005"], &[]).await;
        plane.apply("{kind: Service, name: e, delete: true}\n---\n{kind: Endpoint, name: e-1, delete: true}");
        client.expect(Listener, &LISTENERS, &[]).await;
    }
}

#[tokio::test]
async fn s4_s5_s6_a_subset_gets_itself_and_follows_its_changes() {
    for case in CASES {
        for scope in scopes(case.kind) {
            let plane = Plane::new(&four_services()).await;
            let [_, b, _, d] = case.names;
            let mut client = Sotw::open(plane.foreign().await, scope, case.kind, &[b, d]).await;
            client.expect(case.kind, &[b, d], &[b, d]).await;
            plane.apply(&(case.change_b)());
            let changed: &[&str] = if case.kind == Cluster { &[b, d] } else { &[b] };
            let response = client.expect(case.kind, changed, &[b, d]).await;
            assert_eq!(response.version_info, "2");
        }
    }
}

#[tokio::test]
async fn s7_s8_a_name_that_does_not_exist_arrives_once_it_does() {
    let z = service("z", 9, "");
    for (kind, a, name) in [
        (Cluster, "outbound|8001||a", "outbound|8009||z"),
        (Endpoint, "outbound|8001||a", "outbound|8009||z"),
        (Listener, "outbound|8001", "outbound|8009"),
        (Route, "8001", "8009"),
    ] {
        for scope in scopes(kind) {
            let plane = Plane::new(&four_services()).await;
            let mut client = Sotw::open(plane.foreign().await, scope, kind, &[a, name]).await;
            client.expect(kind, &[a], &[a, name]).await;
            plane.apply(&z);
            let both: &[&str] = if kind.is_full_state() { &[a, name] } else { &[name] };
            client.expect(kind, both, &[a, name]).await;
        }
    }
}

#[tokio::test]
async fn s9_two_types_share_a_stream() {
    for (one, other) in [(0, 1), (2, 1)] {
        let (one, other) = (&CASES[one], &CASES[other]);
        let plane = Plane::new(&four_services()).await;
        let (b1, b2) = (one.names[1], other.names[1]);
        let mut client = Sotw::open(plane.foreign().await, None, one.kind, &[b1]).await;
        client.expect(one.kind, &[b1], &[b1]).await;
        client.request(other.kind, &[b2], None).await;
        client.expect(other.kind, &[b2], &[b2]).await;
        plane.apply(&(one.change_b)());
        client.expect(one.kind, &[b1], &[b1]).await;
    }
}

#[tokio::test]
async fn u1_u2_u3_what_was_unsubscribed_does_not_arrive_any_more() {
    for case in CASES {
        let plane = Plane::new(&four_services()).await;
        let [a, b, ..] = case.names;
        let mut client = Sotw::open(plane.foreign().await, None, case.kind, &[a, b]).await;
        client.expect(case.kind, &[a, b], &[a, b]).await;
        client.request(case.kind, &[a], None).await;
        // A subscription of another type marks that the request before was seen.
        client.request(Listener, &["outbound|8003"], None).await;
        client.expect(Listener, &["outbound|8003"], &["outbound|8003"]).await;
        plane.apply(&(case.change_b)());
        plane.apply(&service("a", 1, ", timeouts: {request: 3s, connect: 3s}"));
        plane.apply(
            "{kind: Endpoint, name: a-2, spec: {service: a, address: 127.0.0.8, port: 9000}}",
        );
        client.expect(case.kind, &[a], &[a]).await;

        client.request(case.kind, &[""], None).await;
        client.request(Listener, &["outbound|8003", "outbound|8004"], None).await;
        let both = ["outbound|8003", "outbound|8004"];
        loop {
            let (kind, names, response) = client.receive().await;
            if kind == Listener {
                assert_eq!(names, both);
                client.versions.insert(kind, response.version_info);
                client.request(Listener, &both, None).await;
                break;
            }
            // A change of `a` that was on its way.
            assert_eq!((kind, names), (case.kind, owned(&[a])));
        }
        plane.apply(&service("a", 1, ", timeouts: {request: 4s, connect: 4s}"));
        plane.apply(
            "{kind: Endpoint, name: a-3, spec: {service: a, address: 127.0.0.7, port: 9000}}",
        );
        client.request(Listener, &["outbound|8002"], None).await;
        client.expect(Listener, &["outbound|8002"], &["outbound|8002"]).await;
    }
}

#[tokio::test]
async fn versions_are_the_same_after_a_restart() {
    let plane = Plane::new(&four_services()).await;
    plane.apply(&service("e", 5, ""));
    let mut client = Sotw::open(plane.foreign().await, None, Cluster, &["outbound|8005||e"]).await;
    let (_, _, before) = client.receive().await;
    let (store, directory) = (plane.store.clone(), plane._directory.clone());
    let config = plane.config.borrow().clone();
    drop(plane);
    let plane = Plane::on(store, directory, config).await;
    let mut client = Sotw::open(plane.foreign().await, None, Cluster, &["outbound|8005||e"]).await;
    let (_, _, after) = client.receive().await;
    assert_eq!((before.version_info, before.resources), (after.version_info, after.resources));
}

#[tokio::test]
async fn a_grpc_client_finds_its_listener_by_name_only() {
    let plane = Plane::new(&four_services()).await;
    for name in ["a", "a:8001"] {
        let mut client = Sotw::open(plane.foreign().await, None, Listener, &[name]).await;
        client.expect(Listener, &[name], &[name]).await;
    }
}
