//! The rules of both protocol variants, by scenario. Rules named S, U and D are those of the xds-test-harness.

use super::*;
use crate::discovery::cache::{Names, ResourceMap, TypeView};
use crate::discovery::delta::Delta;
use crate::discovery::sotw::Sotw;
use crate::discovery::subscription::ACK_PATIENCE;
use crate::discovery::wire::tests::decoded;
use ResourceType::{Cluster, Endpoint, Listener, Route, Secret};
use outrigger_proto::envoy::config::cluster::v3::Cluster as Message;
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_proto::google::rpc::Status;
use std::collections::BTreeMap;
use std::time::Duration;

/// The state of the world in a test: contents by type and name. What a resource is does not matter here.
#[derive(Default)]
struct World {
    revision: u64,
    contents: BTreeMap<(ResourceType, String), String>,
    by_name_only: Names,
    held: Names,
    last: Option<Arc<View>>,
}

impl World {
    fn of(kind: ResourceType, names: &[&str]) -> Self {
        let mut world = Self::default();
        names.iter().for_each(|name| world.set(kind, name, "v1"));
        world
    }

    fn set(&mut self, kind: ResourceType, name: &str, content: &str) {
        self.contents.insert((kind, name.to_owned()), content.to_owned());
    }

    fn remove(&mut self, kind: ResourceType, name: &str) {
        self.contents.remove(&(kind, name.to_owned()));
    }

    fn view(&mut self) -> Arc<View> {
        self.revision += 1;
        let types = ResourceType::ALL.map(|kind| {
            let mut resources = ResourceMap::new();
            for ((of, name), content) in &self.contents {
                if *of == kind {
                    let message = Message {
                        name: name.clone(),
                        alt_stat_name: content.clone(),
                        ..Default::default()
                    };
                    let mut resource = Resource::new(name, &message, Vec::new());
                    if self.by_name_only.contains(name.as_str()) {
                        resource = resource.by_name_only();
                    }
                    resources.insert(name.as_str().into(), Arc::new(resource));
                }
            }
            // Unchanged types keep their map, as the translator does it.
            let old = self.last.as_ref().map(|view| view.of(kind));
            let same = old.filter(|old| {
                *old.held == self.held
                    && old.resources.len() == resources.len()
                    && old
                        .resources
                        .values()
                        .zip(resources.values())
                        .all(|(a, b)| a.name == b.name && a.version == b.version)
            });
            let same = same.map(|old| old.resources.clone());
            TypeView {
                version: format!("r{}", self.revision).into(),
                resources: same.unwrap_or_else(|| Arc::new(resources)),
                held: Arc::new(self.held.clone()),
            }
        });
        let view = View { revision: self.revision, live: self.revision, types };
        let view = Arc::new(view);
        self.last = Some(view.clone());
        view
    }
}

fn rejection(message: &str) -> Option<Status> {
    Some(Status { code: 13, message: message.to_owned(), ..Default::default() })
}

/// A state-of-the-world client that sends just what a test says.
struct SotwClient {
    stream: Stream<Sotw>,
    now: Instant,
    nonces: [String; 5],
    versions: [String; 5],
}

/// A response as a client sees it: type, names in order, version.
#[derive(Debug, PartialEq)]
struct Got {
    kind: ResourceType,
    names: Vec<String>,
    contents: Vec<String>,
    version: String,
    nonce: String,
}

impl SotwClient {
    fn new(world: &mut World) -> Self {
        let mut stream = Stream::default();
        stream.on_view(world.view());
        Self {
            stream,
            now: Instant::now(),
            nonces: Default::default(),
            versions: Default::default(),
        }
    }

    fn push(&mut self, world: &mut World) {
        self.stream.on_view(world.view());
    }

    fn send(&mut self, kind: ResourceType, names: &[&str], nonce: &str, error: Option<Status>) {
        let request = DiscoveryRequest {
            version_info: self.versions[kind.index()].clone(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            error_detail: error,
            ..Default::default()
        };
        self.stream.on_request(kind, &request);
    }

    /// The first request, or a change of names.
    fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        let nonce = self.nonces[kind.index()].clone();
        self.send(kind, names, &nonce, None);
    }

