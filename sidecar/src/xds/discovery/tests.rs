//! The driver, told by hand what a server says.

use std::collections::BTreeSet;
use std::time::Duration;

use outrigger_proto::envoy::config::listener::v3::Filter;
use outrigger_proto::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType as HttpFilterConfig;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter,
};
use outrigger_proto::envoy::service::discovery::v3::{DiscoveryResponse, Resource};

use super::super::testing::{
    self, assignment, eds_cluster, pack, rds_listener, routes, static_cluster,
};
use super::settle::names;
use super::*;
use crate::config;
use crate::config::bootstrap::{DiscoveryService, Variant};
use crate::config::config_source::{ConfigFile, Origin};
use crate::xds::Changes;
use crate::xds::subscription::{Request, Response};
use outrigger_proto::any;
use outrigger_proto::google::protobuf::Any;
use tokio::sync::mpsc;

mod extensions;
mod on_demand;
mod runtime;

/// Keeps the names of what took effect, in order, and refuses what it is told to.
#[derive(Default)]
struct Recorder {
    effects: Vec<String>,
    unbindable: BTreeSet<String>,
}

impl Publish for Recorder {
    fn reserve(&mut self, listener: &Listener) -> Result<(), Rejected> {
        if self.unbindable.contains(&*listener.name) {
            return Err(Rejected { path: "address".into(), reason: "in use".into() });
        }
        Ok(())
    }

    fn publish(&mut self, changes: Changes) -> Vec<Refusal> {
        let came = names(&changes).into_iter().map(|(kind, name)| format!("+{kind} {name}"));
        self.effects.extend(came);
        let Changes {
            removed_listeners,
            removed_routes,
            removed_endpoints,
            removed_clusters,
            lost_extensions,
            removed_extensions,
            ..
        } = changes;
        self.effects.extend(lost_extensions.iter().map(|name| format!("lost {name}")));
        for (kind, gone) in [
            (Kind::Listener, removed_listeners),
            (Kind::Route, removed_routes),
            (Kind::Endpoint, removed_endpoints),
            (Kind::Cluster, removed_clusters),
            (Kind::Extension, removed_extensions),
        ] {
            self.effects.extend(gone.iter().map(|name| format!("-{kind} {name}")));
        }
        Vec::new()
    }
}

fn ads(initial_fetch_timeout: Option<Duration>) -> ConfigSource {
    ConfigSource { origin: Origin::Ads, initial_fetch_timeout }
}

struct World {
    discovery: Discovery,
    stream: StreamId,
    recorder: Recorder,
    requests: mpsc::UnboundedReceiver<Request>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::of(&Self::bootstrap())
    }

    fn bootstrap() -> Bootstrap {
        let wait = ads(Some(Duration::from_secs(15)));
        let mut bootstrap = config::bootstrap::from_proto(Default::default()).unwrap();
        bootstrap.lds = Some(wait.clone());
        bootstrap.cds = Some(wait);
        bootstrap.ads = Some(DiscoveryService {
            cluster: "xds".into(),
            channel: None,
            authority: None,
            variant: Variant::StateOfTheWorld,
            set_node_on_first_message_only: true,
            initial_metadata: Vec::new(),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            rate_limit: None,
        });
        bootstrap
    }

    fn of(bootstrap: &Bootstrap) -> Self {
        let now = Instant::now();
        let registry = Registry::new(1);
        let mut discovery = Discovery::new(bootstrap, &registry, now);
        let mut recorder = Recorder::default();
        discovery.begin(&mut recorder, now);
        let (sender, requests) = mpsc::unbounded_channel();
        let stream = discovery.take_opened().remove(0).id;
        discovery.on_event(stream, Event::Connected(sender), &mut recorder, now);
        Self { discovery, stream, recorder, requests, now }
    }

    fn answer(&mut self, kind: Kind, version: &str, resources: Vec<Any>) {
        let response = DiscoveryResponse {
            version_info: version.to_owned(),
            nonce: format!("{kind}-{version}"),
            type_url: kind.type_url().to_owned(),
            resources,
            ..DiscoveryResponse::default()
        };
        let event = Event::Response(Box::new(Response::StateOfTheWorld(response)));
        self.discovery.on_event(self.stream, event, &mut self.recorder, self.now);
    }

    /// What was sent since this was last asked: type, names, version, NACK.
    fn sent(&mut self) -> Vec<(Kind, Vec<String>, String, Option<String>)> {
        let mut sent = Vec::new();
        while let Ok(request) = self.requests.try_recv() {
            let Request::StateOfTheWorld(request) = request else { panic!("not asked for delta") };
            let kind = Kind::from_type_url(&request.type_url).unwrap();
            let error = request.error_detail.map(|error| error.message);
            sent.push((kind, request.resource_names, request.version_info, error));
        }
        sent
    }

    fn effects(&mut self) -> Vec<String> {
        std::mem::take(&mut self.recorder.effects)
    }
}

