//! The interface over a real connection, with a control thread that answers from fixed values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use clap::Parser;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::cluster::testing::{assignment, config, endpoint, group, outlier_detection};
use crate::cluster::{Manager, Outcome};
use crate::config;
use crate::config::cluster::Discovery;
use crate::config::endpoint::{HealthStatus, Locality};
use crate::config::runtime::Entry;
use crate::stats::{Registry, Scope, TcpCells};
use crate::tls;
use crate::transport::ListeningSocket;

struct Fixture {
    registry: Arc<Registry>,
    status: Arc<Status>,
    address: SocketAddr,
    commands: mpsc::UnboundedReceiver<Command>,
}

fn fixture(clusters: Vec<ClusterStatus>, dumped: Dumped) -> Fixture {
    let registry = Registry::new(0);
    let status = Status::new(&registry, 2);
    let args = ["sidecar", "-c", "boot.yaml", "-l", "warn", "--drain-time-s", "5"];
    let args = crate::cli::Args::try_parse_from(args).unwrap();
    // Field 1, a string of 2 bytes: the id.
    let info = Info::new(Bytes::from_static(b"\x0a\x02n1"), &args);
    let (admin, mut asked) = Admin::new(&registry, &status, info);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.set_nonblocking(true).unwrap();
    tokio::spawn(serve(ListeningSocket::Tcp(socket), admin));
    let (done, commands) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(query) = asked.recv().await {
            match query {
                Query::Listeners(answer) => drop(answer.send(vec![ListenerStatus {
                    name: "l1".into(),
                    local_addresses: vec![(std::net::Ipv6Addr::LOCALHOST, 80).into()],
                }])),
                Query::Clusters(answer) => drop(answer.send(clusters.clone())),
                Query::ConfigDump(answer) => drop(answer.send(dumped.clone())),
                Query::Certificates(answer) => drop(answer.send(Vec::new())),
                Query::Unready(answer) => drop(answer.send(vec![Unready {
                    who: "Cluster a".to_owned(),
                    waits_for: vec!["EDS a".to_owned(), "SDS id".to_owned()],
                }])),
                Query::FlushStats(answer) => drop(answer.send(())),
                Query::Runtime(answer) => drop(answer.send(RuntimeStatus {
                    layers: vec!["base".into(), "admin".into()],
                    entries: vec![Entry {
                        key: "a.b".into(),
                        layers: vec!["1".into(), "".into()],
                        last: "1".into(),
                    }],
                })),
                Query::ModifyRuntime(changes, answer) => {
                    let refused = Err("No admin layer specified".to_owned());
                    drop(answer.send(if changes.len() > 1 { Ok(()) } else { refused }));
                }
                Query::Command(Command::Quit, answer) => {
                    drop(answer.send(Err("not now".to_owned())));
                }
                Query::Command(command, answer) => {
                    done.send(command).unwrap();
                    drop(answer.send(Ok(())));
                }
            }
        }
    });
    Fixture { registry, status, address, commands }
}

fn plain() -> Fixture {
    fixture(Vec::new(), Dumped::default())
}

