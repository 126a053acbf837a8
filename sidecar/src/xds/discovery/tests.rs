//! A control plane's messages in, requests and changes out.

use outrigger_proto::any::pack;
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};

use super::*;
use crate::xds::testing::{assignment, eds_cluster, rds_listener, static_cluster};

/// Takes everything, and remembers it.
#[derive(Default)]
struct Taken {
    published: Vec<String>,
    /// Names refused at publishing.
    refuse: Vec<&'static str>,
}

impl Publish for Taken {
    fn reserve(&mut self, listener: &Listener) -> Result<(), Rejected> {
        match listener.address.port() {
            1 => Err(Rejected { path: "address".to_owned(), reason: "in use".to_owned() }),
            _ => Ok(()),
        }
    }

    fn publish(&mut self, changes: Changes) -> Vec<Refusal> {
        let mut refused = Vec::new();
        for (kind, name) in names(&changes) {
            if self.refuse.contains(&&*name) {
                refused.push(Refusal { kind, name, rejected: reason("not today") });
            } else {
                self.published.push(format!("{kind} {name}"));
            }
        }
        let gone = changes.removed_clusters.iter().map(|name| format!("no cluster {name}"));
        self.published.extend(gone);
        refused
    }
}

struct World {
    discovery: Discovery,
    taken: Taken,
    requests: mpsc::UnboundedReceiver<Request>,
    _events: mpsc::Sender<Event>,
    registry: Arc<Registry>,
}

fn world(wanted: Wanted) -> World {
    let registry = Registry::new(0);
    let (events, received) = mpsc::channel(4);
    let mut discovery = Discovery::new(Variant::Delta, wanted, received, &registry);
    let mut taken = Taken::default();
    let (stream, requests) = mpsc::unbounded_channel();
    discovery.start_clusters(&mut taken);
    discovery.handle(Happened::Stream(Event::Connected(stream)), &mut taken);
    World { discovery, taken, requests, _events: events, registry }
}

const BOTH: Wanted = Wanted {
    clusters: Some(Some(Duration::from_secs(15))),
    listeners: Some(Some(Duration::from_secs(15))),
};

impl World {
    fn respond(&mut self, kind: Kind, resources: Vec<(&str, Any)>, removed: &[&str]) {
        let resource = |(name, body): (&str, Any)| Resource {
            name: name.to_owned(),
            version: "1".to_owned(),
            resource: Some(body),
            ..Resource::default()
        };
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: "n".to_owned(),
            system_version_info: "v".to_owned(),
            resources: resources.into_iter().map(resource).collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        let event = Event::Response(Box::new(Response::Delta(response)));
        self.discovery.handle(Happened::Stream(event), &mut self.taken);
    }

    fn sent(&mut self) -> Vec<DeltaDiscoveryRequest> {
        std::iter::from_fn(|| self.requests.try_recv().ok())
            .map(|request| match request {
                Request::Delta(request) => request,
                Request::StateOfTheWorld(_) => panic!("the other variant"),
            })
            .collect()
    }

    fn published(&mut self) -> Vec<String> {
        std::mem::take(&mut self.taken.published)
    }

