//! What several groups do with bare connections: talk, and see what was counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use outrigger_integration::differential::{Observation, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A tcp_proxy filter with this target, in flow YAML.
pub(crate) fn tcp_proxy(target: &str) -> String {
    format!(
        "{{name: envoy.filters.network.tcp_proxy, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, {target}}}}}"
    )
}

/// A listener filter of this name with more fields, in flow YAML. The name is that of its message: `http_inspector` for
/// `HttpInspector`.
pub(crate) fn listener_filter(name: &str, message: &str, config: &str, more: &str) -> String {
    format!(
        "{{name: envoy.filters.listener.{name}, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{message}{config}}}{more}}}"
    )
}

/// Sends `bytes` and reads up to the end of the first line, or of the connection.
pub(crate) async fn first_line(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(String::from_utf8_lossy(&line).into_owned()),
            Ok(byte) => line.push(byte),
            Err(_) => return Ok(format!("closed after {:?}", String::from_utf8_lossy(&line))),
        }
    }
}

/// Sends `bytes` and reads to the end of the connection, whichever way it ends.
pub(crate) async fn all(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        got.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&got).into_owned())
}

/// The counters and gauges whose names begin with one of these.
pub(crate) async fn stats(world: &World, prefixes: &[&str]) -> Result<BTreeMap<String, u64>> {
    let text = world.proxy.admin("/stats").await?;
    let number = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        let wanted = prefixes.iter().any(|prefix| name.starts_with(prefix));
        wanted.then(|| Some((name.to_owned(), value.trim().parse().ok()?))).flatten()
    };
    Ok(text.lines().filter_map(number).collect())
}

/// For so long connections may take to be over, before counters are read.
const SETTLED: Duration = Duration::from_secs(1);

/// Waits until the proxy has no connection left, and so has counted them all. A case may keep some open.
async fn settled(world: &World) -> Result<()> {
    let deadline = Instant::now() + SETTLED;
    loop {
        let open = stats(world, &["listener."]).await?;
        let open = open.iter().filter(|(name, _)| !name.starts_with("listener.admin."));
        let open = open.filter(|(name, _)| name.ends_with("downstream_cx_active"));
        if open.map(|(_, value)| value).sum::<u64>() == 0 || Instant::now() > deadline {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Records what `before` has grown by, once the connections of the case are over.
pub(crate) async fn record_growth(
    world: &World,
    seen: &mut Observation,
    prefixes: &[&str],
    before: &BTreeMap<String, u64>,
) -> Result<()> {
    settled(world).await?;
    for (name, value) in stats(world, prefixes).await? {
        let grown = value.wrapping_sub(before.get(&name).copied().unwrap_or(0));
        if grown > 0 {
            seen.fact("stats", &world.normal(&name), grown);
        }
    }
    Ok(())
}
