//! `outrigger install DIR`: brings the binary into containers of other images, by a volume.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::exit::Outcome;

/// Arguments of `install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The folder
    folder: PathBuf,
}

/// Copies this program to `DIR/outrigger`. One that is running there goes on as it is.
pub(crate) fn run(args: &InstallArgs) -> Outcome {
    let program = std::env::current_exe().context("the path of this program")?;
    let new = args.folder.join(".outrigger.new");
    fs::copy(&program, &new).with_context(|| new.display().to_string())?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    let to = args.folder.join("outrigger");
    fs::rename(&new, &to).with_context(|| to.display().to_string())?;
    Ok(())
}
