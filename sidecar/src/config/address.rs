//! Addresses: of IP, and of Unix domain sockets.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

/// The longest path of a Unix domain socket, in bytes: what `sockaddr_un` holds with the zero behind it.
pub const MAX_PIPE_PATH: usize = 107;

/// Where a connection leads, or comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix domain socket. A path that begins with `@` is a name that has no file: one of Linux's abstract sockets.
    Pipe(Arc<str>),
}

impl Address {
    /// The IP address and port, if it has those.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Pipe(_) => None,
        }
    }

    /// The IP address, if it has one; an IPv4 address within an IPv6 one as the former.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip().to_canonical())
    }

    /// The port, if it has one.
    pub fn port(&self) -> Option<u16> {
        self.socket().map(|address| address.port())
    }
}

/// The path by which the system knows a Unix domain socket: an abstract one begins with a zero.
pub fn pipe_path(path: &str) -> PathBuf {
    let mut bytes = path.as_bytes().to_vec();
    if let Some(first @ b'@') = bytes.first_mut() {
        *first = 0;
    }
    OsString::from_vec(bytes).into()
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Self {
        Self::Ip(address.into())
    }
}

impl PartialEq<SocketAddr> for Address {
    fn eq(&self, other: &SocketAddr) -> bool {
        matches!(self, Self::Ip(address) if address == other)
    }
}

/// As Envoy prints it: `127.0.0.1:80`, `/run/a.sock`, `@name`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Pipe(path) => path.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn an_address_costs_no_more_than_one_of_ip() {
        assert_eq!(size_of::<Address>(), size_of::<SocketAddr>());
    }

    #[test]
    fn a_path_with_an_at_sign_in_front_has_no_file() {
        assert_eq!(pipe_path("@a/b").as_os_str().as_bytes(), b"\0a/b");
        assert_eq!(pipe_path("/a/@b").as_os_str().as_bytes(), b"/a/@b");
    }
}
