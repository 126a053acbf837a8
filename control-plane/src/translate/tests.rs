//! What is made of a small mesh: whole resources against `golden/*.json` (written anew when the environment variable
//! `OUTRIGGER_GOLDEN` is `write`), and the rules one by one.

use super::cluster::Instances;
use super::*;
use crate::discovery::{ResourceType, View, tests::applied};
use crate::identity::Trust;
use crate::model::Config;
use crate::registry::{Instance, InstanceName, Live, Needs};
use outrigger_proto::envoy::config::cluster::v3::Cluster;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::route::v3::RouteConfiguration;
use outrigger_proto::json::Schema;
use outrigger_proto::registry::v1 as registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

const MESH: &str = include_str!("golden/mesh.yaml");

fn config(documents: &str) -> Config {
    applied(&Config::default(), documents)
}

/// An instance that listens at 127.0.0.1 and has these application ports.
fn instance(service: &str, name: &str, inbound_port: u32, app_ports: &[u32]) -> Instance {
    instance_with(
        service,
        name,
        registry::Hello {
            inbound_port,
            app_ports: app_ports
                .iter()
                .map(|port| registry::AppPort { port: *port, ..Default::default() })
                .collect(),
            ..Default::default()
        },
    )
}

fn instance_with(service: &str, name: &str, hello: registry::Hello) -> Instance {
    let name = InstanceName { service: service.into(), instance: name.into() };
    let hello = registry::Hello { advertise: "127.0.0.1".to_owned(), ..hello };
    Instance::from_hello(name, hello).unwrap()
}

fn live(instances: Vec<Instance>) -> Live {
    let mut live = Live { version: 1, services: BTreeMap::new() };
    for instance in instances {
        let service = live.services.entry(instance.name.service.clone()).or_default();
        service.push(Arc::new(instance));
    }
    live
}

fn world(config: Config, live: Live) -> World {
    let roots = "-----BEGIN CERTIFICATE-----\nroot\n-----END CERTIFICATE-----\n".into();
    let trust = Arc::new(Trust { roots, ..Trust::default() });
    World::after(&World::default(), Inputs { config, live, trust, ..Inputs::default() })
}

fn sidecar(world: &World, needs: &Arc<Needs>) -> Arc<View> {
    world.view(&ViewKey::Sidecar(needs.clone()))
}

/// A resource as JSON.
fn json_of(schema: &Schema, view: &View, kind: ResourceType, name: &str) -> Value {
    let resource = view.of(kind).resources.get(name);
    let resource = resource.unwrap_or_else(|| panic!("no {name} among {:?}", names_of(view, kind)));
    let any: outrigger_proto::google::protobuf::Any =
        prost::Message::decode(resource.as_any().clone()).unwrap();
    let message = outrigger_proto::any::message_name(&any.type_url);
    schema.print(message, &any.value).unwrap()
}

fn names_of(view: &View, kind: ResourceType) -> Vec<&str> {
    view.of(kind).resources.keys().map(|name| &**name).collect()
}

fn message<M: prost::Name + Default>(view: &View, kind: ResourceType, name: &str) -> M {
    let resource = view.of(kind).resources.get(name).unwrap();
    let any = prost::Message::decode(resource.as_any().clone()).unwrap();
    outrigger_proto::any::unpack(&any).unwrap()
}

/// JSON that fits into few lines: what is short stands on one.
fn print(value: &Value, indent: usize, out: &mut String) {
    let compact = value.to_string();
    let (open, items, close): (_, Vec<(String, &Value)>, _) = match value {
        Value::Object(map) => {
            let items = map.iter().map(|(key, value)| (format!("{}: ", json!(key)), value));
            ('{', items.collect(), '}')
        }
        Value::Array(list) => ('[', list.iter().map(|it| (String::new(), it)).collect(), ']'),
        _ => return out.push_str(&compact),
    };
    if indent > 1 && compact.len() + 2 * indent <= 100 {
        return out.push_str(&compact);
    }
    out.push(open);
    for (index, (key, value)) in items.into_iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.push_str(&"  ".repeat(indent + 1));
        out.push_str(&key);
        print(value, indent + 1, out);
    }
    out.push('\n');
    out.push_str(&"  ".repeat(indent));
    out.push(close);
}