    fn stat(&self, name: &str) -> u64 {
        let mut value = 0;
        self.registry.visit(&mut |sample| {
            if format!("{}.{}", sample.prefix, sample.name.text) == name
                && let crate::stats::registry::Reading::Counter { value: found, .. } =
                    sample.reading
            {
                value = found;
            }
        });
        value
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_takes_effect_when_its_endpoints_are_here_and_is_acknowledged_at_once() {
    let mut world = world(BOTH);
    let first = world.sent();
    assert_eq!(first.len(), 1, "clusters first, listeners when clusters are ready");
    assert_eq!(first[0].type_url, Kind::Cluster.type_url());

    world.respond(Kind::Cluster, vec![("a", pack(&eds_cluster("a")))], &[]);
    assert!(world.published().is_empty() && !world.discovery.clusters_are_ready());
    let sent = world.sent();
    assert_eq!((sent[0].response_nonce.as_str(), &sent[0].error_detail), ("n", &None));
    assert_eq!(sent[1].type_url, Kind::Endpoint.type_url());
    assert_eq!(sent[1].resource_names_subscribe, ["a"]);

    let endpoints = pack(&assignment("a", "127.0.0.1", 80));
    world.respond(Kind::Endpoint, vec![("a", endpoints.clone())], &[]);
    assert_eq!(world.published(), ["cluster a", "load assignment a"]);
    assert!(world.discovery.clusters_are_ready());
    let entry = |kind| world.discovery.resources().of(kind).next().unwrap().1;
    assert!(entry(Kind::Cluster).active.is_some() && entry(Kind::Endpoint).active.is_some());

    world.respond(Kind::Endpoint, vec![("a", endpoints)], &[]);
    assert!(world.published().is_empty(), "the same again changes nothing");
    world.respond(Kind::Cluster, Vec::new(), &["a"]);
    assert_eq!(world.published(), ["no cluster a"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_bad_is_named_in_the_nack_and_what_is_good_beside_it_takes_effect() {
    let mut world = world(BOTH);
    world.sent();
    let mut bad = static_cluster("bad", "127.0.0.1", 80);
    bad.lrs_report_endpoint_metrics = vec!["x".to_owned()];
    let good = static_cluster("good", "127.0.0.1", 80);
    world.respond(Kind::Cluster, vec![("bad", pack(&bad)), ("good", pack(&good))], &[]);
    assert_eq!(world.published(), ["cluster good"]);
    let sent = world.sent();
    let error = sent[0].error_detail.as_ref().unwrap();
    assert!(error.message.contains("cluster \"bad\": lrs_report_endpoint_metrics"), "{error:?}");
    assert_eq!(world.stat("cluster_manager.cds.update_rejected"), 1);
    let (_, entry) = world.discovery.resources().of(Kind::Cluster).next().unwrap();
    assert!(entry.active.is_none() && entry.error.as_ref().unwrap().body.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_when_it_takes_effect_is_in_the_nack_too() {
    let mut world = world(BOTH);
    world.taken.refuse = vec!["c"];
    world.sent();
    world.respond(Kind::Cluster, vec![("c", pack(&static_cluster("c", "127.0.0.1", 80)))], &[]);
    let sent = world.sent();
    assert!(sent[0].error_detail.as_ref().unwrap().message.contains("not today"));
    assert!(!world.discovery.warming.has_cluster("c"));
}

#[tokio::test(start_paused = true)]
async fn a_listener_whose_address_cannot_be_bound_is_refused() {
    let mut world = world(BOTH);
    world.respond(Kind::Cluster, Vec::new(), &[]);
    world.discovery.start_listeners(&mut world.taken);
    world.sent();
    let (one, two) = (rds_listener("one", 1, "r"), rds_listener("two", 2, "r"));
    world.respond(Kind::Listener, vec![("one", pack(&one)), ("two", pack(&two))], &[]);
    let sent = world.sent();
    let error = sent[0].error_detail.as_ref().unwrap();
    assert!(error.message.contains("listener \"one\": address: in use"), "{error:?}");
    assert_eq!(sent[1].resource_names_subscribe, ["r"], "for the other one");
    assert!(!world.discovery.listeners_are_ready());
    // The routes do not come: it goes on without.
    tokio::time::advance(Duration::from_secs(16)).await;
    let happened = world.discovery.next().await;
    assert!(matches!(happened, Happened::Timeout));
    world.discovery.handle(happened, &mut world.taken);
    assert_eq!(world.published(), ["listener two"]);
    assert!(world.discovery.listeners_are_ready());
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_start_goes_on_when_the_time_is_over() {
    let mut world = world(BOTH);
    assert!(!world.discovery.clusters_are_ready());
    let happened = world.discovery.next().await;
    world.discovery.handle(happened, &mut world.taken);
    assert!(world.discovery.clusters_are_ready());
    assert_eq!(world.stat("cluster_manager.cds.init_fetch_timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_of_the_bootstrap_is_not_redefined_nor_removed() {
    let mut world = world(BOTH);
    let proto = static_cluster("s", "127.0.0.1", 80);
    let cluster = Arc::new(config::cluster::from_proto(proto.clone()).unwrap());
    world.discovery.add_static_cluster(cluster);
    world.discovery.start_clusters(&mut world.taken);
    assert_eq!(world.published(), ["cluster s"]);
    world.sent();
    world.respond(Kind::Cluster, vec![("s", pack(&proto))], &[]);
    assert!(world.sent()[0].error_detail.as_ref().unwrap().message.contains("bootstrap"));
    world.respond(Kind::Cluster, Vec::new(), &["s"]);
    assert!(world.published().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_is_told_what_is_wanted_with_the_versions_we_have() {
    let mut world = world(BOTH);
    world.respond(Kind::Cluster, vec![("c", pack(&static_cluster("c", "127.0.0.1", 80)))], &[]);
    world.published();
    let error = Event::Disconnected(StreamError::Closed);
    world.discovery.handle(Happened::Stream(error), &mut world.taken);
    let (stream, requests) = mpsc::unbounded_channel();
    world.requests = requests;
    world.discovery.handle(Happened::Stream(Event::Connected(stream)), &mut world.taken);
    let sent = world.sent();
    assert_eq!(sent[0].initial_resource_versions["c"], "1");
    assert!(world.published().is_empty(), "nothing flaps");
}
