//! Active health checks: what an endpoint is asked, what its answers mean, and how that shows.
//!
//! Every case has a cluster, an endpoint and a route of its own name. It goes through turns: the endpoint answers in some way
//! from then on; when `/clusters` says what is expected, a request shows whether the endpoint gets traffic.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::proxy::Kind;
use outrigger_integration::upstream::Reply;
use serde_json::Value;

use crate::parts::{bootstrap, http_listener, indent, routes};

const HEALTHY: &str = "healthy";
const FAILED: &str = "/failed_active_hc";
/// Without a panic: an unhealthy endpoint gets nothing. Envoy lets changes wait for others by default; not here.
const CALM: &str =
    "common_lb_config: {update_merge_window: 0s, healthy_panic_threshold: {value: 0}}";
const DEGRADED: &str = "/degraded_active_hc";

/// One case.
struct Scenario {
    name: &'static str,
    kind: UpstreamKind,
    /// The checker, in flow YAML.
    checker: &'static str,
    /// More fields of the health check.
    check: &'static str,
    /// More fields of the cluster.
    cluster: &'static str,
    /// More fields of the endpoint.
    endpoint: &'static str,
    turns: Vec<Turn>,
}

/// What the endpoint answers from now on (`None`: 200 with its name), the flags that come of it, and the status of a
/// request then; 0: no request.
struct Turn(Option<Reply>, &'static str, u16);

fn scenario(name: &'static str, checker: &'static str, turns: Vec<Turn>) -> Scenario {
    Scenario {
        name,
        kind: UpstreamKind::Plain,
        checker,
        check: "",
        cluster: CALM,
        endpoint: "",
        turns,
    }
}

fn grpc_scenario(name: &'static str, checker: &'static str, turns: Vec<Turn>) -> Scenario {
    Scenario { cluster: HTTP2, ..scenario(name, checker, turns) }
}

fn say(status: u16) -> Option<Reply> {
    Some(Reply::status(status))
}

/// A gRPC answer with this serving status.
fn serving(status: &str) -> Option<Reply> {
    let message = format!("\0\0\0\0\u{2}\u{8}{status}");
    Some(grpc().chunks(&[&message]).trailer("grpc-status", "0"))
}

fn grpc() -> Reply {
    Reply::status(200).header("content-type", "application/grpc")
}

const HTTP: &str = "http_health_check: {path: /health}";
const GRPC: &str = "grpc_health_check: {}";
/// A cluster that speaks HTTP/2, as one with gRPC checks has to.
const HTTP2: &str =
    "common_lb_config: {update_merge_window: 0s, healthy_panic_threshold: {value: 0}}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";
const TLS: &str = "transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    sni: server.example
    common_tls_context:
      validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}
      CERTIFICATE
common_lb_config: {update_merge_window: 0s, healthy_panic_threshold: {value: 0}}";

