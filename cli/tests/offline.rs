//! What the binary does without a control plane: usage, exit codes, completion.

// A helper that fails is a failed test; clippy knows only the functions marked as tests.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn outrigger(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(arguments)
        .env_remove("OUTRIGGER_API")
        .output()
        .unwrap()
}

fn code(arguments: &[&str]) -> i32 {
    outrigger(arguments).status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2() {
    for arguments in [
        &["frobnicate"][..],
        &["apply"],
        &["get", "unicorns"],
        &["get", "services", "Not A Name"],
        &["status", "service"],
        &["rollback", "latest"],
        &["token", "create"],
        &["token", "create", "--service", "api", "--ttl", "10"],
        &["token", "create", "--service", "api", "--uses", "0"],
        &["apply", "-f", "x.yaml", "--dry-run", "--wait", "1s"],
        &["status", "--api", "ftp://127.0.0.1"],
        &["status", "-o", "xml"],
    ] {
        assert_eq!(code(arguments), 2, "{arguments:?}");
    }
}

#[test]
fn help_and_version_end_with_0() {
    for arguments in [&["--help"][..], &["--version"], &["apply", "--help"]] {
        assert_eq!(code(arguments), 0, "{arguments:?}");
    }
}

#[test]
fn a_duration_without_a_unit_is_explained() {
    let output = outrigger(&["token", "create", "--service", "api", "--ttl", "10"]);
    assert!(stderr(&output).contains("30s"), "{}", stderr(&output));
}

#[test]
fn an_unknown_kind_is_answered_with_the_kinds_there_are() {
    let output = outrigger(&["get", "unicorns"]);
    assert!(stderr(&output).contains("services, gateways, routes"), "{}", stderr(&output));
}

#[test]
fn a_control_plane_that_is_not_there_is_named_and_ends_with_1() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = outrigger(&["status", "--api", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&url), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_missing_file_is_named_and_ends_with_1() {
    let output = outrigger(&["apply", "-f", "no-such-file.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no-such-file.yaml"), "{}", stderr(&output));
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = outrigger(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("endpoints"), "{shell}");
    }
}
