//! Delta.

use super::*;

const TYPES: [ResourceType; 5] = ResourceType::ALL;

#[test]
fn d1_names_are_added_one_by_one() {
    for kind in TYPES {
        let mut client = DeltaClient::new(&mut World::of(kind, &["a", "b"]));
        client.request(kind, &["a"], &[]);
        client.expect(kind, &["a"], &[]);
        client.request(kind, &["b"], &[]);
        client.expect(kind, &["b"], &[]);
        client.expect_nothing();
    }
}

#[test]
fn d2_only_what_changed_arrives_with_a_version_and_nonce_of_its_own() {
    for kind in TYPES {
        let mut world = World::of(kind, &["a", "b", "c"]);
        let mut client = DeltaClient::new(&mut world);
        client.request(kind, &["a", "b", "c"], &[]);
        let first = client.expect(kind, &["a", "b", "c"], &[]);
        world.set(kind, "a", "v2");
        client.push(&mut world);
        let second = client.expect(kind, &["a"], &[]);
        assert_ne!(first.nonce, second.nonce);
        assert_ne!(first.versions["a"], second.versions["a"]);
        assert_ne!(first.system_version, second.system_version);
    }
}

#[test]
fn d3_a_name_that_does_not_exist_is_reported_and_sent_once_it_does() {
    for kind in TYPES {
        let mut world = World::of(kind, &["a"]);
        let mut client = DeltaClient::new(&mut world);
        client.request(kind, &["a", "b"], &[]);
        client.expect(kind, &["a"], &["b"]);
        client.push(&mut world);
        client.expect_nothing();
        world.set(kind, "b", "v1");
        client.push(&mut world);
        client.expect(kind, &["b"], &[]);
    }
}

#[test]
fn d4_a_removal_is_reported_once_and_a_return_sent() {
    for kind in TYPES {
        let mut world = World::of(kind, &["a", "b"]);
        let mut client = DeltaClient::new(&mut world);
        client.request(kind, &["a", "b"], &[]);
        client.expect(kind, &["a", "b"], &[]);
        world.remove(kind, "b");
        client.push(&mut world);
        client.expect(kind, &[], &["b"]);
        client.expect_nothing();
        world.set(kind, "b", "v2");
        client.push(&mut world);
        client.expect(kind, &["b"], &[]);
    }
}

#[test]
fn d5_what_was_unsubscribed_does_not_arrive() {
    for kind in TYPES {
        let mut world = World::of(kind, &["a", "b"]);
        let mut client = DeltaClient::new(&mut world);
        client.request(kind, &["a", "b"], &[]);
        client.expect(kind, &["a", "b"], &[]);
        client.request(kind, &[], &["b"]);
        world.set(kind, "b", "v2");
        client.push(&mut world);
        client.expect_nothing();
        client.request(kind, &[], &["a"]);
        world.set(kind, "a", "v2");
        world.remove(kind, "b");
        client.push(&mut world);
        client.expect_nothing();
    }
}

#[test]
fn d6_types_share_a_stream_in_any_order() {
    for (one, other) in [(Cluster, Listener), (Listener, Cluster), (Endpoint, Route)] {
        let mut world = World::of(one, &["r"]);
        world.set(other, "r", "v1");
        let mut client = DeltaClient::new(&mut world);
        for kind in [one, other] {
            client.request(kind, &["r"], &[]);
            client.expect(kind, &["r"], &[]);
        }
        for kind in [one, other] {
            world.set(kind, "r", "v2");
            client.push(&mut world);
            client.expect(kind, &["r"], &[]);
        }
        client.expect_nothing();
    }
}

