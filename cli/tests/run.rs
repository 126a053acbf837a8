//! `outrigger run -- COMMAND`, in a mesh whose control plane brings the tokens and the services itself.

// A helper that fails is a failed test; clippy knows only the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use support::{Mesh, free_address};

const SEED: &str = "{kind: Service, name: api, spec: {ports: [{port: 9000, protocol: http}]}}";

fn mesh() -> Mesh {
    Mesh::start_with(|folder| {
        let token = format!("--issue-token=job={}", folder.join("token").display());
        vec!["--seed".to_owned(), SEED.to_owned(), token]
    })
}

/// The command behind a sidecar of the service `job`, and where that sidecar's admin interface is.
fn behind(mesh: &Mesh, command: &[&str]) -> (Command, SocketAddr) {
    let admin = free_address();
    let mut run = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    run.args(["run", "--service=job", "--instance=job-1", "--join-wait-s=30", "--outbound-port=0"])
        .args(["--advertise=127.0.0.1", "--concurrency=1", "-l=off"])
        .arg(format!("--join-file={}", mesh.folder().join("token").display()))
        .arg(format!("--inbound-port={}", free_address().port()))
        .arg(format!("--admin={admin}"))
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    (run, admin)
}

fn ended(mesh: &Mesh, command: &[&str]) -> Output {
    behind(mesh, command).0.output().unwrap()
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn the_exit_code_of_the_command_is_passed_on_and_the_sidecar_is_gone_then() {
    let mesh = mesh();
    let (mut run, admin) = behind(&mesh, &["sh", "-c", "echo began; exit 7"]);
    let output = run.output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"began\n");
    assert!(TcpStream::connect(admin).is_err(), "the sidecar is still there");
    assert_eq!(ended(&mesh, &["sh", "-c", "kill -9 $$"]).status.code(), Some(128 + 9));
    assert_eq!(ended(&mesh, &["/no/such/command"]).status.code(), Some(127));
    assert_eq!(ended(&mesh, &["/"]).status.code(), Some(126));
}

#[test]
fn the_command_starts_when_its_sidecar_is_ready_and_decides_what_signals_mean() {
    let mesh = mesh();
    let script =
        "trap 'exit 3' TERM; trap 'echo again' HUP; echo began; while :; do sleep 0.05; done";
    let (mut run, admin) = behind(&mesh, &["sh", "-c", script]);
    let mut child = run.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "began");
    let ready = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["healthcheck", &format!("http://{admin}/ready")])
        .status();
    assert_eq!(ready.unwrap().code(), Some(0));
    signal(&child, "-HUP");
    assert_eq!(lines.next().unwrap().unwrap(), "again");
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn without_a_sidecar_the_command_never_starts() {
    let mut run = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    let output = run
        .args(["run", "--join=orj1.e30", "-l=off", "--", "sh", "-c", "echo began"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "it began");
    let no_command =
        Command::new(env!("CARGO_BIN_EXE_outrigger")).args(["run", "--join=x"]).output();
    assert_eq!(no_command.unwrap().status.code(), Some(2));
}

#[test]
fn a_control_plane_makes_its_seed_once_and_leaves_alone_what_is_there() {
    let mesh = mesh();
    let api = mesh.expect(0, &["get", "service", "api", "-o", "json"], "");
    assert!(api.contains("9000"), "{api}");
    let token = std::fs::read_to_string(mesh.folder().join("token")).unwrap();
    assert!(token.starts_with("orj1."), "{token}");
    let changed = SEED.replace("9000", "9001");
    mesh.expect(0, &["apply", "-f", "-"], &changed);
    let history = mesh.expect(0, &["history", "-o", "json"], "");
    assert!(history.contains("\"seed\""), "{history}");
    let data = mesh.folder().join("data");
    let mesh = mesh.restarted(&["--seed", SEED]);
    assert!(data.exists());
    let api = mesh.expect(0, &["get", "service", "api", "-o", "json"], "");
    assert!(api.contains("9001") && !api.contains("9000"), "{api}");
}

#[test]
fn install_copies_a_program_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let install =
        Command::new(env!("CARGO_BIN_EXE_outrigger")).arg("install").arg(folder.path()).status();
    assert_eq!(install.unwrap().code(), Some(0));
    let version = Command::new(folder.path().join("outrigger")).arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"outrigger "));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