#[test]
fn clusters_come_before_listeners_and_each_waits_for_what_it_names() {
    let mut world = World::new();
    assert_eq!(world.sent(), [(Kind::Cluster, vec![], String::new(), None)]);
    world.answer(Kind::Cluster, "1", vec![pack(&eds_cluster("api"))]);
    assert_eq!(world.effects(), [""; 0], "a cluster without endpoints does not serve");
    assert_eq!(world.discovery.phase(), Phase::Clusters);
    assert_eq!(
        world.sent(),
        [
            (Kind::Cluster, vec![], "1".to_owned(), None),
            (Kind::Endpoint, vec!["api".to_owned()], String::new(), None),
        ]
    );
    world.answer(Kind::Endpoint, "1", vec![pack(&assignment("api", "127.0.0.1", 80))]);
    assert_eq!(world.effects(), ["+cluster api", "+load assignment api"]);
    assert_eq!(world.discovery.phase(), Phase::Listeners);
    assert!(world.sent().contains(&(Kind::Listener, vec![], String::new(), None)));
    world.answer(Kind::Listener, "1", vec![pack(&rds_listener("web", 0, "r"))]);
    assert_eq!(world.effects(), [""; 0], "a listener without routes is not open");
    world.answer(Kind::Route, "1", vec![pack(&routes("r", "api"))]);
    assert_eq!(world.effects(), ["+route configuration r", "+listener web"]);
    assert_eq!(world.discovery.phase(), Phase::Ready);
}

#[test]
fn a_bad_resource_is_named_in_the_nack_and_the_good_ones_beside_it_take_effect() {
    let mut world = World::new();
    let good = static_cluster("good", "127.0.0.1", 80);
    let mut bad = static_cluster("bad", "127.0.0.1", 80);
    bad.health_checks.push(Default::default());
    world.sent();
    world.answer(Kind::Cluster, "1", vec![pack(&good), pack(&bad)]);
    assert_eq!(world.effects(), ["+cluster good"]);
    let (kind, _, version, error) = world.sent().remove(0);
    assert_eq!((kind, &*version), (Kind::Cluster, ""), "a NACK keeps the version before");
    let error = error.unwrap();
    assert!(error.contains("cluster \"bad\"") && error.contains("health_checks"), "{error}");
    assert!(!error.contains("good"), "{error}");
}

#[test]
fn a_field_that_is_not_known_is_refused_only_where_that_is_asked_for() {
    let mut cluster = pack(&static_cluster("api", "127.0.0.1", 80));
    cluster.value.extend([0xc8, 0x83, 0x06, 0x01]); // field 12345
    let mut world = World::new();
    world.answer(Kind::Cluster, "1", vec![cluster.clone()]);
    assert_eq!(world.effects(), ["+cluster api"]);

    let mut strict = World::new();
    strict.discovery.reject_unknown_fields(Schema::load().unwrap());
    strict.sent();
    strict.answer(Kind::Cluster, "1", vec![cluster]);
    assert_eq!(strict.effects(), [""; 0]);
    let error = strict.sent().remove(0).3.unwrap();
    assert!(error.contains("cluster \"api\"") && error.contains("12345"), "{error}");
}

