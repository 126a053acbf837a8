//! Any interleaving of changes, subscriptions, rejections, lost streams and delays ends with what the server last said.
//!
//! The other side is a small server written from the rules of the protocol, not from our client.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_proto::any;
use outrigger_proto::envoy::config::cluster::v3::Cluster;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use outrigger_proto::google::protobuf::Any;
use proptest::prelude::*;

use super::resource::rejected;
use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Step {
    /// The server has a new version of a resource; a bad one is refused by the client.
    Set { name: usize, bad: bool },
    /// The server drops a resource.
    Remove { name: usize },
    /// The client wants these (bits of `NAMES`).
    Want { names: u8 },
    /// The client sends one request, if it has one.
    Send,
    /// The server reads one request.
    Serve,
    /// The client reads one response.
    Read,
    /// The stream breaks, and everything under way with it.
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..NAMES.len(), prop::bool::weighted(0.25)).prop_map(|(name, bad)| Step::Set { name, bad }),
        1 => (0..NAMES.len()).prop_map(|name| Step::Remove { name }),
        2 => (0u8..16).prop_map(|names| Step::Want { names }),
        4 => Just(Step::Send),
        4 => Just(Step::Serve),
        4 => Just(Step::Read),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 1..60)
}

/// What stands behind a name: its revision, and whether the client will refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    revision: u64,
    bad: bool,
}

/// A management server: the state of one type, and of one stream.
#[derive(Default)]
struct Server {
    resources: BTreeMap<&'static str, Content>,
    revision: u64,
    nonces: u64,
    stream: Stream,
}

/// What a server remembers of a stream.
#[derive(Default)]
struct Stream {
    subscribed: Option<BTreeSet<String>>,
    wildcard: bool,
    /// What the client was sent (delta: or has by its own word): `None` for "does not exist".
    sent: BTreeMap<String, Option<u64>>,
    nonce: String,
    force: BTreeSet<String>,
}

impl Server {
    fn wants(&self, name: &str) -> bool {
        self.stream.wildcard
            || self.stream.subscribed.as_ref().is_some_and(|names| names.contains(name))
    }

    fn nonce(&mut self) -> String {
        self.nonces += 1;
        self.nonces.to_string()
    }

    fn sotw_request(&mut self, kind: Kind, request: &DiscoveryRequest) -> Option<Response> {
        if !request.response_nonce.is_empty() && request.response_nonce != self.stream.nonce {
            return None;
        }
        let first = self.stream.subscribed.is_none();
        let names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
        self.stream.wildcard = kind.is_wildcard();
        let old = self.stream.subscribed.replace(names.clone()).unwrap_or_default();
        let added: Vec<&String> = names.difference(&old).collect();
        self.stream.force.extend(added.iter().map(|name| name.to_string()));
        for name in old.difference(&names) {
            self.stream.sent.remove(name);
            self.stream.force.remove(name);
        }
        self.push_sotw(kind, first)
    }

    fn push_sotw(&mut self, kind: Kind, always: bool) -> Option<Response> {
        self.stream.subscribed.as_ref()?;
        let changed = self.resources.iter().any(|(name, content)| {
            self.wants(name) && self.stream.sent.get(*name) != Some(&Some(content.revision))
        });
        let removed = kind.is_wildcard()
            && self.stream.sent.keys().any(|name| !self.resources.contains_key(name.as_str()));
        if !changed && !removed && !always {
            return None;
        }
        let resources: Vec<Any> = self
            .resources
            .iter()
            .filter(|(name, _)| self.wants(name))
            .map(|(name, content)| encode(kind, name, *content))
            .collect();
        self.stream.sent = self
            .resources
            .iter()
            .filter(|(name, _)| self.wants(name))
            .map(|(name, content)| ((*name).to_owned(), Some(content.revision)))
            .collect();
        self.stream.force.clear();
        self.stream.nonce = self.nonce();
        Some(Response::StateOfTheWorld(DiscoveryResponse {
            version_info: self.revision.to_string(),
            nonce: self.stream.nonce.clone(),
            type_url: kind.type_url().to_owned(),
            resources,
            ..DiscoveryResponse::default()
        }))
    }

    fn delta_request(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) -> Option<Response> {
        let first = self.stream.subscribed.is_none();
        if first {
            self.stream.subscribed = Some(BTreeSet::new());
            self.stream.wildcard = request.resource_names_subscribe.is_empty();
            for (name, version) in &request.initial_resource_versions {
                self.stream.sent.insert(name.clone(), version.parse().ok());
            }
        }
        for name in &request.resource_names_subscribe {
            self.stream.subscribed.as_mut().unwrap().insert(name.clone());
            if !first {
                self.stream.force.insert(name.clone());
            }
        }
        for name in &request.resource_names_unsubscribe {
            self.stream.subscribed.as_mut().unwrap().remove(name);
            self.stream.sent.remove(name);
            self.stream.force.remove(name);
        }
        self.push_delta(kind)
    }

