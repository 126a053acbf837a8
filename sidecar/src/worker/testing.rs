//! A worker for tests: a bootstrap in YAML, real sockets on 127.0.0.1, and peers that speak raw bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Command, WorkerHandle, spawn};
use crate::access_log::{LogStreams, Writer};
use crate::cluster::Manager;
use crate::config::bootstrap;
use crate::config::http_connection_manager::RouteSource;
use crate::http::RouteTable;
use crate::listener::{Build, Listener};
use crate::local::{Local, Shared};
use crate::snapshot::{ListenerId, RouteConfigId, Snapshot};
use crate::stats::registry::Reading;
use crate::stats::{Registry, Scope};
use crate::tls;
use crate::trace::Reporters;
use crate::transport::ListeningSocket;

/// Longest wait for anything in a test.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// One worker that serves the listeners of a bootstrap.
pub(super) struct Sidecar {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) shared: Shared,
    pub(super) registry: Arc<Registry>,
    pub(super) manager: Manager,
    worker: Option<WorkerHandle>,
    writer: Writer,
}

impl Sidecar {
    /// Starts it. Listeners of the bootstrap say port 0.
    pub(super) fn start(yaml: &str) -> Self {
        let bootstrap = bootstrap::read(None, Some(yaml), &bootstrap::Options::default())
            .unwrap_or_else(|error| panic!("{error}"));
        let registry = Registry::new(1);
        let mut contexts = tls::Contexts::new();
        for secret in bootstrap.secrets {
            contexts.set_secret(secret).unwrap();
        }
        let mut manager = Manager::new(&registry);
        for cluster in &bootstrap.clusters {
            manager.set(Arc::clone(cluster), &mut contexts).unwrap();
        }
        let writer = Writer::start(&registry).unwrap();
        let shared = Shared {
            // Nobody answers: whoever asks goes on at once.
            demands: tokio::sync::mpsc::unbounded_channel().0,
            snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            server: registry.scope(Scope::Server),
            connections: Arc::new(AtomicUsize::new(0)),
            failing: Arc::default(),
            node_cluster: http::HeaderValue::from_static("test"),
            node_id: http::HeaderValue::from_static("test"),
            draining: CancellationToken::new(),
            draining_inbound: CancellationToken::new(),
            closing: CancellationToken::new(),
        };
        let control = Local::new(1, shared.clone());
        let mut tables = Vec::new();
        let mut listeners = Vec::new();
        for (index, config) in bootstrap.listeners.iter().enumerate() {
            let mut inline = Vec::new();
            let mut build = Build {
                registry: &registry,
                workers: 1,
                tls: &mut contexts,
                log_writer: &writer,
                control: &control,
                reporters: &mut Reporters::default(),
                log_streams: &mut LogStreams::default(),
                local_info: &Arc::default(),
                cluster: &mut |name| manager.id(name),
                routes: &mut |source| {
                    let RouteSource::Inline(config) = source else { panic!("no RDS here") };
                    inline.push(Arc::clone(config));
                    RouteConfigId((tables.len() + inline.len() - 1) as u32)
                },
            };
            let id = ListenerId(index as u32);
            let listener = Listener::build(id, config, None, &mut build);
            listeners
                .push(Some(Arc::new(listener.unwrap_or_else(|rejected| panic!("{rejected:?}")))));
            for config in inline {
                let table = RouteTable::build(&config, &mut |name| manager.id(name));
                tables.push(Some(Arc::new(table)));
            }
        }
        shared.snapshot.store(Arc::new(Snapshot {
            version: 1,
            listeners: listeners.into(),
            by_address: Arc::default(),
            routes: tables.into(),
            clusters: manager.table(),
        }));
        let worker = spawn(0, shared.clone()).unwrap();
        let mut addresses = Vec::new();
        for (index, _) in bootstrap.listeners.iter().enumerate() {
            let socket = bootstrap.listeners[index].address.socket();
            let socket = std::net::TcpListener::bind(socket.unwrap()).unwrap();
            socket.set_nonblocking(true).unwrap();
            addresses.push(socket.local_addr().unwrap());
            let listener = ListenerId(index as u32);
            let sockets = vec![ListeningSocket::Tcp(socket)];
            worker.commands.send(Command::Listen { listener, sockets }).unwrap();
        }
        Self { addresses, shared, registry, manager, worker: Some(worker), writer }
    }

    /// The usual: one HTTP listener that sends everything to one cluster with these endpoints. `manager` and `route` are
    /// more fields of the connection manager and of the route action, `cluster` of the cluster, all as flow YAML.
    pub(super) fn proxy(
        endpoints: &[SocketAddr],
        manager: &str,
        route: &str,
        cluster: &str,
    ) -> Self {
        Self::start(&proxy_yaml(endpoints, manager, route, cluster))
    }