    fn receive(&mut self) -> Option<Got> {
        let response: DiscoveryResponse = decoded(&self.stream.next(self.now)?);
        let kind = ResourceType::from_url(&response.type_url).unwrap();
        let decode = |any: &outrigger_proto::google::protobuf::Any| {
            <Message as prost::Message>::decode(any.value.as_slice()).unwrap()
        };
        let resources: Vec<Message> = response.resources.iter().map(decode).collect();
        self.nonces[kind.index()] = response.nonce.clone();
        let names = resources.iter().map(|it| it.name.clone()).collect();
        let contents = resources.into_iter().map(|it| it.alt_stat_name).collect();
        Some(Got { kind, names, contents, version: response.version_info, nonce: response.nonce })
    }

    fn ack(&mut self, got: &Got, names: &[&str]) {
        self.versions[got.kind.index()] = got.version.clone();
        self.send(got.kind, names, &got.nonce, None);
    }

    fn nack(&mut self, got: &Got, names: &[&str], message: &str) {
        self.send(got.kind, names, &got.nonce, rejection(message));
    }

    /// Receives a response, checks what it holds, and acknowledges it.
    #[track_caller]
    fn expect(&mut self, kind: ResourceType, held: &[&str], subscribed: &[&str]) -> Got {
        let got = self.receive().expect("a response");
        assert_eq!((got.kind, strs(&got.names)), (kind, held.to_vec()));
        self.ack(&got, subscribed);
        got
    }

    #[track_caller]
    fn expect_nothing(&mut self) {
        assert_eq!(self.receive(), None);
        self.now += ACK_PATIENCE;
        assert_eq!(self.receive(), None);
    }
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

mod sotw {
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
}

/// A delta client that sends just what a test says.
struct DeltaClient {
    stream: Stream<Delta>,
    now: Instant,
}

/// A response as a client sees it.
#[derive(Debug, PartialEq)]
struct DeltaGot {
    kind: ResourceType,
    /// Names and contents.
    resources: Vec<(String, String)>,
    versions: BTreeMap<String, String>,
    removed: Vec<String>,
    system_version: String,
    nonce: String,
}

impl DeltaGot {
    fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|(name, _)| name.as_str()).collect()
    }
}

impl DeltaClient {
    fn new(world: &mut World) -> Self {
        let mut stream = Stream::default();
        stream.on_view(world.view());
        Self { stream, now: Instant::now() }
    }

    fn push(&mut self, world: &mut World) {
        self.stream.on_view(world.view());
    }

    fn request(&mut self, kind: ResourceType, subscribe: &[&str], unsubscribe: &[&str]) {
        self.send(kind, subscribe, unsubscribe, "", None);
    }

    fn send(
        &mut self,
        kind: ResourceType,
        subscribe: &[&str],
        unsubscribe: &[&str],
        nonce: &str,
        error: Option<Status>,
    ) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: owned(subscribe),
            resource_names_unsubscribe: owned(unsubscribe),
            response_nonce: nonce.to_owned(),
            error_detail: error,
            ..Default::default()
        };
        self.stream.on_request(kind, &request);
    }

    fn reconnect(
        &mut self,
        kind: ResourceType,
        subscribe: &[&str],
        has: &BTreeMap<String, String>,
    ) {
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe.iter().map(|name| (*name).to_owned()).collect(),
            initial_resource_versions: has.clone().into_iter().collect(),
            ..Default::default()
        };
        self.stream.on_request(kind, &request);
    }

    fn receive(&mut self) -> Option<DeltaGot> {
        let response: DeltaDiscoveryResponse = decoded(&self.stream.next(self.now)?);
        let content = |any: &Option<outrigger_proto::google::protobuf::Any>| {
            let value = &any.as_ref().unwrap().value;
            <Message as prost::Message>::decode(value.as_slice()).unwrap().alt_stat_name
        };
        let resources = response.resources.iter();
        let mut got = DeltaGot {
            kind: ResourceType::from_url(&response.type_url).unwrap(),
            resources: resources
                .clone()
                .map(|it| (it.name.clone(), content(&it.resource)))
                .collect(),
            versions: resources.map(|it| (it.name.clone(), it.version.clone())).collect(),
            removed: response.removed_resources,
            system_version: response.system_version_info,
            nonce: response.nonce,
        };
        got.resources.sort();
        Some(got)
    }

    fn ack(&mut self, got: &DeltaGot) {
        self.send(got.kind, &[], &[], &got.nonce, None);
    }

    #[track_caller]
    fn expect(&mut self, kind: ResourceType, names: &[&str], removed: &[&str]) -> DeltaGot {
        let got = self.receive().expect("a response");
        assert_eq!(
            (got.kind, got.names(), strs(&got.removed)),
            (kind, names.to_vec(), removed.to_vec())
        );
        assert!(!got.system_version.is_empty());
        self.ack(&got);
        got
    }

    #[track_caller]
    fn expect_nothing(&mut self) {
        assert_eq!(self.receive(), None);
        self.now += ACK_PATIENCE;
        assert_eq!(self.receive(), None);
    }
}

