//! The head of an HTTP/1 request as it came, for the one thing that hyper does not tell.
//!
//! Of a request with both `Content-Length` and `Transfer-Encoding` hyper takes the coding, drops the length, and closes the
//! connection afterwards, which is safe (RFC 9112 section 6.1). Envoy refuses such a request, and so do we: what it was
//! meant to be is in doubt. So the bytes that came since the last request ended are kept until the next one begins, and
//! looked at only if it has a coding.
//!
//! What a client sends ahead of our answer to the request before is not seen. Of such a request hyper's reading holds.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::transport::Tap;

/// Most bytes of a head that are kept.
const MOST: usize = 16 * 1024;

/// The bytes of a connection between two requests. One thread uses it; it is `Sync` because hyper asks for a `Send`
/// transport, so the lock is never contended.
#[derive(Debug)]
pub(crate) struct HeadTap {
    keeps: AtomicBool,
    head: Mutex<Vec<u8>>,
}

impl HeadTap {
    /// A tap that keeps the head that comes first.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { keeps: AtomicBool::new(true), head: Mutex::default() })
    }

    /// A request has begun: what comes now is its body.
    pub(crate) fn stop(&self) {
        self.keeps.store(false, Relaxed);
    }

    /// A request has ended: what comes now is a head.
    pub(crate) fn start(&self) {
        self.keeps.store(true, Relaxed);
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the head that was kept has a `Content-Length`.
    pub(crate) fn names_length(&self) -> bool {
        const NAME: &[u8] = b"content-length";
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        head.split(|byte| *byte == b'\n')
            .skip(1)
            .take_while(|line| !matches!(line, [] | [b'\r']))
            .any(|line| {
                line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
                    && line.get(NAME.len()) == Some(&b':')
            })
    }
}

impl Tap for HeadTap {
    fn read(&self, bytes: &[u8]) {
        if !self.keeps.load(Relaxed) {
            return;
        }
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST.saturating_sub(head.len()).min(bytes.len());
        head.extend_from_slice(&bytes[..room]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_found_in_the_head_and_not_behind_it() {
        for (pieces, expected) in [
            (&["POST / HTTP/1.1\r\nContent-", "Length: 5\r\n\r\n"][..], true),
            (&["POST / HTTP/1.1\r\nCONTENT-LENGTH:5\r\nHost: a\r\n\r\n"], true),
            (&["POST / HTTP/1.1\r\nHost: a\r\n\r\nContent-Length: 5\r\n"], false),
            (&["POST / HTTP/1.1\r\nX: Content-Length: 5\r\n\r\n"], false),
            (&["content-length: 1\r\nHost: a\r\n\r\n"], false),
        ] {
            let tap = HeadTap::new();
            pieces.iter().for_each(|piece| tap.read(piece.as_bytes()));
            assert_eq!(tap.names_length(), expected, "{pieces:?}");
        }
    }

    #[test]
    fn a_body_is_not_taken_for_a_head_nor_an_old_head_for_the_next() {
        let tap = HeadTap::new();
        tap.read(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n");
        tap.stop();
        tap.read(b"a\r\ncontent-length: 9\r\n");
        tap.start();
        tap.read(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(!tap.names_length());
    }
}
