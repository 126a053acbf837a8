//! One test a rule of the protocol, for both variants.

use outrigger_proto::envoy::config::cluster::v3::Cluster;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::Listener;

use super::nack::{NACK_TEXT_LIMIT, describe};
use super::*;
use crate::config::Rejected;
use outrigger_proto::any;
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use outrigger_proto::google::protobuf::Any;

pub(super) fn names(names: &[&str]) -> Interest {
    Interest::Names(Arc::new(names.iter().map(|name| Arc::from(*name)).collect()))
}

pub(super) fn cluster(name: &str) -> Any {
    any::pack(&Cluster { name: name.to_owned(), ..Cluster::default() })
}

pub(super) fn assignment(name: &str) -> Any {
    any::pack(&ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        ..ClusterLoadAssignment::default()
    })
}

pub(super) fn sotw(kind: Kind, version: &str, nonce: &str, resources: Vec<Any>) -> Response {
    Response::StateOfTheWorld(DiscoveryResponse {
        version_info: version.to_owned(),
        nonce: nonce.to_owned(),
        type_url: kind.type_url().to_owned(),
        resources,
        ..DiscoveryResponse::default()
    })
}

pub(super) fn resource(name: &str, version: &str, body: Option<Any>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: body,
        ..Resource::default()
    }
}

pub(super) fn delta(
    kind: Kind,
    nonce: &str,
    resources: Vec<Resource>,
    removed: &[&str],
) -> Response {
    Response::Delta(DeltaDiscoveryResponse {
        nonce: nonce.to_owned(),
        type_url: kind.type_url().to_owned(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    })
}

pub(super) fn refusal(kind: Kind, name: &str, path: &str) -> Refusal {
    let rejected = vec![Rejected { path: path.to_owned(), reason: "no".to_owned() }];
    Refusal { kind, name: name.into(), rejected }
}

pub(super) fn next_sotw(subscription: &mut Subscription) -> DiscoveryRequest {
    match subscription.next_request() {
        Some(Request::StateOfTheWorld(request)) => request,
        other => panic!("{other:?}"),
    }
}

pub(super) fn next_delta(subscription: &mut Subscription) -> DeltaDiscoveryRequest {
    match subscription.next_request() {
        Some(Request::Delta(request)) => request,
        other => panic!("{other:?}"),
    }
}

pub(super) fn sotw_clusters() -> Subscription {
    let mut subscription = Subscription::new(Kind::Cluster, Variant::StateOfTheWorld);
    subscription.want(Interest::Everything);
    subscription
}

pub(super) fn accept(subscription: &mut Subscription, response: Response) -> Vec<Arc<str>> {
    let update = subscription.receive(response);
    assert_eq!(update.refused, []);
    assert_eq!(update.malformed, None);
    let names = update.resources.iter().map(|resource| Arc::clone(&resource.name)).collect();
    subscription.finish(update, &[]);
    names
}

#[test]
fn nothing_is_asked_of_a_type_that_nobody_wants() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::StateOfTheWorld);
    assert_eq!(subscription.next_request(), None);
    subscription.want(names(&[]));
    assert_eq!(subscription.next_request(), None);
}

#[test]
fn sotw_ack_carries_the_new_version_and_the_nonce_and_is_sent_once() {
    let mut subscription = sotw_clusters();
    let first = next_sotw(&mut subscription);
    assert_eq!((&*first.version_info, &*first.response_nonce), ("", ""));
    assert!(first.resource_names.is_empty());
    assert_eq!(subscription.next_request(), None);

    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", vec![cluster("a")]));
    let ack = next_sotw(&mut subscription);
    assert_eq!((&*ack.version_info, &*ack.response_nonce), ("1", "n1"));
    assert_eq!(ack.error_detail, None);
    assert_eq!(subscription.next_request(), None);
}

#[test]
fn sotw_nack_keeps_the_accepted_version_and_takes_the_nonce_of_the_rejected_response() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", vec![cluster("a")]));
    next_sotw(&mut subscription);

    let update =
        subscription.receive(sotw(Kind::Cluster, "2", "n2", vec![cluster("a"), cluster("b")]));
    subscription.finish(update, &[refusal(Kind::Cluster, "b", "lb_policy")]);
    let nack = next_sotw(&mut subscription);
    assert_eq!((&*nack.version_info, &*nack.response_nonce), ("1", "n2"));
    let error = nack.error_detail.unwrap();
    assert_eq!(error.message, "cluster \"b\": lb_policy: no");
    assert_eq!(error.code, INVALID_ARGUMENT);
    // What was good is ours nevertheless.
    assert_eq!(subscription.accepted()["a"], "2");
    assert!(!subscription.accepted().contains_key("b"));
}

