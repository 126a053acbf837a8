//! The demo, as people run it: it comes up, answers, goes down, and leaves nothing behind.

// A helper that fails is a failed test; clippy knows only the functions marked as tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Two demos can run at once, but what an act measures would then be a machine that is busy with another.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a command whose files, and those of its children, are all in this folder.
fn outrigger(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(arguments)
        .env("TMPDIR", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .env_remove("OUTRIGGER_API")
        .output()
        .unwrap()
}

/// Processes that were started in this folder's name, by their command lines.
fn left_behind(folder: &Path) -> Vec<String> {
    let variable = format!("TMPDIR={}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        // Not a process, or another user's, or one that has just ended.
        let Ok(environment) = std::fs::read(process.join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|it| it == variable.as_bytes()) {
            let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

fn files(folder: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_demo_in_the_background_answers_until_it_is_taken_down() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let up = outrigger(folder.path(), &["demo", "up"]);
    assert_eq!(up.status.code(), Some(0), "{}", said(&up));
    let again = outrigger(folder.path(), &["demo", "up"]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(said(&again).contains("running already"), "{}", said(&again));

    // `up` says how to reach it when that is not the default.
    let guide = said(&up);
    let api = guide.lines().find_map(|line| line.strip_prefix("export OUTRIGGER_API="));
    let api = api.unwrap_or("http://127.0.0.1:7700");
    let status = outrigger(folder.path(), &["status", "-o", "json", "--api", api]);
    assert_eq!(status.status.code(), Some(0), "{}", said(&status));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["sidecars"].as_array().unwrap().len(), 7);

    let down = outrigger(folder.path(), &["demo", "down"]);
    assert_eq!(down.status.code(), Some(0), "{}", said(&down));
    assert_eq!(left_behind(folder.path()), Vec::<String>::new());
    assert_eq!(files(folder.path()), Vec::<std::ffi::OsString>::new());
    let again = outrigger(folder.path(), &["demo", "down"]);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
}

#[test]
fn no_process_outlives_a_demo_that_is_killed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["demo", "test"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wait_for = |what: &str, true_now: &dyn Fn(usize) -> bool| {
        let start = Instant::now();
        while !true_now(left_behind(folder.path()).len()) {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // Itself, the control plane, seven sidecars, six applications.
    wait_for("fifteen processes", &|processes| processes == 15);
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_for("no process", &|processes| processes == 0);
}

/// The acts whose outcome does not hang on how fast an unoptimized build is; `.ci/run` plays all of them with a release
/// build.
#[test]
fn acts_played_by_number_pass_are_reported_and_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let report = kept.path().join("report.json");
    let arguments =
        ["demo", "test", "--act", "6", "--act", "7", "--json", report.to_str().unwrap()];
    let played = outrigger(folder.path(), &arguments);
    assert_eq!(played.status.code(), Some(0), "{}", said(&played));
    let report = std::fs::read(&report).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let acts = report["acts"].as_array().unwrap();
    assert_eq!(acts.len(), 2, "{report:#}");
    assert!(acts.iter().all(|act| act["passed"] == true), "{report:#}");
    assert_eq!(left_behind(folder.path()), Vec::<String>::new());
    assert_eq!(files(folder.path()), Vec::<std::ffi::OsString>::new());
}
