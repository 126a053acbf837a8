//! Every bootstrap of `examples/` is valid for Envoy and for us.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use outrigger_integration::corpus::Workshop;
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::Kind;

#[test]
fn envoy_accepts_every_example() -> Result<()> {
    if peers().is_none() {
        return Ok(());
    }
    accepts(Kind::Envoy)
}

#[test]
fn the_sidecar_accepts_every_example() -> Result<()> {
    if !Kind::Outrigger.is_runnable() {
        return Ok(());
    }
    accepts(Kind::Outrigger)
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

fn accepts(kind: Kind) -> Result<()> {
    let workshop = Workshop::new()?;
    for example in examples()? {
        let verdict = workshop.judge(kind, &example)?;
        ensure!(verdict.accepted, "{kind}: {}:\n{}", example.display(), verdict.said);
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
