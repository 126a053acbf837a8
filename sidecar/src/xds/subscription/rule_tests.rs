//! More rules of the protocol, a test each: wildcards, names that do not exist, times to live, what is and is not an
//! update. The helpers are those of [`super::tests`].

use super::tests::{
    accept, assignment, cluster, delta, names, next_delta, next_sotw, refusal, resource, sotw,
    sotw_clusters,
};
use super::*;
use outrigger_proto::any;
use outrigger_proto::envoy::config::listener::v3::Listener;

fn all_and(names: &[&str]) -> Interest {
    Interest::EverythingAnd(Arc::new(names.iter().map(|name| Arc::from(*name)).collect()))
}

fn subscription(kind: Kind, variant: Variant, interest: Interest) -> Subscription {
    let mut subscription = Subscription::new(kind, variant);
    subscription.want(interest);
    subscription
}

#[test]
fn sotw_an_empty_response_of_endpoints_changes_nothing() {
    let mut endpoints = subscription(Kind::Endpoint, Variant::StateOfTheWorld, names(&["a"]));
    next_sotw(&mut endpoints);
    accept(&mut endpoints, sotw(Kind::Endpoint, "1", "n1", vec![assignment("a")]));
    next_sotw(&mut endpoints);
    let update = endpoints.receive(sotw(Kind::Endpoint, "2", "n2", vec![]));
    assert!(update.removed.is_empty() && update.resources.is_empty());
    endpoints.finish(update, &[]);
    let ack = next_sotw(&mut endpoints);
    assert_eq!((&*ack.version_info, &*ack.response_nonce), ("2", "n2"));
    assert_eq!(endpoints.accepted()["a"], "1", "the version of what is there stays");
}

#[test]
fn a_wrapper_is_judged_by_what_it_holds() {
    let mut clusters = sotw_clusters();
    next_sotw(&mut clusters);
    let listener = any::pack(&Listener { name: "l".to_owned(), ..Listener::default() });
    let wrapped = any::pack(&resource("l", "1", Some(listener)));
    let update = clusters.receive(sotw(Kind::Cluster, "1", "n1", vec![wrapped]));
    assert_eq!(update.refused[0].rejected[0].path, "type_url");
    assert_eq!(&*update.refused[0].name, "l");
}

#[test]
fn sotw_a_nack_before_anything_was_accepted_has_no_version() {
    let mut clusters = sotw_clusters();
    next_sotw(&mut clusters);
    let update = clusters.receive(sotw(Kind::Cluster, "1", "n1", vec![cluster("a")]));
    clusters.finish(update, &[refusal(Kind::Cluster, "a", "type")]);
    let nack = next_sotw(&mut clusters);
    assert_eq!((&*nack.version_info, &*nack.response_nonce), ("", "n1"));
    assert_eq!(clusters.next_request(), None, "nothing is sent again until something changes");
    // The next good one is acknowledged as ever.
    accept(&mut clusters, sotw(Kind::Cluster, "2", "n2", vec![cluster("a")]));
    let ack = next_sotw(&mut clusters);
    assert_eq!((&*ack.version_info, &*ack.response_nonce), ("2", "n2"));
    assert_eq!(ack.error_detail, None);
}

#[test]
fn sotw_an_update_of_the_same_version_is_answered_by_its_own_nonce() {
    let mut clusters = sotw_clusters();
    next_sotw(&mut clusters);
    accept(&mut clusters, sotw(Kind::Cluster, "1", "n1", vec![cluster("a")]));
    next_sotw(&mut clusters);
    accept(&mut clusters, sotw(Kind::Cluster, "1", "n2", vec![cluster("a")]));
    let ack = next_sotw(&mut clusters);
    assert_eq!((&*ack.version_info, &*ack.response_nonce), ("1", "n2"));
}

#[test]
fn sotw_a_name_beside_the_wildcard_needs_the_wildcard_by_its_name() {
    let mut clusters = sotw_clusters();
    assert!(next_sotw(&mut clusters).resource_names.is_empty(), "the wildcard every server knows");
    clusters.want(all_and(&["a"]));
    assert_eq!(next_sotw(&mut clusters).resource_names, ["*", "a"]);
    clusters.want(all_and(&[]));
    // An empty list would mean nothing at all by now.
    assert_eq!(next_sotw(&mut clusters).resource_names, ["*"]);
}