#[test]
fn a_stale_nonce_does_not_lose_a_subscription() {
    let mut world = World::of(Route, &["a", "b"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Route, &["a"], &[]);
    let first = client.expect(Route, &["a"], &[]);
    world.set(Route, "a", "v2");
    client.push(&mut world);
    let second = client.receive().unwrap();
    client.send(Route, &["b"], &["a"], &first.nonce, None);
    let third = client.receive().unwrap();
    assert_eq!(third.names(), ["b"]);
    client.ack(&second);
    client.ack(&third);
    world.set(Route, "a", "v3");
    client.push(&mut world);
    client.expect_nothing();
}

#[test]
fn one_message_acknowledges_and_subscribes() {
    let mut client = DeltaClient::new(&mut World::of(Endpoint, &["a", "b"]));
    client.request(Endpoint, &["a"], &[]);
    let got = client.receive().unwrap();
    client.send(Endpoint, &["b"], &[], &got.nonce, None);
    client.expect(Endpoint, &["b"], &[]);
    client.expect_nothing();
    assert_eq!(client.stream.standing(Endpoint), Standing::Ok);
}

#[test]
fn subscribing_again_is_always_answered() {
    for kind in TYPES {
        let mut client = DeltaClient::new(&mut World::of(kind, &["a"]));
        client.request(kind, &["a", "x"], &[]);
        client.expect(kind, &["a"], &["x"]);
        client.request(kind, &["a"], &[]);
        client.expect(kind, &["a"], &[]);
        client.request(kind, &["x"], &[]);
        client.expect(kind, &[], &["x"]);
        client.expect_nothing();
    }
}

#[test]
fn a_legacy_wildcard_lasts_until_it_is_unsubscribed() {
    let mut world = World::of(Cluster, &["a", "b"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Cluster, &[], &[]);
    client.expect(Cluster, &["a", "b"], &[]);
    client.request(Cluster, &["a"], &[]);
    client.expect(Cluster, &["a"], &[]);
    world.set(Cluster, "b", "v2");
    client.push(&mut world);
    client.expect(Cluster, &["b"], &[]);
    client.request(Cluster, &[], &["*"]);
    world.set(Cluster, "b", "v3");
    world.set(Cluster, "a", "v2");
    client.push(&mut world);
    client.expect(Cluster, &["a"], &[]);
    client.expect_nothing();
}

#[test]
fn a_first_request_with_names_is_no_wildcard() {
    for name in ["a", ""] {
        let mut client = DeltaClient::new(&mut World::of(Listener, &["b"]));
        client.request(Listener, &[name], &[]);
        if name == "a" {
            client.expect(Listener, &[], &["a"]);
        }
        client.expect_nothing();
    }
}

#[test]
fn an_explicit_wildcard_gets_everything_that_is_in_it() {
    let mut world = World::of(Listener, &["a", "b"]);
    world.set(Listener, "hidden", "v1");
    world.by_name_only.insert("hidden".into());
    let mut client = DeltaClient::new(&mut world);
    client.request(Listener, &["*"], &[]);
    client.expect(Listener, &["a", "b"], &[]);
    client.request(Listener, &["hidden"], &[]);
    client.expect(Listener, &["hidden"], &[]);
}

#[test]
fn an_explicit_name_that_leaves_a_wildcard_is_answered() {
    let mut world = World::of(Cluster, &["a"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Cluster, &["*", "a", "x"], &[]);
    client.expect(Cluster, &["a"], &["x"]);
    client.request(Cluster, &[], &["a"]);
    client.expect(Cluster, &["a"], &[]);
    client.request(Cluster, &[], &["x"]);
    client.expect(Cluster, &[], &["x"]);
    client.request(Cluster, &[], &["never"]);
    client.expect_nothing();
}

#[test]
fn a_name_that_leaves_with_the_wildcard_is_not_answered_any_more() {
    let mut client = DeltaClient::new(&mut World::of(Cluster, &["a"]));
    client.request(Cluster, &["*", "a"], &[]);
    client.request(Cluster, &[], &["a", "*"]);
    client.expect(Cluster, &[], &[]);
    client.expect_nothing();
}

#[test]
fn a_wildcard_over_nothing_is_answered_with_nothing() {
    let mut client = DeltaClient::new(&mut World::default());
    client.request(Cluster, &[], &[]);
    client.expect(Cluster, &[], &[]);
    client.expect_nothing();
}

#[test]
fn a_reconnect_gets_only_the_differences() {
    let mut world = World::of(Endpoint, &["a", "b", "gone"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Endpoint, &["a", "b", "gone"], &[]);
    let has = client.expect(Endpoint, &["a", "b", "gone"], &[]).versions;
    world.set(Endpoint, "b", "v2");
    world.remove(Endpoint, "gone");
    let mut client = DeltaClient::new(&mut world);
    client.reconnect(Endpoint, &["a", "b", "gone", "new"], &has);
    client.expect(Endpoint, &["b"], &["gone", "new"]);
    client.expect_nothing();
}

#[test]
fn a_reconnect_with_everything_current_is_silent_for_names() {
    let mut world = World::of(Route, &["a"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Route, &["a"], &[]);
    let has = client.expect(Route, &["a"], &[]).versions;
    let mut client = DeltaClient::new(&mut world);
    client.reconnect(Route, &["a"], &has);
    client.expect_nothing();
    assert_eq!(client.stream.standing(Route), Standing::Ok);
}

#[test]
fn a_wildcard_reconnect_is_told_what_is_gone() {
    let mut world = World::of(Cluster, &["a", "gone"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Cluster, &[], &[]);
    let has = client.expect(Cluster, &["a", "gone"], &[]).versions;
    world.remove(Cluster, "gone");
    let mut client = DeltaClient::new(&mut world);
    client.reconnect(Cluster, &[], &has);
    client.expect(Cluster, &[], &["gone"]);
    client.expect_nothing();
}

#[test]
fn names_in_initial_versions_alone_do_not_subscribe() {
    let mut world = World::of(Endpoint, &["a", "b"]);
    let mut client = DeltaClient::new(&mut world);
    let has = BTreeMap::from([("b".to_owned(), "old".to_owned())]);
    client.reconnect(Endpoint, &["a"], &has);
    client.expect(Endpoint, &["a"], &[]);
    world.set(Endpoint, "b", "v2");
    client.push(&mut world);
    client.expect_nothing();
}

#[test]
fn a_rejected_resource_is_not_sent_again_until_it_changes_and_holds_back_no_other() {
    let mut world = World::of(Route, &["a", "b"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Route, &["a", "b"], &[]);
    client.expect(Route, &["a", "b"], &[]);
    world.set(Route, "a", "bad");
    client.push(&mut world);
    let got = client.receive().unwrap();
    client.send(Route, &[], &[], &got.nonce, rejection("a: no"));
    client.expect_nothing();
    world.set(Route, "b", "v2");
    client.push(&mut world);
    client.expect(Route, &["b"], &[]);
    client.expect_nothing();
    assert_eq!(client.stream.standing(Route), Standing::Rejected("a: no".to_owned()));
    world.set(Route, "a", "v2");
    client.push(&mut world);
    client.expect(Route, &["a"], &[]);
    client.expect_nothing();
    assert_eq!(client.stream.standing(Route), Standing::Ok);
}

#[test]
fn a_rejection_blames_the_resources_that_it_names() {
    let mut world = World::of(Cluster, &["a", "b"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Cluster, &[], &[]);
    let got = client.receive().unwrap();
    client.send(Cluster, &[], &[], &got.nonce, rejection("clusters: b: bad"));
    let of = |name: &str| client.stream.uptake(|resource| &*resource.name == name);
    assert_eq!(of("a"), [Uptake::Accepted]);
    assert_eq!(of("b"), [Uptake::Rejected("clusters: b: bad".into())]);
}

#[test]
fn a_removal_in_a_rejected_response_is_said_again_with_the_next() {
    let mut world = World::of(Route, &["a", "b"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Route, &["a", "b"], &[]);
    client.expect(Route, &["a", "b"], &[]);
    world.set(Route, "a", "bad");
    world.remove(Route, "b");
    client.push(&mut world);
    let got = client.receive().unwrap();
    assert_eq!((got.names(), strs(&got.removed)), (vec!["a"], vec!["b"]));
    client.send(Route, &[], &[], &got.nonce, rejection("a: no"));
    client.expect_nothing();
    world.set(Route, "a", "v2");
    client.push(&mut world);
    client.expect(Route, &["a"], &["b"]);
    client.expect_nothing();
}

#[test]
fn endpoints_are_pushed_again_after_their_cluster_changed() {
    let mut world = World::of(Cluster, &["a", "b"]);
    world.set(Endpoint, "a", "v1");
    world.set(Endpoint, "b", "v1");
    let mut client = DeltaClient::new(&mut world);
    client.request(Cluster, &[], &[]);
    client.expect(Cluster, &["a", "b"], &[]);
    client.request(Endpoint, &["a", "b"], &[]);
    client.expect(Endpoint, &["a", "b"], &[]);
    world.set(Cluster, "a", "v2");
    client.push(&mut world);
    client.expect(Cluster, &["a"], &[]);
    client.expect(Endpoint, &["a"], &[]);
    client.expect_nothing();
}

#[test]
fn a_route_waits_for_the_answer_to_a_new_cluster_or_a_second() {
    for answered in [true, false] {
        let mut world = World::of(Route, &["r"]);
        let mut client = DeltaClient::new(&mut world);
        client.request(Cluster, &[], &[]);
        client.expect(Cluster, &[], &[]);
        client.request(Route, &["r"], &[]);
        client.expect(Route, &["r"], &[]);
        world.set(Cluster, "new", "v1");
        world.set(Route, "r", "to new");
        client.push(&mut world);
        let cluster = client.receive().unwrap();
        assert_eq!(cluster.names(), ["new"]);
        assert_eq!(client.receive(), None);
        if answered {
            client.ack(&cluster);
        } else {
            client.now += Duration::from_secs(1);
        }
        client.expect(Route, &["r"], &[]);
    }
}

#[test]
fn a_removed_cluster_goes_after_the_routes_to_it() {
    let mut world = World::of(Cluster, &["old"]);
    world.set(Route, "r", "to old");
    world.set(Endpoint, "old", "v1");
    let mut client = DeltaClient::new(&mut world);
    client.request(Cluster, &[], &[]);
    client.expect(Cluster, &["old"], &[]);
    client.request(Endpoint, &["old"], &[]);
    client.expect(Endpoint, &["old"], &[]);
    client.request(Route, &["r"], &[]);
    client.expect(Route, &["r"], &[]);
    world.remove(Cluster, "old");
    world.remove(Endpoint, "old");
    world.set(Route, "r", "elsewhere");
    client.push(&mut world);
    let route = client.receive().unwrap();
    assert_eq!(route.kind, Route);
    assert_eq!(client.receive(), None);
    client.ack(&route);
    client.expect(Cluster, &[], &["old"]);
    client.expect(Endpoint, &[], &["old"]);
    client.expect_nothing();
}

#[test]
fn held_endpoints_are_neither_sent_nor_reported_as_removed() {
    let mut world = World::of(Endpoint, &["a"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Endpoint, &["a"], &[]);
    let has = client.expect(Endpoint, &["a"], &[]).versions;
    world.remove(Endpoint, "a");
    world.held.insert("a".into());
    let mut client = DeltaClient::new(&mut world);
    client.reconnect(Endpoint, &["a"], &has);
    client.expect_nothing();
    client.request(Endpoint, &["a"], &[]);
    client.expect_nothing();
    world.held.clear();
    client.push(&mut world);
    client.expect(Endpoint, &[], &["a"]);
}

#[test]
fn a_large_answer_comes_in_parts() {
    let mut world = World::default();
    for index in 0..5 {
        world.set(Cluster, &format!("c{index}"), &"x".repeat(900 << 10));
    }
    let mut client = DeltaClient::new(&mut world);
    client.request(Cluster, &[], &[]);
    let mut names = Vec::new();
    while let Some(got) = client.receive() {
        assert!(got.resources.len() <= 3);
        names.extend(got.resources.iter().map(|(name, _)| name.clone()));
        client.ack(&got);
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4"]);
}

#[test]
fn a_client_is_done_with_endpoints_when_it_answered_or_had_its_time() {
    let mut world = World::of(Endpoint, &["a"]);
    let mut client = DeltaClient::new(&mut world);
    client.request(Endpoint, &["a"], &[]);
    client.expect(Endpoint, &["a"], &[]);
    client.expect_nothing();
    world.set(Endpoint, "a", "v2");
    client.push(&mut world);
    client.receive().unwrap();
    assert_eq!(client.receive(), None);
    assert_eq!(client.stream.endpoints_taken(), Some(1));
    client.now += ACK_PATIENCE;
    assert_eq!(client.receive(), None);
    assert_eq!(client.stream.endpoints_taken(), Some(2));
    assert_eq!(client.stream.revision(), 1);
}
