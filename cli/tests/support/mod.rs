//! A mesh for tests: a control plane and sidecars, all of them the binary itself.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No step takes longer on any machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A running control plane; killed when dropped.
pub(crate) struct Mesh {
    child: Child,
    api: String,
    data: tempfile::TempDir,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Mesh {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// With more arguments, made for the folder of its data.
    pub(crate) fn start_with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let arguments = arguments(data.path());
        Self::start_in(data, &arguments)
    }

    /// Ends it as a crash would, and starts it again on the same data.
    pub(crate) fn restarted(mut self, arguments: &[&str]) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let data = std::mem::replace(&mut self.data, tempfile::tempdir().unwrap());
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        Self::start_in(data, &arguments)
    }

    fn start_in(data: tempfile::TempDir, arguments: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(["control-plane", "--api", "127.0.0.1:0", "--xds", "127.0.0.1:0"])
            .args(["--log-format", "json", "--data-dir"])
            .arg(data.path().join("data"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let api = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended")).unwrap();
            let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
            if let Some(api) = fields["fields"]["api"].as_str() {
                break format!("http://{api}");
            }
        };
        // Whatever else it has to say must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, api, data }
    }

    /// The folder of its data, and of what tests put there.
    pub(crate) fn folder(&self) -> &Path {
        self.data.path()
    }

    /// Starts a sidecar of a service and waits until it serves; with it an application port, or ways to other services.
    pub(crate) fn sidecar(&self, service: &str, instance: &str, arguments: &[String]) -> Sidecar {
        let token = self.expect(0, &["token", "create", "--service", service, "-o", "json"], "");
        let token: serde_json::Value = serde_json::from_str(token.trim()).unwrap();
        let admin = self.data.path().join(format!("{instance}.admin"));
        let inbound = free_address().port().to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(["sidecar", "--join", token["token"].as_str().unwrap(), "--instance", instance])
            .args(["--advertise", "127.0.0.1", "--inbound-port", &inbound, "--outbound-port", "0"])
            .args(["--admin", "127.0.0.1:0", "--concurrency", "1", "--data-dir"])
            .arg(self.data.path().join(instance))
            .arg("--admin-address-path")
            .arg(&admin)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sidecar = Sidecar { child, admin };
        until(|| {
            self.status()["sidecars"].as_array().unwrap().iter().any(|it| {
                let of = |key: &str| it[key]["state"] == "ok";
                it["node"] == instance
                    && it["connected"] == true
                    && ["listeners", "routes", "clusters", "endpoints", "secrets"]
                        .into_iter()
                        .all(of)
            })
        });
        sidecar
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.expect(0, &["status", "-o", "json"], "")).unwrap()
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(arguments)
            .env("OUTRIGGER_API", &self.api)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What it prints, when it ends with this code.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }
}

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    admin: PathBuf,
}

impl Sidecar {
    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.admin);
    }
}

/// An address on which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "it never holds");
        std::thread::sleep(Duration::from_millis(50));
    }
}
