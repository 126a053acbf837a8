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

/// A file of the repository.
fn example(path: &str) -> String {
    format!("{}/../examples/{path}", env!("CARGO_MANIFEST_DIR"))
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

#[test]
fn the_examples_are_a_valid_mesh() {
    let output = outrigger(&["validate", "--complete", "-f", &example("mesh")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn all_mistakes_are_shown_at_their_lines_with_a_caret_and_end_with_4() {
    let output = outrigger(&["validate", "-f", &example("broken/three-errors.yaml")]);
    assert_eq!(output.status.code(), Some(4));
    let said = stderr(&output);
    assert!(said.contains("3 problems"), "{said}");
    for (line, meant) in [(":5:", "http"), (":6:", "least_request"), (":10:", "from")] {
        let shown = said.lines().any(|shown| shown.contains(&format!("three-errors.yaml{line}")));
        assert!(shown, "{line} in {said}");
        assert!(said.contains(&format!("^ did you mean \"{meant}\"?")), "{meant} in {said}");
    }
}

#[test]
fn mistakes_can_be_had_as_json() {
    let broken = example("broken/three-errors.yaml");
    let output = outrigger(&["validate", "-o", "json", "-f", &broken]);
    assert_eq!(output.status.code(), Some(4));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["valid"], false);
    assert_eq!(answer["errors"].as_array().unwrap().len(), 3);
    assert_eq!(answer["errors"][1]["suggestion"], "least_request");
}

#[test]
fn a_reference_out_of_the_files_is_a_warning_unless_they_are_a_whole_mesh() {
    let gateway = example("mesh/gateway.yaml");
    let output = outrigger(&["validate", "-f", &gateway]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("warning"), "{}", stderr(&output));
    assert_eq!(code(&["validate", "--complete", "-f", &gateway]), 4);
}
