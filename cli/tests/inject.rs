//! Compose files before and after `outrigger inject compose`: `tests/inject/NAME.in.yaml` becomes `NAME.out.yaml`, and what
//! is said about it is `NAME.said.txt`; a file without an output is refused. With `OUTRIGGER_UPDATE_GOLDEN` set, the files
//! are written instead of compared.

// A helper that fails is a failed test; clippy knows only the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject")
}

/// Runs the binary in the folder of the files.
fn outrigger(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(arguments)
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read it has no use for it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// What a command prints that must end well.
#[track_caller]
fn stdout(arguments: &[&str], input: &str) -> String {
    let output = outrigger(arguments, input);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(output.stderr));
    text(output.stdout)
}

/// The names of all files to inject.
fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = files
        .filter_map(|file| Some(file.to_str()?.strip_suffix(".in.yaml")?.to_owned()))
        .collect();
    names.sort();
    names
}

fn original(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{name}.in.yaml"))).unwrap()
}

/// The names of those that can be injected, and what becomes of them.
fn injected() -> Vec<(String, String)> {
    let golden = |name: String| {
        let file = folder().join(format!("{name}.out.yaml"));
        Some((name, std::fs::read_to_string(file).ok()?))
    };
    names().into_iter().filter_map(golden).collect()
}