impl Fixture {
    /// Status and body.
    async fn send(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("cache-control: no-cache, max-age=0"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send("GET", path, "host: localhost\r\n").await
    }

    async fn post(&self, path: &str) -> (u16, String) {
        self.send("POST", path, "host: localhost\r\n").await
    }

    async fn json(&self, path: &str) -> Json {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn what_changes_something_wants_post_and_what_is_unknown_is_404_with_help() {
    let mut fixture = plain();
    for path in [
        "/quitquitquit",
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/drain_listeners",
        "/reset_counters",
        "/reopen_logs",
        "/logging",
    ] {
        let (status, body) = fixture.get(path).await;
        assert_eq!((status, body.as_str()), (405, "Method GET not allowed, POST required."));
    }
    let (status, body) = fixture.post("/nope").await;
    assert_eq!(status, 404);
    assert!(
        body.starts_with("invalid path. admin commands are:\n  /: Admin home page\n"),
        "{body}"
    );
    assert!(fixture.commands.try_recv().is_err(), "nothing was done");
}

#[tokio::test]
async fn commands_reach_the_control_thread_and_its_refusal_the_client() {
    let mut fixture = plain();
    assert_eq!(fixture.post("/drain_listeners?graceful&inboundonly").await, (200, "OK\n".into()));
    let drain = Command::DrainListeners { graceful: true, inbound_only: true, skip_exit: false };
    assert_eq!(fixture.commands.recv().await, Some(drain));
    assert_eq!(fixture.post("/reopen_logs").await.0, 200);
    assert_eq!(fixture.commands.recv().await, Some(Command::ReopenLogs));
    assert_eq!(fixture.post("/quitquitquit").await, (500, "not now\n".into()));
}

#[tokio::test]
async fn ready_is_200_only_while_live_and_names_the_state() {
    let fixture = plain();
    assert_eq!(fixture.get("/ready").await, (503, "PRE_INITIALIZING\n".into()));
    fixture.status.set(State::Initializing);
    assert_eq!(fixture.get("/ready").await, (503, "INITIALIZING\n".into()));
    fixture.status.set(State::Live);
    assert_eq!(fixture.get("/ready").await, (200, "LIVE\n".into()));
    fixture.post("/healthcheck/fail").await;
    assert_eq!(fixture.get("/ready").await, (503, "DRAINING\n".into()));
    let live = fixture.get("/stats?filter=^server.(live|state)$").await.1;
    assert_eq!(live, "server.live: 0\nserver.state: 1\n");
    fixture.post("/healthcheck/ok").await;
    assert_eq!(fixture.get("/ready").await, (200, "LIVE\n".into()));
}

#[tokio::test]
async fn a_host_that_is_a_name_and_a_post_from_another_origin_are_refused() {
    let fixture = plain();
    assert_eq!(fixture.send("GET", "/stats", "host: evil.example\r\n").await.0, 403);
    assert_eq!(fixture.send("GET", "/stats", "").await.0, 403);
    assert_eq!(fixture.send("GET", "/stats", "host: 127.0.0.1:9901\r\n").await.0, 200);
    let from = |origin: &str| format!("host: localhost:1\r\norigin: {origin}\r\n");
    let path = "/reset_counters";
    assert_eq!(fixture.send("POST", path, &from("https://evil.example")).await.0, 403);
    assert_eq!(fixture.send("POST", path, &from("null")).await.0, 403);
    assert_eq!(fixture.send("POST", path, &from("http://localhost:1")).await.0, 200);
}

#[tokio::test]
async fn stats_have_formats_filters_and_errors_of_envoy() {
    let fixture = plain();
    let cells = fixture.registry.scope::<TcpCells>(Scope::Tcp("x".into()));
    cells.local().idle_timeout.inc();
    let (_, body) = fixture.get("/stats?filter=^tcp%5C.&usedonly").await;
    assert_eq!(body, "tcp.x.idle_timeout: 1\n");
    assert_eq!(
        fixture.json("/stats?format=json&filter=tcp.x.idle").await,
        json!({"stats": [{"name": "tcp.x.idle_timeout", "value": 1}]})
    );
    for path in
        ["/stats/prometheus?filter=tcp.x.idle", "/stats?format=prometheus&filter=tcp.x.idle"]
    {
        let expected = "# TYPE envoy_tcp_idle_timeout counter\n\
                        envoy_tcp_idle_timeout{envoy_tcp_prefix=\"x\"} 1\n";
        assert_eq!(fixture.get(path).await, (200, expected.into()));
    }
    assert_eq!(fixture.post("/reset_counters").await, (200, "OK\n".into()));
    assert_eq!(fixture.get("/stats?filter=tcp.x.idle").await.1, "tcp.x.idle_timeout: 0\n");
    for path in [
        "/stats?filter=%5B",
        "/stats?format=foo",
        "/stats?type=Foo",
        "/stats?histogram_buckets=foo",
        "/clusters?filter=%5B",
        "/config_dump?name_regex=%5B",
    ] {
        assert_eq!(fixture.get(path).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn listeners_are_lines_or_json() {
    let fixture = plain();
    assert_eq!(fixture.get("/listeners").await.1, "l1::[::1]:80\n");
    assert_eq!(
        fixture.json("/listeners?format=json").await,
        json!({"listener_statuses": [{
            "name": "l1",
            "local_address": {"socket_address": {"address": "::1", "port_value": 80}},
        }]})
    );
}

#[tokio::test]
async fn server_info_has_the_node_and_the_options() {
    let fixture = plain();
    fixture.status.set(State::Live);
    let info = fixture.json("/server_info").await;
    assert_eq!(info["state"], "LIVE");
    assert_eq!(info["node"], json!({"id": "n1"}));
    let options = &info["command_line_options"];
    for (option, expected) in [
        ("concurrency", json!(2)),
        ("config_path", json!("boot.yaml")),
        ("mode", json!("Serve")),
        ("log_level", json!("warning")),
        ("drain_time", json!("5s")),
        ("restart_epoch", json!(0)),
    ] {
        assert_eq!(options[option], expected, "{option}");
    }
    assert_eq!(info["version"].as_str().unwrap().split('/').count(), 5, "five parts as Envoy's");
    assert_eq!(fixture.json("/certs").await, json!({"certificates": []}));
    assert_eq!(
        fixture.json("/init_dump").await,
        json!({"unready_targets_dumps": [
            {"name": "init manager Cluster a", "target_names": ["target EDS a", "target SDS id"]},
        ]})
    );
    assert!(fixture.json("/memory").await["allocated"].is_string());
    assert_eq!(fixture.post("/logging?level=nonsense").await.0, 400);
    assert_eq!(fixture.post("/logging?nonsense=info").await.0, 400);
}

/// A cluster with outlier detection: one endpoint healthy, one degraded, one ejected.
async fn cluster() -> (Manager, ClusterStatus) {
    let mut manager = Manager::new(&Registry::new(0));
    let mut endpoints = vec![endpoint(18081), endpoint(18082), endpoint(18083)];
    endpoints[1].hostname = "hh".into();
    endpoints[1].weight = 3;
    endpoints[1].health = HealthStatus::Degraded;
    let mut locality = group(0, endpoints);
    locality.locality =
        Arc::new(Locality { region: "r".into(), zone: "z".into(), sub_zone: "".into() });
    let config = config::cluster::Cluster {
        outlier_detection: Some(outlier_detection()),
        discovery: Discovery::Static(Arc::new(assignment("a:b", vec![locality]))),
        ..config("a:b")
    };
    manager.set(Arc::new(config), &mut tls::Contexts::new()).unwrap();
    let cluster = Arc::clone(manager.get("a:b").unwrap());
    let endpoints: Vec<_> = cluster.hosts.load().endpoints().cloned().collect();
    let cells = endpoints[0].stats.local();
    cells.cx_total.add(2);
    cells.cx_connect_fail.add(2);
    cells.rq_error.add(2);
    (0..5).for_each(|_| cluster.report(&endpoints[2], Outcome::Status(500)));
    let _ = tokio::time::timeout(Duration::from_secs(5), manager.next()).await;
    (manager, ClusterStatus { cluster, added_via_api: false })
}

#[tokio::test]
async fn clusters_as_text_are_envoys_lines_and_the_reason_and_end_of_an_ejection() {
    let (_manager, status) = cluster().await;
    let fixture = fixture(vec![status], Dumped::default());
    let (_, body) = fixture.get("/clusters").await;
    // As Envoy 1.40 prints this cluster.
    let expected = "a:b::observability_name::a:b
a:b::outlier::success_rate_average::-1
a:b::outlier::success_rate_ejection_threshold::-1
a:b::outlier::local_origin_success_rate_average::-1
a:b::outlier::local_origin_success_rate_ejection_threshold::-1
a:b::default_priority::max_connections::1024
a:b::default_priority::max_pending_requests::1024
a:b::default_priority::max_requests::1024
a:b::default_priority::max_retries::3
a:b::high_priority::max_connections::1024
a:b::high_priority::max_pending_requests::1024
a:b::high_priority::max_requests::1024
a:b::high_priority::max_retries::3
a:b::added_via_api::false
a:b::127.0.0.1:18081::cx_active::0
a:b::127.0.0.1:18081::cx_connect_fail::2
a:b::127.0.0.1:18081::cx_total::2
a:b::127.0.0.1:18081::rq_active::0
a:b::127.0.0.1:18081::rq_error::2
a:b::127.0.0.1:18081::rq_pending_active::0
a:b::127.0.0.1:18081::rq_success::0
a:b::127.0.0.1:18081::rq_timeout::0
a:b::127.0.0.1:18081::rq_total::0
a:b::127.0.0.1:18081::hostname::
a:b::127.0.0.1:18081::health_flags::healthy
a:b::127.0.0.1:18081::weight::1
a:b::127.0.0.1:18081::region::r
a:b::127.0.0.1:18081::zone::z
a:b::127.0.0.1:18081::sub_zone::
a:b::127.0.0.1:18081::canary::false
a:b::127.0.0.1:18081::priority::0
a:b::127.0.0.1:18081::success_rate::-1
a:b::127.0.0.1:18081::local_origin_success_rate::-1
";
    assert!(body.starts_with(expected), "{body}");
    assert!(body.contains("a:b::127.0.0.1:18082::hostname::hh\n"));
    assert!(body.contains("a:b::127.0.0.1:18082::health_flags::/degraded_eds_health\n"));
    assert!(body.contains("a:b::127.0.0.1:18083::health_flags::/failed_outlier_check\n"));
    assert!(body.contains("a:b::127.0.0.1:18083::ejected_because::consecutive_5xx\n"));
    assert!(body.contains("a:b::127.0.0.1:18083::ejected_until::20"), "{body}");
    assert_eq!(fixture.get("/clusters?filter=nobody").await.1, "");
}

#[tokio::test]
async fn clusters_as_json_have_envoys_shape() {
    let (_manager, status) = cluster().await;
    let fixture = fixture(vec![status], Dumped::default());
    let all = fixture.json("/clusters?format=json").await;
    let cluster = &all["cluster_statuses"][0];
    assert_eq!((&cluster["name"], &cluster["observability_name"]), (&json!("a:b"), &json!("a:b")));
    assert_eq!(
        cluster["circuit_breakers"]["thresholds"],
        json!([
            {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 3},
            {"priority": "HIGH", "max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 3},
        ])
    );
    assert_eq!(
        cluster["host_statuses"][0],
        json!({
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 18081}},
            "stats": [
                {"value": "2", "name": "cx_connect_fail"},
                {"value": "2", "name": "cx_total"},
                {"value": "2", "name": "rq_error"},
                {"name": "rq_success"},
                {"name": "rq_timeout"},
                {"name": "rq_total"},
                {"type": "GAUGE", "name": "cx_active"},
                {"type": "GAUGE", "name": "rq_active"},
                {"type": "GAUGE", "name": "rq_pending_active"},
            ],
            "health_status": {"eds_health_status": "HEALTHY"},
            "weight": 1,
            "locality": {"region": "r", "zone": "z"},
        })
    );
    let ejected = &cluster["host_statuses"][2]["health_status"];
    assert_eq!(ejected["failed_outlier_check"], true);
    assert_eq!(ejected["ejected_because"], "consecutive_5xx");
    assert_eq!(fixture.json("/clusters?format=json&filter=nobody").await, json!({}));
}

fn entry(type_name: &str, name: &str, state: ResourceState, bytes: &'static [u8]) -> DumpEntry {
    DumpEntry {
        type_url: format!("type.googleapis.com/{type_name}"),
        name: name.into(),
        state,
        version: "v1".to_owned(),
        last_updated: UNIX_EPOCH + Duration::from_millis(1_795_498_680_226),
        bytes: Bytes::from_static(bytes),
        error: None,
    }
}

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "envoy.config.listener.v3.Listener";

#[tokio::test]
async fn a_config_dump_has_envoys_messages_with_versions_times_and_errors() {
    // Field 1 of each message is its name.
    let mut refused = entry(CLUSTER, "b", ResourceState::Active, b"\x0a\x01b");
    refused.error = Some(DumpError {
        failed_configuration: Bytes::from_static(b"\x0a\x01b"),
        last_update_attempt: UNIX_EPOCH,
        details: "lb_policy: not supported".to_owned(),
        version: "v2".to_owned(),
    });
    let dumped = Dumped {
        missing: Vec::new(),
        bootstrap: Some((Bytes::from_static(b"\x0a\x04\x0a\x02n1"), UNIX_EPOCH)),
        resources: vec![
            entry(CLUSTER, "a", ResourceState::Static, b"\x0a\x01a"),
            refused,
            entry(LISTENER, "l", ResourceState::Active, b"\x0a\x01l"),
            entry(LISTENER, "w", ResourceState::Warming, b"\x0a\x01w"),
            entry(
                "envoy.config.endpoint.v3.ClusterLoadAssignment",
                "a",
                ResourceState::Active,
                b"\x0a\x01a",
            ),
        ],
    };
    let fixture = fixture(Vec::new(), dumped);
    let dump = fixture.json("/config_dump").await;
    let types: Vec<_> =
        dump["configs"].as_array().unwrap().iter().map(|c| c["@type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "ListenersConfigDump",
            "RoutesConfigDump",
            "SecretsConfigDump"
        ]
        .map(|name| format!("type.googleapis.com/envoy.admin.v3.{name}"))
    );
    assert_eq!(dump["configs"][0]["bootstrap"], json!({"node": {"id": "n1"}}));
    let clusters = &dump["configs"][1];
    let cluster =
        |name: &str| json!({"@type": format!("type.googleapis.com/{CLUSTER}"), "name": name});
    let time = "2026-11-24T05:38:00.226Z";
    assert_eq!(
        clusters["static_clusters"],
        json!([{"cluster": cluster("a"), "last_updated": time}])
    );
    assert_eq!(
        clusters["dynamic_active_clusters"],
        json!([{
            "version_info": "v1",
            "cluster": cluster("b"),
            "last_updated": time,
            "error_state": {
                "failed_configuration": cluster("b"),
                "last_update_attempt": "1970-01-01T00:00:00.000Z",
                "details": "lb_policy: not supported",
                "version_info": "v2",
            },
        }])
    );
    let listener = |name: &str| {
        json!({
            "version_info": "v1",
            "listener": {"@type": format!("type.googleapis.com/{LISTENER}"), "name": name},
            "last_updated": time,
        })
    };
    assert_eq!(
        dump["configs"][2]["dynamic_listeners"],
        json!([
            {"name": "l", "active_state": listener("l")},
            {"name": "w", "warming_state": listener("w")},
        ])
    );

    let with_endpoints = fixture.json("/config_dump?include_eds").await;
    assert_eq!(
        with_endpoints["configs"][2]["dynamic_endpoint_configs"][0]["endpoint_config"]["cluster_name"],
        "a"
    );
    let one = fixture.json("/config_dump?resource=static_clusters&mask=cluster.name").await;
    assert_eq!(
        one,
        json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
            "cluster": cluster("a"),
        }]})
    );
    let named = fixture.json("/config_dump?name_regex=^b$").await;
    assert_eq!(named["configs"][1].get("static_clusters"), None);
    assert_eq!(named["configs"][1]["dynamic_active_clusters"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.json("/config_dump?resource=dynamic_warming_clusters").await, json!({}));
    assert_eq!(fixture.get("/config_dump?resource=foo").await.0, 404);
    assert_eq!(fixture.get("/config_dump?resource=bootstrap").await.0, 400);
    assert_eq!(fixture.get("/config_dump?mask=foo").await.0, 400);
}

#[tokio::test]
async fn a_dump_shows_no_private_key_and_survives_what_it_cannot_print() {
    // Secret { name: "s", tls_certificate { private_key { inline_string: "KEY" } } }
    let secret: &[u8] = b"\x0a\x01s\x12\x07\x12\x05\x1a\x03KEY";
    // Cluster { name: "c", transport_socket { name: "t", typed_config { type_url: "x/no.Such", value: "KEY" } } }
    let unknown: &[u8] = b"\x0a\x01c\xc2\x01\x15\x0a\x01t\x1a\x10\x0a\x09x/no.Such\x12\x03KEY";
    let dumped = Dumped {
        missing: Vec::new(),
        bootstrap: None,
        resources: vec![
            entry(
                "envoy.extensions.transport_sockets.tls.v3.Secret",
                "s",
                ResourceState::Active,
                secret,
            ),
            entry(CLUSTER, "c", ResourceState::Active, unknown),
            entry(CLUSTER, "d", ResourceState::Active, b"\x0a\x01d"),
        ],
    };
    let fixture = fixture(Vec::new(), dumped);
    let (status, body) = fixture.get("/config_dump").await;
    assert_eq!(status, 200);
    assert!(!body.contains("KEY") && !body.contains("S0VZ"), "{body}");
    assert!(body.contains("[redacted]"), "{body}");
    let dump: Json = serde_json::from_str(&body).unwrap();
    let clusters = &dump["configs"][0]["dynamic_active_clusters"];
    assert!(
        clusters[0]["cluster"]["not_printable"].as_str().unwrap().contains("no.Such"),
        "{body}"
    );
    assert_eq!(clusters[1]["cluster"]["name"], "d");
}

#[tokio::test]
async fn the_runtime_is_shown_by_layer_and_changed() {
    let fixture = plain();
    let (status, body) = fixture.get("/runtime").await;
    let expected = serde_json::json!({
        "layers": ["base", "admin"],
        "entries": {"a.b": {"layer_values": ["1", ""], "final_value": "1"}},
    });
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expected);
    assert_eq!(fixture.post("/runtime_modify?a=1&b=").await, (200, "OK\n".to_owned()));
    let (status, body) = fixture.post("/runtime_modify?a=1").await;
    assert_eq!((status, &*body), (503, "No admin layer specified"));
    let (status, body) = fixture.post("/runtime_modify").await;
    assert!(status == 400 && body.starts_with("usage: "), "{status} {body}");
    assert_eq!(fixture.get("/runtime_modify?a=1").await.0, 405);
}
