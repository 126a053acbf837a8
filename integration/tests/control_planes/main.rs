//! What the control planes that people run send: accepted, and traffic flows as it is meant to. Each is told to Envoy as
//! well. What they send stands in `fixtures/`, rebuilt by us from what they document.

mod consul;
mod go_control_plane;
mod istio;
mod kuma;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outrigger_integration::bootstrap::Values;
use outrigger_integration::peers::peers;
use outrigger_integration::pki::Authority;
use outrigger_integration::proxy::Kind;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Who is told: both, so that a fixture which Envoy would not take is found. Nobody where the peers are missing.
fn told() -> Vec<Kind> {
    if peers().is_none() {
        return Vec::new();
    }
    let kinds = [Kind::Envoy, Kind::Outrigger];
    kinds.into_iter().filter(|kind| kind.is_runnable()).collect()
}

/// What a TCP server greets with, if it gives back what it is told as well. Nothing, if the connection is closed before
/// that: Envoy asks only at the first bytes of a client who that is, and lets a greeting through.
async fn greeting(address: SocketAddr) -> Result<String> {
    const TOLD: &[u8] = b"hello\n";
    let mut stream = TcpStream::connect(address).await?;
    // Who is turned away may be so before.
    let _ = stream.write_all(TOLD).await;
    let mut got = Vec::new();
    let limit = Duration::from_secs(10);
    while !got.ends_with(TOLD) {
        match tokio::time::timeout(limit, stream.read_buf(&mut got)).await.context("silence")? {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Ok(String::new()),
        }
    }
    got.truncate(got.len() - TOLD.len());
    Ok(String::from_utf8_lossy(&got).trim().to_owned())
}

/// Sets `CERT_NAME` and `KEY_NAME`, as strings of YAML, to a certificate of this name.
fn certificate(values: &mut Values, authority: &Authority, name: &str, san: &str) -> Result<()> {
    let leaf = authority.leaf(&[san]).context("leaf")?;
    values.text(&format!("CERT_{name}"), &json!(leaf.certificate).to_string());
    values.text(&format!("KEY_{name}"), &json!(leaf.key).to_string());
    Ok(())
}

/// Reads a file until it has something that was logged.
async fn logged(path: &std::path::Path, text: &str) -> Result<String> {
    for _ in 0..200 {
        let log = std::fs::read_to_string(path).unwrap_or_default();
        if let Some(line) = log.lines().find(|line| line.contains(text)) {
            return Ok(line.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = std::fs::read_to_string(path).unwrap_or_default();
    ensure!(false, "{text:?} is not in the log:\n{log}");
    Ok(log)
}