/// Compares every resource of a view with a file.
#[track_caller]
fn assert_golden(view: &View, file: &str) {
    let schema = Schema::load().unwrap();
    let mut all = serde_json::Map::new();
    for kind in ResourceType::ALL {
        let of_type = view.of(kind).resources.keys();
        let of_type = of_type.map(|name| (name.to_string(), json_of(&schema, view, kind, name)));
        all.insert(format!("{kind:?}"), Value::Object(of_type.collect()));
    }
    let got = Value::Object(all);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/translate/golden").join(file);
    if std::env::var_os("OUTRIGGER_GOLDEN").is_some_and(|it| it == "write") {
        let mut text = String::new();
        print(&got, 0, &mut text);
        std::fs::write(&path, text + "\n").unwrap();
    }
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (kind, resources) in expected.as_object().unwrap() {
        for (name, resource) in resources.as_object().unwrap() {
            assert_eq!(&got[kind][name], resource, "{kind} {name} in {file}");
        }
    }
    assert_eq!(got, expected, "{file}");
}

fn small_mesh() -> World {
    let labels = [("version".to_owned(), "v2".to_owned())];
    let api = instance_with(
        "api",
        "api-2",
        registry::Hello {
            inbound_port: 15012,
            app_ports: vec![registry::AppPort { port: 9000, ..Default::default() }],
            labels: labels.into(),
            zone: "z".to_owned(),
            ..Default::default()
        },
    );
    world(config(MESH), live(vec![instance("api", "api-1", 15011, &[9000]), api]))
}

#[test]
fn a_foreign_client_gets_outbound_listeners_without_tls() {
    assert_golden(&small_mesh().view(&ViewKey::Foreign), "foreign.json");
}

#[test]
fn a_sidecar_gets_its_inbound_listener_and_what_it_sends_to() {
    let world = small_mesh();
    let api = instance_with(
        "api",
        "api-1",
        registry::Hello {
            inbound_port: 15011,
            outbound_port: 15001,
            app_ports: vec![
                registry::AppPort { port: 9000, ..Default::default() },
                registry::AppPort {
                    port: 9001,
                    protocol: "tcp".to_owned(),
                    address: "127.0.0.3".to_owned(),
                },
            ],
            outbounds: vec![registry::Outbound {
                service: "db".to_owned(),
                port: 5432,
                listen: "127.0.0.1:15432".to_owned(),
            }],
            ..Default::default()
        },
    );
    assert_golden(&sidecar(&world, &api.needs), "sidecar.json");
}

#[test]
fn a_gateway_gets_its_listeners_and_the_clusters_of_its_routes_only() {
    let world = small_mesh();
    let edge = instance("edge", "edge-1", 15010, &[]);
    assert_golden(&sidecar(&world, &edge.needs), "gateway.json");
}

/// Services and the views on them, for the rules below.
const API: &str = "{kind: Service, name: api, spec: {ports: [{port: 9000, protocol: http}]}}";

fn routes_of(documents: &str) -> RouteConfiguration {
    let world = world(config(documents), Live::default());
    let view = world.view(&ViewKey::Foreign);
    message(&view, ResourceType::Route, "9000")
}

#[test]
fn what_no_rule_of_a_service_matches_goes_to_the_service() {
    let routes = routes_of(&format!(
        "{API}\n---\n{{kind: Route, name: r, spec: {{hosts: [api], rules: [{{matches: [{{path: {{type: PathPrefix, value: /v1}}}}], backendRefs: [{{name: api}}]}}]}}}}"
    ));
    let names: Vec<_> =
        routes.virtual_hosts[0].routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["r.0.0", "default"]);
}

#[test]
fn every_instance_of_a_world_without_endpoint_objects_is_reached_by_mtls() {
    let id = "spiffe://outrigger.local/ns/default/svc/api";
    let documents = config(API);
    let service = documents.service("api").unwrap();
    let port = service.port(9000).unwrap();
    let cluster = cluster::mesh("outrigger.local", service, port, None, Instances::Sidecars);
    assert!(format!("{:?}", cluster.transport_socket.unwrap()).contains("UpstreamTlsContext"));
    let any = cluster::mesh("outrigger.local", service, port, None, Instances::Mixed);
    assert_eq!(any.transport_socket, None);
    let sockets: Vec<_> = any.transport_socket_matches.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(sockets, ["mtls", "plaintext"]);
    let bytes = prost::Message::encode_to_vec(&any);
    assert!(bytes.windows(id.len()).any(|it| it == id.as_bytes()));
}