#[allow(clippy::too_many_lines)] // a table
fn scenarios() -> Vec<Scenario> {
    let once = || vec![Turn(None, HEALTHY, 200)];
    let never = || vec![Turn(None, FAILED, 503)];
    vec![
        // What is asked.
        scenario("http_get", HTTP, once()),
        scenario("host_is_configured", "http_health_check: {path: '/h?x=1', host: a.test}", once()),
        Scenario {
            endpoint: "health_check_config: {hostname: own.test}",
            ..scenario("host_of_the_endpoint", "http_health_check: {path: /h, host: a.test}", once())
        },
        scenario("head", "http_health_check: {path: /h, method: HEAD}", once()),
        scenario("options", "http_health_check: {path: /h, method: OPTIONS}", once()),
        scenario("post_without_body", "http_health_check: {path: /h, method: POST}", once()),
        scenario(
            "post_with_body",
            "http_health_check: {path: /h, method: POST, send: {text: '50494e47'}}",
            once(),
        ),
        scenario(
            "headers_are_added_and_removed",
            "http_health_check: {path: /h, request_headers_to_add: [{header: {key: x-a, value: '1'}}, {header: {key: x-a, value: '2'}}, \
             {header: {key: x-b, value: '3'}, append_action: OVERWRITE_IF_EXISTS}, {header: {key: x-c, value: '100%%'}}], \
             request_headers_to_remove: [user-agent]}",
            once(),
        ),
        scenario("http2", "http_health_check: {path: /h, codec_client_type: HTTP2}", once()),
        scenario(
            "http2_with_body",
            "http_health_check: {path: /h, host: a.test, codec_client_type: HTTP2, method: PUT, send: {binary: UElORw==}}",
            once(),
        ),
        Scenario {
            check: "reuse_connection: false",
            ..scenario("connection_for_each_check", HTTP, once())
        },
        Scenario {
            endpoint: "health_check_config: {address: {socket_address: {address: ${spare.host}, port_value: 1}}, port_value: ${spare.port}}",
            kind: UpstreamKind::Closed,
            ..scenario("another_port", HTTP, vec![Turn(None, HEALTHY, 503)])
        },
        Scenario {
            endpoint: "health_check_config: {address: ${spare}}",
            kind: UpstreamKind::Closed,
            ..scenario("another_address", HTTP, vec![Turn(None, HEALTHY, 503)])
        },
        Scenario {
            endpoint: "health_check_config: {disable_active_health_check: true}",
            ..scenario("not_checked", HTTP, vec![Turn(say(500), HEALTHY, 500)])
        },
        // What an answer means.
        scenario(
            "status_500_and_recovery",
            HTTP,
            vec![
                Turn(None, HEALTHY, 200),
                Turn(say(500), FAILED, 503),
                Turn(None, HEALTHY, 200),
            ],
        ),
        scenario("status_201", HTTP, vec![Turn(say(201), FAILED, 503)]),
        scenario("status_301", HTTP, vec![Turn(say(301), FAILED, 503)]),
        scenario(
            "expected_statuses",
            "http_health_check: {path: /h, expected_statuses: [{start: 201, end: 203}, {start: 404, end: 405}]}",
            vec![
                Turn(None, FAILED, 503),
                Turn(say(202), HEALTHY, 202),
                Turn(say(203), FAILED, 503),
                Turn(say(404), HEALTHY, 404),
            ],
        ),
        scenario(
            "retriable_statuses",
            "http_health_check: {path: /h, retriable_statuses: [{start: 500, end: 600}]}",
            vec![Turn(None, HEALTHY, 200), Turn(say(503), FAILED, 503), Turn(None, HEALTHY, 200)],
        ),
        Scenario {
            check: "unhealthy_threshold: 1000000",
            ..scenario(
                "a_retriable_status_counts_up_to_the_threshold",
                "http_health_check: {path: /h, retriable_statuses: [{start: 500, end: 501}]}",
                vec![
                    Turn(say(500), HEALTHY, 500),
                    Turn(say(501), FAILED, 503),
                ],
            )
        },
        scenario(
            "body_is_searched",
            "http_health_check: {path: /h, receive: [{text: '6f6b'}, {text: '79'}]}",
            vec![
                Turn(None, FAILED, 503),
                Turn(Some(Reply::status(200).body("is ok, yes")), HEALTHY, 200),
                Turn(Some(Reply::status(200).body("yes, ok")), FAILED, 503),
                Turn(Some(Reply::status(200).chunks(&["o", "k", "y"])), HEALTHY, 200),
            ],
        ),
        scenario(
            "body_is_searched_as_far_as_the_buffer_goes",
            "http_health_check: {path: /h, response_buffer_size: 4, receive: [{text: '6f6b'}]}",
            vec![
                Turn(Some(Reply::status(200).body("--ok")), HEALTHY, 200),
                Turn(Some(Reply::status(200).body("---ok")), FAILED, 503),
            ],
        ),
        scenario(
            "body_is_searched_to_its_end",
            "http_health_check: {path: /h, response_buffer_size: 0, receive: [{text: '6f6b'}]}",
            vec![Turn(Some(Reply::status(200).body("-".repeat(5000) + "ok")), HEALTHY, 200)],
        ),
        scenario(
            "a_broken_body_is_no_answer",
            HTTP,
            vec![
                Turn(None, HEALTHY, 200),
                Turn(Some(Reply::status(200).chunks(&["x"]).broken()), FAILED, 0),
            ],
        ),
        scenario(
            "no_answer",
            HTTP,
            vec![
                Turn(None, HEALTHY, 200),
                Turn(Some(Reply::reset()), FAILED, 503),
                Turn(None, HEALTHY, 200),
            ],
        ),
        Scenario {
            check: "timeout: 0.2s",
            ..scenario(
                "too_slow",
                HTTP,
                vec![
                    Turn(None, HEALTHY, 200),
                    Turn(
                        Some(Reply::status(200).after(Duration::from_secs(2))),
                        "/failed_active_hc/active_hc_timeout",
                        503,
                    ),
                    Turn(say(500), FAILED, 503),
                    Turn(None, HEALTHY, 200),
                ],
            )
        },
        Scenario { kind: UpstreamKind::Closed, ..scenario("nobody_listens", HTTP, never()) },
        Scenario {
            check: "timeout: 0.2s",
            kind: UpstreamKind::Tcp,
            ..scenario("no_http", HTTP, vec![Turn(None, FAILED, 503)])
        },
        scenario(
            "degraded",
            HTTP,
            vec![
                Turn(Some(Reply::status(200).header("x-envoy-degraded", "")), DEGRADED, 200),
                Turn(None, HEALTHY, 200),
                Turn(Some(Reply::status(500).header("x-envoy-degraded", "1")), FAILED, 503),
            ],
        ),
        scenario(
            "immediate_failure_in_a_check",
            HTTP,
            vec![
                Turn(None, HEALTHY, 200),
                Turn(
                    Some(Reply::status(500).header("x-envoy-immediate-health-check-fail", "true")),
                    "/failed_active_hc/excluded_via_immediate_hc_fail",
                    503,
                ),
                Turn(None, HEALTHY, 200),
            ],
        ),
        Scenario {
            check: "healthy_threshold: 1000000",
            ..scenario(
                "immediate_failure_in_a_response",
                HTTP,
                vec![
                    Turn(
                        Some(
                            Reply::status(200).header("x-envoy-immediate-health-check-fail", "true"),
                        ),
                        HEALTHY,
                        200,
                    ),
                    Turn(None, "/failed_active_hc/excluded_via_immediate_hc_fail", 503),
                ],
            )
        },
        scenario(
            "service_name",
            "http_health_check: {path: /h, service_name_matcher: {prefix: api}}",
            vec![
                Turn(None, FAILED, 503),
                Turn(
                    Some(Reply::status(200).header("x-envoy-upstream-healthchecked-cluster", "api-1")),
                    HEALTHY,
                    200,
                ),
                Turn(
                    Some(Reply::status(200).header("x-envoy-upstream-healthchecked-cluster", "web")),
                    FAILED,
                    503,
                ),
            ],
        ),
        scenario(
            "connection_close_is_obeyed",
            HTTP,
            vec![Turn(Some(Reply::status(200).header("connection", "close")), HEALTHY, 200)],
        ),
        Scenario {
            cluster: "common_lb_config: {update_merge_window: 0s}",
            ..scenario(
                "in_a_panic_an_unhealthy_endpoint_gets_traffic",
                HTTP,
                vec![Turn(say(500), FAILED, 500)],
            )
        },
        Scenario {
            cluster: "common_lb_config: {update_merge_window: 0s, healthy_panic_threshold: {value: 0}, ignore_new_hosts_until_first_hc: true}",
            ..scenario(
                "pending_is_over_with_the_first_check",
                HTTP,
                vec![Turn(say(500), FAILED, 503), Turn(None, HEALTHY, 200)],
            )
        },
        // gRPC.
        grpc_scenario(
            "grpc_serving",
            GRPC,
            vec![
                Turn(None, FAILED, 503),
                Turn(serving("\u{1}"), HEALTHY, 200),
                Turn(serving("\u{2}"), FAILED, 503),
                Turn(serving("\u{1}"), HEALTHY, 200),
                Turn(serving("\u{3}"), FAILED, 503),
            ],
        ),
        grpc_scenario(
            "grpc_service_and_metadata",
            "grpc_health_check: {service_name: a.B, authority: b.test, initial_metadata: [{header: {key: x-a, value: b}}]}",
            vec![Turn(serving("\u{1}"), HEALTHY, 200)],
        ),
        grpc_scenario(
            "grpc_status_counts",
            GRPC,
            vec![
                Turn(serving("\u{1}"), HEALTHY, 200),
                Turn(
                    Some(grpc().chunks(&["\0\0\0\0\u{2}\u{8}\u{1}"]).trailer("grpc-status", "14")),
                    FAILED,
                    503,
                ),
            ],
        ),
        grpc_scenario(
            "grpc_unimplemented",
            GRPC,
            vec![
                Turn(serving("\u{1}"), HEALTHY, 200),
                Turn(Some(grpc().header("grpc-status", "12")), FAILED, 503),
            ],
        ),
        grpc_scenario(
            "grpc_without_a_status",
            GRPC,
            vec![
                Turn(serving("\u{1}"), HEALTHY, 200),
                Turn(Some(grpc().chunks(&["\0\0\0\0\u{2}\u{8}\u{1}"])), FAILED, 503),
            ],
        ),
        grpc_scenario(
            "grpc_of_http_status_503",
            GRPC,
            vec![Turn(serving("\u{1}"), HEALTHY, 200), Turn(say(503), FAILED, 503)],
        ),
        grpc_scenario(
            "grpc_without_a_message",
            GRPC,
            vec![
                Turn(serving("\u{1}"), HEALTHY, 200),
                Turn(Some(grpc().chunks(&[""]).trailer("grpc-status", "0")), FAILED, 503),
            ],
        ),
        // TCP.
        Scenario {
            kind: UpstreamKind::Tcp,
            ..scenario("tcp_connects", "tcp_health_check: {}", vec![Turn(None, HEALTHY, 0)])
        },
        Scenario {
            kind: UpstreamKind::Closed,
            ..scenario("tcp_nobody_listens", "tcp_health_check: {}", never())
        },
        Scenario {
            kind: UpstreamKind::Tcp,
            ..scenario(
                "tcp_reads_what_it_sent",
                "tcp_health_check: {send: {text: '50494e47'}, receive: [{text: '7463'}, {text: '50494e47'}]}",
                vec![Turn(None, HEALTHY, 0)],
            )
        },
        Scenario {
            kind: UpstreamKind::Tcp,
            check: "timeout: 0.2s",
            ..scenario(
                "tcp_waits_for_what_does_not_come",
                "tcp_health_check: {receive: [{text: '00'}]}",
                vec![Turn(None, "/failed_active_hc/active_hc_timeout", 503)],
            )
        },
        // TLS.
        Scenario { kind: UpstreamKind::Tls("server"), cluster: TLS, ..scenario("tls", HTTP, once()) },
        Scenario {
            kind: UpstreamKind::Tls("server"),
            cluster: TLS,
            check: "tls_options: {alpn_protocols: [http/1.1]}",
            ..scenario("tls_alpn", HTTP, once())
        },
        Scenario {
            kind: UpstreamKind::Tls("server"),
            cluster: TLS,
            check: "tls_options: {alpn_protocols: [h2]}",
            ..scenario(
                "tls_alpn_http2",
                "http_health_check: {path: /h, codec_client_type: HTTP2}",
                once(),
            )
        },
        Scenario {
            kind: UpstreamKind::MutualTls("server"),
            cluster: TLS,
            endpoint: "hostname: client",
            ..scenario("tls_mutual", HTTP, once())
        },
        Scenario {
            kind: UpstreamKind::MutualTls("server"),
            cluster: TLS,
            ..scenario("tls_without_a_certificate", HTTP, never())
        },
        Scenario { cluster: TLS, ..scenario("tls_to_plaintext", HTTP, never()) },
        Scenario {
            cluster: "transport_socket_matches:
- name: plain
  match: {plain: true}
  transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}
TLS",
            check: "transport_socket_match_criteria: {plain: true}",
            ..scenario("a_transport_of_its_own", HTTP, vec![Turn(None, HEALTHY, 503)])
        },
    ]
}

