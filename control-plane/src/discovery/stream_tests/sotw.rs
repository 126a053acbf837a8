//! State of the world.

use super::*;

#[test]
fn s1_a_wildcard_gets_everything_in_one_response() {
    for kind in [Cluster, Listener] {
        let mut client = SotwClient::new(&mut World::of(kind, &["a", "b", "c"]));
        client.subscribe(kind, &[]);
        let got = client.expect(kind, &["a", "b", "c"], &[]);
        assert_eq!(got.version, "r1");
        client.expect_nothing();
    }
}

#[test]
fn s2_s3_a_change_or_an_addition_sends_the_full_set_again() {
    let mut world = World::of(Listener, &["a", "b"]);
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Listener, &[]);
    client.expect(Listener, &["a", "b"], &[]);
    world.set(Listener, "a", "v2");
    client.push(&mut world);
    assert_eq!(client.expect(Listener, &["a", "b"], &[]).version, "r2");
    world.set(Listener, "c", "v1");
    client.push(&mut world);
    client.expect(Listener, &["a", "b", "c"], &[]);
    client.expect_nothing();
}

#[test]
fn s4_a_subset_gets_exactly_that_subset() {
    for kind in [Cluster, Endpoint, Listener, Route, Secret] {
        let mut client = SotwClient::new(&mut World::of(kind, &["a", "b", "c", "d"]));
        client.subscribe(kind, &["b", "d"]);
        client.expect(kind, &["b", "d"], &["b", "d"]);
        client.expect_nothing();
    }
}

#[test]
fn s5_s6_a_changed_member_brings_the_subset_in_full_state_types_and_itself_in_others() {
    for kind in [Cluster, Endpoint, Listener, Route] {
        let mut world = World::of(kind, &["a", "b", "c", "d"]);
        let mut client = SotwClient::new(&mut world);
        client.subscribe(kind, &["b", "d"]);
        client.expect(kind, &["b", "d"], &["b", "d"]);
        world.set(kind, "b", "v2");
        client.push(&mut world);
        let all: &[&str] = if kind.is_full_state() { &["b", "d"] } else { &["b"] };
        client.expect(kind, all, &["b", "d"]);
        world.set(kind, "a", "v2");
        client.push(&mut world);
        client.expect_nothing();
    }
}

#[test]
fn s7_s8_an_unknown_name_is_sent_once_it_exists() {
    for kind in [Cluster, Endpoint, Listener, Route] {
        let mut world = World::of(kind, &["a"]);
        let mut client = SotwClient::new(&mut world);
        client.subscribe(kind, &["a", "z"]);
        client.expect(kind, &["a"], &["a", "z"]);
        client.expect_nothing();
        world.set(kind, "z", "v1");
        client.push(&mut world);
        let all: &[&str] = if kind.is_full_state() { &["a", "z"] } else { &["z"] };
        client.expect(kind, all, &["a", "z"]);
    }
}

#[test]
fn s9_types_share_a_stream_and_a_nonce_of_another_type_is_ignored() {
    let mut world = World::of(Cluster, &["b"]);
    world.set(Listener, "b", "v1");
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Cluster, &["b"]);
    let first = client.receive().unwrap();
    client.subscribe(Listener, &["b"]);
    client.expect(Listener, &["b"], &["b"]);
    client.send(Listener, &["b"], &first.nonce, None);
    client.expect_nothing();
    client.ack(&first, &["b"]);
    world.set(Cluster, "b", "v2");
    client.push(&mut world);
    client.expect(Cluster, &["b"], &["b"]);
}

#[test]
fn u1_fewer_names_are_not_answered_and_the_rest_follows_changes() {
    for kind in [Cluster, Listener] {
        let mut world = World::of(kind, &["a", "b", "c"]);
        let mut client = SotwClient::new(&mut world);
        client.subscribe(kind, &["c", "a", "b"]);
        client.expect(kind, &["a", "b", "c"], &["c", "a", "b"]);
        client.subscribe(kind, &["a"]);
        client.expect_nothing();
        world.set(kind, "b", "v2");
        client.push(&mut world);
        client.expect_nothing();
        world.set(kind, "a", "v2");
        client.push(&mut world);
        client.expect(kind, &["a"], &["a"]);
    }
}

#[test]
fn u2_only_what_is_still_subscribed_arrives() {
    for kind in [Route, Endpoint] {
        let mut world = World::of(kind, &["b", "d"]);
        let mut client = SotwClient::new(&mut world);
        client.subscribe(kind, &["b", "d"]);
        client.expect(kind, &["b", "d"], &["b", "d"]);
        client.subscribe(kind, &["b"]);
        client.expect_nothing();
        world.set(kind, "b", "v2");
        world.set(kind, "d", "v2");
        client.push(&mut world);
        client.expect(kind, &["b"], &["b"]);
    }
}