    /// Takes another version of the listeners into effect, and lets the connections of the one before drain.
    pub(super) fn update(&mut self, yaml: &str) {
        let bootstrap = bootstrap::read(None, Some(yaml), &bootstrap::Options::default()).unwrap();
        let before = self.shared.snapshot.load_full();
        let mut listeners = Vec::new();
        for (index, config) in bootstrap.listeners.iter().enumerate() {
            let mut build = Build {
                registry: &self.registry,
                workers: 1,
                tls: &mut tls::Contexts::new(),
                log_writer: &self.writer,
                control: &Local::new(1, self.shared.clone()),
                reporters: &mut Reporters::default(),
                log_streams: &mut LogStreams::default(),
                local_info: &Arc::default(),
                cluster: &mut |name| self.manager.id(name),
                routes: &mut |_| RouteConfigId(index as u32),
            };
            let id = ListenerId(index as u32);
            let previous = before.listener(id).map(|listener| &**listener);
            listeners
                .push(Some(Arc::new(Listener::build(id, config, previous, &mut build).unwrap())));
        }
        let after = Snapshot {
            version: before.version + 1,
            listeners: listeners.into(),
            by_address: Arc::default(),
            routes: before.routes.clone(),
            clusters: self.manager.table(),
        };
        self.shared.snapshot.store(Arc::new(after));
        let after = self.shared.snapshot.load();
        for listener in before.listeners.iter().flatten() {
            listener.drain_unless_in(after.listener(listener.id).map(|listener| &**listener));
        }
    }

    /// A connection to the first listener.
    pub(super) async fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.addresses[0]).await.unwrap())
    }

    /// The value of a counter or gauge.
    pub(super) fn stat(&self, name: &str) -> u64 {
        let mut found = 0;
        self.registry.visit(&mut |sample| {
            if format!("{}.{}", sample.prefix, sample.name.text) == name {
                found = match sample.reading {
                    Reading::Counter { value, .. } | Reading::Gauge { value, .. } => value,
                    _ => 0,
                };
            }
        });
        found
    }

    /// Waits until a counter or gauge has a value.
    pub(super) async fn wait_for_stat(&self, name: &str, value: u64) {
        let reached = async {
            while self.stat(name) != value {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("{name} is {} and not {value}", self.stat(name));
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.worker.take().into_iter().for_each(WorkerHandle::stop);
    }
}

pub(super) fn proxy_yaml(
    endpoints: &[SocketAddr],
    manager: &str,
    route: &str,
    cluster: &str,
) -> String {
    let separated = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
    let endpoints: Vec<String> = endpoints.iter().map(endpoint_yaml).collect();
    let (manager, route, cluster) = (separated(manager), separated(route), separated(cluster));
    let endpoints = endpoints.join(", ");
    format!(
        r#"
static_resources:
  listeners:
  - name: l
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
          stat_prefix: in,
          route_config: {{virtual_hosts: [{{name: v, domains: ["*"], routes: [
            {{match: {{prefix: "/"}}, route: {{cluster: c{route}}}}}]}}]}},
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]{manager}}}
  clusters:
  - {{name: c, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: c, endpoints: [
      {{lb_endpoints: [{endpoints}]}}]}}{cluster}}}
"#
    )
}

fn endpoint_yaml(address: &SocketAddr) -> String {
    format!(
        "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
        address.ip(),
        address.port()
    )
}

/// A cluster that speaks HTTP/2.
pub(super) const HTTP2: &str = r#"typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}"#;

/// A server that the test plays.
pub(super) struct Upstream {
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

impl Upstream {
    pub(super) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// The next connection of the sidecar.
    pub(super) async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        Peer::new(accepted.expect("no connection came").unwrap().0)
    }

    /// Asserts that no connection comes for a moment.
    pub(super) async fn expect_nobody(&self) {
        let accepted =
            tokio::time::timeout(Duration::from_millis(50), self.listener.accept()).await;
        assert!(accepted.is_err(), "a connection came");
    }

    /// Answers every request on every connection with the same bytes, for as long as the test runs.
    pub(super) fn always(self, answer: &'static str) -> SocketAddr {
        let address = self.address;
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                tokio::spawn(async move {
                    let mut peer = Peer::new(stream);
                    while peer.read_head().await.is_some() {
                        peer.write(answer).await;
                    }
                });
            }
        });
        address
    }
}

/// The other end of a connection of the sidecar, either side.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) buffer: Vec<u8>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The sidecar may have closed already: what counts is what it says.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("nothing came, and no end"), Ok(1..))
    }

    /// The next head of a message, up to and with its empty line; `None` at the end.
    pub(super) async fn read_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next so many bytes.
    pub(super) async fn read_exactly(&mut self, length: usize) -> String {
        while self.buffer.len() < length {
            assert!(self.fill().await, "ended after {:?}", String::from_utf8_lossy(&self.buffer));
        }
        let bytes: Vec<u8> = self.buffer.drain(..length).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything up to the end.
    pub(super) async fn read_to_end(&mut self) -> String {
        while self.fill().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// A whole message: head, and a body of its `content-length`.
    pub(super) async fn read_message(&mut self) -> String {
        let Some(head) = self.read_head().await else { return String::new() };
        let length = header(&head, "content-length").and_then(|length| length.parse().ok());
        let body = self.read_exactly(length.unwrap_or(0)).await;
        head + &body
    }

    /// Sends a request and reads its response.
    pub(super) async fn ask(&mut self, request: &str) -> String {
        self.write(request).await;
        self.read_message().await
    }
}

/// The value of a header in a head.
pub(super) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).take_while(|line| !line.is_empty()).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of a response.
pub(super) fn status(response: &str) -> u16 {
    response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}
