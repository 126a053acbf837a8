//! Delta, rules named as in the xds-test-harness.

use super::*;
use ResourceType::{Cluster, Endpoint, Listener, Route};

/// Resources of services `a` and `b` by type, and a change of `b`'s.
struct Case {
    kind: ResourceType,
    a: &'static str,
    b: &'static str,
    change_b: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        kind: Cluster,
        a: "outbound|8001||a",
        b: "outbound|8002||b",
        change_b: "{kind: Service, name: b, spec: {ports: [{port: 8002, protocol: http}], timeouts: {connect: 1s}}}",
    },
    Case {
        kind: Endpoint,
        a: "outbound|8001||a",
        b: "outbound|8002||b",
        change_b: "{kind: Endpoint, name: b-2, spec: {service: b, address: 127.0.0.9, port: 9000}}",
    },
    Case {
        kind: Route,
        a: "8001",
        b: "8002",
        change_b: "{kind: Service, name: b, spec: {ports: [{port: 8002, protocol: http}], timeouts: {request: 1s}}}",
    },
];

const REMOVE_B: &str =
    "{kind: Service, name: b, delete: true}\n---\n{kind: Endpoint, name: b-1, delete: true}";

#[tokio::test]
async fn d1_d2_names_are_added_and_only_what_changed_arrives() {
    for case in CASES {
        for scope in [None, Some(case.kind)] {
            let plane = Plane::new(&four_services()).await;
            let mut client = Delta::open(plane.foreign().await, scope, case.kind, &[case.a]).await;
            let first = client.expect(case.kind, &[case.a], &[]).await;
            client.request(case.kind, &[case.b], &[]).await;
            let second = client.expect(case.kind, &[case.b], &[]).await;
            plane.apply(case.change_b);
            let third = client.expect(case.kind, &[case.b], &[]).await;
            assert_ne!(second.resources[0].version, third.resources[0].version);
            assert_eq!(third.system_version_info, "2");
            assert_ne!(first.nonce, second.nonce);
            assert_ne!(second.nonce, third.nonce);
        }
    }
}

#[tokio::test]
async fn d3_d4_what_does_not_exist_is_reported_and_arrives_once_it_does() {
    for (kind, a, b) in [
        (Cluster, "outbound|8001||a", "outbound|8002||b"),
        (Listener, "outbound|8001", "outbound|8002"),
        (Route, "8001", "8002"),
    ] {
        for scope in [None, Some(kind)] {
            let plane = Plane::new(&service("a", 1, "")).await;
            let mut client = Delta::open(plane.foreign().await, scope, kind, &[a, b]).await;
            client.expect(kind, &[a], &[b]).await;
            plane.apply(&service("b", 2, ""));
            client.expect(kind, &[b], &[]).await;
            plane.apply(REMOVE_B);
            client.expect(kind, &[], &[b]).await;
            plane.apply(&service("b", 2, ""));
            client.expect(kind, &[b], &[]).await;
        }
    }
}

#[tokio::test]
async fn d5_what_was_unsubscribed_does_not_arrive() {
    for case in CASES {
        let plane = Plane::new(&four_services()).await;
        let both = [case.a, case.b];
        let mut client = Delta::open(plane.foreign().await, None, case.kind, &both).await;
        client.expect(case.kind, &both, &[]).await;
        client.request(case.kind, &[], &[case.b]).await;
        // A subscription of another type marks that the request before was seen, and then the change.
        client.request(Listener, &["outbound|8003"], &[]).await;
        client.expect(Listener, &["outbound|8003"], &[]).await;
        plane.apply(case.change_b);
        plane.apply(&service("e", 5, ""));
        client.request(Listener, &["outbound|8005"], &[]).await;
        client.expect(Listener, &["outbound|8005"], &[]).await;
    }
}

#[tokio::test]
async fn d6_two_types_share_a_stream() {
    for (one, other) in [(0, 1), (1, 0), (2, 1)] {
        let (one, other) = (&CASES[one], &CASES[other]);
        let plane = Plane::new(&four_services()).await;
        let mut client = Delta::open(plane.foreign().await, None, one.kind, &[one.b]).await;
        client.expect(one.kind, &[one.b], &[]).await;
        client.request(other.kind, &[other.b], &[]).await;
        client.expect(other.kind, &[other.b], &[]).await;
        plane.apply(one.change_b);
        client.expect(one.kind, &[one.b], &[]).await;
    }
}

#[tokio::test]
async fn endpoints_are_pushed_again_behind_a_changed_cluster() {
    let plane = Plane::new(&four_services()).await;
    let mut client = Delta::open(plane.foreign().await, None, Cluster, &[]).await;
    let all = ["outbound|8001||a", "outbound|8002||b", "outbound|8003||c", "outbound|8004||d"];
    client.expect(Cluster, &all, &[]).await;
    client.request(Endpoint, &all, &[]).await;
    client.expect(Endpoint, &all, &[]).await;
    plane.apply(CASES[0].change_b);
    client.expect(Cluster, &["outbound|8002||b"], &[]).await;
    client.expect(Endpoint, &["outbound|8002||b"], &[]).await;
}

#[tokio::test]
async fn a_reconnect_after_a_restart_gets_nothing_that_it_has() {
    let plane = Plane::new(&four_services()).await;
    let mut client = Delta::open(plane.foreign().await, None, Cluster, &[]).await;
    let response = client.receive().await;
    let has = response.resources.iter().map(|it| (it.name.clone(), it.version.clone())).collect();
    let (store, directory) = (plane.store.clone(), plane._directory.clone());
    let config = applied(&plane.config.borrow(), CASES[0].change_b);
    drop(plane);
    let plane = Plane::on(store, directory, config).await;
    let mut client = Delta::reopen(plane.foreign().await, None, Cluster, &[], has).await;
    client.expect(Cluster, &["outbound|8002||b"], &[]).await;
}