impl Scenario {
    fn cluster(&self) -> String {
        let name = self.name;
        let default = |field: &str, value: &str| {
            let is_set = self.check.starts_with(&format!("{field}:"));
            if is_set { String::new() } else { format!("{field}: {value}, ") }
        };
        let check: String =
            [("timeout", "1s"), ("unhealthy_threshold", "2"), ("healthy_threshold", "2")]
                .iter()
                .map(|(field, value)| default(field, value))
                .collect();
        let more = if self.check.is_empty() { String::new() } else { format!(", {}", self.check) };
        let endpoint =
            if self.endpoint.is_empty() { String::new() } else { format!(", {}", self.endpoint) };
        let certificate = if self.name == "tls_mutual" {
            "tls_certificates: [{certificate_chain: {filename: '${DIR}/client.crt'}, private_key: {filename: '${DIR}/client.key'}}]"
        } else {
            ""
        };
        let cluster = self.cluster.replace("TLS", if self.cluster == TLS { "TLS" } else { TLS });
        let cluster = cluster.replace("CERTIFICATE", certificate);
        format!(
            "- name: {name}
  type: STATIC
  connect_timeout: 2s
  health_checks: [{{{check}interval: 0.05s, no_traffic_interval: 0.05s, {}{more}}}]
  load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: ${{{name}}}{endpoint}}}}}]}}]}}
{}",
            self.checker,
            indent(&cluster, 2)
        )
    }
}