#[test]
fn one_nack_names_every_bad_resource_with_type_name_field_and_reason() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    let garbage = Any { type_url: Kind::Cluster.type_url().to_owned(), value: vec![0xff] };
    let update = subscription.receive(sotw(
        Kind::Cluster,
        "1",
        "n1",
        vec![cluster("a"), garbage, cluster("b")],
    ));
    assert_eq!(update.resources.len(), 2, "what is good is applied");
    let mut refused = update.refused.clone();
    refused.push(refusal(Kind::Cluster, "b", "name"));
    subscription.finish(update, &refused);
    let message = next_sotw(&mut subscription).error_detail.unwrap().message;
    assert!(message.starts_with("cluster \"resources[1]\": "), "{message}");
    assert!(message.ends_with("\ncluster \"b\": name: no"), "{message}");
}

#[test]
fn a_nack_text_is_bounded_and_says_how_much_is_missing() {
    let refused: Vec<_> =
        (0..1000).map(|i| refusal(Kind::Cluster, &format!("c{i}"), "p")).collect();
    let text = describe(&refused);
    assert!(text.len() < NACK_TEXT_LIMIT + 100);
    let named = text.lines().count() - 1;
    assert!(text.ends_with(&format!("... and {} more", 1000 - named)), "{text}");
}

#[test]
fn sotw_listeners_and_clusters_that_are_absent_are_removed() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    let both = vec![cluster("a"), cluster("b")];
    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", both));
    let update = subscription.receive(sotw(Kind::Cluster, "2", "n2", vec![cluster("b")]));
    assert_eq!(update.removed, [Arc::from("a")]);
    subscription.finish(update, &[]);
    let update = subscription.receive(sotw(Kind::Cluster, "3", "n3", vec![]));
    assert_eq!(update.removed, [Arc::from("b")], "an empty response removes all");
}

#[test]
fn sotw_endpoints_that_are_absent_stay() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::StateOfTheWorld);
    subscription.want(names(&["a", "b"]));
    next_sotw(&mut subscription);
    let both = vec![assignment("a"), assignment("b")];
    accept(&mut subscription, sotw(Kind::Endpoint, "1", "n1", both));
    let update = subscription.receive(sotw(Kind::Endpoint, "2", "n2", vec![assignment("b")]));
    assert!(update.removed.is_empty());
    subscription.finish(update, &[]);
    assert_eq!(subscription.accepted().len(), 2);
}

#[test]
fn a_rejected_resource_is_present_and_so_not_removed() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", vec![cluster("a")]));
    // The rest of the message is broken, but its name can be read.
    let mut broken = cluster("a");
    broken.value.extend([0x12, 0x7f]);
    let update = subscription.receive(sotw(Kind::Cluster, "2", "n2", vec![broken]));
    assert!(update.removed.is_empty());
}

#[test]
fn nothing_is_removed_while_a_resource_cannot_be_named() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", vec![cluster("a")]));
    let update = subscription.receive(sotw(Kind::Cluster, "2", "n2", vec![cluster("")]));
    assert!(update.removed.is_empty());
    assert_eq!(update.refused[0].rejected[0].path, "name");
}

#[test]
fn a_name_twice_rejects_a_whole_response_of_clusters_or_listeners() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    let twice = vec![cluster("a"), cluster("b"), cluster("a")];
    let update = subscription.receive(sotw(Kind::Cluster, "1", "n1", twice));
    assert!(update.resources.is_empty());
    subscription.finish(update, &[]);
    let nack = next_sotw(&mut subscription);
    assert_eq!(nack.version_info, "");
    let message = nack.error_detail.unwrap().message;
    assert_eq!(message, "cluster \"a\" is in the response more than once");
}

#[test]
fn a_name_twice_in_sotw_endpoints_counts_once_as_in_envoy() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::StateOfTheWorld);
    subscription.want(names(&["a"]));
    next_sotw(&mut subscription);
    let twice = vec![assignment("a"), assignment("a")];
    assert_eq!(accept(&mut subscription, sotw(Kind::Endpoint, "1", "n1", twice)).len(), 1);
    assert_eq!(next_sotw(&mut subscription).error_detail, None);
}

#[test]
fn a_resource_of_another_type_is_refused_by_name() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    let listener = any::pack(&Listener { name: "l".to_owned(), ..Listener::default() });
    let update = subscription.receive(sotw(Kind::Cluster, "1", "n1", vec![listener]));
    assert_eq!(&*update.refused[0].name, "l");
    assert_eq!(
        update.refused[0].rejected[0].to_string(),
        "type_url: is a envoy.config.listener.v3.Listener"
    );
}