mod delta {
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
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    #[derive(Debug, Clone)]
    enum Step {
        /// The resource has this content, or is gone.
        World(usize, Option<u8>),
        Subscribe(usize),
        Unsubscribe(usize),
        Wildcard(bool),
        /// The client takes what comes, and answers it or not.
        Receive(bool),
        /// Time passes, in tenths of a second.
        Wait(u8),
        /// The stream breaks and comes again.
        Reconnect,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = 0..NAMES.len();
        let step = prop_oneof![
            4 => (name.clone(), proptest::option::weighted(0.7, 0_u8..3))
                .prop_map(|(name, content)| Step::World(name, content)),
            2 => name.clone().prop_map(Step::Subscribe),
            1 => name.prop_map(Step::Unsubscribe),
            1 => any::<bool>().prop_map(Step::Wildcard),
            3 => any::<bool>().prop_map(Step::Receive),
            1 => (0_u8..15).prop_map(Step::Wait),
            1 => Just(Step::Reconnect),
        ];
        proptest::collection::vec(step, 1..40)
    }

    /// What a client asked for.
    #[derive(Default)]
    struct Interest {
        names: std::collections::BTreeSet<&'static str>,
        wildcard: bool,
    }

    impl Interest {
        fn wanted(&self, world: &World, kind: ResourceType) -> BTreeMap<String, String> {
            let all = world.contents.iter().filter(|((of, _), _)| *of == kind);
            let all = all.map(|((_, name), content)| (name.clone(), content.clone()));
            all.filter(|(name, _)| self.wildcard || self.names.contains(name.as_str())).collect()
        }
    }

    fn change(world: &mut World, kind: ResourceType, name: usize, content: Option<u8>) {
        match content {
            Some(content) => world.set(kind, NAMES[name], &content.to_string()),
            None => world.remove(kind, NAMES[name]),
        }
    }

    /// A delta client ends with exactly what it asked for and exists, however it came there.
    fn delta_converges(kind: ResourceType, steps: Vec<Step>) -> Result<(), TestCaseError> {
        let mut world = World::of(kind, &["a", "b"]);
        let mut client = DeltaClient::new(&mut world);
        // An empty name: explicit, and nothing.
        client.request(kind, &[""], &[]);
        let mut interest = Interest::default();
        let mut has: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut unanswered = Vec::new();
        let take = |has: &mut BTreeMap<String, (String, String)>, got: &DeltaGot| {
            for (name, content) in &got.resources {
                has.insert(name.clone(), (content.clone(), got.versions[name].clone()));
            }
            got.removed.iter().for_each(|name| drop(has.remove(name)));
        };
        for step in steps {
            match step {
                Step::World(name, content) => {
                    change(&mut world, kind, name, content);
                    client.push(&mut world);
                }
                Step::Subscribe(name) => {
                    interest.names.insert(NAMES[name]);
                    client.request(kind, &[NAMES[name]], &[]);
                }
                Step::Unsubscribe(name) => {
                    if interest.names.remove(NAMES[name]) && !interest.wildcard {
                        has.remove(NAMES[name]);
                    }
                    client.request(kind, &[], &[NAMES[name]]);
                }
                Step::Wildcard(_) if !kind.is_full_state() => {}
                Step::Wildcard(true) => {
                    interest.wildcard = true;
                    client.request(kind, &["*"], &[]);
                }
                Step::Wildcard(false) => {
                    interest.wildcard = false;
                    has.retain(|name, _| interest.names.contains(name.as_str()));
                    client.request(kind, &[], &["*"]);
                }
                Step::Receive(answer) => {
                    if let Some(got) = client.receive() {
                        take(&mut has, &got);
                        if answer {
                            client.ack(&got);
                        } else {
                            unanswered.push(got);
                        }
                    }
                }
                Step::Wait(tenths) => {
                    client.now += Duration::from_millis(100 * u64::from(tenths));
                }
                Step::Reconnect => {
                    client = DeltaClient::new(&mut world);
                    unanswered.clear();
                    let mut names: Vec<&str> = interest.names.iter().copied().collect();
                    names.push(if interest.wildcard { "*" } else { "" });
                    let versions =
                        has.iter().map(|(name, (_, version))| (name.clone(), version.clone()));
                    client.reconnect(kind, &names, &versions.collect());
                }
            }
        }
        unanswered.iter().for_each(|got| client.ack(got));
        let mut responses = 0;
        loop {
            while let Some(got) = client.receive() {
                take(&mut has, &got);
                client.ack(&got);
                responses += 1;
                // One after what was on its way, one for names and one for removals.
                prop_assert!(responses <= 4, "more responses than necessary");
            }
            match client.stream.wake_at(client.now) {
                Some(at) => client.now = at,
                None => break,
            }
        }
        // What was in flight for a name that was unsubscribed meanwhile is the client's to ignore.
        has.retain(|name, _| interest.wildcard || interest.names.contains(name.as_str()));
        let has: BTreeMap<String, String> =
            has.into_iter().map(|(name, (content, _))| (name, content)).collect();
        prop_assert_eq!(has, interest.wanted(&world, kind));
        prop_assert_eq!(client.stream.standing(kind), Standing::Ok);
        prop_assert_eq!(client.stream.revision(), world.revision);
        Ok(())
    }