pub(crate) fn group() -> Group {
    let scenarios = scenarios();
    let route = |it: &Scenario| {
        format!("- {{match: {{prefix: /{0}/}}, route: {{cluster: {0}}}}}\n", it.name)
    };
    let all: String = scenarios.iter().map(route).collect();
    let clusters: Vec<String> = scenarios.iter().map(Scenario::cluster).collect();
    Group {
        name: "health_checks",
        bootstrap: bootstrap(&[http_listener("LISTEN", &routes(&all))], &clusters),
        upstreams: scenarios
            .iter()
            .map(|it| (it.name, it.kind))
            .chain([("spare", UpstreamKind::Plain)])
            .collect(),
        unsupported: None,
        cases: scenarios
            .into_iter()
            .map(|it| {
                let (name, kind, turns) = (it.name, it.kind, Arc::<[Turn]>::from(it.turns));
                Case::custom(name, move |world| {
                    Box::pin(play(world, name, kind, Arc::clone(&turns)))
                })
            })
            .chain([Case::custom("statistics", |world| Box::pin(statistics(world)))])
            .collect(),
    }
}

async fn play(
    world: &World,
    name: &'static str,
    kind: UpstreamKind,
    turns: Arc<[Turn]>,
) -> Result<Observation> {
    let mut seen = Observation::default();
    let upstream = match kind {
        UpstreamKind::Tcp | UpstreamKind::Closed => None,
        _ => Some(world.upstream(name)?),
    };
    for (index, Turn(reply, flags, status)) in turns.iter().enumerate() {
        let step = format!("turn {index}");
        if let Some(upstream) = upstream {
            upstream.default_reply(reply.clone());
        }
        let host = until_flags(world, name, flags).await?;
        seen.fact(&step, "flags", flags);
        seen.fact(&step, "health_status", host);
        if *status > 0 {
            let path = format!("/{name}/");
            let outcome = Request::get(&path).send(world.address("LISTEN")?).await;
            if world.proxy.kind == Kind::Envoy && outcome.status() != *status {
                bail!("{step}: Envoy answered {outcome:?} instead of {status}");
            }
            seen.fact(&step, "status", outcome.status());
        }
    }
    if let Some(upstream) = upstream {
        let path = format!("/{name}/");
        let answers = turns.iter().any(|turn| turn.1 == HEALTHY) && name != "not_checked";
        let wanted = if answers { 3 } else { 0 };
        let mut checks = Vec::new();
        for _ in 0..500 {
            checks.extend(upstream.take().into_iter().filter(|got| got.path != path));
            if checks.len() >= wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(check) = checks.first() {
            seen.recorded("check", "upstream[0]", name, check, &world.values);
        }
        let reused = checks.windows(2).any(|pair| pair[0].connection == pair[1].connection);
        if turns.len() == 1 && wanted > 0 {
            seen.fact("check", "connections are used again", reused);
        }
    }
    Ok(seen)
}

/// Waits until `/clusters` says this of the one endpoint of a cluster. Returns what it says in JSON.
async fn until_flags(world: &World, cluster: &str, flags: &str) -> Result<Value> {
    let mut last = String::new();
    for _ in 0..500 {
        let text = world.proxy.admin("/clusters").await?;
        let begins = format!("{cluster}::");
        let line = text
            .lines()
            .find(|line| line.starts_with(&begins) && line.contains("::health_flags::"));
        last = line.and_then(|line| line.rsplit("::").next()).unwrap_or_default().to_owned();
        if last == flags {
            return health_status(world, cluster).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("{cluster} is {last:?} and not {flags:?}")
}

async fn health_status(world: &World, cluster: &str) -> Result<Value> {
    let all: Value = serde_json::from_str(&world.proxy.admin("/clusters?format=json").await?)?;
    let statuses = all["cluster_statuses"].as_array().context("no clusters")?;
    let found = statuses.iter().find(|it| it["name"] == cluster).context("no such cluster")?;
    Ok(found["host_statuses"][0]["health_status"].clone())
}

/// The names, and the values that do not depend on time.
async fn statistics(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    let text = world.proxy.admin("/stats?filter=health_check").await?;
    for line in text.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if !["cluster.http_get.", "cluster.service_name.", "cluster.nobody_listens."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            continue;
        }
        let counts = ["attempt", "success", "failure", "network_failure", "verify_cluster"];
        let is_count = counts.iter().any(|count| name.ends_with(&format!(".{count}")));
        let value = if is_count && value != "0" { "<count>" } else { value };
        seen.fact("statistics", name, value);
    }
    Ok(seen)
}