#[test]
fn a_draining_instance_gets_nothing_new() {
    let draining = Instance { draining: true, ..instance("api", "api-1", 15011, &[9000]) };
    let instances = vec![draining, instance("api", "api-2", 15012, &[9000])];
    let view = world(config(API), live(instances)).view(&ViewKey::Foreign);
    let assignment: ClusterLoadAssignment =
        message(&view, ResourceType::Endpoint, "outbound|9000||api");
    assert_eq!(assignment.endpoints[0].lb_endpoints.len(), 1);
}

#[test]
fn an_empty_assignment_is_held_after_a_start_and_then_believed() {
    let held = Inputs {
        config: config(API),
        awaited: Arc::new(["api".into()].into()),
        ..Inputs::default()
    };
    let before = World::after(&World::default(), held.clone());
    let endpoints =
        |world: &World| world.view(&ViewKey::Foreign).of(ResourceType::Endpoint).clone();
    assert!(endpoints(&before).resources.is_empty());
    assert_eq!(endpoints(&before).held.len(), 1);
    let after = World::after(&before, Inputs { awaited: Arc::default(), ..held });
    assert_eq!(endpoints(&after).resources.len(), 1);
    assert!(endpoints(&after).held.is_empty());
}

#[test]
fn what_did_not_change_is_the_same_object_in_the_next_world() {
    let first = small_mesh();
    let view = first.view(&ViewKey::Foreign);
    let more = live(vec![instance("api", "api-1", 15011, &[9000])]);
    let inputs = Inputs { config: first.config().clone(), live: more, ..Inputs::default() };
    let second = World::after(&first, inputs);
    let next = second.view(&ViewKey::Foreign);
    for kind in [ResourceType::Cluster, ResourceType::Listener, ResourceType::Route] {
        assert!(Arc::ptr_eq(&view.of(kind).resources, &next.of(kind).resources), "{kind:?}");
    }
    let db = "outbound|5432||db";
    let resource = |view: &View| view.of(ResourceType::Endpoint).resources[db].clone();
    assert!(Arc::ptr_eq(&resource(&view), &resource(&next)));
    assert!(!Arc::ptr_eq(
        &view.of(ResourceType::Endpoint).resources,
        &next.of(ResourceType::Endpoint).resources
    ));
    // A revision that changes one service leaves the others alone.
    let changed = applied(
        first.config(),
        "{kind: Service, name: db, spec: {ports: [{port: 5432, protocol: tcp}], timeouts: {connect: 1s}}}",
    );
    let third = World::after(&second, Inputs { config: changed, ..Inputs::default() });
    let last = third.view(&ViewKey::Foreign);
    let clusters = |view: &View, name: &str| view.of(ResourceType::Cluster).resources[name].clone();
    let api = "outbound|9000||api";
    assert!(Arc::ptr_eq(&clusters(&next, api), &clusters(&last, api)));
    assert!(!Arc::ptr_eq(&clusters(&next, db), &clusters(&last, db)));
}

#[test]
fn the_version_of_endpoints_tells_observed_ones_apart_and_others_are_the_revision() {
    let version = |live| {
        let view = world(config(API), live).view(&ViewKey::Foreign);
        assert_eq!(&*view.of(ResourceType::Cluster).version, "1");
        view.of(ResourceType::Endpoint).version.to_string()
    };
    let one = || live(vec![instance("api", "api-1", 15011, &[9000])]);
    assert_eq!(version(Live::default()), "1");
    assert!(version(one()).starts_with("1."));
    assert_eq!(version(one()), version(one()));
    let other = live(vec![instance("api", "api-1", 15012, &[9000])]);
    assert_ne!(version(one()), version(other));
}

#[test]
fn versions_do_not_depend_on_chance() {
    let policies: String = (0..20)
        .map(|index| {
            format!("---\n{{kind: Policy, name: p{index}, spec: {{to: [{{service: api}}], action: deny, methods: [GET, PUT]}}}}\n")
        })
        .collect();
    let needs = instance("api", "api-1", 15011, &[9000]).needs;
    let version = || {
        let world = world(config(&format!("{API}\n{policies}")), Live::default());
        let view = sidecar(&world, &needs);
        view.of(ResourceType::Listener).resources["inbound|9000||api"].version.clone()
    };
    assert_eq!(version(), version());
}

