//! A layer of the runtime in a folder: one file a key, folders within are dots.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::config::config_source::ConfigFile;
use crate::config::runtime::{Values, of_text};
use crate::xds::Watch;

/// Folders within folders, at most, and files in all of them.
const MAX_DEPTH: usize = 16;
const MAX_FILES: usize = 100_000;
/// A value is not longer.
const MAX_VALUE: u64 = 64 << 10;

/// A layer that is read again when the link leads elsewhere.
#[derive(Debug, Clone)]
pub(in crate::server) struct DiskLayer {
    /// Its place among the layers.
    pub(in crate::server) index: usize,
    /// The link.
    pub(in crate::server) watched: PathBuf,
}

impl DiskLayer {
    /// Tells whenever the link leads elsewhere, for as long as somebody listens.
    pub(in crate::server) async fn watch(self, changes: mpsc::Sender<usize>) {
        let file = ConfigFile { path: self.watched, watched_directory: None, poll_interval: None };
        let mut watch = Watch::new(&file);
        loop {
            watch.changed().await;
            if changes.send(self.index).await.is_err() {
                return;
            }
        }
    }
}

/// What is in a folder; `None` if there is none.
///
/// # Errors
/// If something in it cannot be read, or is too much.
pub(super) fn read(folder: &Path) -> io::Result<Option<Values>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut values = Values::new();
    walk(folder, "", 0, &mut values)?;
    Ok(Some(values))
}

fn walk(folder: &Path, prefix: &str, depth: usize, values: &mut Values) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(too_much(folder, "stands too deep"));
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What begins with a dot is no key, as in Envoy, which skips `.` and `..` so.
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let path = entry.path();
        let metadata = fs::metadata(&path)?;
        if metadata.is_dir() {
            walk(&path, &key, depth + 1, values)?;
        } else if metadata.is_file() {
            if metadata.len() > MAX_VALUE {
                return Err(too_much(&path, "is too long"));
            }
            if values.len() >= MAX_FILES {
                return Err(too_much(folder, "has too many files"));
            }
            let text = fs::read_to_string(&path)?;
            // Lines that begin with # are comments.
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            values.insert(key.into(), of_text(lines.join("\n").trim_end()));
        }
    }
    Ok(())
}

fn too_much(path: &Path, what: &str) -> io::Error {
    io::Error::other(format!("{} {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_dots_and_comments_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), "# how many\n5\n").unwrap();
        fs::write(folder.path().join("d"), " text \n").unwrap();
        fs::write(folder.path().join(".hidden"), "1").unwrap();
        let values = read(folder.path()).unwrap().unwrap();
        let keys: Vec<&str> = values.keys().map(|key| &**key).collect();
        assert_eq!(keys, ["a.b.c", "d"]);
        assert_eq!(values["a.b.c"].number, Some(5.0));
        assert_eq!(read(&folder.path().join("none")).unwrap(), None);
    }

    #[test]
    fn a_value_that_is_too_long_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), vec![b'x'; MAX_VALUE as usize + 1]).unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("too long"));
    }
}
