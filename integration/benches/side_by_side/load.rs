//! Closed-loop load, and the proof that every answer was right.
//!
//! wrk and h2load count answers that are not 2xx and broken connections, either of which is an error here; the bytes they
//! read must hold a whole body for every answer. What the bodies are is looked at before and after each round.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::machine;
use crate::upstream::{GRPC, GRPC_PATH, LARGE, LARGE_PATH, SMALL};

/// Connections of wrk; streams of h2load, over [`HTTP2_CONNECTIONS`].
const CONCURRENCY: usize = 64;
const HTTP2_CONNECTIONS: usize = 8;

/// What kind of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// HTTP/1.1, 12 bytes back.
    Small,
    /// HTTP/1.1, 64 KiB back.
    Large,
    /// HTTP/1.1 over TLS, 12 bytes back.
    Tls,
    /// HTTP/2 without TLS, 12 bytes back.
    Http2,
    /// gRPC, unary.
    Grpc,
}

impl Load {
    /// In words.
    pub(crate) fn describe(self) -> String {
        match self {
            Load::Small => format!("wrk, {CONCURRENCY} connections, {} B", SMALL.len()),
            Load::Large => format!("wrk, {CONCURRENCY} connections, {LARGE} B"),
            Load::Tls => format!("wrk, {CONCURRENCY} TLS connections, {} B", SMALL.len()),
            Load::Http2 => format!(
                "h2load, {HTTP2_CONNECTIONS} connections x {} streams, {} B",
                CONCURRENCY / HTTP2_CONNECTIONS,
                SMALL.len()
            ),
            Load::Grpc => format!(
                "h2load, {HTTP2_CONNECTIONS} connections x {} streams, {} B each way",
                CONCURRENCY / HTTP2_CONNECTIONS,
                GRPC.len()
            ),
        }
    }

    /// Runs it; returns how many requests were answered, every one of them rightly.
    pub(crate) fn run(self, entry: SocketAddr, seconds: u64) -> Result<f64> {
        match self {
            Load::Small => wrk(&format!("http://{entry}/"), seconds, SMALL.len()),
            Load::Large => wrk(&format!("http://{entry}{LARGE_PATH}"), seconds, LARGE),
            // wrk asks for the server name that stands in the address.
            Load::Tls => wrk(&format!("https://localhost:{}/", entry.port()), seconds, SMALL.len()),
            Load::Http2 => h2load(&format!("http://{entry}/"), seconds, SMALL.len(), false),
            Load::Grpc => h2load(&format!("http://{entry}{GRPC_PATH}"), seconds, GRPC.len(), true),
        }
    }
}

/// At its end: what nobody has to parse from prose.
const SUMMARY: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d %d\n", summary.requests, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout))
end
"#;

fn wrk(url: &str, seconds: u64, body: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("summary.lua");
    fs::write(&script, SUMMARY)?;
    let output = machine::pinned(&machine::load_core())
        .args(["wrk", "-t", "1", "-c", &CONCURRENCY.to_string(), "-d", &format!("{seconds}s")])
        .arg("-s")
        .arg(&script)
        .arg(url)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let line =
        line.with_context(|| format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let numbers: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [requests, bytes, errors @ ..] = numbers.as_slice() else {
        anyhow::bail!("wrk: {line}");
    };
    ensure!(errors.iter().all(|count| *count == 0.0), "{url}: failures:\n{text}");
    ensure!(*requests > 0.0, "{url}: no answers");
    ensure!(bytes / requests >= body as f64, "{url}: bodies of {body} bytes are cut:\n{text}");
    Ok(*requests)
}

fn h2load(url: &str, seconds: u64, body: usize, is_grpc: bool) -> Result<f64> {
    let folder: TempDir = tempfile::tempdir()?;
    let mut command: Command = machine::pinned(&machine::load_core());
    command.args(["h2load", "-t", "1", "-D", &seconds.to_string()]);
    command.args(["-c", &HTTP2_CONNECTIONS.to_string()]);
    command.args(["-m", &(CONCURRENCY / HTTP2_CONNECTIONS).to_string()]);
    if is_grpc {
        let message = folder.path().join("message");
        fs::write(&message, GRPC)?;
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]);
        command.arg(message);
    }
    let output = command.arg(url).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = |line: &str, what: &str| -> Result<f64> {
        let line =
            text.lines().find(|it| it.starts_with(line)).with_context(|| text.to_string())?;
        let before = line.split([',', ':']).find_map(|part| part.trim().strip_suffix(what));
        Ok(before.with_context(|| line.to_owned())?.trim().parse()?)
    };
    let done = count("requests:", "done")?;
    let right = count("status codes:", "2xx")?;
    // At the end of its time it lets go of what is under way; nothing else may fail.
    ensure!(done > 0.0 && right >= done, "{url}: failures:\n{text}");
    ensure!(
        count("status codes:", "3xx")?
            + count("status codes:", "4xx")?
            + count("status codes:", "5xx")?
            == 0.0,
        "{url}: failures:\n{text}"
    );
    let data = text.split_once(") data").and_then(|(before, _)| before.rsplit_once('('));
    let data: f64 = data.context("h2load's traffic")?.1.parse()?;
    ensure!(data / done >= body as f64, "{url}: bodies of {body} bytes are cut:\n{text}");
    Ok(done)
}
