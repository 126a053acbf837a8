//! The control plane as a process: what it does when it is killed, told to stop, or cannot start.

// Helpers of tests, in a crate that is nothing but tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;

/// No step takes longer on any machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A running control plane; killed when dropped.
struct Process {
    child: Child,
    api: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-control-plane"));
    command.args(["--api", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--log-format", "json"]);
    command.arg("--data-dir").arg(data).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Process {
    /// Starts one and waits for the line that says where it serves.
    fn start(data: &Path) -> Self {
        let mut child = command(data).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let api = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {seen:?}")).unwrap();
            let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
            if let Some(api) = fields["fields"]["api"].as_str() {
                break api.parse().unwrap();
            }
            seen.push(line);
        };
        // Whatever else it has to say must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, api }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let wait = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap()
    }

    /// One request; `None` if the connection broke.
    async fn call(&self, method: &str, path: &str, body: &str) -> Option<serde_json::Value> {
        let stream = TcpStream::connect(self.api).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = hyper::Request::builder().method(method).uri(path).header("host", "api");
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let response = sender.send_request(request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some(serde_json::from_slice(&body).unwrap())
    }
}

fn two_services(number: usize) -> String {
    let service = |name| {
        format!(
            "{{kind: Service, name: {name}, labels: {{n: '{number}'}}, spec: {{ports: [{{port: 1, protocol: http}}]}}}}"
        )
    };
    format!("{}\n---\n{}\n", service("a"), service("b"))
}

#[tokio::test]
async fn a_killed_control_plane_has_every_answered_revision_and_no_half_of_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut answered = 0;
    for round in 0..3 {
        let process = Process::start(&data);
        let status = process.call("GET", "/v1/status", "").await.unwrap();
        let revision = status["revision"].as_u64().unwrap();
        assert!(
            revision >= answered,
            "round {round}: {answered} was answered, {revision} is there"
        );
        assert!(revision <= answered + 1, "at most one was committed and not answered");
        answered = revision;
        let services = process.call("GET", "/v1/services", "").await.unwrap();
        let numbers: Vec<_> =
            services["items"].as_array().unwrap().iter().map(|it| &it["labels"]["n"]).collect();
        assert!(
            numbers.windows(2).all(|pair| pair[0] == pair[1]),
            "half a transaction: {numbers:?}"
        );
        let history = process.call("GET", "/v1/history", "").await.unwrap();
        assert_eq!(history["items"].as_array().unwrap().len() as u64, revision);

        let killer = tokio::spawn({
            let pid = process.child.id().to_string();
            async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Command::new("kill").args(["-KILL", &pid]).status().unwrap()
            }
        });
        let mut number = round * 1_000_000;
        while let Some(applied) = process.call("POST", "/v1/apply", &two_services(number)).await {
            answered = applied["revision"].as_u64().unwrap();
            number += 1;
        }
        assert!(killer.await.unwrap().success());
        assert!(number > round * 1_000_000, "nothing was applied before the kill");
    }
}

#[tokio::test]
async fn a_signal_to_stop_ends_it_in_order() {
    for signal in ["-TERM", "-INT"] {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start(&directory.path().join("data"));
        process.signal(signal);
        assert_eq!(process.ended().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_one_line_and_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let running = Process::start(&data);
    let refused = |command: &mut Command| -> Output {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        output
    };
    let same_data = refused(&mut command(&data));
    assert!(String::from_utf8_lossy(&same_data.stderr).contains("in use by another control plane"));
    let other = directory.path().join("other");
    let same_port = refused(command(&other).args(["--xds-insecure", &running.api.to_string()]));
    let same_port = String::from_utf8_lossy(&same_port.stderr).into_owned();
    assert!(same_port.contains("for plaintext discovery"), "{same_port}");
    assert!(!other.exists());
    let usage = command(&other).args(["--store", "etcd://a:1"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