#[test]
fn delta_a_name_beside_the_wildcard_is_subscribed_and_unsubscribed_by_itself() {
    let mut clusters = subscription(Kind::Cluster, Variant::Delta, Interest::Everything);
    let first = next_delta(&mut clusters);
    assert!(first.resource_names_subscribe.is_empty());
    clusters.want(all_and(&["a"]));
    assert_eq!(next_delta(&mut clusters).resource_names_subscribe, ["a"]);
    clusters.want(all_and(&[]));
    let last = next_delta(&mut clusters);
    assert_eq!(last.resource_names_unsubscribe, ["a"]);
    assert!(last.resource_names_subscribe.is_empty());
}

#[test]
fn delta_a_reconnect_with_names_beside_the_wildcard_says_both() {
    let mut clusters = subscription(Kind::Cluster, Variant::Delta, all_and(&["a"]));
    next_delta(&mut clusters);
    clusters.connected();
    assert_eq!(next_delta(&mut clusters).resource_names_subscribe, ["*", "a"]);
}

#[test]
fn delta_a_name_that_is_wanted_again_is_subscribed_again() {
    let mut endpoints = subscription(Kind::Endpoint, Variant::Delta, names(&["a", "b"]));
    next_delta(&mut endpoints);
    let a = vec![resource("a", "1", Some(assignment("a")))];
    accept(&mut endpoints, delta(Kind::Endpoint, "n1", a, &[]));
    next_delta(&mut endpoints);
    endpoints.want(names(&["b"]));
    assert_eq!(next_delta(&mut endpoints).resource_names_unsubscribe, ["a"]);
    assert_eq!(endpoints.take_forgotten(), [Arc::from("a")]);
    endpoints.want(names(&["a", "b"]));
    assert_eq!(next_delta(&mut endpoints).resource_names_subscribe, ["a"]);
    // What was forgotten is not claimed to be there.
    endpoints.connected();
    assert!(next_delta(&mut endpoints).initial_resource_versions.is_empty());
}

#[test]
fn delta_a_name_that_does_not_exist_is_told_and_comes_when_it_does() {
    let mut endpoints = subscription(Kind::Endpoint, Variant::Delta, names(&["a"]));
    next_delta(&mut endpoints);
    let update = endpoints.receive(delta(Kind::Endpoint, "n1", vec![], &["a"]));
    assert_eq!(update.removed, [Arc::from("a")]);
    endpoints.finish(update, &[]);
    let ack = next_delta(&mut endpoints);
    assert_eq!(ack.response_nonce, "n1");
    assert!(ack.resource_names_subscribe.is_empty(), "it is still subscribed");
    let a = vec![resource("a", "1", Some(assignment("a")))];
    assert_eq!(accept(&mut endpoints, delta(Kind::Endpoint, "n2", a, &[])).len(), 1);
}

#[test]
fn delta_a_removed_resource_that_is_in_use_stays_and_is_new_when_it_comes_again() {
    let mut endpoints = subscription(Kind::Endpoint, Variant::Delta, names(&["a"]));
    next_delta(&mut endpoints);
    let a = || vec![resource("a", "1", Some(assignment("a")))];
    accept(&mut endpoints, delta(Kind::Endpoint, "n1", a(), &[]));
    accept(&mut endpoints, delta(Kind::Endpoint, "n2", vec![], &["a"]));
    assert_eq!(endpoints.accepted()["a"], "", "kept, as no version of the server's");
    endpoints.connected();
    assert!(next_delta(&mut endpoints).initial_resource_versions.is_empty());
}

#[test]
fn delta_a_name_that_is_there_twice_rejects_the_whole_response() {
    for removed in [false, true] {
        let mut endpoints = subscription(Kind::Endpoint, Variant::Delta, names(&["a", "b"]));
        next_delta(&mut endpoints);
        let one = |name: &str| resource(name, "1", Some(assignment(name)));
        let response = match removed {
            false => delta(Kind::Endpoint, "n1", vec![one("b"), one("a"), one("a")], &[]),
            true => delta(Kind::Endpoint, "n1", vec![one("b")], &["a", "a"]),
        };
        let update = endpoints.receive(response);
        assert!(update.resources.is_empty() && update.removed.is_empty());
        endpoints.finish(update, &[]);
        let nack = next_delta(&mut endpoints);
        assert!(nack.error_detail.unwrap().message.contains("\"a\""));
        assert!(endpoints.accepted().is_empty(), "nothing of it is applied");
    }
}

#[test]
fn delta_a_resource_that_cannot_be_read_is_refused_by_its_name_and_no_other_with_it() {
    let mut clusters = subscription(Kind::Cluster, Variant::Delta, Interest::Everything);
    next_delta(&mut clusters);
    let mut broken = cluster("b");
    broken.value = vec![0xff];
    let resources = vec![resource("b", "1", Some(broken)), resource("a", "1", Some(cluster("a")))];
    let update = clusters.receive(delta(Kind::Cluster, "n1", resources, &[]));
    assert_eq!(update.resources.len(), 1);
    let refused = update.refused.clone();
    clusters.finish(update, &refused);
    let message = next_delta(&mut clusters).error_detail.unwrap().message;
    assert!(message.starts_with("cluster \"b\": "), "{message}");
    assert_eq!(clusters.accepted().len(), 1);
}