    fn push_delta(&mut self, kind: Kind) -> Option<Response> {
        let subscribed = self.stream.subscribed.clone()?;
        let mut resources = Vec::new();
        let mut removed = Vec::new();
        for (name, content) in &self.resources {
            let has = self.stream.sent.get(*name) == Some(&Some(content.revision));
            if self.wants(name) && (!has || self.stream.force.contains(*name)) {
                resources.push(Resource {
                    name: (*name).to_owned(),
                    version: content.revision.to_string(),
                    resource: Some(encode(kind, name, *content)),
                    ..Resource::default()
                });
            }
        }
        for name in subscribed.iter().chain(self.stream.sent.keys()) {
            let gone = !self.resources.contains_key(name.as_str());
            let told = self.stream.sent.get(name) == Some(&None);
            let ours = self.wants(name);
            if gone
                && ours
                && (!told || self.stream.force.contains(name))
                && !removed.contains(name)
            {
                removed.push(name.clone());
            }
        }
        self.stream.force.clear();
        if resources.is_empty() && removed.is_empty() {
            return None;
        }
        for resource in &resources {
            self.stream.sent.insert(resource.name.clone(), resource.version.parse().ok());
        }
        for name in &removed {
            self.stream.sent.insert(name.clone(), None);
        }
        Some(Response::Delta(DeltaDiscoveryResponse {
            nonce: self.nonce(),
            type_url: kind.type_url().to_owned(),
            resources,
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        }))
    }

    fn request(&mut self, kind: Kind, request: &Request) -> Option<Response> {
        match request {
            Request::StateOfTheWorld(request) => self.sotw_request(kind, request),
            Request::Delta(request) => self.delta_request(kind, request),
        }
    }

    fn push(&mut self, kind: Kind, variant: Variant) -> Option<Response> {
        match variant {
            Variant::StateOfTheWorld => self.push_sotw(kind, false),
            Variant::Delta => self.push_delta(kind),
        }
    }
}

/// The revision and the badness travel in the resource itself.
fn encode(kind: Kind, name: &str, content: Content) -> Any {
    let text = format!("{}{}", content.revision, if content.bad { "!" } else { "" });
    match kind {
        Kind::Cluster => {
            any::pack(&Cluster { name: name.to_owned(), alt_stat_name: text, ..Cluster::default() })
        }
        _ => {
            let named_endpoints = [(text, Default::default())].into();
            any::pack(&ClusterLoadAssignment {
                cluster_name: name.to_owned(),
                named_endpoints,
                ..ClusterLoadAssignment::default()
            })
        }
    }
}

fn decode(kind: Kind, body: &Any) -> String {
    match kind {
        Kind::Cluster => any::unpack::<Cluster>(body).unwrap().alt_stat_name,
        _ => {
            let assignment = any::unpack::<ClusterLoadAssignment>(body).unwrap();
            assignment.named_endpoints.into_keys().next().unwrap()
        }
    }
}

