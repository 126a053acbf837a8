//! Status is what clients said.

use super::*;
use crate::api::view::{Client, ObjectState, TypeStatus};
use crate::model::Kind;
use ResourceType::Cluster;

/// Waits until something holds that status changes lead to.
async fn until(plane: &Plane, holds: impl Fn() -> bool) {
    let mut changes = plane.live.view.changes();
    let wait = async {
        while !holds() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(HANGS, wait).await.expect("it never holds");
}

#[tokio::test]
async fn a_rejection_is_told_of_client_object_and_revision_until_it_is_mended() {
    let plane = Plane::new(&four_services()).await;
    let view = plane.live.view.clone();
    let all = ["outbound|8001||a", "outbound|8002||b", "outbound|8003||c", "outbound|8004||d"];
    let mut client = Delta::open(plane.foreign().await, None, Cluster, &[]).await;
    client.expect(Cluster, &all, &[]).await;
    until(&plane, || view.acked(1).acked == 1).await;
    let b = || view.object(Kind::Service, "b", 1);
    assert_eq!((b().state, b().acked, b().total), (ObjectState::Accepted, 1, 1));

    let revision = plane.apply(&service("b", 2, ", timeouts: {connect: 1s}"));
    let response = client.receive().await;
    client.answer(&response, Some("outbound|8002||b: connect_timeout: too short")).await;
    until(&plane, || b().state == ObjectState::Rejected).await;
    let reason = "outbound|8002||b: connect_timeout: too short";
    assert_eq!(b().problems[0].reason, reason);
    assert_eq!(view.object(Kind::Service, "a", 1).state, ObjectState::Accepted);
    let status = view.sidecars().remove(0);
    assert_eq!(status.clusters, TypeStatus::Rejected { reason: reason.to_owned() });
    assert_eq!(status.endpoints, TypeStatus::Ok);
    assert_eq!((status.node.as_str(), status.client), ("test-id", Client::Envoy));
    assert_eq!((status.connected, status.revision), (true, 1));
    let acked = view.acked(revision);
    assert_eq!((acked.acked, acked.total), (0, 1));
    assert_eq!(acked.laggards[0].reason, format!("rejected clusters: {reason}"));

    let revision = plane.apply(&service("b", 2, ", timeouts: {connect: 2s}"));
    client.expect(Cluster, &["outbound|8002||b"], &[]).await;
    until(&plane, || view.acked(revision).acked == 1).await;
    assert_eq!(b().state, ObjectState::Accepted);
}

#[tokio::test]
async fn a_revision_that_does_not_touch_a_client_is_in_effect_there() {
    let plane = Plane::new(&four_services()).await;
    let mut client = Delta::open(plane.foreign().await, None, Cluster, &["outbound|8001||a"]).await;
    client.expect(Cluster, &["outbound|8001||a"], &[]).await;
    let revision = plane.apply(&service("b", 2, ", timeouts: {connect: 1s}"));
    let view = plane.live.view.clone();
    until(&plane, || view.acked(revision).acked == 1).await;
}

#[tokio::test]
async fn a_client_that_left_is_named_and_does_not_count() {
    let plane = Plane::new(&four_services()).await;
    let view = plane.live.view.clone();
    let mut client = Delta::open(plane.foreign().await, None, Cluster, &[]).await;
    client.receive().await;
    assert_eq!(view.acked(1).total, 1);
    drop(client);
    until(&plane, || view.acked(1).total == 0).await;
    assert!(!view.sidecars()[0].connected);
}
