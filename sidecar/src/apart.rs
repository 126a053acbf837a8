//! Work that leaves nothing behind.
//!
//! Descriptors of Envoy's messages, parsed YAML, and what conversions put aside are megabytes for some milliseconds. The
//! allocator keeps freed memory for the thread that freed it, in case it wants the same again, and a stack keeps the
//! depth it once had; the control thread wants neither again. A thread that ends gives all of it back.

use std::io;
use std::panic::resume_unwind;
use std::thread::{self, Builder};

/// Runs `work` on a thread of its own, and waits for it. A panic goes on here.
///
/// # Errors
/// If the system refuses a thread.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let running = Builder::new().name("apart".to_owned()).spawn_scoped(scope, work)?;
        Ok(running.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_may_refer_to_what_was_there() {
        let here = thread::current().id();
        let text = String::from("text");
        let (there, part) = apart(|| (thread::current().id(), text.get(1..))).unwrap();
        assert_ne!(here, there);
        assert_eq!(part, Some("ext"));
    }

    #[test]
    fn a_panic_is_not_lost() {
        let outcome = std::panic::catch_unwind(|| apart(|| -> () { resume_unwind(Box::new(7)) }));
        assert_eq!(outcome.unwrap_err().downcast_ref::<i32>(), Some(&7));
    }
}