#[test]
fn outlier_detection_ejects_for_what_was_asked_only() {
    let documents = "{kind: Service, name: api, spec: {ports: [{port: 9000, protocol: http}], outlierDetection: {consecutiveGatewayFailure: 3}}}";
    let view = world(config(documents), Live::default()).view(&ViewKey::Foreign);
    let cluster: Cluster = message(&view, ResourceType::Cluster, "outbound|9000||api");
    let outlier = cluster.outlier_detection.unwrap();
    assert_eq!(outlier.enforcing_consecutive_5xx.unwrap().value, 0);
    assert_eq!(outlier.enforcing_consecutive_gateway_failure.unwrap().value, 100);
    assert_eq!(outlier.enforcing_success_rate.unwrap().value, 0);
}

/// The RBAC filters of the inbound listener, as JSON.
fn rbac(documents: &str) -> Vec<Value> {
    let needs = instance("api", "api-1", 15011, &[9000]).needs;
    let view = sidecar(&world(config(documents), Live::default()), &needs);
    let schema = Schema::load().unwrap();
    let listener = json_of(&schema, &view, ResourceType::Listener, "inbound|9000||api");
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    let filters = manager["http_filters"].as_array().unwrap().iter();
    filters.filter(|it| it["name"] != "envoy.filters.http.router").cloned().collect()
}