struct World {
    kind: Kind,
    variant: Variant,
    server: Server,
    client: Subscription,
    /// What the client has in effect.
    effective: BTreeMap<Arc<str>, String>,
    /// The last content of each name that the client could have accepted.
    good: BTreeMap<&'static str, u64>,
    to_server: VecDeque<Request>,
    to_client: VecDeque<Response>,
    /// Nonces that the client has read and not answered yet.
    unanswered: Vec<String>,
    /// What the client has asked for on this stream; `None`: nothing was sent.
    asked: Option<BTreeSet<String>>,
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Set { name, bad } => {
                self.server.revision += 1;
                let content = Content { revision: self.server.revision, bad: *bad };
                self.server.resources.insert(NAMES[*name], content);
                let pushed = self.server.push(self.kind, self.variant);
                self.to_client.extend(pushed);
            }
            Step::Remove { name } => {
                self.server.revision += 1;
                self.server.resources.remove(NAMES[*name]);
                let pushed = self.server.push(self.kind, self.variant);
                self.to_client.extend(pushed);
            }
            Step::Want { names } => {
                let wanted = if self.kind.is_wildcard() {
                    Interest::Everything
                } else {
                    let bits = NAMES.iter().enumerate().filter(|(i, _)| names & (1 << i) != 0);
                    Interest::Names(Arc::new(bits.map(|(_, name)| Arc::from(*name)).collect()))
                };
                self.client.want(wanted);
            }
            Step::Send => {
                if let Some(request) = self.client.next_request() {
                    self.check_reason(&request);
                    self.to_server.push_back(request);
                }
            }
            Step::Serve => {
                if let Some(request) = self.to_server.pop_front() {
                    let response = self.server.request(self.kind, &request);
                    self.to_client.extend(response);
                }
            }
            Step::Read => {
                if let Some(response) = self.to_client.pop_front() {
                    self.read(response);
                }
            }
            Step::Reconnect => {
                self.to_server.clear();
                self.to_client.clear();
                self.server.stream = Stream::default();
                self.client.connected();
                self.unanswered.clear();
                self.asked = None;
            }
        }
        for name in self.client.take_forgotten() {
            self.effective.remove(&name);
        }
    }

    /// Every request answers a response, each once, or says something new.
    fn check_reason(&mut self, request: &Request) {
        let before = self.asked.clone();
        let (nonce, now) = match request {
            Request::StateOfTheWorld(request) => {
                (&request.response_nonce, request.resource_names.iter().cloned().collect())
            }
            Request::Delta(request) => {
                let mut now = before.clone().unwrap_or_default();
                for name in &request.resource_names_subscribe {
                    assert!(now.insert(name.clone()), "{name} is subscribed already");
                }
                for name in &request.resource_names_unsubscribe {
                    assert!(now.remove(name), "{name} is not subscribed");
                }
                (&request.response_nonce, now)
            }
        };
        let open = self.unanswered.iter().position(|other| other == nonce);
        let is_new = before.as_ref() != Some(&now);
        assert!(open.is_some() || is_new, "a request for nothing: {request:?}");
        if let Some(open) = open {
            self.unanswered.remove(open);
        }
        self.asked = Some(now);
    }

    fn read(&mut self, response: Response) {
        self.unanswered.push(match &response {
            Response::StateOfTheWorld(response) => response.nonce.clone(),
            Response::Delta(response) => response.nonce.clone(),
        });
        let update = self.client.receive(response);
        assert_eq!(update.malformed, None);
        let mut refused = update.refused.clone();
        for resource in &update.resources {
            let text = decode(self.kind, resource.body.as_ref().unwrap());
            if text.ends_with('!') {
                let rejected = vec![rejected("bad".to_owned())];
                refused.push(Refusal {
                    kind: self.kind,
                    name: Arc::clone(&resource.name),
                    rejected,
                });
            } else {
                self.effective.insert(Arc::clone(&resource.name), text);
            }
        }
        if self.kind.is_wildcard() {
            for name in &update.removed {
                self.effective.remove(name);
            }
        }
        self.client.finish(update, &refused);
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            self.step(&Step::Send);
            self.step(&Step::Serve);
            self.step(&Step::Read);
        }
        assert!(self.to_server.is_empty() && self.to_client.is_empty(), "it never comes to rest");
        assert!(self.unanswered.is_empty(), "not answered: {:?}", self.unanswered);
    }
}

fn run(kind: Kind, variant: Variant, steps: &[Step]) {
    let mut world = World {
        kind,
        variant,
        server: Server::default(),
        client: Subscription::new(kind, variant),
        effective: BTreeMap::new(),
        good: BTreeMap::new(),
        to_server: VecDeque::new(),
        to_client: VecDeque::new(),
        unanswered: Vec::new(),
        asked: None,
    };
    world.step(&Step::Want { names: 0b0011 });
    for step in steps {
        world.step(step);
        if let Step::Set { name, bad: false } = step {
            world.good.insert(NAMES[*name], world.server.revision);
        }
    }
    world.settle();
    for name in NAMES {
        let has = world.effective.get(name).map(String::as_str);
        let wanted = world.client.wanted.includes(name);
        match world.server.resources.get(name) {
            _ if !wanted => assert_eq!(has, None, "{name} is not wanted"),
            Some(content) if content.bad => {
                // Some good version from before, or none: never the bad one, never one that was not said.
                let last_good = world.good.get(name).copied().unwrap_or(0);
                assert!(has.is_none_or(|has| has.parse::<u64>().unwrap() <= last_good), "{name}");
            }
            Some(content) => assert_eq!(has, Some(&*content.revision.to_string()), "{name}"),
            None if kind.is_wildcard() => assert_eq!(has, None, "{name} was removed"),
            // Endpoints that the server no longer has stay until nothing uses them.
            None => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sotw_clusters_converge(steps in steps()) {
        run(Kind::Cluster, Variant::StateOfTheWorld, &steps);
    }

    #[test]
    fn delta_clusters_converge(steps in steps()) {
        run(Kind::Cluster, Variant::Delta, &steps);
    }

    #[test]
    fn sotw_endpoints_converge(steps in steps()) {
        run(Kind::Endpoint, Variant::StateOfTheWorld, &steps);
    }

    #[test]
    fn delta_endpoints_converge(steps in steps()) {
        run(Kind::Endpoint, Variant::Delta, &steps);
    }
}
