//! A network namespace of its own for a test, in which nftables redirects connections.
//!
//! It takes root and `nft`. With `CI` set they have to be there (`nft` is installed if it is not); on another machine a
//! test says why it does nothing.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::peers::{apt_install, peers};

/// Set in the process that runs inside of a namespace.
const INSIDE: &str = "OUTRIGGER_TEST_INSIDE_NAMESPACE";

/// Runs the test `name` again, in a namespace without anything else, and there `story`.
///
/// # Panics
/// The story fails, or there can be no namespace where there has to be one.
#[allow(clippy::panic, reason = "the verdict of a test")]
pub fn inside(name: &str, story: impl Future<Output = Result<()>>) {
    if std::env::var_os(INSIDE).is_some() {
        let told = tokio::runtime::Runtime::new()
            .context("runtime")
            .and_then(|runtime| runtime.block_on(story));
        told.unwrap_or_else(|error| panic!("{error:#}"));
        return;
    }
    if let Err(reason) = prepare() {
        assert!(std::env::var_os("CI").is_none(), "interception cannot be tested: {reason:#}");
        eprintln!("SKIPPED, because interception cannot be tested here: {reason:#}");
        return;
    }
    // There is no network inside to install them from.
    peers();
    let again = || -> Result<()> {
        let status = Command::new("unshare")
            .args(["--net", "--"])
            .arg(std::env::current_exe()?)
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .status()?;
        ensure!(status.success(), "inside of the namespace: {status}");
        Ok(())
    };
    again().unwrap_or_else(|error| panic!("{error:#}"));
}

/// Takes the loopback device up, gives it these addresses beside 127.0.0.0/8 and ::1, and makes the rules the kernel's.
///
/// # Errors
/// A program fails.
pub fn set_up(addresses: &[&str], rules: &str) -> Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    for address in addresses {
        run("ip", &["addr", "add", address, "dev", "lo"])?;
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.nft");
    std::fs::write(&file, rules)?;
    run("nft", &["-f", &file.to_string_lossy()])
}

fn prepare() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "it takes root");
    for (program, package) in [("nft", "nftables"), ("ip", "iproute2")] {
        let is_there = || Command::new(program).arg("-V").output().is_ok();
        if !is_there() && std::env::var_os("CI").is_some() {
            apt_install(&[package])?;
        }
        ensure!(is_there(), "there is no {program}");
    }
    run("unshare", &["--net", "--", "nft", "list", "ruleset"])
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().context(program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
