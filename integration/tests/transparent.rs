//! Interception by the kernel: nftables redirects connections to the listener, and what the kernel remembers says where
//! they were going to.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::namespace;
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::tcp::TcpUpstream;
use outrigger_integration::upstream::Upstream;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Where clients connect to is redirected to the first listener, unless it comes from where proxies connect from.
const RULES: &str = "
table inet outrigger_test {
  chain out {
    type nat hook output priority -100;
    ip saddr 127.0.0.6 return
    ip6 saddr ::6 return
    ip daddr 127.77.0.0/16 meta l4proto tcp redirect to :15001
    ip6 daddr fd77::/16 meta l4proto tcp redirect to :15001
  }
}
";

#[test]
fn redirected_connections_go_where_they_were_going() {
    namespace::inside("redirected_connections_go_where_they_were_going", inside());
}

/// Listeners as Istio writes them: everything comes to one, which hands over to those that have no socket.
const BOOTSTRAP: &str = r#"
node: {id: test, cluster: test}
static_resources:
  listeners:
  - &outbound
    name: virtualOutbound
    address: {socket_address: {address: 0.0.0.0, port_value: 15001}}
    use_original_dst: true
    filter_chains:
    - filter_chain_match: {destination_port: 15001}
      filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: BlackHoleCluster, cluster: BlackHoleCluster}}]
    default_filter_chain:
      filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: PassthroughCluster, cluster: PassthroughCluster}}]
  - name: virtualOutbound6
    address: {socket_address: {address: "::", port_value: 15001}}
    use_original_dst: true
    filter_chains:
    - filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: PassthroughCluster6, cluster: PassthroughCluster}}]
  - name: 0.0.0.0_8080
    address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
    bind_to_port: false
    listener_filters: [{name: envoy.filters.listener.http_inspector, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}]
    filter_chains:
    - filter_chain_match: {application_protocols: [http/1.1], transport_protocol: raw_buffer}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              response_headers_to_add: [{header: {key: x-local, value: "%DOWNSTREAM_LOCAL_ADDRESS%"}}, {header: {key: x-host, value: "%UPSTREAM_HOST%"}}]
              routes: [{match: {prefix: /}, route: {cluster: PassthroughCluster}}]
          http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  - name: one
    address: {socket_address: {address: 127.77.0.9, port_value: 8080}}
    bind_to_port: false
    filter_chains:
    - filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: one, cluster: one}}]
  clusters:
  - name: PassthroughCluster
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: 2s
    upstream_bind_config:
      source_address: {address: 127.0.0.6, port_value: 0}
      extra_source_addresses: [{address: {address: "::6", port_value: 0}}]
  - {name: BlackHoleCluster, type: STATIC, connect_timeout: 1s}
  - name: one
    type: STATIC
    load_assignment: {cluster_name: one, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9999}}}}]}]}
"#;

async fn inside() -> Result<()> {
    namespace::set_up(&["::6/128", "fd77::1/128"], RULES)?;
    for kind in [Kind::Envoy, Kind::Outrigger] {
        if !kind.is_runnable() {
            continue;
        }
        through(kind).await.with_context(|| format!("through {kind}"))?;
        eprintln!("{kind}: redirected connections go where they were going");
    }
    Ok(())
}

async fn through(kind: Kind) -> Result<()> {
    let proxy = Proxy::start(kind, BOOTSTRAP).await?;
    let echo = TcpUpstream::start_at("echo", address("127.77.0.1:7000")).await?;
    let echo6 = TcpUpstream::start_at("echo6", address("[fd77::1]:7000")).await?;
    let one = TcpUpstream::start_at("one", address("127.0.0.1:9999")).await?;
    let web = Upstream::start_with("web", address("127.77.0.2:8080"), None).await?;

    for (to, greeting) in [
        (echo.address(), "echo\n"),
        (echo6.address(), "echo6\n"),
        // Nobody listens there: the listener of that address takes it, and its cluster is elsewhere.
        (address("127.77.0.9:8080"), "one\n"),
    ] {
        let mut stream = TcpStream::connect(to).await?;
        let mut got = vec![0; greeting.len()];
        stream.read_exact(&mut got).await.with_context(|| format!("from {to}"))?;
        ensure!(got == greeting.as_bytes(), "{to} greets with {:?}", String::from_utf8_lossy(&got));
    }
    let taken = proxy.stat("tcp.one.downstream_cx_total").await?;
    ensure!(taken == 1, "the listener of the address took {taken}");
    ensure!((echo.connections(), echo6.connections(), one.connections()) == (1, 1, 1));
    let sources: Vec<String> = echo.sources().iter().map(|it| it.ip().to_string()).collect();
    ensure!(sources == ["127.0.0.6"], "from {sources:?}");

    let answer = Request::get("/").send(web.address()).await;
    ensure!(answer.status() == 200, "{answer:?}");
    for header in ["x-local", "x-host"] {
        ensure!(answer.header(header) == Some("127.77.0.2:8080"), "{header}: {answer:?}");
    }
    ensure!(web.take().len() == 1, "the upstream got no request");

    // Not HTTP: no chain of the listener of that port takes it.
    let mut stream = TcpStream::connect("127.77.0.3:8080").await?;
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"\r\n").await?;
    let read = stream.read(&mut [0; 1]).await.unwrap_or(0);
    ensure!(read == 0, "a chain took what is not HTTP");

    // Straight to the listener: the black hole keeps it from connecting to itself for ever.
    let mut stream = TcpStream::connect("127.0.0.1:15001").await?;
    let read = stream.read(&mut [0; 1]).await.unwrap_or(0);
    ensure!(read == 0, "the black hole spoke");

    // Where nobody listens the connection is closed, and not answered by another.
    let mut stream = TcpStream::connect("127.77.0.4:7001").await?;
    let read = stream.read(&mut [0; 1]).await.unwrap_or(0);
    ensure!(read == 0, "nobody spoke");
    Ok(())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| unreachable!("written above"))
}
