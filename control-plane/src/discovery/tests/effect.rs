//! A dry run says what an apply then sends.

use super::*;
use crate::api::view::{Difference, SidecarEffect};
use ResourceType::Cluster;

async fn until(plane: &Plane, holds: impl Fn() -> bool) {
    let mut changes = plane.live.view.changes();
    let wait = async {
        while !holds() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(HANGS, wait).await.expect("it never holds");
}

/// Takes the next response; how many resources it brings and removes.
async fn accept(client: &mut Delta) -> (usize, usize) {
    let response = client.receive().await;
    client.answer(&response, None).await;
    (response.resources.len(), response.removed_resources.len())
}

/// What a dry run says of each client.
fn effect(plane: &Plane, documents: &str) -> Vec<SidecarEffect> {
    let planned = applied(&plane.config.borrow(), documents);
    plane.live.view.effect(planned).sidecars
}

#[tokio::test]
async fn what_a_dry_run_says_of_each_client_is_what_it_is_sent() {
    let plane = Plane::new(&four_services()).await;
    let view = plane.live.view.clone();
    let mut all = Delta::open(plane.foreign().await, None, Cluster, &[]).await;
    accept(&mut all).await;
    let cases = [
        // Changed, new and gone, in one transaction.
        format!(
            "{}{}---\n{{kind: Endpoint, name: d-1, delete: true}}\n---\n{{kind: Service, name: d, delete: true}}\n",
            service("a", 1, ", timeouts: {connect: 1s}"),
            service("e", 5, "")
        ),
        service("b", 2, ", subsets: [{name: v1, labels: {version: v1}}]"),
        // Nothing that a client of clusters sees.
        "{kind: Policy, name: p, spec: {to: [{service: a}], action: deny}}".to_owned(),
    ];
    for (documents, (upserts, removed)) in cases.iter().zip([(2, 1), (1, 0), (0, 0)]) {
        let said = effect(&plane, documents);
        let said = said.first().map(|it| it.clusters).unwrap_or_default();
        assert_eq!((said.added + said.changed, said.removed), (upserts, removed), "{documents}");
        let revision = plane.apply(documents);
        let mut sent = (0, 0);
        while sent.0 < upserts || sent.1 < removed {
            let (more, less) = accept(&mut all).await;
            sent = (sent.0 + more, sent.1 + less);
        }
        assert_eq!(sent, (upserts, removed), "{documents}");
        until(&plane, || view.acked(revision).acked == 1).await;
    }
}

#[tokio::test]
async fn a_client_is_told_only_of_what_it_asked_for() {
    let plane = Plane::new(&four_services()).await;
    let mut a = Delta::open(plane.foreign().await, None, Cluster, &["outbound|8001||a"]).await;
    accept(&mut a).await;
    let change = |name, index| service(name, index, ", timeouts: {connect: 1s}");
    assert_eq!(effect(&plane, &change("b", 2)), []);
    let planned = applied(&plane.config.borrow(), &change("a", 1));
    let whole = plane.live.view.effect(planned);
    assert_eq!((whole.changed, whole.total), (1, 1));
    let changed = Difference { added: 0, changed: 1, removed: 0 };
    assert_eq!(whole.sidecars[0].clusters, changed);
    assert_eq!(whole.sidecars[0].endpoints, Difference::default());
    assert_eq!(plane.config.borrow().revision(), 1, "nothing was changed");
}

#[tokio::test]
async fn endpoints_of_a_new_cluster_belong_to_the_effect() {
    let plane = Plane::new(&four_services()).await;
    let mut all = Delta::open(plane.foreign().await, None, Cluster, &[]).await;
    accept(&mut all).await;
    let said = effect(&plane, &service("e", 5, "")).remove(0);
    let one = Difference { added: 1, changed: 0, removed: 0 };
    assert_eq!((said.clusters, said.endpoints), (one, one));
}