#[test]
fn an_update_that_is_refused_leaves_the_version_before_in_place() {
    let mut world = World::new();
    let cluster = static_cluster("api", "127.0.0.1", 80);
    world.answer(Kind::Cluster, "1", vec![pack(&cluster)]);
    let mut bad = cluster.clone();
    bad.health_checks.push(Default::default());
    world.effects();
    world.answer(Kind::Cluster, "2", vec![pack(&bad)]);
    assert_eq!(world.effects(), [""; 0], "neither replaced nor removed");
    let (_, entry) = world.discovery.resources().of(Kind::Cluster).next().unwrap();
    assert_eq!(entry.active.as_ref().unwrap().version, "1");
    assert_eq!(entry.error.as_ref().unwrap().version, "2");
    world.sent();
    world.answer(Kind::Cluster, "3", vec![pack(&cluster)]);
    assert_eq!(world.sent().remove(0), (Kind::Cluster, vec![], "3".to_owned(), None));
}

#[test]
fn an_address_that_cannot_be_bound_is_a_nack_of_its_listener() {
    let mut world = World::new();
    world.answer(Kind::Cluster, "1", vec![pack(&static_cluster("api", "127.0.0.1", 80))]);
    world.recorder.unbindable.insert("web".to_owned());
    world.sent();
    world.answer(Kind::Listener, "1", vec![pack(&rds_listener("web", 1, "r"))]);
    let (kind, _, _, error) = world.sent().remove(0);
    assert_eq!(kind, Kind::Listener);
    assert!(error.unwrap().contains("listener \"web\": address: in use"));
}

#[test]
fn what_does_not_come_in_time_does_not_hold_up_the_start() {
    let mut world = World::new();
    world.now = world.discovery.deadline().unwrap();
    world.discovery.on_time(&mut world.recorder, world.now);
    assert_eq!(world.discovery.phase(), Phase::Listeners);
    world.now = world.discovery.deadline().unwrap();
    world.discovery.on_time(&mut world.recorder, world.now);
    assert_eq!(world.discovery.phase(), Phase::Ready);
    assert_eq!(world.discovery.deadline(), None);
}

#[test]
fn a_removed_cluster_is_gone_and_its_endpoints_are_not_asked_for_any_more() {
    let mut world = World::new();
    let kept = static_cluster("kept", "127.0.0.1", 80);
    world.answer(Kind::Cluster, "1", vec![pack(&eds_cluster("api")), pack(&kept)]);
    world.answer(Kind::Endpoint, "1", vec![pack(&assignment("api", "127.0.0.1", 80))]);
    world.effects();
    world.sent();
    world.answer(Kind::Cluster, "2", vec![pack(&kept)]);
    assert_eq!(world.effects(), ["-cluster api", "-load assignment api"]);
    assert!(
        world.sent().iter().any(|(kind, names, ..)| *kind == Kind::Endpoint && names.is_empty())
    );
}

