//! Every bootstrap of `examples/` is valid for Envoy and for us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use outrigger_integration::peers::peers;
use outrigger_integration::pki::Authority;
use outrigger_integration::proxy::{Kind, program};
use tempfile::TempDir;

#[test]
fn envoy_accepts_every_example() -> Result<()> {
    if peers().is_none() {
        return Ok(());
    }
    accepts(Kind::Envoy, &["--disable-hot-restart"])
}

#[test]
fn the_sidecar_accepts_every_example() -> Result<()> {
    if !Kind::Outrigger.is_runnable() {
        return Ok(());
    }
    accepts(Kind::Outrigger, &[])
}

#[test]
fn every_example_is_listed() -> Result<()> {
    let readme = fs::read_to_string(folder().join("../README.md"))?;
    for example in examples()? {
        let name = example.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(readme.contains(&format!("`bootstrap/{name}`")), "{name} is not in the README");
    }
    Ok(())
}

fn accepts(kind: Kind, more: &[&str]) -> Result<()> {
    let started_in = certificates()?;
    for example in examples()? {
        let mut command: Command = program(kind)?;
        command.args(["--mode", "validate", "-c"]).arg(&example).args(more);
        let output = command.current_dir(started_in.path()).output()?;
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{kind}: {}:\n{out}{err}", example.display());
    }
    Ok(())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bootstrap")
}

fn examples() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder())? {
        found.push(entry?.path().canonicalize()?);
    }
    ensure!(found.len() > 3, "the examples are not where this test looks");
    Ok(found)
}

/// What the examples expect to find where they are started.
fn certificates() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let certs = folder.path().join("certs");
    fs::create_dir(&certs)?;
    let authority = Authority::new("example")?;
    authority.write(&certs, "ca")?;
    authority.leaf(&["spiffe://example/ns/default/svc/api"])?.write(&certs, "server")?;
    authority.leaf(&["spiffe://example/ns/default/svc/web"])?.write(&certs, "client")?;
    Ok(folder)
}
