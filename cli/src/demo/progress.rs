//! What is going on, on standard error: one line that changes on a terminal, nothing elsewhere.

use std::io::{IsTerminal, Write};

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
}

impl Progress {
    /// Shown if standard error is a terminal.
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    /// Never shown.
    pub(crate) fn silent() -> Self {
        Self { terminal: false }
    }

    /// Replaces the line.
    pub(crate) fn show(&self, text: &str) {
        if self.terminal {
            let mut stderr = std::io::stderr().lock();
            // Progress that cannot be shown is no reason to stop.
            let _ = write!(stderr, "\r\u{1b}[K{text}").and_then(|()| stderr.flush());
        }
    }

    /// Removes the line, before something else is printed.
    pub(crate) fn clear(&self) {
        self.show("");
    }
}