/// Compares with a file, or writes it.
fn golden(file: &Path, is: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("OUTRIGGER_UPDATE_GOLDEN").is_some() {
        std::fs::write(file, is).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(file).unwrap_or_default();
    if is != wanted {
        wrong.push(format!("{}:\n{is}", file.display()));
    }
}

#[test]
fn every_file_becomes_what_is_written_down() {
    let mut wrong = Vec::new();
    for name in names() {
        let output = outrigger(&["inject", "compose", "-f", &format!("{name}.in.yaml")], "");
        let file = |kind: &str| folder().join(format!("{name}.{kind}"));
        match output.status.code() {
            Some(0) => golden(&file("out.yaml"), &text(output.stdout), &mut wrong),
            Some(4) => {
                assert!(output.stdout.is_empty(), "{name}");
                assert!(!file("out.yaml").exists(), "{name} was injected before");
            }
            code => panic!("{name}: exit code {code:?}: {}", text(output.stderr)),
        }
        golden(&file("said.txt"), &text(output.stderr), &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(injected().len() >= 25);
}

#[test]
fn injecting_again_changes_nothing_and_check_says_so() {
    for (name, golden) in injected() {
        let file = format!("{name}.out.yaml");
        assert_eq!(stdout(&["inject", "compose", "-f", &file], ""), golden, "{name}");
        stdout(&["inject", "compose", "--check", "-f", &file], "");
        let before = format!("{name}.in.yaml");
        let output = outrigger(&["inject", "compose", "--check", "-f", &before], "");
        assert_eq!(output.status.code(), Some(3), "{name}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_original_comes_back_byte_for_byte() {
    for (name, golden) in injected() {
        assert_eq!(stdout(&["uninject", "-f", "-"], &golden), original(&name), "{name}");
    }
}

#[test]
fn what_was_changed_by_hand_is_not_lost_unasked() {
    let golden = stdout(&["inject", "compose", "-f", "one-service.in.yaml"], "");
    let edited = golden.replacen("image: shop/web", "image: shop/web:2", 1);
    let output = outrigger(&["inject", "compose", "-f", "-"], &edited);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(output.stderr).contains("changed by hand"));
    let output = outrigger(&["inject", "compose", "--check", "-f", "-"], &edited);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stdout(&["inject", "compose", "--force", "-f", "-"], &edited), golden);
    let output = outrigger(&["uninject", "-f", "-"], &edited);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(output.stderr).contains("changed by hand"));
    let damaged = golden.replacen("#|     image", "#|     imago", 1);
    assert_eq!(outrigger(&["uninject", "-f", "-"], &damaged).status.code(), Some(1));
    assert_eq!(outrigger(&["uninject", "-f", "one-service.in.yaml"], "").status.code(), Some(1));
}

#[test]
fn a_file_can_be_injected_in_place_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, original("comments")).unwrap();
    stdout(&["inject", "compose", "-f", path, "-o", path], "");
    stdout(&["inject", "compose", "-f", path, "--check"], "");
    assert!(std::fs::read_to_string(&file).unwrap().contains("outrigger-control:"));
    stdout(&["uninject", "-f", path, "-o", path], "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), original("comments"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn an_override_takes_away_what_the_network_owner_has() {
    let arguments = ["inject", "compose", "--override", "-f", "everything-that-moves.in.yaml"];
    let made = stdout(&arguments, "");
    let resets: Vec<&str> =
        made.lines().filter(|line| line.contains("!reset")).map(str::trim).collect();
    let of = |key: &str| resets.contains(&format!("{key}: !reset null").as_str());
    for key in ["ports", "networks", "hostname", "dns", "extra_hosts", "mac_address"] {
        assert!(of(key), "{key} in {resets:?}");
    }
    assert!(!of("image") && !of("cap_add"));
    let with_replicas =
        outrigger(&["inject", "compose", "--override", "-f", "replicas.in.yaml"], "");
    assert_eq!(with_replicas.status.code(), Some(4));
}

#[test]
fn options_decide_who_is_injected_and_by_which_image() {
    let made = stdout(
        &[
            "inject",
            "compose",
            "-f",
            "tcp-protocols.in.yaml",
            "--only",
            "app,db",
            "--image",
            "my/mesh:7",
            "--publish-api",
        ],
        "",
    );
    assert!(made.contains("image: \"my/mesh:7\"") && made.contains("127.0.0.1:7700:7700"));
    assert!(made.contains("  db-mesh:") && !made.contains("  queue-mesh:"));
    let unknown =
        outrigger(&["inject", "compose", "-f", "tcp-protocols.in.yaml", "--only", "ap"], "");
    assert_eq!(unknown.status.code(), Some(4));
    assert!(text(unknown.stderr).contains("did you mean \"app\"?"));
}

/// docker-compose itself: the one that is installed, or one of our own under the target directory.
fn docker_compose() -> Option<PathBuf> {
    let works = |program: &Path| {
        Command::new(program).arg("version").output().is_ok_and(|output| output.status.success())
    };
    let installed = PathBuf::from("docker-compose");
    if works(&installed) {
        return Some(installed);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker-compose");
    let own = folder.join("bin/docker-compose");
    if works(&own) {
        return Some(own);
    }
    let run = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    let pip = folder.join("bin/pip");
    // Its own pins are of a time before this Python; without a daemon it needs no more than these.
    let made = run("python3", &["-m", "venv", folder.to_str()?])
        && run(pip.to_str()?, &["install", "--no-deps", "docker-compose==1.29.2", "docker==5.0.3"])
        && run(
            pip.to_str()?,
            &[
                "install",
                "PyYAML>=6",
                "jsonschema<4",
                "websocket-client<1",
                "python-dotenv<1",
                "texttable<2",
                "docopt",
                "dockerpty",
                "distro<2",
                "requests<2.32",
                "urllib3<2",
                "paramiko",
                "setuptools<70",
            ],
        );
    (made && works(&own)).then_some(own)
}

#[test]
fn docker_compose_accepts_every_output() {
    let Some(compose) = docker_compose() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "docker-compose can be neither found nor installed"
        );
        eprintln!("skipped: there is no docker-compose");
        return;
    };
    let project = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(project.path().join("parts/app")).unwrap();
    for file in ["web.env", "common.env", "parts/app.env"] {
        std::fs::write(project.path().join(file), "A=1\n").unwrap();
    }
    let config = |files: &[&str]| {
        let mut command = Command::new(&compose);
        command
            .current_dir(project.path())
            .env("SECRET", "s")
            .env("COMPOSE_PROFILES", "front,back");
        for file in files {
            command.args(["-f", file]);
        }
        let output = command.arg("config").output().unwrap();
        assert!(output.status.success(), "{files:?}: {}", text(output.stderr));
        text(output.stdout)
    };
    for (name, golden) in injected() {
        let file = project.path().join("compose.yaml");
        std::fs::write(&file, &golden).unwrap();
        let seen = config(&["compose.yaml"]);
        assert!(seen.contains("outrigger-control"), "{name}");
        for service in services_of(&seen) {
            let joins = service.iter().any(|line| line.starts_with("    network_mode: service:"));
            for key in [
                "ports",
                "expose",
                "hostname",
                "dns",
                "extra_hosts",
                "networks",
                "mac_address",
                "links",
            ] {
                let has = service.iter().any(|line| line.starts_with(&format!("    {key}:")));
                assert!(!(joins && has), "{name}: {key} beside network_mode: {service:?}");
            }
        }
        // Behind the file itself, where nothing has to be taken away.
        let input = format!("{name}.in.yaml");
        let output = outrigger(&["inject", "compose", "--override", "-f", &input], "");
        let made = text(output.stdout);
        if output.status.success() && !made.contains("!reset") && name != "extends-other-file" {
            std::fs::write(project.path().join("before.yaml"), original(&name)).unwrap();
            std::fs::write(project.path().join("over.yaml"), made).unwrap();
            config(&["before.yaml", "over.yaml"]);
        }
    }
}

/// The lines of each service, as `docker-compose config` prints them.
fn services_of(config: &str) -> Vec<Vec<&str>> {
    let mut services: Vec<Vec<&str>> = Vec::new();
    let mut within = false;
    for line in config.lines() {
        if !line.starts_with(' ') {
            within = line == "services:";
        } else if within && line.starts_with("  ") && !line.starts_with("   ") {
            services.push(vec![line]);
        } else if within && let Some(service) = services.last_mut() {
            service.push(line);
        }
    }
    services
}
