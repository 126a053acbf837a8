//! Where a connection was going to before the kernel redirected it to us.

use std::net::SocketAddr;

use socket2::SockRef;

use super::Found;
use crate::transport::Socket;

/// Asks the kernel, and restores the destination if it knows.
pub(super) fn restore(socket: &Socket, found: &mut Found) {
    let Some(local) = found.ends.local.socket() else { return };
    if let Some(destination) = destination(socket, local) {
        found.ends.local = destination.into();
        found.ends.is_restored = true;
    }
}

/// By NAT (`REDIRECT`), the destination stands in the table of connections. By TPROXY the socket itself has it.
fn destination(socket: &Socket, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(socket.tcp());
    let (by_nat, is_transparent) = if local.is_ipv4() {
        (socket.original_dst_v4(), socket.ip_transparent_v4())
    } else {
        (socket.original_dst_v6(), socket.ip_transparent_v6())
    };
    match by_nat {
        Ok(address) => address.as_socket(),
        // Not an error: the connection was not redirected, or nothing keeps track of connections here.
        Err(_) => matches!(is_transparent, Ok(true)).then_some(local),
    }
}