#[test]
fn kept_resources_serve_before_there_is_a_stream_and_only_changes_are_asked_for() {
    let mut world = World::new();
    let mut kept = Discovery::new(
        &{
            let mut bootstrap = config::bootstrap::from_proto(Default::default()).unwrap();
            let wait = ads(Some(Duration::from_secs(15)));
            bootstrap.lds = Some(wait.clone());
            bootstrap.cds = Some(wait);
            bootstrap.ads = Some(DiscoveryService {
                cluster: "xds".into(),
                channel: None,
                authority: None,
                variant: Variant::Delta,
                set_node_on_first_message_only: true,
                initial_metadata: Vec::new(),
                backoff: (Duration::from_millis(500), Duration::from_secs(30)),
                rate_limit: None,
            });
            bootstrap
        },
        &Registry::new(1),
        world.now,
    );
    let resources = vec![
        (Kind::Listener, Arc::from("web"), "l1".to_owned(), pack(&rds_listener("web", 0, "r"))),
        (Kind::Route, Arc::from("r"), "r1".to_owned(), pack(&routes("r", "api"))),
        (
            Kind::Endpoint,
            Arc::from("api"),
            "e1".to_owned(),
            pack(&assignment("api", "127.0.0.1", 1)),
        ),
        (Kind::Cluster, Arc::from("api"), "c1".to_owned(), pack(&eds_cluster("api"))),
    ];
    kept.restore(resources, &mut world.recorder, world.now);
    assert_eq!(kept.phase(), Phase::Ready);
    let effects = world.effects();
    for effect in
        ["+cluster api", "+load assignment api", "+route configuration r", "+listener web"]
    {
        assert!(effects.contains(&effect.to_owned()), "{effect} is not in {effects:?}");
    }
    let (sender, mut requests) = mpsc::unbounded_channel();
    let stream = kept.take_opened().remove(0).id;
    kept.on_event(stream, Event::Connected(sender), &mut world.recorder, world.now);
    let mut known = HashMap::new();
    while let Ok(Request::Delta(request)) = requests.try_recv() {
        known.extend(request.initial_resource_versions);
    }
    let known: BTreeSet<_> = known.into_keys().collect();
    // The cluster and its load assignment have the same name.
    assert_eq!(Vec::from_iter(known), ["api", "r", "web"]);
}

#[test]
fn a_resource_with_the_name_of_a_static_one_is_ignored_and_accepted() {
    let mut bootstrap = World::bootstrap();
    bootstrap.lds = None;
    let own = config::cluster::from_proto(static_cluster("xds", "127.0.0.1", 1)).unwrap();
    bootstrap.clusters.push(Arc::new(own));
    let mut world = World::of(&bootstrap);
    assert_eq!(world.effects(), ["+cluster xds"]);
    let clusters = ["xds", "api"].map(|name| pack(&static_cluster(name, "127.0.0.1", 2)));
    world.sent();
    world.answer(Kind::Cluster, "1", clusters.to_vec());
    assert_eq!(world.effects(), ["+cluster api"]);
    assert_eq!(world.sent()[0], (Kind::Cluster, vec![], "1".to_owned(), None), "no NACK");
    world.answer(Kind::Cluster, "2", vec![]);
    assert_eq!(world.effects(), ["-cluster api"], "it cannot be removed either");
    assert!(world.discovery.resources().of(Kind::Cluster).next().is_none());
}

/// An EDS cluster whose endpoints come from a service of its own.
fn cluster_of_its_own_service(name: &str, service: &str, variant: &str) -> Any {
    let mut cluster = eds_cluster(name);
    cluster.eds_cluster_config = Some(testing::read(&format!(
        "{{service_name: pods, eds_config: {{resource_api_version: V3, api_config_source: {{api_type: {variant}, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: {service}}}}}]}}}}}}"
    )));
    pack(&cluster)
}