#[test]
fn what_was_not_asked_for_is_ignored_and_acked() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::StateOfTheWorld);
    subscription.want(names(&["a"]));
    next_sotw(&mut subscription);
    let both = vec![assignment("a"), assignment("z")];
    assert_eq!(accept(&mut subscription, sotw(Kind::Endpoint, "1", "n1", both)), [Arc::from("a")]);
    assert_eq!(next_sotw(&mut subscription).error_detail, None);

    let mut subscription = Subscription::new(Kind::Endpoint, Variant::Delta);
    subscription.want(names(&["a"]));
    next_delta(&mut subscription);
    let z = vec![resource("z", "1", Some(assignment("z")))];
    assert!(accept(&mut subscription, delta(Kind::Endpoint, "n1", z, &["y"])).is_empty());
    assert_eq!(next_delta(&mut subscription).error_detail, None);
}

#[test]
fn a_heartbeat_keeps_what_is_there() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", vec![cluster("a")]));
    let heartbeat = any::pack(&resource("a", "1", None));
    let update = subscription.receive(sotw(Kind::Cluster, "1", "n2", vec![heartbeat]));
    assert!(update.removed.is_empty());
    assert_eq!(update.resources[0].body, None);
    subscription.finish(update, &[]);
    assert_eq!(subscription.accepted()["a"], "1");

    let mut subscription = Subscription::new(Kind::Cluster, Variant::Delta);
    subscription.want(Interest::Everything);
    next_delta(&mut subscription);
    let heartbeat = vec![resource("unknown", "1", None)];
    accept(&mut subscription, delta(Kind::Cluster, "n1", heartbeat, &[]));
    assert!(subscription.accepted().is_empty(), "a heartbeat is no resource");
}

#[test]
fn a_wrapped_sotw_resource_counts_as_what_it_holds() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    let wrapped = any::pack(&resource("a", "7", Some(cluster("a"))));
    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", vec![wrapped]));
    assert_eq!(subscription.accepted()["a"], "7");
}

#[test]
fn a_resource_that_calls_itself_differently_from_its_wrapper_is_refused() {
    let mut subscription = Subscription::new(Kind::Cluster, Variant::Delta);
    subscription.want(Interest::Everything);
    next_delta(&mut subscription);
    let resources = vec![resource("a", "1", Some(cluster("b")))];
    let update = subscription.receive(delta(Kind::Cluster, "n1", resources, &[]));
    assert_eq!(update.refused[0].rejected[0].to_string(), "name: the resource calls itself \"b\"");
}

#[test]
fn sotw_first_request_of_a_new_stream_has_the_accepted_version_and_no_nonce() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", vec![cluster("a")]));
    subscription.connected();
    let request = next_sotw(&mut subscription);
    assert_eq!((&*request.version_info, &*request.response_nonce), ("1", ""));
    assert_eq!(subscription.next_request(), None, "the ACK died with its stream");
}

#[test]
fn sotw_changed_names_go_with_the_last_nonce() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::StateOfTheWorld);
    subscription.want(names(&["a"]));
    next_sotw(&mut subscription);
    accept(&mut subscription, sotw(Kind::Endpoint, "1", "n1", vec![assignment("a")]));
    next_sotw(&mut subscription);
    subscription.want(names(&["a", "b"]));
    let request = next_sotw(&mut subscription);
    assert_eq!(request.resource_names, ["a", "b"]);
    assert_eq!((&*request.version_info, &*request.response_nonce), ("1", "n1"));
    subscription.want(names(&[]));
    assert!(next_sotw(&mut subscription).resource_names.is_empty());
    assert_eq!(subscription.take_forgotten(), [Arc::from("a")]);
}

#[test]
fn every_response_is_answered_even_if_several_come_in_a_row() {
    let mut subscription = sotw_clusters();
    next_sotw(&mut subscription);
    accept(&mut subscription, sotw(Kind::Cluster, "1", "n1", vec![]));
    accept(&mut subscription, sotw(Kind::Cluster, "2", "n2", vec![]));
    let first = next_sotw(&mut subscription);
    let second = next_sotw(&mut subscription);
    assert_eq!((&*first.version_info, &*first.response_nonce), ("1", "n1"));
    assert_eq!((&*second.version_info, &*second.response_nonce), ("2", "n2"));
}

#[test]
fn delta_subscribes_and_unsubscribes_only_what_changed() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::Delta);
    subscription.want(names(&["a", "b"]));
    let first = next_delta(&mut subscription);
    assert_eq!(first.resource_names_subscribe, ["a", "b"]);
    subscription.want(names(&["b", "c"]));
    let second = next_delta(&mut subscription);
    assert_eq!(second.resource_names_subscribe, ["c"]);
    assert_eq!(second.resource_names_unsubscribe, ["a"]);
    assert_eq!(second.response_nonce, "", "a spontaneous request carries no nonce");
    assert!(second.initial_resource_versions.is_empty());
    assert_eq!(subscription.next_request(), None);
}

