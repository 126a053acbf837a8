//! The files of event logs: opened with what names them, so that one that cannot be is refused; written by their path.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::access_log::{Lines, Writer};
use crate::cluster::EventLog;

/// The files that were opened. They stay open, as access logs do.
#[derive(Default)]
pub(super) struct EventFiles(Mutex<HashMap<PathBuf, Lines>>);

impl EventFiles {
    /// Opens a file, if it is not open yet.
    ///
    /// # Errors
    /// If that cannot be.
    pub(super) fn open(&self, writer: &Writer, path: &Path) -> io::Result<()> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.contains_key(path) {
            files.insert(path.to_owned(), writer.lines(path)?);
        }
        Ok(())
    }
}

impl EventLog for EventFiles {
    fn write(&self, path: &Path, line: &str) {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(path) {
            file.append(line);
        }
    }
}