#[test]
fn delta_a_nack_and_a_change_of_subscription_go_in_one_message() {
    let mut endpoints = subscription(Kind::Endpoint, Variant::Delta, names(&["a"]));
    next_delta(&mut endpoints);
    let a = vec![resource("a", "1", Some(assignment("a")))];
    let update = endpoints.receive(delta(Kind::Endpoint, "n1", a, &[]));
    endpoints.finish(update, &[refusal(Kind::Endpoint, "a", "endpoints")]);
    endpoints.want(names(&["b"]));
    let request = next_delta(&mut endpoints);
    assert_eq!(request.response_nonce, "n1");
    assert!(request.error_detail.is_some());
    assert_eq!(request.resource_names_subscribe, ["b"]);
    assert_eq!(request.resource_names_unsubscribe, ["a"]);
    assert_eq!(endpoints.next_request(), None);
}

#[test]
fn delta_an_answer_dies_with_its_stream() {
    let mut clusters = subscription(Kind::Cluster, Variant::Delta, Interest::Everything);
    next_delta(&mut clusters);
    let a = vec![resource("a", "1", Some(cluster("a")))];
    accept(&mut clusters, delta(Kind::Cluster, "n1", a, &[]));
    clusters.connected();
    let first = next_delta(&mut clusters);
    assert_eq!(first.response_nonce, "");
    assert_eq!(first.initial_resource_versions["a"], "1");
    assert_eq!(clusters.next_request(), None);
}

#[test]
fn what_expires_is_new_when_it_comes_again() {
    let mut clusters = subscription(Kind::Cluster, Variant::Delta, Interest::Everything);
    next_delta(&mut clusters);
    let a = vec![resource("a", "1", Some(cluster("a")))];
    accept(&mut clusters, delta(Kind::Cluster, "n1", a, &[]));
    clusters.expired("a");
    assert!(clusters.accepted().is_empty());

    let mut endpoints = subscription(Kind::Endpoint, Variant::Delta, names(&["a"]));
    next_delta(&mut endpoints);
    let a = vec![resource("a", "1", Some(assignment("a")))];
    accept(&mut endpoints, delta(Kind::Endpoint, "n1", a, &[]));
    endpoints.expired("a");
    assert_eq!(endpoints.accepted()["a"], "", "in use, and of no version");
}

#[test]
fn a_time_to_live_comes_with_its_resource_and_a_negative_one_is_over() {
    let mut clusters = subscription(Kind::Cluster, Variant::Delta, Interest::Everything);
    next_delta(&mut clusters);
    let with_ttl = |name: &str, seconds: i64| {
        let mut resource = resource(name, "1", Some(cluster(name)));
        let ttl = outrigger_proto::google::protobuf::Duration { seconds, nanos: 0 };
        resource.ttl = Some(ttl);
        resource
    };
    let resources =
        vec![with_ttl("a", 5), with_ttl("b", -5), resource("c", "1", Some(cluster("c")))];
    let update = clusters.receive(delta(Kind::Cluster, "n1", resources, &[]));
    let ttls: Vec<_> = update.resources.iter().map(|it| it.ttl.map(|ttl| ttl.as_secs())).collect();
    assert_eq!(ttls, [Some(5), Some(0), None]);
}

#[test]
fn a_virtual_host_without_a_body_does_not_exist() {
    let mut hosts = subscription(Kind::VirtualHost, Variant::Delta, names(&["r", "r/x"]));
    next_delta(&mut hosts);
    let missing = vec![resource("r/x", "1", None)];
    let update = hosts.receive(delta(Kind::VirtualHost, "n1", missing, &[]));
    assert_eq!(update.resources.len(), 1, "who waits for it has to be told");
    hosts.finish(update, &[]);
    assert!(hosts.accepted().is_empty(), "there are no heartbeats of virtual hosts");
}

#[test]
fn wanting_the_same_again_sends_nothing() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let mut endpoints = subscription(Kind::Endpoint, variant, names(&["a"]));
        assert!(endpoints.next_request().is_some());
        endpoints.want(names(&["a"]));
        assert_eq!(endpoints.next_request(), None);
        // Nor does a change that is taken back before it was told.
        endpoints.want(names(&["b"]));
        endpoints.want(names(&["a"]));
        assert_eq!(endpoints.next_request(), None);
    }
}
