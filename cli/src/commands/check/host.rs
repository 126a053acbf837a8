//! Checks of this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};

use super::{Check, State};

/// Descriptors that a sidecar with some traffic needs.
const DESCRIPTORS: u64 = 4096;
/// A store with its history.
const DISK: u64 = 256 << 20;
/// Later than this is any clock that is right: 2025-01-01.
const PAST: Duration = Duration::from_secs(1_735_689_600);

pub(super) async fn checks(data_dir: &Path) -> Vec<Check> {
    let folder = existing(data_dir);
    let mut checks = vec![writable(data_dir, &folder), space(&folder), private(data_dir)];
    for (code, port, fix) in [
        ("port-api", 7700, "outrigger control-plane --api 127.0.0.1:PORT"),
        ("port-discovery", 7701, "outrigger control-plane --xds 127.0.0.1:PORT"),
        ("port-admin", 15000, "outrigger sidecar --admin 127.0.0.1:PORT"),
        ("port-outbound", 15001, "outrigger sidecar --outbound-port PORT"),
        ("port-inbound", 15006, "outrigger sidecar --inbound-port PORT"),
    ] {
        checks.push(match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(_) => Check::ok(code, format!("port {port} is free")),
            Err(error) => Check::warning(code, format!("port {port}: {error}"), fix),
        });
    }
    checks.extend([loopback().await, descriptors(), clock()]);
    checks
}

/// The folder itself, or the nearest one above it that is there.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = absolute.ancestors().find(|folder| folder.is_dir());
    found.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

fn writable(data_dir: &Path, folder: &Path) -> Check {
    let code = "data-writable";
    match tempfile_in(folder) {
        Ok(()) => Check::ok(code, format!("{} can be made and written", data_dir.display())),
        Err(error) => Check::failed(
            code,
            format!("{}: {error}", folder.display()),
            "outrigger control-plane --data-dir DIR",
        ),
    }
}

fn tempfile_in(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(format!(".outrigger-check-{}", std::process::id()));
    std::fs::write(&path, b"")?;
    std::fs::remove_file(path)
}

fn space(folder: &Path) -> Check {
    let code = "data-space";
    match rustix::fs::statvfs(folder) {
        Ok(it) => {
            let free = it.f_bavail.saturating_mul(it.f_frsize);
            let detail = format!("{} MB are free in {}", free >> 20, folder.display());
            match free >= DISK {
                true => Check::ok(code, detail),
                false => Check::failed(code, detail, "outrigger control-plane --data-dir DIR"),
            }
        }
        Err(error) => Check { state: State::Skipped, ..Check::ok(code, error.to_string()) },
    }
}

fn private(data_dir: &Path) -> Check {
    use std::os::unix::fs::PermissionsExt;
    let code = "data-private";
    match std::fs::metadata(data_dir) {
        Err(_) => Check::ok(code, "it is going to be made readable by its owner only"),
        Ok(it) if it.permissions().mode() & 0o077 == 0 => {
            Check::ok(code, "only its owner can read it")
        }
        Ok(it) => Check::warning(
            code,
            format!("others can look into it (mode {:o})", it.permissions().mode() & 0o777),
            format!("chmod 700 {}", data_dir.display()),
        ),
    }
}

async fn loopback() -> Check {
    let code = "loopback";
    let works = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        TcpStream::connect(listener.local_addr()?).await
    };
    match tokio::time::timeout(Duration::from_secs(2), works).await {
        Ok(Ok(_)) => Check::ok(code, "127.0.0.1 works"),
        Ok(Err(error)) => Check::failed(code, error.to_string(), "ip link set lo up"),
        Err(_) => Check::failed(code, "a connection to 127.0.0.1 hangs", "ip link set lo up"),
    }
}

fn descriptors() -> Check {
    let code = "open-files";
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < DESCRIPTORS => Check::warning(
            code,
            format!("this shell allows {limit} open files, two are needed for each connection"),
            "ulimit -n 65536",
        ),
        Some(limit) => Check::ok(code, format!("{limit} open files are allowed")),
        None => Check::ok(code, "any number of open files is allowed"),
    }
}

fn clock() -> Check {
    let code = "clock";
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(now) if now > PAST => Check::ok(code, "the clock shows a time that can be"),
        _ => Check::failed(
            code,
            "the clock is years behind: no certificate would be valid",
            "timedatectl set-ntp true",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn state_of(data_dir: &Path, code: &str) -> State {
        let checks = checks(data_dir).await;
        checks.iter().find(|check| check.code == code).unwrap().state
    }

    #[tokio::test]
    async fn a_folder_that_others_can_read_is_pointed_out() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path(), mode).unwrap();
        };
        mode(0o755);
        assert_eq!(state_of(folder.path(), "data-private").await, State::Warning);
        mode(0o700);
        assert_eq!(state_of(folder.path(), "data-private").await, State::Ok);
        let missing = folder.path().join("a/b");
        assert_eq!(state_of(&missing, "data-private").await, State::Ok);
        assert_eq!(state_of(&missing, "data-writable").await, State::Ok);
        assert!(!missing.exists(), "a check leaves nothing behind");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_fails() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(state_of(Path::new("/proc/none/data"), "data-writable").await, State::Failed);
        assert_eq!(state_of(folder.path(), "data-writable").await, State::Ok);
    }
}