#[test]
fn delta_answer_and_subscription_change_go_in_one_message() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::Delta);
    subscription.want(names(&["a"]));
    next_delta(&mut subscription);
    let a = vec![resource("a", "1", Some(assignment("a")))];
    accept(&mut subscription, delta(Kind::Endpoint, "n1", a, &[]));
    subscription.want(names(&["a", "b"]));
    let request = next_delta(&mut subscription);
    assert_eq!(request.response_nonce, "n1");
    assert_eq!(request.resource_names_subscribe, ["b"]);
    assert_eq!(subscription.next_request(), None);
}

#[test]
fn delta_nack_applies_the_good_and_keeps_the_version_of_the_bad() {
    let mut subscription = Subscription::new(Kind::Cluster, Variant::Delta);
    subscription.want(Interest::Everything);
    assert!(next_delta(&mut subscription).resource_names_subscribe.is_empty());
    let first = vec![resource("a", "1", Some(cluster("a")))];
    accept(&mut subscription, delta(Kind::Cluster, "n1", first, &[]));
    next_delta(&mut subscription);

    let second =
        vec![resource("a", "2", Some(cluster("a"))), resource("b", "2", Some(cluster("b")))];
    let update = subscription.receive(delta(Kind::Cluster, "n2", second, &[]));
    subscription.finish(update, &[refusal(Kind::Cluster, "a", "type")]);
    let nack = next_delta(&mut subscription);
    assert_eq!(nack.response_nonce, "n2");
    assert_eq!(nack.error_detail.unwrap().message, "cluster \"a\": type: no");
    assert_eq!(subscription.accepted()["a"], "1");
    assert_eq!(subscription.accepted()["b"], "2");
}

#[test]
fn delta_reconnect_repeats_subscriptions_with_the_versions_we_have() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::Delta);
    subscription.want(names(&["a", "b"]));
    next_delta(&mut subscription);
    let a = vec![resource("a", "5", Some(assignment("a")))];
    accept(&mut subscription, delta(Kind::Endpoint, "n1", a, &[]));
    subscription.connected();
    let request = next_delta(&mut subscription);
    assert_eq!(request.resource_names_subscribe, ["a", "b"]);
    assert_eq!(request.initial_resource_versions.len(), 1);
    assert_eq!(request.initial_resource_versions["a"], "5");
    assert_eq!(request.response_nonce, "");
}

#[test]
fn delta_removed_resource_has_no_version_to_report_any_more() {
    let mut subscription = Subscription::new(Kind::Cluster, Variant::Delta);
    subscription.want(Interest::Everything);
    next_delta(&mut subscription);
    let a = vec![resource("a", "1", Some(cluster("a")))];
    accept(&mut subscription, delta(Kind::Cluster, "n1", a, &[]));
    let update = subscription.receive(delta(Kind::Cluster, "n2", vec![], &["a"]));
    assert_eq!(update.removed, [Arc::from("a")]);
    subscription.finish(update, &[]);
    subscription.connected();
    assert!(next_delta(&mut subscription).initial_resource_versions.is_empty());
}

#[test]
fn delta_name_both_added_and_removed_rejects_the_whole_response() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::Delta);
    subscription.want(names(&["a"]));
    next_delta(&mut subscription);
    let a = vec![resource("a", "1", Some(assignment("a")))];
    let update = subscription.receive(delta(Kind::Endpoint, "n1", a, &["a"]));
    assert!(update.malformed.is_some() && update.resources.is_empty());
    subscription.finish(update, &[]);
    assert!(next_delta(&mut subscription).error_detail.is_some());
    assert!(subscription.accepted().is_empty());
}

#[test]
fn an_update_is_not_lost_for_a_name_that_is_unwanted_only_for_a_moment() {
    let mut subscription = Subscription::new(Kind::Endpoint, Variant::Delta);
    subscription.want(names(&["a"]));
    next_delta(&mut subscription);
    subscription.want(names(&[]));
    let a = vec![resource("a", "1", Some(assignment("a")))];
    assert_eq!(accept(&mut subscription, delta(Kind::Endpoint, "n1", a, &[])).len(), 1);
    subscription.want(names(&["a"]));
    next_delta(&mut subscription);
    assert!(subscription.take_forgotten().is_empty());
}

#[test]
fn what_was_restored_is_reported_on_the_first_stream() {
    let mut subscription = Subscription::new(Kind::Cluster, Variant::Delta);
    subscription.restore(String::new(), [(Arc::from("a"), "3".to_owned())]);
    subscription.want(Interest::Everything);
    subscription.connected();
    assert_eq!(next_delta(&mut subscription).initial_resource_versions["a"], "3");
}
