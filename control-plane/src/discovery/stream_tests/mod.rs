//! The rules of both protocol variants, by scenario. Rules named S, U and D are those of the xds-test-harness.

mod delta;
mod properties;
mod sotw;

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