    /// The same of a state-of-the-world client; of the types that are sent in parts it may keep what is gone.
    fn sotw_converges(kind: ResourceType, steps: Vec<Step>) -> Result<(), TestCaseError> {
        let mut world = World::of(kind, &["a", "b"]);
        let mut client = SotwClient::new(&mut world);
        let mut interest = Interest::default();
        let mut has: BTreeMap<String, String> = BTreeMap::new();
        let mut unanswered = Vec::new();
        let list = |interest: &Interest| {
            let mut names: Vec<&'static str> = interest.names.iter().copied().collect();
            // An empty list would be a wildcard to begin with.
            names.push(if interest.wildcard { "*" } else { "" });
            names
        };
        let take = |has: &mut BTreeMap<String, String>, got: &Got| {
            if kind.is_full_state() {
                has.clear();
            }
            has.extend(got.names.iter().cloned().zip(got.contents.iter().cloned()));
        };
        client.subscribe(kind, &list(&interest));
        for step in steps {
            match step {
                Step::World(name, content) => {
                    change(&mut world, kind, name, content);
                    client.push(&mut world);
                    continue;
                }
                Step::Subscribe(name) => drop(interest.names.insert(NAMES[name])),
                Step::Unsubscribe(name) => drop(interest.names.remove(NAMES[name])),
                Step::Wildcard(wildcard) => interest.wildcard = wildcard && kind.is_full_state(),
                Step::Receive(answer) => {
                    if let Some(got) = client.receive() {
                        take(&mut has, &got);
                        if answer {
                            client.ack(&got, &list(&interest));
                        } else {
                            unanswered.push(got);
                        }
                    }
                    continue;
                }
                Step::Wait(tenths) => {
                    client.now += Duration::from_millis(100 * u64::from(tenths));
                    continue;
                }
                Step::Reconnect => {
                    let versions = client.versions.clone();
                    client = SotwClient::new(&mut world);
                    client.versions = versions;
                    unanswered.clear();
                }
            }
            client.subscribe(kind, &list(&interest));
        }
        unanswered.iter().for_each(|got| client.ack(got, &list(&interest)));
        let mut responses = 0;
        loop {
            while let Some(got) = client.receive() {
                take(&mut has, &got);
                client.ack(&got, &list(&interest));
                responses += 1;
                prop_assert!(responses <= 4, "more responses than necessary");
            }
            match client.stream.wake_at(client.now) {
                Some(at) => client.now = at,
                None => break,
            }
        }
        let wanted = interest.wanted(&world, kind);
        has.retain(|name, _| wanted.contains_key(name));
        prop_assert_eq!(has, wanted);
        prop_assert_eq!(client.stream.standing(kind), Standing::Ok);
        prop_assert_eq!(client.stream.revision(), world.revision);
        Ok(())
    }

    proptest! {
        #[test]
        fn a_delta_client_ends_with_what_it_asked_for(steps in steps(), full in any::<bool>()) {
            delta_converges(if full { Cluster } else { Endpoint }, steps)?;
        }

        #[test]
        fn a_state_of_the_world_client_ends_with_what_it_asked_for(
            steps in steps(),
            full in any::<bool>(),
        ) {
            sotw_converges(if full { Listener } else { Route }, steps)?;
        }
    }
}