#[test]
fn u3_a_list_of_one_empty_name_unsubscribes_from_everything() {
    for kind in [Cluster, Endpoint, Listener, Route] {
        let mut world = World::of(kind, &["a", "b"]);
        let mut client = SotwClient::new(&mut world);
        client.subscribe(kind, &["a", "b"]);
        client.expect(kind, &["a", "b"], &["a", "b"]);
        client.subscribe(kind, &[""]);
        world.set(kind, "b", "v2");
        client.push(&mut world);
        client.expect_nothing();
    }
}

#[test]
fn the_wildcard_walk_of_the_protocol() {
    let mut world = World::of(Cluster, &["a", "b"]);
    world.set(Cluster, "hidden", "v1");
    world.by_name_only.insert("hidden".into());
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Cluster, &[]);
    client.expect(Cluster, &["a", "b"], &[]);
    client.subscribe(Cluster, &["*", "hidden"]);
    client.expect(Cluster, &["a", "b", "hidden"], &["*", "hidden"]);
    client.subscribe(Cluster, &["a"]);
    client.expect(Cluster, &["a"], &["a"]);
    world.set(Cluster, "b", "v2");
    client.push(&mut world);
    client.expect_nothing();
    // After an explicit name an empty list is nothing, not everything.
    client.subscribe(Cluster, &[]);
    world.set(Cluster, "a", "v2");
    client.push(&mut world);
    client.expect_nothing();
}

#[test]
fn an_empty_list_of_a_type_without_wildcard_is_no_interest() {
    for kind in [Endpoint, Route, Secret] {
        let mut client = SotwClient::new(&mut World::of(kind, &["a"]));
        client.subscribe(kind, &[]);
        client.expect_nothing();
    }
}

#[test]
fn a_wildcard_over_nothing_is_answered_with_nothing() {
    let mut client = SotwClient::new(&mut World::default());
    client.subscribe(Listener, &[]);
    client.expect(Listener, &[], &[]);
    client.expect_nothing();
}

#[test]
fn a_removed_listener_is_missing_from_the_next_response_and_the_last_leaves_it_empty() {
    let mut world = World::of(Listener, &["a"]);
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Listener, &[]);
    client.expect(Listener, &["a"], &[]);
    world.remove(Listener, "a");
    client.push(&mut world);
    client.expect(Listener, &[], &[]);
}

#[test]
fn removed_endpoints_are_not_reported_and_sent_again_when_they_return() {
    let mut world = World::of(Endpoint, &["a"]);
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Endpoint, &["a"]);
    client.expect(Endpoint, &["a"], &["a"]);
    world.remove(Endpoint, "a");
    client.push(&mut world);
    client.expect_nothing();
    world.set(Endpoint, "a", "v1");
    client.push(&mut world);
    client.expect(Endpoint, &["a"], &["a"]);
}

#[test]
fn a_rejected_resource_is_not_sent_again_until_it_changes() {
    for kind in [Cluster, Route] {
        let mut world = World::of(kind, &["a"]);
        let mut client = SotwClient::new(&mut world);
        client.subscribe(kind, &["a"]);
        client.expect(kind, &["a"], &["a"]);
        world.set(kind, "a", "bad");
        client.push(&mut world);
        let got = client.receive().unwrap();
        client.nack(&got, &["a"], "a: no");
        client.expect_nothing();
        assert_eq!(client.stream.standing(kind), Standing::Rejected("a: no".to_owned()));
        client.push(&mut world);
        client.expect_nothing();
        world.set(kind, "a", "v2");
        client.push(&mut world);
        client.expect(kind, &["a"], &["a"]);
        assert_eq!(client.receive(), None);
        assert_eq!(client.stream.standing(kind), Standing::Ok);
    }
}

#[test]
fn a_rejection_keeps_the_revision_of_the_client_where_it_was() {
    let mut world = World::of(Listener, &["a"]);
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Listener, &[]);
    client.expect(Listener, &["a"], &[]);
    client.expect_nothing();
    assert_eq!(client.stream.revision(), 1);
    world.set(Listener, "a", "bad");
    client.push(&mut world);
    let got = client.receive().unwrap();
    client.nack(&got, &[], "no");
    client.expect_nothing();
    assert_eq!(client.stream.revision(), 1);
    world.set(Listener, "a", "v2");
    client.push(&mut world);
    client.expect(Listener, &["a"], &[]);
    client.expect_nothing();
    assert_eq!(client.stream.revision(), 3);
}

