//! Ends a child of the demo with its parent, however the parent ends: the child holds the reading end of a pipe as its
//! standard input, and when nobody holds the other end any more, the read ends.
//!
//! Linux' parent-death signal would do it without a thread, but it follows the *thread* that started the child, and it
//! is lost between fork and exec.

use std::io::{ErrorKind, Read};

/// A parent that wants it sets this in the child's environment.
pub(crate) const VARIABLE: &str = "OUTRIGGER_EXIT_WITH_STDIN";

/// Starts watching, if asked to.
pub(crate) fn start() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    std::thread::spawn(|| {
        let mut ignored = [0; 64];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut ignored) {
                Ok(0) => std::process::exit(1),
                Err(error) if error.kind() != ErrorKind::Interrupted => std::process::exit(1),
                _ => {}
            }
        }
    });
}
