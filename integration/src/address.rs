//! Loopback addresses that no other test, and no other test process, uses.
//!
//! All of 127.0.0.0/8 is local. Each call takes an address of its own from it, chosen by process id and a counter, so a
//! port found free stays free until the process under test binds it: connections leave from 127.0.0.1, and nobody else
//! listens on that address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A loopback address with a free TCP port.
///
/// # Errors
/// The system has no free port.
pub fn free() -> io::Result<SocketAddr> {
    let probe = TcpListener::bind((loopback(), 0))?;
    probe.local_addr()
}

/// An address of 127.0.0.0/8 that this process has not handed out before.
pub fn loopback() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    // 127.0.x.x is left to people who write addresses by hand.
    let second = 1 + (high & 0x3f) + 0x40 * u8::try_from(count / 250 % 3).unwrap_or_default();
    let last = 2 + u8::try_from(count % 250).unwrap_or_default();
    IpAddr::V4(Ipv4Addr::new(127, second, low, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_gives_a_bindable_address_of_its_own() {
        let first = free().unwrap();
        let second = free().unwrap();
        assert_ne!(first.ip(), second.ip());
        assert!(first.ip().is_loopback() && second.ip().is_loopback());
        TcpListener::bind(first).unwrap();
    }
}