#[test]
fn a_request_with_a_stale_nonce_is_ignored() {
    let mut world = World::of(Route, &["a", "b"]);
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Route, &["a"]);
    let first = client.expect(Route, &["a"], &["a"]);
    world.set(Route, "a", "v2");
    client.push(&mut world);
    let second = client.receive().unwrap();
    client.send(Route, &["a", "b"], &first.nonce, None);
    assert_eq!(client.receive(), None);
    client.ack(&second, &["a", "b"]);
    client.expect(Route, &["b"], &["a", "b"]);
}

#[test]
fn an_added_name_is_answered_though_it_was_sent_before() {
    let mut client = SotwClient::new(&mut World::of(Endpoint, &["a", "b"]));
    client.subscribe(Endpoint, &["a", "b"]);
    client.expect(Endpoint, &["a", "b"], &["a", "b"]);
    client.subscribe(Endpoint, &["a"]);
    client.subscribe(Endpoint, &["a", "b"]);
    client.expect(Endpoint, &["b"], &["a", "b"]);
    client.expect_nothing();
}

#[test]
fn a_reconnect_with_the_current_version_is_answered() {
    let mut world = World::of(Cluster, &["a"]);
    let mut client = SotwClient::new(&mut world);
    client.versions[Cluster.index()] = "r1".to_owned();
    client.subscribe(Cluster, &[]);
    assert_eq!(client.expect(Cluster, &["a"], &[]).version, "r1");
    client.expect_nothing();
}

#[test]
fn endpoints_are_sent_again_after_their_cluster_changed() {
    let mut world = World::of(Cluster, &["a", "b"]);
    world.set(Endpoint, "a", "v1");
    world.set(Endpoint, "b", "v1");
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Cluster, &[]);
    client.expect(Cluster, &["a", "b"], &[]);
    client.subscribe(Endpoint, &["a", "b"]);
    client.expect(Endpoint, &["a", "b"], &["a", "b"]);
    world.set(Cluster, "a", "v2");
    client.push(&mut world);
    client.expect(Cluster, &["a", "b"], &[]);
    client.expect(Endpoint, &["a"], &["a", "b"]);
    client.expect_nothing();
}

#[test]
fn a_slow_client_gets_the_newest_state_only() {
    let mut world = World::of(Endpoint, &["a"]);
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Endpoint, &["a"]);
    let got = client.receive().unwrap();
    for content in ["v2", "v3", "v4"] {
        world.set(Endpoint, "a", content);
        client.push(&mut world);
        assert_eq!(client.receive(), None);
    }
    client.ack(&got, &["a"]);
    let got = client.expect(Endpoint, &["a"], &["a"]);
    assert_eq!(got.contents, ["v4"]);
    client.expect_nothing();
}

#[test]
fn a_client_that_never_answers_is_sent_the_newest_state_when_patience_ends() {
    let mut world = World::of(Endpoint, &["a"]);
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Endpoint, &["a"]);
    client.receive().unwrap();
    world.set(Endpoint, "a", "v2");
    client.push(&mut world);
    assert_eq!(client.receive(), None);
    let at = client.stream.wake_at(client.now).unwrap();
    assert_eq!(at, client.now + ACK_PATIENCE);
    client.now = at;
    assert_eq!(client.receive().unwrap().contents, ["v2"]);
}

#[test]
fn a_removed_cluster_stays_until_routes_without_it_were_answered() {
    let mut world = World::of(Cluster, &["old"]);
    world.set(Route, "r", "to old");
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Cluster, &[]);
    client.expect(Cluster, &["old"], &[]);
    client.subscribe(Route, &["r"]);
    client.expect(Route, &["r"], &["r"]);
    world.remove(Cluster, "old");
    world.set(Cluster, "new", "v1");
    world.set(Route, "r", "to new");
    client.push(&mut world);
    let both = client.receive().unwrap();
    assert_eq!((both.kind, strs(&both.names)), (Cluster, vec!["new", "old"]));
    assert_eq!(both.version, "r2+removing");
    assert_eq!(client.receive(), None);
    client.ack(&both, &[]);
    let route = client.receive().unwrap();
    assert_eq!(route.kind, Route);
    assert_eq!(client.receive(), None);
    client.ack(&route, &["r"]);
    assert_eq!(client.expect(Cluster, &["new"], &[]).version, "r2");
    client.expect_nothing();
}

#[test]
fn held_endpoints_are_not_sent_until_they_are_known() {
    let mut world = World::of(Endpoint, &["a"]);
    world.held.insert("b".into());
    let mut client = SotwClient::new(&mut world);
    client.subscribe(Endpoint, &["a", "b"]);
    client.expect(Endpoint, &["a"], &["a", "b"]);
    client.expect_nothing();
    world.held.clear();
    world.set(Endpoint, "b", "v1");
    client.push(&mut world);
    client.expect(Endpoint, &["b"], &["a", "b"]);
}