#[test]
fn a_source_of_its_own_has_a_stream_of_its_own_for_as_long_as_it_is_needed() {
    let mut bootstrap = World::bootstrap();
    let server = config::cluster::from_proto(static_cluster("eds", "127.0.0.1", 1)).unwrap();
    bootstrap.clusters.push(Arc::new(server));
    let mut world = World::of(&bootstrap);
    world.effects();
    world.answer(Kind::Cluster, "1", vec![cluster_of_its_own_service("api", "eds", "GRPC")]);
    assert!(world.sent().iter().all(|(kind, ..)| *kind == Kind::Cluster), "ADS is not asked");
    let opened = world.discovery.take_opened();
    let [Opened { id, origin: Origin::Service(_), kind: Some(Kind::Endpoint) }] = &*opened else {
        panic!("{opened:?}");
    };
    let (sender, mut requests) = mpsc::unbounded_channel();
    world.discovery.on_event(*id, Event::Connected(sender), &mut world.recorder, world.now);
    let Ok(Request::StateOfTheWorld(request)) = requests.try_recv() else { panic!("no request") };
    assert_eq!(request.resource_names, ["pods"]);

    // On a stream of one type the type need not be named.
    let response = DiscoveryResponse {
        version_info: "1".to_owned(),
        nonce: "n".to_owned(),
        resources: vec![pack(&assignment("pods", "127.0.0.1", 80))],
        ..DiscoveryResponse::default()
    };
    let event = Event::Response(Box::new(Response::StateOfTheWorld(response)));
    world.discovery.on_event(*id, event, &mut world.recorder, world.now);
    assert_eq!(world.effects(), ["+cluster api", "+load assignment pods"]);
    assert!(
        matches!(requests.try_recv(), Ok(Request::StateOfTheWorld(ack)) if ack.version_info == "1")
    );

    // The same endpoints from ADS: the old stream is of no use any more, but they stay.
    let mut moved = eds_cluster("api");
    moved.eds_cluster_config.as_mut().unwrap().service_name = "pods".to_owned();
    world.answer(Kind::Cluster, "2", vec![pack(&moved)]);
    assert_eq!(world.effects(), [""; 0], "the new source has to answer first");
    world.answer(Kind::Endpoint, "1", vec![pack(&assignment("pods", "127.0.0.1", 81))]);
    assert_eq!(world.effects(), ["+cluster api", "+load assignment pods"]);
    assert_eq!(world.discovery.take_closed(), [*id]);
}

#[test]
fn a_source_that_cannot_be_asked_or_is_one_of_two_is_refused() {
    let mut bootstrap = World::bootstrap();
    let server = config::cluster::from_proto(static_cluster("eds", "127.0.0.1", 1)).unwrap();
    bootstrap.clusters.push(Arc::new(server));
    let mut world = World::of(&bootstrap);
    let clusters = vec![
        cluster_of_its_own_service("a", "eds", "GRPC"),
        cluster_of_its_own_service("b", "nowhere", "GRPC"),
        cluster_of_its_own_service("c", "eds", "DELTA_GRPC"),
    ];
    world.sent();
    world.answer(Kind::Cluster, "1", clusters);
    let (_, _, _, error) = world.sent().remove(0);
    let error = error.unwrap();
    assert!(error.contains("cluster \"b\": the source of load assignment \"pods\""), "{error}");
    assert!(error.contains("no cluster \"nowhere\""), "{error}");
    assert!(error.contains("cluster \"c\"") && error.contains("another source"), "{error}");
    assert!(!error.contains("cluster \"a\""), "{error}");
}

#[test]
fn what_waits_for_a_resource_goes_on_when_its_first_version_is_refused() {
    let mut world = World::new();
    world.answer(Kind::Cluster, "1", vec![pack(&eds_cluster("api"))]);
    assert_eq!(world.effects(), [""; 0]);
    let mut bad = assignment("api", "127.0.0.1", 80);
    bad.endpoints[0].priority = 1000;
    world.answer(Kind::Endpoint, "1", vec![pack(&bad)]);
    assert_eq!(world.effects(), ["+cluster api"], "as in Envoy");
}

/// A resource in its wrapper; without a body it is a heartbeat.
fn wrapped(name: &str, ttl: Option<i64>, body: Option<Any>) -> Any {
    let ttl = ttl.map(|seconds| outrigger_proto::google::protobuf::Duration { seconds, nanos: 0 });
    pack(&Resource { name: name.to_owned(), ttl, resource: body, ..Resource::default() })
}