#[test]
fn deny_is_judged_before_allow_and_names_the_policy() {
    let filters = rbac(&format!(
        "{API}
---
{{kind: Mesh, name: default, spec: {{defaultAction: deny}}}}
---
{{kind: Policy, name: no-put, spec: {{to: [{{service: api}}], action: deny, methods: [PUT]}}}}
---
{{kind: Policy, name: web, spec: {{to: [{{service: api}}], action: allow, from: [{{service: api}}], methods: [GET, HEAD], paths: [\"/v1/*\", /x]}}}}"
    ));
    let rules: Vec<&Value> = filters.iter().map(|it| &it["typed_config"]["rules"]).collect();
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0]["action"], "DENY");
    assert_eq!(
        rules[0]["policies"],
        json!({"no-put": {
            "permissions": [{"header": {"name": ":method", "string_match": {"exact": "PUT"}}}],
            "principals": [{"any": true}],
        }})
    );
    // ALLOW is the default value of the field.
    assert_eq!(rules[1].get("action"), None);
    let web = &rules[1]["policies"]["web"];
    assert_eq!(
        web["principals"],
        json!([{"authenticated": {"principal_name": {"exact": "spiffe://outrigger.local/ns/default/svc/api"}}}])
    );
    let paths = &web["permissions"][0]["and_rules"]["rules"][1]["or_rules"]["rules"];
    assert_eq!(
        *paths,
        json!([
            {"url_path": {"path": {"prefix": "/v1/"}}},
            {"url_path": {"path": {"exact": "/x"}}},
        ])
    );
}

#[test]
fn with_default_deny_and_no_policy_nobody_is_allowed() {
    let filters =
        rbac(&format!("{API}\n---\n{{kind: Mesh, name: default, spec: {{defaultAction: deny}}}}"));
    assert_eq!(filters.len(), 1);
    assert_eq!(filters[0]["name"], "envoy.filters.http.rbac.allow");
    assert_eq!(filters[0]["typed_config"]["rules"], json!({}));
    assert!(rbac(API).is_empty());
}

#[test]
fn callers_of_a_port_without_http_are_admitted_by_their_certificate() {
    use super::policy::{Callers, callers, of};
    let documents = |policy: &str| {
        config(&format!(
            "{{kind: Service, name: api, spec: {{ports: [{{port: 1, protocol: tcp}}, {{port: 3, protocol: http}}]}}}}
---
{{kind: Service, name: web, spec: {{ports: [{{port: 2, protocol: http}}]}}}}
{policy}"
        ))
    };
    let admitted = |policy: &str| {
        let config = documents(policy);
        match callers(&config, &of(&config, "api")) {
            Callers::Any => vec!["*".to_owned()],
            Callers::Only(ids) => {
                ids.iter().map(|id| id.rsplit('/').next().unwrap().to_owned()).collect()
            }
        }
    };
    const DENY: &str = "---\n{kind: Mesh, name: default, spec: {defaultAction: deny}}\n";
    assert_eq!(admitted(""), ["*"]);
    assert!(admitted(DENY).is_empty());
    let allow = "---\n{kind: Policy, name: p, spec: {to: [{service: api}], action: allow, from: [{service: web}]}}";
    assert_eq!(admitted(&format!("{DENY}{allow}")), ["web"]);
    // What a policy asks of requests cannot be seen: that does not allow, and does not save from a denial.
    let get = "---\n{kind: Policy, name: p, spec: {to: [{service: api}], action: allow, from: [{service: web}], methods: [GET]}}";
    assert!(admitted(&format!("{DENY}{get}")).is_empty());
    let deny = "---\n{kind: Policy, name: p, spec: {to: [{service: api}], action: deny, from: [{service: web}], methods: [GET]}}";
    assert_eq!(admitted(deny), ["api"]);
    let all = "---\n{kind: Policy, name: p, spec: {to: [{service: api}], action: deny}}";
    assert!(admitted(all).is_empty());
}

#[test]
fn while_permissive_a_plaintext_caller_is_served_and_judged() {
    let needs = instance("api", "api-1", 15011, &[9000]).needs;
    let chain = |mode: &str| {
        let documents =
            format!("{API}\n---\n{{kind: Mesh, name: default, spec: {{mtls: {mode}}}}}");
        let view = sidecar(&world(config(&documents), Live::default()), &needs);
        let schema = Schema::load().unwrap();
        let listener = json_of(&schema, &view, ResourceType::Listener, "inbound|9000||api");
        let chains = listener["filter_chains"].as_array().unwrap().clone();
        let plaintext =
            chains.iter().find(|it| it["filter_chain_match"]["transport_protocol"] == "raw_buffer");
        let manager = &plaintext.unwrap()["filters"][0]["typed_config"];
        manager["route_config"]["virtual_hosts"][0]["routes"][0].clone()
    };
    let strict = chain("strict");
    assert_eq!(strict["direct_response"]["status"], 403);
    assert_eq!(strict["response_headers_to_add"][0]["header"]["value"], "peer_not_tls");
    assert_eq!(chain("permissive")["route"]["cluster"], "inbound|9000||api");
}

/// Everything that our own sidecar refuses of a view, as it would say in its rejection.
fn refused_by_sidecar(view: &View) -> Vec<String> {
    use outrigger_sidecar::config::{Rejected, cluster, endpoint, listener, route, secret};
    let mut refused = Vec::new();
    for kind in ResourceType::ALL {
        // What only gRPC clients ask for is not for a sidecar.
        let resources = view.of(kind).resources.values().filter(|it| it.in_wildcard);
        for name in resources.map(|resource| &*resource.name) {
            let problems: Result<(), Vec<Rejected>> = match kind {
                ResourceType::Secret => secret::from_proto(message(view, kind, name)).map(drop),
                ResourceType::Cluster => cluster::from_proto(message(view, kind, name)).map(drop),
                ResourceType::Endpoint => endpoint::from_proto(message(view, kind, name)).map(drop),
                ResourceType::Listener => listener::from_proto(message(view, kind, name)).map(drop),
                ResourceType::Route => route::from_proto(message(view, kind, name)).map(drop),
            };
            let problems = problems.err().unwrap_or_default();
            refused.extend(problems.iter().map(|problem| format!("{kind:?} {name}: {problem}")));
        }
    }
    refused
}

#[test]
fn our_sidecar_accepts_everything_that_is_made_for_it() {
    let none: Vec<String> = Vec::new();
    let roots = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert;
    for mode in ["strict", "permissive"] {
        let mesh =
            format!("{{kind: Mesh, name: default, spec: {{mtls: {mode}, defaultAction: deny}}}}");
        let world = World::after(
            &World::default(),
            Inputs {
                config: applied(&config(MESH), &mesh),
                live: live(vec![instance("api", "api-2", 15012, &[9000])]),
                trust: Arc::new(Trust { roots: roots.pem().into(), ..Trust::default() }),
                ..Inputs::default()
            },
        );
        let api = instance_with(
            "api",
            "api-1",
            registry::Hello {
                inbound_port: 15011,
                outbound_port: 15001,
                app_ports: [9000, 9001]
                    .map(|port| registry::AppPort { port, ..Default::default() })
                    .to_vec(),
                outbounds: vec![registry::Outbound {
                    service: "api".to_owned(),
                    port: 9000,
                    listen: "127.0.0.1:19000".to_owned(),
                }],
                ..Default::default()
            },
        );
        assert_eq!(refused_by_sidecar(&sidecar(&world, &api.needs)), none);
        let edge = instance("edge", "edge-1", 15010, &[]);
        assert_eq!(refused_by_sidecar(&sidecar(&world, &edge.needs)), none);
        let foreign = refused_by_sidecar(&world.view(&ViewKey::Foreign));
        assert_eq!(foreign, none);
    }
}

#[test]
fn a_cluster_is_encoded_once_for_every_sidecar_and_the_routes_of_all_services_too() {
    let world = small_mesh();
    let needs = |port: u32| {
        instance_with(
            "api",
            "api-1",
            registry::Hello { inbound_port: port, outbound_port: 15001, ..Default::default() },
        )
        .needs
    };
    let (one, other) = (sidecar(&world, &needs(15011)), sidecar(&world, &needs(15012)));
    for (kind, name) in
        [(ResourceType::Cluster, "outbound|9000||api"), (ResourceType::Route, "outbound")]
    {
        let resource = |view: &View| view.of(kind).resources[name].clone();
        assert!(Arc::ptr_eq(&resource(&one), &resource(&other)), "{name}");
    }
    // Sidecars with the same needs have the very same view.
    assert!(Arc::ptr_eq(&one, &sidecar(&world, &needs(15011))));
}

#[test]
fn the_way_to_an_endpoint_without_a_sidecar_outlasts_its_object() {
    let object = "{kind: Endpoint, name: plain, spec: {service: api, address: 127.0.0.9, port: 1}}";
    let needs = instance_with(
        "web",
        "web-1",
        registry::Hello { inbound_port: 15010, outbound_port: 15001, ..Default::default() },
    )
    .needs;
    let matches = |world: &World| {
        let view = sidecar(world, &needs);
        let cluster: Cluster = message(&view, ResourceType::Cluster, "outbound|9000||api");
        cluster.transport_socket_matches.len()
    };
    let with = world(applied(&config(API), object), Live::default());
    assert_eq!(matches(&with), 2);
    let without = applied(with.config(), "{kind: Endpoint, name: plain, delete: true}");
    let gone = Inputs { config: without, ..Inputs::default() };
    let lingering = Inputs { lingering: Arc::new(["api".into()].into()), ..gone.clone() };
    let moment_later = World::after(&with, lingering);
    assert_eq!(matches(&moment_later), 2);
    assert_eq!(matches(&World::after(&moment_later, gone)), 0);
}

/// Everything that a Service or Route may ask for beyond the small mesh.
const MORE: &str = "
kind: Service
name: ring
spec:
  ports: [{port: 7001, protocol: http2}]
  loadBalancer: {policy: ring_hash, hashOn: [{header: x-user}, {cookie: s}, {query: q}, {sourceIp: true}], localityWeighted: true}
  healthCheck: {grpc: {service: ledger}}
---
kind: Service
name: table
spec:
  ports: [{port: 7002, protocol: tcp}]
  loadBalancer: {policy: maglev, hashOn: [{sourceIp: true}]}
  healthCheck: {tcp: {}, interval: 1s}
---
kind: Service
name: slow
spec:
  ports: [{port: 7003, protocol: http}]
  loadBalancer: {policy: round_robin, slowStart: 30s, localityWeighted: true}
  healthCheck: {http: {path: /health}}
---
kind: Service
name: least
spec:
  ports: [{port: 7004, protocol: http}]
  loadBalancer: {slowStart: 10s}
---
kind: Service
name: quick
spec:
  ports: [{port: 7005, protocol: http}]
  loadBalancer: {policy: peak_ewma, slowStart: 500ms, localityWeighted: true}
---
kind: Route
name: broken-on-purpose
spec:
  hosts: [slow]
  rules:
  - filters: [{type: FaultInjection, faultInjection: {delay: {duration: 2s, percent: 50}, abort: {httpStatus: 503, percent: 10}}}]
    backendRefs: [{name: ring, weight: 1}, {name: slow, weight: 1}]
";

fn with_more() -> (World, Arc<Needs>) {
    let roots = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert;
    let world = World::after(
        &World::default(),
        Inputs {
            config: config(MORE),
            trust: Arc::new(Trust { roots: roots.pem().into(), ..Trust::default() }),
            ..Inputs::default()
        },
    );
    let hello = registry::Hello {
        inbound_port: 15010,
        outbound_port: 15001,
        outbounds: vec![registry::Outbound {
            service: "table".to_owned(),
            port: 7002,
            listen: "127.0.0.1:17002".to_owned(),
        }],
        ..Default::default()
    };
    (world, instance_with("web", "web-1", hello).needs)
}

#[test]
fn our_sidecar_accepts_every_way_to_balance_to_check_and_to_break() {
    let (world, needs) = with_more();
    let none: Vec<String> = Vec::new();
    assert_eq!(refused_by_sidecar(&sidecar(&world, &needs)), none);
    assert_eq!(refused_by_sidecar(&world.view(&ViewKey::Foreign)), none);
}

#[test]
fn balancing_checks_and_faults_reach_the_resources_that_say_them() {
    let (world, needs) = with_more();
    let view = sidecar(&world, &needs);
    let schema = Schema::load().unwrap();
    let cluster = |name| json_of(&schema, &view, ResourceType::Cluster, name);
    let ring = cluster("outbound|7001||ring");
    assert_eq!(ring["lb_policy"], "RING_HASH");
    assert_eq!(ring["common_lb_config"], json!({"locality_weighted_lb_config": {}}));
    assert_eq!(ring["health_checks"][0]["grpc_health_check"]["service_name"], "ledger");
    let table = cluster("outbound|7002||table");
    assert_eq!(
        (&table["lb_policy"], &table["health_checks"][0]["interval"]),
        (&json!("MAGLEV"), &json!("1s"))
    );
    let slow = cluster("outbound|7003||slow");
    assert_eq!(slow["round_robin_lb_config"]["slow_start_config"]["slow_start_window"], "30s");
    // Between sidecars it is HTTP/2, whatever the application speaks.
    assert_eq!(slow["health_checks"][0]["http_health_check"]["codec_client_type"], "HTTP2");
    let least = cluster("outbound|7004||least");
    assert_eq!(least["least_request_lb_config"]["slow_start_config"]["slow_start_window"], "10s");
    let foreign = world.view(&ViewKey::Foreign);
    let quick = "outbound|7005||quick";
    for quick in [cluster(quick), json_of(&schema, &foreign, ResourceType::Cluster, quick)] {
        let policies = quick["load_balancing_policy"]["policies"].as_array().unwrap();
        let config = |index: usize| &policies[index]["typed_extension_config"]["typed_config"];
        assert_eq!(
            config(0)["type_url"],
            "type.googleapis.com/outrigger.load_balancing.v1.PeakEwma"
        );
        assert_eq!(
            config(0)["value"],
            json!({"slow_start_window": "0.5s", "locality_weighted": true})
        );
        let name = |index| config(index)["@type"].as_str().unwrap().rsplit('.').next().unwrap();
        assert_eq!((name(1), name(2), policies.len()), ("LeastRequest", "WrrLocality", 3));
        let slow_start = &config(1)["slow_start_config"]["slow_start_window"];
        assert_eq!(slow_start, "0.500s");
    }
    let foreign = json_of(&schema, &foreign, ResourceType::Cluster, "outbound|7003||slow");
    assert_eq!(foreign["health_checks"][0]["http_health_check"].get("codec_client_type"), None);

    let routes = json_of(&schema, &view, ResourceType::Route, "outbound");
    let text = routes.to_string();
    assert!(text.contains("\"hash_policy\":[{\"header\":{\"header_name\":\"x-user\"}}"), "{text}");
    assert!(text.contains("\"http_status\":503"), "{text}");
    let listener = json_of(&schema, &view, ResourceType::Listener, "outbound").to_string();
    assert!(listener.contains("envoy.filters.http.fault"), "{listener}");
    let tcp = json_of(&schema, &view, ResourceType::Listener, "outbound|7002||table").to_string();
    assert!(tcp.contains("\"hash_policy\":[{\"source_ip\":{}}]"), "{tcp}");
    let without = small_mesh();
    let plain = json_of(&schema, &sidecar(&without, &needs), ResourceType::Listener, "outbound");
    assert!(!plain.to_string().contains("fault"), "what nobody asked for is not there");
}
