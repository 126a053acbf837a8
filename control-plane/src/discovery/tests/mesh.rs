//! Sidecars: who they are, what they get, how they come and go.

use super::*;
use ResourceType::{Cluster, Endpoint, Listener, Secret};
use outrigger_proto::registry::v1::{
    AppPort, Drain, FromSidecar, Hello, ToSidecar, from_sidecar, to_sidecar,
};
use tonic::Code;

const API: &str = "{kind: Service, name: api, spec: {ports: [{port: 9000, protocol: http}], subsets: [{name: v2, labels: {version: v2}}]}}";
const ALL: &str = "outbound|9000||api";
const V2: &str = "outbound|9000|v2|api";

type Attachment = Stream<FromSidecar, ToSidecar>;

fn say(message: from_sidecar::Message) -> FromSidecar {
    FromSidecar { message: Some(message) }
}

/// Attaches an instance whose inbound port is the last number of its name.
async fn attach(channel: Channel, epoch: u64, inbound_port: u32) -> Result<Attachment, Status> {
    let hello = Hello {
        epoch,
        advertise: "127.0.0.1".to_owned(),
        inbound_port,
        outbound_port: 15001,
        app_ports: vec![AppPort { port: 9000, ..Default::default() }],
        ..Default::default()
    };
    let path = PathAndQuery::from_static("/outrigger.registry.v1.Registry/Attach");
    let mut stream =
        Attachment::open(channel, path, vec![say(from_sidecar::Message::Hello(hello))]).await?;
    match stream.receive().await?.message {
        Some(to_sidecar::Message::Welcome(welcome)) => assert_eq!(welcome.lease_ms, 2500),
        other => panic!("{other:?} is no welcome"),
    }
    Ok(stream)
}

/// The ports in a load assignment.
fn ports(response: &DeltaDiscoveryResponse, name: &str) -> Vec<u32> {
    use outrigger_proto::envoy::config::core::v3::{address, socket_address};
    use outrigger_proto::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint};
    let resource = response.resources.iter().find(|it| it.name == name).unwrap();
    let any = resource.resource.as_ref().unwrap();
    let assignment: ClusterLoadAssignment = outrigger_proto::any::unpack(any).unwrap();
    let mut ports = Vec::new();
    for endpoint in assignment.endpoints.into_iter().flat_map(|it| it.lb_endpoints) {
        let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else {
            panic!("no endpoint");
        };
        let Some(address::Address::SocketAddress(at)) = endpoint.address.unwrap().address else {
            panic!("no address");
        };
        match at.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => ports.push(port),
            other => panic!("{other:?} is no port"),
        }
    }
    ports
}

#[tokio::test]
async fn a_sidecar_gets_what_its_certificate_and_its_attachment_say() {
    let plane = Plane::new(API).await;
    let channel = plane.member("api", "api-1").await;
    let _attached = attach(channel.clone(), 1, 15006).await.unwrap();
    // What it says of itself in the node counts for nothing.
    let mut client = Delta::open(channel, None, Listener, &[]).await;
    client.expect(Listener, &["inbound|9000||api", "outbound"], &[]).await;
    client.request(Cluster, &["*"], &[]).await;
    client.expect(Cluster, &["inbound|9000||api", V2, ALL], &[]).await;
    client.request(Secret, &["trust-bundle", "identity"], &[]).await;
    client.expect(Secret, &["trust-bundle"], &["identity"]).await;
    let sidecar = plane.live.view.sidecars().remove(0);
    assert_eq!((sidecar.service.as_str(), sidecar.instance.as_str()), ("api", "api-1"));
    assert_eq!(sidecar.node, "api-1");
    assert!(sidecar.certificate_expires.is_some());
}

#[tokio::test]
async fn whoever_has_no_certificate_gets_nothing_but_an_identity() {
    let plane = Plane::new(API).await;
    let config = trusting(&plane.live.authority.roots(), None);
    let channel = connect(plane.xds, config).await.unwrap();
    let status = attach(channel.clone(), 1, 15006).await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    let first = DeltaDiscoveryRequest { node: node("api-1"), ..Default::default() };
    let path = path("Delta", None);
    let opened = Stream::<_, DeltaDiscoveryResponse>::open(channel, path, vec![first]).await;
    assert_eq!(opened.err().unwrap().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_get_through_the_handshake() {
    let plane = Plane::new(API).await;
    let other = Plane::new(API).await;
    let stranger = mint(&other.live.authority, "api", "api-1");
    let config = trusting(&plane.live.authority.roots(), Some(stranger));
    // TLS 1.3: the client learns of it with its first read.
    let refused = match connect(plane.xds, config).await {
        Err(_) => true,
        Ok(channel) => attach(channel, 1, 15006).await.is_err(),
    };
    assert!(refused);
    assert!(plane.live.view.endpoints(None).is_empty());
}

#[tokio::test]
async fn an_instance_that_is_gone_is_gone_for_its_callers_at_once() {
    let plane = Plane::new(API).await;
    let caller = plane.member("web", "web-1").await;
    let _web = attach(caller.clone(), 1, 15010).await.unwrap();
    let one = attach(plane.member("api", "api-1").await, 1, 15011).await.unwrap();
    let _two = attach(plane.member("api", "api-2").await, 1, 15012).await.unwrap();
    let mut client = Delta::open(caller, None, Endpoint, &[ALL]).await;
    assert_eq!(ports(&client.expect(Endpoint, &[ALL], &[]).await, ALL), [15011, 15012]);
    drop(one);
    assert_eq!(ports(&client.expect(Endpoint, &[ALL], &[]).await, ALL), [15012]);
    let endpoints = plane.live.view.endpoints(Some("api"));
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].instance, "api-2");
}

