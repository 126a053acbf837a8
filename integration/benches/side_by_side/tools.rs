//! The programs: found, installed, or built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use outrigger_integration::peers::{apt_install, peers, target};
use serde_json::{Value, json};

use crate::options::Options;

/// Where they are. What Debian installs is found by its name.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) outrigger: PathBuf,
    pub(crate) envoy: PathBuf,
}

/// A program, and the Debian package that has it.
const DEBIAN: [(&str, &str); 5] = [
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("taskset", "util-linux"),
];

/// nginx's TCP proxy is a module of its own.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The version of oha that is installed where there is none.
const OHA: &str = "1.16.0";

impl Tools {
    pub(crate) fn find(options: &Options) -> Result<Tools> {
        let is_missing = |program: &str| Command::new(program).arg("-v").output().is_err();
        let mut packages: Vec<&str> = DEBIAN
            .iter()
            .filter_map(|(program, package)| is_missing(program).then_some(*package))
            .collect();
        if !Path::new(STREAM_MODULE).exists() {
            packages.push("libnginx-mod-stream");
        }
        if !packages.is_empty() {
            println!("installing {} ...", packages.join(" "));
            apt_install(&packages)?;
        }
        let outrigger = match &options.binary {
            Some(file) => file.clone(),
            None => build()?,
        };
        ensure!(outrigger.exists(), "{} does not exist", outrigger.display());
        let envoy = peers().context("Envoy cannot be installed")?.envoy.clone();
        Ok(Tools { outrigger, envoy })
    }

    /// What each of them calls itself.
    pub(crate) fn versions(&self) -> Value {
        json!({
            "outrigger": first_line(Command::new(&self.outrigger).arg("--version")),
            "envoy": first_line(Command::new(&self.envoy).arg("--version")),
            "haproxy": first_line(Command::new("haproxy").arg("-v")),
            "nginx": first_line(Command::new("nginx").arg("-v")),
            "wrk": first_line(Command::new("wrk").arg("-v")),
            "h2load": first_line(Command::new("h2load").arg("--version")),
        })
    }
}

/// The release build of this tree; cargo knows whether it is stale.
fn build() -> Result<PathBuf> {
    println!("building the release (cargo build --release) ...");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--release", "--locked", "--package", "outrigger"])
        .status()?;
    ensure!(status.success(), "cargo build --release failed");
    Ok(target().join("release/outrigger"))
}

/// The open-loop load generator: from the path, or from `target/peers`, where it is installed if need be.
pub(crate) fn oha() -> Result<PathBuf> {
    if Command::new("oha").arg("--version").output().is_ok() {
        return Ok(PathBuf::from("oha"));
    }
    let root = target().join("peers/oha");
    let file = root.join("bin/oha");
    if !file.exists() {
        println!("installing oha (cargo install) ...");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["install", "--locked", "--quiet", &format!("oha@{OHA}"), "--root"])
            .arg(&root)
            .status()?;
        ensure!(status.success(), "cargo install oha failed");
    }
    Ok(file)
}

fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // Envoy says where it lies before it says what it is.
    line.rsplit_once("version:").map_or(line, |(_, version)| version).trim().to_owned()
}
