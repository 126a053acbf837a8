//! Whether a configuration is good: asked of real Envoy and of us by `--mode validate`.
//!
//! `corpus/` has one bootstrap a feature, written to be read. Each is valid for both. [`mutation`] spoils each of their
//! fields in turn, and [`comparison`] asks both about the result, too.

pub mod comparison;
pub mod mutation;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::pki::Authority;
use crate::proxy::{Kind, program};

/// A bootstrap of `corpus/`.
#[derive(Debug, Clone)]
pub struct Example {
    /// The file's name without its ending.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What it says.
    pub content: Value,
}

/// All of them, by name.
///
/// # Errors
/// One cannot be read, or is not YAML.
pub fn examples() -> Result<Vec<Example>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let content = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        found.push(Example { name, path, content });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// What one of the two says of a configuration.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whether it would serve with it.
    pub accepted: bool,
    /// What it printed.
    pub said: String,
}

/// A folder with the files that the examples name, in which both are started.
pub struct Workshop {
    folder: TempDir,
}

impl Workshop {
    /// Makes the folder, with certificates of its own.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn new() -> Result<Workshop> {
        let folder = tempfile::tempdir()?;
        let certs = folder.path().join("certs");
        fs::create_dir(&certs)?;
        let authority = Authority::new("example")?;
        authority.write(&certs, "ca")?;
        authority.leaf(&["spiffe://example/ns/default/svc/api"])?.write(&certs, "server")?;
        authority.leaf(&["spiffe://example/ns/default/svc/web"])?.write(&certs, "client")?;
        fs::write(folder.path().join("body.txt"), "from a file\n")?;
        fs::create_dir_all(folder.path().join("runtime/values"))?;
        fs::write(folder.path().join("eds.yaml"), "resources: []\n")?;
        fs::write(
            folder.path().join("roots.yaml"),
            "resources:\n- '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  \
             name: roots\n  validation_context: {trusted_ca: {filename: certs/ca.crt}}\n",
        )?;
        Ok(Workshop { folder })
    }

    /// What `kind` says of the file.
    ///
    /// # Errors
    /// It cannot be started, or ours ends by a signal or with a code that is neither 0 nor 1: a validation that crashes
    /// is not a verdict. Envoy's crashes on some configurations; to who runs it, that is a refusal.
    pub fn judge(&self, kind: Kind, bootstrap: &Path) -> Result<Verdict> {
        let mut command = program(kind)?;
        command.args(["--mode", "validate", "-c"]).arg(bootstrap);
        if kind == Kind::Envoy {
            command.args(["--disable-hot-restart", "--log-level", "error"]);
        }
        let output = command.current_dir(self.folder.path()).output()?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(
            kind == Kind::Envoy || matches!(output.status.code(), Some(0 | 1)),
            "{kind} ended with {} on {}:\n{said}",
            output.status,
            bootstrap.display()
        );
        Ok(Verdict { accepted: output.status.success(), said })
    }

    /// What `kind` says of this configuration.
    ///
    /// # Errors
    /// As [`Workshop::judge`].
    pub fn judge_value(&self, kind: Kind, content: &Value) -> Result<Verdict> {
        let file = tempfile::Builder::new().suffix(".json").tempfile_in(self.folder.path())?;
        fs::write(file.path(), serde_json::to_vec_pretty(content)?)?;
        self.judge(kind, file.path())
    }
}