#[tokio::test]
async fn a_draining_instance_is_let_go_when_its_callers_have_left() {
    let plane = Plane::new(API).await;
    let caller = plane.member("web", "web-1").await;
    let _web = attach(caller.clone(), 1, 15010).await.unwrap();
    let mut one = attach(plane.member("api", "api-1").await, 1, 15011).await.unwrap();
    let _two = attach(plane.member("api", "api-2").await, 1, 15012).await.unwrap();
    let mut client = Delta::open(caller, None, Endpoint, &[ALL]).await;
    client.expect(Endpoint, &[ALL], &[]).await;
    one.send(say(from_sidecar::Message::Drain(Drain {}))).await;
    assert_eq!(ports(&client.expect(Endpoint, &[ALL], &[]).await, ALL), [15012]);
    let answer = one.receive().await.unwrap().message;
    assert!(matches!(answer, Some(to_sidecar::Message::Drained(_))), "{answer:?}");
}

#[tokio::test]
async fn an_older_start_of_an_instance_is_refused_and_changes_nothing() {
    let plane = Plane::new(API).await;
    let new = attach(plane.member("api", "api-1").await, 2, 15012).await.unwrap();
    let old = attach(plane.member("api", "api-1").await, 1, 15011).await;
    assert_eq!(old.err().unwrap().code(), Code::FailedPrecondition);
    assert_eq!(plane.live.view.endpoints(None)[0].port, 15012);
    drop(new);
}

#[tokio::test]
async fn after_a_restart_an_empty_load_assignment_of_a_service_that_had_sidecars_is_not_believed() {
    let plane = Plane::new(API).await;
    let token = plane.live.tokens.issue("api", Duration::from_secs(60), 1).unwrap().token;
    identity::join(&token, "api-1").await.unwrap();
    let (store, directory) = (plane.store.clone(), plane._directory.clone());
    let config = plane.config.borrow().clone();
    drop(plane);
    let plane = Plane::on(store, directory, config).await;
    let caller = plane.member("web", "web-1").await;
    let _web = attach(caller.clone(), 1, 15010).await.unwrap();
    // The sidecar has both from before a restart of the control plane.
    let has = [ALL, V2].map(|name| (name.to_owned(), "before".to_owned())).into();
    let mut client = Delta::reopen(caller, None, Endpoint, &[ALL, V2], has).await;
    client.request(Cluster, &[ALL], &[]).await;
    client.expect(Cluster, &[ALL], &[]).await;
    // An instance of no subset: what it fills is sent, what is still empty is not.
    let _one = attach(plane.member("api", "api-1").await, 1, 15011).await.unwrap();
    let response = client.expect(Endpoint, &[ALL], &[]).await;
    assert_eq!(ports(&response, ALL), [15011]);
}

#[tokio::test]
async fn a_service_that_never_had_a_sidecar_is_empty_at_once() {
    let plane = Plane::new(API).await;
    let mut client = Delta::open(plane.foreign().await, None, Endpoint, &[ALL]).await;
    assert!(ports(&client.expect(Endpoint, &[ALL], &[]).await, ALL).is_empty());
}

#[tokio::test]
async fn a_sidecar_that_does_not_attach_is_sent_nothing_and_then_away() {
    let plane = Plane::new(API).await;
    let channel = plane.member("api", "api-1").await;
    let mut client = Delta::open(channel, None, Listener, &[]).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    let status = client.stream.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("registry"), "{status}");
}

#[tokio::test]
async fn an_endpoint_without_a_sidecar_is_forgotten_before_the_way_to_it() {
    let plane = Plane::new(API).await;
    let caller = plane.member("web", "web-1").await;
    let _web = attach(caller.clone(), 1, 15010).await.unwrap();
    let mut client = Delta::open(caller, None, Cluster, &[ALL]).await;
    client.expect(Cluster, &[ALL], &[]).await;
    client.request(Endpoint, &[ALL], &[]).await;
    client.expect(Endpoint, &[ALL], &[]).await;
    plane.apply("{kind: Endpoint, name: p, spec: {service: api, address: 127.0.0.9, port: 7}}");
    client.expect(Cluster, &[ALL], &[]).await;
    assert_eq!(ports(&client.expect(Endpoint, &[ALL], &[]).await, ALL), [7]);
    plane.apply("{kind: Endpoint, name: p, delete: true}");
    assert!(ports(&client.expect(Endpoint, &[ALL], &[]).await, ALL).is_empty());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    client.expect(Cluster, &[ALL], &[]).await;
}