#[test]
fn a_heartbeat_renews_what_has_a_time_to_live_and_removes_nothing_beside_it() {
    let mut world = World::new();
    world.answer(Kind::Cluster, "1", vec![]);
    let listener = |name: &str, port| pack(&rds_listener(name, port, "r"));
    world.answer(
        Kind::Listener,
        "1",
        vec![wrapped("mortal", Some(10), Some(listener("mortal", 1))), listener("immortal", 2)],
    );
    world.answer(Kind::Route, "1", vec![pack(&routes("r", "api"))]);
    assert_eq!(world.effects().len(), 3);
    let start = world.now;
    world.now += Duration::from_secs(9);
    world.answer(Kind::Listener, "1", vec![wrapped("mortal", Some(10), None)]);
    world.now += Duration::from_secs(9);
    world.discovery.on_time(&mut world.recorder, world.now);
    assert_eq!(world.effects(), [""; 0]);
    let end = start + Duration::from_secs(19);
    assert_eq!(world.discovery.deadline(), Some(end));
    world.now = end;
    world.discovery.on_time(&mut world.recorder, world.now);
    assert_eq!(world.effects(), ["-listener mortal"]);
    assert_eq!(world.discovery.deadline(), None);
    // It comes again, unchanged, and without an end.
    let both = vec![wrapped("mortal", None, Some(listener("mortal", 1))), listener("immortal", 2)];
    world.answer(Kind::Listener, "1", both);
    assert_eq!(world.effects(), ["+listener mortal"]);
    assert_eq!(world.discovery.deadline(), None);
}

#[test]
fn a_heartbeat_of_something_unknown_is_no_resource() {
    let mut world = World::new();
    world.answer(Kind::Cluster, "1", vec![wrapped("api", Some(1), None)]);
    assert_eq!((world.effects(), world.discovery.lifetimes.next()), (vec![], None));
}

#[test]
fn a_source_with_nothing_usable_in_it_does_not_hold_the_start_up() {
    let mut bootstrap = World::bootstrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    let file = ConfigFile { path, watched_directory: None, poll_interval: None };
    let origin = Origin::File(Arc::new(file));
    bootstrap.cds = Some(ConfigSource { origin, initial_fetch_timeout: None });
    bootstrap.lds = None;
    bootstrap.ads = None;
    let now = Instant::now();
    let mut discovery = Discovery::new(&bootstrap, &Registry::new(1), now);
    let mut recorder = Recorder::default();
    discovery.begin(&mut recorder, now);
    assert_eq!(discovery.phase(), Phase::Clusters);
    let opened = discovery.take_opened().remove(0);
    discovery.on_event(opened.id, Event::Unusable, &mut recorder, now);
    assert_eq!(discovery.phase(), Phase::Ready);
}

#[test]
fn extensions_of_istio_that_change_no_request_are_accepted_and_others_refused() {
    let with = |type_url: &str| {
        let mut listener = rds_listener("web", 1, "r");
        let filter = &mut listener.filter_chains[0].filters[0];
        let Some(FilterConfig::TypedConfig(config)) = &mut filter.config_type else {
            panic!("no configuration");
        };
        let mut manager: HttpConnectionManager = any::unpack(config).unwrap();
        let extension = Any { type_url: format!("type.googleapis.com/{type_url}"), value: vec![] };
        let extension = HttpFilter {
            name: "extension".to_owned(),
            config_type: Some(HttpFilterConfig::TypedConfig(extension)),
            ..HttpFilter::default()
        };
        manager.http_filters.insert(0, extension);
        *config = pack(&manager);
        let metadata_exchange = Filter {
            name: "istio.metadata_exchange".to_owned(),
            config_type: Some(FilterConfig::TypedConfig(Any {
                type_url: "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange"
                    .to_owned(),
                value: vec![],
            })),
        };
        listener.filter_chains[0].filters.insert(0, metadata_exchange);
        pack(&listener)
    };
    let mut world = World::new();
    world.answer(Kind::Cluster, "1", vec![]);
    world.sent();
    world.answer(Kind::Listener, "1", vec![with("stats.PluginConfig")]);
    assert_eq!(world.sent()[0].3, None);
    world.answer(Kind::Listener, "2", vec![with("io.istio.http.authn.Config")]);
    let error = world.sent()[0].3.clone().unwrap();
    assert!(error.contains("io.istio.http.authn.Config is not supported"), "{error}");
    assert!(error.contains("filters[1].typed_config.http_filters[0]"), "{error}");
}
