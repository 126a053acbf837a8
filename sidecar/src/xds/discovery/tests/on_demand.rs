//! Requests that wait: virtual hosts and clusters that are asked for when they are needed.

use outrigger_proto::envoy::config::route::v3::VirtualHost;
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;

/// As [`World`], by the incremental variant.
struct Delta(World);

impl Delta {
    fn new() -> Self {
        let mut bootstrap = World::bootstrap();
        if let Some(ads) = &mut bootstrap.ads {
            ads.variant = Variant::Delta;
        }
        let mut world = Self(World::of(&bootstrap));
        world.sent();
        world
    }

    fn answer(&mut self, kind: Kind, resources: Vec<Resource>, removed: &[&str]) {
        let response = DeltaDiscoveryResponse {
            system_version_info: "v".to_owned(),
            type_url: kind.type_url().to_owned(),
            nonce: "n".to_owned(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        let event = Event::Response(Box::new(Response::Delta(response)));
        let World { discovery, stream, recorder, now, .. } = &mut self.0;
        discovery.on_event(*stream, event, recorder, *now);
    }

    fn requests(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut sent = Vec::new();
        while let Ok(request) = self.0.requests.try_recv() {
            let Request::Delta(request) = request else { panic!("not asked for a whole state") };
            sent.push(request);
        }
        sent
    }

    /// What was subscribed to and unsubscribed from since this was last asked, and every NACK.
    fn sent(&mut self) -> Vec<String> {
        let kind =
            |request: &DeltaDiscoveryRequest| Kind::from_type_url(&request.type_url).unwrap();
        let mut said = Vec::new();
        for request in self.requests() {
            let kind = kind(&request);
            said.extend(request.resource_names_subscribe.iter().map(|it| format!("+{kind} {it}")));
            said.extend(
                request.resource_names_unsubscribe.iter().map(|it| format!("-{kind} {it}")),
            );
            said.extend(request.error_detail.map(|error| format!("!{kind} {}", error.message)));
        }
        said
    }

    /// A listener with the routes `r`, whose virtual hosts come one by one.
    fn serve(&mut self) {
        self.answer(Kind::Cluster, vec![], &[]);
        self.answer(Kind::Listener, vec![whole("web", &rds_listener("web", 0, "r"))], &[]);
        self.answer(Kind::Route, vec![whole("r", &hosted())], &[]);
    }

    fn demand(&mut self, host: &str) -> oneshot::Receiver<()> {
        let (settled, waits) = oneshot::channel();
        let World { discovery, recorder, now, .. } = &mut self.0;
        discovery.demand_virtual_host("r", host, settled, recorder, *now);
        waits
    }

    fn demand_cluster(&mut self, name: &str) -> oneshot::Receiver<()> {
        let (settled, waits) = oneshot::channel();
        let World { discovery, recorder, now, .. } = &mut self.0;
        discovery.demand_cluster(name, &ads(None), settled, recorder, *now);
        discovery.settle_clusters(&|_| false);
        waits
    }

    fn settle_clusters(&mut self) {
        let there: Vec<String> = self.0.effects();
        self.0.discovery.settle_clusters(&|name| there.contains(&format!("+cluster {name}")));
    }
}

fn hosted() -> outrigger_proto::envoy::config::route::v3::RouteConfiguration {
    let mut routes = routes("r", "c");
    routes.virtual_hosts.clear();
    routes.vhds = Some(testing::read("{config_source: {ads: {}, resource_api_version: V3}}"));
    routes
}

fn whole<M: prost::Name>(name: &str, message: &M) -> Resource {
    Resource {
        name: name.to_owned(),
        version: "1".to_owned(),
        resource: Some(pack(message)),
        ..Resource::default()
    }
}

fn host(name: &str, domain: &str, aliases: &[&str]) -> Resource {
    let host: VirtualHost = testing::read(&format!(
        "{{name: h, domains: ['{domain}'], routes: [{{match: {{prefix: /}}, route: {{cluster: c}}}}]}}"
    ));
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    Resource { aliases, ..whole(name, &host) }
}

fn waits(waiting: &mut oneshot::Receiver<()>) -> bool {
    waiting.try_recv() == Err(TryRecvError::Empty)
}

#[test]
fn a_listener_waits_for_the_first_answer_about_the_virtual_hosts_of_its_routes() {
    let mut world = Delta::new();
    world.serve();
    assert_eq!(world.0.effects(), ["+route configuration r"], "not open yet");
    assert!(world.sent().contains(&"+virtual host r".to_owned()));
    world.answer(Kind::VirtualHost, vec![host("r/a", "a", &[])], &[]);
    assert_eq!(world.0.effects(), ["+route configuration r", "+listener web"]);
    assert_eq!(world.0.discovery.phase(), Phase::Ready);
}

#[test]
fn a_listener_does_not_wait_for_ever_for_virtual_hosts() {
    let mut world = Delta::new();
    world.serve();
    world.0.effects();
    let deadline = world.0.discovery.deadline().unwrap();
    let World { discovery, recorder, .. } = &mut world.0;
    discovery.on_time(recorder, deadline);
    assert_eq!(world.0.effects(), ["+listener web"]);
}

#[test]
fn a_host_is_asked_for_once_and_by_its_whole_name_and_stays_subscribed() {
    let mut world = Delta::new();
    world.serve();
    world.answer(Kind::VirtualHost, vec![], &[]);
    world.sent();
    let (mut first, mut second) = (world.demand("a.example"), world.demand("a.example"));
    assert_eq!(world.sent(), ["+virtual host r/a.example"]);
    assert!(waits(&mut first) && waits(&mut second));
    world.0.effects();
    // The server has it under another name.
    world.answer(Kind::VirtualHost, vec![host("r/all", "*.example", &["r/a.example"])], &[]);
    assert_eq!(world.0.effects(), ["+route configuration r"]);
    assert!(!waits(&mut first) && !waits(&mut second));
    assert_eq!(world.sent(), [""; 0], "acknowledged, and nothing else");
    assert!(!waits(&mut world.demand("a.example")), "known");
    assert_eq!(world.sent(), [""; 0]);
}

#[test]
fn a_host_that_does_not_exist_is_answered_and_asked_for_again_when_it_is_needed_again() {
    let mut world = Delta::new();
    world.serve();
    world.answer(Kind::VirtualHost, vec![], &[]);
    let nothing =
        Resource { name: "r/a".to_owned(), aliases: vec!["r/a".to_owned()], ..Resource::default() };
    for (resources, removed) in [(vec![nothing], &[][..]), (vec![], &["r/a"][..])] {
        world.sent();
        let mut waiting = world.demand("a");
        assert_eq!(world.sent(), ["+virtual host r/a"]);
        world.answer(Kind::VirtualHost, resources, removed);
        assert!(!waits(&mut waiting));
        assert_eq!(world.sent(), ["-virtual host r/a"]);
    }
}

#[test]
fn a_host_that_is_refused_is_named_and_nobody_waits_for_it() {
    let mut world = Delta::new();
    world.serve();
    world.answer(Kind::VirtualHost, vec![host("r/a", "a", &[])], &[]);
    world.sent();
    let mut waiting = world.demand("b");
    world.answer(Kind::VirtualHost, vec![host("r/b", "a", &[])], &[]);
    assert!(!waits(&mut waiting));
    let sent = world.sent();
    let nack = sent.iter().find(|said| said.starts_with("!virtual host")).unwrap();
    assert!(nack.contains("r/b") && nack.contains("duplicate"), "{nack}");
    assert!(sent.contains(&"-virtual host r/b".to_owned()), "{sent:?}");
}

#[test]
fn a_host_that_goes_is_asked_for_again_when_it_is_needed_again() {
    let mut world = Delta::new();
    world.serve();
    world.answer(Kind::VirtualHost, vec![], &[]);
    world.demand("a");
    world.answer(Kind::VirtualHost, vec![host("r/a", "a", &["r/a"])], &[]);
    world.sent();
    world.answer(Kind::VirtualHost, vec![], &["r/a"]);
    assert_eq!(world.sent(), ["-virtual host r/a"]);
    assert!(waits(&mut world.demand("a")));
    assert_eq!(world.sent(), ["+virtual host r/a"]);
}

#[test]
fn a_new_stream_is_told_of_the_hosts_that_are_known() {
    let mut world = Delta::new();
    world.serve();
    world.answer(Kind::VirtualHost, vec![], &[]);
    world.demand("a");
    world.answer(Kind::VirtualHost, vec![host("r/a", "a", &["r/a"])], &[]);
    world.demand("b");
    world.requests();
    let (sender, requests) = mpsc::unbounded_channel();
    let World { discovery, stream, recorder, now, .. } = &mut world.0;
    discovery.on_event(*stream, Event::Connected(sender), recorder, *now);
    world.0.requests = requests;
    let all = world.requests();
    let about = all.iter().find(|it| it.type_url == Kind::VirtualHost.type_url()).unwrap();
    assert_eq!(about.resource_names_subscribe, ["r", "r/a", "r/b"]);
    assert_eq!(about.initial_resource_versions.keys().collect::<Vec<_>>(), ["r/a"]);
}

#[test]
fn routes_without_their_source_of_hosts_are_refused() {
    let mut world = World::new();
    world.answer(Kind::Cluster, "1", vec![]);
    world.answer(Kind::Listener, "1", vec![pack(&rds_listener("web", 0, "r"))]);
    world.sent();
    world.answer(Kind::Route, "1", vec![pack(&hosted())]);
    let (_, _, _, error) = world.sent().remove(0);
    assert!(error.unwrap().contains("vhds.config_source"), "a state of the world");
}

#[test]
fn a_cluster_on_demand_is_asked_for_beside_all_others_and_waited_for() {
    let mut world = Delta::new();
    world.answer(Kind::Cluster, vec![], &[]);
    world.sent();
    let mut waiting = world.demand_cluster("c");
    assert_eq!(world.sent(), ["+cluster c"]);
    let mut other = world.demand_cluster("c");
    assert_eq!(world.sent(), [""; 0]);
    let cluster = static_cluster("c", "127.0.0.1", 1);
    world.answer(Kind::Cluster, vec![whole("c", &cluster)], &[]);
    world.settle_clusters();
    assert!(!waits(&mut waiting) && !waits(&mut other));
    assert!(!waits(&mut world.demand_cluster("c")), "it is there");
    // A new stream is asked for all of them, and for this one by name.
    let (sender, requests) = mpsc::unbounded_channel();
    let World { discovery, stream, recorder, now, .. } = &mut world.0;
    discovery.on_event(*stream, Event::Connected(sender), recorder, *now);
    world.0.requests = requests;
    assert!(world.sent().starts_with(&["+cluster *".to_owned(), "+cluster c".to_owned()]));
}

#[test]
fn a_cluster_that_does_not_exist_or_goes_is_asked_for_again_when_it_is_needed_again() {
    let mut world = Delta::new();
    world.answer(Kind::Cluster, vec![], &[]);
    world.sent();
    let mut waiting = world.demand_cluster("c");
    world.answer(Kind::Cluster, vec![], &["c"]);
    assert!(!waits(&mut waiting));
    assert_eq!(world.sent(), ["+cluster c", "-cluster c"]);
    assert!(waits(&mut world.demand_cluster("c")));
    assert_eq!(world.sent(), ["+cluster c"]);
}
